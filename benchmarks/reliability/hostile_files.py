"""A catalogue of hostile files; each must be refused by one line of error, before anything in it is run.

`run` meets them all: experts (`hostile_experts`), and here checkpoints, images and buffer files.
"""

import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import load_file, save

from benchmarks.reliability.fuzz import COLUMNS, METADATA
from benchmarks.reliability.hostile import Hostile, Payload, command, meet_all
from benchmarks.reliability.hostile_experts import EXPERT, MANIFESTS, ROOT, WEIGHTS, repacked, write_experts, zip_bomb
from exml_lightning.callbacks.resume import FORMAT, find_checkpoint
from exml_lightning.generation.buffer_file import read_buffer
from exml_lightning.scenarios import CIFAR10, FolderImages
from exml_lightning.scenarios.core50_frames import list_frames

predict = command("predict", "{}/experts", "{}/photos", "--output", "{}/out.csv")
EXPERTS = ("--data.experts", str(EXPERT.parent), "--trainer.default_root_dir", "{}/run")
DIGITS = ("-c", str(ROOT / "configs" / "split_digits.yaml"), *EXPERTS)
VERBS = {
    verb: command(verb, *DIGITS, "--ckpt_path", "{}/run/checkpoints/last.ckpt") for verb in ("fit", "test", "validate")
}
CKPT = "run/checkpoints/last.ckpt"


def checkpoint(**stream: Any) -> dict[str, Any]:
    """A checkpoint as a fit of split_digits writes it after its first step, of another expert; `stream` changes it."""
    counts = {"total": {"ready": 1, "completed": 1}, "current": {"ready": 1, "completed": 1}}
    weights = load_file(EXPERT)
    known = torch.zeros(10, dtype=torch.bool)
    labels = torch.zeros(4, dtype=torch.long)
    return {
        "exml_lightning": FORMAT,
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {
            **dict.fromkeys(("known", "previous_known"), known),
            **{f"{owner}.{name}": tensor for owner in ("network", "previous") for name, tensor in weights.items()},
        },
        "loops": {
            "fit_loop": {
                "state_dict": {"combined_loader": [{"experience": 0, "position": 1}]},
                **{f"epoch_loop.{name}": counts for name in ("batch_progress", "scheduler_progress")},
                "epoch_progress": counts,
            }
        },
        "callbacks": {"SyntheticBufferCallback": {"seconds_generating": 0.0, "settings": {}}},
        "optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}],
        "lr_schedulers": [],
        "ExpertStream": {
            "scenario": "split_digits",
            "class_names": list("0123456789"),
            "experience": 0,
            "completed": 0,
            "learned": ["00" * 32],
            "buffer": {
                "images": torch.zeros(4, 1, 32, 32),
                **dict.fromkeys(("labels", "tasks", "experiences"), labels),
            },
            **stream,
        },
    }


def _checkpoint(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        content = checkpoint()
        change(content)
        return _saved(content)

    return make


def _saved(content: object) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _written(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make(folder))
        return path

    return build


def _checkpoints() -> list[Hostile]:
    changes: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
        ("whose stream is a list", lambda c: c.update(ExpertStream=[1])),
        ("without loops", lambda c: c.pop("loops")),
        ("whose optimiser is null", lambda c: c.update(optimizer_states=None)),
        ("of before 0.2.0", lambda c: c.pop("exml_lightning")),
    ]
    return [
        Hostile(
            "a checkpoint with code", _written(CKPT, lambda f: _saved({"ExpertStream": Payload(f)})), VERBS["test"]
        ),
        Hostile(
            "a checkpoint with code, to go on with", _written(CKPT, lambda f: pickle.dumps(Payload(f))), VERBS["fit"]
        ),
        Hostile("a checkpoint that is a zip bomb", _written(CKPT, lambda f: zip_bomb()), VERBS["test"]),
        Hostile(
            "a checkpoint whose tensor claims more than it holds",
            _written(CKPT, lambda f: repacked(_saved(checkpoint()), lambda b: b.replace(b"K\nKT", b"K\xffKT"))),
            VERBS["test"],
        ),
        Hostile("half a checkpoint", _written(CKPT, lambda f: _saved(checkpoint())[:20_000]), VERBS["validate"]),
        *(Hostile(f"a checkpoint {what}", _written(CKPT, _checkpoint(change)), _check) for what, change in changes),
        *(Hostile(f"a checkpoint of another run ({verb})", _foreign, meet) for verb, meet in VERBS.items()),
    ]


def _foreign(folder: Path) -> Path:
    """A checkpoint that has learned another expert; the error names the manifest that lacks it."""
    _written(CKPT, lambda f: _saved(checkpoint()))(folder)
    return EXPERT.with_name("manifest.yaml")


