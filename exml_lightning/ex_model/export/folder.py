"""`export_ex_model`: the folder that `exml export` writes, whole and checked, or not at all."""

import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.export.card import HUB_LICENSE, config_json, model_card
from exml_lightning.ex_model.export.compare import Comparison, compare, find_images
from exml_lightning.ex_model.export.onnx_file import check_packages, write_onnx
from exml_lightning.ex_model.export.results import read_results
from exml_lightning.ex_model.model import load_chosen, read_chosen
from exml_lightning.experts import read_manifest, save_weights, write_manifest
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.files import check_folder, write_text, write_whole

WEIGHTS, ONNX = "model.safetensors", "model.onnx"
FILES = ("README.md", "config.json", WEIGHTS, ONNX, FILE_NAME)


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        folder: Where.
        files: Names of the files.
        comparison: How the ONNX file answered, beside PyTorch.
        license: The licence that is stated; None for none.
    """

    folder: Path
    files: tuple[str, ...]
    comparison: Comparison
    license: str | None


def export_ex_model(
    path: str | Path,
    output: str | Path | None = None,
    expert: int | None = None,
    check: str | Path | None = None,
    license: str | None = None,
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
    check_packages()
    images, source = find_images(folder, None if check is None else Path(check), manifest.input.shape)
    one_head = len(read_manifest(folder).experts) == 1  # figures of a run are of all heads
    results = read_results(folder, manifest) if one_head else None
    ex_model = load_chosen(folder, manifest)
    with tempfile.TemporaryDirectory(prefix="exml-export-") as made:
        part = Path(made)
        write_onnx(ex_model, part / ONNX)
        comparison = compare(ex_model, part / ONNX, images, source)
        digest = save_weights(ex_model.network, part / WEIGHTS)
        license = license or manifest.experts[0].license
        entry = replace(manifest.experts[0], file=WEIGHTS, sha256=digest, license=license)
        write_text(part / "config.json", config_json(ex_model))
        write_text(part / "README.md", model_card(ex_model, results, comparison, license))
        write_manifest(replace(manifest, experts=(entry,)), part)
        for name in FILES:  # the manifest last: without it, nobody takes the folder for an ex-model
            write_whole(target / name, partial(shutil.copyfile, part / name))
    return Export(target, FILES, comparison, license)


def _check_output(target: Path) -> None:
    """Refuse a folder in which files of something else would be replaced."""
    check_folder(target, "output")
    there = [name for name in FILES if (target / name).exists()]
    if there and len(there) < len(FILES):
        raise ExmlError(
            f"{target} has a {there[0]} that is of no earlier export: name another folder with --output DIR"
        )
