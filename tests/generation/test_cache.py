"""Hits and misses of the cache, seen from runs of the command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.main import main
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.generators import DataImpression, ModelInversion, Noise
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import ExpertEntry, load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.generation import cache
from exml_lightning.generation.buffer_file import read_buffer
from tests.conftest import EXPERTS, ROOT

NAMES = tuple("01234")


@pytest.fixture
def generated(monkeypatch):
    """The experts that model inversion has made samples from, in order."""
    calls = []
    original = ModelInversion.generate

    def counted(self, expert, *args):
        calls.append(expert.experience)
        return original(self, expert, *args)

    monkeypatch.setattr(ModelInversion, "generate", counted)
    return calls


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A finished run and the cache it filled, made once for all tests."""
    folder = tmp_path_factory.mktemp("first")
    main(
        [*arguments(folder), "--trainer.default_root_dir", str(folder / "run"), "--buffer.cache", str(folder / "cache")]
    )
    return folder


def arguments(folder: Path) -> list[str]:
    """A fit over two shipped experts by three steps of model inversion: 12 samples, then 6."""
    overlay = {
        "trainer": {"max_epochs": 2, "enable_progress_bar": False},
        "data": {"n_iter": 6, "batch_size": 8, "experts": str(EXPERTS)},
        "buffer": {"size": 12, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 3}}},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(overlay))
    return ["fit", "-c", str(ROOT / "configs" / "split_digits.yaml"), "-c", str(folder / "small.yaml")]


@pytest.fixture
def run(first, tmp_path, generated):
    """Runs the same fit beside a copy of the cache of `first` and returns the experts generated from."""
    shutil.copytree(first / "cache", tmp_path / "cache")

    def go(folder, *options):
        generated.clear()
        places = ["--trainer.default_root_dir", str(tmp_path / folder), "--buffer.cache", str(tmp_path / "cache")]
        main([*arguments(tmp_path), *places, *options])
        return list(generated)

    return go


def weights(run):
    return (run / "ex_model" / "expert_0.safetensors").read_bytes()


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_another_run_finds_the_samples_and_ends_with_the_same_weights(run, first, tmp_path):
    assert len(entries(tmp_path)) == 2
    assert run("second") == []
    assert weights(first / "run") == weights(tmp_path / "second")


def test_a_run_without_the_cache_ends_with_the_same_weights(run, first, tmp_path):
    assert run("second", "--buffer.cache", "null") == [0, 1]
    assert weights(first / "run") == weights(tmp_path / "second")


def test_a_run_that_only_distils_otherwise_hits(run):
    assert run("second", "--model.lambda_ce", "0", "--model.loss", "kl", "--data.n_iter", "2") == []


def test_another_seed_misses(run, tmp_path):
    assert run("second", "--data.seed", "7") == [0, 1]
    assert len(entries(tmp_path)) == 4


def test_only_the_number_that_changed_misses(run):
    assert run("second", "--buffer.size", "13") == [0]  # 13, then 6


def test_another_strategy_makes_its_own(run, tmp_path):
    impression = ["--buffer.generator", "DataImpression", "--buffer.generator.steps", "3"]
    run("second", *impression)
    made = entries(tmp_path)
    assert len(made) == 4
    run("third", *impression)
    assert entries(tmp_path) == made
    assert weights(tmp_path / "second") == weights(tmp_path / "third")


def test_the_same_experts_elsewhere_hit_and_a_changed_one_misses(run, tmp_path):
    folder = shutil.copytree(EXPERTS, tmp_path / "experts")
    assert run("second", "--data.experts", str(folder)) == []
    manifest = read_manifest(folder)
    network = load_expert(folder, manifest, 1).model
    network.classifier.bias.data.add_(0.01)
    changed = replace(manifest.experts[1], sha256=save_weights(network, folder / manifest.experts[1].file))
    write_manifest(replace(manifest, experts=(manifest.experts[0], changed, *manifest.experts[2:])), folder)
    assert run("third", "--data.experts", str(folder)) == [1]


