"""Bars, plain lines and --quiet, in a terminal and without one."""

import builtins
import json
import os
import pty
import re
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from exml_lightning import terminal
from exml_lightning.callbacks.stream_clock import StreamClock
from exml_lightning.cli.main import main
from exml_lightning.terminal import MOST, Place, print_matrix, print_rows

SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"


def in_a_terminal(code: str, until: bytes | None = None) -> tuple[bytes, int]:
    """Run Python in a pseudo terminal of 100 columns; Ctrl-C is pressed once `until` is printed."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("CI", None)  # a person's terminal, wherever the tests run
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=Path.cwd()
    )
    os.close(theirs)
    text = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not read:
            break
        text += read
        if until is not None and until in text:
            child.send_signal(signal.SIGINT)
            until = None
    os.close(ours)
    return text, child.wait()


WORK = """
from exml_lightning import terminal
terminal.EVERY = 0
with terminal.Bar("expert 1/2 working", 4, note=lambda: "loss 0.5") as bar:
    for step in range(4):
        bar.advance()
        print(f"said {step}")
print("after")
"""


def test_a_bar_is_drawn_in_a_terminal_and_leaves_it_clean():
    text, status = in_a_terminal(WORK)
    assert status == 0
    for words in (b"expert 1/2 working", b"0/4", b"2/4", b"4/4", b"loss 0.5", b"said 3", b"after"):
        assert words in text
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)


def test_outside_a_terminal_nothing_is_drawn(capsys):
    with terminal.Bar("working", 3, note=lambda: pytest.fail("asked for what is not shown")) as bar:
        bar.advance(3)
    assert bar.done == 3
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_as_full_as_the_work_is_done(monkeypatch):
    monkeypatch.setattr(terminal, "draws_bars", lambda: True)
    with terminal.Bar("working", 4) as bar:
        bar.advance(3)
        bar.draw()
        assert bar._progress.tasks[0].percentage == 75


def work_of_two_minutes(monkeypatch, step=5.0, **settings):
    """Work of 120 steps of a second, reported every so many."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with terminal.Bar("working", 120, note=lambda: "loss 0.5", **settings) as bar:
        for _ in range(round(120 / step)):
            now[0] += step
            bar.advance(step)


def test_outside_a_terminal_long_work_says_a_line_every_half_minute(monkeypatch, capsys):
    work_of_two_minutes(monkeypatch, done=0.0)
    assert capsys.readouterr().out.splitlines() == [
        "working: 30/120, 1:30 left, loss 0.5",
        "working: 60/120, 1:00 left, loss 0.5",
        "working: 90/120, 0:30 left, loss 0.5",
        "working: 120/120, 2:00, loss 0.5",
    ]
    work_of_two_minutes(monkeypatch, step=60.0)  # no thread runs beside it
    assert len(capsys.readouterr().out.splitlines()) == 2
    work_of_two_minutes(monkeypatch, shown=False)
    monkeypatch.setenv("RANK", "1")  # of several processes, the first one speaks
    work_of_two_minutes(monkeypatch)
    monkeypatch.delenv("RANK")
    terminal.set_quiet(True)
    try:
        work_of_two_minutes(monkeypatch)
    finally:
        terminal.set_quiet(False)
    assert capsys.readouterr().out == ""


def test_work_done_before_says_nothing_of_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with terminal.Bar("making", 100) as bar:
        bar.skip(60)
        now[0] = 40.0
        bar.advance(20)
    assert capsys.readouterr().out == "making: 80/100, 0:40 left\n"


class Shown:
    """A display of a notebook, as IPython's: what it showed, and how often it was updated."""

    def __init__(self, picture):
        self.pictures = [picture]

    def update(self, picture):
        self.pictures.append(picture)


@pytest.fixture
def notebook(monkeypatch):
    """Lets this process look like a notebook's kernel; returns its displays."""
    shown = []

    def display(picture, display_id):
        assert display_id is True
        shown.append(Shown(picture))
        return shown[-1]

    kernel = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: kernel, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", types.SimpleNamespace(display=display))
    return shown


def test_in_a_notebook_a_bar_and_a_growing_table_have_one_place_each(notebook, monkeypatch):
    monkeypatch.setattr(terminal, "EVERY", 0)
    with terminal.Bar("working", 4) as bar:
        for _ in range(4):
            bar.advance()
    with terminal.Bar("measuring", 4, leave=False) as bar:  # what would be taken away again is not shown
        bar.advance(4)
    place = Place()
    for rows in ([[1.0]], [[1.0], [0.5, 0.75]]):
        print_matrix("accuracy", rows, ["a", "b"], {}, place)
    bar_shown, table_shown = notebook
    assert len(bar_shown.pictures) > 4
    assert "4/4" in bar_shown.pictures[-1]._repr_mimebundle_([], [])["text/html"]
    first, last = (picture._repr_mimebundle_([], [])["text/plain"] for picture in table_shown.pictures)
    assert "75.0" not in first
    assert "accuracy" in last
    assert "75.0" in last


ROWS = [["1", "expert_0.safetensors", "airplane automobile bird cat deer dog frog horse ... (10)", "93 %"]]


