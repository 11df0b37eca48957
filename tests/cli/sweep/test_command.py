"""What a sweep says: without Ray, while it runs, at its end."""

import io
import json
import shutil
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from exml_lightning.cli.main import main
from exml_lightning.cli.sweep import command
from exml_lightning.cli.sweep.grid import EXPERTS, Job
from exml_lightning.cli.sweep.progress import FAILED, FINISHED, LOST, RUNNING, SKIPPED, TRAINING, WAITING, Progress
from exml_lightning.cli.sweep.results import print_results, raise_for_failures
from exml_lightning.cli.sweep.view import View, duration
from tests.conftest import refused


def job(folder: Path, strategy: str = "noise", run: int = 0, variant: tuple[str, ...] = (), **figures: object) -> Job:
    place = folder / strategy / "_".join([f"run{run}", *variant])
    verb = {"oracle": "test", EXPERTS: "experts"}.get(strategy, "fit")
    if figures:
        place.mkdir(parents=True)
        (place / ("test.json" if verb == "test" else "summary.json")).write_text(json.dumps(figures))
    return Job("digits", strategy, run, variant, verb, (), place, {}, folder)


def test_without_ray_a_sweep_says_how_to_install_it(monkeypatch, capsys, repository, tmp_path):
    monkeypatch.chdir(repository)
    monkeypatch.setitem(sys.modules, "ray", None)
    args = ["sweep", "--scenarios", "split_digits", "--strategies", "noise", "--runs", "0", "--output", str(tmp_path)]
    error = refused(args, capsys)
    assert 'pip install "exml-lightning[sweep]"' in error
    assert 'pip install -e ".[sweep]"' in error
    assert "no such file" in refused([*args, "--scenarios", "none.yaml"], capsys)
    main([*args, "--dry_run"])
    assert capsys.readouterr().out.startswith("exml fit -c configs/split_digits.yaml")
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_that_does_not_answer_is_refused_at_once(monkeypatch, capsys, repository, tmp_path):
    pytest.importorskip("ray")
    monkeypatch.chdir(repository)
    args = ["sweep", "--scenarios", "split_digits", "--strategies", "noise", "--runs", "0", "--output", str(tmp_path)]
    assert "--address 127.0.0.1:1: nothing answers there" in refused([*args, "--address", "127.0.0.1:1"], capsys)
    assert "--address there: give HOST:PORT" in refused([*args, "--address", "there"], capsys)


def test_cells_that_cannot_be_run_are_said_at_once_and_end_a_dry_run(monkeypatch, capsys, repository, tmp_path):
    pytest.importorskip("ray")
    monkeypatch.chdir(repository)
    started = []
    monkeypatch.setattr(command, "_drive", lambda plan, given: started.append(capsys.readouterr().out))
    monkeypatch.setattr(command, "check_settings", len)
    finished = job(tmp_path, "noise", stream_accuracy=0.5, experts=5, experiences_learned=5)
    folder = tmp_path / "split_digits"
    shutil.copytree(finished.folder.parent, folder / "noise")
    (folder / "noise" / "run0" / "ex_model").mkdir()
    (folder / "noise" / "run0" / "ex_model" / "manifest.yaml").touch()
    (folder / "noise" / "run0" / "sweep.json").write_text('{"settings": {}}')
    args = ["sweep", "--scenarios", "split_digits", "--strategies", "noise", "oracle", "--runs", "0"]
    args += ["--output", str(tmp_path)]
    assert "1 of 2 cells cannot be run: see above" in refused([*args, "--dry_run"], capsys)
    assert "1 of 2 cells failed" in refused(args, capsys)
    first, second, third = started[0].splitlines()
    assert first == "2 cells: 0 finished before, 1 to run"
    assert second.startswith("refused: split_digits noise run0: ")
    assert third == "starting Ray"


