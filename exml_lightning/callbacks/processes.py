"""Several processes on one machine, which Lightning starts by the same command."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

from lightning import Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

SECONDS = 0.5
"""Between two looks at the other processes."""
_watched = threading.Event()


def end_together(trainer: Trainer) -> None:
    """End this process soon after another one of the same run has died, instead of waiting for it forever.

    It takes the place of Lightning's observer, which kills the first process without a word, and tells no other one of
    the first one's death.

    Args:
        trainer: Knows the processes. Where something else started them (Slurm, torchrun), that ends them.
    """
    launcher = trainer.strategy.launcher
    others = launcher.procs if isinstance(launcher, _SubprocessScriptLauncher) else []
    parent = os.getppid()

    def dead() -> str | None:
        for place, process in enumerate(others, start=2):
            if process.poll():
                return f"process {place} of {trainer.world_size} died with status {process.returncode}"
        if not others and os.getppid() != parent:
            return f"process {trainer.local_rank + 1} of {trainer.world_size}: the first one is gone"
        return None

    for thread in threading.enumerate():
        if isinstance(thread, _ChildProcessObserver):
            thread._child_processes = []  # nothing left for it to do
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if others or (trainer.local_rank > 0 and isinstance(environment, LightningEnvironment)):
        threading.Thread(target=_watch, args=(dead, others), daemon=True).start()


def wait_for_the_end() -> None:
    """Wait as long as `end_together` needs to notice that another process has died, if it looks for that."""
    if _watched.is_set():
        time.sleep(4 * SECONDS)


def _watch(dead: Callable[[], str | None], others: list["subprocess.Popen[bytes]"]) -> None:
    _watched.set()
    while (what := dead()) is None:
        time.sleep(SECONDS)
    print(f"\nexml: error: {what}: the run ends; go on with the same command", file=sys.stderr, flush=True)
    for process in others:
        process.kill()
    os._exit(1)  # the main thread may wait for the dead one in a call that nothing interrupts
