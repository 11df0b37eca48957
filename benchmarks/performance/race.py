"""The package against the straightforward implementation: generating, distilling, and the time to an accuracy."""

import csv
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.performance.generation import shipped_generator
from benchmarks.performance.overhead import Effort, time_fit
from benchmarks.performance.scaling import fit_alone
from benchmarks.performance.straightforward import Distillation, Inversion, Settings, make_loader
from benchmarks.performance.straightforward_stream import EVALUATE_EVERY, StraightforwardStream, stream_accuracy
from benchmarks.performance.timing import Job, interleave, ratio, synchronize, time_steps
from benchmarks.performance.workload import ROOT, Workload, shipped_settings
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.experts.matching import stream_labels
from exml_lightning.scenarios import MNIST, Digits, Scenario

WORKLOAD = Workload("LeNet5", classes_per_expert=2)
SHIPPED = shipped_settings("LeNet5")
AUGMENTATIONS = {"as shipped": Augmentation(**SHIPPED["data"]["augmentation"]), "no augmentation": Augmentation()}
TEST_IMAGES = 10_000
"""Of MNIST."""
GOALS = {"cpu": {"generating": 2.0, "distilling": 1.0}, "cuda": {"generating": 5.0, "distilling": 5.0}}
GOAL_ACCURACY = 10.0
STEPS = 2000
"""Distillation steps an expert of the straightforward run; the paper has 50,000."""
PIECE = 480.0
"""Seconds after which the straightforward run stops on a GPU, to go on when the part is asked for again."""


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Measure generating and distilling with LeNet5, with augmentation and without, in turn in one process.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """
    precisions = ("32-true", "16-mixed") if device.type == "cuda" else ("32-true",)
    generating = [_generating(device, folder, name, quick) for name in AUGMENTATIONS]
    distilling = [
        _distilling(device, folder, name, precision, quick) for precision in precisions for name in AUGMENTATIONS
    ]
    return {
        "tables": {
            "Generating (thousand images a second and step)": generating,
            "Distilling (milliseconds a step)": distilling,
        }
    }


def _generating(device: torch.device, folder: Path, name: str, quick: bool) -> dict[str, Any]:
    augmentation, shipped = AUGMENTATIONS[name], shipped_generator("LeNet5")
    count = 6 if quick else SHIPPED["buffer"]["size"]
    # On a GPU the package's steps are so fast that what comes once a call has to be shared by as many as are shipped.
    ours, theirs = 2 if quick else shipped.steps if device.type == "cuda" else 10, 2
    package = replace(shipped, steps=ours, augmentation=augmentation)
    expert, other = (made.to(device) for made in (WORKLOAD.read_expert(folder / "experts", 0), WORKLOAD.expert(0)))
    own, limits = other.classes.tolist(), other.image_format.limits(device)
    columns = torch.arange(count, device=device) % len(own)
    settings = Settings(**asdict(augmentation))

    def straightforward() -> None:
        noise = torch.randn(count, *other.image_format.shape, device=device)
        inversion = Inversion(other.model, own, noise, columns, limits, settings)
        for _ in range(theirs):
            inversion.step()

    def generate() -> None:
        package.generate(expert, count, keyed_generator("benchmark"))

    jobs: dict[str, Job] = {"package": generate, "straightforward": straightforward}
    totals = interleave(jobs, 2 if quick else 5, 1, partial(synchronize, device))
    seconds = {
        job: [total / count / steps for total in totals[job]]
        for job, steps in (("package", ours), ("straightforward", theirs))
    }
    speeds = {job: 1e-3 / median(each) for job, each in seconds.items()}
    return {"augmentation": name, **speeds, **_verdict("generating", seconds, "package", device)}


def _verdict(what: str, seconds: dict[str, list[float]], package: str, device: torch.device) -> dict[str, Any]:
    goal = GOALS[device.type][what]
    faster = ratio(seconds["straightforward"], seconds[package])
    return {"times faster": faster, "goal": f">= {goal:g}", "met": faster["median"] >= goal}


class Steps:
    """A step of straightforward distillation a call.

    A turn of `steps` calls is one pass through the DataLoader, so that its workers have nothing left to do afterwards.

    Args:
        device: Where.
        settings: The settings.
        size: Samples in the buffer.
        steps: Steps of a turn.
    """

    def __init__(self, device: torch.device, settings: Settings, size: int, steps: int) -> None:
        student, previous = (WORKLOAD.model(key).to(device) for key in ("student", "previous"))
        own, seen = WORKLOAD.classes_of(1), WORKLOAD.classes_of(0)
        expert = WORKLOAD.model(1).to(device)
        self.student = student
        self._distillation = Distillation(student, expert, own, previous.eval(), seen, settings)
        self._loader = make_loader(WORKLOAD.images(size), WORKLOAD.labels(size), settings, steps, device)
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(self._loader)  # starts the workers before the fit

    def __call__(self) -> None:
        """Make a step."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self._loader)
            batch = next(self._batches)
        self._distillation.step(*batch)


