"""Files of ``-c`` in an order that would mix a scenario with settings that were meant for another one: refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.cli.config_names import name_of
from exml_lightning.cli.flatten import flatten
from exml_lightning.core.errors import ExmlError


def content_of(file: Path) -> dict[str, Any]:
    """Read a file; of a pipe, which can be read only once, and of a broken one, nothing."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):  # config_files.wrong_file has said so
        content = None
    return content if isinstance(content, dict) else {}


def is_strategy(content: dict[str, Any]) -> bool:
    """Whether a file has the key ``buffer.name``, be it null."""
    return "name" in _group(content, "buffer")


def is_scenario(content: dict[str, Any]) -> bool:
    """Whether a file says which stream there is, or which strategy goes with what it says."""
    scenario = _group(_group(content, "data"), "scenario")
    dataset = scenario.get("dataset")
    chooses = "class_path" in dataset if isinstance(dataset, dict) else dataset is not None
    return "name" in scenario or chooses or "strategy" in content


def chooses_generator(content: dict[str, Any]) -> bool:
    """Whether a file chooses a generator, by its class."""
    generator = _group(content, "buffer").get("generator")
    return "class_path" in generator if isinstance(generator, dict) else generator is not None


def check_order(files: Sequence[Path], contents: Sequence[dict[str, Any]]) -> None:
    """Refuse a scenario after a strategy or after another scenario.

    Args:
        files: In their order.
        contents: Of each file.

    Raises:
        ExmlError: If there is one; it says which order is right.
    """
    names = [name_of(file) for file in files]
    strategy = next((i for i, content in enumerate(contents) if is_strategy(content)), len(files))
    for i, content in enumerate(contents):
        if i > strategy and is_scenario(content):
            first = names[strategy]
            raise ExmlError(
                f"{names[i]} is stacked after the strategy {first}, whose settings it would overrule: the scenario "
                f"comes first, -c {names[i]} -c {first}"
            )
        whole = [name for name, before in zip(names[:i], contents, strict=False) if _is_whole(before)]
        if whole and _is_whole(content):
            raise ExmlError(f"{names[i]} is a second scenario, which would be mixed with {whole[0]}: give one of them")


def check_not_lost(files: Sequence[Path], contents: Sequence[dict[str, Any]], strategy: Path | None = None) -> None:
    """Refuse a file before the scenario, of which this overrules a setting.

    Args:
        files: In their order.
        contents: Of each file.
        strategy: What is stacked directly after the scenario.

    Raises:
        ExmlError: If there is one; it names the setting.
    """
    first = next((i for i, content in enumerate(contents) if is_scenario(content)), 0)
    later = _settings(contents[first]) if files else {}
    later |= {} if strategy is None else _settings(content_of(strategy))
    for file, content in zip(files[:first], contents, strict=False):
        for key, value in _settings(content).items():
            if key in later and later[key] != value:
                scenario, name = name_of(files[first]), name_of(file)
                raise ExmlError(
                    f"{scenario} is stacked after {name}, whose {key} it would overrule: the scenario comes first, "
                    f"-c {scenario} -c {name}"
                )


def check_one_strategy(
    files: Sequence[Path], contents: Sequence[dict[str, Any]], scenario: int, named: str | None
) -> None:
    """Refuse a strategy after a file that holds one beside its scenario, as ``config.yaml`` of a run does.

    What the new one does not set would be left of the other. A strategy that sets nothing of the model is stacked on
    another on purpose (``precomputed``).

    Args:
        files: In their order.
        contents: Of each file.
        scenario: Which of them is the scenario; -1 if none is.
        named: The strategy that an option names.

    Raises:
        ExmlError: If there is one.
    """
    if scenario < 0 or not is_strategy(contents[scenario]):
        return
    after = list(zip(files, contents, strict=True))[scenario + 1 :]
    more = [f"--strategy {named}"] if named else []
    more += [f"the strategy {name_of(file)}" for file, content in after if is_strategy(content) and "model" in content]
    if more:
        raise ExmlError(
            f"{name_of(files[scenario])} holds a strategy beside its scenario, as config.yaml of a run does, and "
            f"{more[0]} would replace a part of that: give the scenario in its place, for instance -c split_digits"
        )


def _is_whole(content: dict[str, Any]) -> bool:
    """Whether a file is a scenario by itself, and no change of another one."""
    names = _group(_group(content, "data"), "scenario").keys()
    return {"name", "dataset"} <= names or ("strategy" in content and chooses_generator(content))


def _settings(content: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says by its keys; a class is that of the key that takes it."""
    return {key.removesuffix(".class_path"): value for key, value in flatten(content).items()}


def _group(content: dict[str, Any], key: str) -> dict[str, Any]:
    group = content.get(key)
    return group if isinstance(group, dict) else {}
