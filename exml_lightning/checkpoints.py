"""Which checkpoint a run goes on with."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError


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
        raise ExmlError(
            f"--ckpt_path: {path} is no checkpoint, or a damaged one ({' '.join(str(error).split())[:100]})"
        ) from error
    if not isinstance(content, dict) or not {"pytorch-lightning_version", "ExpertStream"} <= content.keys():
        raise ExmlError(f"--ckpt_path: {path} is not a checkpoint of `exml fit`")


def check_same_weights(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    """Compare the ex-model with that of a checkpoint.

    Args:
        ours: State dict of the ex-model.
        theirs: State dict in the checkpoint.

    Raises:
        ExmlError: If names or shapes of the weights differ.
    """
    shapes = {name: list(tensor.shape) for name, tensor in ours.items()}
    saved = {name: list(tensor.shape) for name, tensor in theirs.items()}
    if shapes != saved:
        differing = sorted(k for k in shapes.keys() | saved.keys() if shapes.get(k) != saved.get(k))
        raise ExmlError(
            f"the checkpoint is of another ex-model: {differing[:3]} differ; "
            "give the configuration that it was trained with"
        )
