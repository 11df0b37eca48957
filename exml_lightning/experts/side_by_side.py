"""Training experts side by side on the cores of a CPU: each in a process with threads of its own."""

import contextlib
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import Array, c_double
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, ClassVar

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.seed import reset_seed
from lightning.pytorch.strategies import SingleDeviceStrategy

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.experts.manifest import ExpertEntry
from exml_lightning.terminal import EVERY, Bar, Terminated, quiet_lightning, say, set_quiet

TrainExpert = Callable[..., ExpertEntry]
"""Trains the expert of a number, with more callbacks of its trainer, and writes its weights."""
ENDED = (
    "a process that trained an expert was ended, perhaps for want of memory (in a script of your own, of the line "
    "`if __name__ == '__main__':`): go on with the same command, and fewer at a time (--experts.workers)"
)
MOST = 8
"""Processes, unless more are asked for: each takes about 1 GB."""
PATIENCE = 10.0
"""Seconds that a process has to end by itself."""


def processes_for(pending: int, workers: int | None, make_trainer: Callable[[], Trainer]) -> tuple[int, bool]:
    """Return how many of the experts `pending` to train at a time, and whether to draw a bar for more than one.

    That is `workers`, if given; else it depends on the device of a trainer, which is made only if there is a choice.
    """
    most = min(pending, workers or min(MOST, torch.get_num_threads()))
    if most < 2:
        return 1, False
    trainer = make_trainer()
    single = isinstance(trainer.strategy, SingleDeviceStrategy)
    if workers is None and not (single and trainer.strategy.root_device.type == "cpu"):
        return 1, False
    if not single:
        raise ExmlError(f"experts.workers is {workers}, but each expert has several devices: give --trainer.devices 1")
    return most, trainer.progress_bar_callback is not None


def packed(work: Callable[[], TrainExpert]) -> bytes | None:
    """Pickle what processes are to do; None if that cannot be, and say why."""
    try:
        return pickle.dumps(work)
    except Exception as error:  # settings may hold anyone's objects
        say(f"experts are trained one after the other, since a setting cannot be pickled: {one_line(error)[:200]}")
        return None


def side_by_side(
    work: bytes, pending: Sequence[int], processes: int, epochs: int, shown: bool
) -> Generator[tuple[int, ExpertEntry], None, None]:
    """Train experts in several processes, which share the threads of this one; yield them as they are finished.

    They end with the generator, however it ends; what it draws, if `shown`, is one bar over the epochs of all.

    Args:
        work: `packed`: a function that each process calls once.
        pending: The experts.
        processes: How many, at most as many as there are experts.
        epochs: Those of an expert.
        shown: Whether to draw.

    Raises:
        ExmlError: What an expert raised, or if a process was killed.
    """
    context = get_context("spawn")
    parent, end = context.Pipe(duplex=False)
    done, before = (context.RawArray(c_double, max(pending) + 1) for _ in range(2))
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(processes, context, _begin, (work, parent, done, before, threads))
    waiting, running, skipped = [*pending], dict[Future[ExpertEntry], int](), 0.0
    try:
        with Bar(f"epochs of {len(pending)} experts, {processes} at a time", len(pending) * epochs, shown) as bar:
            while waiting or running:
                while waiting and len(running) < processes:  # no more: a process that is to end must find none
                    k = waiting.pop(0)
                    running[_submit(pool, k)] = k
                finished = wait(running, EVERY, FIRST_COMPLETED).done
                results = [(running.pop(future), future.result()) for future in finished]
                for k, _ in results:
                    before[k], done[k] = before[k] + epochs - done[k], epochs
                bar.skip(sum(before) - skipped)
                skipped = sum(before)
                bar.advance(sum(done) - bar.done)
                yield from results
    except BaseException as error:
        end.close()
        if isinstance(error, BrokenProcessPool):
            raise ExmlError(ENDED) from error
        raise
    finally:
        pool.shutdown()
        end.close()


def _submit(pool: ProcessPoolExecutor, k: int) -> Future[ExpertEntry]:
    """Give an expert to a process, which may be started for it: Ctrl-C does not reach it, only this one."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(_train, k)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_train, k)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Here:
    """What one of the processes was given, and what it made of it."""

    work: ClassVar[bytes]
    progress: ClassVar[tuple["Array[c_double]", "Array[c_double]"]]
    train: ClassVar[TrainExpert | None] = None
    ending: ClassVar[bool] = False


def _begin(work: bytes, parent: Connection, done: "Array[c_double]", before: "Array[c_double]", threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    set_quiet(True)
    _Here.work, _Here.progress = work, (done, before)


def _terminate(number: int, frame: Any) -> None:
    if not _Here.ending:  # the pool may ask as well, while this process ends
        _Here.ending = True
        raise Terminated


def _end_with(parent: Connection) -> None:
    """End this process, files being written taken away, when the first one wants it or is no more."""
    with contextlib.suppress(EOFError, OSError):
        parent.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE)
    os._exit(1)


def _train(k: int) -> ExpertEntry:
    try:
        with quiet_lightning():
            _Here.train = _Here.train or pickle.loads(_Here.work)()
            reset_seed()  # that of --seed_everything
            return _Here.train(k, _Report(k))
    except ExmlError as error:
        raise ExmlError(str(error)) from None  # some kinds of it cannot be unpickled
    except Terminated:
        raise ExmlError(ENDED) from None


class _Report(Callback):
    """Tells the first process how many epochs of an expert are done."""

    def __init__(self, k: int) -> None:
        self._k, (self._done, self._before) = k, _Here.progress

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell those of before a resume."""
        self._done[self._k] = self._before[self._k] = trainer.current_epoch

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell the part of an epoch."""
        self._done[self._k] = trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches
