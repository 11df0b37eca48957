"""TensorBoard and Weights & Biases beside metrics.csv, read back from what they wrote."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exml_lightning.cli.main import main
from tests.conftest import refused


def overlay(repository: Path, name: str) -> list[str]:
    return ["-c", str(repository / "configs" / "loggers" / f"{name}.yaml"), "--trainer.log_every_n_steps", "2"]


def events(folder: Path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder), {"scalars": 0, "images": 0})
    found.Reload()
    return found


def test_tensorboard_has_losses_accuracies_and_pictures(small_run, repository, tmp_path):
    main([*small_run(), *overlay(repository, "tensorboard")])
    run = tmp_path / "run"
    found = events(run / "tensorboard")
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for name in ("train/loss", "test/stream_accuracy", "test/accuracy_0"):
        expected = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert len(expected) >= 2
        logged = found.Scalars(name)
        assert [event.step for event in logged] == [step for step, _ in expected]
        assert [event.value for event in logged] == pytest.approx([value for _, value in expected])
    pictures = found.Images("generated")
    assert [picture.step for picture in pictures] == [0, 6]
    file = tmp_path / "picture.png"
    file.write_bytes(pictures[1].encoded_image_string)
    with Image.open(file) as logged, Image.open(run / "buffer" / "experience=1.png") as written:
        assert np.array_equal(np.asarray(logged), np.asarray(written.convert("RGB")))


def test_a_resumed_run_shows_each_step_once(small_run, repository, tmp_path):
    args = [*small_run(), *overlay(repository, "tensorboard")]
    main([*args, "--trainer.max_epochs", "1"])
    main(args)
    assert len(list((tmp_path / "run" / "tensorboard").glob("events*"))) == 2
    steps = [event.step for event in events(tmp_path / "run" / "tensorboard").Scalars("train/loss")]
    assert steps == sorted(set(steps))
    assert steps[-1] == 11


def test_a_refused_fit_writes_no_events(small_run, repository, tmp_path, capsys):
    refused([*small_run(), *overlay(repository, "tensorboard"), "--buffer.generator.init_args.batch_norm", "1"], capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_wandb_offline_has_the_same(small_run, repository, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")

    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    main([*small_run(), *overlay(repository, "wandb"), "--trainer.logger.init_args.offline", "true"])
    assert wandb.run is None  # it has ended
    run = tmp_path / "run"
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    log = file.read_bytes()  # records of protocol buffers, their text as it is
    for words in ("train/loss", "test/stream_accuracy", "generated", "exml_lightning", str(run)):
        assert words.encode() in log
    assert len(list((run / "wandb").glob("offline-run-*/files/media/images/generated_*.png"))) == 2
    assert (run / "metrics.csv").is_file()
    assert json.loads((run / "summary.json").read_text())["experiences_learned"] == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line_before_work(small_run, repository, tmp_path, monkeypatch, capsys, name):
    monkeypatch.setattr("exml_lightning.callbacks.loggers.find_spec", lambda package: None)
    line = refused([*small_run(), *overlay(repository, name)], capsys)
    assert f'trainer.logger: {name} is not installed: pip install "exml-lightning[{name}]"' in line
    assert not (tmp_path / "run").exists()
