"""Precomputed samples: what `exml generate` wrote, or anybody else (docs/buffer_file.md)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Generator, Progress, Sources, no_progress, require


@dataclass
class Precomputed(Generator):
    """Samples from buffer files, one an expert: ``expert_<k>.safetensors``.

    Args:
        folder: The folder of the files; default ``generated/<scenario>/run<k>``, where `exml generate` writes.

    Attributes:
        read: Called with an expert; returns the samples of its file, labelled with class indices of the stream.
            `connect` sets it.
    """

    folder: str | None = None
    read: Callable[[Expert], Buffer] | None = field(default=None, init=False, repr=False)

    def connect(self, sources: Sources) -> None:
        """Take what reads the files; see `Generator.connect`."""
        self.read = sources.samples(self.folder)

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Take the samples of the expert's file, drawn without replacement where it has more than are asked for.

        Raises `ExmlError` if it has too few. See `Generator.generate`.
        """
        if self.read is None:
            raise ExmlError("the precomputed generator has no files to read")
        samples = self.read(expert)
        require(
            len(samples) >= num_samples,
            f"expert {expert.experience} has {len(samples)} precomputed samples, but {num_samples} are asked for: "
            "generate more, or make buffer.size smaller",
        )
        if len(samples) > num_samples:
            rows = torch.randperm(len(samples), generator=generator)[:num_samples]
            samples = samples[rows.sort().values]
        progress(float(num_samples))
        return samples.to(expert.classes.device)
