"""Brings docs/results.md up to date with the runs in docs/results/.

    python -m benchmarks.results [RUNS]

First copies the small files of the run folders below RUNS, if it is given, and `samples/` of run 0; then runs `exml
report docs/results --output docs/results/report` and puts its tables into the page, between ``<!-- FILE -->`` and
``<!-- end -->``. The words around them are written by hand.
"""

import re
import shutil
import sys
from pathlib import Path

from exml_lightning.cli.main import main as exml
from exml_lightning.files import write_text

PAGE = Path("docs/results.md")
FOLDER = Path("docs/results")
SMALL = ("config.yaml", "summary.json", "test.json", "accuracy_matrix.csv")
_BLOCK = re.compile(r"<!-- (?P<file>[\w./]+) -->\n.*?<!-- end -->", re.DOTALL)


def land(runs: Path, folder: Path) -> None:
    """Copy the small files of runs, and the samples of each run 0 of the shipped buffer size.

    Args:
        runs: Folder with run folders ``<scenario>/<strategy>/run<k>...``.
        folder: Where to copy them.
    """
    for config in sorted(runs.glob("*/*/run*/config.yaml")):
        target = folder / config.parent.relative_to(runs)
        target.mkdir(parents=True, exist_ok=True)
        for name in SMALL:
            if (config.parent / name).is_file():
                shutil.copyfile(config.parent / name, target / name)
        if config.parent.name == "run0" and (config.parent / "samples").is_dir():
            shutil.copytree(config.parent / "samples", target / "samples", dirs_exist_ok=True)


def render(page: str, folder: Path) -> str:
    """Put the newest tables into a page.

    Args:
        page: The page.
        folder: Where the tables are, Markdown files; a heading in their first line is left out, others go a level down.

    Returns:
        The page with what stands between the marks replaced.
    """

    def block(match: re.Match[str]) -> str:
        file = match["file"]
        text = re.sub(r"\A# .*\n+", "", (folder / file).read_text(encoding="utf-8"))
        text = re.sub("^## ", "### ", text, flags=re.MULTILINE)
        return f"<!-- {file} -->\n{text.strip()}\n<!-- end -->"

    return _BLOCK.sub(block, page)


def main() -> None:
    """Run the command line."""
    if sys.argv[1:]:
        land(Path(sys.argv[1]), FOLDER)
    exml(["report", str(FOLDER), "--output", str(FOLDER / "report")])
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8"), FOLDER))


if __name__ == "__main__":
    main()