def test_an_output_that_cannot_be_made_is_refused_before_ray_is_started(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/x cannot be made: Not a directory; name another folder with --output"):
        command._make(tmp_path / "file" / "x")


def test_a_long_note_keeps_its_error_and_its_advice(tmp_path):
    note = f"no data in {'/folder' * 40}: give --data.root"
    progress = {job(tmp_path): Progress(FAILED, note=note)}
    said = io.StringIO()
    console = Console(file=said, width=120, height=30, force_terminal=True, color_system=None)
    console.print(View(progress, console).render())
    assert said.getvalue().startswith("1 cell: 1 failed")
    assert "no data in" in said.getvalue()
    assert "--data.root" in said.getvalue()


def test_a_cell_that_goes_on_has_no_note_of_what_it_lost_and_others_name_failed_experts_once(tmp_path):
    pytest.importorskip("ray")
    from exml_lightning.cli.sweep.run import Driver

    training, cell, waiting = job(tmp_path, EXPERTS), job(tmp_path), job(tmp_path, run=1)
    progress = {training: Progress(FAILED, note="no data"), cell: Progress(LOST, note="it died"), waiting: Progress()}
    with View(progress, Console(file=io.StringIO())) as view:
        driver = Driver(progress, {waiting: training}, 1, 0, 3, view)
        driver._heard(cell, "here", 17)
        assert (progress[cell].state, progress[cell].note) == (RUNNING, "")
        progress[cell].state = FINISHED
        driver._submit()
    assert (progress[waiting].state, progress[waiting].note) == (FAILED, "its experts failed")


def test_a_line_for_each_change_where_there_is_no_terminal(tmp_path):
    cell, other = job(tmp_path, stream_accuracy=0.25, experts=5, experiences_learned=5), job(tmp_path, run=1)
    progress = {cell: Progress(), other: Progress(SKIPPED)}
    said = io.StringIO()
    with View(progress, Console(file=said, width=40)) as view:
        progress[cell] = Progress(RUNNING, "here", 17)
        view.changed(cell)
        progress[cell] = Progress(LOST, lost=1, note="it died")
        view.changed(cell)
        progress[cell] = Progress(FINISHED, seconds=75)
        view.refresh()
        view.changed(cell)
    assert said.getvalue().splitlines() == [
        "running  digits noise run0  on here, process 17  [2 cells: 1 skipped, 1 running]",
        "lost  digits noise run0  (it died)  [2 cells: 1 skipped, 1 lost]",
        "finished  digits noise run0  5/5, 25.0 %  1 min 15 s  [2 cells: 1 finished, 1 skipped]",
    ]


def test_a_table_of_what_runs_where_in_a_terminal(tmp_path):
    now = time.monotonic()
    progress = {
        job(tmp_path, EXPERTS, 1): Progress(TRAINING, "node-a", 4, now - 4),
        job(tmp_path, "oracle"): Progress(FINISHED, seconds=100),
        job(tmp_path, stream_accuracy=0.3, experts=5, experiences_learned=2): Progress(RUNNING, "node-b", 71, now - 60),
        job(tmp_path, run=1): Progress(LOST, lost=2, note="WorkerCrashedError"),
        job(tmp_path, run=2, variant=("buffer.size=10",)): Progress(FAILED, note="no data there"),
        job(tmp_path, run=3): Progress(WAITING),
    }
    said = io.StringIO()
    console = Console(file=said, width=140, height=30, force_terminal=True, color_system=None)
    console.print(View(progress, console).render())
    rows = [" ".join(line.split()) for line in said.getvalue().splitlines() if line.strip()]
    # 96 s of the training, 40 s of the running cell, 100 s of each of two cells, by two processes
    assert rows[0] == "5 cells: 1 finished, 1 failed, 1 running, 1 lost, 1 waiting; about 2 min 48 s left"
    assert rows[1] == "state cell where time learned"
    assert rows[3:] == [
        "training experts digits experts run1 node-a, 4 4 s",
        "running digits noise run0 node-b, 71 1 min 00 s 2/5, 30.0 %",
        "lost, retry 2 digits noise run1 0 s WorkerCrashedError",
        "failed digits noise run2 buffer.size=10 0 s no data there",
    ]


def test_a_table_fits_the_terminal(tmp_path):
    progress = {job(tmp_path, run=k): Progress(RUNNING, "here", k) for k in range(50)}
    said = io.StringIO()
    console = Console(file=said, width=100, height=20, force_terminal=True, color_system=None)
    console.print(View(progress, console).render())
    assert len(said.getvalue().splitlines()) <= 20


def test_mean_and_standard_deviation_over_runs(tmp_path, capsys):
    progress = {job(tmp_path, run=k, stream_accuracy=x): Progress(FINISHED) for k, x in enumerate([0.5, 0.6, 0.7])}
    progress[job(tmp_path, variant=("buffer.size=10",), stream_accuracy=0.25)] = Progress(SKIPPED)
    progress[job(tmp_path, "oracle", stream_accuracy=0.99)] = Progress(SKIPPED)
    progress[job(tmp_path, "oracle", 1, stream_accuracy=0.01)] = Progress(FAILED)
    progress[job(tmp_path, "auxiliary", agreement=0.75)] = Progress(FINISHED)
    print_results(progress, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[3:] == [
        "digits auxiliary 75.00 1",
        "digits noise 60.00 ± 10.00 3",
        "digits noise buffer.size=10 25.00 1",
        "digits oracle 99.00 1",
        f"next: exml report {tmp_path}",
    ]


def test_what_failed_is_named_with_its_log(tmp_path, capsys):
    ran = job(tmp_path, "oracle")
    progress = {ran: Progress(FAILED, "here", 3, note="no data"), job(tmp_path): Progress(FINISHED)}
    with pytest.raises(ValueError, match="1 of 2 cells failed"):
        raise_for_failures(progress)
    assert capsys.readouterr().out == f"failed: digits oracle run0: no data ({ran.folder / 'log.txt'})\n"
    raise_for_failures({ran: Progress(FINISHED)})


def test_durations():
    assert [duration(x) for x in (0.4, 59.4, 59.6, 3599, 3600, 90061)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "25 h 01 min",
    ]
