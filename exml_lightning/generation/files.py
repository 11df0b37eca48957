"""Files of samples, one an expert: `exml generate`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exml_lightning.core.buffer import share
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.files import check_folder
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer
from exml_lightning.generation.samples import Sampler
from exml_lightning.generation.sources import StreamSources, generated_file, generated_folder
from exml_lightning.report.grid import save_grid
from exml_lightning.terminal import say


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


def generate_files(sampler: Sampler, size: int, options: GenerateOptions, device: torch.device) -> None:
    """Write ``expert_<k>.safetensors`` and ``expert_<k>.png``: samples of experts and a picture of them.

    Needs a folder of experts; an ex-model or a data set only if the generator does, which is connected here. `size` is
    N, the samples of a buffer.

    Raises:
        ExmlError: If there is no such expert, the experts are not those of the scenario, or another file is in the way;
            before anything is generated.
    """
    stream, manifest = sampler.stream, sampler.stream.manifest
    count = len(manifest.experts)
    if options.expert is not None and not 0 <= options.expert < count:
        raise ExmlError(f"generate.expert is {options.expert}: {stream.experts} has experts 0 to {count - 1}")
    if options.num_samples is not None and options.num_samples < 1:
        raise ExmlError(f"generate.num_samples is {options.num_samples}: give 1 or more")
    chosen = range(count) if options.expert is None else [options.expert]
    folder = generated_folder(manifest) if options.folder is None else Path(options.folder)
    amounts = {k: options.num_samples or share(size, k) for k in chosen}
    check_folder(folder, "generate.folder")
    stream.prepare_data()
    stream.check_manifest()
    sampler.generator.connect(StreamSources(stream, size))
    paths = {k: generated_file(folder, k) for k in chosen}
    keys = {k: _check(sampler, sampler.stream.load_expert(k, device), amounts[k], paths[k]) for k in chosen}
    for k, path in paths.items():
        if path.is_file():
            say(f"expert {k + 1}/{count}: {path} is there already")
            samples = read_buffer(path).samples
        else:
            samples = sampler(stream.load_expert(k, device), amounts[k], count)
            write_buffer(path, BufferFile(samples, manifest.class_names, manifest.input, keys[k]))
            say(f"expert {k + 1}/{count}: {len(samples)} images in {path} and {path.with_suffix('.png').name}")
        save_grid(path.with_suffix(".png"), samples.images, samples.labels, manifest.class_names, manifest.input)


def _check(sampler: Sampler, expert: Expert, num_samples: int, path: Path) -> dict[str, Any]:
    """Say what an expert's samples depend on; refuse the expert, or a file of other samples in their place."""
    sampler.rehearse(expert, num_samples)
    key = sampler.describe(expert, num_samples)
    if path.is_file() and read_buffer(path).about != json.loads(json.dumps(key)):
        raise ExmlError(
            f"{path} holds other samples: delete it and those beside it, or write elsewhere with "
            "--generate.folder DIR (which a fit finds with --buffer.generator.folder DIR)"
        )
    return key
