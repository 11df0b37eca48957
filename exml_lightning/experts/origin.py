"""Where the code of an architecture comes from: never from where its weights come from."""

import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path

from exml_lightning.core.errors import ExmlError

INSTALLED = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
"""Where installed packages are: what is there is trusted, whatever the folder of experts is."""


def check_origin(class_path: str, folder: Path) -> None:
    """Refuse, by `ExmlError`, an architecture whose code lies in the folder of experts, or in a package around it.

    Nothing is imported, and what is imported already is not looked at. The working directory can be imported from, so a
    folder of weights in it, or the directory itself, could bring code.
    """
    parts = class_path.split(".")[:-1]
    path: Iterable[str] | None = None
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        if name in sys.modules:
            path = getattr(sys.modules[name], "__path__", None)
        elif spec := _find(name, None if path is None else list(path)):
            path = spec.submodule_search_locations
            for place in [*([spec.origin] if spec.has_location and spec.origin else []), *(path or [])]:
                together = _inside(place, folder) or _inside(str(folder), Path(place))
                if together and not any(_inside(place, Path(installed)) for installed in INSTALLED):
                    raise ExmlError(
                        f"architecture class_path {class_path!r} is code beside the experts ({place}), which is not "
                        "run: if you trust it, move it to where Python finds it, apart from the folder of experts"
                    )
        else:
            return
        if path is None:
            return


def _find(name: str, path: list[str] | None) -> ModuleSpec | None:
    try:
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        return next((spec for spec in found if spec is not None), None)
    except KeyError:  # a package without __init__.py, in one that is not imported: Python cannot say where it is
        spec = ModuleSpec(name, None, is_package=True)
        folders = [Path(place, name.rpartition(".")[2]) for place in path or []]
        spec.submodule_search_locations = [str(folder) for folder in folders if folder.is_dir()]
        return spec


def _inside(place: str, folder: Path) -> bool:
    """Whether a file or folder is in another, with links followed or not."""
    whole = os.path.abspath(place), os.path.realpath(place)  # noqa: PTH100 - the first must not follow links
    roots = os.path.abspath(folder), os.path.realpath(folder)  # noqa: PTH100
    return any(Path(a).is_relative_to(b) for a, b in zip(whole, roots, strict=True))
