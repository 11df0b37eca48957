"""The error for whatever a user can put right."""


class ExmlError(ValueError):
    """Bad input: the message names the file or the key, and the remedy.

    The command line prints the message in one line and exits with status 1; no traceback.
    """
