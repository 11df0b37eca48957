"""The error for whatever a user can put right, and the words of its message."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, which could rewrite a terminal, and halves of characters, which no file can hold."""
SHOWN = 5


class ExmlError(ValueError):
    """Bad input: the message names the file or the key, and the remedy.

    The command line prints the message in one line and exits with status 1; no traceback.

    Example:
        >>> from exml_lightning import ExmlError, load_ex_model
        >>> try:
        ...     load_ex_model("nowhere")
        ... except ExmlError as error:
        ...     print(error)
        nowhere/manifest.yaml is missing: there are no experts in this folder
    """


class BrokenExpertError(ExmlError):
    """An expert whose weights or answers are NaN, infinite or always the same."""

    def __str__(self) -> str:
        """Say what is wrong, and what to do."""
        return f"{super().__str__()}; put a sound expert in its place, in manifest.yaml too"


def one_line(error: Exception) -> str:
    """Put what an error says on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def foreign_code(name: str, doing: str, remedy: str) -> Iterator[None]:
    """Turn whatever the body raises, which runs a network or a generator of anyone's, into an `ExmlError` of one line.

    One that is an `ExmlError` passes. `name` is the expert, with its file, or what else is to blame; `doing` what did
    not work.
    """
    try:
        yield
    except ExmlError:
        raise
    except Exception as error:
        said = printable(one_line(error), 200)
        raise ExmlError(f"{name}: {doing} ended in {type(error).__name__} ({said}): {remedy}") from error


def shown(values: Iterable[object]) -> str:
    """Name the first few, cut to a length that a message can have."""
    several = [repr(value)[:60] for value in values]
    return ", ".join(several[:SHOWN]) + (f" and {len(several) - SHOWN} more" if len(several) > SHOWN else "")


def printable(words: str, length: int = 80) -> str:
    """Cut words of a stranger for a message of one line, with ``?`` for what would not stay on it."""
    return UNPRINTABLE.sub("?", words[:length])
