"""Samples from an expert with a progress bar and the cache; `exml generate`."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core import distributed
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Auxiliary, Generator
from exml_lightning.core.generators.optimised import OptimisedImages
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from exml_lightning.files import NotWrittenError, check_folder
from exml_lightning.generation import cache as samples_cache
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer
from exml_lightning.generation.sources import connect, generated_file, generated_folder
from exml_lightning.report.grid import save_grid
from exml_lightning.terminal import Bar, clock, draws_bars, say

log = logging.getLogger(__name__)


def generate_samples(
    generator: Generator,
    stream: ExpertStream,
    expert: Expert,
    num_samples: int,
    num_experts: int,
    cache: Path | None,
    show_progress: bool,
    time_left: Callable[[float, float], float | None] = lambda images, seconds: None,
) -> Buffer:
    """Make samples from an expert, or take them from the cache; all processes call this and get the same.

    Args:
        generator: How; connected to its data (`connect`).
        stream: The expert's stream; its seed and the expert's place key the draws.
        expert: The expert, on the device to work on.
        num_samples: How many, at least 1.
        num_experts: Number of experts in turn, for the progress bar.
        cache: Folder of the cache; None for none.
        show_progress: Show a progress bar, or that the cache had them.
        time_left: Guesses the seconds that the whole stream still takes, for the progress bar, from the images made of
            this expert and the seconds they took.

    Returns:
        The samples, on the expert's device.
    """
    manifest = stream.manifest
    device, rank = expert.classes.device, distributed.rank()
    title = f"expert {expert.experience + 1}/{num_experts} generating"
    key = _describe(generator, stream, expert, num_samples)
    kept = cache if generator.slow else None
    found = distributed.from_first(_find(kept, key, manifest.class_names))
    if found is not None:
        if show_progress and draws_bars():
            say(f"{title}: {num_samples} images from the cache {cache}")
        return found.to(device)
    asked: Callable[[], Tensor] | None = None
    said = ""

    def words() -> str:
        nonlocal said
        said = f"confidence {asked().item():.2f}" if asked is not None else said
        left = time_left(bar.done, bar.seconds)
        return said if left is None else f"{said}  stream {clock(left)} left".strip()

    def report(images: float, confidence: Callable[[], Tensor] | None = None) -> None:
        nonlocal asked
        asked = confidence
        bar.advance(min(together * images, num_samples - bar.done))  # fractions need not add up

    bar = Bar(title, num_samples, show_progress, words)
    together = distributed.world_size() if generator.slow else 1  # processes at work
    if isinstance(generator, OptimisedImages) and num_samples <= generator.batch_size * (together - 1) and not rank:
        log.warning(
            "expert %d gives some processes no work: make buffer.generator.batch_size %d or less",
            expert.experience + 1,
            max(num_samples // together, 1),
        )
    samples, broken = None, None
    with bar:
        if generator.slow or rank == 0:
            try:
                draws = keyed_generator("generate", stream.seed, expert.experience)
                samples = generator.generate(expert, num_samples, draws, report)
            except BrokenExpertError as error:
                broken = error
        distributed.raise_together(broken)
        asked = None
        bar.advance(num_samples - bar.done)
    if not generator.slow and distributed.together():
        samples = distributed.from_first(None if samples is None else samples.to(torch.device("cpu")))
    assert samples is not None
    if kept is not None and rank == 0:
        try:
            samples_cache.store(kept, key, manifest.class_names, samples, expert)
        except NotWrittenError as error:  # a full disk must not cost the run
            log.warning("going on without the cache: %s", error.what)
    return samples.to(device)


def _find(cache: Path | None, key: dict[str, Any], class_names: tuple[str, ...]) -> Buffer | None:
    return None if cache is None or distributed.rank() else samples_cache.find(cache, key, class_names)


def _describe(generator: Generator, stream: ExpertStream, expert: Expert, num_samples: int) -> dict[str, Any]:
    entry = stream.manifest.experts[expert.experience]
    key = samples_cache.describe_samples(generator, expert, entry, num_samples, stream.seed)
    if isinstance(generator, Auxiliary) and stream.auxiliary is not None:
        key["auxiliary"] = stream.auxiliary.describe()
    return key


@dataclass(frozen=True)
class GenerateOptions:
    """What `exml generate` writes.

    Args:
        expert: Place of the expert in its folder, from 0; null for each of them in turn.
        num_samples: Images of an expert; null for as many as a fit asks for: ``buffer.size`` divided by the expert's
            place from 1.
        folder: Where to write; null for ``generated/<scenario>/run<k>``, as the manifest of the experts names them.
    """

    expert: int | None = None
    num_samples: int | None = None
    folder: str | None = None


def generate_files(
    stream: ExpertStream,
    generator: Generator,
    size: int,
    cache: Path | None,
    options: GenerateOptions,
    device: torch.device,
    show_progress: bool,
) -> None:
    """Write ``expert_<k>.safetensors`` and ``expert_<k>.png``: samples of experts and a picture of them.

    Needs a folder of experts; an ex-model or a data set only if the generator does.

    Args:
        stream: The experts.
        generator: How samples are made.
        size: N, the samples of a buffer.
        cache: Folder of the cache; None for none.
        options: Which experts, how many samples, and where to.
        device: Where to work.
        show_progress: Show progress bars.

    Raises:
        ExmlError: If there is no such expert, the experts are not those of the scenario, or another file is in the
            way; before anything is generated.
    """
    manifest = stream.manifest
    count = len(manifest.experts)
    if options.expert is not None and not 0 <= options.expert < count:
        raise ExmlError(f"generate.expert is {options.expert}: {stream.experts} has experts 0 to {count - 1}")
    if options.num_samples is not None and options.num_samples < 1:
        raise ExmlError(f"generate.num_samples is {options.num_samples}: give 1 or more")
    chosen = range(count) if options.expert is None else [options.expert]
    folder = generated_folder(manifest) if options.folder is None else Path(options.folder)
    amounts = {k: options.num_samples or max(size // (k + 1), 1) for k in chosen}
    if isinstance(generator, Auxiliary) and generator.whole_set and options.num_samples is not None:
        raise ExmlError("whole_set takes every auxiliary image: leave out generate.num_samples, or whole_set")
    check_folder(folder, "generate.folder")
    stream.prepare_data()
    stream.check_manifest()
    connect(generator, stream, size)
    paths = {k: generated_file(folder, k) for k in chosen}
    keys = {k: _check(generator, stream, k, amounts[k], paths[k]) for k in chosen}
    for k, path in paths.items():
        if path.is_file():
            say(f"expert {k + 1}/{count}: {path} is there already")
            samples = read_buffer(path).samples
        else:
            samples = generate_samples(
                generator, stream, stream.load_expert(k, device), amounts[k], count, cache, show_progress
            )
            write_buffer(path, BufferFile(samples, manifest.class_names, manifest.input, keys[k]))
            say(f"expert {k + 1}/{count}: {len(samples)} images in {path} and {path.with_suffix('.png').name}")
        pixels = manifest.input.denormalize(samples.images)
        save_grid(path.with_suffix(".png"), pixels, samples.labels, manifest.class_names)


def _check(generator: Generator, stream: ExpertStream, index: int, num_samples: int, path: Path) -> dict[str, Any]:
    """Say what an expert's samples depend on; refuse the expert, or a file of other samples in their place."""
    expert = stream.load_expert(index, torch.device("cpu"))
    generator.check(expert)
    key = _describe(generator, stream, expert, num_samples)
    if path.is_file() and read_buffer(path).about != json.loads(json.dumps(key)):
        raise ExmlError(
            f"{path} holds other samples: delete it and those beside it, or write elsewhere with "
            "--generate.folder DIR (which a fit finds with --buffer.generator.folder DIR)"
        )
    return key
