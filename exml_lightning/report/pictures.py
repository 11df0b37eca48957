"""All pictures of a report, as figures that a file or a page takes, with the numbers in them."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from exml_lightning.report import buffer_size, over_time, samples_figure
from exml_lightning.report.rows import Report, first_rows
from exml_lightning.report.styles import styles_of
from exml_lightning.report.text import file_name

KINDS = {"time": "Accuracy over time", "buffer": "Buffer size", "samples": "Samples"}


@dataclass(frozen=True)
class Picture:
    """A picture, of one of `KINDS`: its PNG file, its heading, what there is to know of it (`text`), and its figure.

    `headings` and `rows` are of the table of its numbers, if it has one; `long_form` are the same for a CSV file.
    """

    kind: str
    file: str
    title: str
    text: str
    figure: Figure
    headings: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    long_form: Sequence[Sequence[object]] = ()


def draw_pictures(report: Report, left_out: list[str]) -> list[Picture]:
    """Draw everything that there are runs for; `left_out` gets a line for each file that is broken."""
    styles = styles_of([row.strategy for rows in report.values() for row in rows])
    pictures = []
    for name, blocks in samples_figure.sample_blocks(report, left_out).items():
        start = "Figure 2. Original data and samples" if name == "figure_2.png" else "Samples"
        text = "Two images of each class; classes that one expert knows stand together."
        figure = samples_figure.draw(blocks)
        pictures.append(Picture("samples", name, f"{start}, {' and '.join(blocks)}", text, figure))
    for scenario, rows in report.items():
        curves = buffer_size.curves(rows)
        if curves:
            name = buffer_size.picture_name(scenario)
            start = "Figure 3. Stream" if name == "figure_3.png" else "Stream"
            text = "All points of a line are of the same runs, where there are such; in brackets how many."
            figure = buffer_size.draw(scenario, curves, styles)
            title = f"{start} accuracy against buffer size, {scenario}"
            long_form = buffer_size.long_form(scenario, curves)
            pictures.append(Picture("buffer", name, title, text, figure, *buffer_size.numbers(curves), long_form))
    for scenario, rows in report.items():
        learned = over_time.learned(rows)
        if learned:
            figure = over_time.draw(learned, [row for row in first_rows(rows) if row.is_baseline], styles)
            text = (
                "Mean over the runs of a strategy, those of its first row in the table, in bands of one standard "
                "deviation; baselines, which ask all experts at once, are dashed, as is the best of them that the runs "
                "themselves have measured (stored experts); chance is dotted."
            )
            name = f"accuracy_over_time_{file_name(scenario)}.png"
            title = f"Accuracy over time, {scenario}"
            numbers = over_time.numbers(learned)
            pictures.append(Picture("time", name, title, text, figure, *numbers, over_time.long_form(learned)))
    return pictures
