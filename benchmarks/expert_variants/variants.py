"""The ways to train, or to show images to, the experts of split MNIST that are compared."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios import MNIST

EPOCHS = 5
"""Of the quick variants; the paper trains 20 (split) and 100 (joint)."""
FAST = ("--experts.lr", "0.1")
PADDED = ("--data.scenario.dataset", "benchmarks.expert_variants.variants.PaddedMNIST")
PIXELS = ("--data.scenario.dataset", "benchmarks.expert_variants.variants.PixelMNIST")
NATURAL = ("--data.scenario.shuffle_classes", "false")


@dataclass(frozen=True)
class Variant:
    """One way to get the experts.

    Args:
        what: For the table.
        options: Of `exml experts` and `exml test`.
        epochs: Of the experts; None for the experts in ``checkpoints/split_mnist/run0``, as they are.
        joint: Epochs of the joint expert with the same options; None to train none.
        own_initial: Start each expert from an initial model of its own, as independent people would.
        distil: Also learn an ex-model from them, by auxiliary data and from scratch.
    """

    what: str
    options: tuple[str, ...] = ()
    epochs: int | None = EPOCHS
    joint: int | None = None
    own_initial: bool = False
    distil: bool = False


VARIANTS = {
    "shipped": Variant("the recipe: 20 epochs (joint: 100), one initial model", epochs=None, distil=True),
    "pixels": Variant("the same experts, shown images that are not normalised", PIXELS, epochs=None),
    "short": Variant(f"{EPOCHS} epochs", joint=EPOCHS),
    "natural": Variant(f"{EPOCHS} epochs, classes in their natural order", NATURAL),
    "padded": Variant(f"{EPOCHS} epochs, images padded to 32x32 instead of resized", PADDED),
    "own": Variant(f"{EPOCHS} epochs, an initial model of its own for each expert", own_initial=True),
    "plain_own": Variant(
        f"{EPOCHS} epochs, images not normalised when training either, own initial models",
        PIXELS,
        joint=EPOCHS,
        own_initial=True,
        distil=True,
    ),
    "fast": Variant(f"{EPOCHS} epochs, learning rate 0.1 instead of 0.01", FAST, joint=EPOCHS),
    "fast_own": Variant(f"{EPOCHS} epochs, learning rate 0.1, own initial models", FAST, own_initial=True, distil=True),
    "fast_own_once": Variant(
        "1 epoch (joint: 1), learning rate 0.1, own initial models", FAST, 1, joint=1, own_initial=True, distil=True
    ),
    "fast_own_long": Variant(
        "20 epochs (joint: 20), learning rate 0.1, own initial models", FAST, 20, joint=20, own_initial=True
    ),
}


class PixelMNIST(MNIST):
    """MNIST without normalisation: pixels in ``[0, 1]``."""

    image_format = ImageFormat((1, 32, 32), (0.0,), (1.0,))


class PaddedMNIST(MNIST):
    """MNIST at its own 28x28 pixels in the middle of 32x32."""

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        resized = super().load(root, train)
        small = transforms.resize(resized.images, [28, 28], antialias=True)
        return LabelledImages(F.pad(small, (2, 2, 2, 2)), resized.labels, torch.zeros_like(resized.labels))
