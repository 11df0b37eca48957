"""`export_ex_model`: the folder that `exml export` writes, whole and checked, or not at all."""

import re
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.export.card import config_json, model_card, read_figures
from exml_lightning.ex_model.export.onnx_file import Comparison, check_packages, compare, write_onnx
from exml_lightning.ex_model.model import load_chosen, read_chosen
from exml_lightning.experts import read_manifest, save_weights, write_manifest
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.files import check_folder, write_text, write_whole
from exml_lightning.report.samples import read_samples
from exml_lightning.scenarios.image_files import image_files, read_image

T = TypeVar("T")
WEIGHTS, ONNX = "model.safetensors", "model.onnx"
FILES = ("README.md", "config.json", WEIGHTS, ONNX, FILE_NAME)
HUB_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
"""What can name a licence on the Hub."""
MOST_IMAGES = 256
"""That are compared; of more, some from all over the folder."""


@dataclass(frozen=True)
class Export:
    """What was written: files, by name, in a folder.

    `comparison` is how the ONNX file answered, beside PyTorch, None without such a file; `license` the licence that is
    stated, None for none.
    """

    folder: Path
    files: tuple[str, ...]
    comparison: Comparison | None
    license: str | None


def export_ex_model(
    path: str | Path,
    output: str | Path | None = None,
    expert: int | None = None,
    check: str | Path | None = None,
    license: str | None = None,
    onnx: bool = True,
) -> Export:
    """Write an ex-model, or any expert of a folder, in the layout of the Hugging Face Hub; what `exml export` does.

    ``README.md`` (a model card), ``config.json``, ``model.safetensors``, ``model.onnx`` (pixels in [0, 1] to logits,
    any number of images) and ``manifest.yaml``, so that `load_ex_model` reads the folder. The ONNX file is compared
    with PyTorch before anything is put in place.

    Args:
        path: A folder of experts, for instance the ``ex_model/`` of a run, whose results the card then has.
        output: Folder to write to, default `path` with ``_export`` after it; an earlier export there is replaced, other
            files stay.
        expert: Which expert, from 0, where the folder has several.
        check: Images to compare answers on: a folder, or one file; None for the samples of the run.
        license: The model's licence, as the Hub names it (``apache-2.0``); None for the manifest's, if any.
        onnx: Whether ``model.onnx`` is written; without it, no images are needed.

    Returns:
        What was written.

    Raises:
        ExmlError: If a package, an expert or images are missing, `output` holds files of something else, the network
            cannot be written as ONNX, or answers differently there. Nothing is left behind.

    Example:
        >>> from exml_lightning import export_ex_model
        >>> export_ex_model("checkpoints/split_digits/run0", expert=9)
        Traceback (most recent call last):
        exml_lightning.core.errors.ExmlError: checkpoints/split_digits/run0/manifest.yaml has 5 experts; there is no ...
    """
    folder = Path(path)
    if folder.name in ("", ".."):  # the current folder, or one above it
        folder = folder.resolve()
    manifest = read_chosen(folder, expert)
    target = folder.with_name(f"{folder.resolve().name}_export") if output is None else Path(output)
    _check_output(target)
    if license is not None and not HUB_LICENSE.fullmatch(license):
        raise ExmlError(f"--license {license!r}: give a name of the Hub's list, for instance apache-2.0, or other")
    if check is not None and not onnx:
        raise ExmlError("--check names images that model.onnx is compared on: leave it out beside --no_onnx")
    check_packages(onnx)
    images = _find_images(folder, None if check is None else Path(check), manifest.input.shape) if onnx else None
    one_head = len(read_manifest(folder).experts) == 1  # figures of a run are of all heads
    figures = read_figures(folder, manifest) if one_head else {}
    ex_model = load_chosen(folder, manifest)
    with tempfile.TemporaryDirectory(prefix="exml-export-") as made:
        part, comparison = Path(made), None
        if images is not None:
            write_onnx(ex_model, part / ONNX)
            comparison = compare(ex_model, part / ONNX, *images)
        digest = save_weights(ex_model.network, part / WEIGHTS)
        license = license or manifest.experts[0].license
        entry = replace(manifest.experts[0], file=WEIGHTS, weights=None, sha256=digest, license=license)
        write_text(part / "config.json", config_json(ex_model))
        write_text(part / "README.md", model_card(ex_model, figures, comparison, license))
        write_manifest(replace(manifest, experts=(entry,)), part)
        names = tuple(name for name in FILES if onnx or name != ONNX)
        for name in names:  # the manifest last: without it, nobody takes the folder for an ex-model
            write_whole(target / name, partial(shutil.copyfile, part / name))
        if not onnx:
            (target / ONNX).unlink(missing_ok=True)  # of an earlier export
    return Export(target, names, comparison, license)


def _check_output(target: Path) -> None:
    """Refuse a folder in which files of something else would be replaced."""
    check_folder(target, "output")
    there = [name for name in FILES if (target / name).exists()]
    if there and len({*there, ONNX}) < len(FILES):
        raise ExmlError(
            f"{target} has a {there[0]} that is of no earlier export: name another folder with --output DIR"
        )


def _find_images(folder: Path, check: Path | None, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """Read images to compare on, uint8 ``(n, *shape)``, and say where they are from; `ExmlError` if there are none.

    Those of `check`, fitted as `exml predict` does, or the samples of the run.
    """
    if shape[0] not in (1, 3):
        raise ExmlError(f"the images have {shape[0]} channels: grey (1) or RGB (3) ones can be exported")
    if check is not None:
        files = [str(check)] if check.is_file() else image_files(check)
        read = (read_image(file, shape) for file in _some(files))
        found = [image for image in read if isinstance(image, Tensor)]
        if not found:
            raise ExmlError(f"--check {check} has no image that can be read: name a folder of images, or one image")
        return torch.stack(found), "given by --check"
    paths = sorted((folder.parent / "samples").glob("experience=*.png")) if folder.name == "ex_model" else []
    found = _some([image for path in paths for image in _samples(path, shape)])
    if not found:
        raise ExmlError(f"{folder} has no samples of a run beside it: give images of the ex-model's kind, --check DIR")
    return torch.stack(found), "samples of the run's buffer"


def _some(items: list[T]) -> list[T]:
    return items[:: -(-len(items) // MOST_IMAGES) or 1]


def _samples(path: Path, shape: tuple[int, int, int]) -> list[Tensor]:
    images = torch.from_numpy(read_samples(path).images.copy()).flatten(0, 1).permute(0, 3, 1, 2)
    if tuple(images.shape[2:]) != shape[1:]:
        return []
    return [image[: shape[0]] for image in images if not bool((image == 255).all())]  # white ones fill places
