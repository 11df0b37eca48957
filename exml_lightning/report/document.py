"""All files of a report: `report.md`, the tables, the figures and their numbers, and the page."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import check_folder, read_bytes, write_text
from exml_lightning.report import buffer_size, over_time
from exml_lightning.report.figures import save_figure
from exml_lightning.report.page.page import NAME, build_page
from exml_lightning.report.pictures import Picture, draw_pictures
from exml_lightning.report.rows import Report, Row, shared, sort_runs
from exml_lightning.report.runs import find_runs
from exml_lightning.report.tables import (
    DIFFER,
    HEADINGS,
    NOTE,
    SAME,
    heading,
    notes,
    runs_csv,
    sections,
    table,
    tables_csv,
)
from exml_lightning.report.text import csv_text, escape, markdown, printable
from exml_lightning.terminal import is_quiet, print_rows

TITLE = "# Report of `exml report`"
_NOT_ALWAYS = re.compile(
    r"table_other\.(md|csv)|figure_[23]\.png|samples_[\w-]+\.png|buffer_size(\.md|\.csv|_[\w-]+\.png)|"
    r"accuracy_over_time(\.csv|_[\w-]+\.png)|report\.html",
    re.ASCII,
)
"""Files that one report has and another has not."""


def write_report(folders: Sequence[Path], output: Path, html: bool, command: str) -> None:
    """Read the runs in and below folders, write a report of them to `output`, and print its tables.

    `html` adds the page; `command` is told. What an earlier report there had and this has not is deleted. Raises
    `ExmlError` if a folder is missing or has no finished run, or a file cannot be written.
    """
    if output.exists() and not output.is_dir():
        raise ExmlError(f"{output} is a file: name a folder with --output DIR")
    check_folder(output, "output")
    runs, left_out = find_runs(folders)
    report = sort_runs(runs, left_out)
    pictures = draw_pictures(report, left_out)
    before = _files_of(output)
    texts = _tables(report) | _numbers(pictures)
    if html:
        texts[NAME] = build_page(report, pictures, left_out, command)
    for name, text in texts.items():
        write_text(output / name, text)
    for picture in pictures:
        save_figure(picture.figure, output / picture.file)
    files = [*texts, *(picture.file for picture in pictures)]
    parts = [f"{TITLE}\n\n{len(runs)} run{'' if len(runs) == 1 else 's'}; made by\n\n    {printable(command)}\n"]
    tables = [text for name, text in texts.items() if name.startswith("table_") and name.endswith(".md")]
    parts += [text.replace("\n## ", "\n### ").replace("# ", "## ", 1) for text in tables]
    parts += [_picture(picture) for picture in pictures]
    parts += ["## Left out\n\n" + "".join(f"- {escape(line)}\n" for line in left_out)] if left_out else []
    parts.append("## Files\n\n" + "".join(f"- [{name}]({name})\n" for name in files))
    write_text(output / "report.md", "\n".join(parts))
    for name in before - set(files):
        if (output / name).is_file():
            (output / name).unlink()
    for line in left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    if not is_quiet():
        _print(report, f"{printable(str(output))}: {', '.join([*files, 'report.md'])}")


def _files_of(folder: Path) -> set[str]:
    """Return the files that the report in a folder lists and another may not have; none if there is no report."""
    try:
        text = read_bytes(folder / "report.md").decode("utf-8", "replace")
    except ExmlError:
        return set()
    listed = re.findall(r"^- \[([\w.-]+)\]\(\1\)$", text, re.MULTILINE) if text.startswith(TITLE) else []
    return {name for name in listed if _NOT_ALWAYS.fullmatch(name)}


def _tables(report: Report) -> dict[str, str]:
    texts = {}
    for name, (title, scenarios) in sections(report).items():
        parts = [f"# {title}\n"]
        parts += [_table(scenario, report[scenario]) for scenario in scenarios if scenario in report]
        without = [scenario for scenario in scenarios if scenario not in report]
        parts += [NOTE + "\n"] if len(without) < len(scenarios) else []
        parts += [f"No runs of {', '.join(without)}.\n"] if without else []
        texts[f"{name}.md"] = "\n".join(parts)
        texts[f"{name}.csv"] = tables_csv(scenarios, report)
    return {**texts, "runs.csv": runs_csv(report)}


def _table(scenario: str, rows: list[Row]) -> str:
    body = markdown(HEADINGS, [line.cells for line in table(scenario, rows)])
    settings = shared(rows)
    below = notes(rows)
    below += [f"{DIFFER}: {'; '.join(settings.differ)}."] if settings.differ else []
    below += [f"{SAME}: {'; '.join(settings.same)}."] if settings.same else []
    parts = [f"## {escape(heading(rows))}\n", body, *(f"{escape(note)}\n" for note in below)]
    parts += ["".join(f"- {escape(line)}\n" for line in settings.own)] if settings.own else []
    return "\n".join(parts)


def _numbers(pictures: Sequence[Picture]) -> dict[str, str]:
    texts = {}
    curves = [picture for picture in pictures if picture.kind == "buffer"]
    if curves:
        parts = [f"## {escape(p.title)}\n\n{markdown(p.headings, p.rows)}" for p in curves]
        texts["buffer_size.md"] = "# Stream accuracy in % against buffer size\n\n" + "\n".join(parts)
        texts["buffer_size.csv"] = csv_text(buffer_size.HEADINGS, [line for p in curves for line in p.long_form])
    steps = [line for picture in pictures if picture.kind == "time" for line in picture.long_form]
    return {**texts, "accuracy_over_time.csv": csv_text(over_time.HEADINGS, steps)} if steps else texts


def _picture(picture: Picture) -> str:
    title = escape(picture.title)
    numbers = f"\n{markdown(picture.headings, picture.rows)}" if picture.kind == "buffer" else ""
    return f"## {title}\n\n{picture.text}\n{numbers}\n![{title}]({picture.file})\n"


def _print(report: Report, last: str) -> None:
    """Print the tables; a terminal of few letters gets a ? for the others."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    for scenario, rows in report.items():
        cells = [[printable(cell) for cell in (line.cells[0], *line.cells[2:])] for line in table(scenario, rows)]
        print_rows(printable(heading(rows)), (HEADINGS[0], *HEADINGS[2:]), cells)
        differ = shared(rows).differ
        below = [*notes(rows), *([f"{DIFFER}: {'; '.join(differ)}"] if differ else [])]
        print("".join(f"{printable(note)}\n" for note in below))
    print(last)
