"""`python -m benchmarks.reliability [PART ...]` measures and writes docs/reliability.json and docs/reliability.md."""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.reliability import disks, files, kills, processes, stream
from benchmarks.reliability.document import render
from benchmarks.reliability.jobs import ROOT

PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "kills": kills.run,
    "random": kills.run_random,
    "disks": disks.run,
    "files": files.run,
    "fuzz": files.run_fuzz,
    "stream": stream.run,
    "processes": processes.run,
}
RESULTS = ROOT / "docs" / "reliability.json"
DOCUMENT = ROOT / "docs" / "reliability.md"


def main() -> None:
    """Run the parts asked for, one after the other; each result is saved at once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default all")
    parser.add_argument("--missing", action="store_true", help=f"leave out the parts that {RESULTS.name} has")
    chosen = parser.parse_args()
    unknown = [part for part in chosen.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; parts: {', '.join(PARTS)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that are started
    torch.set_num_threads(1)
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for part in chosen.parts or PARTS:
        if chosen.missing and part in results:
            continue
        print(f"{part}:", flush=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="exml_reliability_") as folder:
            result = PARTS[part](Path(folder))
        results[part] = {"result": result, "about": _about(time.monotonic() - start)}
        RESULTS.write_text(json.dumps(results, indent=1).replace(f"{ROOT}/", "") + "\n", encoding="utf-8")
        failures = result["failures"]
        print(f"{part}: {len(failures)} promises not kept{': ' if failures else ''}{'; '.join(failures)}", flush=True)
    DOCUMENT.write_text(render(results), encoding="utf-8")
    print(f"written: {RESULTS} and {DOCUMENT}")


def _about(seconds: float) -> dict[str, Any]:
    packages = {name: version(name) for name in ("exml-lightning", "lightning", "torch", "safetensors")}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **packages,
    }


if __name__ == "__main__":
    main()
