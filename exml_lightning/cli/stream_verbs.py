"""The verbs that take the configuration of a stream: `exml experts`, `fit`, `validate`, `generate` and `test`.

Their docstrings are their help; `StreamCLI` is what was parsed.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from lightning import Trainer

from exml_lightning.baselines import measure
from exml_lightning.callbacks.measured import Measured
from exml_lightning.callbacks.progress import ExpertProgressBar
from exml_lightning.callbacks.resume import unless_alone
from exml_lightning.callbacks.run_folder import write_config
from exml_lightning.callbacks.stream_checkpoint import EpochCheckpoint
from exml_lightning.callbacks.summary import write_test
from exml_lightning.cli.lightning_cli import StreamCLI
from exml_lightning.cli.memory import keep_freed_memory
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.matching import experts_folder
from exml_lightning.experts.training import ExpertTraining, train_experts
from exml_lightning.files import check_folder
from exml_lightning.generation.files import generate_files
from exml_lightning.generation.samples import Sampler
from exml_lightning.terminal import Terminated, say

WHOLE_EPOCHS = {
    "fast_dev_run": False,
    "max_steps": -1,
    "limit_train_batches": None,
    "max_time": None,
    "overfit_batches": 0.0,
    "accumulate_grad_batches": 1,
}
"""What the trainer must be told where experts are trained."""


def fit(cli: StreamCLI) -> None:
    """Learn one ex-model from a stream of trained experts, one after the other, without their data.

    The run folder (runs/SCENARIO/STRATEGY/runK, or --trainer.default_root_dir DIR) gets the finished ex-model,
    accuracies, pictures and checkpoints. The same command goes on with a run that was stopped.

      exml fit -c split_digits
      exml fit -c split_mnist --strategy auxiliary --data.root data --buffer.size 2000
      exml fit -c from_folder --data.experts my_experts --data.labelled my_images
    """
    checkpoint = unless_alone(cli.config.ckpt_path, cli.model, cli.datamodule)
    cli.trainer.fit(cli.model, datamodule=cli.datamodule, ckpt_path=checkpoint, weights_only=True)
    if cli.datamodule.completed == cli.trainer.max_epochs:
        return
    if cli.stop.asked:
        raise Terminated
    say("stopped before the end: go on with the same command, and a larger trainer.max_time if that was over")


def validate(cli: StreamCLI) -> None:
    """Print the accuracy of a checkpoint, or of a baseline, on each part of the test stream.

    Nothing is written: that is what `exml test` is for.

      exml validate -c split_digits --ckpt_path last
      exml validate -c split_digits -c oracle
      exml validate -c from_folder --data.experts my_experts --data.labelled my_images --ckpt_path last
    """
    if cli.config.baseline is None:
        cli.trainer.validate(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config.ckpt_path, weights_only=True)
        found = _measured(cli)
    else:
        found = _measure_baseline(cli)
    if cli.trainer.is_global_zero:
        found.print("accuracy on the test stream", always=True)


def test(cli: StreamCLI) -> None:
    """Measure the accuracy of a checkpoint, or of a baseline, on the test stream, and write test.json.

    It goes into the run folder. --data.labelled DIR, a folder with a sub-folder for each class, takes the place of a
    scenario's test images.

      exml test -c split_digits --ckpt_path last
      exml test -c split_digits -c min_entropy
    """
    start, path, more = time.monotonic(), Path(cli.trainer.default_root_dir) / "test.json", {}
    if cli.config.baseline is None:
        cli.trainer.test(cli.model, datamodule=cli.datamodule, ckpt_path=cli.config.ckpt_path, weights_only=True)
        found = _measured(cli)
    else:
        check_folder(path.parent, "trainer.default_root_dir")
        found, more = _measure_baseline(cli), {"baseline": type(cli.config_init.baseline).__name__}
        if not (path.parent / "summary.json").exists():  # else it is the folder of a fit, which has its own
            write_config(path.parent, cli.parser, cli.config)
    if cli.trainer.is_global_zero:
        device, seconds = cli.trainer.strategy.root_device, time.monotonic() - start
        write_test(path, found, device, seconds, cli.command, **more)
        found.print(str(path))


def _measured(cli: StreamCLI) -> Measured:
    """Return what the ex-model of a checkpoint has just answered."""
    assert cli.model.confusion is not None
    return Measured(cli.datamodule, cli.model.confusion, cli.model.known.nonzero().flatten().tolist())


def _measure_baseline(cli: StreamCLI) -> Measured:
    """Ask the experts of a baseline about the test stream."""
    stream, trainer, buffer = cli.datamodule, cli.trainer, cli.config_init.buffer
    if trainer.num_devices * trainer.num_nodes > 1:
        raise ExmlError("a baseline is measured on one device: --trainer.devices 1 --trainer.num_nodes 1")
    stream.trainer = trainer
    stream.prepare_data()
    stream.setup("test")
    sampler = Sampler(buffer.generator, stream, buffer.cache, trainer.progress_bar_callback is not None)
    counts = measure(cli.config_init.baseline, sampler, buffer.size, trainer.strategy.root_device)
    asked = range(stream.num_experts)
    return Measured(stream, counts, {c for index in asked for c in stream.manifest.classes_of(index)})


def experts(cli: StreamCLI) -> None:
    """Train the experts of a scenario on its original data, and write them with a manifest.

    They go to checkpoints/SCENARIO/runK, or --data.experts DIR. Experts that are there are left alone; training that
    was stopped goes on. On a CPU they are trained side by side, one a core (--experts.workers).

      exml experts -c split_mnist --data.root data
      exml experts -c split_digits --data.run_id 1 --experts.epochs 20
    """
    config, stream = cli.config_init, cli.datamodule
    settings = vars(config.trainer)

    for key, value in WHOLE_EPOCHS.items():
        if settings[key] != value:
            raise ExmlError(
                f"trainer.{key} is {settings[key]}: experts are trained by whole epochs "
                "(experts.epochs, experts.batch_size)"
            )
    limit = settings["max_epochs"]
    if limit == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to train, or -1 for all")
    first = None if limit in (None, -1) else limit
    folder = Path(cli.config.data.experts or experts_folder(stream.scenario, stream.run_id))  # not those that ship
    job = ExpertTraining(
        stream.scenario, folder, stream.seed, stream.run_id, stream.root, config.experts, config.privacy
    )
    unused = ("callbacks", "logger")
    made_by = partial(_expert_trainer, {key: value for key, value in settings.items() if key not in unused})
    train_experts(job, made_by, first, stream.download)


def _expert_trainer(settings: dict[str, Any], title: str, checkpoint: Path, epochs: int) -> Trainer:
    """Make the trainer of an expert, perhaps in a process of its own."""
    keep_freed_memory()
    bars = [] if settings["enable_progress_bar"] is False else [ExpertProgressBar(title)]
    own = {"default_root_dir": str(checkpoint.parent), "max_epochs": epochs, "logger": False}
    return Trainer(**{**settings, **own, "callbacks": [EpochCheckpoint(checkpoint), *bars]})


def generate(cli: StreamCLI) -> None:
    """Write images made from experts, and pictures of them, without any data set.

    The files are expert_K.safetensors and expert_K.png.

      exml generate -c split_digits --strategy data_impression --generate.expert 0
      exml generate -c split_digits --strategy model_inversion --generate.folder look
    """
    buffer = cli.config_init.buffer
    shown = cli.config_init.trainer.enable_progress_bar is not False
    sampler = Sampler(buffer.generator, cli.datamodule, buffer.cache, shown)
    generate_files(sampler, buffer.size, cli.config_init.generate, cli.trainer.strategy.root_device)
