"""`ExModel`: an ex-model, or any expert of a folder, as one `nn.Module` that takes plain pixels; loading and saving."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import Manifest, load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.manifest import FILE_NAME

WEIGHTS = "expert_0.safetensors"
"""What `save_ex_model` calls the weights, as `exml fit` does."""
SAVED = "saved_from_python"
"""Marks, in the ``training`` of a manifest, what another call of `save_ex_model` may replace."""
OVERSHOOT = 0.5
"""How far beyond [0, 1] floats may be: cubic interpolation makes -0.45 and 1.45 of black and white, at the worst."""
MOST_NORMALISED = 20.0
"""Floats beyond this were never normalised: white is a few standard deviations from the mean."""


class ExModel(nn.Module):
    """A classifier with all that it takes to use it: normalisation, and the names of its classes.

    `load_ex_model` and `distil` make one. Its weights are those of `network`, an ordinary `nn.Module`: it can be moved
    to a GPU, trained further, compiled and exported like any other.

    Args:
        network: Maps normalised images ``(n, channels, height, width)`` to logits ``(n, units)``.
        manifest: Describes it, and nothing else: a manifest with one expert.

    Example:
        >>> import torch
        >>> from exml_lightning import ExModel, load_ex_model
        >>> model: ExModel = load_ex_model("checkpoints/split_digits/run0", expert=0)
        >>> model.classes, model.image_shape
        (('5', '4'), (1, 32, 32))
        >>> pixels = torch.randint(0, 256, (7, 1, 32, 32), dtype=torch.uint8)
        >>> model(pixels).shape
        torch.Size([7, 2])
        >>> torch.equal(model(pixels), model(pixels / 255))
        True
    """

    mean: Tensor
    std: Tensor
    units: Tensor

    def __init__(self, network: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        (entry,) = manifest.experts
        self.network = network
        self.manifest = manifest
        for name, values in {"mean": manifest.input.mean, "std": manifest.input.std}.items():
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        self.register_buffer("units", torch.tensor(entry.outputs), persistent=False)
        self._has_looked = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes it knows, in the order of the logits."""
        return self.manifest.experts[0].classes

    @property
    def rejection_threshold(self) -> float | None:
        """The probability of `none_of_these` from which on an image is of none of the classes; None if not taught."""
        threshold = self.manifest.experts[0].training.get("none_of_these")
        return threshold if isinstance(threshold, float) else None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images it takes."""
        return self.manifest.input.shape

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits. Gradients flow to `images` where they are floats.

        Args:
            images: Pixels ``(n, *image_shape)``: uint8 in ``[0, 255]``, or floats in ``[0, 1]`` (what interpolation
                adds to these may go beyond); not normalised.

        Returns:
            Logits ``(n, len(classes))`` in the order of `classes`; their softmax are probabilities.

        Raises:
            ExmlError: If the images have another shape, are neither uint8 nor floats, or are floats of another range.
                Floats are not looked at in a compiled or exported model, nor under `torch.vmap`, nor, since a GPU has
                to be waited for, on one after a batch that was right.
        """
        if images.ndim != 4 or tuple(images.shape[1:]) != self.image_shape:
            raise ExmlError(
                f"images have shape {list(images.shape)}: give [n, {', '.join(map(str, self.image_shape))}], for "
                "instance by torchvision.transforms.v2.Resize"
            )
        if images.dtype == torch.uint8:
            images = images / 255
        elif not images.is_floating_point():
            raise ExmlError(f"images are {images.dtype}: give uint8 in [0, 255], or floats in [0, 1]")
        else:
            self._check_range(images.detach())
        logits: Tensor = self.network((images.to(self.mean.dtype) - self.mean) / self.std)
        return logits[:, self.units]

    def _check_range(self, images: Tensor) -> None:
        """Refuse floats that are no pixels in ``[0, 1]``, where there are values and they can be looked at."""
        if torch.compiler.is_compiling() or not images.numel():
            return
        if images.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        if images.device.type != "cpu" and self._has_looked:
            return
        try:
            least, most = torch.stack(images.aminmax()).tolist()
        except RuntimeError:  # of tensors without values: on meta, fake, or one of a batch under vmap
            return
        if not (least < -OVERSHOOT or most > 1 + OVERSHOOT):
            self._has_looked = True
            return
        if least < 0 and most <= MOST_NORMALISED:
            remedy = "they are normalised, it seems, which the ex-model does itself: give them as they were before"
        else:
            remedy = "divide them by the largest value that a pixel can have, 255 as a rule, or give uint8 in [0, 255]"
        raise ExmlError(f"images have values from {least:g} to {most:g}, not floats in [0, 1]: {remedy}")


