"""LightningCLI for a stream of experts: the configuration's groups, the run folder, resuming."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from jsonargparse import Namespace
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from exml_lightning.callbacks import (
    ExModelWriter,
    ResultsCallback,
    StageProgressBar,
    StreamCheckpoint,
    SyntheticBufferCallback,
)
from exml_lightning.cli import VERBS
from exml_lightning.core.errors import ExmlError
from exml_lightning.data import ExpertStream
from exml_lightning.experts.training import ExpertRecipe, train_experts
from exml_lightning.files import write_text
from exml_lightning.logger import RunLogger
from exml_lightning.module import ExModelModule

USAGE = "exml {verb} --config FILE [--config FILE ...] [options]"


class StreamTrainer(Trainer):
    """Where and how it runs (Lightning's Trainer).

    The methods are Lightning's; their docstrings are the help of the command line.
    """

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Learn one ex-model from a stream of experts, one epoch an expert.

        Args:
            model: As Lightning takes it.
            train_dataloaders: As Lightning takes it.
            val_dataloaders: As Lightning takes it.
            datamodule: As Lightning takes it.
            ckpt_path: ``last`` continues the run of this run folder where it stopped; or a checkpoint file.
            weights_only: As Lightning takes it.
        """
        super().fit(model, train_dataloaders, val_dataloaders, datamodule, ckpt_path, weights_only)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = False,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[Mapping[str, float]]:
        """Print the accuracy of a checkpoint on the test stream.

        Args:
            model: As Lightning takes it.
            dataloaders: As Lightning takes it.
            ckpt_path: ``last`` for the newest checkpoint of this run folder; or a checkpoint file.
            verbose: As Lightning takes it.
            datamodule: As Lightning takes it.
            weights_only: As Lightning takes it.

        Returns:
            What Lightning returns.
        """
        return super().validate(model, dataloaders, ckpt_path, verbose, datamodule, weights_only)

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = False,
        datamodule: LightningDataModule | None = None,
        weights_only: bool | None = None,
    ) -> list[Mapping[str, float]]:
        """Measure the accuracy of a checkpoint on the test stream and write ``test.json`` into the run folder.

        Args:
            model: As Lightning takes it.
            dataloaders: As Lightning takes it.
            ckpt_path: ``last`` for the newest checkpoint of this run folder; or a checkpoint file.
            verbose: As Lightning takes it.
            datamodule: As Lightning takes it.
            weights_only: As Lightning takes it.

        Returns:
            What Lightning returns.
        """
        return super().test(model, dataloaders, ckpt_path, verbose, datamodule, weights_only)


class RunConfigCallback(SaveConfigCallback):
    """Saves ``config.yaml`` in the run folder once all checks are passed, and of a fit only."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Wait: a checkpoint may still turn out to be of other settings."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, whatever folder a logger may have."""
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / self.config_filename
            write_text(path, self.parser.dump(self.config, skip_none=False))


