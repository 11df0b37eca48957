"""Meets the hostile files, and reads thousands of damaged ones."""

from pathlib import Path
from typing import Any

CASES = 3000


def run(folder: Path) -> dict[str, Any]:
    """Meet every file of the catalogue.

    Args:
        folder: A folder to work in.
    """
    from benchmarks.reliability.hostile_files import run as meet

    found = meet(folder)
    return {
        "tried": len(found),
        "refused": sum(refused for _, refused, _ in found),
        "messages": [[name, message.replace(f"{folder}/", "")] for name, _, message in found],
        "failures": [f"{name}: {message}" for name, refused, message in found if not refused],
    }


def run_fuzz(folder: Path, cases: int = CASES) -> dict[str, Any]:
    """Read damaged manifests, buffer files and statistics.

    Args:
        folder: Not needed.
        cases: How many of each.
    """
    from benchmarks.reliability.fuzz import fuzz_buffer_file, fuzz_manifest, fuzz_statistics

    result: dict[str, Any] = {"failures": []}
    kinds = {"manifest.yaml": fuzz_manifest, "buffer file": fuzz_buffer_file, "statistics": fuzz_statistics}
    for name, fuzz in kinds.items():
        print(f"{name}: {cases} cases", flush=True)
        try:
            result[name] = fuzz(cases)._asdict()
        except Exception as error:  # what a reader must not raise, or hypothesis's report of it
            result["failures"].append(f"{name}: {type(error).__name__} {error}")
    return result
