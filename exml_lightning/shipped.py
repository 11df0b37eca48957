"""Where the files are that ship with the package: `configs/`, and the experts of split_digits in `checkpoints/`.

They stand beside the package in a clone, and within it where it was installed from a wheel (`setup.py`).
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_PLACE = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent

CONFIGS = _PLACE / "configs"
CHECKPOINTS = _PLACE / "checkpoints"