def _distilling(device: torch.device, folder: Path, name: str, precision: str, quick: bool) -> dict[str, Any]:
    augmentation = AUGMENTATIONS[name]
    size, effort = (128, Effort(2, 2)) if quick else (SHIPPED["buffer"]["size"], Effort(7, 60))
    steps = Steps(device, Settings(**asdict(augmentation)), size, effort.steps)
    changes = {
        "trainer.precision": precision,
        "buffer.size": size,
        "data.augmentation": asdict(augmentation),
    }
    seconds = time_fit(WORKLOAD, folder, device, {"straightforward": steps}, effort, changes)
    row = {
        "augmentation": name,
        "precision of the fit": precision,
        "fit": 1e3 * median(seconds["fit"]),
        "straightforward": 1e3 * median(seconds["straightforward"]),
        "evaluation": 1e3 * _evaluation(steps, device, 20 if quick else TEST_IMAGES) / EVALUATE_EVERY,
    }
    return {**row, **_verdict("distilling", seconds, "fit", device)}


def _evaluation(steps: Steps, device: torch.device, images: int) -> float:
    """Return the seconds that an evaluation of the straightforward run takes."""
    test: DataLoader[tuple[Tensor, ...]] = DataLoader(
        TensorDataset(WORKLOAD.images(images), WORKLOAD.labels(images)), batch_size=512
    )
    known = list(range(WORKLOAD.num_classes))

    def evaluate() -> None:
        stream_accuracy(steps.student, test, known, device)

    return median(time_steps(evaluate, 1, partial(synchronize, device)) for _ in range(3))


def run_accuracy(device: torch.device, folder: Path, quick: bool, steps: int = STEPS) -> dict[str, Any]:
    """Learn split_mnist, run 0, the straightforward way and by `exml fit` as it is shipped, and compare the times.

    The straightforward run is kept in ``runs/performance`` until it is finished, so that a killed one goes on.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Learn split_digits instead, in a handful of steps.
        steps: Distillation steps an expert of the straightforward run.
    """
    name, dataset = ("split_digits", Digits()) if quick else ("split_mnist", MNIST())
    root, experts = ROOT / "data", ROOT / "checkpoints" / name / "run0"
    scenario = Scenario(name, dataset, 2)
    stream = ExpertStream(scenario, str(root), experts=str(experts))
    command = f"`exml experts -c configs/{name}.yaml --data.root data --data.download true`"
    if not (experts / FILE_NAME).is_file() or not (quick or (root / "MNIST" / "raw").is_dir()):
        return _unfinished(f"not measured: the experts or the data are missing; {command} makes them")
    kept = folder / "kept" if quick else ROOT / "runs" / "performance" / f"straightforward_{device.type}"
    settings = Settings(generator_steps=2, workers=0) if quick else Settings()
    size, n_iter = (20, 3) if quick else (SHIPPED["buffer"]["size"], steps)
    theirs = _straightforward(stream, scenario, settings, size, n_iter, device, kept)
    if not theirs.run(PIECE if device.type == "cuda" else None):
        return _unfinished("the straightforward run has stopped for now")
    fits = {
        f"`exml fit{''.join(f' {word}' for word in options)}`": _fit(name, folder / f"fit{k}", device, quick, *options)
        for k, options in enumerate(((), ("--buffer.generator.confidence", "0.99")))
    }
    shutil.rmtree(kept)
    return compare(theirs.curve, fits, n_iter)


def _unfinished(note: str) -> dict[str, Any]:
    return {"finished": False, "tables": {}, "note": note}


