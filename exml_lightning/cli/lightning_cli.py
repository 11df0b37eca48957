"""LightningCLI for a stream of experts: the configuration's groups, the run folder, resuming."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from exml_lightning.baselines import Baseline
from exml_lightning.callbacks import StopOnSignal, StreamCheckpoint, SyntheticBufferCallback
from exml_lightning.callbacks.loggers import check_installed
from exml_lightning.callbacks.resume import find_checkpoint
from exml_lightning.callbacks.run_folder import RunFolder
from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.cli.parser import LinesKept, OneLineErrors
from exml_lightning.cli.strategy import stack_strategy
from exml_lightning.core.budget import Budget
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.strategy_name import strategy_name
from exml_lightning.data import NO_SCENARIO, ExpertStream
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.privacy import PrivacySettings
from exml_lightning.experts.selection import list_file, read_experts
from exml_lightning.fitting import TRAINER_DEFAULTS, run_callbacks
from exml_lightning.generation.files import GenerateOptions
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import Quiet

CONFIGURATION = """

Settings come from files, stacked in their order (a scenario, a strategy, a trainer), and from the options below, which
overrule them. -c NAME is a file of configs/, which ships; -c FILE is any other. Where no strategy is named,
configs/strategies/best.yaml is stacked directly after the scenario. --print_config shows the outcome;
docs/command_line.md explains the rest."""
"""What the help of each verb ends with."""
STRATEGY = (
    "How the buffer is filled and learned: the name of a file in configs/strategies, or a path, stacked directly after "
    "the scenario. Without it: best, unless a strategy's file, a baseline or a generator is given."
)
LAST = "Checkpoint to go on from, or to measure: last, or a file."


class StreamParser(OneLineErrors, LightningArgumentParser):
    """Lightning's parser, with errors of one line; it stacks the strategy (`stack_strategy`)."""

    whole = False
    """Whether it is that of a verb, not of a class among its settings."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse the words as if the strategy had been among their files."""
        return super().parse_args(stack_strategy(args) if self.whole else args, *more, **options)


