"""Hits and misses of the cache, seen from runs of the command line."""

import shutil
from dataclasses import replace

import pytest

from exml_lightning.cli import main
from exml_lightning.core.generators import ModelInversion
from exml_lightning.experts import load_expert, read_manifest, save_weights, write_manifest


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


@pytest.fixture
def run(small_run, tmp_path, generated):
    """Runs a small fit and returns the experts generated from; all runs share one cache."""

    def go(folder, *options):
        generated.clear()
        main([*small_run(folder), "--buffer.cache", str(tmp_path / "cache"), *options])
        return list(generated)

    return go


def weights(folder):
    return (folder / "ex_model" / "expert_0.safetensors").read_bytes()


def entries(tmp_path):
    return sorted((tmp_path / "cache").iterdir())


def test_another_run_finds_the_samples_and_ends_with_the_same_weights(run, tmp_path):
    assert run("first") == [0, 1]
    assert len(entries(tmp_path)) == 2
    assert run("second") == []
    assert weights(tmp_path / "first") == weights(tmp_path / "second")


def test_a_run_without_the_cache_ends_with_the_same_weights(run, tmp_path):
    run("first")
    assert run("second", "--buffer.cache", "null") == [0, 1]
    assert weights(tmp_path / "first") == weights(tmp_path / "second")


def test_a_strategy_that_only_distils_otherwise_hits(run):
    run("first")
    assert run("second", "--model.lambda_ce", "0", "--model.loss", "kl", "--data.n_iter", "2") == []


@pytest.mark.parametrize(
    "change",
    [
        ["--data.seed", "7"],
        ["--buffer.size", "14"],
        ["--buffer.generator.temperature", "3"],
        ["--buffer.generator.augmentation.shift", "0.2"],
    ],
)
def test_other_settings_numbers_and_seeds_miss(run, change):
    run("first")
    assert run("second", *change) == [0, 1]


def test_only_the_number_that_changed_misses(run):
    run("first")  # 12 places: 12, then 6
    assert run("second", "--buffer.size", "13") == [0]  # 13, then 6


def test_another_strategy_makes_its_own(run, tmp_path):
    run("first")
    assert run("second", "--buffer.generator", "DataImpression", "--buffer.generator.steps", "3") == []
    assert len(entries(tmp_path)) == 4


def test_the_same_experts_elsewhere_hit_and_a_changed_one_misses(run, tmp_path, digit_experts):
    run("first")
    folder = shutil.copytree(digit_experts, tmp_path / "experts")
    assert run("second", "--data.experts", str(folder)) == []
    manifest = read_manifest(folder)
    network = load_expert(folder, manifest, 1).model
    network.classifier.bias.data.add_(0.01)
    changed = replace(manifest.experts[1], sha256=save_weights(network, folder / manifest.experts[1].file))
    write_manifest(replace(manifest, experts=(manifest.experts[0], changed, *manifest.experts[2:])), folder)
    assert run("third", "--data.experts", str(folder)) == [1]


def test_a_resume_finds_the_samples(run, tmp_path):
    run("whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    (tmp_path / "cut" / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(tmp_path / "cut" / "checkpoints" / "experience=0.ckpt", tmp_path / "cut" / "checkpoints" / "last.ckpt")
    shutil.rmtree(tmp_path / "cut" / "ex_model")
    assert run("cut", "--ckpt_path", "last") == []
    assert weights(tmp_path / "whole") == weights(tmp_path / "cut")


@pytest.mark.parametrize("how", ["cut off", "empty", "other contents"])
def test_a_broken_entry_is_never_read(run, tmp_path, how, caplog):
    run("first")
    for path in entries(tmp_path):
        data = path.read_bytes()
        path.write_bytes({"cut off": data[:-100], "empty": b"", "other contents": b"x" * len(data)}[how])
    assert run("second") == [0, 1]
    assert weights(tmp_path / "first") == weights(tmp_path / "second")
    assert "generating anew" in caplog.text
    assert run("third") == []  # and they were replaced


def test_a_write_that_is_stopped_leaves_no_entry(run, tmp_path, monkeypatch):
    def stop(tensors, path, metadata):
        path.write_bytes(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr("exml_lightning.buffer_file.save_file", stop)
    with pytest.raises(SystemExit):
        run("first")
    assert entries(tmp_path) == []


def test_an_entry_of_other_samples_under_the_same_name_is_not_taken(run, tmp_path):
    run("first")
    first, second = entries(tmp_path)
    shutil.copy(first, second)
    assert len(run("second")) == 1
