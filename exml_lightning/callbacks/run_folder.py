"""The run folder belongs to one fit at a time; `config.yaml`."""

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from jsonargparse import Namespace
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.errors import ExmlError
from exml_lightning.files import remove_parts, write_text
from exml_lightning.module import ExModelModule


class RunFolderLock(Callback):
    """Takes the run folder once all checks are passed: locks it and tidies it; a fit only."""

    _lock: FileLock | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the run folder, not a logger's; `ExmlError` if another process works in it or it cannot be written."""
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExmlError(
                f"{folder} cannot be made ({error.strerror}): name another folder with --trainer.default_root_dir DIR"
            ) from error
        self._lock = FileLock(folder / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise ExmlError(
                f"another process is writing {folder}: wait until it has ended, or name another folder"
            ) from error
        except OSError:  # a disk without locks; where nothing can be written, the first file says so
            pass
        for place in (folder, *(folder / name for name in ("buffer", "checkpoints", "ex_model", "samples"))):
            remove_parts(place)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the folder go."""
        self._unlock()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> Any:
        """Let the folder go."""
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.release()


class RunFolder(RunFolderLock, SaveConfigCallback):
    """Writes ``config.yaml`` into the run folder as well."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait: a checkpoint may still turn out to be of other settings."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the folder, then write; see `RunFolderLock.on_fit_start`."""
        super().on_fit_start(trainer, pl_module)
        if trainer.is_global_zero:
            write_config(Path(trainer.default_root_dir), self.parser, _found(self.config, trainer, pl_module))


def _found(config: Namespace, trainer: Trainer, module: LightningModule) -> Namespace:
    """Say what a budget of time has chosen in its place, so that the file stands for the same run on any machine."""
    if config.budget is None:
        return config
    assert isinstance(module, ExModelModule)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it from outside
    (buffer,) = (callback for callback in callbacks if isinstance(callback, SyntheticBufferCallback))
    config = config.clone()
    config.budget, config.data.n_iter, config.buffer.size = None, module.stream.n_iter, buffer.size
    return config


def write_config(folder: Path, parser: LightningArgumentParser, config: Namespace) -> None:
    """Write ``config.yaml``, the whole configuration of a run, as the parser of the verb has parsed it."""
    config = config.clone()
    config.ckpt_path = None  # where a run went on is no setting of it
    write_text(folder / "config.yaml", parser.dump(config, skip_none=False))
