"""The verbs of the command line that need Lightning: `exml fit`, `validate`, `test`, `experts` and `generate`."""

from pathlib import Path

from lightning import Trainer

from exml_lightning.callbacks.progress import ExpertProgressBar
from exml_lightning.callbacks.stream_checkpoint import EpochCheckpoint
from exml_lightning.cli.lightning_cli import StreamCLI
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.training import ExpertTraining, train_experts
from exml_lightning.generation.files import generate_files
from exml_lightning.generation.samples import Sampler


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
    config, stream = cli.config_init, cli.datamodule
    trainer_config = vars(config.trainer)

    def make_trainer(title: str, checkpoint: Path, epochs: int) -> Trainer:
        bars = [] if trainer_config["enable_progress_bar"] is False else [ExpertProgressBar(title)]
        own = {"default_root_dir": str(checkpoint.parent), "max_epochs": epochs, "logger": False}
        return Trainer(**{**trainer_config, **own, "callbacks": [EpochCheckpoint(checkpoint), *bars]})

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
    job = ExpertTraining(
        stream.scenario, stream.experts, stream.seed, stream.run_id, stream.root, config.experts, config.privacy
    )
    train_experts(job, make_trainer, first, stream.download)


def run_generate(args: list[str]) -> None:
    """Run ``exml generate``: write samples made from the experts of a folder.

    Args:
        args: The options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    cli = StreamCLI(args, verb="generate")
    buffer = cli.config_init.buffer
    shown = cli.config_init.trainer.enable_progress_bar is not False
    sampler = Sampler(buffer.generator, cli.datamodule, buffer.cache, shown)
    generate_files(sampler, buffer.size, cli.config_init.generate, cli.trainer.strategy.root_device)
