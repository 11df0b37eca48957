"""``python -m exml_lightning.cli.sweep.child PARENT WORDS`` becomes ``exml WORDS``, which ends when PARENT does."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of `prctl`, in Linux's prctl.h; what it sets outlives `os.execv`."""


def main() -> None:
    """Ask Linux for SIGTERM at the death of the parent, then turn into the command; elsewhere only the latter."""
    parent, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "exml_lightning", *words])


if __name__ == "__main__":
    main()
