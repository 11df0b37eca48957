"""Which strategy a command line takes: the one that it names, else that of its scenario, else `best`.

It is stacked as a file, before the words are parsed.
"""

import difflib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from exml_lightning.cli.config_names import config_files, find_configs, with_paths
from exml_lightning.cli.file_order import (
    check_not_lost,
    check_one_strategy,
    check_order,
    chooses_generator,
    content_of,
    is_scenario,
    is_strategy,
)
from exml_lightning.core.errors import ExmlError
from exml_lightning.shipped import CONFIGS

BEST = "best"
"""What is taken where nothing names a strategy."""
NONE = "null"


def stack_strategy(words: Sequence[str]) -> list[str]:
    """Put the files of a command line before its options, so that these overrule them, and its strategy among them.

    Args:
        words: What follows the verb, ``--strategy NAME`` perhaps among it.

    Returns:
        The words to parse, files by their paths; ``--strategy`` is null in them, since it has been followed.

    Raises:
        ExmlError: See `stack_files`.
    """
    words = with_paths(words)
    named, chosen, rest, taken = None, False, [], False
    for word, following in pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        value, before, taken = value if equals else following, taken, False
        if before:
            continue
        if option == "-c" and following and not following.startswith("-"):
            taken = True
        elif option.startswith("--st") and "--strategy".startswith(option) and not value.startswith("-"):
            named, taken = value, not equals
        else:
            chosen |= chooses(option.removeprefix("--"))
            rest.append(word)
    files = stack_files(config_files(words), named, chosen)
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
        ExmlError: If there is no strategy of that name, a scenario follows what it would overrule, or a strategy
            follows a file that holds one beside its scenario.
    """
    contents = [content_of(file) for file in files]
    naming = [i for i, content in enumerate(contents) if "strategy" in content]
    last = max((i for i, content in enumerate(contents) if is_scenario(content)), default=-1)
    check_order(files, contents)
    check_one_strategy(files, contents, last, None if named == NONE else named)
    if named is None:
        after = contents[naming[-1] + 1 :] if naming else contents
        chosen |= any(map(is_strategy, contents)) or any(map(chooses_generator, after))
        chosen |= any(content.get("baseline") for content in contents)
        if not chosen and not naming:  # what a file says overrules what nobody asked for
            check_not_lost(files, contents)
            return [*(path for path in [_strategies(None).get(BEST)] if path), *files]
        if not chosen:
            named, last = str(contents[naming[-1]]["strategy"] or NONE), naming[-1]
    found = [] if named in (None, NONE) else [find_strategy(named, files[last] if last >= 0 else None)]
    check_not_lost(files, contents, *found)
    return [*files[: last + 1], *found, *files[last + 1 :]]


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
        (found,) = find_configs(name).values() or (None,)
        if found is None:
            raise ExmlError(f"--strategy {name}: there is no such file")
        return found
    known = _strategies(scenario)
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=1)
    raise ExmlError(f"no strategy {name!r}; {f'did you mean {close[0]}?' if close else f'there are {list(known)}'}")


def _strategies(scenario: Path | None) -> dict[str, Path]:
    """Find ``strategies/`` beside the scenario, else in ``configs/`` of the working directory, else of the package."""
    beside = [] if scenario is None else [scenario.parent]
    places = [*beside, Path("configs"), CONFIGS]
    return {file.stem: file for place in reversed(places) for file in sorted(place.glob("strategies/*.yaml"))}
