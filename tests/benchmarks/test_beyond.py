import json

import pytest

from benchmarks.beyond import __main__ as beyond
from benchmarks.beyond.calibration import measure
from benchmarks.beyond.rows import ROWS
from exml_lightning.cli.main import main


def test_stored_experts_are_measured_as_the_baseline_measures_them(tmp_path, repository, monkeypatch):
    monkeypatch.chdir(repository)
    figures = measure("split_digits", 0, "data", "checkpoints/split_digits/run0", 60)
    files = ["-c", "configs/split_digits.yaml", "-c", "configs/baselines/concat.yaml", "-c", "configs/trainer/cpu.yaml"]
    main(["test", *files, "--trainer.default_root_dir", str(tmp_path)])
    concat = json.loads((tmp_path / "test.json").read_text())["stream_accuracy"]
    assert figures["logits"] == pytest.approx(100 * concat, abs=1e-3)
    assert figures["bound: linear in the scores"] > figures["quantile, drawings"]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_a_command(row, repository, monkeypatch, parse):
    monkeypatch.chdir(repository)
    verb, options = beyond.command(row, "split_mnist", 3)
    config = parse([verb, *options])
    assert config.data.n_iter == {"short": 200}.get(row, 1000)
    assert config.buffer.size == {"small": 1500}.get(row, 6000)
    assert config.buffer.generator.class_path.endswith("Unrelated")


def test_rows_are_measured_once_and_go_on(tmp_path, repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    results = tmp_path / "results.json"
    arguments = ["beyond", "--scenario", "split_digits", "--run", "0", "--results", str(results)]
    monkeypatch.setattr(beyond, "BASELINES", ("concat",))
    monkeypatch.setattr(beyond, "ROWS", {name: ROWS[name] for name in ("leaves",)})
    options = ["--", "--trainer.max_epochs", "2", "--data.n_iter", "2", "--buffer.size", "20"]
    monkeypatch.setattr("sys.argv", [*arguments, *options])
    beyond.main()
    first = json.loads(results.read_text())
    assert list(first) == ["concat", "leaves"]
    command = "--buffer.generator.images DeadLeaves --trainer.max_epochs 2 --data.n_iter 2 --buffer.size 20"
    assert command in first["leaves"]["command"]
    assert results.with_suffix(".png").is_file()
    ran = []
    monkeypatch.setattr(beyond, "exml", lambda args: ran.append(args))
    beyond.main()
    assert not ran
    assert "| `leaves` |" in capsys.readouterr().out
