"""The baselines: answers of the experts themselves, without distillation (Section 5; docs/baselines.md)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.priors import BatchNormStatistics
from exml_lightning.core.rng import derive_seed, keyed_generator
from exml_lightning.experts import Manifest

BATCH_NORM_BATCH = 256


@dataclass(frozen=True)
class ExpertSource:
    """Where a baseline gets experts and samples.

    Args:
        manifest: The experts to ask.
        load: Reads the expert at a place in the stream onto the device to work on.
        generate: Makes normalised images from an expert, ``(n, channels, height, width)``, on its device.
        seed: Seed of every random draw.
    """

    manifest: Manifest
    load: Callable[[int], Expert]
    generate: Callable[[Expert], Tensor]
    seed: int


class Baseline(ABC):
    """A way to classify the test stream with a stream of experts. No expert is kept: only each sample's scores are."""

    combine: ClassVar[Literal["mean", "max"]] = "mean"
    """How the answers to a sample become its scores, class by class: over the experts that answered."""
    needs_samples: ClassVar[bool] = False
    """Whether it calls `ExpertSource.generate`."""

    def check(self, manifest: Manifest) -> None:  # noqa: B027 - most baselines can work with any experts
        """Refuse experts that the baseline is not defined for, before any weights are read.

        Args:
            manifest: The experts.

        Raises:
            ExmlError: With the reason.
        """

    def check_expert(self, expert: Expert, num_classes: int) -> None:  # noqa: B027 - as above
        """Refuse an expert that the baseline is not defined for; called for all of them before any is asked.

        Args:
            expert: The expert, on the CPU.
            num_classes: Number of classes of the stream.

        Raises:
            ExmlError: With the reason.
        """

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield what is asked: the experts, one at a time. Let go of one before you take the next."""
        for index in range(len(source.manifest.experts)):
            yield source.load(index)

    @abstractmethod
    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Ask one expert.

        Args:
            expert: The expert.
            images: Normalised images, ``(n, channels, height, width)``.
            first_seen: The experience that brought the part of the test stream the images are from: their task label.
            num_classes: Number of classes of the stream.

        Returns:
            Scores ``(n, num_classes)``; minus infinity where the expert does not answer.
        """


class Oracle(Baseline):
    """The task label chooses the expert, which answers among its own classes: the upper bound, not a fair rival."""

    def check(self, manifest: Manifest) -> None:
        """Refuse streams in which a class has several experts; see `Baseline.check`."""
        owner: dict[str, int] = {}
        for i, entry in enumerate(manifest.experts):
            for name in entry.classes:
                if name in owner:
                    raise ExmlError(
                        f"the oracle is not defined here: class {name!r} is known to experts {owner[name]} and {i}, so "
                        "a test image does not belong to one expert; choose another baseline"
                    )
                owner[name] = i

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return the logits of the expert that the task label names; see `Baseline.answer`."""
        if expert.experience != first_seen:
            return images.new_full((len(images), num_classes), -torch.inf)
        return expert.own_logits(images, num_classes)


class EnsembleAverage(Baseline):
    """The mean of the experts' logits (Ensemble Avg.): of whole heads, where these have a unit for every class."""

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return logits; see `Baseline.answer`."""
        return expert.stream_logits(images, num_classes)


class ProbabilityAverage(Baseline):
    """The mean of the experts' probabilities. A class that a narrow head does not know has probability 0."""

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return probabilities; see `Baseline.answer`."""
        return expert.stream_logits(images, num_classes).softmax(dim=1)


class MinEntropy(Baseline):
    """The expert with the lowest entropy gives the likeliest of its own classes (Min. Entropy).

    The entropy is that of the probabilities over its whole head. Compare like with like: heads with fewer units have
    less entropy.
    """

    combine: ClassVar[Literal["mean", "max"]] = "max"

    def check_expert(self, expert: Expert, num_classes: int) -> None:
        """Refuse a head that can speak of one class only: its entropy is always 0; see `Baseline.check_expert`."""
        black = torch.zeros(1, *expert.image_format.shape)
        if int(expert.stream_logits(black, num_classes).isfinite().sum()) < 2:
            raise ExmlError(
                f"min entropy is not defined here: expert {expert.experience} has one class and no units for others, "
                "so it is always sure; choose another baseline"
            )

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return minus the entropy, in the column of the likeliest own class; see `Baseline.answer`."""
        logits = expert.stream_logits(images, num_classes)
        entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1, keepdim=True)  # entr(0) is 0
        guesses = expert.classes[logits[:, expert.classes].argmax(dim=1, keepdim=True)]
        return torch.full_like(logits, -torch.inf).scatter(1, guesses, -entropy)


