"""What is finished on disk, what a sweep says of its cells, and how a command is run."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from exml_lightning.cli.main import main
from exml_lightning.cli.sweep import command
from exml_lightning.cli.sweep import progress as words
from exml_lightning.cli.sweep.cell import ProcessLostError, last_error, run_command
from exml_lightning.cli.sweep.command import plan_of, sweep
from exml_lightning.cli.sweep.grid import Grid, Job, cells_of
from exml_lightning.cli.sweep.on_disk import has_experts, is_finished
from exml_lightning.cli.sweep.progress import Progress, State, print_results
from exml_lightning.cli.sweep.run import run_jobs
from exml_lightning.core.errors import ExmlError


@pytest.fixture(autouse=True)
def in_the_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def cell(folder: Path, strategy: str = "noise", **settings: object) -> Job:
    return cells_of(Grid(["split_digits"], [strategy], [0], {}, settings, (), folder))[0]


def write_results(job: Job, learned: int = 5, accuracy: float = 0.5, **settings: object) -> None:
    """What a fit leaves, or a baseline's test."""
    (job.folder / "ex_model").mkdir(parents=True, exist_ok=True)
    (job.folder / "ex_model" / "manifest.yaml").write_text("x")
    figures = {"stream_accuracy": accuracy, "experiences_learned": learned, "experts": 5}
    (job.folder / ("test.json" if job.words[0] == "test" else "summary.json")).write_text(json.dumps(figures))
    (job.folder / "config.yaml").write_text(yaml.safe_dump({**job.settings, **settings}))


def test_a_cell_is_finished_with_its_last_expert_and_its_ex_model(tmp_path):
    job, baseline, four = cell(tmp_path), cell(tmp_path, "oracle"), cell(tmp_path, **{"trainer.max_epochs": 4})
    assert not is_finished(job)
    write_results(job, learned=4)
    assert not is_finished(job)
    write_results(four, learned=4)
    assert is_finished(four)
    write_results(job)
    assert is_finished(job)
    (job.folder / "ex_model" / "manifest.yaml").unlink()
    assert not is_finished(job)
    assert not is_finished(baseline)
    write_results(baseline)
    shutil.rmtree(baseline.folder / "ex_model")
    assert is_finished(baseline)
    (baseline.folder / "test.json").write_text('{"stream_accu')
    with pytest.raises(ExmlError, match=r"oracle/run0/test\.json is broken"):
        is_finished(baseline)


def test_a_cell_of_other_settings_is_for_exml_fit_to_refuse_or_to_go_on_with(tmp_path):
    write_results(cell(tmp_path), **{"buffer.generator.class_path": "x.Noise"})
    assert not is_finished(cell(tmp_path))
    write_results(cell(tmp_path), **{"data.seed": 1})
    assert is_finished(cell(tmp_path, **{"data.seed": 1}))
    assert not is_finished(cell(tmp_path, **{"data.seed": 2}))
    assert not is_finished(cell(tmp_path, **{"data.seed": 1, "data.new": 1}))
    write_results(cell(tmp_path, "oracle"))
    assert is_finished(cell(tmp_path, "oracle", **{"buffer.size": 7}))  # changes nothing in a baseline


@pytest.mark.parametrize("strategy", ["noise", "best", "refined", "oracle"])
def test_the_config_yaml_of_a_run_agrees_with_its_cell_and_with_no_other(tmp_path, capsys, strategy):
    job = cell(tmp_path, strategy)
    with pytest.raises(SystemExit):
        main([*job.words, "--print_config"])
    write_results(job)
    (job.folder / "config.yaml").write_text(capsys.readouterr().out)
    assert is_finished(job)
    for key, value in {"data.augmentation.shift": 0.5, "trainer.devices": 2, "data.experts": "mine"}.items():
        other = replace(job, settings={**job.settings, key: value})
        assert not is_finished(other), key
    own, another = ("SGD", "Adam") if strategy == "refined" else ("Adam", "SGD")
    shorter = {"model.optimizer": own, "trainer.accelerator": "auto"}
    assert is_finished(replace(job, settings={**job.settings, **shorter}))
    assert not is_finished(replace(job, settings={**job.settings, "model.optimizer": another}))


