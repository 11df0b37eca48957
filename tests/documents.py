"""What README and docs/ tell their readers to type: commands, Python and YAML, in the order of each page."""

import re
import shlex
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from markdown_it import MarkdownIt  # rich is built on it

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
"""docs/results/ is written by `exml report`, docs/configuration.md by docs/hooks/reference.py."""
PROGRAMS = (
    *("exml", "python", "python3", "pip", "pytest", "ruff", "mypy", "mkdocs", "jupyter", "pre-commit"),
    *("srun", "sbatch", "ray", "tensorboard", "wandb"),
)
WORDS = {"SCENARIO": "configs/split_cifar10.yaml", "E": "8", "K": "0", "DIR": "folder"}
"""What a reader puts in place of a word in capitals."""
_NO_COMMAND = re.compile(r"\.\.\.|--help|^exml buffer 1$|(?:^| )\[?[A-Z]+\]?(?: |$)")
"""Leaves something out, or only names a verb or the format of buffer files."""


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
    for token in MarkdownIt().parse(path.read_text()):
        if token.type in ("fence", "code_block"):
            if token.info in ("python", "yaml"):
                saved = re.search(r"save it\s+as\s+`([\w.]+)`:$", prose)
                found.append(Snippet(page, token.info, token.content, saved[1] if saved else None))
            elif token.info in ("", "bash"):
                found += [Snippet(page, "command", command) for command in _commands(token.content)]
        prose = token.content or prose
    return found


def inline(path: Path) -> list[Snippet]:
    """Return the commands within the text of a page, without those that leave something out.

    Args:
        path: The page.

    Returns:
        Snippets of the kind ``command``.
    """
    page = path.relative_to(ROOT).as_posix()
    spans = [span for token in MarkdownIt().parse(path.read_text()) for span in token.children or ()]
    texts = [span.content for span in spans if span.type == "code_inline"]
    found = [Snippet(page, "command", text) for text in texts if re.match(r"(exml|python -m|pip) .* .", text)]
    return [snippet for snippet in found if not _NO_COMMAND.search(shlex.join(snippet.words))]


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
