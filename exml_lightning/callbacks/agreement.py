"""`AgreementCallback`: how far the ex-model agrees with its experts, where there are no labels to be right about."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from exml_lightning.callbacks.results import ResultsCallback, write_matrix
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.agreement import agreement, by_guessing
from exml_lightning.core.expert import Expert
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from exml_lightning.generation.sources import StreamSources
from exml_lightning.module import ExModelModule
from exml_lightning.report.figures import save_matrix
from exml_lightning.terminal import print_matrix, say

IMAGES = 500
"""Images that ex-model and experts are asked about."""


class AgreementCallback(ResultsCallback):
    """Writes ``agreement_matrix.csv``, its picture and ``summary.json``.

    The matrix has a column for each expert: the share of images about which the ex-model, choosing among the expert's
    classes, says what the expert said. The images are the same for all experts, and none has been asked to make them:
    drawings, or crops of ``data.auxiliary``.
    """

    def __init__(self, buffer: SyntheticBufferCallback, command: str = "", is_kept: bool = True) -> None:
        super().__init__(buffer, command, is_kept)
        self._answers: dict[int, Tensor] = {}
        """The class that each expert met so far gave each image."""
        self._images = torch.empty(0)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the images; `ExmlError` if those of ``data.auxiliary`` are missing."""
        assert isinstance(pl_module, ExModelModule)
        if pl_module.stream.completed < pl_module.stream.num_experts:
            self._images = held_back(pl_module.stream)

    def meet(self, module: ExModelModule, expert: Expert) -> None:
        """Keep what the expert says of the images; see `ResultsCallback.meet`."""
        with torch.no_grad():
            said = [expert(images).argmax(dim=1) for images in self._shown(module, expert.chunk)]
        self._answers[expert.experience] = expert.classes[torch.cat(said)].cpu().to(torch.int16)  # kept for good

    def measure(self, module: ExModelModule) -> list[float]:
        """Compare the ex-model with the experts learned so far; see `ResultsCallback.measure`."""
        module.eval()
        with torch.no_grad():
            shown = self._shown(module, module.stream.manifest.input.chunk)
            logits = torch.cat([module(images) for images in shown])
        module.train()
        classes = module.stream.manifest.classes_of
        return [agreement(logits, answers, classes(k)) for k, answers in sorted(self._answers.items())]

    def values_to_log(self, module: ExModelModule) -> dict[str, float]:
        """Return the agreements; see `ResultsCallback.values_to_log`."""
        # a column for each expert would make metrics.csv as wide as the stream is long
        return {"agreement/mean": self._means()[-1], "agreement/newest": self.rows[-1][-1]}

    def write(self, folder: Path, module: ExModelModule) -> dict[str, Any]:
        """Write the matrix; see `ResultsCallback.write`."""
        means, learned = self._means(), range(module.stream.completed)
        title = f"agreement with each expert, {folder}"
        write_matrix(folder / "agreement_matrix.csv", learned, self.matrix, "mean", means)
        save_matrix(folder / "agreement_matrix.png", self.rows, _names(module), title, "asked")
        return {
            "agreement": means[-1],
            "agreement_per_expert": self.rows[-1],
            "agreement_by_guessing": self._by_guessing(len(self.rows)),
        }

    def print_matrix(self, module: ExModelModule) -> None:
        """Print the matrix; see `ResultsCallback.print_matrix`."""
        guessed = [self._by_guessing(len(row)) for row in self.rows]
        print_matrix(
            "agreement with each expert in % after each experience: no accuracy",
            self.rows,
            _names(module),
            {"mean": self._means(), "guessing": guessed},
            self._place,
        )

    def last_words(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """Return agreement, which is no accuracy, beside what it is worth; see `ResultsCallback.last_words`."""
        return {
            "agreement by guessing": figures["agreement_by_guessing"],
            "agreement with the experts": figures["agreement"],
        }

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the figures do not."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            say(
                "no labelled images, so nothing says how often it is right: `exml predict EX_MODEL DIR` does, with a "
                "sub-folder of images for each class in DIR"
            )
            if self.rows and self._means()[-1] <= self._by_guessing(len(self.rows)) < 1:
                say(
                    "it agrees with its experts no more than guessing does: give it more steps (--data.n_iter), or "
                    "other images (docs/which_images.md)"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return also what the experts said."""
        return {**super().state_dict(), "answers": self._answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved figures."""
        super().load_state_dict(state)
        self._answers = dict(state["answers"])

    def _shown(self, module: ExModelModule, chunk: int) -> Iterator[Tensor]:
        """Yield the images as networks take them, so many at a time, on the module's device."""
        for images in self._images.split(chunk):
            yield module.stream.manifest.input.normalize(images.to(module.device))

    def _means(self) -> list[float]:
        return [sum(row) / len(row) for row in self.rows]

    def _by_guessing(self, experts: int) -> float:
        return sum(by_guessing(self._answers[k]) for k in range(experts)) / experts


def held_back(stream: ExpertStream) -> Tensor:
    """Draw the images that agreement is measured on, uint8 ``(IMAGES, channels, height, width)``, from the seed alone.

    Raises `ExmlError` if those of ``data.auxiliary``, where it is given, are missing.
    """
    draws, shape = keyed_generator("agreement", stream.seed), stream.manifest.input.shape
    if stream.auxiliary is not None:
        return StreamSources(stream, IMAGES).other_images().draw(IMAGES, draws)
    return Mixture([Strokes(), DeadLeaves(), ColouredNoise()]).draw(IMAGES, shape, draws, torch.device("cpu"))


def _names(module: ExModelModule) -> list[str]:
    return [f"expert {k + 1}" for k in range(module.stream.completed)]
