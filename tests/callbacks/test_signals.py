"""SIGTERM and the same command again, on the real command in a child."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import torch
from filelock import FileLock

from exml_lightning.cli.main import main
from tests.callbacks.test_resume import outcome
from tests.conftest import refused

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["exml_lightning.cli.lightning_cli"])


def run_until(point: str, args: list[str]) -> None:
    """Run the command line in this process, and send it SIGTERM at a point of the run."""
    from exml_lightning.core.generators import ModelInversion
    from exml_lightning.module import ExModelModule

    owner, name, number = {
        "generating": (ModelInversion, "_image_loss", 2),
        "a step": (ExModelModule, "training_step", 8),  # the second of the second experience
        "last step": (ExModelModule, "training_step", 6),
        "validating": (ExModelModule, "validation_step", 1),
    }[point]
    original, calls = getattr(owner, name), []

    def patched(*args, **kwargs):
        calls.append(0)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    setattr(owner, name, patched)
    main(args)


def saved(folder: Path) -> tuple[int, int] | None:
    """The experience and the step that the checkpoint of a run was written in."""
    path = folder / "checkpoints" / "last.ckpt"
    if not path.exists():
        return None
    content = torch.load(path, weights_only=True)
    return content["ExpertStream"]["experience"], content["global_step"]


def test_sigterm_saves_and_the_same_command_goes_on(small_run, finished_run, tmp_path, capsys):
    only_then = ["--checkpoint.every_n_steps", "0"]
    for point, at in {"generating": None, "a step": (1, 8), "last step": (0, 6), "validating": (0, 6)}.items():
        args = [*small_run(point), *only_then]
        child = forks.Process(target=run_until, args=(point, args))
        child.start()
        child.join(120)
        assert child.exitcode == 143, point
        assert saved(tmp_path / point) == at
        assert not (tmp_path / point / "ex_model").exists()
        capsys.readouterr()
        main(args)
        told = f"going on with {tmp_path / point}/checkpoints/last.ckpt: " in capsys.readouterr().out
        assert told == (at is not None)
        assert outcome(tmp_path / point) == outcome(finished_run), point


def test_two_fits_do_not_share_a_folder(small_run, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    lock = FileLock(tmp_path / "run" / ".lock")
    lock.acquire()
    assert "another process is writing" in refused(small_run(), capsys)
    lock.release()
    main(small_run(trainer__max_epochs=1))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["experiences_learned"] == 1


def test_what_a_killed_fit_had_begun_to_write_is_removed(small_run, tmp_path):
    begun = tmp_path / "run" / "checkpoints" / ".01234567.part.last.ckpt"
    begun.parent.mkdir(parents=True)
    begun.write_text("half")
    main(small_run(trainer__max_epochs=1))
    assert not begun.exists()


def test_a_damaged_checkpoint_names_the_one_before(small_run, finished_run, capsys):
    folder = finished_run / "checkpoints"
    (folder / "last.ckpt").write_bytes(b"half")
    error = refused(small_run(), capsys)
    assert f"an older one is {folder / 'experience=1.ckpt'}: give it by --ckpt_path" in error
    (folder / "last.ckpt").unlink()  # as where a kill came just before it was written
    main(small_run())
    assert "2 of 2 experts are learned; to begin anew" in capsys.readouterr().out
