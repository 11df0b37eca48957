"""Where the files are that ship with the package: `configs/`, and the experts of split_digits.

They stand beside the package in a clone, and within it where it was installed from a wheel (`setup.cfg`).
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_PLACE = _PACKAGE if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent

CONFIGS = _PLACE / "configs"
EXPERTS = _PLACE / "checkpoints" / "split_digits" / "run0"
"""Those of run 0."""


def found_experts(folder: Path) -> Path:
    """Return a scenario's own folder of experts, or where it is not there, the one of that name and run that ships.

    Args:
        folder: ``checkpoints/SCENARIO/runK``.
    """
    shipped = folder.parts[-2:] == EXPERTS.parts[-2:] and EXPERTS.is_dir()
    return EXPERTS if shipped and not folder.exists() else folder
