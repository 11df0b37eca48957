"""Makes the zoo: three nets of torchvision that were trained apart, and labelled test photos.

    python -m benchmarks.zoo.make [--root data] [--folder runs/zoo] [--images 1500]

Trains each net of `NETS` from scratch on its classes of CIFAR10 and writes its state dict and, by `exml manifest`, its
entry in the manifest into FOLDER/experts; then FOLDER/labelled, a sub-folder a class. Weights that are there are kept,
so it goes on where it was stopped. A quarter of an hour of one core.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from exml_lightning.cli.main import main as exml
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.rng import derive_seed, keyed_generator
from exml_lightning.experts.architecture import Architecture, last_linear
from exml_lightning.scenarios import CIFAR10

CHANGES = Augmentation(shift=0.1, flip=True)
BATCH, RATE = 64, 3e-3
LABELLED, MEASURED = 150, 500
"""Test photos of each class: those that are written, and the next ones, which measure an expert when it is made."""


@dataclass(frozen=True)
class Net:
    """An expert of the zoo, as its owner would describe it.

    Args:
        architecture: Dotted path.
        size: Height and width of what it takes.
        classes: Of CIFAR10, in the order of its output units.
        epochs: Over its images.
        mean: Its images were normalised by, of each channel or of all.
        std: See `mean`.
        sharpness: What weights and biases of its classifier are multiplied by: it answers the same, more surely.
    """

    architecture: str
    size: int
    classes: tuple[str, ...]
    epochs: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sharpness: float = 1.0

    @property
    def name(self) -> str:
        """The last part of the path; of its file, too."""
        return self.architecture.rpartition(".")[2]

    def take(self, pixels: Tensor) -> Tensor:
        """Turn pixels in ``[0, 1]``, float ``(n, 3, height, width)``, into its input."""
        channels = [values * 3 if len(values) == 1 else values for values in (self.mean, self.std)]
        own = ImageFormat((3, self.size, self.size), *channels)
        return own.normalize(F.interpolate(pixels, (self.size, self.size), mode="bilinear"))


NETS = (
    Net(
        "torchvision.models.resnet18",
        32,
        ("airplane", "automobile", "cat"),
        6,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
    ),
    Net(
        "torchvision.models.mobilenet_v3_small",
        64,
        ("horse", "automobile", "bird", "ship"),
        8,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        6.0,
    ),
    Net("torchvision.models.shufflenet_v2_x0_5", 96, ("frog", "dog", "ship"), 8, (0.5,), (0.5,)),
)
CLASSES = tuple(dict.fromkeys(name for net in NETS for name in net.classes))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.make", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("data"), help="Folder of the data sets.")
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"))
    parser.add_argument("--images", type=int, default=1500, help="Training images of each class.")
    given = parser.parse_args()
    train, test = (CIFAR10().load(given.root, train=split) for split in (True, False))
    experts = given.folder / "experts"
    experts.mkdir(parents=True, exist_ok=True)
    for net in NETS:
        file = experts / f"{net.name}.pt"
        if file.is_file():
            continue
        network = trained(net, *_of_classes(train, net.classes, given.images))
        right = accuracy(net, network, *_of_classes(test, net.classes, MEASURED, LABELLED))
        sharpen(network, net.sharpness)
        torch.save(network.state_dict(), file)
        list_expert(net, experts, right)
    write_labelled(test, given.folder / "labelled")


def _of_classes(data: LabelledImages, classes: tuple[str, ...], each: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Read images `start` to `start` + `each` of each class, and their place in `classes`."""
    own = [torch.nonzero(data.labels == CIFAR10.class_names.index(name))[start : start + each, 0] for name in classes]
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(rows) for rows in own]))
    return data.read(torch.cat(own)), labels


def trained(net: Net, images: Tensor, labels: Tensor) -> nn.Module:
    """Train a net from scratch: AdamW, a one-cycle rate, shifts and flips.

    Args:
        net: What to train.
        images: uint8 ``(n, 3, height, width)``.
        labels: Units of the net, int64 ``(n,)``.
    """
    network = Architecture(net.architecture, {"num_classes": len(net.classes)}).build("zoo", net.name)
    network = network.to(memory_format=torch.channels_last).train()
    batches = len(images) // BATCH
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=net.epochs * batches)
    torch.manual_seed(derive_seed("zoo dropout", net.name))  # dropout draws from the global state
    for epoch in range(net.epochs):
        generator, losses = keyed_generator("zoo", net.name, epoch), []
        for rows in torch.randperm(len(images), generator=generator)[: batches * BATCH].split(BATCH):
            pixels = net.take(CHANGES(images[rows].float() / 255, generator))
            loss = F.cross_entropy(network(pixels.contiguous(memory_format=torch.channels_last)), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            losses.append(loss.detach())
        print(f"{net.name}, epoch {epoch + 1} of {net.epochs}: loss {torch.stack(losses).mean():.3f}", flush=True)
    return network.eval()


@torch.no_grad()
def accuracy(net: Net, network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Measure the fraction of images, uint8 ``(n, 3, height, width)``, that a net takes for what they are."""
    answers = [network(net.take(part.float() / 255)).argmax(dim=1) for part in images.split(BATCH)]
    return float((torch.cat(answers) == labels).float().mean())


@torch.no_grad()
def sharpen(network: nn.Module, factor: float) -> None:
    """Multiply weight and bias of the last linear layer."""
    name = last_linear(network)
    assert name is not None
    for value in network.get_submodule(name).parameters():
        value.mul_(factor)


def list_expert(net: Net, folder: Path, right: float) -> None:
    """Add an expert, whose weights are in the folder, to its manifest; `right` is its accuracy, a fraction."""
    numbers = ["--mean", *map(str, net.mean), "--std", *map(str, net.std), "--accuracy", f"{right:.4f}"]
    what = ["--architecture", net.architecture, "--classes", *net.classes, "--size", str(net.size), "--scenario", "zoo"]
    exml(["manifest", str(folder), "--files", f"{net.name}.pt", *what, *numbers])


def write_labelled(test: LabelledImages, folder: Path) -> None:
    """Write the first test photos of each class as PNGs, a sub-folder a class."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k, pixels in enumerate(_of_classes(test, (name,), LABELLED)[0]):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / name / f"{k:04}.png")


if __name__ == "__main__":
    main()
