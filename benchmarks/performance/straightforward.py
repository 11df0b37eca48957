"""A straightforward implementation of Ex-Model Distillation by model inversion, to compare the package with.

Plain PyTorch as careful research code has it, and as much of the authors' own (AntonioCarta/ex_model_cl): all
images are one parameter, indexed anew for each mini-batch; each sample is changed by itself, by torchvision; the
backward pass of generating also computes the gradients of the expert's weights; mini-batches of distillation come from
a DataLoader with workers; every step reads its loss. The mathematics is the package's (tests/test_straightforward.py).
"""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import functional as transforms


@dataclass(frozen=True)
class Settings:
    """The paper's settings as far as they were published, else those of configs/split_mnist.yaml.

    Args:
        generator_steps: Adam steps an image.
        generator_lr: Learning rate of these.
        generator_batch_size: Images in a mini-batch, of which a step goes through all there are.
        temperature: Of the softmax.
        l2: Weight of the squared L2 norm.
        blur: Weight of the squared distance to the blurred image.
        shift: Largest displacement along each axis, as a fraction of the image's size.
        rotation: Largest rotation either way, in degrees.
        flip: Mirror half of the images.
        batch_size: Samples in a mini-batch of distillation.
        lr: Learning rate of Adam in distillation.
        lambda_ce: Weight of the cross-entropy.
        workers: Worker processes of the DataLoader.
    """

    generator_steps: int = 500
    generator_lr: float = 0.1
    generator_batch_size: int = 1024
    temperature: float = 2.0
    l2: float = 1e-4
    blur: float = 0.01
    shift: float = 0.06
    rotation: float = 10.0
    flip: bool = False
    batch_size: int = 128
    lr: float = 1e-3
    lambda_ce: float = 1.0
    workers: int = 2

    @property
    def changes_images(self) -> bool:
        """Whether there is anything to change."""
        return bool(self.shift or self.rotation or self.flip)

    def reach(self, height: int, width: int) -> int:
        """Return how far a change may move a pixel."""
        moved = self.shift + math.sin(math.radians(self.rotation) / 2)
        return math.ceil(moved * math.hypot(height, width)) + 1


class Change(NamedTuple):
    """What happens to an image: degrees clockwise, pixels to the right and down, then perhaps the mirror."""

    angle: float
    right: float
    down: float
    mirror: bool


def draw_change(settings: Settings, height: int, width: int) -> Change:
    """Draw a change from the global random state."""
    return Change(
        random.uniform(-settings.rotation, settings.rotation),
        random.uniform(-settings.shift, settings.shift) * width,
        random.uniform(-settings.shift, settings.shift) * height,
        settings.flip and random.random() < 0.5,
    )


def change_images(images: Tensor, changes: Sequence[Change], reach: int) -> Tensor:
    """Change each image in its own way, one after the other.

    Args:
        images: Float ``(n, channels, height, width)``.
        changes: One for each.
        reach: Pixels from which the border is repeated; see `Settings.reach`.

    Returns:
        Images of the same shape; pixels from outside repeat the border.
    """
    # torchvision fills with a constant, so the border is repeated first.
    padded = transforms.pad(images, [reach] * 4, padding_mode="edge")
    changed = []
    for image, change in zip(padded, changes, strict=True):
        moved = transforms.affine(
            image,
            angle=change.angle,
            translate=[change.right, change.down],
            scale=1.0,
            shear=[0.0, 0.0],
            interpolation=transforms.InterpolationMode.BILINEAR,
        )
        changed.append(transforms.hflip(moved) if change.mirror else moved)
    cropped: Tensor = transforms.center_crop(torch.stack(changed), list(images.shape[-2:]))
    return cropped


