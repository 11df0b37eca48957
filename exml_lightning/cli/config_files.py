"""The files given by ``-c``: what is wrong with them is said within a second, before anything heavy is imported."""

import difflib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

GROUPS = ("data", "model", "buffer", "experts", "privacy", "trainer", "checkpoint", "generate")
"""Of the settings of `exml fit`: each holds keys."""
MUST = "it must hold keys, such as `data: {run_id: 0}`"


def config_files(words: Sequence[str]) -> Iterator[Path]:
    """Name the files given by ``-c`` or ``--config``.

    Args:
        words: The command line.
    """
    for word, following in pairwise([*words, ""]):
        if word in ("-c", "--config") and following and not following.startswith("-"):
            yield Path(following)
        elif word.startswith("--config="):
            yield Path(word.partition("=")[2])


def wrong_file(words: Sequence[str]) -> str | None:
    """Say what is wrong with the files of a command line, if anything is.

    Args:
        words: The command line.

    Returns:
        One line; None if all are mappings of YAML, or pipes, which can be read only once.
    """
    said = (_wrong(path) for path in config_files(words))
    return next((line for line in said if line is not None), None)


def _wrong(path: Path) -> str | None:
    if not path.exists():
        return f"no file {path}{_meant(path)}"
    if path.is_dir():
        example = next(iter(sorted(path.glob("*.yaml"))), path / "FILE.yaml")
        return f"{path} is a folder: name a file in it, for instance {example}"
    if not path.is_file():
        return None
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


def _meant(path: Path) -> str:
    """Name a file with nearly that name, in the same folder or anywhere below configs/."""
    if path.parts[0] == "configs" and not Path("configs").exists():
        return "; configs/ is in the clone of the repository: give its path, or go there"
    for folder, pattern in ((path.parent, "*"), (Path("configs"), "**/*.yaml")):
        files = {file.stem: file for file in sorted(folder.glob(pattern), reverse=True) if file.is_file()}
        close = difflib.get_close_matches(path.stem, files, n=1)
        if close:
            return f"; did you mean {files[close[0]]}?"
    return ""
