"""Whether experts can be one stream: a class has one name and one task, and the same weights know the same."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from exml_lightning.core.errors import SHOWN, ExmlError, shown

if TYPE_CHECKING:
    from exml_lightning.experts.manifest import ExpertEntry


def check_experts(experts: Sequence["ExpertEntry"]) -> None:
    """Refuse experts that give one class two names or two tasks, or that say two things of the same weights.

    Names that differ only in case, spaces, ``-`` or ``_`` are one class, unless an expert knows both of them.

    Args:
        experts: The experts of a stream.

    Raises:
        ExmlError: Names the classes, the files and the remedy.
    """
    tasks_of(experts)
    known: dict[str, str] = {}
    for name in dict.fromkeys(name for expert in experts for name in expert.classes):
        other = known.setdefault(_bare(name), name)
        if other != name and not any({name, other} <= set(expert.classes) for expert in experts):
            raise ExmlError(
                f"one class has two names: {other!r} in {_files(experts, other)}, {name!r} in {_files(experts, name)}; "
                "give it one name (or, if they are two classes, names that differ in more than case, spaces, - and _)"
            )
    heads: dict[tuple[str, int], ExpertEntry] = {}
    for expert in experts:
        first = heads.setdefault((expert.sha256, expert.task), expert)
        if dict(zip(expert.outputs, expert.classes, strict=True)) != dict(
            zip(first.outputs, first.classes, strict=True)
        ):
            raise ExmlError(
                f"{first.where} and {expert.where} hold the same weights (sha256) but are said to know "
                f"[{shown(first.classes)}] and [{shown(expert.classes)}]: correct one of them, or give "
                "them different tasks if each is a head of a multi-task model"
            )


def tasks_of(experts: Sequence["ExpertEntry"]) -> dict[str, int]:
    """Return the task of each class.

    Args:
        experts: The experts of a stream.

    Returns:
        Tasks by class name.

    Raises:
        ExmlError: If a class belongs to two tasks, or a task is less than 0.
    """
    tasks: dict[str, ExpertEntry] = {}
    for expert in experts:
        if expert.task < 0:
            raise ExmlError(f"{expert.where} has task {expert.task}: give 0 or more")
        for name in expert.classes:
            first = tasks.setdefault(name, expert)
            if first.task != expert.task:
                raise ExmlError(
                    f"class {name!r} is of task {first.task} in {first.where}, but of task {expert.task} in "
                    f"{expert.where}: give one of them another name, or both the same task"
                )
    return {name: expert.task for name, expert in tasks.items()}


def _bare(name: str) -> str:
    """What is left of a class name without case and separators; between digits, and before a number, they count."""
    name = re.sub(r"(?<=[^\W\d_])[\s_-]+|(?<![\s_-])[\s_-]+(?=[^\W\d_])", "", name.strip().casefold())
    return re.sub(r"(?<=\d)[\s_-]+(?=\d)", " ", name)


def _files(experts: Sequence["ExpertEntry"], name: str) -> str:
    return ", ".join(list(dict.fromkeys(expert.where for expert in experts if name in expert.classes))[:SHOWN])