def test_experts_are_trained_once_for_all_cells_that_miss_them(tmp_path):
    several = Grid(["split_digits"], ["noise", "oracle"], [0, 1], output=tmp_path)
    progress = plan_of(several)
    training, *cells = progress
    assert [job.training is training for job in cells] == [False, False, True, True]
    assert [state.word for state in progress.values()] == [words.WAITING] * 5
    for job in cells:
        write_results(job)
    assert [state.word for state in plan_of(several).values()] == [words.SKIPPED] * 4


def test_experts_are_there_when_their_training_has_ended_and_nobody_asks_how(tmp_path):
    for folder in ("half", "whole"):
        (tmp_path / folder / "training").mkdir(parents=True)
        (tmp_path / folder / "manifest.yaml").write_text("x")
    (tmp_path / "whole" / "training").rmdir()
    for folder, settings, there in (("half", {}, False), ("whole", {}, True), ("whole", {"epochs": 3}, False)):
        job = cell(tmp_path, **{"data.experts": str(tmp_path / folder), "experts": settings})
        assert has_experts(job.training) == there


def test_a_line_for_each_change_a_table_and_what_failed(tmp_path, capsys):
    """In the order of the sweep, which is not that of the alphabet."""
    jobs = cells_of(Grid(["split_digits"], ["oracle", "noise"], [0, 1, 2], output=tmp_path))
    progress = Progress(dict.fromkeys(jobs, State()))
    for k, job in enumerate(progress):
        write_results(job, accuracy=0.5 + k / 20)
    progress.change(jobs[0], words.RUNNING)
    progress.change(jobs[0], words.FINISHED)
    progress.change(jobs[1], words.FAILED, "no data")
    assert capsys.readouterr().out.splitlines() == [
        "running  split_digits oracle run0  [cells: 1 running, 5 waiting]",
        "finished  split_digits oracle run0  50.0 %  [cells: 1 finished, 5 waiting]",
        "failed  split_digits noise run0  no data  [cells: 1 finished, 1 failed, 4 waiting]",
    ]
    progress |= dict.fromkeys(jobs[2:5], State(words.SKIPPED))
    with pytest.raises(ExmlError, match=r"1 of 6 cells failed; put right"):
        print_results(progress, tmp_path)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[3:] == [
        "split_digits oracle 60.00 ± 10.00 3",
        "split_digits noise 65.00 1",
        f"next: exml report {tmp_path}",
        f"failed: split_digits noise run0: no data ({jobs[1].folder / 'log.txt'})",
    ]


class InstantRay:
    """Stands in for Ray: a task that is asked for is run at once."""

    class exceptions:  # noqa: N801 - as Ray names it
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self, answers: dict[Path, str | Exception]) -> None:
        self.answers, self.asked = answers, []

    def remote(self, function):
        return self

    def options(self, **options):
        self.asked.append(options)
        return SimpleNamespace(remote=lambda words, folder, *more: (folder, more[3:]))

    def wait(self, tasks, timeout):
        return tasks, []

    def get(self, task):
        folder, experts = task
        answer = self.answers.get(folder, "")
        if experts and (error := self.get(experts[0])):
            return run_command((), folder, Path(), 1, 0, error)
        if isinstance(answer, Exception):
            error = self.exceptions.RayTaskError()
            error.cause = answer
            raise error if isinstance(answer, ProcessLostError) else self.exceptions.RayError
        return answer


def test_jobs_end_with_their_errors_and_cells_whose_experts_failed_do_not_run(tmp_path, monkeypatch):
    missing, *others = cells_of(Grid(["split_digits"], ["noise"], [1], {"buffer.size": [4, 5]}, output=tmp_path))
    lost, died, good = cells_of(Grid(["split_digits"], ["noise"], [0], {"buffer.size": [6, 7, 8]}, output=tmp_path))
    jobs = [missing.training, missing, *others, lost, died, good]
    answers = {missing.training.folder: "no data", lost.folder: ProcessLostError("status -9"), died.folder: OSError()}
    ray = InstantRay(answers)
    monkeypatch.setitem(sys.modules, "ray", ray)
    progress = Progress(dict.fromkeys(jobs, State()))
    run_jobs(progress, 2, 0.5, 1)
    assert [state.word for state in progress.values()] == [words.FAILED] * 5 + [words.FINISHED]
    notes = [state.note for state in progress.values()]
    assert notes[:4] == ["no data", "its experts failed", "its experts failed", "status -9, 2 times (--retries 1)"]
    assert notes[4:] == ["its worker was lost 2 times (RayError; --retries 1)", ""]
    assert ray.asked == [{"num_cpus": 2, "num_gpus": 0.5, "max_retries": 1, "retry_exceptions": [ProcessLostError]}]


