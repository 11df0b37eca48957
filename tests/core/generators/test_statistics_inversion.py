import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.features import Features
from exml_lightning.core.generators import StatisticsInversion
from exml_lightning.core.measure_statistics import measure
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from tests.conftest import EXPERTS


@pytest.fixture
def expert():
    """A shipped expert, and statistics of strokes: thin ones for its first class, thick ones for its second."""
    found = ExpertStream(experts=str(EXPERTS)).load_expert(0, torch.device("cpu"))
    kinds = [Strokes(width=(0.02, 0.04)), Strokes(width=(0.2, 0.3))]
    pixels = [kind.draw(100, (1, 32, 32), keyed_generator("drawn"), torch.device("cpu")) for kind in kinds]
    found.statistics = measure(found, torch.cat(pixels), torch.arange(2).repeat_interleave(100))
    return found


def test_images_are_seen_as_those_of_their_class_were(expert):
    """Thick strokes are brighter; each image is its own, and nearer to its class than what it began with."""
    samples = StatisticsInversion().generate(expert, 40, keyed_generator("made"))
    assert sorted(samples.labels.unique().tolist()) == [4, 5]
    thick = samples.labels == expert.classes[1]
    assert samples.images[thick].mean() > samples.images[~thick].mean() + 0.3
    statistics = expert.statistics
    with Features(expert, statistics.layer)() as look:
        expert(samples.images)
        features = look.pop(samples.images)
    assert torch.equal(statistics.log_distance(features).argmin(dim=1), thick.long())
    assert samples.images[thick].std(dim=0).mean() > 0.1


def test_the_same_draws_make_the_same_images(expert):
    first, same, other = (
        StatisticsInversion(steps=2).generate(expert, 6, torch.Generator().manual_seed(s)).images for s in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_an_expert_without_statistics_is_refused(expert):
    expert.statistics = None
    with pytest.raises(ExmlError, match=r"has no statistics .* \(exml statistics\)"):
        StatisticsInversion().generate(expert, 2, keyed_generator("made"))


def test_images_to_start_from_are_refused():
    with pytest.raises(ExmlError, match="set initial to null"):
        StatisticsInversion(initial=Strokes())
