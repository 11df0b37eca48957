"""Batches of images that a run had finished when it was stopped."""

import pytest
import torch

from exml_lightning.core.generators import DataImpression, ModelInversion, StatisticsInversion
from exml_lightning.core.generators.optimised import OptimisedImages
from exml_lightning.data import ExpertStream
from exml_lightning.generation.samples import Sampler
from tests.conftest import EXPERTS

CPU = torch.device("cpu")


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Makes 10 samples in batches of 4; returns them, None if it was interrupted in batch `stop`, and the batches."""
    original = OptimisedImages._optimise

    def make(stop=None, cache=tmp_path / "cache", kind=ModelInversion, steps=2, seed=1):
        batches = []

        def optimise(self, expert, batch, *args):
            batches.append(int(batch.rows[0]))
            if len(batches) == stop:
                raise KeyboardInterrupt
            return original(self, expert, batch, *args)

        monkeypatch.setattr(OptimisedImages, "_optimise", optimise)
        stream = ExpertStream(experts=str(EXPERTS), seed=seed)
        sampler = Sampler(kind(steps=steps, batch_size=4), stream, cache, show_progress=False)
        try:
            return sampler(stream.load_expert(0, CPU), 10, 5).images, batches
        except KeyboardInterrupt:
            return None, batches

    return make


def parts(tmp_path):
    return sorted((tmp_path / "cache").glob("*.rows_*"))


@pytest.mark.parametrize("kind", [ModelInversion, DataImpression])
def test_finished_batches_are_not_made_again_and_end_the_same(make, tmp_path, kind):
    whole, batches = make(cache=None, kind=kind)
    assert batches == [0, 4, 8]
    assert make(3, kind=kind) == (None, [0, 4, 8])
    assert len(parts(tmp_path)) == 2
    resumed, batches = make(kind=kind)
    assert batches == [8]
    assert torch.equal(resumed, whole)
    assert not parts(tmp_path)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # all of them


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:-1] + b"\0", lambda data: b""])
def test_a_damaged_part_is_made_anew(make, tmp_path, caplog, damage):
    whole, _ = make(cache=None)
    make(3)
    path = next(path for path in parts(tmp_path) if ".rows_4_8." in path.name)
    path.write_bytes(damage(path.read_bytes()))
    resumed, batches = make()
    assert batches == [4, 8]
    assert torch.equal(resumed, whole)
    assert "making its images anew" in caplog.text
    assert not parts(tmp_path)


@pytest.mark.parametrize("other", [{"steps": 3}, {"seed": 2}, {"kind": DataImpression}])
def test_parts_of_other_samples_are_not_taken(make, tmp_path, other):
    make(3)
    assert make(**other)[1] == [0, 4, 8]
    assert len(parts(tmp_path)) == 2  # they are still there for their own
    assert make()[1] == [8]


def test_without_a_cache_nothing_is_kept(make, tmp_path):
    make(3, cache=None)
    assert not (tmp_path / "cache").exists()


def test_a_full_disk_does_not_cost_the_run(make, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    made, _ = make(cache=tmp_path / "file")
    assert torch.equal(made, make(cache=None)[0])
    assert caplog.text.count("is stopped now makes its images anew") == 1


def test_generators_keep_on_a_copy_and_say_the_same_of_themselves():
    for generator in (ModelInversion(), StatisticsInversion()):
        keeping = generator.keeping(object())
        assert generator.finished is None
        assert keeping == generator
        assert keeping.describe() == generator.describe()
