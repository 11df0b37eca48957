"""The files given by ``-c``: what is wrong with them is said within a second, before anything heavy is imported."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import yaml

from exml_lightning.cli.config_names import SUFFIXES, SWEEPS, config_words, find_configs, known_configs, of_verb

GROUPS = ("data", "model", "buffer", "experts", "privacy", "trainer", "checkpoint", "generate")
"""Of the settings of `exml fit`: each holds keys."""
OTHERS = ("--print_config",)
"""Options that are nearly `--config`."""
MUST = "it must hold keys, such as `data: {run_id: 0}`"


def misspelt(words: Sequence[str], options: Sequence[str]) -> str | None:
    """Say which option was likely meant by a word that is none, but nearly one of a few.

    Args:
        words: The command line.
        options: The few, such as ``config``.

    Returns:
        One line; None if there is no such word.
    """
    for word in words:
        option = word.partition("=")[0]
        right = not option.startswith("-") or "." in option or option in OTHERS
        if not right and not any(f"--{one}".startswith(option) for one in options):
            close = difflib.get_close_matches(option.lstrip("-").lower(), options, n=1)
            if close:
                return f"no option {option}; did you mean --{close[0]}?"
    return None


def wrong_file(words: Sequence[str], sweep: bool = False) -> str | None:
    """Say what is wrong with the files of a command line, if anything is.

    Args:
        words: The command line.
        sweep: Whether it is that of `exml sweep`.

    Returns:
        One line; None if all are mappings of YAML, or pipes, which can be read only once.
    """
    said = (_wrong(word, sweep) for given, word in config_words(words) if given)
    return next((line for line in said if line is not None), None)


def _wrong(word: str, sweep: bool) -> str | None:
    found = find_configs(word, sweep)
    if not found:
        return _missing(word, sweep)
    if len(found) > 1:
        return f"-c {word} may be {' or '.join(found)}: give one of these"
    (path,) = found.values()
    wrong = _wrong_content(path) if path.is_file() else None
    if wrong is None:
        return None
    others = [name for name, file in of_verb(known_configs(), sweep).items() if file.stem == word and file != path]
    return f"{wrong}; what ships with that name is {others[0]}" if others else wrong  # a file is in the way of a name


def _wrong_content(path: Path) -> str | None:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, OSError) as error:
        return f"{path} cannot be read as text ({' '.join(str(error).split())})"
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f", line {mark.line + 1}"
        return f"{path}{where}: no valid YAML ({getattr(error, 'problem', None) or type(error).__name__})"
    if not isinstance(content, dict):
        return f"{path} is empty: {MUST}" if content is None else f"{path} holds {str(content)[:40]}: {MUST}"
    for group in set(GROUPS) & content.keys():
        if not isinstance(content[group], dict | str):  # or the name of another file
            what = "holds nothing" if content[group] is None else f"is {str(content[group])[:40]}"
            return f"{path}: {group} {what}: it must hold keys, or be left out"
    return None


def _missing(word: str, sweep: bool) -> str:
    """Say that there is no such file or name, what was likely meant, and which scenarios or sweeps there are."""
    path, known = Path(word), of_verb(known_configs(), sweep)
    if path.is_dir():
        example = next(iter(sorted(path.glob("*.yaml"))), path / "FILE.yaml")
        return f"{path} is a folder: name a file in it, for instance {example}"
    here = {file.stem: str(file) for file in sorted(path.parent.glob("*")) if file.is_file()}
    if len(path.parts) > 1 or path.suffix in SUFFIXES:
        there = {Path(name).stem: name for name in reversed(known)}
        close = [names[stem] for names in (here, there) for stem in difflib.get_close_matches(path.stem, names, n=1)]
        return f"no file {word}{f'; did you mean {close[0]}?' if close else ''}"
    names = {Path(name).stem: Path(name).stem for name in known} | {s: f for s, f in here.items() if f != s}
    close = difflib.get_close_matches(word, names, n=1)
    folder = SWEEPS if sweep else "configs/"
    all_of_kind = [file.stem for name, file in known.items() if name == f"{folder}{file.name}"]
    kind = "sweeps" if sweep else "scenarios"
    meant = f"did you mean {names[close[0]]}? {kind.capitalize()}" if close else kind
    return f"no file or name {word}; {meant}: {', '.join(all_of_kind)}"
