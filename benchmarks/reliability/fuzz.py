"""Thousands of damaged manifests, buffer files and statistics: each is refused clearly, or is as documented."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts.manifest import Manifest, PublishedStatistics, read_manifest, write_manifest
from exml_lightning.experts.statistics_file import read_statistics
from exml_lightning.files import sha256
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer

LENET = {"class_path": "exml_lightning.models.LeNet5", "init_args": {"num_classes": 3}}
EXPERT = {
    "file": "a.safetensors",
    "sha256": "ab" * 32,
    "architecture": LENET,
    "classes": ["cat", "ant"],
    "outputs": [2, 0],
    "task": 0,
    "input": {"shape": [3, 8, 8], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "classifier": "classifier",
    "accuracy": 0.5,
    "training": {"epochs": 2, "seen": [1.5, None]},
    "privacy": {"epsilon": 3.0, "delta": 1e-05},
    "license": "CC-BY-4.0",
    "statistics": {
        "file": "a.statistics.safetensors",
        "sha256": "ef" * 32,
        "layer": "features.6",
        "images": 40,
        "privacy": {"epsilon": 2.0, "delta": 1e-05},
    },
}
MANIFEST = {
    "format": 1,
    "scenario": "tiny",
    "run": 0,
    "class_names": ["ant", "bee", "cat"],
    "input": {"shape": [1, 32, 32], "mean": [0.1], "std": [0.3]},
    "experts": [EXPERT, {**EXPERT, "file": "b.pt", "sha256": "cd" * 32, "classes": ["bee"], "outputs": [1]}],
}
"""A whole manifest."""
METADATA = {
    "format": "exml buffer 1",
    "class_names": json.dumps(["cat", "dog"]),
    "input": json.dumps({"shape": [1, 2, 3], "mean": [0.25], "std": [0.5]}),
    "about": json.dumps({"generator": {"steps": 3}}),
}
COLUMNS = {
    "images": torch.linspace(-0.5, 1.5, 24).view(4, 1, 2, 3),
    "labels": torch.tensor([0, 1, 1, 0]),
    "tasks": torch.tensor([0, 0, 2, 2]),
    "experiences": torch.tensor([3, 3, 3, 3]),
}
"""Metadata and tensors of a whole buffer file."""
STATISTICS = {
    "units": torch.ones(5),
    "means": torch.linspace(-1, 1, 10).view(2, 5),
    "directions": torch.eye(5)[:2].expand(2, 2, 5).contiguous(),
    "variances": torch.ones(2, 2),
    "rest": torch.tensor([0.25, 0.5]),
    "distance": torch.tensor([0.5, 0.25]),
    "images": torch.tensor([20, 30]),
}
"""Tensors of whole statistics, of images of four pixels and a layer of one value."""

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, -1, 0, 1, 10, 2**31, 2**63, 10**400, 0.0, -0.5, 1e-320, 1e308),
        *(float("nan"), float("inf"), -float("inf"), "", " ", ".", "..", "../a.pt", "/etc/passwd", "a\\b", "a\0b"),
        *("\x1b[2J", "\ud800", "x" * 300, "-" * 200, "os.system", "1e3", "2024-01-01", "~", "[", "[" * 3000),
        *([], {}, [[]], [None], {"": 0}, {"shape": []}, {"class_path": "os.system", "init_args": {}}),
        *("F64", "I64", "BOOL", "I8", "{}", '{"a": NaN}', "[1e999]", '["a", "a"]', [0, 2**62], [8, 4]),
    ]
)
"""What is likely to be taken for something else."""
VALUES = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
PIECES = st.binary(max_size=6) | st.sampled_from(
    [
        *(b"&a ", b"*a", b"<<: *a\n", b"? [x]\n", b"!!binary x", b"!!python/object/apply:os.system ['true']\n", b"- "),
        *(b"\xff\xfe", b"\0", b"\t", b"%YAML 9\n", b"---\n", b"{", b"]", b'"', b"1:1:1", b"\xed\xa0\x80", b"\\u0000"),
    ]
)


class Counts(NamedTuple):
    """How many files were tried, how many of them refused by an `ExmlError`, and how many taken as they are."""

    tried: int
    refused: int
    accepted: int


def fuzz_manifest(cases: int) -> Counts:
    """Read damaged manifests; anything raised but an `ExmlError` comes through.

    Args:
        cases: How many; the same number gives the same cases.
    """
    whole = yaml.safe_dump(MANIFEST).encode()
    documents = _changed(MANIFEST).map(lambda document: yaml.safe_dump(document).encode()) | _damaged(whole)
    return _run(documents, cases, "manifest.yaml", _try_manifest)


def fuzz_statistics(cases: int) -> Counts:
    """Read damaged files of published statistics; anything raised but an `ExmlError` comes through.

    Args:
        cases: How many; the same number gives the same cases.
    """
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 1), torch.nn.Linear(1, 2))
    expert = Expert(network, [0, 1], [0, 1], ImageFormat((1, 2, 2), (0.5,), (0.5,)))

    def attempt(path: Path) -> None:
        found = read_statistics(path, PublishedStatistics(path.name, sha256(path), "2", 50), expert)
        features = torch.linspace(-1, 1, 2 * found.means.shape[1]).view(2, -1)
        assert found.log_distance(features).isfinite().all()
        assert found.sample(torch.tensor([0, 1]), torch.Generator()).shape == features.shape

    return _run(_damaged_tensors(STATISTICS, {}), cases, "a.statistics.safetensors", attempt)


def fuzz_buffer_file(cases: int) -> Counts:
    """Read damaged buffer files; anything raised but an `ExmlError` comes through.

    Args:
        cases: How many; the same number gives the same cases.
    """
    return _run(_damaged_tensors(COLUMNS, METADATA), cases, "samples.safetensors", _try_buffer_file)


def _damaged_tensors(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> st.SearchStrategy[bytes]:
    whole = save(tensors, metadata)
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    inner = {key: value if key == "format" else json.loads(value) for key, value in metadata.items()}
    return st.one_of(
        _changed(header).map(lambda changed: _safetensors(changed, data)),
        _changed(inner).map(lambda changed: _safetensors({**header, "__metadata__": _texts(changed)}, data)),
        _damaged(data).map(lambda changed: _safetensors(header, changed[: len(data)].ljust(len(data), b"\0"))),
        _damaged(whole),
    )


def _run(documents: st.SearchStrategy[bytes], cases: int, name: str, attempt: Callable[[Path], None]) -> Counts:
    counts = {"refused": 0, "accepted": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name

        @settings(
            max_examples=cases,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(documents)
        def one(content: bytes) -> None:
            path.write_bytes(content)
            try:
                attempt(path)
            except ExmlError as error:
                counts["refused"] += 1
                said = str(error)
            else:
                counts["accepted"] += 1
                said = name
            assert name in said, said
            assert "\n" not in said, said
            assert len(said) < 2000, said

        one()
    return Counts(sum(counts.values()), **counts)


def _try_manifest(path: Path) -> None:
    manifest = read_manifest(path.parent)
    _check_manifest(manifest)
    with tempfile.TemporaryDirectory() as folder:
        write_manifest(manifest, Path(folder))
        again = read_manifest(Path(folder))
    assert repr(again) == repr(manifest)  # equal, and NaN is NaN


def _check_manifest(manifest: Manifest) -> None:
    assert manifest.experts
    assert all(0 < std < float("inf") for std in manifest.input.std)
    for i, entry in enumerate(manifest.experts):
        assert (Path("folder") / entry.file).parent == Path("folder"), entry.file
        assert entry.file not in ("", ".", ".."), entry.file
        assert len(entry.classes) == len(set(entry.outputs)) == len(manifest.classes_of(i)) > 0
        assert min(entry.outputs) >= 0
        assert entry.accuracy is None or 0 <= entry.accuracy <= 1


def _try_buffer_file(path: Path) -> None:
    content = read_buffer(path)
    samples = content.samples
    n, (channels, height, width) = len(samples.labels), content.image_format.shape
    assert samples.images.shape == (n, channels, height, width)
    assert samples.images.dtype == torch.float32
    assert samples.images.isfinite().all()
    mean, std = (torch.tensor(x).view(-1, 1, 1) for x in (content.image_format.mean, content.image_format.std))
    assert (samples.images >= (0 - mean) / std - 0.011).all()
    assert (samples.images <= (1 - mean) / std + 0.011).all()
    assert {content.class_names[label] for label in samples.labels.tolist()} <= set(content.class_names)
    assert min(samples.labels.tolist() + samples.tasks.tolist() + samples.experiences.tolist()) >= 0
    _same_when_written(content, path.with_name(f"again_{path.name}"))


def _same_when_written(content: BufferFile, path: Path) -> None:
    write_buffer(path, content)
    again = read_buffer(path)
    assert (again.class_names, again.image_format) == (content.class_names, content.image_format)
    one, other = (json.dumps(each.about, sort_keys=True) for each in (content, again))
    assert one == other  # in whatever order its keys are, and NaN is NaN
    ours, theirs = content.samples.columns(), again.samples.columns()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@st.composite
def _changed(draw: st.DrawFn, document: Any) -> Any:
    """A document with one to three of its values replaced, left out, doubled or added to."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        holders = _containers(changed)
        holder = holders[draw(st.integers(0, len(holders) - 1))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = draw(st.sampled_from(keys)) if keys else None
        action = draw(st.sampled_from(["replace", "replace", "replace", "leave out", "add"]))
        value = copy.deepcopy(draw(VALUES))
        if key is None or action == "add":
            if isinstance(holder, dict):
                holder[draw(st.text(max_size=5))] = value
            else:
                holder.append(value)
        elif action == "leave out":
            del holder[key]
        else:
            holder[key] = value
    return changed


def _containers(value: Any) -> list[Any]:
    """All mappings and lists within a document."""
    if not isinstance(value, dict | list):
        return []
    parts = value.values() if isinstance(value, dict) else value
    return [value, *(found for part in parts for found in _containers(part))]


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with some of them flipped, cut off, or others put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "insert", "overwrite"]))
        if kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = draw(PIECES)
        elif kind == "overwrite":
            piece = draw(PIECES)
            content[place : place + len(piece)] = piece
        elif place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(content)


def _safetensors(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def _texts(metadata: Any) -> Any:
    """Metadata holds text only: everything else as JSON."""
    if not isinstance(metadata, dict):
        return metadata
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
