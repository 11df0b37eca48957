"""Which settings may change when a run goes on, and that all are looked at."""

import pytest
import torch

from exml_lightning.callbacks.same_settings import differences
from tests.conftest import refused


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({}, {"data.seed": 1}, []),  # a run that begins
        ({"data.seed": 1}, {"data.seed": 1}, []),
        ({"data.seed": 1}, {"data.seed": 2}, ["data.seed was 1, now 2"]),
        ({"data.seed": 1}, {"data.seed": 1, "data.new": 3}, ["data.new was None, now 3"]),
        ({"buffer.size": 10}, {"buffer.size": 12}, []),
        ({"buffer.size": 10}, {"buffer.size": 9}, ["buffer.size was 10, now 9"]),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, ["a.b.d was 2, now 3"]),
        ({"a": {"b": 1}}, {"a": {"e": 1}}, ["a.b was 1, now None", "a.e was None, now 1"]),
        ({"a": None}, {"a": {"b": 1}}, ["a was None, now {'b': 1}"]),
    ],
)
def test_what_has_changed_is_named(before, now, said):
    assert differences(before, now) == said


def test_other_settings_are_refused_and_nothing_is_overwritten(small_run, finished_run, capsys):
    before = {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()}
    auxiliary = '{"class_path": "TorchvisionImages", "init_args": {"name": "FakeData"}}'
    for option, value, key in (
        ("--data.n_iter", "7", "data.n_iter"),
        ("--data.auxiliary", auxiliary, "data.auxiliary"),
        ("--trainer.precision", "bf16-mixed", "trainer.precision"),
        ("--model.lambda_ce", "0.25", "model.lambda_ce"),
        ("--buffer.size", "10", "buffer.size"),
        ("--buffer.generator.init_args.temperature", "3", "(buffer.generator.temperature"),
        ("--model.optimizer.init_args.lr", "0.5", "model.optimizer"),
    ):
        error = refused([*small_run(), option, value, "--ckpt_path", "last"], capsys)
        assert "under other settings (" in error
        assert f"{key} was" in error
    assert {path: path.read_bytes() for path in finished_run.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_before_the_format_had_a_number_is_refused(small_run, finished_run, capsys):
    path = finished_run / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["exml_lightning"]
    torch.save(checkpoint, path)
    line = refused(small_run(), capsys)
    assert f"{path} was written by a version of exml_lightning before 0.2.0: go on with that version, or" in line