class StreamCLI(LightningCLI):
    """LightningCLI with the groups ``trainer``, ``model``, ``data``, ``buffer``, ``checkpoint`` and ``experts``.

    It parses and makes the objects; the function of the verb (`stream_verbs`) runs them.

    Args:
        verb: The verb.
        words: Its options.
        about: What the verb does, for its help.

    Attributes:
        command: The whole command, for the files of a run.
        stop: Of a trainer, whether it was asked to stop.
    """

    datamodule: ExpertStream
    model: ExModelModule

    def __init__(self, verb: str, words: Sequence[str], about: str = "") -> None:
        self.verb = verb
        self.command = shlex.join(["exml", verb, *words])
        self.stop = StopOnSignal()
        self.config_dump: dict[str, Any] = {}  # for `save_hyperparameters`, which nothing of ours calls: it takes long
        super().__init__(
            ExModelModule,
            ExpertStream,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            save_config_callback=RunFolder,
            seed_everything_default=False,
            parser_class=StreamParser,
            parser_kwargs={
                "usage": f"exml {verb} [-c NAME|FILE ...] [options]",
                "description": about + CONFIGURATION,
                "formatter_class": LinesKept,
            },
            args=list(words),
            run=False,  # Lightning would make the parsers of all verbs
            auto_configure_optimizers=False,
        )

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add Lightning's seed, off unless it is asked for, and ``--quiet``."""
        assert isinstance(parser, StreamParser)
        parser.whole = True
        parser.add_argument("--quiet", action=Quiet)
        parser.add_argument("--strategy", type=str | None, default=None, metavar="NAME", help=STRATEGY)
        parser.add_argument(
            "--seed_everything",
            type=bool | int,
            default=False,
            help="Seed of code that draws from global random states; the package itself does not (see data.seed).",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the groups that are not Lightning's own."""
        parser.add_lightning_class_args(SyntheticBufferCallback, "buffer")
        # Named here, so that the settings of the default can be given without its name.
        parser.set_defaults({"buffer.generator": {"class_path": "exml_lightning.core.generators.Unrelated"}})
        parser.add_lightning_class_args(StreamCheckpoint, "checkpoint")
        parser.add_class_arguments(ExpertRecipe, "experts")
        parser.add_class_arguments(PrivacySettings, "privacy")
        parser.add_class_arguments(GenerateOptions, "generate")
        parser.add_argument(
            "--budget",
            type=Budget | None,
            default=None,
            help="How long a fit may generate and distil: small (2 minutes), medium (15) or full (60). Measured in the "
            "first seconds, it chooses data.n_iter, and buffer.size where images are drawn or photographed and steps "
            "see them as they are, or where making them would take more than half of the time.",
        )
        parser.add_argument(
            "--baseline",
            type=Baseline | None,
            default=None,
            help="What `exml test` and `exml validate` measure in place of a checkpoint (docs/baselines.md).",
        )
        if self.verb in ("fit", "validate", "test"):
            parser.add_argument("--ckpt_path", type=str | None, default=None, help=LAST)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and say what jsonargparse cannot do: it fails on a dict that has `init_args`."""
        try:
            self.config = parser.parse_args(args)
        except AttributeError as error:
            if "init_args" not in str(error):
                raise
            raise ExmlError(
                "an architecture with init_args cannot be changed by an option: write it into a file, and give that "
                "as the last -c FILE (docs/scenarios.md)"
            ) from error

    def before_instantiate_classes(self) -> None:
        """Refuse what makes no sense for the verb, name the run folder, and find what ``last`` means in it."""
        config = self.config
        if config.privacy.epsilon is not None and self.verb != "experts":
            raise ExmlError("privacy.epsilon is for `exml experts`: an ex-model is as private as the experts it learns")
        if config.data.scenario is None and self.verb == "experts":
            raise ExmlError(NO_SCENARIO)
        with_labels = config.data.scenario is not None or config.data.labelled is not None
        if not with_labels and self.verb in ("validate", "test"):
            raise ExmlError(
                "there are no labelled images to measure accuracy on: give a folder with a sub-folder for each class "
                "by --data.labelled DIR, or a scenario, for instance with -c configs/split_digits.yaml"
            )
        if self.verb == "generate":
            return
        folder = config.trainer.default_root_dir = str(config.trainer.default_root_dir or _run_folder(config))
        if Path(folder).exists() and not Path(folder).is_dir():
            raise ExmlError(f"{folder} is a file: name a folder with --trainer.default_root_dir DIR")
        _name_folder(config.trainer.logger, folder)
        if self.verb == "experts":
            return
        if config.baseline is None:
            config.ckpt_path = find_checkpoint(Path(folder), config.ckpt_path, self.verb)
        elif self.verb == "fit":
            raise ExmlError("a baseline is not trained: measure it with `exml test` and the same options")
        elif config.ckpt_path is not None:
            raise ExmlError("a baseline has no checkpoint: leave out --ckpt_path, or the baseline")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the callbacks and the logger that every run has."""
        trainer = self.config_init.trainer
        chosen, trainer.logger = trainer.logger, False
        others = chosen if isinstance(chosen, list) else [] if chosen in (None, True, False) else [chosen]
        if self.verb == "fit" and chosen is not False:
            trainer.logger = RunLogger(trainer.default_root_dir)
        first, last = run_callbacks(
            self.config_init.buffer,
            self.stop,
            self.command,
            self.config.data.scenario is not None or self.config.data.labelled is not None,
            trainer.enable_progress_bar is not False,
            others,
            self.config.budget,
        )
        # Lightning appends these to the callbacks of the configuration and of the groups, so they come after them.
        self.trainer_defaults["callbacks"] = last
        made = super().instantiate_trainer(**kwargs)
        made.callbacks[:0] = first  # type: ignore[attr-defined]  # Lightning sets it from outside
        return made


def _run_folder(config: Namespace) -> Path:
    """Name the run folder after the stream, the strategy and the run."""
    return Path("runs") / _stream_name(config.data) / _strategy(config) / f"run{config.data.run_id}"


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
    return strategy_name(chosen.class_path if chosen else "Unrelated")


def _name_folder(logger: Any, folder: str) -> None:
    """Let the loggers of a configuration write into the run folder, where ``save_dir`` is empty, under its name."""
    for one in logger if isinstance(logger, list) else [logger]:
        if isinstance(one, Namespace):
            check_installed(one.class_path)
            if one.get("init_args", {}).get("save_dir") == "":
                one.init_args.save_dir = folder
                one.init_args.name = one.init_args.name or folder
