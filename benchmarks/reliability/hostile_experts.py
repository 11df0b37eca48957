"""Hostile folders of experts: the manifest, and the weights that it names."""

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save
from torch import Tensor, nn

from benchmarks.reliability.hostile import Hostile, Payload, command
from exml_lightning.experts.weights import sha256

ROOT = Path(__file__).parent.parent.parent
EXPERT = ROOT / "checkpoints" / "split_digits" / "run0" / "expert_0.safetensors"
HERE = __name__
predict = command("predict", "{}/experts", "{}/image.png", "--output", "{}/out.csv")
fit = command("fit", "-c", str(ROOT / "configs" / "from_folder.yaml"), "--data.experts", "{}/experts")


class ReadsFile(nn.Module):
    """A network whose constructor unpickles a file that its arguments name, as some libraries' do."""

    def __init__(self, checkpoint_path: str, num_classes: int = 10) -> None:
        super().__init__()
        torch.load(checkpoint_path, weights_only=False)


def write_experts(folder: Path, name: str, weights: bytes, **changes: Any) -> Path:
    """Write a folder of one expert, and an image to show to it; return its weight file."""
    experts = folder / "experts"
    experts.mkdir(parents=True)
    path = experts / name
    path.write_bytes(weights)
    entry = {
        "file": name,
        "sha256": sha256(path),
        "architecture": {"class_path": "exml_lightning.models.LeNet5", "init_args": {"num_classes": 10}},
        "classes": ["5", "4"],
        "outputs": [5, 4],
    }
    top = {key: value for key, value in changes.items() if key in ("scenario", "input")}
    manifest = {
        "format": 1,
        "scenario": "hostile",
        "class_names": ["4", "5"],
        "input": {"shape": [1, 32, 32], "mean": [0.3], "std": [0.3]},
        "experts": [entry | {key: value for key, value in changes.items() if key not in top}],
    }
    (experts / "manifest.yaml").write_text(yaml.safe_dump(manifest | top))
    Image.new("L", (32, 32)).save(folder / "image.png")
    return path


def _manifest(text: str | bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = write_experts(folder, EXPERT.name, EXPERT.read_bytes()).with_name("manifest.yaml")
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return build


def _said(**changes: Any) -> Callable[[Path], Path]:
    """A manifest that says other things of a sound expert; ``{}`` stands for the folder."""

    def build(folder: Path) -> Path:
        own = json.loads(json.dumps(changes).replace("{}/", f"{folder}/"))
        return write_experts(folder, EXPERT.name, EXPERT.read_bytes(), **own).with_name("manifest.yaml")

    return build


def _class(class_path: str, **init_args: Any) -> Callable[[Path], Path]:
    return _said(architecture={"class_path": class_path, "init_args": init_args})


def _code(class_path: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = _class(class_path)(folder)
        path.with_name("evil.py").write_text(f"import os\nos.mkdir({str(folder / 'canary')!r})\n")
        return path

    return build


def _reads_file(folder: Path) -> Path:
    torch.save({"a": Payload(folder)}, folder / "evil.pt")
    return _class(f"{HERE}.ReadsFile", checkpoint_path="{}/evil.pt")(folder)


def _pipe(name: str) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        path = write_experts(folder, "expert.pt", b"").with_name(name)
        path.unlink()
        os.mkfifo(path)
        return path

    return build


def _weights(name: str, make: Callable[[Path], bytes]) -> Callable[[Path], Path]:
    return lambda folder: write_experts(folder, name, make(folder))


def _saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _tensors(**changes: Tensor) -> dict[str, Tensor]:
    return {**load_file(EXPERT), **{f"classifier.{name}": tensor for name, tensor in changes.items()}}


def _tar(folder: Path) -> bytes:
    file, content = io.BytesIO(), pickle.dumps(Payload(folder))
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def repacked(content: bytes, change: Callable[[bytes], bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """Write a file of torch.save anew, with another pickle in it or compressed."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", compression) as new:
        for part in old.infolist():
            new.writestr(part.filename, change(old.read(part)) if part.filename.endswith(".pkl") else old.read(part))
    return file.getvalue()


def zip_bomb() -> bytes:
    """128 MB of zeros, in some hundred kB."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/version", "3\n")
        with archive.open("archive/data/0", "w", force_zip64=True) as part:
            for _ in range(8):
                part.write(bytes(16 * 2**20))
    return file.getvalue()


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], bytes]:
    """Weights with another header."""

    def make(folder: Path) -> bytes:
        whole = save(_tensors())
        length = int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + whole[8 + length :]

    return make


def _twice(folder: Path) -> bytes:
    part = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    text = f"{{{part}, {part}}}".encode()
    return struct.pack("<Q", len(text)) + text + bytes(4)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 40))
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 40))
SPARSE = torch.zeros(10, 84).to_sparse()
LIE = struct.pack("<i", 10**9)

