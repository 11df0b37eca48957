"""`SameSettings`: a run goes on under the settings it was started with."""

from collections.abc import Mapping
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.errors import ExmlError
from exml_lightning.module import ExModelModule


class SameSettings(Callback):
    """Keeps the settings of a run in its checkpoints, and refuses to go on under others; the buffer may grow.

    Place it before `SyntheticBufferCallback`, so that no expert is read before.
    """

    def __init__(self, buffer: SyntheticBufferCallback) -> None:
        self._buffer = buffer
        self.settings: dict[str, Any] = {}
        """What the numbers of the run depend on, by key of the command line."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare, after Lightning has restored a checkpoint; `ExmlError` names the settings that have changed."""
        now = self._now(trainer, pl_module)
        if self.settings and ("buffer.statistics" in self.settings) != ("buffer.statistics" in now):
            have = "have published statistics" if "buffer.statistics" in now else "have no statistics any more"
            raise ExmlError(
                f"experts {have} since the run began, so that all would be learned in another way: "
                "start another run with --trainer.default_root_dir DIR"
            )
        if changed := differences(self.settings, now):
            raise ExmlError(
                f"the checkpoint was written under other settings ({'; '.join(changed)}): "
                "give the same ones, or start another run with --trainer.default_root_dir DIR"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the settings; by now a budget of time has chosen some."""
        self.settings = self._now(trainer, pl_module)

    def _now(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        assert isinstance(pl_module, ExModelModule)
        buffer = self._buffer
        return {
            **{f"data.{key}": value for key, value in pl_module.stream.settings().items()},
            **{f"model.{key}": value for key, value in pl_module.settings().items()},
            "buffer.size": buffer.size,
            "buffer.generator": buffer.generator.settings(),
            **({"buffer.statistics": buffer.statistics.settings()} if buffer.uses_statistics(pl_module) else {}),
            "trainer.precision": str(trainer.precision),
            "trainer.accumulate_grad_batches": trainer.accumulate_grad_batches,
            "trainer.gradient_clip_val": trainer.gradient_clip_val,
            "trainer.limit_train_batches": trainer.limit_train_batches,
            "number of processes": trainer.world_size,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the settings of the run."""
        return {"settings": self.settings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember the settings that the run was started with."""
        self.settings = dict(state["settings"])


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> list[str]:
    """Return a phrase for each setting that differs from the checkpoint's; a buffer that has grown does not.

    Settings go by key, some of them in groups, whose keys begin with `within`; before a run begins there are none.
    """
    said = []
    for key in dict.fromkeys([*before, *now]) if before else ():
        was, is_now, name = before.get(key), now.get(key), f"{within}{key}"
        if isinstance(was, dict) and isinstance(is_now, dict):
            said += differences(was, is_now, f"{name}.")
        elif was != is_now and not (name == "buffer.size" and before[key] < now[key]):
            said.append(f"{name} was {was}, now {is_now}")
    return said
