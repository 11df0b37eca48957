"""The verbs of the command line that need Lightning: `exml fit`, `validate`, `test`, `experts` and `generate`."""

from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar

from exml_lightning.cli.lightning_cli import StreamCLI
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.training import train_experts
from exml_lightning.generation.samples import generate_files


def run_stream(args: list[str]) -> None:
    """Run ``exml fit``, ``validate`` or ``test``.

    Args:
        args: The verb and its options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    StreamCLI(args, verb=args[0])


def run_experts(args: list[str]) -> None:
    """Run ``exml experts``: train the stream of experts of a scenario.

    Args:
        args: The options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    cli = StreamCLI(args, verb="experts")
    trainer_config = vars(cli.config_init.trainer)

    def make_trainer(callbacks: list[Callback], **overrides: Any) -> Trainer:
        if trainer_config["enable_progress_bar"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        return Trainer(**{**trainer_config, **overrides, "callbacks": callbacks})

    whole_epochs = {
        "fast_dev_run": False,
        "max_steps": -1,
        "limit_train_batches": None,
        "max_time": None,
        "overfit_batches": 0.0,
    }
    for key, value in whole_epochs.items():
        if trainer_config[key] != value:
            raise ExmlError(
                f"trainer.{key} is {trainer_config[key]}: experts are trained by whole epochs (experts.epochs)"
            )

    limit = trainer_config["max_epochs"]
    if limit == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to train, or -1 for all")
    first = None if limit in (None, -1) else limit
    train_experts(cli.datamodule, cli.config_init.experts, make_trainer, first, cli.config_init.privacy)


def run_generate(args: list[str]) -> None:
    """Run ``exml generate``: write samples made from the experts of a folder.

    Args:
        args: The options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    cli = StreamCLI(args, verb="generate")
    buffer = cli.config_init.buffer
    generate_files(
        cli.datamodule,
        buffer.generator,
        buffer.size,
        buffer.cache,
        cli.config_init.generate,
        cli.trainer.strategy.root_device,
        show_progress=cli.config_init.trainer.enable_progress_bar is not False,
    )