class StreamCLI(LightningCLI):
    """LightningCLI with the groups ``trainer``, ``model``, ``data``, ``buffer``, ``checkpoint`` and ``experts``."""

    def __init__(self, args: list[str], run: bool) -> None:
        super().__init__(
            ExModelModule,
            ExpertStream,
            trainer_class=StreamTrainer,
            trainer_defaults={
                "max_epochs": -1,
                "num_sanity_val_steps": 0,
                "devices": 1,
                "enable_model_summary": False,
            },
            save_config_callback=RunConfigCallback,
            seed_everything_default=False,
            parser_kwargs={verb: {"usage": USAGE.format(verb=verb)} for verb in ("fit", "validate", "test")}
            if run
            else {"usage": USAGE.format(verb="experts"), "description": VERBS["experts"]},
            args=args,
            run=run,
            auto_configure_optimizers=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Lightning's seed, off unless it is asked for."""
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=False,
            help="Seed of code that draws from global random states; the package itself does not (see data.seed).",
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the verbs that are methods of the trainer, and the arguments not shown for them."""
        skipped = {
            "model",
            "train_dataloaders",
            "val_dataloaders",
            "dataloaders",
            "datamodule",
            "weights_only",
            "verbose",
        }
        return dict.fromkeys(("fit", "validate", "test"), skipped)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the groups that are not Lightning's own."""
        parser.add_lightning_class_args(SyntheticBufferCallback, "buffer")
        parser.add_lightning_class_args(StreamCheckpoint, "checkpoint")
        parser.add_class_arguments(ExpertRecipe, "experts")

    def before_instantiate_classes(self) -> None:
        """Name the run folder, and find what ``last`` means in it."""
        config = self._section()
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = str(
                Path("runs") / config.data.scenario.name / _strategy(config) / f"run{config.data.run_id}"
            )
        run_folder = Path(config.trainer.default_root_dir)
        if run_folder.exists() and not run_folder.is_dir():
            raise ExmlError(f"{run_folder} is a file: name a folder with --trainer.default_root_dir DIR")
        if self.subcommand is not None:
            config.ckpt_path = _find_checkpoint(run_folder, config.ckpt_path, self.subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the callbacks and the logger that every run has."""
        config = self._section()
        defaults = self._get(self.config_init, "trainer")
        if defaults.logger is None:
            defaults.logger = RunLogger(config.trainer.default_root_dir) if self.subcommand == "fit" else False
        # Lightning appends these to the callbacks of the configuration and of the groups, so they come after them.
        bar = [] if defaults.enable_progress_bar is False else [StageProgressBar(_what_is_distilled)]
        self.trainer_defaults["callbacks"] = [*bar, ResultsCallback(), ExModelWriter(_strategy(config))]
        return super().instantiate_trainer(**kwargs)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: Lightning's own lets a checkpoint overrule the command line."""

    def _section(self) -> Namespace:
        section = self.config if self.subcommand is None else self.config[self.subcommand]
        assert isinstance(section, Namespace)
        return section


def run_stream(args: list[str]) -> None:
    """Run ``exml fit``, ``validate`` or ``test``.

    Args:
        args: The verb and its options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    StreamCLI(args, run=True)


def run_experts(args: list[str]) -> None:
    """Run ``exml experts``: train the stream of experts of a scenario.

    Args:
        args: The options.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    cli = StreamCLI(args, run=False)
    trainer_config = vars(cli.config_init.trainer)

    def make_trainer(callbacks: list[Callback], **overrides: Any) -> Trainer:
        if trainer_config["enable_progress_bar"] is False:
            callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
        return Trainer(**{**trainer_config, **overrides, "callbacks": callbacks})

    whole_epochs = {"fast_dev_run": False, "max_steps": -1, "limit_train_batches": None, "overfit_batches": 0.0}
    for key, value in whole_epochs.items():
        if trainer_config[key] != value:
            raise ExmlError(
                f"trainer.{key} is {trainer_config[key]}: experts are trained by whole epochs (experts.epochs)"
            )

    train_experts(cli.datamodule, cli.config_init.experts, make_trainer)


def _what_is_distilled(trainer: Trainer) -> str:
    return f"Distilling expert {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _strategy(config: Namespace) -> str:
    """Name the strategy after its generator: ``ModelInversion`` is ``model_inversion``."""
    class_name = config.buffer.generator.class_path.rpartition(".")[2] if config.buffer.generator else "ModelInversion"
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in class_name).lstrip("_")


def _find_checkpoint(run_folder: Path, ckpt_path: str | None, verb: str) -> str | None:
    """Find the checkpoint that ``--ckpt_path`` means; refuse what would overwrite another run."""
    folder = run_folder / "checkpoints"
    if ckpt_path is None and verb != "fit":
        raise ExmlError(f"which checkpoint? Give --ckpt_path last ({folder / 'last.ckpt'}) or --ckpt_path FILE")
    holds_run = (run_folder / "config.yaml").exists() or folder.exists()
    if verb == "fit" and holds_run and (ckpt_path is None or (ckpt_path != "last" and not _inside(ckpt_path, folder))):
        raise ExmlError(
            f"{run_folder} already holds a run: continue it with --ckpt_path last, "
            "write elsewhere with --trainer.default_root_dir DIR, or delete it"
        )
    if ckpt_path is None:
        return None
    path = folder / "last.ckpt" if ckpt_path == "last" else Path(ckpt_path)
    if not path.is_file():
        if ckpt_path == "last" and verb == "fit":
            print(f"{path} does not exist yet: starting with the first expert")
            return None
        raise ExmlError(f"--ckpt_path: {path} does not exist; `exml fit` writes checkpoints")
    _check_checkpoint(path)
    return str(path)


def _inside(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def _check_checkpoint(path: Path) -> None:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # mmap: tensors stay on disk
    except (RuntimeError, UnpicklingError, ValueError, KeyError, EOFError, OSError) as error:
        raise ExmlError(
            f"--ckpt_path: {path} is no checkpoint, or a damaged one ({' '.join(str(error).split())[:100]})"
        ) from error
    if not isinstance(content, dict) or not {"pytorch-lightning_version", "ExpertStream"} <= content.keys():
        raise ExmlError(f"--ckpt_path: {path} is not a checkpoint of `exml fit`")
