"""What the experts of the zoo know together, and what one model learns from them by the default.

    python -m benchmarks.zoo.measure [ROW ...] [--folder runs/zoo] [--photos data/tiny_imagenet/train] [-- OPTION ...]

Needs `python -m benchmarks.zoo.make`. Without a ROW: the stored experts, and the default with and without the photos;
`refined`, and `model_inversion`, the paper's, are measured if they are named. What follows `--` is given to `exml fit`
as well. One thread of the CPU; writes docs/zoo.json and docs/zoo.md. No setting may be chosen by these figures.
"""

import argparse
import json
import resource
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.weights import run as exml
from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.score_table import ScoreTable
from exml_lightning.experts import read_manifest
from exml_lightning.experts.weights import load_expert
from exml_lightning.files import write_text
from exml_lightning.scenarios.image_files import image_files, read_image

RESULTS = Path("docs/zoo.json")
REFERENCE = 600
"""Images that logits are compared with."""
DRAWINGS = Mixture([DeadLeaves(), ColouredNoise(), Strokes(colour=True)])
PHOTOS = "{photos}"
FITS = {
    "default": ("one model by the default, from the experts alone", ()),
    "photos": (
        "one model by the default, with unrelated photos",
        ("--data.auxiliary", "FolderImages", "--data.auxiliary.folder", PHOTOS),
    ),
    "refined": ("one model by `refined`, from the experts alone", ("--strategy", "refined")),
    "model_inversion": (
        "one model by model inversion, as the paper has it",
        ("-c", "configs/strategies/model_inversion.yaml"),
    ),
}
"""What each fit is, for the table, and the options it has beyond those of all."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo.measure", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(["stored", *FITS]))
    parser.add_argument("--folder", type=Path, default=Path("runs/zoo"), help="Of `python -m benchmarks.zoo.make`.")
    parser.add_argument("--photos", type=Path, default=Path("data/tiny_imagenet/train"), help="Of anything.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    words = [*sys.argv[1:], "--"]
    own = words.index("--")
    given, more = parser.parse_args(words[:own]), words[own + 1 : -1]
    if unknown := {*given.rows} - {"stored", *FITS}:
        parser.error(f"no row {' '.join(sorted(unknown))}: {', '.join(['stored', *FITS])}")
    results = json.loads(given.results.read_text()) if given.results.is_file() else {}
    for row in given.rows or ("stored", "default", "photos"):
        if row == "stored":
            results[row] = stored(given.folder / "experts", given.folder / "labelled", given.photos)
        else:
            results[row] = fit(command(row, given.folder, given.photos, more))
        write_text(given.results, json.dumps(results, indent=2) + "\n")
        write_text(given.results.with_suffix(".md"), table(results))
    print(table(results))


def command(row: str, folder: Path, photos: Path, more: Sequence[str] = ()) -> list[str]:
    """Return the words after `exml` that make a row of `FITS`; `more` are a person's own, which come last."""
    files = ["-c", "configs/from_folder.yaml", "-c", "configs/trainer/cpu.yaml"]
    places = ["--data.experts", str(folder / "experts"), "--data.labelled", str(folder / "labelled")]
    options = [str(photos) if word == PHOTOS else word for word in FITS[row][1]]
    return ["fit", *files, *options, *places, *more]