def read_chosen(folder: Path, expert: int | None = None, task: int | None = None) -> Manifest:
    """Read the manifest of a folder and choose one of its experts; its weights are not looked at.

    `expert` is its place, from 0; None for the only one, or the one of `task`: whose head, for the ex-model of a
    multi-task stream; None for any. The manifest has this expert alone, and its images as those of the stream.

    Raises:
        ExmlError: If there is no such expert, or more than one; names those there are.
    """
    if not (folder / FILE_NAME).is_file() and (folder / "ex_model" / FILE_NAME).is_file():
        raise ExmlError(f"{folder} is a run folder: its ex-model is {folder / 'ex_model'}")
    manifest = read_manifest(folder)
    entries = list(enumerate(manifest.experts))
    found = [entry for i, entry in entries if expert in (None, i) and task in (None, entry.task)]
    if len(found) != 1:
        asked = [f"{name} {value}" for name, value in (("expert", expert), ("task", task)) if value is not None]
        said = f"there is no {' of '.join(asked)}:" if asked and not found else "which of them?"
        known = "; ".join(f"{i}: {e.file}, task {e.task}, classes {' '.join(e.classes)}" for i, e in entries)
        raise ExmlError(
            f"{folder / FILE_NAME} has {len(entries)} experts; {said} give --expert K (in Python expert=K) ({known})"
        )
    (entry,) = found
    return replace(manifest, input=entry.input or manifest.input, experts=(replace(entry, input=None),))


def load_chosen(folder: Path, manifest: Manifest) -> ExModel:
    """Read the weights of what `read_chosen` has chosen; see `load_ex_model`."""
    return ExModel(load_expert(folder, manifest, 0).model.requires_grad_(True), manifest).eval()


def load_ex_model(path: str | Path, task: int | None = None, expert: int | None = None) -> ExModel:
    """Read an ex-model, or any expert of a folder.

    Args:
        path: The ``ex_model/`` folder of a run, what `save_ex_model` or `exml export` wrote, or another folder of
            experts.
        task: Which head, where the ex-model of a multi-task stream has one for each task; else None.
        expert: Which expert, from 0, where a folder has several; else None.

    Returns:
        The ex-model, on the CPU, in eval mode.

    Raises:
        ExmlError: If there is no such folder, expert or task, there are several and none is chosen, or a file is not
            as the manifest says (its hash, names and shapes of weights, NaN). Nothing in it is unpickled or run.

    Example:
        >>> from exml_lightning import load_ex_model
        >>> load_ex_model("checkpoints/split_digits/run0", expert=4).classes
        ('0', '3')
    """
    folder = Path(path)
    return load_chosen(folder, read_chosen(folder, expert, task))


def save_ex_model(ex_model: ExModel, path: str | Path) -> None:
    """Write an ex-model as a folder of experts with one expert in it: ``manifest.yaml`` and safetensors.

    `load_ex_model` gives it back bit for bit; the folder serves `exml predict` and `exml export`, and as an expert of
    another stream.

    Args:
        ex_model: What to write, whatever device it is on.
        path: The folder; made where it is missing. What an earlier call wrote there is replaced.

    Raises:
        ExmlError: If the folder holds other experts, or cannot be written.

    Example:
        >>> import tempfile
        >>> from exml_lightning import load_ex_model, save_ex_model
        >>> model = load_ex_model("checkpoints/split_digits/run0", expert=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_ex_model(model, folder)
        ...     load_ex_model(folder).classes
        ('5', '4')
    """
    folder = Path(path)
    (entry,) = ex_model.manifest.experts
    if (folder / FILE_NAME).exists():
        there = read_manifest(folder).experts
        if len(there) > 1 or there[0].file != WEIGHTS or there[0].training.get(SAVED) is None:
            raise ExmlError(f"{folder} is a folder of other experts: name another one")
    digest = save_weights(ex_model.network, folder / WEIGHTS)
    same = digest == entry.sha256  # else it was trained further, or is another copy: nobody has measured these weights
    training = {**entry.training, SAVED: True}
    entry = replace(
        entry, file=WEIGHTS, weights=None, sha256=digest, accuracy=entry.accuracy if same else None, training=training
    )
    write_manifest(replace(ex_model.manifest, experts=(entry,)), folder)
