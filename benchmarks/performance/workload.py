"""What is measured: networks with settled batch norm, synthetic images, folders of experts for `exml fit`."""

import logging
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from os import devnull
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from exml_lightning.cli.lightning_cli import StreamCLI
from exml_lightning.cli.stream_verbs import fit
from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.weights import load_expert, save_weights

ROOT = Path(__file__).parent.parent.parent
SHIPPED = {"LeNet5": "split_mnist", "SlimResNet18": "split_cifar10"}
"""The scenario whose settings each network is measured with."""


def shipped_settings(network: str) -> dict[str, Any]:
    """Read what model inversion takes of a network's scenario, without the data set: experts alone are enough to fit.

    Args:
        network: A name of `SHIPPED`.
    """
    path = ROOT / "configs" / f"{SHIPPED[network]}.yaml"
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    del settings["strategy"], settings["data"]["scenario"], settings["experts"]
    return settings


@dataclass(frozen=True)
class Workload:
    """A stream of untrained experts of one architecture; the same each time.

    Args:
        network: A name of `SHIPPED`.
        num_experts: How many experts.
        classes_per_expert: Classes of each, all different.
        size: Height and width of the images; 32 for LeNet5.
    """

    network: str
    num_experts: int = 2
    classes_per_expert: int = 5
    size: int = 32

    @property
    def num_classes(self) -> int:
        """Classes of the stream, which every network has a unit for."""
        return self.num_experts * self.classes_per_expert

    @property
    def architecture(self) -> Architecture:
        """That of all experts, and of the ex-model."""
        return Architecture(f"exml_lightning.models.{self.network}", {"num_classes": self.num_classes})

    @cached_property
    def image_format(self) -> ImageFormat:
        """The images."""
        channels = 1 if self.network == "LeNet5" else 3
        return ImageFormat((channels, self.size, self.size), (0.5,) * channels, (0.25,) * channels)

    def images(self, count: int, key: int | str = 0) -> Tensor:
        """Make smooth, normalised images.

        Args:
            count: How many.
            key: Other keys give other images.

        Returns:
            Float ``(count, channels, size, size)``, on the CPU.
        """
        coarse = torch.rand(count, self.image_format.shape[0], 4, 4, generator=keyed_generator("benchmark", key))
        pixels = F.interpolate(coarse, (self.size, self.size), mode="bilinear")
        return self.image_format.normalize(pixels)

    def labels(self, count: int) -> Tensor:
        """Return class indices, int64 ``(count,)``, all classes in turn."""
        return torch.arange(count) % self.num_classes

    def model(self, key: int | str) -> nn.Module:
        """Build a network whose batch norm has seen images, in train mode, on the CPU.

        Args:
            key: Other keys give other weights.
        """
        network = self.architecture.build("benchmark", key)
        with torch.no_grad():
            for turn in range(4 if any(True for _ in network.buffers()) else 0):
                network(self.images(16, f"{key} {turn}"))
        return network

    def classes_of(self, index: int) -> list[int]:
        """Return the classes that an expert knows."""
        return list(range(index * self.classes_per_expert, (index + 1) * self.classes_per_expert))

    def expert(self, index: int) -> Expert:
        """Make an expert, frozen, on the CPU, in torch's default memory layout; see `read_expert`."""
        classes = self.classes_of(index)
        return Expert(self.model(index), classes, classes, self.image_format, index, classifier="classifier")

    def write(self, folder: Path) -> None:
        """Write the experts and their manifest into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        names = tuple(f"c{c}" for c in range(self.num_classes))
        entries = []
        for index in range(self.num_experts):
            file, classes = f"expert_{index}.safetensors", self.classes_of(index)
            digest = save_weights(self.model(index), folder / file)
            known = tuple(names[c] for c in classes)
            entries.append(ExpertEntry(file, digest, self.architecture, known, tuple(classes), classifier="classifier"))
        write_manifest(Manifest("benchmark", None, names, self.image_format, tuple(entries)), folder)

    def read_expert(self, folder: Path, index: int) -> Expert:
        """Read an expert as a fit reads it, with all that the package does to make it fast, on the CPU.

        Args:
            folder: Where `write` has written, or is to write.
            index: Its place in the stream.
        """
        if not (folder / FILE_NAME).is_file():
            self.write(folder)
        return load_expert(folder, read_manifest(folder), index)


def write_fit(
    workload: Workload, folder: Path, device: torch.device, changes: Mapping[str, Any], run: str = "run"
) -> list[str]:
    """Write experts, unless they are there, and the settings of a fit of them: what ships, a low rate, and changes.

    Args:
        workload: The experts.
        folder: A folder of the workload's own.
        device: Where the fit is to run.
        changes: Settings by their dotted keys, for instance ``data.n_iter``.
        run: Name of the run folder in `folder`.

    Returns:
        The words after ``exml``.
    """
    experts = folder / "experts"
    if not (experts / FILE_NAME).is_file():
        workload.write(experts)
    settings = shipped_settings(workload.network)
    values = {
        "trainer.accelerator": "gpu" if device.type == "cuda" else "cpu",
        "trainer.devices": 1,
        "trainer.default_root_dir": str(folder / run),
        "data.experts": str(experts),
        "buffer.cache": str(folder / "cache"),
        # As in the bare steps: networks that know nothing would diverge at the rate of those that do.
        "model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-4}},
        **changes,
    }
    for key, value in values.items():
        *groups, name = key.split(".")
        place = settings
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = value
    path = folder / f"{run}.yaml"
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return ["fit", "-c", str(path)]


def run_fit(arguments: list[str], callback: Callback) -> None:
    """Run `exml fit` in this process, all that is on by default included; what it prints is thrown away.

    Args:
        arguments: The words after ``exml``.
        callback: One more callback, after all others.
    """

    class Watched(StreamCLI):
        def instantiate_trainer(self, **kwargs: Any) -> Trainer:
            trainer = super().instantiate_trainer(**kwargs)
            trainer.callbacks.append(callback)  # type: ignore[attr-defined]  # Lightning sets it from outside
            return trainer

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with Path(devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        cli = Watched("fit", arguments[1:])
        fit(cli)
