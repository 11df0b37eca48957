"""Runs that are killed and resumed end with the same weights, bit for bit."""

import csv
import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks import results
from exml_lightning.cli.main import main
from exml_lightning.experts import load_expert, read_manifest, save_weights, write_manifest
from tests.conftest import EXPERTS, refused

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["exml_lightning.cli.lightning_cli"])


def run_and_die(args: list[str]) -> None:
    """Run the command line in this process and kill it in the fourth step of the second experience."""
    from exml_lightning.module import ExModelModule

    original = ExModelModule.training_step

    def patched(module, batch, step):
        if module.stream.experience == 1 and step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(module, batch, step)

    ExModelModule.training_step = patched
    main(args)


def outcome(folder: Path) -> tuple[bytes, str, dict[str, object]]:
    summary = json.loads((folder / "summary.json").read_text())
    measured = {k: v for k, v in summary.items() if not k.startswith(("seconds", "peak", "command"))}
    return (
        (folder / "ex_model" / "expert_0.safetensors").read_bytes(),
        (folder / "accuracy_matrix.csv").read_text(),
        measured,
    )


def test_a_schedule_momentum_and_the_sums_over_experts_resume_too(small_run, tmp_path):
    """The third expert is merged with the two that were learned before the kill."""
    model = {
        "start": "merged",
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.01, "momentum": 0.9}},
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
            "init_args": {"T_max": 6},
        },
    }
    extra = tmp_path / "model.yaml"
    extra.write_text(json.dumps({"model": model}))
    main([*small_run("whole", trainer__max_epochs=3), "-c", str(extra)])
    args = [*small_run("cut", trainer__max_epochs=3), "-c", str(extra)]
    child = forks.Process(target=run_and_die, args=(args,))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    main([*args, "--ckpt_path", "last"])
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


class StopAt(Callback):
    """Stops at a step, as Lightning's Timer does when ``trainer.max_time`` is over."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        trainer.should_stop = trainer.global_step == self.step


def test_stopped_within_an_experience_and_resumed_is_as_never_stopped(small_run, finished_run, tmp_path):
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 9}}])
    main([*small_run("cut"), "--trainer.callbacks", stop])  # in the second experience
    assert sorted(p.name for p in (tmp_path / "cut" / "checkpoints").iterdir()) == ["experience=0.ckpt", "last.ckpt"]
    assert not (tmp_path / "cut" / "ex_model").exists()
    assert len((tmp_path / "cut" / "accuracy_matrix.csv").read_text().splitlines()) == 2
    main([*small_run("cut"), "--ckpt_path", "last"])
    assert outcome(tmp_path / "cut") == outcome(finished_run)


@pytest.mark.parametrize("step", [4, pytest.param(5, marks=pytest.mark.slow)])
def test_accumulated_gradients_are_not_lost(small_run, tmp_path, step):
    """A safety copy is due after every third mini-batch, an optimiser step is every second one."""
    args = ["--trainer.accumulate_grad_batches", "2", "--checkpoint.every_n_steps", "3", "--data.n_iter", "12"]
    args += ["--model.lr_scheduler", "one_cycle"]  # of six steps
    main([*small_run("whole", trainer__max_epochs=1), *args])
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": step}}])
    main([*small_run("cut", trainer__max_epochs=1), *args, "--trainer.callbacks", stop])
    main([*small_run("cut", trainer__max_epochs=1), *args])
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_metrics_csv_is_kept_and_not_doubled(small_run, tmp_path):
    args = [*small_run(), "--trainer.log_every_n_steps", "1"]
    child = forks.Process(target=run_and_die, args=(args,))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    main([*args, "--ckpt_path", "last"])
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert [int(row["step"]) for row in rows if row["train/loss"]] == list(range(12))
    assert [int(row["step"]) for row in rows if row["test/stream_accuracy"]] == [5, 11]


def test_the_row_of_a_stop_has_the_losses_of_its_step(small_run, tmp_path):
    def losses(folder):
        with (tmp_path / folder / "metrics.csv").open() as file:
            return {int(row["step"]): row["train/loss"] for row in csv.DictReader(file) if row["train/loss"]}

    def fit(folder, *options):
        main([*small_run(folder, trainer__max_epochs=1), "--trainer.log_every_n_steps", *options])

    fit("each", "1")
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 4}}])
    fit("cut", "2", "--trainer.callbacks", stop)
    each, cut = losses("each"), losses("cut")
    assert [*cut] == [1, 3]
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 5}}])
    fit("odd", "2", "--trainer.callbacks", stop)
    odd = losses("odd")
    assert [*odd] == [1, 3, 4]
    assert {**cut, **odd} == {step: each[step] for step in odd}


def test_a_finished_run_resumed_stays_as_it_is(small_run, finished_run):
    before = outcome(finished_run)
    main([*small_run(), "--ckpt_path", "last"])
    assert outcome(finished_run) == before


def test_a_run_goes_on_to_more_experts(small_run, finished_run, tmp_path, capsys):
    main(small_run("one", trainer__max_epochs=1))
    assert "1 of 5 (trainer.max_epochs)" in capsys.readouterr().out
    assert outcome(tmp_path / "one")[2]["experiences_learned"] == 1
    main([*small_run("one"), "--ckpt_path", "last"])
    assert "2 of 5 (trainer.max_epochs)" in capsys.readouterr().out
    assert outcome(tmp_path / "one") == outcome(finished_run)


def test_a_finished_run_keeps_its_peak_memory(small_run, finished_run, monkeypatch):
    def told():
        return json.loads((finished_run / "summary.json").read_text())["peak_memory_mb"]

    before = torch.load(finished_run / "checkpoints" / "last.ckpt")["callbacks"]["AccuracyCallback"]["peak_memory_mb"]
    for now in (before - 100, before + 100):
        monkeypatch.setattr(results, "peak_memory_mb", lambda device, now=now: now)
        main(small_run())
        assert told() == max(before, now)


def test_other_experts_are_refused(small_run, finished_run, tmp_path, capsys):
    folder = tmp_path / "others"
    shutil.copytree(EXPERTS, folder)
    manifest = read_manifest(folder)
    network = load_expert(folder, manifest, 0).model
    next(network.parameters()).data.add_(1e-3)
    first = replace(manifest.experts[0], sha256=save_weights(network, folder / manifest.experts[0].file))
    write_manifest(replace(manifest, experts=(first, *manifest.experts[1:])), folder)
    line = refused([*small_run(data__experts=str(folder)), "--ckpt_path", "last"], capsys)
    assert "are not the first 2 of this stream" in line