@pytest.mark.parametrize(("address", "said"), [("127.0.0.1:1", "nothing answers"), ("there", ".*give HOST:PORT")])
def test_a_cluster_that_does_not_answer_is_refused_at_once(tmp_path, address, said):
    pytest.importorskip("ray")
    given = {"scenarios": ["split_digits"], "strategies": ["noise", "oracle"], "runs": [0], "output": tmp_path}
    with pytest.raises(ExmlError, match=f"--address {address}: {said}"):
        sweep(**given, address=address)


def test_a_command_that_fails_ends_with_its_error(tmp_path):
    (tmp_path / "run").mkdir()
    log = tmp_path / "run" / "log.txt"
    log.write_text("exml: error: an earlier one\n")
    assert run_command(["ft"], Path("run"), tmp_path, 1, 0) == "no verb 'ft'; did you mean `exml fit`?"
    first, second, *_ = log.read_text().splitlines()
    assert first == "exml: error: an earlier one"
    assert second.endswith(f"worker {os.getpid()}] exml ft")
    assert run_command(["--version"], Path("run"), tmp_path, 1, 0) == ""
    assert run_command(["--version"], Path("run"), tmp_path, 1, 0, "no data") == "its experts failed"
    assert last_error("one\ntwo\n") == "two"


def test_the_process_gets_its_threads_and_no_gpu_unless_asked_and_may_be_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    seen = []

    class Process:
        returncode = 143

        def __init__(self, words, env, **kwargs):
            seen.append((env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]))

        def poll(self):
            return 143

    monkeypatch.setattr(subprocess, "Popen", Process)
    for gpus in (0, 0.5):
        with pytest.raises(ProcessLostError, match="ended with status 143"):
            run_command(["fit"], Path("run"), tmp_path, 3, gpus)
    assert seen == [("3", ""), ("3", "1")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_process_ends_with_its_worker_and_keeps_its_log_until_then(tmp_path):
    """The worker is killed; its command sleeps, and takes its time to end."""
    package = tmp_path / "exml_lightning"  # stands in for the package where the command is run
    (package / "cli" / "sweep").mkdir(parents=True)
    shutil.copy(sys.modules[run_command.__module__].__file__, package / "cli" / "sweep")
    (package / "__main__.py").write_text(
        "import signal, time\n"
        "def end(*_):\n    time.sleep(1)\n    print('ended', flush=True)\n    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('sleeping', flush=True)\ntime.sleep(60)\n"
    )
    code = (
        "import sys\nfrom pathlib import Path\nfrom exml_lightning.cli.sweep.cell import run_command\n"
        "run_command(['fit'], Path('run'), Path(sys.argv[1]), 1, 0)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path)
    log = tmp_path / "run" / "log.txt"
    end = time.monotonic() + 60
    while not (log.exists() and "sleeping" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    (package / "__main__.py").write_text("print('the second')")
    assert run_command(["fit"], Path("run"), tmp_path, 1, 0) == ""
    assert [line for line in log.read_text().splitlines() if "exml" not in line] == ["sleeping", "ended", "the second"]


@pytest.mark.parametrize(("given", "workers"), [({}, 6), ({"cpus": 4}, 1), ({"cpus": 9}, 1), ({"workers": 3}, 3)])
def test_unless_told_there_are_as_many_cells_at_a_time_as_there_are_cpus_for(tmp_path, monkeypatch, given, workers):
    asked: list[tuple[object, ...]] = []

    def cluster(*words: object) -> contextlib.AbstractContextManager[None]:
        asked.append(words)
        return contextlib.nullcontext()

    monkeypatch.setattr(command, "cores", lambda: 6)
    monkeypatch.setattr(command, "ray_cluster", cluster)
    monkeypatch.setattr(command, "run_jobs", lambda *words: None)
    command.sweep(scenarios=["split_digits"], strategies=["best"], runs=[0], output=tmp_path, **given)
    assert asked[0][0] == workers
