"""All files of a report: `report.md`, the tables, the figures and their numbers."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import write_text
from exml_lightning.report.buffer_size import (
    IN_THE_PAPER,
    buffer_size_csv,
    buffer_size_markdown,
    figure_name,
    save_buffer_size,
    with_sizes,
)
from exml_lightning.report.captions import captions
from exml_lightning.report.cells import Column
from exml_lightning.report.over_time import learned, over_time_csv, picture_name, save_over_time
from exml_lightning.report.page.page import NAME
from exml_lightning.report.sample_blocks import Block
from exml_lightning.report.samples_figure import save_sample_figure
from exml_lightning.report.small_files import read_text
from exml_lightning.report.styles import styles_of
from exml_lightning.report.tables import layouts, make_table, runs_csv, table_csv
from exml_lightning.report.text import escape, printable

TITLE = "# Report of `exml report`"
_NOT_ALWAYS = re.compile(
    r"table_other\.(md|csv)|figure_[23]\.png|samples_[\w-]+\.png|buffer_size(\.md|\.csv|_[\w-]+\.png)|"
    r"accuracy_over_time(\.csv|_[\w-]+\.png)|report\.html",
    re.ASCII,
)
"""Files that one report has and another has not."""
_WHAT = {
    "figure_2.png": "Figure 2. Original data and samples, joint and split MNIST",
    "figure_3.png": "Figure 3. Stream accuracy against buffer size, mt_cifar10",
}


@dataclass
class _Report:
    """What was written so far, and what `report.md` says."""

    folder: Path
    parts: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def write(self, name: str, text: str) -> None:
        write_text(self.folder / name, text)
        self.files.append(name)

    def figure(self, name: str, heading: str, text: str) -> None:
        self.files.append(name)
        heading = escape(heading)
        self.parts.append(f"## {heading}\n\n{text}\n\n![{heading}]({name})\n")


def write_report(
    folder: Path,
    columns: dict[str, Column],
    samples: dict[str, dict[str, Block]],
    left_out: Sequence[str],
    command: str,
    page: str | None = None,
) -> list[str]:
    """Write a report; what an earlier one had and this one has not is deleted.

    Args:
        folder: Where to.
        columns: All cells, by scenario.
        samples: What pictures of samples show of each scenario, by their names.
        left_out: A line for each run and each picture that was left out.
        command: The command line, to be told.
        page: The text of `report.html`, if there is to be one.

    Returns:
        Names of the files.

    Raises:
        ExmlError: If a file cannot be written.
    """
    before = _files_of(folder)
    report = _Report(folder)
    _tables(report, columns)
    _samples(report, samples)
    _figures(report, columns)
    report.write("runs.csv", runs_csv(columns))
    if page is not None:
        report.write(NAME, page)
    count = sum(len(group.runs) for column in columns.values() for c in column.cells.values() for group in c.groups)
    missing = "".join(f"- {escape(line)}\n" for line in left_out)
    listed = "".join(f"- [{name}]({name})\n" for name in report.files)
    parts = [
        f"{TITLE}\n\n{count} run{'' if count == 1 else 's'}; made by\n\n    {printable(command)}\n",
        *report.parts,
        *([f"## Left out\n\n{missing}"] if missing else []),
        f"## Files\n\n{listed}",
    ]
    report.write("report.md", "\n".join(parts))
    for name in before - set(report.files):
        if (folder / name).is_file():
            (folder / name).unlink()
    return report.files


def _files_of(folder: Path) -> set[str]:
    """Return the files that the report in a folder lists and another may not have; none if there is no report."""
    try:
        text = read_text(folder / "report.md")
    except ExmlError:
        return set()
    listed = re.findall(r"^- \[([\w.-]+)\]\(\1\)$", text, re.MULTILINE) if text.startswith(TITLE) else []
    return {name for name in listed if _NOT_ALWAYS.fullmatch(name)}


def _tables(report: _Report, columns: dict[str, Column]) -> None:
    for layout in layouts(columns):
        below = captions(layout, columns)
        body = make_table(layout, columns).markdown() + (f"\n{below}" if below else "")
        report.parts.append(f"## {layout.title}\n\n{body}")
        report.write(f"{layout.name}.md", f"# {layout.title}\n\n{body}")
        report.write(f"{layout.name}.csv", table_csv(layout, columns))


def _samples(report: _Report, pictures: dict[str, dict[str, Block]]) -> None:
    for name, blocks in pictures.items():
        save_sample_figure(report.folder / name, blocks)
        report.figure(
            name,
            _WHAT.get(name, f"Samples, {' and '.join(blocks)}"),
            "Two images of each class, of the run that is named; classes that one expert knows stand together.",
        )


def _figures(report: _Report, columns: dict[str, Column]) -> None:
    styles = styles_of([strategy for column in columns.values() for strategy in column.cells])
    sizes = with_sizes(columns)
    texts = []
    for scenario in sorted(sizes, key=lambda scenario: (scenario != IN_THE_PAPER, scenario)):
        name, lines = figure_name(scenario), sizes[scenario]
        save_buffer_size(report.folder / name, scenario, lines, styles)
        text = buffer_size_markdown(lines, columns[scenario])
        texts.append(f"## {escape(scenario)}\n\n{text}")
        report.figure(name, _WHAT.get(name, f"Stream accuracy against buffer size, {scenario}"), text)
    if sizes:
        report.write("buffer_size.md", "# Stream accuracy in % against buffer size\n\n" + "\n".join(texts))
        report.write("buffer_size.csv", buffer_size_csv(columns))
    streams = [column for column in columns.values() if learned(column)]
    for column in streams:
        name = picture_name(column.scenario)
        save_over_time(report.folder / name, column, styles)
        report.figure(
            name,
            f"Accuracy over time, {column.scenario}",
            "Mean over the runs of the first line of each cell, in bands of one standard deviation; baselines, which "
            "ask all experts at once, are dashed.",
        )
    if streams:
        report.write("accuracy_over_time.csv", over_time_csv(columns))
