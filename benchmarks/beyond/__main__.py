"""Learns by each row of the ablation and writes a table; goes on where it was stopped.

    python -m benchmarks.beyond [ROW ...] [--scenario split_mnist] [--run 3] [--root data] [-- OPTION ...]

Needs the experts of the run (`exml experts -c configs/split_mnist.yaml --data.root data --data.run_id 3`). What follows
`--` is given to `exml` as well. Choose settings by runs other than those that are reported.
"""

import argparse
import hashlib
import json
import shlex
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.beyond.rows import ROWS
from exml_lightning.cli.main import main as exml
from exml_lightning.files import write_text

RESULTS = Path("docs/ablation.json")
BASELINES = ("min_entropy", "concat", "ensemble_average", "parameter_average")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beyond", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join([*BASELINES, *ROWS]))
    parser.add_argument("--scenario", default="split_mnist")
    parser.add_argument("--run", type=int, default=3)
    parser.add_argument("--root", default="data", help="Folder of the data sets.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    words = [*sys.argv[1:], "--"]
    own = words.index("--")
    given, more = parser.parse_args(words[:own]), words[own + 1 : -1]
    unknown = set(given.rows) - {*BASELINES, *ROWS}
    if unknown:
        parser.error(f"no row {' '.join(sorted(unknown))}: {', '.join([*BASELINES, *ROWS])}")
    results = json.loads(given.results.read_text()) if given.results.is_file() else {}
    for name in given.rows or [*BASELINES, *ROWS]:
        verb, options = command(name, given.scenario, given.run)
        options += more
        line = shlex.join(["exml", verb, *options])
        files = _digest(options)
        known = results.get(name, {})
        if not given.rows and (known.get("command"), known.get("files")) == (line, files):
            continue
        with tempfile.TemporaryDirectory() as folder:
            places = ["--data.root", given.root, "--trainer.default_root_dir", folder, "--buffer.cache", "null"]
            exml([verb, *options, *places, "--trainer.enable_progress_bar", "false"])
            file = Path(folder, "summary.json" if verb == "fit" else "test.json")
            measured: dict[str, Any] = json.loads(file.read_text())
        results[name] = {
            "command": line,
            "files": files,
            "stream_accuracy": 100 * measured["stream_accuracy"],
            "seconds": measured.get("seconds_generating", 0) + measured.get("seconds_distilling", 0),
        }
        write_text(given.results, json.dumps(results, indent=2) + "\n")
        write_text(given.results.with_suffix(".md"), table(results))
        figure(results, given.scenario, given.run).savefig(given.results.with_suffix(".png"), dpi=110)
    print(table(results))


def _digest(options: list[str]) -> str:
    """Return a digest of the files given by ``-c``: the same command means something else where they change."""
    files = [Path(value) for option, value in pairwise(options) if option == "-c"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def command(name: str, scenario: str, run: int) -> tuple[str, list[str]]:
    """Return the verb and the options of a row.

    Args:
        name: Of the row, or of a baseline.
        scenario: Name of the scenario.
        run: Its run.
    """
    files = ["-c", f"configs/{scenario}.yaml"]
    place = ["--data.run_id", str(run)]
    if name in BASELINES:
        return "test", [*files, "-c", f"configs/baselines/{name}.yaml", *place]
    return "fit", [*files, "-c", "configs/strategies/best.yaml", *place, *ROWS[name].options]


def table(results: dict[str, Any]) -> str:
    """Render the results as Markdown.

    Args:
        results: Of each row, as `main` writes them.
    """
    lines = ["| what | stream accuracy | seconds | row |", "|---|---|---|---|"]
    for name in [*BASELINES, *ROWS]:
        if name in results:
            what = ROWS[name].what if name in ROWS else f"{name} of the stored experts"
            measured = results[name]
            lines.append(f"| {what} | {measured['stream_accuracy']:.1f} | {measured['seconds']:.0f} | `{name}` |")
    return "\n".join(lines) + "\n"


def figure(results: dict[str, Any], scenario: str, run: int) -> Figure:
    """Draw the results as bars, the stored experts as lines.

    Args:
        results: Of each row, as `main` writes them.
        scenario: Name of the scenario.
        run: Its run.
    """
    rows = [name for name in reversed(ROWS) if name in results]
    figure = Figure(figsize=(8, 0.6 + 0.32 * (len(rows) + 2)), layout="constrained")
    axes = figure.subplots()
    values = [results[name]["stream_accuracy"] for name in rows]
    bars = axes.barh(rows, values, color="#56b4e9")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    for name, colour in zip(BASELINES, ("#9467bd", "#17becf", "#d62728", "#7f7f00"), strict=False):
        if name in results:
            axes.axvline(
                results[name]["stream_accuracy"], color=colour, linestyle="--", label=f"{name}, stored experts"
            )
    axes.set(xlim=(0, 100), xlabel=f"stream accuracy in %, {scenario} run {run}")
    if any(name in results for name in BASELINES):
        figure.legend(loc="outside upper center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    main()
