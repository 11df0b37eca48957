"""Trains the variants, measures the baselines of each and writes a table; goes on where it was stopped.

    python -m benchmarks.expert_variants [VARIANT ...] [--root data] [--results docs/results/expert_variants.json]

Takes half an hour on one thread, and needs MNIST, `checkpoints/split_mnist/run0` and `checkpoints/joint_mnist/run0`
(`exml experts -c configs/split_mnist.yaml --data.root data`, the same with joint_mnist).
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.expert_variants.variants import PIXELS, VARIANTS, PixelMNIST, Variant
from exml_lightning.cli.main import main as exml
from exml_lightning.experts import read_manifest, write_manifest
from exml_lightning.files import write_text
from exml_lightning.scenarios.runs import class_order

RUN = 0
PAPER = {
    "joint": 93.71,
    "oracle": 99.42,
    "ensemble_average": 33.40,
    "min_entropy": 39.41,
    "parameter_average": 20.11,
    "auxiliary": 35.48,
}
"""Table 2, MNIST: the expert of the joint scenario, then baselines and auxiliary data of NC, in %."""
NAMES = ("joint expert", "Oracle", "Ensemble Avg.", "Min Entropy", "Param. Avg.", "Aux. Data ED, from scratch")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.expert_variants", description=__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--root", default="data", help="Folder of the data sets.")
    parser.add_argument("--results", type=Path, default=Path("docs/results/expert_variants.json"))
    given = parser.parse_args()
    unknown = set(given.variants) - set(VARIANTS)
    if unknown:
        parser.error(f"no variant {' '.join(sorted(unknown))}: {', '.join(VARIANTS)}")
    results = json.loads(given.results.read_text()) if given.results.is_file() else {}
    for name in given.variants or VARIANTS:
        if name in results and not given.variants:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = measure(VARIANTS[name], given.root, Path(scratch))
        write_text(given.results, json.dumps(results, indent=2) + "\n")
        write_text(given.results.with_suffix(".md"), table(results))
    print(table(results))


def measure(variant: Variant, root: str, folder: Path) -> dict[str, Any]:
    """Train the experts of a variant and measure what they can do alone and together.

    Args:
        variant: The variant.
        root: Folder of the data sets.
        folder: Scratch folder.

    Returns:
        Accuracy in % of the joint expert and the ex-model (None where there is none) and of each baseline, and seconds.
    """
    start = time.monotonic()
    common = ["--data.root", root, "--trainer.enable_progress_bar", "false"]
    experts = folder / "experts"
    if variant.epochs is None:
        shutil.copytree(f"checkpoints/split_mnist/run{RUN}", experts)
    else:
        training = [*common, *variant.options, "--experts.epochs", str(variant.epochs)]
        _train_own(training, folder) if variant.own_initial else _train("split_mnist", experts, training)
    manifest = read_manifest(experts)
    if PIXELS[1] in variant.options:
        write_manifest(replace(manifest, input=PixelMNIST.image_format), experts)
    figures: dict[str, Any] = {"joint": _joint(variant, [*common, *variant.options], folder / "joint")}
    for name in PAPER.keys() - {"joint"}:
        run, is_fit = folder / name, name == "auxiliary"
        group = "strategies" if is_fit else "baselines"
        if is_fit and not variant.distil:
            figures[name] = None
            continue
        files = ["-c", "configs/split_mnist.yaml", "-c", f"configs/{group}/{name}.yaml"]
        places = ["--data.experts", str(experts), "--trainer.default_root_dir", str(run)]
        scratch = ["--model.start", "scratch", "--model.lambda_ce", "1", "--buffer.cache", "null"] if is_fit else []
        exml(["fit" if is_fit else "test", *files, *places, *common, *variant.options, *scratch])
        results = json.loads((run / ("summary.json" if is_fit else "test.json")).read_text())
        figures[name] = 100 * results["stream_accuracy"]
    return {"what": variant.what, **figures, "seconds": time.monotonic() - start}


def table(results: dict[str, Any]) -> str:
    """Render the results as Markdown.

    Args:
        results: Of each variant, as `measure` returns them.
    """
    lines = [f"| experts | {' | '.join(NAMES)} |", "|---|" + "---|" * len(NAMES)]
    for name in VARIANTS:
        if name in results:
            cells = ["-" if (x := results[name].get(key)) is None else f"{x:.1f}" for key in PAPER]
            lines.append(f"| {results[name]['what']} | {' | '.join(cells)} |")
    lines.append(f"| **the paper**, 5 runs | {' | '.join(f'{x:.1f}' for x in PAPER.values())} |")
    return "\n".join(lines) + "\n"


def _joint(variant: Variant, options: list[str], folder: Path) -> float | None:
    """Accuracy in % of the joint expert, trained in the same way."""
    if variant.epochs is None and not variant.options:
        folder = Path(f"checkpoints/joint_mnist/run{RUN}")
    elif variant.joint is None:
        return None
    else:
        _train("joint_mnist", folder, [*options, "--experts.epochs", str(variant.joint)])
    accuracy = read_manifest(folder).experts[0].accuracy
    assert accuracy is not None
    return 100 * accuracy


def _train_own(options: list[str], folder: Path) -> None:
    """Train each expert as the only one of a stream of its own, which has a seed and an initial model of its own."""
    digits = [str(c) for c in class_order(10, RUN)]
    entries = []
    for k in range(5):
        alone = folder / f"alone_{k}"
        classes = json.dumps([digits[2 * k : 2 * k + 2]])
        own = ["--data.scenario.classes_per_experience", "null", "--data.scenario.classes", classes]
        _train("split_mnist", alone, [*options, *own, "--data.seed", str(100 + k)])
        manifest = read_manifest(alone)
        file = f"expert_{k}.safetensors"
        (folder / "experts").mkdir(exist_ok=True)
        (alone / "expert_0.safetensors").rename(folder / "experts" / file)
        entries.append(replace(manifest.experts[0], file=file))
    write_manifest(replace(manifest, experts=tuple(entries)), folder / "experts")


def _train(scenario: str, folder: Path, options: list[str]) -> None:
    exml(["experts", "-c", f"configs/{scenario}.yaml", "--data.experts", str(folder), *options])


if __name__ == "__main__":
    main()
