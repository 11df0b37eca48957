"""What README and docs/ tell their readers to type: commands, Python and YAML, in the order of each page."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
"""docs/results/ is written by `exml report`, docs/configuration.md by docs/hooks/reference.py."""

_INLINE = re.compile(r"`((?:exml|python -m|pip) [^`]* [^`]+)`")
PROGRAMS = (
    "exml",
    "python",
    "python3",
    "pip",
    "pytest",
    "ruff",
    "mypy",
    "mkdocs",
    "jupyter",
    "pre-commit",
    "srun",
    "sbatch",
    "ray",
    "tensorboard",
    "wandb",
)
WORDS = {"SCENARIO": "configs/split_cifar10.yaml", "E": "8", "K": "0", "DIR": "folder"}
"""What a reader puts in place of a word in capitals."""


@dataclass(frozen=True)
class Snippet:
    """A command, or a block of Python or YAML.

    Args:
        page: Its file.
        kind: ``command``, ``python`` or ``yaml``.
        text: What the page says; lines of a command that goes on are joined.
        file: The name that the page asks the reader to save it under, if it does.
    """

    page: str
    kind: str
    text: str
    file: str | None = None

    @property
    def words(self) -> list[str]:
        """The words of a command, with something in place of those in capitals."""
        return [WORDS.get(word, word) for word in shlex.split(self.text)]


def snippets(path: Path) -> list[Snippet]:
    """Return what a page asks its readers to type, in order.

    Args:
        path: The page.

    Returns:
        A snippet for each command of indented, unnamed and `bash` blocks, and for each block of Python and YAML.
    """
    page, found, prose = path.relative_to(ROOT).as_posix(), [], ""
    for language, block in _blocks(path.read_text()):
        if language in ("python", "yaml"):
            saved = re.search(r"save it\s+as\s+`([\w.]+)`:\s*$", prose)
            found.append(Snippet(page, language, block, saved[1] if saved else None))
        elif language in ("", "bash"):
            found += [Snippet(page, "command", command) for command in _commands(block)]
        prose = block if language == "prose" else ""
    return found


def inline(path: Path) -> list[Snippet]:
    """Return the commands within the text of a page, without those that leave something out, or only name a verb
    or the format of buffer files.

    Args:
        path: The page.

    Returns:
        Snippets of the kind ``command``.
    """
    prose = " ".join(block for language, block in _blocks(path.read_text()) if language == "prose")
    found = [Snippet(path.relative_to(ROOT).as_posix(), "command", text) for text in _INLINE.findall(prose)]
    left_out = re.compile(r"\.\.\.|--help|^exml buffer 1$|(?:^| )\[?[A-Z]+\]?(?: |$)")
    return [snippet for snippet in found if not left_out.search(shlex.join(snippet.words))]


def _blocks(text: str) -> list[tuple[str, str]]:
    """Cut a page into prose, fenced blocks (their language) and indented ones (no language)."""
    blocks: list[tuple[str, list[str]]] = [("prose", [])]
    fence = False
    for line in text.splitlines():
        opens = re.fullmatch(r"```(\w*)", line)
        if opens:
            blocks.append(("prose" if fence else opens[1], []))
            fence = not fence
            continue
        language, lines = blocks[-1]
        if not fence:
            indented = line.startswith("    ") and (language == "" or not lines or not lines[-1].strip())
            if indented != (language == "") and (indented or line.strip()):
                blocks.append(("" if indented else "prose", lines := []))
        lines.append(line)
    return [(language, "\n".join(lines)) for language, lines in blocks]


def _commands(block: str) -> list[str]:
    """Return the commands of a block of a shell, without comments."""
    found = []
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        for part in re.split(r" && |; ", line):
            words = [*takewhile(lambda word: word != ">", _split(part))]
            if words and words[0] in PROGRAMS:
                found.append(shlex.join(words[1:] if words[0] == "srun" and "exml" in words[1:2] else words))
    return found


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # prose with an apostrophe, a table
        return []