def blurred(images: Tensor) -> Tensor:
    """Blur images by a Gaussian 3x3 kernel, a convolution with a group a channel."""
    channels = images.shape[1]
    row = torch.tensor([1.0, 2.0, 1.0], device=images.device) / 4
    kernel = torch.outer(row, row).expand(channels, 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


class Inversion:
    """Images on their way from noise to what an expert is sure about.

    Args:
        expert: The network; its weights ask for gradients.
        own: The output units of the classes that it knows.
        images: Noise, float ``(n, channels, height, width)``.
        columns: The place in `own` of the class that each image is meant for, int64 ``(n,)``.
        limits: The least and the greatest value of each channel, ``(channels, 1, 1)``.
        settings: The settings.
    """

    def __init__(
        self,
        expert: nn.Module,
        own: Sequence[int],
        images: Tensor,
        columns: Tensor,
        limits: tuple[Tensor, Tensor],
        settings: Settings,
    ) -> None:
        self._expert, self._own, self._settings = expert.requires_grad_(True).eval(), list(own), settings
        self._columns, self._limits = columns, limits
        self.images = nn.Parameter(torch.clamp(images, *limits))
        self.optimizer = torch.optim.Adam([self.images], lr=settings.generator_lr)

    def step(self, changes: Sequence[Change] | None = None) -> float:
        """Make a step of Adam.

        Args:
            changes: What to change for this step, one for each image; default drawn.

        Returns:
            The loss of before, its sum over all images.
        """
        settings, (height, width) = self._settings, self.images.shape[-2:]
        changes = changes or [draw_change(settings, height, width) for _ in range(len(self.images))]
        self.optimizer.zero_grad()
        order = torch.randperm(len(self.images), device=self.images.device)
        total = 0.0
        for start in range(0, len(self.images), settings.generator_batch_size):
            rows = order[start : start + settings.generator_batch_size]
            images = self.images[order][start : start + settings.generator_batch_size]
            seen = images
            if settings.changes_images:
                seen = change_images(images, [changes[row] for row in rows.tolist()], settings.reach(height, width))
            logits = self._expert(seen)[:, self._own] / settings.temperature
            loss = F.cross_entropy(logits, self._columns[rows], reduction="sum")
            loss = loss + settings.l2 * (images * images).sum()
            loss = loss + settings.blur * ((images - blurred(images)) ** 2).sum()
            loss.backward()
            total += loss.item()
        self.optimizer.step()
        self.images.data.clamp_(*self._limits)
        return total


class BufferDataset(Dataset[tuple[Tensor, Tensor]]):
    """The buffer, each sample changed when it is asked for.

    Args:
        images: Float ``(n, channels, height, width)``, on the CPU.
        labels: Class indices, int64 ``(n,)``.
        settings: The settings.
    """

    def __init__(self, images: Tensor, labels: Tensor, settings: Settings) -> None:
        self._images, self._labels, self._settings = images, labels, settings

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        image = self._images[row]
        if self._settings.changes_images:
            height, width = image.shape[-2:]
            change = draw_change(self._settings, height, width)
            image = change_images(image[None], [change], self._settings.reach(height, width))[0]
        return image, self._labels[row]


class RandomBatches(Sampler[list[int]]):
    """Mini-batches, each from a fresh permutation of the whole buffer."""

    def __init__(self, size: int, batch_size: int, count: int) -> None:
        self._size, self._batch_size, self._count = size, batch_size, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        for _ in range(self._count):
            yield torch.randperm(self._size).tolist()[: self._batch_size]


def make_loader(
    images: Tensor, labels: Tensor, settings: Settings, count: int, device: torch.device
) -> DataLoader[tuple[Tensor, Tensor]]:
    """Make a DataLoader of `count` mini-batches from the buffer; its workers stay for the next `count`."""
    return DataLoader(
        BufferDataset(images.cpu(), labels.cpu(), settings),
        batch_sampler=RandomBatches(len(images), settings.batch_size, count),
        num_workers=settings.workers,
        persistent_workers=settings.workers > 0,
        pin_memory=device.type == "cuda",
    )


class Distillation:
    """A student learning one expert.

    Args:
        student: The ex-model, a unit a class; trained in place.
        expert: The expert's network.
        own: The classes that it knows, which are its output units, too.
        previous: The previous ex-model; None for the first expert.
        seen: The classes that this one knows.
        settings: The settings.
    """

    def __init__(
        self,
        student: nn.Module,
        expert: nn.Module,
        own: Sequence[int],
        previous: nn.Module | None,
        seen: Sequence[int],
        settings: Settings,
    ) -> None:
        self._student, self._expert, self._previous = student.train(), expert.eval(), previous
        self._own, self._seen, self._known = list(own), list(seen), sorted({*own, *seen})
        self._lambda_ce = settings.lambda_ce
        self._device = next(student.parameters()).device
        self._places = torch.full((max(self._known) + 1,), -1, device=self._device)
        self._places[self._known] = torch.arange(len(self._known), device=self._device)
        self.optimizer = torch.optim.Adam(student.parameters(), lr=settings.lr)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Make a step on a mini-batch, and return its loss (Eq. 11)."""
        images, labels = images.to(self._device), labels.to(self._device)
        self.optimizer.zero_grad()
        logits = self._student(images)
        target = self._target(images, torch.zeros_like(logits))
        loss = F.mse_loss(logits[:, self._known], target[:, self._known])
        loss = loss + self._lambda_ce * F.cross_entropy(logits[:, self._known], self._places[labels])
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def _target(self, images: Tensor, target: Tensor) -> Tensor:
        target[:, self._own] += _centred(self._expert(images)[:, self._own])
        if self._previous is not None:
            target[:, self._seen] += _centred(self._previous(images)[:, self._seen])
            both = sorted({*self._own} & {*self._seen})
            target[:, both] *= 0.5
        return target


def _centred(logits: Tensor) -> Tensor:
    return logits - logits.mean(dim=1, keepdim=True)
