"""`exml report`: tables and figures of many runs."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exml_lightning.report.agreement_run import AgreementRun

from exml_lightning.cli.parser import Parser, verb_parser

HELP = """\
Write the paper's tables and figures of runs, from the small files in their folders.

A RUN is a run folder of `exml fit` or `exml test`, or a folder with run folders anywhere below. Into the folder of
--output go report.md, table_2, table_3 and table_other (.md, .csv), runs.csv and, where there are runs for them,
figure_2.png and samples_*.png, figure_3.png and buffer_size_*.png, accuracy_over_time_*.png, and their numbers.
With --html also report.html, all of it on one page to look at. docs/report.md explains the marks.

  exml report runs
  exml report runs --html
  exml report runs/split_mnist runs/joint_mnist --output report
"""


def run_report(args: list[str]) -> None:
    """Run ``exml report``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right.
    """
    given = report_parser().parse_args(args)
    from exml_lightning.core.errors import ExmlError
    from exml_lightning.files import check_folder
    from exml_lightning.report.cells import build_columns
    from exml_lightning.report.document import write_report
    from exml_lightning.report.page.page import build_page
    from exml_lightning.report.runs import find_runs
    from exml_lightning.report.samples_figure import sample_figures
    from exml_lightning.report.terminal import print_report
    from exml_lightning.report.text import printable

    output = Path(given.output)
    if output.exists() and not output.is_dir():
        raise ExmlError(f"{output} is a file: name a folder with --output DIR")
    check_folder(output, "output")
    without: dict[str, AgreementRun] | None = {} if given.html else None
    runs, left_out = find_runs([Path(place) for place in given.runs], without)
    columns = build_columns(runs, left_out)
    samples, broken = sample_figures(columns)
    left_out += broken
    command = shlex.join(["exml", "report", *args])
    page = build_page(columns, list(without.values()), left_out, command) if without is not None else None
    left_out += [
        f"{run.folder} has agreement, no accuracy: it is in report.html alone" for run in (without or {}).values()
    ]
    for line in left_out:
        print(f"left out: {printable(line)}", file=sys.stderr)
    files = write_report(output, columns, samples, left_out, command, page)
    print_report(columns, output, files)


def report_parser() -> Parser:
    """Return the parser of ``exml report``."""
    parser = verb_parser("report", "RUN... [--output DIR] [--html]", HELP)
    parser.add_argument("runs", metavar="RUN", nargs="+", help="A run folder, or a folder with run folders below.")
    parser.add_argument(
        "--output", metavar="DIR", default="report", help="Folder to write to; files of an earlier report are replaced."
    )
    parser.add_argument(
        "--html",
        action="store_true",
        help="Also write report.html: one file that needs no network; runs without a data set are on it, too.",
    )
    return parser