MANIFESTS = [
    Hostile("a YAML bomb of aliases", _manifest(LAUGHS), predict),
    Hostile("a YAML bomb of merges", _manifest(MERGES), predict),
    Hostile("an alias within itself", _manifest("format: &a [*a]\n"), predict),
    Hostile("a YAML tag that calls", _manifest("a: !!python/object/apply:os.mkdir ['canary']\n"), predict),
    Hostile("a YAML list 10,000 deep", _manifest("[" * 10_000), predict),
    Hostile("a YAML file of 17 MB", _manifest("#" * (17 * 2**20)), predict),
    Hostile("a number of 100,000 digits", _manifest("format: " + "9" * 10**5), predict),
    Hostile("a number in base 60", _manifest("format: 1" + ":1" * 10**5), predict),
    Hostile("a manifest that is a pipe", _pipe("manifest.yaml"), predict),
    Hostile("a manifest in UTF-16", _manifest("format: 1".encode("utf-16")), predict),
    Hostile("a file ../", _said(file="../expert.pt"), fit),
    Hostile("a file ..", _said(file=".."), predict),
    Hostile("an absolute file", _said(file="/etc/passwd"), predict),
    Hostile("a file with a null byte", _said(file="a\0b"), predict),
    Hostile("a scenario ../../, which names the run folder", _said(scenario="../../elsewhere"), fit),
    Hostile("a scenario /tmp/", _said(scenario="/tmp/elsewhere"), fit),
    Hostile("a class name that clears the screen", _said(classes=["\x1b[2J", "4"]), predict),
    Hostile("an image of 10^18 values", _said(input={"shape": [10**6] * 3, "mean": [0], "std": [1]}), predict),
    Hostile("class_path os.mkdir", _class("os.mkdir", path="{}/canary"), predict),
    Hostile("class_path subprocess.Popen", _class("subprocess.Popen", args=["mkdir", "{}/canary"]), predict),
    Hostile("class_path builtins.exec", _class("builtins.exec", source="import os; os.mkdir('canary')"), predict),
    Hostile("class_path torch.load", _class("torch.load", f="{}/experts/evil.pt", weights_only=False), predict),
    Hostile("class_path in the folder of experts", _code("experts.evil.Net"), fit),
    Hostile("trust_remote_code in init_args", _class("torch.nn.Linear", trust_remote_code=True), predict),
    Hostile("a constructor that unpickles a file", _reads_file, predict),
]
WEIGHTS = [
    Hostile("a pickle with code", _weights("a.pt", lambda f: _saved({"a": Payload(f)})), fit),
    Hostile(
        "a pickle with code, torch's older format",
        _weights("a.pth", lambda f: _saved(Payload(f), _use_new_zipfile_serialization=False)),
        predict,
    ),
    Hostile("a bare pickle with code", _weights("a.bin", lambda f: pickle.dumps(Payload(f))), predict),
    Hostile("a pickle with code in a tar, torch's oldest format", _weights("a.pt", _tar), predict),
    Hostile("a pickle with code named safetensors", _weights("a.safetensors", lambda f: _saved(Payload(f))), predict),
    Hostile("a zip bomb", _weights("a.pt", lambda f: zip_bomb()), predict),
    Hostile(
        "a zip that is compressed",
        _weights("a.pt", lambda f: repacked(_saved(_tensors()), bytes, zipfile.ZIP_DEFLATED)),
        predict,
    ),
    Hostile(
        "a tensor that claims 4 GB",
        _weights("a.pt", lambda f: repacked(_saved({"a": torch.ones(4)}), lambda b: b.replace(b"K\4", b"J" + LIE))),
        predict,
    ),
    Hostile(
        "a tensor of 4 TB by stride 0", _weights("a.pt", lambda f: _saved({"a": torch.ones(1).expand(10**12)})), fit
    ),
    Hostile("a sparse tensor", _weights("a.pt", lambda f: _saved(_tensors(weight=SPARSE))), predict),
    Hostile(
        "a tensor without values", _weights("a.pt", lambda f: _saved(_tensors(bias=torch.ones(10).to("meta")))), fit
    ),
    Hostile("complex weights", _weights("a.pt", lambda f: _saved(_tensors(bias=torch.ones(10) + 1j))), predict),
    Hostile(
        "whole numbers for weights", _weights("a.safetensors", lambda f: save(_tensors(bias=torch.arange(10)))), fit
    ),
    Hostile("tensors without names", _weights("a.pt", lambda f: _saved({0: torch.ones(1)})), predict),
    Hostile("a header of 4 EB", _weights("a.safetensors", lambda f: struct.pack("<Q", 2**62) + b"{}"), predict),
    Hostile("a header that is no JSON", _weights("a.safetensors", lambda f: struct.pack("<Q", 8) + b"}" * 8), predict),
    Hostile("a header with a name twice", _weights("a.safetensors", _twice), predict),
    Hostile(
        "offsets beyond the file",
        _weights("a.safetensors", _header(lambda h: h["classifier.bias"].update(data_offsets=[0, 2**40]))),
        predict,
    ),
    Hostile(
        "offsets that overlap",
        _weights("a.safetensors", _header(lambda h: h["features.0.bias"].update(data_offsets=[0, 24]))),
        predict,
    ),
    Hostile(
        "a shape larger than its data",
        _weights("a.safetensors", _header(lambda h: h["classifier.bias"].update(shape=[2**40]))),
        predict,
    ),
    Hostile("an empty file", _weights("a.safetensors", lambda f: b""), predict),
    Hostile("weights that are a pipe", _pipe("expert.pt"), predict),
]
