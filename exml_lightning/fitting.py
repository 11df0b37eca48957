"""`distil`: what `exml fit` does with a folder of experts, as a function."""

import difflib
import inspect
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from exml_lightning.callbacks import (
    AccuracyCallback,
    AgreementCallback,
    CheckExperts,
    ExModelWriter,
    SameSettings,
    StageProgressBar,
    StartLoggers,
    StopOnSignal,
    StreamCheckpoint,
    SyntheticBufferCallback,
    TimeBudget,
)
from exml_lightning.callbacks.resume import find_checkpoint, unless_alone
from exml_lightning.callbacks.run_folder import RunFolderLock
from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.core.budget import Budget
from exml_lightning.core.distillation import Distillation
from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.data import ExpertStream
from exml_lightning.ex_model.model import ExModel, load_ex_model
from exml_lightning.experts.manifest import tasks_of
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import Terminated, is_quiet, quiet_lightning, set_quiet

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": -1,
    "num_sanity_val_steps": 0,
    "devices": 1,
    "enable_model_summary": False,
}
"""Where they are not Lightning's; -1 epochs stands for an epoch for each expert."""


def run_callbacks(
    buffer: SyntheticBufferCallback,
    stop: StopOnSignal,
    command: str,
    with_labels: bool,
    with_bar: bool,
    loggers: Sequence[Logger] = (),
    budget: Budget | None = None,
    is_kept: bool = True,
) -> tuple[list[Callback], list[Callback]]:
    """Make the callbacks of a run: those that come before `buffer`, and those after it and the checkpoints.

    Accuracy is measured `with_labels`, agreement else. `command` is the command line of the run, or the call, for its
    files; `loggers` are those beside ``metrics.csv``; `budget` is that of time, if there is one. Where the run folder
    is not kept (`is_kept`), nothing tells its name.
    """
    results = (AccuracyCallback if with_labels else AgreementCallback)(buffer, command, is_kept)
    checks = [SameSettings(buffer), CheckExperts(buffer), TimeBudget(budget, buffer)]
    first: list[Callback] = [stop, *checks, StartLoggers(loggers)]
    bar = [StageProgressBar(buffer)] if with_bar else []
    return first, [*bar, results, ExModelWriter(buffer.strategy, results, is_kept)]


