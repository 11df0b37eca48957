"""Generated samples kept on disk: they do not depend on the ex-model, so other runs can use them too."""

import hashlib
import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator
from exml_lightning.experts import ExpertEntry
from exml_lightning.files import remove_parts
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer

log = logging.getLogger(__name__)
VERSION = 4
"""Raise it when a change of the code changes what generators make."""
DAY = 24 * 60 * 60
"""Seconds; what another run is writing is younger."""


def describe_samples(
    generator: Generator, expert: Expert, entry: ExpertEntry, num_samples: int, seed: int
) -> dict[str, Any]:
    """Name everything that generated samples depend on, in plain values for JSON: equal ones mean equal samples."""
    return {
        "version": VERSION,
        **generator.describe(),
        **({} if entry.statistics is None else {"statistics": entry.statistics.sha256}),
        "expert": entry.identity,
        "architecture": {k: v for k, v in asdict(entry.architecture).items() if v not in (None, False)},
        "classes": expert.classes.tolist(),
        "outputs": expert.outputs.tolist(),
        "classifier": expert.classifier,
        "input": asdict(expert.image_format),
        "own_input": asdict(expert.own_format),
        "experience": expert.experience,
        "task": expert.task,
        "num_samples": num_samples,
        "seed": seed,
    }


def find(cache: Path, key: dict[str, Any], class_names: tuple[str, ...]) -> Buffer | None:
    """Look samples up by what `describe_samples` says; they are on the CPU, None if they are not there.

    `class_names` are all classes of the stream. A broken entry counts as not there, with a warning.
    """
    path = _path(cache, key, class_names)
    if not path.is_file():
        return None
    try:
        content = read_buffer(path)
    except ExmlError as error:
        log.warning("%s; generating anew", error)
        return None
    return content.samples if content.about == json.loads(json.dumps(key)) else None


def store(cache: Path, key: dict[str, Any], class_names: tuple[str, ...], samples: Buffer, expert: Expert) -> None:
    """Keep samples and the expert they come from, written whole; see `find`."""
    remove_parts(cache, older_than=DAY)
    write_buffer(_path(cache, key, class_names), BufferFile(samples, class_names, expert.image_format, key))


def _path(cache: Path, key: dict[str, Any], class_names: tuple[str, ...]) -> Path:
    text = json.dumps([key, class_names], sort_keys=True)
    return cache / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"
