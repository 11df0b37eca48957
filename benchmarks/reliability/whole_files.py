"""Which files of a folder are not whole."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from exml_lightning.experts import read_manifest
from exml_lightning.experts.weights import sha256


def broken_files(folder: Path) -> list[str]:
    """Read every file below a folder that has a final name.

    Args:
        folder: The folder. Hidden files, which are not yet finished, and temporary files (``tmp/``) are left out.

    Returns:
        A line for each file that cannot be read to its end.
    """
    broken = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or path.name.startswith(".") or inside.parts[0] == "tmp":
            continue
        try:
            READERS[path.suffix](path)
        except Exception as error:  # whatever a reader may raise
            broken.append(f"{inside}: {type(error).__name__} {error}")
    return broken


def unfinished_files(folder: Path) -> list[str]:
    """Return the files below a folder that were begun and never given their names."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if ".part." in path.name)


def _read_csv(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(text.splitlines()))
    if not text.endswith("\n") or len({len(row) for row in rows}) != 1:
        raise ValueError("its rows differ in length, or the last one has no end")


def _read_yaml(path: Path) -> None:
    if path.name != "manifest.yaml":
        if not isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict):
            raise ValueError("no mapping")
        return
    for entry in read_manifest(path.parent).experts:
        if sha256(path.parent / entry.file) != entry.sha256:
            raise ValueError(f"{entry.file} has another hash")


def _read_image(path: Path) -> None:
    with Image.open(path) as image:
        image.load()


READERS: dict[str, Callable[[Path], object]] = {
    ".ckpt": lambda path: torch.load(path, map_location="cpu", weights_only=True),
    ".safetensors": load_file,
    ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
    ".csv": _read_csv,
    ".yaml": _read_yaml,
    ".png": _read_image,
}