def distil(
    experts: str | Path,
    folder: str | Path | None = None,
    task: int | None = None,
    progress: bool = True,
    budget: Budget | None = None,
    **settings: Any,
) -> ExModel:
    """Learn one ex-model from a folder of experts; no data set is needed.

    It is `exml fit --data.experts DIR`, with the same result to the last bit. Keyword arguments are the keys of the
    command line without their group (``n_iter`` is ``data.n_iter``), but for ``buffer_size``, which is ``buffer.size``;
    what is left out is as there. Messages of errors name keys with their group.

    Args:
        experts: The folder: weights and a ``manifest.yaml``, which `add_experts` or `exml manifest` writes.
        folder: The run folder, for checkpoints, pictures and agreement. Where it holds a run that was stopped, this
            goes on with it; of a finished run, only experts that are new are learned. None for a temporary one, and
            then generated images are not kept in a cache either unless ``cache`` names one.
        task: Which head to return, where the experts have several tasks; `load_ex_model` reads the others from
            ``folder/ex_model``.
        progress: Show progress bars and tables, as `exml fit` does.
        budget: ``small`` (2 minutes), ``medium`` (15) or ``full`` (60) chooses ``n_iter`` and, where it can,
            ``buffer_size``, as `--budget` does; None takes those given.
        settings: Of `ExpertStream` but for a scenario (``labelled``, ``n_iter``, ``batch_size``, ``augmentation``,
            ``copies``, ``auxiliary``, ``root``, ``seed``), of `ExModelModule` and its `Distillation`
            (``architecture``, ``start``, ``optimizer``, ``lr_scheduler``, ``compile``, ``lambda_ce``, ``normalize``,
            ``merge``, ``loss``, ``temperature``), of `SyntheticBufferCallback` (``buffer_size``, ``generator``,
            ``statistics``, ``cache``), and ``accelerator`` (``auto``, ``cpu``, ``gpu``) and ``precision`` of
            Lightning's trainer.

    Returns:
        The ex-model, on the CPU, in eval mode.

    Raises:
        ExmlError: If an expert is missing or broken, or settings do not go together; before any work.
        TypeError: If there is no such setting.
        KeyboardInterrupt: On Ctrl-C. The same call with the same `folder` goes on.
        SystemExit: With 143 on SIGTERM, after a checkpoint.

    Example:
        >>> from exml_lightning import ModelInversion, distil
        >>> model = distil("checkpoints/split_digits/run0", n_iter=2, batch_size=4, buffer_size=10,
        ...                generator=ModelInversion(steps=2), accelerator="cpu", progress=False)
        >>> model.classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    _check_names(settings)
    with nullcontext(folder) if folder is not None else tempfile.TemporaryDirectory(prefix="exml-") as run_folder:
        assert run_folder is not None
        given: dict[str, Any] = {**({"cache": None} if folder is None else {}), **settings}
        with quiet_lightning(), _as_it_was():
            set_quiet(is_quiet() or not progress)
            _fit(Path(experts), Path(run_folder), folder is not None, task, progress, budget, given)
        return load_ex_model(Path(run_folder) / "ex_model", task)


def _settings(kind: Callable[..., Any], *others: str) -> dict[str, str]:
    """Name the settings of a class as `distil` takes them, by what the class calls them."""
    names = [name for name in inspect.signature(kind).parameters if name not in others]
    return {"buffer_size" if name == "size" else name: name for name in names}


GROUPS = {
    "data": _settings(ExpertStream, "scenario", "run_id", "experts", "download"),
    "model": {**_settings(ExModelModule, "distillation"), **_settings(Distillation)},
    "buffer": _settings(SyntheticBufferCallback, "name"),
    "trainer": {name: name for name in ("accelerator", "precision")},
}
"""What `distil` takes by keyword, by where it goes: each class says what its settings mean, and has their defaults."""


def _check_names(settings: Iterable[str]) -> None:
    known = [name for group in GROUPS.values() for name in group]
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"distil() got an unexpected keyword argument {name!r}{hint}")


def _fit(
    experts: Path,
    run_folder: Path,
    is_kept: bool,
    task: int | None,
    progress: bool,
    budget: Budget | None,
    given: dict[str, Any],
) -> None:
    def of(group: str) -> dict[str, Any]:
        return {name: given[key] for key, name in GROUPS[group].items() if key in given}

    stream = ExpertStream(experts=str(experts), **of("data"))
    module = ExModelModule(**of("model"))
    name = None if "generator" in given else "best"  # the defaults are what that file says
    buffer = SyntheticBufferCallback(**of("buffer"), name=name)
    _check_task(stream, task)
    if run_folder.exists() and not run_folder.is_dir():
        raise ExmlError(f"{run_folder} is a file: name a folder")
    checkpoint = unless_alone(find_checkpoint(run_folder, None, "fit"), module, stream)
    stop = StopOnSignal()
    said = given if budget is None else {"budget": budget, **given}
    words = ", ".join([repr(str(experts)), *(f"{key}={value!r}" for key, value in said.items())])
    first, last = run_callbacks(
        buffer, stop, f"distil({words})", stream.measures_accuracy, with_bar=progress, budget=budget, is_kept=is_kept
    )
    try:
        trainer = Trainer(
            **TRAINER_DEFAULTS,
            **of("trainer"),
            default_root_dir=str(run_folder),
            logger=RunLogger(str(run_folder)),
            enable_progress_bar=progress,
            log_every_n_steps=min(50, stream.n_iter),
            callbacks=[*first, buffer, StreamCheckpoint(), *last, RunFolderLock()],
        )
        trainer.fit(module, datamodule=stream, ckpt_path=checkpoint, weights_only=True)
    except MisconfigurationException as error:
        raise ExmlError(one_line(error)) from error
    if stream.completed != trainer.max_epochs:
        raise Terminated


def _check_task(stream: ExpertStream, task: int | None) -> None:
    tasks = sorted(set(tasks_of(stream.manifest.experts).values()))
    if task is None and len(tasks) > 1:
        raise ExmlError(
            f"{stream.experts} has experts of the tasks {', '.join(map(str, tasks))}: say by task which head to "
            "return, and name a folder to keep the others"
        )
    if task is not None and task not in tasks:
        raise ExmlError(f"task is {task}: {stream.experts} has experts of {', '.join(map(str, tasks))}")


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Leave random states, what is printed, and Ctrl-C as they were: Lightning turns that off where it is pressed."""
    quiet = is_quiet()
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        raise KeyboardInterrupt from None
    finally:
        set_quiet(quiet)
        if main:
            signal.signal(signal.SIGINT, before)
