"""Hits and misses of the cache."""

import shutil
from dataclasses import replace

import pytest
import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.generators import DataImpression, ModelInversion, Noise
from exml_lightning.core.generators.optimised import OptimisedImages
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry, load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.generation import cache
from exml_lightning.generation.buffer_file import read_buffer
from exml_lightning.generation.samples import Sampler
from tests.conftest import EXPERTS

NAMES = tuple("01234")
CPU = torch.device("cpu")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Makes samples of the shipped experts by two steps of model inversion, and says whether they were generated."""
    calls = []
    original = OptimisedImages.optimise
    monkeypatch.setattr(OptimisedImages, "optimise", lambda *args: calls.append(1) or original(*args))

    def make(index=0, num_samples=6, folder=EXPERTS, seed=1, kind=ModelInversion, where=tmp_path / "cache", steps=2):
        calls.clear()
        stream = ExpertStream(experts=str(folder), seed=seed)
        sampler = Sampler(kind(steps=steps), stream, where, show_progress=False)
        return sampler(stream.load_expert(index, CPU), num_samples, 5), bool(calls)

    return make


def same(one: Buffer, other: Buffer) -> bool:
    ours, theirs = one.columns(), other.columns()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_samples_are_found_again(made):
    first, generated = made()
    assert generated
    again, generated = made()
    assert not generated
    assert same(first, again)
    without, generated = made(where=None)
    assert generated
    assert same(first, without)


@pytest.mark.parametrize(
    "other", [{"seed": 7}, {"num_samples": 5}, {"index": 1}, {"kind": DataImpression}, {"steps": 3}]
)
def test_what_changes_samples_misses(made, other, tmp_path):
    made()
    assert made(**other)[1]
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert not made()[1]


def test_the_same_experts_elsewhere_hit_and_a_changed_one_misses(made, tmp_path):
    made()
    folder = shutil.copytree(EXPERTS, tmp_path / "experts")
    assert not made(folder=folder)[1]
    manifest = read_manifest(folder)
    network = load_expert(folder, manifest, 0).model
    network.classifier.bias.data.add_(0.01)
    changed = replace(manifest.experts[0], sha256=save_weights(network, folder / manifest.experts[0].file))
    write_manifest(replace(manifest, experts=(changed, *manifest.experts[1:])), folder)
    assert made(folder=folder)[1]


def test_a_cache_that_cannot_be_written_costs_nothing(made, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    found, _ = made(where=tmp_path / "file")
    assert "cannot be written" in caplog.text
    assert same(found, made()[0])


def test_broken_entries_are_made_anew(made, tmp_path, caplog):
    first, _ = made()
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(path.read_bytes()[:-100])
    again, generated = made()
    assert generated
    assert same(first, again)
    assert "generating anew" in caplog.text
    assert read_buffer(path)


def test_an_entry_of_other_samples_under_the_same_name_is_not_taken(made, tmp_path):
    made()
    (one,) = (tmp_path / "cache").iterdir()
    made(seed=7)
    (other,) = {*(tmp_path / "cache").iterdir()} - {one}
    shutil.copy(one, other)
    assert made(seed=7)[1]


ENTRY = ExpertEntry("file", "ab", Architecture("a.Network", {"width": 3}), ("0",), (0,))
SETTINGS = {"generator": ModelInversion(), "entry": ENTRY, "num_samples": 4, "seed": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"generator": ModelInversion(temperature=3.0)},
        {"generator": ModelInversion(augmentation=Augmentation(shift=0.1))},
        {"entry": replace(ENTRY, architecture=Architecture("a.Network", {"width": 4}))},
        {"entry": replace(ENTRY, architecture=Architecture("b.Network", {"width": 3}))},
    ],
)
def test_every_setting_is_in_the_key(change, make_expert):
    ours = cache.describe_samples(expert=make_expert(), **SETTINGS)
    assert cache.describe_samples(expert=make_expert(), **{**SETTINGS, **change}) != ours


@pytest.mark.parametrize("change", [{"classes": (1, 2)}, {"outputs": (3, 1)}, {"experience": 2}])
def test_another_use_of_the_same_weights_is_another_key(change, make_expert):
    ours = cache.describe_samples(expert=make_expert(), **SETTINGS)
    assert cache.describe_samples(expert=make_expert(**change), **SETTINGS) != ours


@pytest.fixture
def stored(make_expert, tmp_path):
    """Stores four samples, and returns their key."""
    expert = make_expert()
    key = cache.describe_samples(expert=expert, **SETTINGS)
    return key, lambda: cache.store(tmp_path, key, NAMES, Noise().generate(expert, 4, keyed_generator()), expert)


@pytest.mark.parametrize("kept", [0, 8, 1000, -1])
def test_an_entry_cut_off_anywhere_is_not_there(kept, stored, tmp_path):
    key, store = stored
    store()
    assert cache.find(tmp_path, key, ("other", *NAMES)) is None
    assert cache.find(tmp_path, key, NAMES) is not None
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.find(tmp_path, key, NAMES) is None
