"""Checking a checkpoint before Lightning restores it: a stranger may have written it, or another run."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError, printable, shown
from exml_lightning.experts import Manifest
from exml_lightning.experts.fields import MAX_WHOLE, items, mapping, names, need, plain, whole
from exml_lightning.files import is_dense, load_torch_file, reason, text

COLUMNS = ("images", "labels", "tasks", "experiences", "answers")
"""Of the buffer; `answers` may be missing."""
PROGRESS = ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.scheduler_progress")
"""What the loop of a fit says of its place in the run."""
SINCE = {"model.others": 0.0, "model.raw_logits": 0.0, "model.familiarity": 0.0, "model.reference": None}
"""Settings that older checkpoints do not name, with what they were."""


def check_checkpoint(path: Path) -> None:
    """Read a checkpoint of `exml fit` without running code in it, and check all that is restored from it.

    Args:
        path: The file.

    Raises:
        ExmlError: If it is damaged, no such checkpoint, or holds anything else than a fit writes; names the file and
            the key.
    """
    try:
        content = load_torch_file(path)
    except ExmlError as error:
        raise ExmlError(f"--ckpt_path: {error}") from error
    except Exception as error:  # torch's readers of broken files raise almost anything
        raise ExmlError(f"--ckpt_path: {path} is no checkpoint, or a damaged one ({reason(error)})") from error
    if not isinstance(content, dict) or not {"pytorch-lightning_version", "ExpertStream"} <= content.keys():
        raise ExmlError(f"--ckpt_path: {path} is not a checkpoint of `exml fit`")
    try:
        _check(content)
    except ExmlError as error:
        raise ExmlError(
            f"--ckpt_path: {path} is not a checkpoint as `exml fit` writes it: {printable(str(error), 300)}; take "
            "another one of the run"
        ) from error


def check_same_run(state: dict[str, Any], manifest: Manifest, path: Path, scenario: str | None) -> None:
    """Refuse the checkpoint of another run.

    Args:
        state: What it says of its stream.
        manifest: The experts at hand.
        path: Their manifest.
        scenario: The scenario at hand; None for none, which any run may be continued or measured without.

    Raises:
        ExmlError: If it has learned other experts than the first ones at hand, on other images, or in another scenario.
    """
    was, learned = state.get("scenario"), state["learned"]
    if was is not None and scenario is not None and was != scenario:
        raise ExmlError(f"the checkpoint is of another run: its scenario is {was}, not {scenario}; give that one")
    if [entry.sha256 for entry in manifest.experts[: len(learned)]] != learned:
        raise ExmlError(
            f"{path}: the experts that the checkpoint has learned are not the first {len(learned)} of this stream, so "
            "it is of another run: give the experts that its run was started with (--data.experts)"
        )
    buffer = state["buffer"]
    if buffer is not None and tuple(buffer["images"].shape[1:]) != manifest.input.shape:
        raise ExmlError(
            f"{path}: the experts take images of shape {list(manifest.input.shape)}, but the checkpoint has learned "
            f"from {list(buffer['images'].shape[1:])}: it is of another run"
        )


def differences(name: str, was: object, now: object) -> list[str]:
    """Say how a setting has changed.

    Args:
        name: Of the setting.
        was: In the checkpoint.
        now: In this run.

    Returns:
        A phrase; of settings in groups, one for each that differs.
    """
    if isinstance(was, dict) and isinstance(now, dict):
        keys = dict.fromkeys([*was, *now])
        return [text for key in keys for text in differences(f"{name}.{key}", was.get(key), now.get(key))]
    return [] if was == now else [f"{name} was {was}, now {now}"]


def _check(content: dict[Any, Any]) -> None:
    whole(need(content, "epoch"), "epoch")
    whole(need(content, "global_step"), "global_step")
    text(content["pytorch-lightning_version"], "pytorch-lightning_version")
    weights = _mapping(content, "state_dict")
    for name, value in weights.items():
        _tensor(value, f"state_dict.{name}")
    classes = _check_stream(_mapping(content, "ExpertStream"))
    for name in ("known", "previous_known"):
        known = need(weights, name, "state_dict")
        if known.dtype != torch.bool or known.ndim != 1 or (classes is not None and len(known) != classes):
            raise ExmlError(f"state_dict.{name} must hold true or false for each of its classes")
    _check_loops(_mapping(content, "loops"))
    _check_callbacks(_mapping(content, "callbacks"))
    for i, value in enumerate(items(need(content, "optimizer_states"), "optimizer_states")):
        _check_optimizer(mapping(value, f"optimizer_states[{i}]"), f"optimizer_states[{i}]")
    for i, value in enumerate(items(need(content, "lr_schedulers"), "lr_schedulers")):
        plain(mapping(value, f"lr_schedulers[{i}]"), f"lr_schedulers[{i}]")


def _check_stream(state: dict[str, Any]) -> int | None:
    """Check what the stream restores; return its number of classes, None in checkpoints that do not say it."""
    here = "ExpertStream"
    classes = len(names(state["class_names"], f"{here}.class_names")) if "class_names" in state else None
    experience = whole(need(state, "experience", here), f"{here}.experience", -1)
    whole(need(state, "completed", here), f"{here}.completed")
    for i, digest in enumerate(items(need(state, "learned", here), f"{here}.learned")):
        text(digest, f"{here}.learned[{i}]")
    for skipped in items(state.get("skipped", []), f"{here}.skipped"):
        whole(skipped, f"{here}.skipped")
    if state.get("scenario") is not None:
        text(state["scenario"], f"{here}.scenario")
    if need(state, "buffer", here) is not None:
        _check_buffer(_mapping(state, "buffer"), f"{here}.buffer", classes, experience)
    return classes


def _check_buffer(columns: dict[str, Any], where: str, classes: int | None, experience: int) -> None:
    if not set(COLUMNS[:4]) <= columns.keys() <= set(COLUMNS):
        raise ExmlError(f"{where} has [{shown(columns)}], and must have {list(COLUMNS[:4])}")
    for name, column in columns.items():
        _tensor(column, f"{where}.{name}")
        dtype, dims = (torch.float32, 4) if name == "images" else (torch.int64, 1)
        if column.dtype != dtype or column.ndim != dims or len(column) != len(columns["images"]) or not len(column):
            raise ExmlError(f"{where}.{name} must be {dtype} with {dims} dimensions, and as long as its images")
    if columns["images"][0].numel() == 0:
        raise ExmlError(f"{where}.images must have pixels")
    limits = {"labels": classes, "answers": classes, "experiences": experience + 1}
    for name, limit in limits.items():
        if name in columns and (columns[name].min() < 0 or (limit is not None and columns[name].max() >= limit)):
            raise ExmlError(f"{where}.{name} must be 0 or more, and less than {limit}")


def _check_loops(loops: dict[str, Any]) -> None:
    plain(loops, "loops")
    fit = _mapping(loops, "fit_loop")
    for name in PROGRESS:
        progress = mapping(need(fit, name, "loops.fit_loop"), f"loops.fit_loop.{name}")
        for when in ("total", "current"):
            counts = mapping(need(progress, when, name), f"{name}.{when}")
            for key in ("ready", "completed"):
                whole(need(counts, key, f"{name}.{when}"), f"{name}.{when}.{key}")
    state = mapping(fit.get("state_dict", {}), "loops.fit_loop.state_dict")
    for i, place in enumerate(items(state.get("combined_loader", []), "combined_loader")):
        for key in ("experience", "position"):
            whole(need(mapping(place, "combined_loader"), key), f"combined_loader[{i}].{key}", -1)


def _check_callbacks(callbacks: dict[str, Any]) -> None:
    for name, state in callbacks.items():
        values = mapping(state, f"callbacks.{name}")
        for key in ("seconds_generating", "seconds_distilling"):
            if key in values and (not isinstance(values[key], int | float) or isinstance(values[key], bool)):
                raise ExmlError(f"callbacks.{name}.{key} must be a number")
        if name == "SyntheticBufferCallback":
            need(values, "seconds_generating", f"callbacks.{name}")
            mapping(need(values, "settings", f"callbacks.{name}"), f"callbacks.{name}.settings")
        if "matrix" in values:
            need(values, "seconds_distilling", f"callbacks.{name}")
            _check_matrix(values["matrix"], f"callbacks.{name}.matrix")


def _check_matrix(matrix: object, where: str) -> None:
    if not isinstance(matrix, dict):
        raise ExmlError(f"{where} must be a mapping")
    for experience, row in matrix.items():
        whole(experience, where)
        if not all(type(value) in (int, float) for value in items(row, where)):
            raise ExmlError(f"{where} must have rows of numbers")


def _check_optimizer(state: dict[str, Any], where: str) -> None:
    groups = items(need(state, "param_groups", where), f"{where}.param_groups")
    count = 0
    for group in groups:
        count += len(items(need(mapping(group, f"{where}.param_groups"), "params", where), f"{where}.params"))
    parameters = need(state, "state", where)
    if not isinstance(parameters, dict):
        raise ExmlError(f"{where}.state must be a mapping")
    for place, values in parameters.items():
        whole(place, f"{where}.state", 0, min(count - 1, MAX_WHOLE))
        for name, value in mapping(values, f"{where}.state").items():
            if isinstance(value, Tensor):
                _tensor(value, f"{where}.state.{name}")
            else:
                plain(value, f"{where}.state.{name}")


def _mapping(values: dict[Any, Any], key: str) -> dict[str, Any]:
    return mapping(need(values, key), key)


def _tensor(value: object, where: str) -> None:
    if not is_dense(value):
        raise ExmlError(f"{where} must be an ordinary tensor")
