"""What jsonargparse says of a wrong command line, in one line, with the word that was likely meant."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser

KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}
"""What a user calls a type."""
GROUPS = ("data", "model", "buffer", "experts", "privacy", "trainer", "checkpoint", "generate")
"""Of the settings of `exml fit`: each holds keys."""
MOST = 300
"""Characters of what is passed on as it is."""


def check_files(words: Sequence[str]) -> str | None:
    """Say what is wrong with the files given by ``-c``, if anything is.

    Args:
        words: The command line.

    Returns:
        One line; None if all are mappings of YAML.
    """
    for name in config_files(words):
        path = Path(name)
        if not path.exists():
            clone = "; configs/ is in the clone of the repository: give its path, or go there"
            far = path.parts[0] == "configs" and not Path("configs").exists()
            return f"no file {name}{clone if far else _meant(_close_file(path))}"
        if path.is_dir():
            return f"{name} is a folder: name a file in it, for instance {_example(path)}"
        if not path.is_file():
            continue  # a pipe, which can be read once only
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (UnicodeDecodeError, OSError) as error:
            return f"{name} cannot be read as text ({' '.join(str(error).split())[:MOST]})"
        except (yaml.YAMLError, RecursionError) as error:
            mark = getattr(error, "problem_mark", None)
            where = "" if mark is None else f", line {mark.line + 1}"
            return f"{name}{where}: no valid YAML ({getattr(error, 'problem', None) or type(error).__name__})"
        if not isinstance(content, dict):
            what = "is empty" if content is None else f"holds {KINDS.get(type(content).__name__, 'a value')}"
            return f"{name} {what}: it must hold keys, such as `data: {{run_id: 0}}`"
        for group in GROUPS:
            if group in content and not isinstance(content[group], dict | str):  # or the name of another file
                what = "holds nothing" if content[group] is None else f"is {str(content[group])[:40]}"
                return f"{name}: {group} {what}: it must hold keys, or be left out"
    return None


def config_files(words: Sequence[str]) -> Iterator[str]:
    """Name the files given by ``-c`` or ``--config``."""
    for word, following in pairwise([*words, ""]):
        if word in ("-c", "--config") and following and not following.startswith("-"):
            yield following
        elif word.startswith("--config="):
            yield word.partition("=")[2]


def explain(message: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """Say an error of a parser in one line.

    Args:
        message: What jsonargparse or argparse says.
        parser: The parser, for what it knows.
        words: The command line.

    Returns:
        What is wrong, and what was likely meant.
    """
    for pattern, say in (
        (r"unrecognized arguments: (.*)", _unknown_option),
        (r"(?:Subcommand '\w+' does not accept option|Option) '([^']+)'(?: is not accepted)?$", _unknown_key),
        (r"argument (\S+): expected (?:one|at least one) argument", _no_value),
        (r"argument (\S+): invalid choice: '([^']*)' \(choose from (.*)\)", _no_choice),
        (r"the following arguments are required: (.*)", _missing),
        (r'Parser key "([^"]+)"(?: element \d+)?:(.*)', _wrong_value),
    ):
        found = re.match(pattern, message, re.DOTALL)
        if found:
            return say(parser, words, *found.groups())
    return " ".join(message.split())[:MOST]


def _unknown_option(parser: ArgumentParser, words: Sequence[str], rest: str) -> str:
    first = rest.split()[0]
    if not first.startswith("-"):
        example = f": a file is given by -c, as -c {first}" if first.endswith((".yaml", ".yml")) else ""
        return f"{first!r} is more than is asked for{example or '; options begin with --'}"
    name = first.partition("=")[0]
    return f"no option {name}{_meant(_close_key(name.lstrip('-'), parser), '--')}"


def _unknown_key(parser: ArgumentParser, words: Sequence[str], key: str) -> str:
    file = next((name for name in config_files(words) if _holds(name, key)), None)
    where = "" if file is None else f"{file}: "
    return f"{where}no key {key}{_meant(_close_key(key, parser))}"


def _no_value(parser: ArgumentParser, words: Sequence[str], option: str) -> str:
    return f"{option.rpartition('/')[2]} needs a value"


def _no_choice(parser: ArgumentParser, words: Sequence[str], option: str, value: str, choices: str) -> str:
    names = re.findall(r"'([^']*)'", choices) or choices.split(", ")
    return f"{option}: {value} is none of {', '.join(names)}"


def _missing(parser: ArgumentParser, words: Sequence[str], names: str) -> str:
    known = {action.dest: action for action in parser._actions}
    said = []
    for name in names.split(", "):
        action = known.get(name)
        option = action is not None and action.option_strings
        said.append(f"--{name}" if option else str(getattr(action, "metavar", None) or name))
    return f"{' and '.join(said)} must be given: {' '.join(parser.format_usage().split())}"


def _wrong_value(parser: ArgumentParser, words: Sequence[str], key: str, details: str) -> str:
    """Say what is wrong with the value of a key, by the innermost of the messages."""
    action = parser._option_string_actions.get(f"--{key}")
    typehint = getattr(action, "_typehint", None)
    keys = [key, *re.findall(r'Parser key "([^"]+)"', details)]
    whole = ".".join(keys)
    unknown = re.search(r"Option '([^']+)' is not accepted", details)
    owner = re.search(r"class_path[ =']+([\w.]+)", details)
    if unknown and owner:
        names = _settings_of(owner[1])
        return f"{whole}: {owner[1].rpartition('.')[2]} has no setting {unknown[1]}{_meant(_close(unknown[1], names))}"
    given = re.findall(r"(?:Given value|Got value): (.*?)(?:\. Got value|\.?\s*\n|\.?\s*$)", details)
    value = given[0].strip() if given else ""
    nested = re.match(r"NestedArg\(key='[^']*', val='(.*)'\)", value)
    value = nested[1] if nested else value
    absent = re.search(r"module '([\w.]+)' has no attribute '(\w+)'|No module named '([\w.]+)'", details)
    dotted = re.search(r"Expected a dot import path string: (\S+)", details)
    if absent or (dotted and "<class 'float'>" not in details):
        name = value if dotted is None else dotted[1]
        path = re.search(r"class_path='([\w.]+)'", details)
        name = path[1] if absent and path else name
        close = _close(name.rpartition(".")[2], _classes(typehint) if len(keys) == 1 else _classes_inside(details))
        return f"{whole}: no class {name}{_meant(close)}"
    literals = [word for group in re.findall(r"Expected a typing\.Literal\[(.*?)\]", details) for word in _words(group)]
    kinds = [KINDS.get(kind.rpartition(".")[2], kind) for kind in re.findall(r"Expected a <class '([\w.]+)'>", details)]
    if literals:
        return f"{whole}: {value} is none of {', '.join(dict.fromkeys(literals))}{_meant(_close(value, literals))}"
    kinds = [kind for kind in kinds if kind != KINDS["NoneType"]] or kinds
    if kinds:
        return f"{whole}: {value} is not {' or '.join(kinds)}"
    return f"{whole}: {' '.join(details.split())[:MOST]}"


def _words(literal: str) -> list[str]:
    return [word.strip().strip("'\"") for word in literal.split(",")]


def _keys(parser: ArgumentParser) -> list[str]:
    return [option[2:] for option in parser._option_string_actions if option.startswith("--")]


def _close_key(key: str, parser: ArgumentParser) -> str | None:
    """Return the key that was likely meant: one at another level, else one written alike."""
    keys = [known for known in _keys(parser) if not known.startswith("print_") and not known.endswith(".help")]
    last = key.rpartition(".")[2]
    elsewhere = [known for known in keys if known.rpartition(".")[2] == last]
    return (
        elsewhere[0] if elsewhere else _close(key, keys) or _close(last, keys, lambda known: known.rpartition(".")[2])
    )


def _close(word: str, known: Iterable[str], part: Any = str) -> str | None:
    names = {part(name).lower(): name for name in reversed(list(known))}
    found = difflib.get_close_matches(word.lower(), names, n=1)
    return names[found[0]] if found else None


def _meant(close: str | None, before: str = "") -> str:
    return f"; did you mean {before}{close}?" if close else ""


def _close_file(path: Path) -> str | None:
    """Return a file with nearly that name, in the same folder or anywhere below configs/."""
    for folder, pattern in ((path.parent, "*"), (Path("configs"), "**/*.yaml")):
        files = sorted(str(file) for file in folder.glob(pattern) if file.is_file()) if folder.is_dir() else []
        close = _close(path.stem, files, lambda file: Path(file).stem)
        if close:
            return close
    return None


def _example(folder: Path) -> str:
    return str(next(iter(sorted(folder.glob("*.yaml"))), folder / "FILE.yaml"))


def _holds(name: str, key: str) -> bool:
    if not Path(name).is_file():
        return False
    content = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _class(class_path: str) -> Any:
    """Return a class that jsonargparse has loaded."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def _settings_of(class_path: str) -> list[str]:
    found = _class(class_path)
    return [] if found is None else list(inspect.signature(found).parameters)


def _classes(typehint: Any) -> list[str]:
    """Name the classes that a type allows for, as far as they are loaded."""
    found: list[str] = []
    todo = [typehint, *get_args(typehint)]
    for part in todo:
        if isinstance(part, list):
            todo += part
        elif isinstance(part, str):  # a name that is taken in place of a class
            found.append(part)
        elif not isinstance(part, type):
            todo += [inner for inner in get_args(part) if inner not in todo]
        elif part.__module__ != "builtins" and not part.__module__.startswith(("collections", "typing")):
            found += [part.__name__]
            todo += part.__subclasses__()
    return list(dict.fromkeys(name for name in found if not name.startswith("_")))


def _classes_inside(details: str) -> list[str]:
    """The same for a setting of a class."""
    owner, key = re.search(r"given class_path '([\w.]+)'", details), re.search(r'Parser key "([^"]+)"', details)
    if owner is None or key is None or _class(owner[1]) is None:
        return []
    return _classes(get_type_hints(_class(owner[1]).__init__).get(key[1]))
