"""The files given by ``-c``: paths, or names of what is in `configs/`, of the working directory or shipped."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from exml_lightning.shipped import CONFIGS

SWEEPS = "configs/sweeps/"
SUFFIXES = (".yaml", ".yml")


def config_words(words: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Tell the values of ``-c FILE``, ``-c=FILE``, ``-cFILE`` and ``--config`` from all other words.

    Args:
        words: The command line; ``--config`` may be shortened, as argparse allows.

    Yields:
        Whether it is what ``-c`` gives, and the word.
    """
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option == "-c" or (len(option) > len("--c") and "--config".startswith(option)):
            if equals:
                yield True, value
            elif rest and not rest[0].startswith("-"):
                yield True, rest.pop(0)
            else:
                yield False, word
        elif word.startswith("-c"):
            yield True, word.removeprefix("-c")
        else:
            yield False, word


def config_files(words: Sequence[str]) -> list[Path]:
    """Return the files given by ``-c`` or ``--config``, as they are given (`with_paths`)."""
    return [Path(word) for given, word in config_words(words) if given]


def with_paths(words: Sequence[str], sweep: bool = False) -> list[str]:
    """Write ``-c NAME`` as ``-c PATH`` throughout a command line.

    Args:
        words: The command line.
        sweep: Whether it is that of `exml sweep`.

    Returns:
        The words, with each file as ``-c PATH``. What is no name, or that of several files, stays.
    """
    made: list[str] = []
    for given, word in config_words(words):
        found = [*find_configs(word, sweep).values()] if given else []
        made += ["-c", str(found[0]) if len(found) == 1 else word] if given else [word]
    return made


def find_configs(word: str, sweep: bool = False) -> dict[str, Path]:
    """Find what a word after ``-c`` means.

    It is the path of a file; or a path below `configs/`, with or without that word and without an ending; or a name
    without an ending, of a file anywhere below `configs/`. A folder of that name is none of these.

    Args:
        word: What follows ``-c``.
        sweep: Whether a name is that of a sweep; else it is anything but a sweep.

    Returns:
        The files, by the names that tell them apart: none, one, or several for a name that is not clear.
    """
    path = Path(word)
    if path.exists() and not path.is_dir():
        return {word: path}
    known = known_configs()
    if len(path.parts) > 1:
        name = f"configs/{word.removeprefix('configs/').removesuffix('.yaml')}.yaml"
        return {name: known[name]} if name in known else {}
    if path.suffix in SUFFIXES:  # a file that should be in the working directory
        return {}
    found = {name: file for name, file in of_verb(known, sweep).items() if file.stem == word}
    own = Path(f"{word}.yaml")
    return {str(own): own, **found} if found and own.is_file() else found


def known_configs() -> dict[str, Path]:
    """Return all files in `configs/` by ``configs/FOLDER/NAME.yaml``; those of the working directory come first."""
    return {
        f"configs/{file.relative_to(place).as_posix()}": file
        for place in (CONFIGS, Path("configs"))
        for pattern in ("*.yaml", "*/*.yaml")
        for file in sorted(place.glob(pattern))
    }


def name_of(file: Path) -> str:
    """Name a file as it can be given by ``-c``: one that ships by its place in `configs/`, wherever that is."""
    return next((name for name, known in known_configs().items() if known == file), str(file))


def of_verb(known: dict[str, Path], sweep: bool) -> dict[str, Path]:
    """Leave those that are sweeps, or those that are not."""
    return {name: file for name, file in known.items() if name.startswith(SWEEPS) == sweep}