def fit(words: list[str]) -> dict[str, Any]:
    """Run a fit in a process of its own, and return its accuracy in %, its time and its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        start, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        exml([*words, "--trainer.default_root_dir", folder, "--buffer.cache", "null"])
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        summary = json.loads(Path(folder, "summary.json").read_text())
        return {
            "command": shlex.join(["exml", *words]),
            "accuracy": 100 * summary["stream_accuracy"],
            "seconds": time.perf_counter() - start,
            "processor_seconds": now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime,
            "peak_memory_mb": summary["peak_memory_mb"],
        }


def stored(experts: Path, labelled: Path, photos: Path) -> dict[str, float]:
    """Ask all stored experts about labelled images, and about references to compare their logits with.

    Args:
        experts: Their folder.
        labelled: A folder with a sub-folder of images for each class.
        photos: A folder of images of anything.

    Returns:
        Accuracy in % by what is done with their answers.
    """
    manifest = read_manifest(experts)
    own, num_classes = manifest.input, len(manifest.class_names)
    files = image_files(labelled)
    labels = torch.tensor([manifest.class_names.index(Path(file).parent.name) for file in files])
    images, generator = _read(files, own), keyed_generator("zoo reference")
    found = image_files(photos)
    chosen = [found[k] for k in torch.randperm(len(found), generator=generator)[:REFERENCE].tolist()]
    drawn = own.normalize(DRAWINGS.draw(REFERENCE, own.shape, generator, torch.device("cpu")))
    references = {"unrelated photos": _read(chosen, own), "drawings": drawn}

    logits: list[Tensor] = []  # of each expert (n, classes), minus infinity for those that it does not know
    scores: dict[str, list[Tensor]] = {name: [] for name in references}
    for k in range(len(manifest.experts)):
        expert = load_expert(experts, manifest, k)
        logits.append(_ask(expert, images, num_classes))
        columns = expert.classes
        for name, reference in references.items():
            table = ScoreTable(_ask(expert, reference, num_classes)[:, columns])
            scores[name].append(
                torch.full_like(logits[k], -torch.inf).index_copy(1, columns, table(logits[k][:, columns]))
            )

    probabilities = torch.stack(logits).softmax(dim=2)
    guesses = probabilities.argmax(dim=2)  # (experts, n)
    surest = torch.special.entr(probabilities).sum(dim=2).argmin(dim=0)
    right = guesses == labels
    told = [max(int(r.sum()) for r in right[:, labels == c]) for c in labels.unique()]
    figures = {
        "chance": 100 / num_classes,
        "stored experts, softmax max": _share(probabilities.amax(dim=0).argmax(dim=1), labels),
        "stored experts, ensemble average": _share(_mean(logits).argmax(dim=1), labels),
        "stored experts, min entropy": _share(guesses[surest, torch.arange(len(labels))], labels),
    }
    for name, parts in scores.items():
        what = f"stored experts, quantiles of {len(references[name])} {name}, mean"
        figures[what] = _share(_mean(parts).argmax(dim=1), labels)
    return {
        **figures,
        "told which expert is right, the best of those that know the class": 100 * sum(told) / len(right[0]),
    }


def _read(files: Sequence[str], own: ImageFormat) -> Tensor:
    """Read images, normalised, float ``(n, channels, height, width)``; those that are broken are left out."""
    read = [read_image(file, own.shape) for file in files]
    return own.normalize(torch.stack([pixels for pixels in read if isinstance(pixels, Tensor)]))


@torch.no_grad()
def _ask(expert: Expert, images: Tensor, num_classes: int) -> Tensor:
    return torch.cat([expert.own_logits(part, num_classes) for part in images.split(100)])


def _mean(parts: list[Tensor]) -> Tensor:
    """Return the mean over the experts that know a class, ``(n, classes)``."""
    scores = torch.stack(parts)
    known = scores > -torch.inf
    return scores.masked_fill(~known, 0).sum(dim=0) / known.sum(dim=0)


def _share(guesses: Tensor, labels: Tensor) -> float:
    return 100 * float((guesses == labels).float().mean())


def table(results: dict[str, Any]) -> str:
    """Render the results as Markdown.

    Args:
        results: Of each row, as `main` writes them.
    """
    lines = ["| what | % right | minutes of one core | peak memory, MB |", "|---|---|---|---|"]
    lines += [f"| {what} | {accuracy:.1f} | | |" for what, accuracy in results.get("stored", {}).items()]
    for row, (what, _) in FITS.items():
        if row in results:
            found = results[row]
            cost = f"{max(found['processor_seconds'], 0) / 60:.1f} | {found['peak_memory_mb']:.0f}"
            lines.append(f"| {what} | {found['accuracy']:.1f} | {cost} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
