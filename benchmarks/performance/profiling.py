"""What remains: where the time of a real fit and of generating goes, by the operators of torch."""

import cProfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim.adam import adam
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.performance.generation import shipped_generator
from benchmarks.performance.timing import synchronize
from benchmarks.performance.workload import SHIPPED, Workload, run_fit, write_fit
from exml_lightning.core.rng import keyed_generator

ADAM = "adam, all of it"
KINDS = {
    "optimiser": (ADAM,),
    "convolutions": ("conv",),
    "batch norm": ("batch_norm",),
    "augmentation": ("grid_sampler", "affine_grid"),
    "linear layers": ("addmm", "aten::mm", "aten::bmm", "linear"),
    "pooling and activations": ("pool", "tanh", "relu", "threshold"),
    "reading the buffer, random draws": ("aten::index", "rand", "aten::gather"),
}
OTHER, REST = "other operators", "Python and Lightning"
IDLE = "the device waits for Python and Lightning"
PLACES = {"torch": "/torch/", "Lightning": "/lightning/", "exml_lightning": "/exml_lightning/"}
TOP = 8


class Between(Callback):
    """Switches something on for some steps of the second experience of a fit.

    Args:
        begin: Called before them.
        end: Called after them.
        first: The step to begin after.
        steps: How many steps.
    """

    def __init__(self, begin: Callable[[], object], end: Callable[[], object], first: int, steps: int) -> None:
        self._begin, self._end = begin, end
        self._first, self._last = first, first + steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Begin or end."""
        if trainer.current_epoch == 1 and batch_idx + 1 == self._first:
            self._begin()
        elif trainer.current_epoch == 1 and batch_idx + 1 == self._last:
            self._end()


class Watch:
    """torch's profiler, and the wall clock beside it.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
        self._profile = profile(activities=[ProfilerActivity.CPU, *on_gpu])
        self._wall = 0.0
        self._adam = patch("torch.optim.adam.adam", record_function(ADAM)(adam))

    def begin(self) -> None:
        """Start."""
        self._adam.start()
        synchronize(self._device)
        self._profile.start()
        self._wall = perf_counter()

    def end(self) -> None:
        """Stop."""
        synchronize(self._device)
        self._wall = perf_counter() - self._wall
        self._profile.stop()
        self._adam.stop()

    def shares(self) -> tuple[dict[str, float], dict[str, float]]:
        """Divide the wall clock; on a GPU by the times of kernels.

        Returns:
            Own share of each operator, the largest first; share of each kind, with what is left for `REST` or `IDLE`.
        """
        on_gpu = self._device.type == "cuda"
        operators: Counter[str] = Counter()
        kinds = dict.fromkeys([*KINDS, OTHER], 0.0)
        for event in self._profile.events() or []:
            if event.device_type.name != "CPU" or event.name.startswith("Optimizer."):
                continue  # torch marks an optimiser's step, in which Lightning does all else
            share = 1e-6 * (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / self._wall
            names, caller = [event.name], event.cpu_parent
            while caller is not None:
                names, caller = [caller.name, *names], caller.cpu_parent
            operators[event.name] += share
            kinds[kind_of(names)] += share
        return dict(operators.most_common()), {**kinds, IDLE if on_gpu else REST: 1 - sum(kinds.values())}


def kind_of(names: Sequence[str]) -> str:
    """Return the kind of an operator.

    Args:
        names: Of the operators that called it, the outermost first, and its own.
    """
    for name in names:
        for kind, words in KINDS.items():
            if any(word in name.lower() for word in words):
                return kind
    return OTHER


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Profile the fit and generating, for LeNet5 and slim ResNet18.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """
    operators, kinds = {}, {}
    for network in SHIPPED:
        for work, watch in {
            f"fit, {network}": _profile_fit(network, device, folder / network, quick),
            f"generate, {network}": _profile_generating(network, device, folder / network, quick),
        }.items():
            operators[work], kinds[work] = watch.shares()
    rows = [
        {"share of the time": kind, **{work: kinds[work][kind] for work in kinds}}
        for kind in next(iter(kinds.values()))
    ]
    top = [
        {"work": work, "operator": f"`{name}`", "share": share}
        for work, shares in operators.items()
        for name, share in list(shares.items())[:TOP]
    ]
    host = _profile_host(device, folder / "LeNet5", quick)
    return {
        "tables": {
            "Where the time goes": rows,
            "Operators with the largest shares": top,
            "Python's own time in a fit of LeNet5 with batches of one image": host,
        }
    }


def _profile_fit(network: str, device: torch.device, folder: Path, quick: bool) -> Watch:
    watch = Watch(device)
    _fit(network, device, folder, quick, watch.begin, watch.end, {"data.batch_size": 8} if quick else {})
    return watch


def _profile_host(device: torch.device, folder: Path, quick: bool) -> list[dict[str, Any]]:
    watch = cProfile.Profile()
    _fit("LeNet5", device, folder, quick, watch.enable, watch.disable, {"data.batch_size": 1})
    own: dict[str, float] = defaultdict(float)
    for entry in watch.getstats():
        file = "" if isinstance(entry.code, str) else entry.code.co_filename
        place = "operators of torch and built-in functions" if not file else "other modules"
        own[next((name for name, part in PLACES.items() if part in file), place)] += entry.inlinetime
    return [
        {"where": name, "share": time / sum(own.values())}
        for name, time in sorted(own.items(), key=itemgetter(1), reverse=True)
    ]


def _fit(
    network: str,
    device: torch.device,
    folder: Path,
    quick: bool,
    begin: Callable[[], object],
    end: Callable[[], object],
    changes: Mapping[str, Any],
) -> None:
    steps = 2 if quick else 20
    settings = {"data.n_iter": 2 * steps + 1, "buffer.generator.init_args.steps": 1, **changes}
    if quick:
        settings["buffer.size"] = 16
    run = f"run{sum(1 for _ in folder.glob('run*.yaml'))}"
    arguments = write_fit(Workload(network), folder, device, settings, run)
    run_fit(arguments, Between(begin, end, steps, steps))


def _profile_generating(network: str, device: torch.device, folder: Path, quick: bool) -> Watch:
    generator = shipped_generator(network)
    batch_size = 8 if quick else generator.batch_size
    slow = device.type == "cpu" and network == "SlimResNet18"
    generator = replace(generator, steps=2 if quick else 5 if slow else 20, batch_size=batch_size)
    expert = Workload(network).read_expert(folder / "experts", 0).to(device)
    watch = Watch(device)
    for turn in range(2):
        if turn:
            watch.begin()
        generator.generate(expert, batch_size, keyed_generator("benchmark"))
    watch.end()
    return watch
