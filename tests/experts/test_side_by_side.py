import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy, Strategy

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import read_manifest, training
from exml_lightning.experts.expert_module import ExpertModule
from exml_lightning.experts.side_by_side import packed, processes_for
from tests.experts.test_training import DIGITS, RECIPE, arguments, content, make_trainer, said, train


@pytest.fixture(scope="session")
def in_turn(tmp_path_factory) -> Path:
    """All experts, with statistics, trained one after the other."""
    folder = tmp_path_factory.mktemp("in_turn") / "experts"
    train(folder, statistics=True)
    return folder


def test_experts_are_the_same_side_by_side_and_one_that_fails_stops_all(tmp_path, in_turn, capsys):
    (tmp_path / "expert_4.safetensors").mkdir(parents=True)
    with pytest.raises(ExmlError, match=r"expert_4\.safetensors cannot be written \(it is no regular file\)"):
        train(tmp_path, workers=2, statistics=True)
    assert not active_children()
    assert said(capsys)[1] in (3, 4)  # at most one other was left when the last was begun
    (tmp_path / "expert_4.safetensors").rmdir()
    assert train(tmp_path, statistics=True) == read_manifest(tmp_path)
    assert content(tmp_path) == content(in_turn)
    assert not (tmp_path / "training").exists()


def test_an_expert_that_is_finished_first_waits_and_is_not_trained_again(tmp_path, in_turn, monkeypatch, capsys):
    def stopped(work, *args):
        yield 2, pickle.loads(work)()(2)
        raise RuntimeError("stopped")

    monkeypatch.setattr(training, "side_by_side", stopped)
    with pytest.raises(RuntimeError, match="stopped"):
        train(tmp_path, workers=2, statistics=True)
    assert "expert 3/5 knows its own classes" in capsys.readouterr().out
    assert not (tmp_path / "manifest.yaml").exists()
    original, trained = ExpertModule.training_step, set()

    def counting(self, batch, batch_idx):
        trained.add(self.key[-1])
        return original(self, batch, batch_idx)

    monkeypatch.setattr(ExpertModule, "training_step", counting)
    train(tmp_path, limit=1, statistics=True)
    assert len(read_manifest(tmp_path).experts) == 1
    train(tmp_path, statistics=True)
    assert trained == {0, 1, 3, 4}
    assert content(tmp_path) == content(in_turn)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="process groups")
def test_ctrl_c_ends_all_processes_in_a_line_and_checkpoints_stay(tmp_path):
    words = arguments(tmp_path, "--experts.workers", "2", "--experts.epochs", "2000", "--trainer.accelerator", "cpu")
    command = [sys.executable, "-m", "exml_lightning", *words]
    process = subprocess.Popen(command, stdout=-1, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    checkpoints = [tmp_path / "training" / f"expert_{k}.ckpt" for k in range(2)]
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not all(file.is_file() for file in checkpoints):
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    out, _ = process.communicate(timeout=60)  # until no process is left that could write
    assert (process.returncode, out.splitlines()[-1]) == (130, "exml: stopped; go on with the same command")
    assert "Traceback" not in out
    assert all(file.is_file() for file in checkpoints)
    assert not list(tmp_path.rglob(".*"))


def test_as_many_at_a_time_as_there_are_cores_unless_told(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    def at_a_time(pending: int, workers: int | None, strategy: Strategy) -> int:
        trainer = SimpleNamespace(strategy=strategy, progress_bar_callback=None)
        return processes_for(pending, workers, lambda: trainer)[0]

    one, gpu = (SingleDeviceStrategy(torch.device(kind)) for kind in ("cpu", "cuda"))
    assert [at_a_time(pending, None, one) for pending in (0, 1, 3, 9)] == [1, 1, 3, 4]
    assert [at_a_time(9, workers, one) for workers in (1, 2, 20)] == [1, 2, 9]
    assert [at_a_time(9, workers, gpu) for workers in (None, 2)] == [1, 2]
    two = Trainer(accelerator="cpu", devices=2, logger=False).strategy
    assert at_a_time(9, None, two) == 1
    with pytest.raises(ExmlError, match=r"experts\.workers is 2, but each expert has several devices"):
        at_a_time(9, 2, two)


def test_what_cannot_be_pickled_is_trained_one_after_the_other(tmp_path, capsys):
    assert packed(lambda: make_trainer) is None
    assert "a setting cannot be pickled" in capsys.readouterr().out
    recipe = replace(RECIPE, workers=2)
    job = training.ExpertTraining(DIGITS, tmp_path, 1234, recipe=recipe)
    training.train_experts(job, lambda *given: make_trainer(*given), limit=2)
    out = capsys.readouterr().out
    assert "one after the other, since a setting cannot be pickled" in out
    assert out.count("knows its own classes") == 2
