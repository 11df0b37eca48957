"""The error for whatever a user can put right."""


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
    """An expert whose weights or answers are NaN, infinite or always the same; a stream may go on without it."""


def one_line(error: Exception) -> str:
    """Put what an error says on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
