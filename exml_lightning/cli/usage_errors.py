"""A wrong command line, in one line: the word that no parser knows, and the closest one that it does."""

import difflib
import inspect
import json
import pydoc
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, takewhile
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentParser, Namespace

from exml_lightning.cli.config_names import config_files

PLAIN = ("builtins", "collections.abc", "datetime", "pathlib", "types", "typing")
"""Modules whose classes are written as values, not by their names."""
NONE = type(None)


def explain(parser: ArgumentParser, words: Sequence[str], message: str) -> str:
    """Say what is wrong with a command line that its parser refuses.

    The words are compared with the keys and the classes that the parser takes; the first that is not among them is
    named with the closest one. Where all are, what the parser says itself is said in one line.

    Args:
        parser: The parser.
        words: The command line.
        message: What the parser says.
    """
    # argparse has no public list of its options
    options = {option[2:]: action for action in parser._actions for option in action.option_strings}
    chosen = {
        key: action.default["class_path"]
        for key, action in options.items()
        if isinstance(action.default, dict | Namespace) and "class_path" in action.default
    }
    for file, settings in _settings(words):
        chosen |= dict(settings)  # a class that a later file chooses has settings of its own
        for key, value in settings:
            if wrong := _wrong(options, file, key, value, chosen):
                return wrong
    return _innermost(message)


def _innermost(message: str) -> str:
    """Put the part of an indented message that stands deepest on one line, and what leads to it."""
    lines = [(len(line) - len(line.lstrip()), line.strip()) for line in message.splitlines() if line.strip()]
    depth = max(own for own, _ in lines)
    first = next(i for i, (own, _) in enumerate(lines) if own == depth)
    said = [line for _, line in takewhile(lambda pair: pair[0] == depth, lines[first:])]
    for own, line in reversed(lines[:first]):
        if own < depth:
            said.insert(0, line)
            depth = own
    return " ".join(said)


def _settings(words: Sequence[str]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Yield the keys and values of each file with its name, then those of the options."""
    for path in config_files(words):
        yield str(path), [*_leaves(yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}, "")]
    options: list[tuple[str, Any]] = []
    for word, following in pairwise([*words, ""]):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            options += _leaves({name.replace(".init_args", ""): value if equals else following}, "")
    yield "", options


def _leaves(values: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield keys with dots, without ``init_args`` and ``class_path`` in them, and their values."""
    if not isinstance(values, dict):
        yield place, values
        return
    for key, value in values.items():
        inner = place if key in ("class_path", "init_args") else f"{place}.{key}".lstrip(".")
        yield from _leaves(value, inner.removesuffix(".class_path"))


def _parents(key: str) -> Iterator[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]


def _wrong(options: dict[str, Any], file: str, key: str, value: Any, chosen: dict[str, Any]) -> str | None:
    """Say what is wrong with a setting of a file, or of the command line, if anything is."""
    known = next((one for one in _parents(key) if one in options), "")
    rest = key[len(known) :].lstrip(".")
    hint = getattr(options.get(known), "_typehint", None)  # no public name: the type of an option
    if _classes(hint):
        return _wrong_class(hint, known, rest, value, chosen)
    shortened = not file and any(option.startswith(key) for option in options)
    if not rest or shortened:
        return None
    first = f"{known}.{rest.partition('.')[0]}".lstrip(".")
    close = _close_key(key, options)
    return f"{file}: no key {first}{_meant(close)}" if file else f"no option --{first}{_meant(close, '--')}"


def _wrong_class(hint: Any, place: str, rest: str, value: Any, chosen: dict[str, Any]) -> str | None:
    """Say which class, or which setting of a class, there is not."""
    classes, said = _classes(hint), json.dumps(value) if not isinstance(value, str) else value
    others = [word for part in get_args(hint) for word in get_args(part) if isinstance(word, str)]
    parts = get_args(hint)
    if not rest and (
        str in parts or (bool in parts and said in ("true", "false")) or (NONE in parts and said == "null")
    ):
        return None
    name = value if not rest else chosen.get(place, next(iter(classes)) if len(classes) == 1 else None)
    if not classes or not isinstance(name, str) or name in others or not all(map(str.isidentifier, name.split("."))):
        return None
    found: Any = classes.get(name) or pydoc.locate(name)
    if found is None and not rest:
        return f"{place}: no class {name}{_meant(_close(name.rpartition('.')[2], [*classes, *others]))}"
    if not rest or found is None:
        return None
    first, _, more = rest.partition(".")
    settings = inspect.signature(found).parameters
    if first not in settings and all(one.kind is not one.VAR_KEYWORD for one in settings.values()):
        return f"{place}: {name.rpartition('.')[2]} has no setting {first}{_meant(_close(first, settings))}"
    hints = get_type_hints(getattr(found, "__init__", found))
    return _wrong_class(hints.get(first), f"{place}.{first}", more, value, chosen)


def _classes(hint: Any) -> dict[str, type]:
    """Name the classes that a type allows for, as far as they are loaded."""
    found: dict[str, type] = {}
    todo = [hint]
    for part in todo:
        todo += part if isinstance(part, list) else [one for one in get_args(part) if not isinstance(one, str)]
        if inspect.isclass(part) and part.__module__ not in PLAIN:
            todo += [one for one in part.__subclasses__() if one not in todo]
            if not inspect.isabstract(part) and not part.__name__.startswith("_"):
                found.setdefault(part.__name__, part)
    return found


def _close_key(key: str, known: Iterable[str]) -> str | None:
    """Return the key that was likely meant: one at another level, else one written alike."""
    keys = [name for name in known if not name.endswith(".help")]
    last = {name.rpartition(".")[2]: name for name in reversed(keys)}
    name = key.rpartition(".")[2]
    return last.get(name) or _close(key, keys) or last.get(_close(name, last) or "")


def _close(word: str, known: Iterable[str]) -> str | None:
    names = {name.lower(): name for name in known}
    return names.get(next(iter(difflib.get_close_matches(word.lower(), names, n=1)), ""))


def _meant(close: str | None, before: str = "") -> str:
    return f"; did you mean {before}{close}?" if close else ""