class Concat(Baseline):
    """Each class's logit from the expert that knows it; the mean where several do. Not in the paper."""

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return logits; see `Baseline.answer`."""
        return expert.own_logits(images, num_classes)


class ParameterAverage(Baseline):
    """One model whose weights are the mean of the experts' (Param. Avg.); it answers for all classes they know."""

    def check(self, manifest: Manifest) -> None:
        """Refuse experts whose weights do not stand for the same things; see `Baseline.check`."""
        first = manifest.experts[0].architecture
        for i, entry in enumerate(manifest.experts):
            if entry.architecture.skeleton() != first.skeleton():
                raise ExmlError(
                    "weights of different architectures have no mean: "
                    f"expert 0 is {first.class_path} {first.init_args}, expert {i} is "
                    f"{entry.architecture.class_path} {entry.architecture.init_args}; choose another baseline"
                )
            if entry.input not in (None, manifest.input):
                raise ExmlError(
                    f"the mean of these weights has no meaning: expert {i} takes {entry.input}, others "
                    f"{manifest.input}; choose another baseline"
                )
            if list(entry.outputs) != manifest.classes_of(i):
                raise ExmlError(
                    f"the mean of these weights has no meaning: expert {i} gives its classes {list(entry.classes)} the "
                    f"units {list(entry.outputs)}, not those of their places in class_names "
                    f"{manifest.classes_of(i)}; choose another baseline"
                )

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield one model, with the mean of the weights of all experts; see `Baseline.models`."""
        manifest = source.manifest
        mean: dict[str, Tensor] = {}
        known: set[int] = set()
        for index in range(len(manifest.experts)):
            expert = source.load(index)
            mean = running_mean(mean, expert.model.state_dict(), index)
            known.update(manifest.classes_of(index))
            device = expert.classes.device
            del expert
        network = manifest.experts[0].architecture.skeleton().build()
        network.load_state_dict(mean)
        classes = sorted(known)
        yield Expert(network, classes, classes, manifest.input).to(device)

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return logits; see `Baseline.answer`."""
        return expert.own_logits(images, num_classes)


class ParameterAverageBatchNorm(ParameterAverage):
    """`ParameterAverage`, with the statistics of its batch-norm layers measured anew on samples from the experts.

    Each expert gives the same number of samples; which, the buffer's settings say.
    """

    needs_samples: ClassVar[bool] = True

    def check(self, manifest: Manifest) -> None:
        """Refuse also a network without batch-norm layers; see `Baseline.check`."""
        super().check(manifest)
        architecture = manifest.experts[0].architecture
        if not len(BatchNormStatistics(architecture.skeleton().build())):
            raise ExmlError(
                f"{architecture.class_path} has no batch-norm layer, so there is nothing to measure anew: "
                "use plain parameter_average"
            )

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield the model; see `Baseline.models`."""
        samples = []

        def load(index: int) -> Expert:
            expert = source.load(index)
            samples.append(source.generate(expert))
            return expert

        (average,) = super().models(replace(source, load=load))
        images = torch.cat(samples)
        # Each batch has samples of all experts: the variance that a layer records is that within batches.
        order = torch.randperm(len(images), generator=keyed_generator("batch-norm", source.seed))
        torch.manual_seed(derive_seed("batch-norm", source.seed))  # dropout draws from the global state
        update_bn(images[order.to(images.device)].chunk(-(-len(images) // BATCH_NORM_BATCH)), average.model)
        yield average