def test_a_resume_finds_the_samples(run, first, tmp_path):
    checkpoints = shutil.copytree(first / "run", tmp_path / "cut") / "checkpoints"
    shutil.copy(checkpoints / "experience=0.ckpt", checkpoints / "last.ckpt")
    shutil.rmtree(tmp_path / "cut" / "ex_model")
    assert run("cut", "--ckpt_path", "last") == []
    assert weights(first / "run") == weights(tmp_path / "cut")


def test_a_cache_that_cannot_be_written_costs_nothing(run, first, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert run("second", "--buffer.cache", str(tmp_path / "file")) == [0, 1]
    assert "cannot be written" in caplog.text
    assert weights(first / "run") == weights(tmp_path / "second")


def test_broken_entries_are_made_anew(run, first, tmp_path, caplog):
    cut, other = entries(tmp_path)
    cut.write_bytes(cut.read_bytes()[:-100])
    other.write_bytes(b"x" * 100)
    assert run("second") == [0, 1]
    assert weights(first / "run") == weights(tmp_path / "second")
    assert "generating anew" in caplog.text
    assert all(read_buffer(path) for path in entries(tmp_path))


def test_an_entry_of_other_samples_under_the_same_name_is_not_taken(run, tmp_path):
    one, other = entries(tmp_path)
    shutil.copy(one, other)
    assert len(run("second")) == 1


ENTRY = ExpertEntry("file", "ab", Architecture("a.Network", {"width": 3}), ("0",), (0,))
SETTINGS = {"generator": ModelInversion(), "entry": ENTRY, "num_samples": 4, "seed": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"generator": ModelInversion(temperature=3.0)},
        {"generator": ModelInversion(augmentation=Augmentation(shift=0.1))},
        {"generator": DataImpression()},
        {"entry": replace(ENTRY, sha256="cd")},
        {"entry": replace(ENTRY, architecture=Architecture("a.Network", {"width": 4}))},
        {"entry": replace(ENTRY, architecture=Architecture("b.Network", {"width": 3}))},
        {"num_samples": 5},
        {"seed": 2},
    ],
)
def test_whatever_changes_samples_changes_the_key(change, make_expert, tmp_path):
    expert = make_expert()
    key = cache.describe_samples(expert=expert, **SETTINGS)
    samples = Noise().generate(expert, 4, keyed_generator())
    cache.store(tmp_path, key, NAMES, samples, expert)
    assert cache.find(tmp_path, key, NAMES) is not None
    assert cache.find(tmp_path, cache.describe_samples(expert=expert, **{**SETTINGS, **change}), NAMES) is None
    assert cache.find(tmp_path, key, ("other", *NAMES)) is None


@pytest.mark.parametrize("change", [{"classes": (1, 2)}, {"outputs": (3, 1)}, {"experience": 2}])
def test_another_use_of_the_same_weights_is_another_key(change, make_expert):
    ours = cache.describe_samples(expert=make_expert(), **SETTINGS)
    assert cache.describe_samples(expert=make_expert(**change), **SETTINGS) != ours


@pytest.mark.parametrize("kept", [0, 8, 100, 1000, -1])
def test_an_entry_cut_off_anywhere_is_not_there(kept, make_expert, tmp_path):
    expert = make_expert()
    key = cache.describe_samples(expert=expert, **SETTINGS)
    cache.store(tmp_path, key, NAMES, Noise().generate(expert, 4, keyed_generator()), expert)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:kept])
    assert cache.find(tmp_path, key, NAMES) is None


def test_a_write_that_is_stopped_leaves_no_entry(make_expert, tmp_path, monkeypatch):
    def stop(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("exml_lightning.generation.buffer_file.save_file", stop)
    expert = make_expert()
    key = cache.describe_samples(expert=expert, **SETTINGS)
    samples = Noise().generate(expert, 4, keyed_generator())
    with pytest.raises(KeyboardInterrupt):
        cache.store(tmp_path, key, NAMES, samples, expert)
    assert list(tmp_path.iterdir()) == []
