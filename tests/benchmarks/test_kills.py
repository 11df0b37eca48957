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


def event(whole: Reference, what: str, target: str) -> int:
    """The place of the first event that gives a file its name."""
    return next(i for i, e in enumerate(whole.events) if e.what == what and e.target.endswith(target))


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


def test_killed_before_the_ex_model_has_its_name(whole, tmp_path):
    tally = struck(whole, tmp_path / "job", Fault(event(whole, "os.rename", "ex_model/expert_0.safetensors"), KILL))
    assert tally.failures == []
    assert tally.statuses == {"SIGKILL": {"-9": 1}}


def test_sigterm_while_a_summary_is_written(whole, tmp_path):
    tally = struck(whole, tmp_path / "job", Fault(event(whole, "os.rename", "summary.json"), TERM))
    assert tally.failures == []
    assert tally.statuses == {"SIGTERM": {"143": 1}}


def test_ctrl_c_while_a_picture_is_written(whole, tmp_path):
    tally = struck(whole, tmp_path / "job", Fault(event(whole, "os.rename", "accuracy_matrix.png"), INT))
    assert tally.failures == []
    assert tally.statuses == {"Ctrl-C": {"130": 1}}


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
