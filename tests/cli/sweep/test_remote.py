"""What a worker runs, without Ray."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exml_lightning.cli.sweep.remote import _wait_for_predecessor, last_error, run_command


def test_a_command_that_fails_ends_with_its_error(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").write_text("error: an earlier one\n")
    started, ended = run_command(["ft"], "run", str(tmp_path), 1, 0)
    assert started[0] == os.uname().nodename
    assert ended == (2, "no verb 'ft'; did you mean `exml fit`?")
    lines = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert lines[0] == "error: an earlier one"
    assert lines[1].endswith(f"worker {os.getpid()}] exml ft")


def test_the_lines_that_belong_to_an_error_are_kept():
    said = 'error: old\nusage: exml\nerror: Parser key "buffer.size":\n  Expected a int.\n  Got: bad\nend\n  more\n'
    assert last_error(said) == 'Parser key "buffer.size": Expected a int. Got: bad'
    assert last_error("exml: error: no data\n") == "no data"
    assert last_error("fine\n") == ""


def test_without_locks_of_files_nothing_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with (tmp_path / "log").open("ab") as log:
        _wait_for_predecessor(log)
    check = "import sys; sys.modules['fcntl'] = None; import exml_lightning.cli.sweep.command"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_process_gets_its_threads_and_no_gpu_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    seen = []

    class Process:
        pid, returncode = 1, 0

        def __init__(self, words, env, **kwargs):
            seen.append((env["OMP_NUM_THREADS"], env["CUDA_VISIBLE_DEVICES"]))

        def poll(self):
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    for gpus in (0, 0.5):
        list(run_command(["fit"], "run", str(tmp_path), 3, gpus))
    assert seen == [("3", ""), ("3", "1")]


def test_a_cancelled_command_is_terminated(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(subprocess.Popen, "terminate", lambda process: (ended.append(process.pid), process.kill()))
    task = run_command(["--version"], "run", str(tmp_path), 1, 0)
    pid = next(task)[1]
    task.close()
    assert ended == [pid]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent has died")
def test_a_process_ends_with_its_worker_and_keeps_its_log_until_then(tmp_path):
    """The worker is killed; its command sleeps, and takes its time to end."""
    package = tmp_path / "exml_lightning"  # stands in for the package where the command is run, in the folder `place`
    (package / "sweep").mkdir(parents=True)
    source = Path(sys.modules[run_command.__module__].__file__).parent
    for name in ("__init__.py", "sweep/__init__.py"):
        (package / name).write_text("")
    (package / "sweep" / "child.py").write_text((source / "child.py").read_text())
    (package / "__main__.py").write_text(
        "import signal, time\n"
        "def end(*_):\n    time.sleep(1)\n    print('ended', flush=True)\n    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('sleeping', flush=True)\ntime.sleep(60)\n"
    )
    code = (
        "import sys\nfrom exml_lightning.cli.sweep.remote import run_command\n"
        "for _ in run_command(sys.argv[2:], 'run', sys.argv[1], 1, 0): pass\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "fit"], cwd=source.parent.parent)
    log = tmp_path / "run" / "log.txt"
    end = time.monotonic() + 60
    while not (log.exists() and "sleeping" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    (package / "__main__.py").write_text("print('the second')")
    *_, ended = run_command(["fit"], "run", str(tmp_path), 1, 0)
    assert ended == (0, "the second")
    assert [line for line in log.read_text().splitlines() if "exml" not in line] == ["sleeping", "ended", "the second"]
