"""What a person says of weight files that are to become experts (`exml manifest`)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.core.images import IMAGENET, ImageFormat
from exml_lightning.core.logits import Returns
from exml_lightning.experts.state_dict import INDEX

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pth.tar", ".th", f".safetensors{INDEX}", f".bin{INDEX}")
"""Of the files that are taken for weights where none are named."""
NO_CLASS = "-"
"""Stands for an output unit that is no class."""
NAME_ALL = f"name each output unit, in their order, {NO_CLASS!r} for one that is no class"


@dataclass(frozen=True)
class NewExperts:
    """What files do not say of the experts in them; the same for all experts of one call.

    Args:
        architecture: Dotted path of an `nn.Module` class, or of a function annotated to return one; None for what the
            ``config.json`` of transformers or timm says, with all else that it and its neighbours say.
        init_args: Its keyword arguments; ``num_classes`` is filled in where it takes one.
        classes: A name for each output unit, ``-`` for a unit that is no class; None to read ``<stem>.txt`` beside each
            file, one name a line.
        size: Height and width of the images, or one number for both; None for those of the stream.
        channels: Of the images; None for those of the network's first convolution.
        mean: Of each channel, or one value for all; with `std`. None for the stream's where the stream has as many
            channels, else ImageNet's for three channels and 0.5 for others.
        std: See `mean`.
        files: Files of the folder; None for all weight files that the manifest does not list, in natural order.
        classifier: Dotted name of the last linear layer; None to look for it.
        task: Task label.
        accuracy: On its own classes, 0 to 1; None if unknown.
        license: An SPDX identifier, or a few words; None if it is not stated.
        scenario: Name of a new stream; None for that of the folder.
        keep: The classes that are to be learned, of `classes`; None for all.
        drop: The classes that are not to be learned.
        outputs: What the network returns: logits, probabilities (softmax) or sigmoid; None to tell by what it returns.
        weights: Which of the weights in a file; see `find_weights`.

    Example:
        >>> from exml_lightning import NewExperts
        >>> NewExperts("torchvision.models.resnet18", classes=("cat", "dog"), size=(32,)).classes
        ('cat', 'dog')
    """

    architecture: str | None = None
    init_args: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    size: tuple[int, ...] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    files: tuple[str, ...] | None = None
    classifier: str | None = None
    task: int = 0
    accuracy: float | None = None
    license: str | None = None
    scenario: str | None = None
    keep: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    outputs: Returns | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and len(self.size) not in (1, 2):
            raise ExmlError(f"--size {' '.join(map(str, self.size))}: give one number, or height and width")
        if (self.mean is None) != (self.std is None):
            raise ExmlError("give --mean and --std, or neither")
        if self.mean is not None and not all(0 <= value <= 1 for value in self.mean):
            raise ExmlError(f"--mean {' '.join(map(str, self.mean))}: give that of pixels in [0, 1] (divide by 255)")

    def unit_names(self, path: Path) -> tuple[str, ...]:
        """Return a name for each output unit of a file; - for one that is no class, or not to be learned."""
        suffix = max((end for end in SUFFIXES if path.name.endswith(end)), key=len, default=path.suffix)
        beside = path.with_name(f"{path.name.removesuffix(suffix)}.txt")
        where, names = "--classes", self.classes
        if names is None:
            if not beside.is_file():
                given = f"Give --classes, or {beside.name} beside it with one name a line"
                raise ExmlError(f"which classes does it know? {given}; {NAME_ALL}")
            try:
                where, names = str(beside), tuple(beside.read_text(encoding="utf-8-sig").rstrip().splitlines())
            except UnicodeDecodeError as error:
                raise ExmlError(f"{beside}, its class names, is not UTF-8 text ({error})") from error
        names = tuple(name.strip() for name in names)
        known = [name for name in names if name != NO_CLASS]
        if not known or not all(known):
            raise ExmlError(f"{where} leaves a name empty: {NO_CLASS!r} stands for a unit that is no class")
        if twice := sorted({name for name in known if known.count(name) > 1}):
            raise ExmlError(f"{where} names {', '.join(twice)} twice: a class is one output unit")
        chosen = known if self.keep is None else self.keep
        if unknown := [name for name in (*chosen, *self.drop) if name not in known]:
            raise ExmlError(
                f"--keep or --drop names [{shown(unknown)}], which is not among the classes [{shown(known)}]"
            )
        names = tuple(name if name in chosen and name not in self.drop else NO_CLASS for name in names)
        if not any(name != NO_CLASS for name in names):
            raise ExmlError("--keep and --drop leave no class: an expert knows one or more")
        return names

    def images(self, before: ImageFormat | None, channels: int) -> ImageFormat:
        """Return the images: what is said of them, and what those of other experts are where nothing is."""
        size = self.size or (before.shape[1:] if before else None)
        if size is None:
            raise ExmlError("which images does it take? Give --size, their height and width, for instance --size 32")
        if self.mean is not None and self.std is not None:
            mean, std = (values * channels if len(values) == 1 else values for values in (self.mean, self.std))
        elif before is not None and before.shape[0] == channels:
            mean, std = before.mean, before.std
        else:
            mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
        return ImageFormat((channels, size[0], size[-1]), mean, std)
