"""What stored experts answer together, asked one by one, is what the baselines measure."""

import io

import pytest
import torch

from exml_lightning.baselines import EnsembleAverage, MinEntropy, PublishedStatistics
from exml_lightning.callbacks.stored_experts import StoredExperts
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.measure_statistics import measure
from exml_lightning.scenarios import TestPart
from tests.test_baselines import CPU, STREAMS, images, measured, narrow, open_stream, wide, write_experts


def stream_of(folder, heads, tasks=(0, 0)):
    stream = open_stream(write_experts(folder, heads), heads)
    labels = torch.arange(40) % 5
    rows = (labels < 2).nonzero().flatten(), (labels >= 2).nonzero().flatten()
    whole = LabelledImages(images(40), labels, labels)
    stream.test_parts = [TestPart(whole[own], k, task) for k, (own, task) in enumerate(zip(rows, tasks, strict=True))]
    return stream


def best(stream, ways):
    sizes = [len(part.images) for part in stream.test_parts]
    found = {
        name: sum(a * n for a, n in zip(measured(way, stream), sizes, strict=True)) / 40 for name, way in ways.items()
    }
    return max(found.items(), key=lambda item: item[1])


@pytest.mark.parametrize("heads", [*STREAMS.values(), [wide(0, 1, 2, 3, 4)]])
def test_the_better_baseline_after_each_expert_also_of_a_run_that_was_stopped(tmp_path, heads):
    stream = stream_of(tmp_path, heads)
    stored = StoredExperts()
    for k in range(len(heads)):
        state = io.BytesIO()
        torch.save(stored.state_dict(), state)
        state.seek(0)
        stored = StoredExperts()
        stored.load_state_dict(torch.load(state, weights_only=True))
        stored.meet(stream.load_expert(k, CPU), stream, False)
        stream.trainer.fit_loop.max_epochs = k + 1  # the baselines ask as many
        name, accuracy = best(stream, {"ensemble_average": EnsembleAverage(), "min_entropy": MinEntropy()})
        assert stored.found[k] == (name, pytest.approx(accuracy))


def test_an_expert_of_one_class_leaves_the_average_alone(tmp_path):
    stream = stream_of(tmp_path, [narrow(0, 1), narrow(2)])
    stored = StoredExperts()
    for k in range(2):
        stored.meet(stream.load_expert(k, CPU), stream, False)
    assert stored.found[1] == ("ensemble_average", pytest.approx(best(stream, {"": EnsembleAverage()})[1]))


def test_experts_that_have_statistics_are_asked_on_their_scale_too(tmp_path):
    """Until one has none; and not where a task label says which expert to ask."""
    stream = stream_of(tmp_path / "plain", [narrow(0, 1), narrow(2, 3, 4)])
    experts = [stream.load_expert(k, CPU) for k in range(2)]
    for expert in experts:
        draws = images(60 * len(expert.classes))
        expert.statistics = measure(expert, draws, torch.arange(len(draws)) % len(expert.classes))
    stored, way = StoredExperts(), PublishedStatistics()
    scores = torch.full((40, 5), -torch.inf)
    rows = [expert.image_format.to_input(part.images.images) for part in stream.test_parts]
    for expert in experts:
        stored.meet(expert, stream, False)
        scores = torch.maximum(scores, torch.cat([way.answer(expert, part, 0, 5) for part in rows]))
    labels = torch.cat([part.images.labels for part in stream.test_parts])
    right = float((scores.argmax(dim=1) == labels).float().mean())
    assert set(stored._scores) == {"ensemble_average", "min_entropy", "published_statistics"}
    assert right == pytest.approx(
        float((stored._scores["published_statistics"].scores().argmax(1) == labels).float().mean())
    )
    assert stored.found[1][1] >= right
    experts[1].statistics = None
    mixed = StoredExperts()
    for expert in experts:
        mixed.meet(expert, stream, False)
    assert set(mixed._scores) == {"ensemble_average", "min_entropy"}


def test_the_task_label_leaves_the_classes_of_the_head(tmp_path):
    """Each image then has the answer of the expert of its task among its classes, of narrow heads."""
    heads = [narrow(0, 1), narrow(2, 3, 4)]
    stream = stream_of(tmp_path, heads, tasks=(0, 1))
    stream._manifest = None
    for k, experience in enumerate(stream.experiences):
        object.__setattr__(experience, "task", k)
    right, stored = 0, StoredExperts()
    for k, part in enumerate(stream.test_parts):
        expert = stream.load_expert(k, CPU)
        stored.meet(expert, stream, False)
        pixels = stream.manifest.input.normalize(part.images.images)
        right += int((expert.classes[expert(pixels).argmax(dim=1)] == part.images.labels).sum())
    assert stored.found[1][1] == right / 40
