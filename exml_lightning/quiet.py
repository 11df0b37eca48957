"""What Lightning says that is not so here, or is on purpose, is not said."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

NOT_SO = (
    ".*exists and is not empty.*",
    ".*in eval mode at the start of training.*",
    ".*does not have many workers.*",
    ".*args parameter is intended to run from within Python.*",
    ".*smaller than the logging interval.*",
    ".*Total length of .list. across ranks is zero.*",
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave these warnings and Lightning's tips out in the body; it is imported there first, if it was not before."""
    with warnings.catch_warnings():
        for message in NOT_SO:
            warnings.filterwarnings("ignore", message=message)
        import lightning.pytorch  # noqa: F401 - it sets the level of its own log

        log = logging.getLogger("lightning.pytorch")
        before = log.level
        log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            log.setLevel(before)
