"""The benchmark of speed: its clocks, its arithmetic and its page. What it measures is measured elsewhere."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from benchmarks.performance import __main__ as command
from benchmarks.performance import overhead, paper_scale, timing
from benchmarks.performance.document import render, table
from benchmarks.performance.figures import picture_name
from benchmarks.performance.overhead import Effort, Interleaved
from benchmarks.performance.scaling import exponent
from benchmarks.performance.workload import SHIPPED, Workload, write_fit

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is told otherwise."""
    fake = SimpleNamespace(now=0.0)
    for module in (timing, overhead):
        monkeypatch.setattr(module, "perf_counter", lambda: fake.now)
    return fake


def advance(clock, *seconds):
    """A job whose calls take the given seconds, one after the other."""
    left = iter(seconds)

    def job():
        clock.now += next(left)

    return job


def test_the_page_is_made_of_the_results(repository):
    path = repository / "docs" / "performance.json"
    assert (repository / "docs" / "performance.md").read_text() == render(json.loads(path.read_text()))


def test_jobs_take_turns_and_the_first_turn_does_not_count(clock):
    jobs = {"a": advance(clock, 50, 70, 1, 3, 5, 6), "b": advance(clock, 90, 10, 2, 4, 8, 8)}
    seconds = timing.interleave(jobs, rounds=2, steps=2, synchronize=lambda: None)
    assert seconds == {"a": [2.0, 5.5], "b": [3.0, 8.0]}
    assert timing.time_steps(advance(clock, 1, 1), 2, advance(clock, 10, 4)) == 3.0  # waiting for the device counts


def test_ratios_are_those_of_rounds():
    assert timing.ratio([1.0, 6.0, 2.0], [2.0, 2.0, 4.0]) == {"median": 0.5, "min": 0.5, "max": 3.0}


def test_a_fit_stops_its_clock_for_other_jobs_and_is_charged_for_checkpoints(clock, monkeypatch):
    monkeypatch.setattr(Interleaved, "_checkpoint", lambda *_: 0.25)
    watch = Interleaved({"bare": advance(clock, 9, 9, 1, 3, 2, 2)}, Effort(rounds=2, steps=2), CPU)
    for epoch in (0, 1):
        for step in range(watch.n_iter):
            clock.now += 100 if step < 3 else 4 if step < 5 else 6
            watch.on_train_batch_end(SimpleNamespace(current_epoch=epoch), None, None, None, step)
    assert watch.n_iter == 3 + 2 * 2 + 1
    assert watch.seconds == {"fit": [4.25, 6.25], "bare": [2.0, 2.0]}


@pytest.mark.parametrize("power", [0.0, 0.5, 2.0])
def test_exponents_of_power_laws(power):
    sizes = [1, 10, 20, 50]
    costs = [1000.0, *(3 * size**power for size in sizes[1:])]  # the first point is not of the law
    assert exponent(sizes, costs) == pytest.approx(power)


@pytest.mark.parametrize("network", SHIPPED)
def test_bare_loops_have_the_networks_that_a_fit_reads(tmp_path, network):
    workload = Workload(network, classes_per_expert=1)
    words = write_fit(workload, tmp_path, CPU, {"data.n_iter": 7, "data.augmentation": None})
    assert words == ["fit", "-c", str(tmp_path / "run.yaml")]
    written, own = workload.read_expert(tmp_path / "experts", 1), workload.expert(1)
    images = workload.images(4)
    assert images.mean().abs() < 0.5
    torch.testing.assert_close(written(images), own(images))
    for layer in own.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.num_batches_tracked == 4
            assert layer.running_mean.abs().max() > 0


def test_tables():
    rows = [
        {"what": "a|b", "ratio": {"median": 0.5, "min": 0.25, "max": 123.4}, "met": True},
        {"n": 5000, "what": 1e-3},
    ]
    assert table(rows) == (
        "| what | ratio | met | n |\n| --- | --- | --- | --- |\n"
        "| a\\|b | 0.500 (0.250 to 123) | yes |  |\n| 0.001 |  |  | 5,000 |\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["overhead", "--quick"], "--results FILE"),
        (["paper_scale", "--results", "new.json"], "--device cuda"),
        (["--threads", "many"], "many is no number of threads"),
        (["--device", "cuda"], "there is no GPU"),
    ],
)
def test_bad_words(words, message, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        command.main(words)
    assert message in capsys.readouterr().err


def test_parts_are_saved_and_unfinished_ones_gone_on_with(monkeypatch, tmp_path, capsys):
    calls = []

    def part(name, finished):
        def run(device, folder, quick):
            calls.append(name)
            row = {name: 500, "generating": 1.0, "distilling": 2.0, "whole process": 3.0, "peak memory": 4.0}
            return {"finished": finished, "tables": {name: [{**row, "met": finished}]}}

        return run

    parts = {"scaling_buffer": part("size", True), "overhead": part("fit", False), "paper_scale": None}
    monkeypatch.setattr(command, "PARTS", parts)
    path = tmp_path / "r.json"
    command.main(["--results", str(path)])
    assert "1 of 1 goals met" in capsys.readouterr().out
    command.main(["--results", str(path), "--missing"])
    assert calls == ["size", "fit", "fit"]
    assert (tmp_path / picture_name("r", "cpu")).is_file()
    page = (tmp_path / "r.md").read_text()
    assert page == render(json.loads(path.read_text()), "r")
    assert "(r_scaling_cpu.png)" in page
    assert "`overhead` is not finished." in page
    command.main(["scaling", "--results", str(path)])
    assert calls[3:] == ["size"]


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in command.PARTS if part != "paper_scale"])
def test_a_few_steps_of_each_part(part, tmp_path):
    result = command.PARTS[part](CPU, tmp_path, True)
    assert result["tables"]
    assert all(rows for rows in result["tables"].values())


@pytest.mark.slow
def test_the_paper_scale_run_goes_on_where_it_was_stopped(tmp_path):
    assert not paper_scale.run(CPU, tmp_path, True, limit=0.0)["finished"]
    result = paper_scale.run(CPU, tmp_path, True)
    assert result["finished"]
    assert [row["pieces"] for rows in result["tables"].values() for row in rows] == [2]
    assert paper_scale.run(CPU, tmp_path, True) == result
