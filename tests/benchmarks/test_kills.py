"""A small fit that dies at file events of its own, and is resumed by the same command."""

from pathlib import Path

import pytest

from benchmarks.reliability.children import Fault
from benchmarks.reliability.jobs import fit
from benchmarks.reliability.kills import chain, faults, kill_real_commands
from benchmarks.reliability.survival import INT, KILL, TERM, TORN, Reference, Tally, survive, uninterrupted

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Reference:
    return uninterrupted(fit(), tmp_path_factory.mktemp("whole") / "job")


def torn(whole: Reference, file: str, nth: int) -> Fault:
    """The nth write of a file is cut."""
    return [f for f in faults(whole.events, 1, 1) if f.signal == TORN and f.file.endswith(file)][nth]


def struck(whole: Reference, folder: Path, *chosen: Fault) -> Tally:
    tally = Tally()
    survive(whole, folder, chosen, tally)
    return tally


def test_a_cache_entry_and_a_checkpoint_half_written_are_not_taken_for_whole(whole, tmp_path):
    entry = next(e.target for e in whole.events if e.target.startswith("cache/"))
    tally = struck(whole, tmp_path / "job", torn(whole, entry, 0), torn(whole, "last.ckpt", 1))
    assert tally.failures == []
    assert tally.struck == {"cache entry": {"torn write": 1}, "checkpoint": {"torn write": 1}}


@pytest.mark.parametrize(
    ("number", "file", "statuses"),
    [
        (KILL, "ex_model/expert_0.safetensors", {"SIGKILL": {"-9": 1}}),
        (TERM, "summary.json", {"SIGTERM": {"143": 1}}),
        (INT, "accuracy_matrix.png", {"Ctrl-C": {"130": 1}}),
    ],
)
def test_struck_before_a_file_has_its_name(whole, tmp_path, number, file, statuses):
    place = next(i for i, e in enumerate(whole.events) if e.what == "os.rename" and e.target.endswith(file))
    tally = struck(whole, tmp_path / "job", Fault(place, number))
    assert tally.failures == []
    assert tally.statuses == statuses


@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_third_file_event(whole, tmp_path, part):
    tally = Tally()
    for fault in faults(whole.events, 3, 24)[part::4]:
        survive(whole, tmp_path / "job", [fault], tally)
    assert tally.failures == []
    assert tally.kills >= 20


def test_resumes_are_killed_too(whole, tmp_path):
    tally = Tally()
    for seed in range(6):
        survive(whole, tmp_path / "job", chain(whole.events, seed), tally)
    assert tally.failures == []
    assert tally.kills >= 10


def test_the_real_command_killed_at_random_moments(tmp_path):
    tally = Tally()
    kill_real_commands(tmp_path, tally, chains=2)
    assert tally.failures == []
    assert tally.kills >= 3
