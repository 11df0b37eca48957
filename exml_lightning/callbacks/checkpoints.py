"""Which checkpoint a run goes on with."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exml_lightning.callbacks.checkpoint_file import check_checkpoint
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.files import write_whole
from exml_lightning.terminal import say

OTHER_OPTIMIZER = "the checkpoint is of another ex-model: its optimiser's tensors do not fit; give its configuration"


def find_checkpoint(run_folder: Path, ckpt_path: str | None, verb: str) -> str | None:
    """Find the checkpoint that ``--ckpt_path`` means.

    Args:
        run_folder: The run folder.
        ckpt_path: What the user gave: ``last``, a file, or nothing.
        verb: ``fit``, ``validate`` or ``test``.

    Returns:
        The file; None for a fit that starts with the first expert. A fit goes on with the run of its folder, also where
        nothing is given: it would end with the same weights if it started anew.

    Raises:
        ExmlError: If there is no such checkpoint, or the run would overwrite another one.
    """
    folder = run_folder / "checkpoints"
    last = folder / "last.ckpt"
    if ckpt_path is None and verb != "fit":
        raise ExmlError(f"which checkpoint? Give --ckpt_path last ({last}) or --ckpt_path FILE")
    if verb == "fit" and ckpt_path is None:
        last = _newest(folder)
        if not last.is_file():
            return None
        finished = (run_folder / "ex_model" / FILE_NAME).is_file()
        say(
            f"{run_folder} holds a finished run: only experts that are new are learned; to begin anew, delete it or "
            "name another folder with --trainer.default_root_dir DIR"
            if finished
            else f"{run_folder} holds a run that was stopped: going on with {last.name}"
        )
    elif verb == "fit" and ckpt_path != "last" and folder.exists() and not _inside(str(ckpt_path), folder):
        raise ExmlError(
            f"{run_folder} already holds a run, and {ckpt_path} is not of it: go on with --ckpt_path last, "
            "write elsewhere with --trainer.default_root_dir DIR, or delete it"
        )
    path = _newest(folder) if ckpt_path in (None, "last") else Path(str(ckpt_path))
    if not path.is_file():
        if verb == "fit" and ckpt_path == "last":
            say(f"{path} does not exist yet: starting with the first expert")
            return None
        raise ExmlError(f"--ckpt_path: {path} does not exist; `exml fit` writes checkpoints")
    try:
        check_checkpoint(path)
    except ExmlError as error:
        others = [other for other in _of_experiences(folder) if other != path]
        if path.parent != folder or not others:
            raise
        raise ExmlError(f"{error}; an older one is {others[-1]}: give it by --ckpt_path") from error
    return str(path)


def _of_experiences(folder: Path) -> list[Path]:
    """The checkpoints of finished experiences, in order."""
    found = {path.stem.removeprefix("experience="): path for path in folder.glob("experience=*.ckpt")}
    return [found[k] for k in sorted((k for k in found if k.isdecimal()), key=int)]


def _newest(folder: Path) -> Path:
    """Return ``last.ckpt``, or where a kill came just before it was written, the experience it would have been of."""
    last = folder / "last.ckpt"
    return last if last.exists() else [last, *_of_experiences(folder)][-1]


def _inside(path: str, folder: Path) -> bool:
    return Path(path).resolve().is_relative_to(folder.resolve())


def go_back(run_folder: Path, experience: int) -> None:
    """Let a run go on where an experience began: what it has learned in it is not to be kept.

    Args:
        run_folder: The run folder.
        experience: The experience.
    """
    folder = run_folder / "checkpoints"
    last, before = folder / "last.ckpt", folder / f"experience={experience - 1}.ckpt"
    if before.is_file():
        write_whole(last, lambda part: shutil.copyfile(before, part))
    elif experience == 0:
        last.unlink(missing_ok=True)


def grow_checkpoint(
    checkpoint: dict[str, Any],
    module: nn.Module,
    network: nn.Module,
    class_names: Sequence[str],
    blank: bool,
) -> None:
    """Fit a checkpoint to a module that may have more classes, in place.

    Args:
        checkpoint: As Lightning has read it.
        module: Whose weights it has.
        network: The part of `module` that was optimised.
        class_names: The classes of the stream now.
        blank: See `grow_weights`.

    Raises:
        ExmlError: If the checkpoint is of another ex-model.
    """
    learned = checkpoint["ExpertStream"].get("class_names", class_names)  # those before 0.1.0 could not grow
    checkpoint["state_dict"] = grow_weights(module.state_dict(), checkpoint["state_dict"], learned, class_names, blank)
    for state in checkpoint.get("optimizer_states", []):
        grow_optimizer_state(state["state"], list(network.parameters()))


def grow_weights(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    learned: Sequence[str],
    class_names: Sequence[str],
    blank: bool = False,
) -> dict[str, Tensor]:
    """Fit the weights of a checkpoint to an ex-model that may have more classes.

    Args:
        ours: State dict of the ex-model.
        theirs: State dict in the checkpoint.
        learned: The classes of the stream when the checkpoint was written.
        class_names: Those of the stream now.
        blank: Give new rows zeros, so that new classes have logits of 0.

    Returns:
        The checkpoint's weights; tensors with a row a class get the rows that they lack from `ours`.

    Raises:
        ExmlError: If the classes of then are not the first ones of now, or names or shapes of other weights differ.
    """
    before, now = len(learned), len(class_names)
    if list(class_names[:before]) != list(learned):
        raise ExmlError(
            f"the checkpoint knows the classes {list(learned)}, but class_names of the experts' manifest begins with "
            f"{list(class_names[:before])}: classes keep their places, new ones come after them"
        )
    differing = []
    grown = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        own, saved = ours.get(name), theirs.get(name)
        if own is None or saved is None:
            differing.append(name)
        elif own.shape == saved.shape:
            grown[name] = saved
        elif own.shape[1:] == saved.shape[1:] and (len(saved), len(own)) == (before, now):
            rows = own[before:].to(saved.device)
            grown[name] = torch.cat([saved, torch.zeros_like(rows) if blank else rows])
        else:
            differing.append(name)
    if differing:
        raise ExmlError(
            f"the checkpoint is of another ex-model: {differing[:3]} differ; "
            "give the configuration that it was trained with"
        )
    return grown


def grow_optimizer_state(state: dict[int, dict[str, Any]], parameters: Sequence[Tensor]) -> None:
    """Give an optimiser's tensors zeros for the rows that `grow_weights` gave its parameters, in place.

    Args:
        state: The tensors of each parameter, by its place.
        parameters: The parameters.

    Raises:
        ExmlError: If the tensors are not those of such parameters.
    """
    for index, tensors in state.items():
        if index >= len(parameters):
            raise ExmlError(OTHER_OPTIMIZER)
        shape = parameters[index].shape
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.ndim == len(shape) > 0 and tensor.shape != shape:
                if tensor.shape[1:] != shape[1:] or len(tensor) > shape[0]:
                    raise ExmlError(OTHER_OPTIMIZER)
                tensors[name] = torch.cat([tensor, tensor.new_zeros(shape[0] - len(tensor), *shape[1:])])
