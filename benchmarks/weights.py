"""Hashes of what each strategy learns on split_digits, which a change that changes nothing must leave as they are.

    python -m benchmarks.weights [--output FILE.json] [--compare FILE.json]

On one machine, one thread: other processors round differently.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STRATEGIES = ("model_inversion", "data_impression", "auxiliary", "noise", "replay", "precomputed", "best")
TIMES = ("seconds_generating", "seconds_distilling", "peak_memory_mb")
"""What differs between two runs of one program."""


def run(words: list[str]) -> None:
    """Run `exml` on the CPU with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "exml_lightning", *words], cwd=ROOT, env=environment, check=True)


def measure(strategy: str, folder: Path) -> dict[str, object]:
    """Fit split_digits by a strategy, and return the hash of the weights and the figures of ``summary.json``.

    Args:
        strategy: Name of its file.
        folder: A folder to work in.
    """
    scenario = ["-c", "configs/split_digits.yaml"]
    stacked = [*scenario, "-c", f"configs/strategies/{strategy}.yaml", "-c", "configs/trainer/cpu.yaml"]
    own, images = [], str(folder / "generated")
    if strategy == "precomputed":
        own = ["--buffer.generator.folder", images]
        made = ["--strategy", "model_inversion", "--generate.folder", images]
        run(["generate", "--quiet", *scenario, *made, "--buffer.cache", "null"])
    place = folder / strategy
    run(["fit", "--quiet", *stacked, *own, "--trainer.default_root_dir", str(place), "--buffer.cache", "null"])
    summary = json.loads((place / "summary.json").read_text())
    figures = {name: value for name, value in summary.items() if isinstance(value, float | list) and name not in TIMES}
    digest = hashlib.sha256((place / "ex_model" / "expert_0.safetensors").read_bytes()).hexdigest()
    return {"sha256": digest, **figures}


def main() -> None:
    """Measure, write or compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.weights", description=__doc__.partition("\n")[0])
    parser.add_argument("--strategies", nargs="+", default=STRATEGIES, choices=STRATEGIES, metavar="STRATEGY")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write hashes and figures as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="one that was written by --output")
    given = parser.parse_args()
    known = json.loads(given.compare.read_text()) if given.compare else {}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for strategy in given.strategies:
            found[strategy] = measure(strategy, Path(folder))
            same = "" if strategy not in known else "  same" if found[strategy] == known[strategy] else "  DIFFERENT"
            print(f"{strategy:<18}{found[strategy]['sha256']}{same}", flush=True)
            if given.output:
                given.output.write_text(json.dumps(found, indent=1) + "\n")
    if any(found[name] != known[name] for name in found if name in known):
        raise SystemExit("weights or figures have changed")


if __name__ == "__main__":
    main()