def _check(folder: Path) -> None:
    find_checkpoint(folder / "run", "last", "fit")


def _image(make: Callable[[Path], bytes]) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        write_experts(folder, EXPERT.name, EXPERT.read_bytes())
        return _written("photos/a.png", make)(folder)

    return build


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG of one row of black at most, whatever its header says."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(bytes(min(width, 100_000) + 1))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _link(folder: Path) -> Path:
    path = _image(lambda f: b"")(folder)
    path.unlink()
    path.symlink_to(path)
    return path


def _pipe(folder: Path) -> Path:
    path = _image(lambda f: b"")(folder)
    path.unlink()
    os.mkfifo(path)
    return path


def _noise() -> bytes:
    file, info = BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("a", "x" * (64 * 2**20), zip=True)
    Image.new("L", (8, 8)).save(file, "png", pnginfo=info)
    return file.getvalue()


def _cifar10(folder: Path) -> Path:
    for name in CIFAR10.class_names:
        path = _written(f"cifar10/test/{name}/bomb.png", lambda f: png(60_000, 60_000))(folder)
    return path


def _boxes(folder: Path) -> Path:
    path = folder / "meta" / "bbox.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("bbox/s1/CropC_o1.txt", bytes(64 * 2**20))
    return path


IMAGES = [
    Hostile("a PNG of 60,000 x 60,000", _image(lambda f: png(60_000, 60_000)), predict),
    Hostile("a PNG of 10,000 x 10,000", _image(lambda f: png(10_000, 10_000)), predict),
    Hostile("a PGM of 60,000 x 60,000, named PNG", _image(lambda f: b"P5 60000 60000 255\n"), predict),
    Hostile("a PNG of 2^31 x 2^31", _image(lambda f: png(2**31 - 1, 2**31 - 1)), predict),
    Hostile("a PNG with 64 MB of text", _image(lambda f: _noise()), predict),
    Hostile("a PNG cut off", _image(lambda f: png(32, 32)[:45]), predict),
    Hostile("an SVG named PNG", _image(lambda f: b"<svg xmlns='http://www.w3.org/2000/svg'/>"), predict),
    Hostile(
        "an EPS, which starts a program",
        _image(lambda f: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
        predict,
    ),
    Hostile("a link to itself", _link, predict),
    Hostile("a pipe named PNG", _pipe, predict),
    Hostile("CIFAR10 of 60,000 x 60,000", _cifar10, lambda f: CIFAR10().load(f, train=False)),
    Hostile("CORe50's boxes as a zip bomb", _boxes, list_frames),
    Hostile(
        "an auxiliary image of 60,000 x 60,000",
        _image(lambda f: png(60_000, 60_000)),
        lambda f: FolderImages(str(f / "photos")).open(f, (1, 32, 32)),
    ),
]


def _buffer(**metadata: str) -> Callable[[Path], bytes]:
    return lambda folder: save(COLUMNS, METADATA | metadata)


def _read(folder: Path) -> object:
    return read_buffer(folder / "expert_0.safetensors")


NAMES = json.dumps([str(k) for k in range(200_000)])
BUFFERS = [
    Hostile(f"a buffer file {what}", _written("expert_0.safetensors", make), _read)
    for what, make in [
        ("with a header of 4 EB", lambda f: struct.pack("<Q", 2**62) + b"{}"),
        ("that is a pickle with code", lambda f: pickle.dumps(Payload(f))),
        ("whose JSON is 100,000 deep", _buffer(class_names="[" * 100_000)),
        ("about something 100 deep", _buffer(about='{"a":' * 100 + "0" + "}" * 100)),
        ("with 200,000 classes", _buffer(class_names=NAMES)),
        ("with a number for classes", _buffer(class_names="7")),
        ("with a std of NaN", _buffer(input='{"shape": [1, 2, 3], "mean": [0], "std": [NaN]}')),
        ("with images of no size", lambda f: save(COLUMNS | {"images": torch.zeros(4, 1, 0, 3)}, METADATA)),
        ("with labels below 0", lambda f: save(COLUMNS | {"labels": torch.full((4,), -1)}, METADATA)),
        ("with tasks of 2^62", lambda f: save(COLUMNS | {"tasks": torch.full((4,), 2**62)}, METADATA)),
    ]
]

CATALOGUE = [*MANIFESTS, *WEIGHTS, *_checkpoints(), *IMAGES, *BUFFERS]


def run(folder: Path) -> list[tuple[str, bool, str]]:
    """Meet every file of the catalogue.

    Args:
        folder: Where to write them, each into a folder of its own.

    Returns:
        Of each its name, whether it was refused as it should be, and the error, or what happened in its place.
    """
    return meet_all(CATALOGUE, folder)
