"""A folder of experts and a scenario put together: classes by their names, tasks and heads."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.experts import Manifest
from exml_lightning.experts.manifest import tasks_of
from exml_lightning.experts.selection import is_selection
from exml_lightning.scenarios import Experience, LabelledImages, Scenario, TestPart
from exml_lightning.scenarios.labelled_folder import read_labelled
from exml_lightning.scenarios.scenario import parts_of


def experts_folder(scenario: Scenario, run_id: int) -> Path:
    """Name the folder that a scenario's experts are trained into, unless the user names another."""
    return Path("checkpoints") / (scenario.experts_of or scenario.name) / f"run{run_id}"


def experts_command(scenario: Scenario, run_id: int, root: Path, experts: Path) -> str:
    """Name the command that trains a scenario's experts, with the options that are not the default."""
    default = is_selection(experts) or experts == experts_folder(scenario, run_id)  # none trains into a selection
    options = [
        f"--data.run_id {run_id}" if run_id else "",
        f"--data.root {root}" if root != Path("data") else "",
        "" if default else f"--data.experts {experts}",
    ]
    return " ".join(filter(None, [f"exml experts -c configs/{scenario.experts_of or scenario.name}.yaml", *options]))


def check_same_stream(manifest: Manifest, path: Path, scenario: Scenario, experiences: Sequence[Experience]) -> None:
    """Refuse experts, more or fewer, of other classes than their experiences, or of images of another shape."""
    names = scenario.dataset.class_names
    for i, (entry, experience) in enumerate(zip(manifest.experts, experiences, strict=False)):
        expected = {names[c] for c in experience.classes}
        if set(entry.classes) != expected:
            of, run = manifest.scenario, manifest.run
            remedy = f"{of}: take -c from_folder in place of the scenario"
            if run is not None:
                remedy = f"{of} run {run}: give that scenario as it is, and --data.run_id {run}"
            raise ExmlError(
                f"{path}: expert {i} knows {shown(sorted(entry.classes))}, but experience {i} of {scenario.name} in "
                f"this run has {shown(sorted(expected))}: these experts belong to {remedy}, or give "
                "others by --data.experts"
            )
    ours, theirs = list(manifest.input.shape), list(scenario.dataset.image_format.shape)
    if ours != theirs:
        what = f"{path}: the experts take images of shape {ours}, but {scenario.name} has {theirs}"
        raise ExmlError(f"{what}: give the settings that they were trained with (--data.scenario.dataset.size?)")


def labelled_parts(folder: Path, manifest: Manifest, num_experts: int) -> list[TestPart]:
    """Open a folder of labelled images as a test stream, by the experts that first brought their classes.

    Labels are the stream's class indices. Raises `ExmlError`, see `read_labelled`; also if none is of a class of the
    first `num_experts`.
    """
    known = [Experience(tuple(manifest.classes_of(i)), entry.task, None) for i, entry in enumerate(manifest.experts)]
    names = [manifest.class_names[c] for c in sorted({c for experience in known for c in experience.classes})]
    images = read_labelled(folder, names, manifest.input.shape)
    table = torch.tensor([manifest.class_names.index(name) for name in names])
    parts = parts_of(replace(images, labels=table[images.labels]), known)
    if parts[0].first_seen >= num_experts:
        raise ExmlError(
            f"data.labelled: {folder} has no images of the classes of the first {num_experts} experts: put some there, "
            "or raise trainer.max_epochs"
        )
    return parts


def stream_labels(images: LabelledImages, manifest: Manifest, path: Path, scenario: Scenario) -> LabelledImages:
    """Turn a data set's class indices into the stream's by name; `ExmlError` if `path`, its manifest, lacks one."""
    names = scenario.dataset.class_names
    present = images.labels.unique().tolist()
    missing = [names[c] for c in present if names[c] not in manifest.class_names]
    if missing:
        raise ExmlError(f"{path}: class_names lacks {shown(missing)}, which {scenario.name} tests")
    table = torch.full((len(names),), -1)
    for c in present:
        table[c] = manifest.class_names.index(names[c])
    return replace(images, labels=table[images.labels])


def with_tasks(manifest: Manifest, experiences: Sequence[Experience]) -> Manifest:
    """Let a scenario say which task each expert is: the same serve with and without task labels; more keep theirs."""
    tasks = [experience.task for experience in experiences]
    experts = [replace(entry, task=tasks[i]) if i < len(tasks) else entry for i, entry in enumerate(manifest.experts)]
    return replace(manifest, experts=tuple(experts))


def heads_of(manifest: Manifest) -> list[int] | None:
    """Return each class's task, its head in a multi-head ex-model (-1: no expert knows it); None if all are one."""
    tasks = tasks_of(manifest.experts)
    if len(set(tasks.values())) < 2:
        return None
    return [tasks.get(name, -1) for name in manifest.class_names]


def check_same_run(state: dict[str, Any], manifest: Manifest, path: Path, scenario: str | None) -> None:
    """Refuse a checkpoint (`state`) of other experts than the first at hand, of other images or, if any, scenario."""
    was, learned = state.get("scenario"), state["learned"]
    if was is not None and scenario is not None and was != scenario:
        raise ExmlError(f"the checkpoint is of another run: its scenario is {was}, not {scenario}; give that one")
    if [entry.identity for entry in manifest.experts[: len(learned)]] != learned:
        what = f"{path}: the experts that the checkpoint has learned are not the first {len(learned)} of this stream"
        raise ExmlError(f"{what}, so it is of another run: give those that it was started with (--data.experts)")
    takes, buffer = list(manifest.input.shape), state["buffer"]
    if buffer is not None and takes != (had := list(buffer["images"].shape[1:])):
        what = f"{path}: the experts take images of shape {takes}, but the checkpoint has learned from {had}"
        raise ExmlError(f"{what}: it is of another run")
