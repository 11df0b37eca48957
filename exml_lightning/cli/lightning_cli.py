"""LightningCLI for a stream of experts: the configuration's groups, the run folder, resuming."""

import shlex
import time
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from exml_lightning.baselines import Baseline, measure
from exml_lightning.callbacks import (
    CheckExperts,
    SameSettings,
    StartLoggers,
    StopOnSignal,
    StreamCheckpoint,
    SyntheticBufferCallback,
)
from exml_lightning.callbacks.loggers import check_installed
from exml_lightning.callbacks.parts import print_accuracies, write_test
from exml_lightning.callbacks.resume import find_checkpoint
from exml_lightning.callbacks.run_folder import RunFolder, write_config
from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.cli.parser import LinesKept, OneLineErrors
from exml_lightning.cli.verb_help import HELP_OF
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.strategy_name import strategy_name
from exml_lightning.data import NO_SCENARIO, ExpertStream
from exml_lightning.experts.privacy import PrivacySettings
from exml_lightning.experts.recipe import ExpertRecipe
from exml_lightning.experts.selection import list_file, read_experts
from exml_lightning.files import check_folder
from exml_lightning.fitting import TRAINER_DEFAULTS, StreamTrainer, run_callbacks
from exml_lightning.generation.files import GenerateOptions
from exml_lightning.generation.samples import Sampler
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import Quiet, Terminated, say

RUN_VERBS = ("fit", "validate", "test")
USAGE = "exml {verb} [-c FILE ...] [options]"


class StreamParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser, with errors of one line."""


class StreamCLI(LightningCLI):
    """LightningCLI with the groups ``trainer``, ``model``, ``data``, ``buffer``, ``checkpoint`` and ``experts``."""

    def __init__(self, args: list[str], verb: str) -> None:
        run = verb in RUN_VERBS
        self.verb = verb
        self.command = shlex.join(["exml", *args])
        super().__init__(
            ExModelModule,
            ExpertStream,
            trainer_class=StreamTrainer,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            save_config_callback=RunFolder,
            seed_everything_default=False,
            parser_class=StreamParser,
            parser_kwargs={
                **_parser_kwargs(verb),
                **({name: _parser_kwargs(name) for name in RUN_VERBS} if run else {}),
            },
            args=args,
            run=run,
            auto_configure_optimizers=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Lightning's seed, off unless it is asked for, and ``--quiet``."""
        parser.add_argument("--quiet", action=Quiet)
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
        return dict.fromkeys(RUN_VERBS, skipped)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the groups that are not Lightning's own."""
        parser.add_lightning_class_args(SyntheticBufferCallback, "buffer")
        parser.set_defaults(
            {
                "buffer.generator": {"class_path": "exml_lightning.core.generators.ModelInversion"},
                "model.normalize": {"class_path": "exml_lightning.core.scales.Center"},
            }
        )
        parser.add_lightning_class_args(StreamCheckpoint, "checkpoint")
        parser.add_class_arguments(ExpertRecipe, "experts")
        parser.add_class_arguments(PrivacySettings, "privacy")
        parser.add_class_arguments(GenerateOptions, "generate")
        parser.add_argument(
            "--baseline",
            type=Baseline | None,
            default=None,
            help="What `exml test` and `exml validate` measure in place of a checkpoint (docs/baselines.md).",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and say what jsonargparse cannot do: it fails on a dict that has `init_args`."""
        try:
            super().parse_arguments(parser, args)
        except AttributeError as error:
            if "init_args" not in str(error):
                raise
            raise ExmlError(
                "an architecture with init_args cannot be changed by an option: write it into a file, and give that "
                "as the last -c FILE (docs/scenarios.md)"
            ) from error

    def before_instantiate_classes(self) -> None:
        """Name the run folder, and find what ``last`` means in it."""
        config = self._section()
        if config.privacy.epsilon is not None and self.verb != "experts":
            raise ExmlError("privacy.epsilon is for `exml experts`: an ex-model is as private as the experts it learns")
        if config.data.scenario is None and self.verb not in ("fit", "generate"):
            raise ExmlError(NO_SCENARIO)
        if self.verb == "generate":
            return
        if config.baseline is not None and self.subcommand is not None:
            _check_baseline(self.subcommand, config.ckpt_path)
        if config.trainer.default_root_dir is None:
            config.trainer.default_root_dir = str(
                Path("runs") / _stream_name(config.data) / _strategy(config) / f"run{config.data.run_id}"
            )
        run_folder = Path(config.trainer.default_root_dir)
        _name_folder(config.trainer.logger, str(run_folder))
        if run_folder.exists() and not run_folder.is_dir():
            raise ExmlError(f"{run_folder} is a file: name a folder with --trainer.default_root_dir DIR")
        if self.subcommand is not None and config.baseline is None:
            config.ckpt_path = find_checkpoint(run_folder, config.ckpt_path, self.subcommand)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the callbacks and the logger that every run has."""
        config = self._section()
        defaults = self._get(self.config_init, "trainer")
        chosen, defaults.logger = defaults.logger, False
        others = chosen if isinstance(chosen, list) else [] if chosen in (None, True, False) else [chosen]
        if self.subcommand == "fit" and chosen is not False:
            defaults.logger = RunLogger(config.trainer.default_root_dir)
        # Lightning appends these to the callbacks of the configuration and of the groups, so they come after them.
        self.trainer_defaults["callbacks"] = run_callbacks(
            self.command,
            _strategy(config),
            with_data_set=config.data.scenario is not None,
            with_bar=defaults.enable_progress_bar is not False,
        )
        trainer = super().instantiate_trainer(**kwargs)
        self.stop = StopOnSignal()
        first = [self.stop, SameSettings(), CheckExperts(), StartLoggers(others)]
        trainer.callbacks[:0] = first  # type: ignore[attr-defined]  # Lightning sets it from outside
        return trainer

    def after_fit(self) -> None:
        """Say that the fit was stopped before its end.

        Raises:
            Terminated: If it was.
        """
        if self.datamodule.completed == self.trainer.max_epochs:
            return
        if self.stop.asked:
            raise Terminated
        say("stopped before the end: go on with the same command, and a larger trainer.max_time if that was over")

    def validate(self, **kwargs: Any) -> None:
        """Print the accuracy of the baseline, if there is one, else of a checkpoint."""
        if self._section().baseline is None:
            self.trainer.validate(**kwargs)
        else:
            self._measure_baseline(None)

    def test(self, **kwargs: Any) -> None:
        """Write ``test.json`` of the baseline, if there is one, else of a checkpoint."""
        if self._section().baseline is None:
            self.trainer.test(**kwargs)
        else:
            self._measure_baseline(Path(self.trainer.default_root_dir) / "test.json")

    def _measure_baseline(self, path: Path | None) -> None:
        stream, trainer = self.datamodule, self.trainer
        if trainer.num_devices * trainer.num_nodes > 1:
            raise ExmlError("a baseline is measured on one device: --trainer.devices 1 --trainer.num_nodes 1")
        assert isinstance(stream, ExpertStream)
        stream.trainer = trainer
        stream.prepare_data()
        stream.setup("test")
        if path is not None:
            check_folder(path.parent, "trainer.default_root_dir")
        buffer: SyntheticBufferCallback = self._get(self.config_init, "buffer")
        device = trainer.strategy.root_device
        start = time.monotonic()
        baseline = self._get(self.config_init, "baseline")
        sampler = Sampler(buffer.generator, stream, buffer.cache, trainer.progress_bar_callback is not None)
        row = measure(baseline, sampler, buffer.size, device)
        if path is not None:
            seconds = time.monotonic() - start
            write_test(path, stream, row, device, seconds, self.command, baseline=type(baseline).__name__)
            if not (path.parent / "summary.json").exists():  # else it is the folder of a fit, which has its own
                write_config(path.parent, self._parser(self.subcommand), self._section())
        print_accuracies(stream, row, str(path or "accuracy on the test stream"), always=path is None)

    def _parse_ckpt_path(self) -> None:
        """Leave the configuration alone: Lightning's own lets a checkpoint overrule the command line."""

    def _section(self) -> Namespace:
        section = self.config if self.subcommand is None else self.config[self.subcommand]
        assert isinstance(section, Namespace)
        return section


def _name_folder(logger: Any, folder: str) -> None:
    """Let the loggers of a configuration write into the run folder, where ``save_dir`` is empty, under its name."""
    for one in logger if isinstance(logger, list) else [logger]:
        if isinstance(one, Namespace):
            check_installed(one.class_path)
            if one.get("init_args", {}).get("save_dir") == "":
                one.init_args.save_dir = folder
                one.init_args.name = one.init_args.name or folder


def _parser_kwargs(verb: str) -> dict[str, Any]:
    return {
        "usage": USAGE.format(verb=verb),
        "description": HELP_OF[verb],
        "formatter_class": LinesKept,
    }


def _check_baseline(verb: str, ckpt_path: str | None) -> None:
    if verb == "fit":
        raise ExmlError("a baseline is not trained: measure it with `exml test` and the same options")
    if ckpt_path is not None:
        raise ExmlError("a baseline has no checkpoint: leave out --ckpt_path, or the baseline")


def _stream_name(data: Namespace) -> str:
    """Name the stream after its scenario, or after that of its experts' manifest, or after the selection."""
    if data.scenario is not None:
        return str(data.scenario.name)
    if data.experts is None or not list_file(Path(data.experts)).is_file():
        return "experts"  # an error is to come
    return read_experts(Path(data.experts)).scenario


def _strategy(config: Namespace) -> str:
    """Name the strategy: `buffer.name`, or its baseline or generator (``ModelInversion`` is ``model_inversion``)."""
    if config.buffer.name and not config.baseline:
        return str(config.buffer.name)
    chosen = config.baseline or config.buffer.generator
    return strategy_name(chosen.class_path if chosen else "ModelInversion")
