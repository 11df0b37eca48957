"""`python -m benchmarks.performance [PART ...]` measures and writes docs/performance.json and docs/performance.md.

A part is `run(device, folder, quick)`. It returns its ``tables``, rows by title; a row is a value by column, where a
value may be the ``median``, ``min`` and ``max`` of rounds. With ``finished: false`` it has more to do when it is called
again, and ``note`` is a line about it.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.performance import generation, overhead, paper_scale, scaling, startup
from benchmarks.performance.document import render
from benchmarks.performance.figures import save_scaling
from benchmarks.performance.workload import ROOT
from exml_lightning.cli.memory import keep_freed_memory

RESULTS = ROOT / "docs" / "performance.json"
Part = Callable[..., dict[str, Any]]


PARTS: dict[str, Part] = {
    "overhead": overhead.run,
    "generation": generation.run,
    "scaling_buffer": partial(scaling.run, name="buffer size"),
    "scaling_experts": partial(scaling.run, name="experts"),
    "scaling_classes": partial(scaling.run, name="classes"),
    "scaling_images": partial(scaling.run, name="image size"),
    "startup": startup.run,
    "paper_scale": paper_scale.run,
}
ON_GPU = ("paper_scale",)


def main(words: list[str] | None = None) -> None:
    """Run the parts asked for, one after the other; each result is saved at once.

    Args:
        words: The command line; default that of this process.
    """
    parser = _parser()
    asked = parser.parse_args(words)
    if not asked.results.parent.is_dir():
        parser.error(f"--results {asked.results}: there is no folder {asked.results.parent}; make it first")
    unknown = [part for part in asked.parts if part not in PARTS and part != "scaling"]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; parts: {', '.join(PARTS)}, or scaling for all of its four")
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU: torch.cuda.is_available() is false")
    if asked.quick and asked.results == RESULTS:
        parser.error(f"--quick measures nothing: keep it out of {RESULTS.name} with --results FILE")
    parts = [name for name in PARTS if not asked.parts or name in asked.parts or name.split("_")[0] in asked.parts]
    if asked.device == "cpu":
        if set(asked.parts) & set(ON_GPU):
            parser.error(f"{', '.join(ON_GPU)} would take days without a GPU: give --device cuda")
        parts = [name for name in parts if name not in ON_GPU]
    if asked.threads:
        os.environ["OMP_NUM_THREADS"] = str(asked.threads)  # of the processes that are started
        torch.set_num_threads(asked.threads)
    keep_freed_memory()  # as the command line does
    try:
        results = json.loads(asked.results.read_text(encoding="utf-8")) if asked.results.is_file() else {}
    except ValueError:
        parser.error(f"{asked.results} is damaged: delete it, or name another one with --results FILE")
    device = torch.device("cuda", 0) if asked.device == "cuda" else torch.device("cpu")
    measured = results.setdefault(torch.cuda.get_device_name(device) if asked.device == "cuda" else "cpu", {})
    end = time.monotonic() + (asked.limit or float("inf"))
    for name in parts:
        if asked.missing and name in measured and measured[name]["result"].get("finished", True):
            print(f"{name}: measured already", flush=True)
            continue
        left = end - time.monotonic()
        if left <= 0:
            print(f"{name}: no time left; go on with --missing", flush=True)
            continue
        print(f"{name}:", flush=True)
        start = time.monotonic()
        run = partial(PARTS[name], limit=left) if name == "paper_scale" and asked.limit else PARTS[name]
        with tempfile.TemporaryDirectory(prefix="exml_performance_") as folder:
            result = run(device, Path(folder), asked.quick)
        if asked.quick:
            result["note"] = " ".join(["Made by --quick: a handful of steps, no measurement.", result.get("note", "")])
        measured[name] = {"result": result, "about": _about(time.monotonic() - start)}
        asked.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {verdict(result)}", flush=True)
    save_scaling(results, asked.results)
    document = asked.results.with_suffix(".md")
    document.write_text(render(results, asked.results.stem), encoding="utf-8")
    print(f"written: {asked.results} and {document}")


def _parser() -> argparse.ArgumentParser:
    what = "Measures how close the package is to the bare arithmetic, and writes docs/performance.json and .md."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance", description=what)
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}, or scaling for all four of it; default all"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to measure; default cpu")
    parser.add_argument("--missing", action="store_true", help="leave out the parts that were measured")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE", help=f"default docs/{RESULTS.name}")
    parser.add_argument("--threads", type=_count, metavar="N", help="threads of the CPU; default torch's")
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS", help="begin no part later, and stop paper_scale then (540 by default)"
    )
    parser.add_argument("--quick", action="store_true", help="a handful of steps, to see whether it works")
    return parser


def _count(word: str) -> int:
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word} is no number of threads: give 1 or more")
    return int(word)


def verdict(result: dict[str, Any]) -> str:
    """Say in a line how many goals were met."""
    goals = [row["met"] for rows in result["tables"].values() for row in rows if row.get("met") is not None]
    more = "" if result.get("finished", True) else "; more to do: go on with --missing"
    note = f"; {result['note']}" if "note" in result else ""
    return f"{sum(goals)} of {len(goals)} goals met{more}{note}"


def _about(seconds: float) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("lightning", "torch")},
    }


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning makes the one of the other
        if not isinstance(stop, KeyboardInterrupt) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        print("stopped; go on with --missing", file=sys.stderr)
        raise SystemExit(130) from None