def test_only_wide_cells_are_folded_in_a_narrow_terminal_and_none_in_a_file(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_rows("experts", ["", "file", "classes", "confidence"], ROWS)
    assert "deer dog frog horse ... (10)   93 %" in capsys.readouterr().out
    code = f"from exml_lightning.terminal import print_rows; print_rows('t', ['', 'file', 'classes', 'sure'], {ROWS!r})"
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    text, _ = in_a_terminal(f"import os; os.environ['COLUMNS'] = '60'; {code}")
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text.decode()).splitlines()]
    assert max(map(len, lines)) <= 60
    (row,) = (line for line in lines if "expert_0.safetensors" in line)
    assert row.endswith("93 %")


def test_a_bar_within_another_is_not_drawn(monkeypatch):
    monkeypatch.setattr(terminal, "draws_bars", lambda: True)
    with terminal.Bar("outer", 2), terminal.Bar("inner", 2) as inner:
        assert inner._progress is None
    with terminal.Bar("later", 2) as later:
        assert later._progress is not None


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0:00"), (59.6, "1:00"), (200, "3:20"), (7500, "2:05:00")])
def test_times_as_people_say_them(seconds, said):
    assert terminal.clock(seconds) == said


def test_the_time_left_counts_images_and_steps(monkeypatch):
    """Six images a second, ten steps a second, at the second of three experts."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = StreamClock([60, 30, 20], 100, images=60, seconds_generating=10)
    assert clock.while_generating(30, 5) is None  # nothing is known of steps
    clock.start()
    now[0] += 5
    clock.distilled = 50
    assert clock.while_distilling() == pytest.approx((30 + 20) / 6 + 250 / 10)
    now[0] += 5
    clock.stop()
    now[0] += 50  # measuring accuracy does not count
    clock.distilled = 100
    assert (clock.seconds_distilling, clock.all_distilling) == (10, 10)
    assert clock.while_generating(12, 2) == pytest.approx((18 + 20) / 6 + 200 / 10)
    clock.images, clock.seconds_generating = 110, 55 / 3
    assert clock.while_distilling() == pytest.approx(200 / 10)  # no images are left to make


def test_a_fit_outside_a_terminal_says_a_line_an_expert(small_run, capsys):
    main(small_run(trainer__enable_progress_bar=True, checkpoint__every_n_steps=0))
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if "distilled" in line]
    assert [line.split(":")[0] for line in lines] == ["expert 1/2", "expert 2/2"]
    assert all("6 steps distilled in" in line and "generated in" in line for line in lines)
    assert "━" not in out + err
    assert "\x1b" not in out + err


def test_a_fit_that_goes_on_within_an_experience_says_how_many_steps_more(small_run, capsys):
    args = small_run(trainer__enable_progress_bar=True, checkpoint__every_n_steps=0)
    stop = json.dumps([{"class_path": "tests.callbacks.test_resume.StopAt", "init_args": {"step": 2}}])
    main([*args, "--trainer.callbacks", stop])
    capsys.readouterr()
    main(args)
    assert "s, 4 more steps distilled in" in capsys.readouterr().out


def test_quiet_prints_nothing_but_what_the_verb_is_for(finished_run, small_run, tmp_path, capsys):
    main([*small_run(trainer__max_epochs=3), "--quiet"])
    assert capsys.readouterr() == ("", "")
    assert "quiet:" not in (tmp_path / "run" / "config.yaml").read_text()
    main([*small_run(verb="validate"), "--ckpt_path", "last", "--quiet"])
    assert "stream accuracy" in capsys.readouterr().out
    main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report"), "--quiet"])
    assert capsys.readouterr().out == ""
    main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "report")])  # it was for one command
    assert "split_digits" in capsys.readouterr().out


def test_of_a_long_stream_the_newest_rows_and_columns_are_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    matrix = [[0.001 * (i + 1)] * (i + 1) for i in range(100)]
    print_matrix("agreement", matrix, [f"E{j + 1}" for j in range(100)], {"mean": [row[0] for row in matrix]}, Place())
    out = capsys.readouterr().out
    assert "agreement, the last 12 of 100" in out
    assert re.findall(r"E\d+", out) == [f"E{j}" for j in range(89, 101)]
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("expert ")]
    assert [int(row[1]) for row in rows] == list(range(89, 101))
    assert [len(row) for row in rows] == [2 + n + 1 for n in range(1, MOST + 1)]  # expert 89 was asked first
    assert rows[-1][2:] == ["10.0"] * 13


@pytest.mark.slow
def test_ctrl_c_in_a_fit_leaves_the_terminal_clean(small_run):
    args = small_run(trainer__enable_progress_bar=True, data__n_iter=100000)
    code = f"from exml_lightning.cli.main import main; main({args!r})"
    text, status = in_a_terminal(code, until=b"distilling")
    assert status == 130
    assert b"exml: stopped; go on with the same command" in text
    assert b"expert 1/2 generating" in text
    assert text.rfind(SHOW_CURSOR) > text.rfind(HIDE_CURSOR)
    assert b"Traceback" not in text
