"""Experts that are broken: found before work begins, and passed over if that is wanted."""

import logging
from collections.abc import Callable

import torch

from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_answers
from exml_lightning.data import ExpertStream

log = logging.getLogger(__name__)


def check_experts(stream: ExpertStream, check: Callable[[Expert], None]) -> None:
    """Read every expert still to be learned once, one at a time; the files of those learned before are not needed.

    Args:
        stream: The stream.
        check: Called with each of them; raises if it will not do.

    Raises:
        ExmlError: If there are too few experts, one is missing or broken, or none is left.
    """
    sound = stream.completed - len(stream.skipped)
    for index in range(stream.completed, stream.num_experts):
        try:
            expert = stream.load_expert(index, torch.device("cpu"))
            check_answers(expert)
            check(expert)
            sound += 1
            del expert  # else it would stay in memory while the next one is read
        except BrokenExpertError as error:
            pass_over(stream, error)
    if not sound:
        raise ExmlError(f"{stream.experts} has no expert that can be learned: all are broken")


def pass_over(stream: ExpertStream, error: BrokenExpertError) -> None:
    """Go on without an expert, with a warning, if that is wanted.

    Args:
        stream: Says whether it is.
        error: What is wrong with the expert.

    Raises:
        ExmlError: If it is not.
    """
    if not stream.skip_broken:
        raise ExmlError(
            f"{error}; put a sound expert in its place, in manifest.yaml too, or learn the others without it by "
            "--data.skip_broken true"
        ) from error
    log.warning("%s: it is skipped", error)
