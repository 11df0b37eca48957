import json

import pytest
import yaml

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
    assert figures["bound: linear in the scores"] > figures["quantile, Strokes"]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_a_command(row, repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    verb, options = beyond.command(row, "split_mnist", 3, 40)
    with pytest.raises(SystemExit) as exit_:
        main([verb, *options, "--print_config"])
    assert exit_.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["data"]["n_iter"] == {"longer": 160, "batch": 20}.get(row, 40)


def test_rows_are_measured_once_and_go_on(tmp_path, repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    results = tmp_path / "results.json"
    arguments = ["beyond", "--scenario", "split_digits", "--run", "0", "--steps", "2", "--results", str(results)]
    monkeypatch.setattr(beyond, "BASELINES", ("concat",))
    monkeypatch.setattr(beyond, "ROWS", {name: ROWS[name] for name in ("longer",)})
    options = ["--", "--trainer.max_epochs", "2", "--buffer.size", "20"]
    monkeypatch.setattr("sys.argv", [*arguments, *options])
    beyond.main()
    first = json.loads(results.read_text())
    assert list(first) == ["concat", "longer"]
    assert "--data.n_iter 8 --trainer.max_epochs 2 --buffer.size 20" in first["longer"]["command"]
    assert results.with_suffix(".png").is_file()
    ran = []
    monkeypatch.setattr(beyond, "exml", lambda args: ran.append(args))
    beyond.main()
    assert not ran
    assert "| `longer` |" in capsys.readouterr().out
