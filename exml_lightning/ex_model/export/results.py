"""What a run has measured of its ex-model, for the model card."""

import csv
from dataclasses import dataclass
from pathlib import Path

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.experts import Manifest
from exml_lightning.report.small_files import broken, has_file, is_fraction, read_json, read_text

FIGURES = {
    "accuracy": ("stream_accuracy", "average_accuracy", "forgetting"),
    "agreement": ("agreement", "forgetting"),
}
MOST_COLUMNS = 20


@dataclass(frozen=True)
class Results:
    """Accuracy on a test stream, or agreement with the experts where there was no data set.

    Args:
        kind: ``accuracy`` or ``agreement``.
        figures: Those of ``summary.json``, fractions; forgetting may be negative.
        headings: Of the columns of the matrix.
        rows: Its cells in %, a row for each experience; empty for a matrix with too many columns.
    """

    kind: str
    figures: dict[str, float]
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def read_results(folder: Path, manifest: Manifest) -> Results | None:
    """Read the results of the run that an ex-model is in.

    Args:
        folder: The ex-model's folder.
        manifest: Its manifest, with the ex-model alone.

    Returns:
        The results; None where the folder is not of a run, or the run was cut short of them.

    Raises:
        ExmlError: If the files are broken, or the run has gone on since it wrote the ex-model.
    """
    run = folder.parent
    if folder.name != "ex_model" or not has_file(run / "summary.json"):
        return None
    summary = read_json(run / "summary.json")
    skipped = summary.get("experiences_skipped")
    done = summary.get("experiences_learned"), len(skipped) if isinstance(skipped, list) else 0
    asked = manifest.experts[0].training.get("experts")
    if not isinstance(done[0], int) or done[0] + done[1] != asked:
        raise ExmlError(
            f"{run / 'summary.json'} is of {done[0]} experts, but {folder} of {asked}: the run was stopped since it "
            "wrote that, so finish it by its command first"
        )
    kind = "accuracy" if "stream_accuracy" in summary else "agreement"
    figures = {name: summary[name] for name in FIGURES[kind] if _is_figure(name, summary.get(name))}
    headings, rows = _matrix(run / f"{kind}_matrix.csv")
    return Results(kind, figures, headings, rows)


def _is_figure(name: str, value: object) -> bool:
    return is_fraction(-value if name == "forgetting" and isinstance(value, float) and value < 0 else value)


def _matrix(path: Path) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    try:
        heading, *lines = csv.reader(read_text(path).splitlines())
        named = [f"expert {int(name) + 1}" for name in heading[1:-1]]
        names = ("learned", *named, "whole stream" if heading[-1] == "stream" else "mean")
        rows = tuple(
            (f"expert {int(line[0]) + 1}", *(f"{100 * float(cell):.1f}" if cell else "" for cell in line[1:]))
            for line in lines
        )
    except (ValueError, IndexError, csv.Error) as error:
        raise broken(path, one_line(error)) from error
    return names, rows if len(names) <= MOST_COLUMNS and all(len(row) == len(names) for row in rows) else ()
