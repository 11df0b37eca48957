"""The baselines: what stored experts answer, without distillation, and measuring it (Section 5; docs/baselines.md)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor
from torch.optim.swa_utils import update_bn

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.confusion import Confusion
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.features import Features
from exml_lightning.core.first_look import draw_everything, first_look
from exml_lightning.core.merging import Merge
from exml_lightning.core.priors import BatchNormStatistics
from exml_lightning.core.rng import derive_seed, keyed_generator
from exml_lightning.core.running_scores import Combine, RunningScores
from exml_lightning.core.scales import NormalScores, StatisticsScores
from exml_lightning.data import ExpertStream
from exml_lightning.experts import Manifest
from exml_lightning.generation.samples import Sampler
from exml_lightning.generation.sources import StreamSources
from exml_lightning.terminal import Bar

BATCH_NORM_BATCH = 256
BEST = NormalScores().score_weights()
"""How much logits count beside statistics, by the default."""


@dataclass(frozen=True)
class ExpertSource:
    """Where a baseline gets experts and samples.

    `manifest` lists the experts to ask. `load` reads the expert at a place in the stream onto the device to work on.
    `generate` makes images from an expert, ``(n, channels, height, width)``, on its device, as a buffer holds them.
    `seed` is that of every random draw.
    """

    manifest: Manifest
    load: Callable[[int], Expert]
    generate: Callable[[Expert], Tensor]
    seed: int


class Baseline(ABC):
    """A way to classify the test stream with a stream of experts. No expert is kept: only each sample's scores are."""

    combine: ClassVar[Combine] = "mean"
    """How the answers to a sample become its scores, class by class: over the experts that answered."""
    needs_samples: ClassVar[bool] = False
    """Whether it calls `ExpertSource.generate`."""

    def check(self, manifest: Manifest) -> None:  # noqa: B027 - most baselines can work with any experts
        """Refuse experts that the baseline is not defined for, before any weights are read; raises `ExmlError`."""

    def check_expert(self, expert: Expert, num_classes: int) -> None:  # noqa: B027 - as above
        """Refuse an expert (on the CPU), of those of a stream of `num_classes`, before any is asked; see `check`."""

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield what is asked: the experts, one at a time. Let go of one before you take the next."""
        for index in range(len(source.manifest.experts)):
            yield source.load(index)

    @abstractmethod
    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Ask one expert about normalised images ``(n, channels, height, width)``.

        `first_seen` is the experience that brought the part of the test stream the images are from: their task label.
        Returns scores ``(n, num_classes)``; minus infinity where the expert does not answer.
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


class OfWholeHeads(Baseline):
    """A baseline that looks at what experts say of every class of the stream, and at nothing else."""

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return the scores of an expert's logits; see `Baseline.answer`."""
        return self.score(expert.stream_logits(images, num_classes), expert.classes)

    @abstractmethod
    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Score logits of whole heads, see `Expert.stream_logits`, of an expert that knows some classes."""


class EnsembleAverage(OfWholeHeads):
    """The mean of the experts' logits (Ensemble Avg.): of whole heads, where these have a unit for every class."""

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return logits; see `OfWholeHeads.score`."""
        return logits


class ProbabilityAverage(OfWholeHeads):
    """The mean of the experts' probabilities. A class that a narrow head does not know has probability 0."""

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return probabilities; see `OfWholeHeads.score`."""
        return logits.softmax(dim=1)


class MinEntropy(OfWholeHeads):
    """The expert with the lowest entropy gives the likeliest of its own classes (Min. Entropy).

    The entropy is that of the probabilities over its whole head. Compare like with like: heads with fewer units have
    less entropy.
    """

    combine: ClassVar[Combine] = "max"

    def check_expert(self, expert: Expert, num_classes: int) -> None:
        """Refuse a head that can speak of one class only: its entropy is always 0; see `Baseline.check_expert`."""
        black = torch.zeros(1, *expert.image_format.shape, device=expert.classes.device)
        if int(expert.stream_logits(black, num_classes).isfinite().sum()) < 2:
            raise ExmlError(
                f"min entropy is not defined here: expert {expert.experience} has one class and no units for others, "
                "so it is always sure; choose another baseline"
            )

    def score(self, logits: Tensor, classes: Tensor) -> Tensor:
        """Return minus the entropy, in the column of the likeliest own class; see `OfWholeHeads.score`."""
        entropy = torch.special.entr(logits.softmax(dim=1)).sum(dim=1, keepdim=True)  # entr(0) is 0
        guesses = classes[logits[:, classes].argmax(dim=1, keepdim=True)]
        return torch.full_like(logits, -torch.inf).scatter(1, guesses, -entropy)


class Concat(Baseline):
    """Each class's logit from the expert that knows it; the mean where several do. Not in the paper."""

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return logits; see `Baseline.answer`."""
        return expert.own_logits(images, num_classes)


class PublishedStatistics(Baseline):
    """Each class's score on the scale of what its expert has published; the likeliest of all. Not in the paper."""

    combine: ClassVar[Combine] = "max"
    network: ClassVar[bool] = True
    """Whether the network's answers count."""

    def check(self, manifest: Manifest) -> None:
        """Refuse experts without statistics; see `Baseline.check`."""
        for index, entry in enumerate(manifest.experts):
            if entry.statistics is None:
                raise ExmlError(
                    f"expert {index} has published no statistics: its owner can add them (exml statistics); "
                    "choose another baseline"
                )

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return scores; see `Baseline.answer`."""
        assert expert.statistics is not None
        statistics = expert.statistics.to(images.device)
        with Features(expert, statistics.layer)() as look:
            logits, features = expert(images), look.pop(images)
        if self.network:
            scores = StatisticsScores(BEST)(logits, statistics.strangeness(features)[:, None])
        else:
            mean, deviation = statistics.distance
            scores = (mean - statistics.log_distance(features)) / deviation
        return scores.new_full((len(images), num_classes), -torch.inf).index_copy(1, expert.classes, scores)


class StatisticsAlone(PublishedStatistics):
    """The class that an image is nearest to, by what experts have published: what is left without their networks."""

    network = False


class ParameterAverage(Baseline):
    """One model whose weights are the mean of the experts' (Param. Avg.); it answers for all classes they know."""

    def check(self, manifest: Manifest) -> None:
        """Refuse experts whose weights do not stand for the same things; see `Baseline.check`."""
        first = manifest.experts[0].architecture
        for i, entry in enumerate(manifest.experts):
            if entry.architecture.skeleton() != first.skeleton():
                reason = f"expert 0 is {first}, expert {i} {entry.architecture}"
            elif entry.input not in (None, manifest.input):
                reason = f"expert {i} takes {entry.input}, others {manifest.input}"
            elif list(entry.outputs) != (places := manifest.classes_of(i)):
                reason = f"expert {i} has units {list(entry.outputs)} for the classes of the stream {places}"
            else:
                continue
            raise ExmlError(f"the weights of these experts cannot be put together: {reason}; choose another baseline")

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield one model, with the weights of all experts put together; see `Baseline.models`."""
        manifest, weights = source.manifest, self._put_together(source)
        network = manifest.experts[0].architecture.empty(manifest.input.shape)
        network.load_state_dict(weights)
        classes = sorted({c for index in range(len(manifest.experts)) for c in manifest.classes_of(index)})
        yield Expert(network, classes, classes, manifest.input).to(next(iter(weights.values())).device)

    def _put_together(self, source: ExpertSource) -> dict[str, Tensor]:
        mean: dict[str, Tensor] = {}
        for index in range(len(source.manifest.experts)):
            mean = running_mean(mean, source.load(index).model.state_dict(), index)
        return mean

    def answer(self, expert: Expert, images: Tensor, first_seen: int, num_classes: int) -> Tensor:
        """Return logits; see `Baseline.answer`."""
        return expert.own_logits(images, num_classes)


class Merged(ParameterAverage):
    """One model, the experts put together layer by layer by what training changed of each: see `Merge`."""

    def _put_together(self, source: ExpertSource) -> dict[str, Tensor]:
        merge = Merge()
        for index in range(len(source.manifest.experts)):
            expert = source.load(index)
            merge.add(expert.model, expert.began_with())
            del expert  # before the next one is read
        return merge.weights()


class ParameterAverageBatchNorm(ParameterAverage):
    """`ParameterAverage`, with the statistics of its batch-norm layers measured anew on samples from the experts.

    Each expert gives the same number of samples; which, the buffer's settings say.
    """

    needs_samples: ClassVar[bool] = True

    def check(self, manifest: Manifest) -> None:
        """Refuse also a network without batch-norm layers; see `Baseline.check`."""
        super().check(manifest)
        architecture = manifest.experts[0].architecture
        if not len(BatchNormStatistics(architecture.empty(manifest.input.shape))):
            raise ExmlError(
                f"{architecture.class_path} has no batch-norm layer, so there is nothing to measure anew: "
                "use plain parameter_average"
            )

    def models(self, source: ExpertSource) -> Iterator[Expert]:
        """Yield the model; see `Baseline.models`."""
        samples = []

        def load(index: int) -> Expert:
            expert = source.load(index)
            samples.append(source.manifest.input.to_input(source.generate(expert)))
            return expert

        (average,) = super().models(replace(source, load=load))
        images = torch.cat(samples)
        # Each batch has samples of all experts: the variance that a layer records is that within batches.
        order = torch.randperm(len(images), generator=keyed_generator("batch-norm", source.seed))
        torch.manual_seed(derive_seed("batch-norm", source.seed))  # dropout draws from the global state
        update_bn(images[order.to(images.device)].chunk(-(-len(images) // BATCH_NORM_BATCH)), average.model)
        yield average


def measure(baseline: Baseline, sampler: Sampler, size: int, device: torch.device) -> Tensor:
    """Ask a baseline about the test stream, and return the confusion matrix; see `Confusion.counts`.

    A sample that no expert answers for has no answer. `sampler` has the stream, set up, with a trainer, whose first
    ``max_epochs`` experts are asked; it makes the samples for `ParameterAverageBatchNorm`: `size` (N) from all experts
    together.

    Raises:
        ExmlError: If the baseline is not defined for these experts, or an expert is missing or broken; before any
            expert is asked.
    """
    stream = sampler.stream
    manifest = _experts_asked(stream)
    num_experts, num_classes = len(manifest.experts), len(manifest.class_names)
    _check(baseline, sampler, manifest, size, device)
    scores, num_images = RunningScores(baseline.combine), sum(len(part.images) for part in stream.test_parts)
    shown = sampler.show_progress and not baseline.needs_samples  # generating has bars of its own
    bar = Bar(f"expert 1/{num_experts} asking", num_experts, shown)

    def load(index: int) -> Expert:
        bar.title = f"expert {index + 1}/{num_experts} asking"
        bar.advance(index - bar.done)
        return stream.load_expert(index, device)

    def generate(expert: Expert) -> Tensor:
        return sampler(expert, size // num_experts, num_experts).images

    with bar:
        for model in baseline.models(ExpertSource(manifest, load, generate, stream.seed)):
            answer = partial(baseline.answer, model, num_classes=num_classes)
            said = []
            for some in ask(stream, model, answer):
                said.append(some)
                bar.advance(len(some) / num_images)
            scores.add(torch.cat(said))
            del model, answer  # else it would stay in memory while the next one is read
        bar.advance(num_experts - bar.done)
    return confusion_of(stream, scores.scores())


def _experts_asked(stream: ExpertStream) -> Manifest:
    """Cut the manifest to as many experts as a fit would learn."""
    manifest, trainer = stream.manifest, stream.trainer
    limit = None if trainer is None else trainer.max_epochs
    if limit == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to ask, or -1 for all")
    return manifest if limit is None or limit < 0 else replace(manifest, experts=manifest.experts[:limit])


def _check(baseline: Baseline, sampler: Sampler, manifest: Manifest, size: int, device: torch.device) -> None:
    """Refuse what is not possible before any work."""
    baseline.check(manifest)
    num_experts, num_classes, stream = len(manifest.experts), len(manifest.class_names), sampler.stream
    if baseline.needs_samples:
        if size < num_experts:
            raise ExmlError(f"buffer.size is {size}: give 1 or more for each of the {num_experts} experts")
        sampler.generator.connect(StreamSources(stream, size))
    drawings = draw_everything(manifest.input, stream.seed, device)
    for index in range(stream.num_experts):
        first_look(expert := stream.load_expert(index, device), drawings)
        baseline.check_expert(expert, num_classes)
        if baseline.needs_samples:
            sampler.rehearse(expert, size // num_experts)
        del expert  # else it would stay in memory while the next one is read


def ask(stream: ExpertStream, expert: Expert, answer: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
    """Show an expert all images of the test stream, as many at a time as it has room for.

    `answer` is called with normalised images on its device, and the experience that brought their part of the stream;
    what it returns is yielded.
    """
    device = expert.classes.device
    with torch.no_grad():
        for part, loader in zip(stream.test_parts, stream.test_loaders(), strict=True):
            for batch in loader:
                for images in batch.images.to(device, non_blocking=True).split(expert.chunk):
                    yield answer(images, part.first_seen)


def confusion_of(stream: ExpertStream, scores: Tensor) -> Tensor:
    """Return the confusion matrix of the scores of all images of the test stream, see `Confusion.counts`.

    A task label leaves only the classes of its head for answers.
    """
    confusion, done = Confusion(scores.shape[1]), 0
    for part in stream.test_parts:
        own = scores[done : done + len(part.images)]
        if stream.heads is not None:
            own = own.masked_fill(torch.tensor(stream.heads) != part.task, -torch.inf)
        confusion.update(own, part.images.labels)
        done += len(own)
    return confusion.counts
