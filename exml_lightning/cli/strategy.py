"""Which strategy a command line takes: the one that it names, else that of its scenario, else `best`.

It is stacked as a file, before the words are parsed.
"""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

import exml_lightning
from exml_lightning.cli.config_files import config_files
from exml_lightning.core.errors import ExmlError

BEST = "best"
"""What is taken where nothing names a strategy."""
NONE = "null"


def stack_strategy(words: Sequence[str]) -> list[str]:
    """Put the files of a command line before its options, so that these overrule them, and its strategy among them.

    Args:
        words: What follows the verb, ``--strategy NAME`` perhaps among it.

    Returns:
        The words to parse; ``--strategy`` is null in them, since it has been followed.

    Raises:
        ExmlError: See `stack_files`.
    """
    named, chosen, rest, taken = None, False, [], False
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        value, before, taken = value if equals else following, taken, False
        if before:
            continue
        if option in ("-c", "--config") and (equals or (following and not following.startswith("-"))):
            taken = not equals
        elif option.startswith("--st") and "--strategy".startswith(option) and not value.startswith("-"):
            named, taken = value, not equals
        else:
            chosen |= chooses(option.removeprefix("--"))
            rest.append(word)
    files = stack_files([*config_files(words)], named, chosen)
    return [*(word for file in files for word in ("-c", str(file))), *rest, f"--strategy={NONE}"]


def stack_files(files: Sequence[Path], named: str | None = None, chosen: bool = False) -> list[Path]:
    """Put the strategy among the files of a command line.

    A file with the key ``buffer.name`` is a strategy. Where there is none, and no baseline or generator is chosen, the
    last ``strategy: NAME`` of a file is stacked directly after that file; where no file has that key, `BEST` comes
    before all of them.

    Args:
        files: In their order.
        named: The strategy that an option names, which decides alone; it is stacked directly after the scenario.
        chosen: Whether an option chooses a baseline or a generator.

    Raises:
        ExmlError: If there is no strategy of that name, or a scenario follows a strategy.
    """
    contents = [_content(file) for file in files]
    strategies = [i for i, content in enumerate(contents) if "name" in _group(content, "buffer")]
    naming = [i for i, content in enumerate(contents) if "strategy" in content]
    scenarios = [i for i, content in enumerate(contents) if "name" in _group(_group(content, "data"), "scenario")]
    late = next((i for i in sorted({*naming, *scenarios}) if strategies and i > strategies[0]), None)
    if late is not None:
        first, scenario = files[strategies[0]], files[late]
        raise ExmlError(
            f"{scenario} is stacked after the strategy {first}, whose settings it would overrule: the scenario comes "
            f"first, -c {scenario} -c {first}"
        )
    last = max([*naming, *scenarios], default=-1)
    if named is None:
        after = contents[naming[-1] + 1 :] if naming else contents
        if chosen or strategies or any(map(_generator, after)) or any(content.get("baseline") for content in contents):
            return [*files]
        if not naming:  # what a file says overrules what nobody asked for
            return [*(path for path in [_strategies(None).get(BEST)] if path), *files]
        named, last = str(contents[naming[-1]]["strategy"] or NONE), naming[-1]
    if named == NONE:
        return [*files]
    return [*files[: last + 1], find_strategy(named, files[last] if last >= 0 else None), *files[last + 1 :]]


def chooses(key: str) -> bool:
    """Whether a setting takes the place of a strategy: a class of generator, or of baseline."""
    return key.removesuffix(".class_path") in ("buffer.generator", "baseline")


def find_strategy(name: str, scenario: Path | None = None) -> Path:
    """Find a strategy by its path, or by its name among those beside the scenario and those that are shipped.

    Args:
        name: The name of a file without its ending, or a path.
        scenario: The file that the strategy is to follow.

    Raises:
        ExmlError: If there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ExmlError(f"--strategy {name}: there is no such file")
        return Path(name)
    known = _strategies(scenario)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    raise ExmlError(f"no strategy {name!r}; {f'did you mean {close[0]}?' if close else f'there are {list(known)}'}")


def _strategies(scenario: Path | None) -> dict[str, Path]:
    """Find ``strategies/`` beside the scenario, else in ``configs/`` of the working directory, else of the package."""
    beside = [] if scenario is None else [scenario.parent]
    places = [*beside, Path("configs"), Path(exml_lightning.__file__).parent.parent / "configs"]
    return {file.stem: file for place in reversed(places) for file in sorted(place.glob("strategies/*.yaml"))}


def _content(file: Path) -> dict[str, Any]:
    """Read a file; of a pipe, which can be read only once, and of a broken one, nothing."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):  # config_files.wrong_file has said so
        content = None
    return content if isinstance(content, dict) else {}


def _group(content: dict[str, Any], key: str) -> dict[str, Any]:
    group = content.get(key)
    return group if isinstance(group, dict) else {}


def _generator(content: dict[str, Any]) -> bool:
    """Whether a file chooses a generator, by its class."""
    generator = _group(content, "buffer").get("generator")
    return "class_path" in generator if isinstance(generator, dict) else generator is not None