def _straightforward(
    stream: ExpertStream,
    scenario: Scenario,
    settings: Settings,
    size: int,
    n_iter: int,
    device: torch.device,
    folder: Path,
) -> StraightforwardStream:
    manifest = stream.manifest
    parts = [part.images for part in scenario.test_stream(stream.root, stream.experiences)]
    images = torch.cat([manifest.input.normalize(part.images) for part in parts])
    labels = stream_labels(torch.cat([part.labels for part in parts]), manifest, stream.experts / FILE_NAME, scenario)
    return StraightforwardStream(
        lambda index: stream.load_expert(index, torch.device("cpu")),
        len(manifest.experts),
        manifest.experts[0].architecture.with_classes(len(manifest.class_names)).build(stream.seed, "ex-model"),
        (images, labels),
        settings,
        size,
        n_iter,
        device,
        folder,
        stream.seed,
    )


Curve = list[dict[str, float]]
"""Points in time: ``seconds`` and ``accuracy``."""


def _fit(name: str, folder: Path, device: torch.device, quick: bool, *options: str) -> Curve:
    """Run `exml fit` as it is shipped, in a process of its own, without a cache; return a point an experience."""
    configs = ROOT / "configs"
    trainer = configs / "trainer" / ("gpu.yaml" if device.type == "cuda" else "cpu.yaml")
    few = ("--data.n_iter", "3", "--buffer.size", "20", "--buffer.generator.steps", "2")
    arguments = [
        *("fit", "-c", str(configs / f"{name}.yaml"), "-c", str(trainer)),
        *("--data.root", str(ROOT / "data"), "--data.experts", str(ROOT / "checkpoints" / name / "run0")),
        *("--buffer.cache", "null", "--trainer.default_root_dir", str(folder), *options),
        *(few if quick else ()),
    ]
    start = time()
    fit_alone(arguments, folder)
    return read_curve(folder, start)


def read_curve(folder: Path, start: float) -> Curve:
    """Read from a run folder when each experience was learned, accuracy measured, and the checkpoint written.

    Args:
        folder: The run folder.
        start: When the process was started, in seconds since 1970.
    """
    with (folder / "accuracy_matrix.csv").open(newline="", encoding="utf-8") as file:
        accuracies = [float(row["stream"]) for row in csv.DictReader(file)]
    ends = [(folder / "checkpoints" / f"experience={k}.ckpt").stat().st_mtime for k in range(len(accuracies))]
    return [{"seconds": end - start, "accuracy": each} for end, each in zip(ends, accuracies, strict=True)]


def compare(curve: Curve, fits: Mapping[str, Curve], n_iter: int) -> dict[str, Any]:
    """Compare the times to the accuracy that the straightforward run ends with.

    Args:
        curve: Of the straightforward run.
        fits: Those of the package, by what they are called.
        n_iter: Distillation steps an expert of the straightforward run.

    Returns:
        A table and the curves. A run's time is that of its first point that is as good; without one there is no ratio.
    """
    aim = curve[-1]["accuracy"]
    theirs = _first(curve, aim)
    assert theirs is not None
    first = {
        "run": f"straightforward, {n_iter} steps an expert",
        "stream accuracy at the end": aim,
        "seconds in all": curve[-1]["seconds_with_evaluation"],
        "seconds to that accuracy": theirs["seconds_with_evaluation"],
        "evaluations left out": theirs["seconds"],
    }
    rows: list[dict[str, Any]] = [first]
    for name, points in fits.items():
        ours = _first(points, aim)
        faster = None if ours is None else theirs["seconds"] / ours["seconds"]
        rows.append(
            {
                "run": name,
                "stream accuracy at the end": points[-1]["accuracy"],
                "seconds in all": points[-1]["seconds"],
                "seconds to that accuracy": None if ours is None else ours["seconds"],
                "times faster": faster,
                "goal": f">= {GOAL_ACCURACY:g}",
                "met": faster is not None and faster >= GOAL_ACCURACY,
            }
        )
    return {"tables": {"Time to the straightforward run's accuracy": rows}, "curve": curve, "fits": dict(fits)}


def _first(curve: Curve, accuracy: float) -> dict[str, float] | None:
    return next((point for point in curve if point["accuracy"] >= accuracy), None)
