"""What is finished, and what is not."""

import json
import shutil
from pathlib import Path

import pytest

from exml_lightning.cli.sweep.grid import Grid, Job, cells_of, training_of
from exml_lightning.cli.sweep.plan import _examples, check_settings, plan_of
from exml_lightning.cli.sweep.progress import FAILED, SKIPPED, WAITING
from exml_lightning.cli.sweep.state import experts_are_there, mark_finished, state_of
from exml_lightning.core.errors import ExmlError


@pytest.fixture(autouse=True)
def in_the_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def grid(folder: Path, strategy: str = "noise", **settings: object) -> Grid:
    return Grid(["split_digits"], [strategy], [0], {}, settings, (), folder)


def cell(folder: Path, strategy: str = "noise", **settings: object) -> Job:
    return cells_of(grid(folder, strategy, **settings))[0]


def write_results(job: Job, learned: int = 5, experts: int = 5, ex_model: bool = True, **more: object) -> None:
    """What a fit leaves, or a baseline's test."""
    (job.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    name = "test.json" if job.verb == "test" else "summary.json"
    figures = {"stream_accuracy": 0.5, "experiences_learned": learned, "experts": experts, **more}
    (job.folder / name).write_text(json.dumps(figures))
    if ex_model:
        (job.folder / "ex_model").mkdir(exist_ok=True)
        (job.folder / "ex_model" / "manifest.yaml").write_text("x")


def test_a_cell_is_finished_with_its_last_expert_and_its_ex_model(tmp_path):
    job = cell(tmp_path)
    assert state_of(job) == "missing"
    write_results(job, ex_model=False)
    assert state_of(job) == "unfinished"
    write_results(job, learned=4)
    assert state_of(job) == "unfinished"
    write_results(job)
    assert state_of(job) == "finished by hand"
    mark_finished(job)
    assert state_of(job) == "finished"
    write_results(job, learned=4, experiences_skipped=[2])
    assert state_of(job) == "finished"
    write_results(job, experts=6)  # the stream has grown
    assert state_of(job) == "unfinished"
    (job.folder / "summary.json").write_text("half")
    assert state_of(job) == "unfinished"


def test_fewer_experts_may_be_asked_for(tmp_path):
    job = cell(tmp_path, **{"trainer.max_epochs": 2})
    write_results(job, learned=2)
    mark_finished(job)
    assert state_of(job) == "finished"


def test_a_baseline_is_finished_with_its_figures(tmp_path):
    job = cell(tmp_path, "oracle")
    write_results(job, ex_model=False)
    mark_finished(job)
    assert state_of(job) == "finished"


def test_other_settings_are_named(tmp_path):
    job = cell(tmp_path)
    write_results(job)
    mark_finished(job)
    elsewhere = cell(tmp_path, **{"data.root": "elsewhere", "buffer.cache": None, "trainer.enable_progress_bar": True})
    assert state_of(elsewhere) == "finished"
    with pytest.raises(ExmlError, match=r"noise/run0 was finished with other settings: buffer.size was 400, now 7; "):
        state_of(cell(tmp_path, **{"buffer.size": 7}))
    with pytest.raises(ExmlError, match=r"model.temperature was not given, now 2;"):
        state_of(cell(tmp_path, **{"model": {"temperature": 2}}))
    plan = plan_of(grid(tmp_path, **{"buffer.size": 7}))
    (progress,) = plan.progress.values()
    assert progress.state == FAILED
    assert "buffer.size was 400, now 7" in progress.note


def test_where_and_how_a_cell_is_run_is_not_compared_and_all_differences_are_named(tmp_path):
    job = cell(tmp_path)
    write_results(job)
    mark_finished(job)
    more = {"trainer.log_every_n_steps": 7, "trainer.accelerator": "gpu", "model.compile": True}
    assert state_of(cell(tmp_path, **more, **{"data.eval_batch_size": 9})) == "finished"
    with pytest.raises(ExmlError, match=r": buffer.size was 400, now 7; trainer.precision was not given, now 16-true;"):
        state_of(cell(tmp_path, **{"buffer.size": 7, "trainer.precision": "16-true"}))
    with pytest.raises(ExmlError, match=r"trainer.max_epochs was not given, now 3;"):
        state_of(cell(tmp_path, **{"trainer.max_epochs": 3}))


def test_settings_that_change_nothing_in_a_baseline_are_not_compared(tmp_path):
    job = cell(tmp_path, "oracle")
    write_results(job)
    mark_finished(job)
    assert state_of(cell(tmp_path, "oracle", **{"buffer.size": 7})) == "finished"
    with pytest.raises(ExmlError, match=r"data.seed was not given, now 3;"):
        state_of(cell(tmp_path, "oracle", **{"data.seed": 3}))


def test_of_other_experts_the_command_is_asked(tmp_path, digit_experts):
    experts = shutil.copytree(digit_experts, tmp_path / "experts")
    job = cell(tmp_path, **{"data.experts": str(experts)})
    write_results(job)
    mark_finished(job)
    assert state_of(job) == "finished"
    (experts / "manifest.yaml").write_text((experts / "manifest.yaml").read_text() + "\n# others\n")
    assert state_of(job) == "finished by hand"
    (experts / "manifest.yaml").unlink()  # only the results were kept
    assert state_of(job) == "finished"


def test_experts_are_trained_once_for_all_cells_that_miss_them(tmp_path, digit_experts):
    assert experts_are_there(digit_experts)
    several = Grid(["split_digits"], ["noise", "oracle"], [0, 1], output=tmp_path)
    plan = plan_of(several)
    (training,) = {*plan.trainings.values()}
    assert training.verb == "experts"
    assert {job.run for job in plan.trainings} == {1}
    assert next(iter(plan.progress)) is training
    assert [progress.state for progress in plan.progress.values()] == [WAITING] * 5
    for job in plan.pending:
        write_results(job)
        mark_finished(job)
    done = plan_of(several)
    assert [progress.state for progress in done.progress.values()] == [SKIPPED] * 4
    assert done.trainings == {}


def test_half_trained_experts_are_not_there(tmp_path):
    (tmp_path / "training").mkdir()
    (tmp_path / "manifest.yaml").write_text("x")
    assert not experts_are_there(tmp_path)


def test_experts_that_were_trained_otherwise_are_not_taken_for_those_asked_for(tmp_path):
    plan = plan_of(grid(tmp_path, **{"experts.epochs": 3}))
    (progress,) = plan.progress.values()
    assert progress.state == FAILED
    assert "were trained with epochs 50, but experts.epochs 3 is asked for" in progress.note
    assert "delete checkpoints/split_digits/run0, or copy the scenario's YAML" in progress.note
    assert plan_of(grid(tmp_path, **{"experts": {"epochs": 50}})).pending
    job = cell(tmp_path)
    write_results(job)
    mark_finished(job)
    (progress,) = plan_of(grid(tmp_path, **{"experts.epochs": 3})).progress.values()
    assert progress.state == FAILED
    (progress,) = plan_of(grid(tmp_path, **{"experts.epochs": 50})).progress.values()
    assert progress.state == SKIPPED
    shutil.rmtree(job.folder)
    smoke = Grid(["split_digits"], ["noise"], [0], overlays=["smoke"], output=tmp_path)  # says experts.epochs: 1
    job = cells_of(smoke)[0]
    assert training_of(job, smoke).settings == {}
    assert plan_of(smoke).pending


def test_keys_and_values_that_the_package_does_not_take_are_found_before_any_work(tmp_path):
    check_settings([cell(tmp_path), cell(tmp_path, "oracle")])
    with pytest.raises(ExmlError, match=r"split_digits, noise: .*--buffer.sze"):
        check_settings([cell(tmp_path, **{"buffer.sze": 7})])
    with pytest.raises(ExmlError, match=r"split_digits, oracle: .*data.n_iter"):
        check_settings([cell(tmp_path, "oracle", **{"data.n_iter": "many"})])
    several = cells_of(Grid(["split_digits"], ["noise"], [0, 1], {"buffer.size": [4, "bad"]}, output=tmp_path))
    with pytest.raises(ExmlError, match=r"split_digits, noise: buffer.size: bad is not a whole number"):
        check_settings(several)


def test_of_many_grid_points_as_many_are_checked_as_have_all_values(tmp_path):
    def checked(count: int) -> list[Job]:
        values = {"buffer.size": list(range(1, count + 1)), "data.n_iter": list(range(101, count + 101))}
        return _examples(cells_of(Grid(["split_digits"], ["noise", "oracle"], [0, 1], values, output=tmp_path)))

    assert [len(checked(4)), len(checked(10))] == [4 * 4 + 1, 10 + 9 + 1]  # the oracle has one cell a run
    words = {word for job in checked(10) for word in job.variant}
    assert len(words) == 10 + 10
