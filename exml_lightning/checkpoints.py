"""Which checkpoint a run goes on with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError, one_line


def find_checkpoint(run_folder: Path, ckpt_path: str | None, verb: str) -> str | None:
    """Find the checkpoint that ``--ckpt_path`` means.

    Args:
        run_folder: The run folder.
        ckpt_path: What the user gave: ``last``, a file, or nothing.
        verb: ``fit``, ``validate`` or ``test``.

    Returns:
        The file; None for a fit that starts with the first expert.

    Raises:
        ExmlError: If there is no such checkpoint, or the run would overwrite another one.
    """
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
        raise ExmlError(f"--ckpt_path: {path} is no checkpoint, or a damaged one ({one_line(error)[:100]})") from error
    if not isinstance(content, dict) or not {"pytorch-lightning_version", "ExpertStream"} <= content.keys():
        raise ExmlError(f"--ckpt_path: {path} is not a checkpoint of `exml fit`")


def grow_weights(
    ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], learned: Sequence[str], class_names: Sequence[str]
) -> dict[str, Tensor]:
    """Fit the weights of a checkpoint to an ex-model that may have more classes.

    Args:
        ours: State dict of the ex-model.
        theirs: State dict in the checkpoint.
        learned: The classes of the stream when the checkpoint was written.
        class_names: Those of the stream now.

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
            grown[name] = torch.cat([saved, own[before:].to(saved.device)])
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
    """
    for index, tensors in state.items():
        shape = parameters[index].shape
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.ndim == len(shape) > 0 and tensor.shape != shape:
                tensors[name] = torch.cat([tensor, tensor.new_zeros(shape[0] - len(tensor), *shape[1:])])
