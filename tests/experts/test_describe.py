"""`exml manifest`: a manifest from weight files and a few words."""

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import load_expert, read_manifest, save_weights
from exml_lightning.experts.describe import NewExperts, add_experts
from exml_lightning.models import LeNet5

LENET = "exml_lightning.models.LeNet5"


class Tiny(nn.Module):
    """Somebody's own network: its output units are not called num_classes, and its last layer is no Linear."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 6)
        self.head = nn.Conv2d(6, units, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.hidden(images.flatten(1))[:, :, None, None]).flatten(1)


def save(path: Path, network: nn.Module) -> nn.Module:
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)
    return network.eval()


@pytest.fixture
def two(tmp_path):
    """A folder of two LeNets, the second with class names beside it, and what the first call is told."""
    torch.manual_seed(0)
    for name in ("expert_10.pt", "expert_2.pt"):
        save(tmp_path / "own" / name, LeNet5(3))
    (tmp_path / "own" / "expert_10.txt").write_text("bird\n-\ncat\n\n", encoding="utf-8-sig")
    (tmp_path / "own" / "expert_2.txt").write_text("cat\ndog\ncow\n")
    return tmp_path / "own"


def test_three_architectures_with_overlapping_classes(tmp_path, capsys):
    """By the command line; then each expert answers images of the stream as the network by itself does."""
    torch.manual_seed(1)
    folder = tmp_path / "zoo"
    lenet = save(folder / "a.pt", LeNet5(3))
    resnet = save(folder / "b.pth", torchvision.models.resnet18(num_classes=4))
    tiny = save(folder / "c.bin", Tiny(2))
    main(["manifest", str(folder), "--architecture", LENET, "--classes", "cat", "dog", "bird", "--size", "32",
          "--files", "a.pt", "--mean", "0.25", "--std", "0.5", "--accuracy", "0.75", "--license", "MIT"])  # fmt: skip
    main(["manifest", str(folder), "--architecture", "torchvision.models.resnet18", "--classes", "frog", "dog", "-",
          "cat", "--size", "20", "24", "--files", str(folder / "b.pth")])  # fmt: skip
    main(["manifest", str(folder), "--architecture", "tests.experts.test_describe.Tiny", "--init_args", "{units: 2}",
          "--classes", "bird", "2.0", "--size", "8", "--channels", "1"])  # fmt: skip
    out = capsys.readouterr().out
    assert "ImageNet" in out
    assert f"next: exml fit -c configs/from_folder.yaml --data.experts {folder}" in out
    assert f"exml statistics {folder} IMAGES first" in out
    assert "a.pt: listed already" in out

    manifest = read_manifest(folder)
    assert (manifest.scenario, manifest.run) == ("zoo", None)
    assert manifest.class_names == ("cat", "dog", "bird", "frog", "2.0")
    assert manifest.input == ImageFormat((1, 32, 32), (0.25,), (0.5,))
    first, second, third = manifest.experts
    assert [entry.file for entry in manifest.experts] == ["a.pt", "b.pth", "c.bin"]
    assert first.sha256 == hashlib.sha256((folder / "a.pt").read_bytes()).hexdigest()
    assert (first.architecture.init_args, first.classifier, first.accuracy) == ({"num_classes": 3}, "classifier", 0.75)
    assert (first.input, first.license) == (None, "MIT")
    assert (second.classes, second.outputs) == (("frog", "dog", "cat"), (0, 1, 3))
    assert second.input == ImageFormat((3, 20, 24), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (second.architecture.init_args, second.classifier) == ({"num_classes": 4}, "fc")
    assert third.input == ImageFormat((1, 8, 8), (0.25,), (0.5,))  # the stream's, which is grey too
    assert (third.architecture.init_args, third.classifier) == ({"units": 2}, None)

    images = torch.rand(3, 1, 32, 32)
    stream = (images - 0.25) / 0.5
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = F.interpolate(images, (20, 24), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    small = F.interpolate(images, (8, 8), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = [
            lenet(stream),
            resnet((rgb - mean[:, None, None]) / std[:, None, None])[:, [0, 1, 3]],
            tiny((small - 0.25) / 0.5),
        ]
    for i, logits in enumerate(expected):
        torch.testing.assert_close(load_expert(folder, manifest, i)(stream), logits, atol=1e-4, rtol=1e-4)
    assert manifest.classes_of(1) == [3, 1, 0]


def test_all_files_in_natural_order_with_names_from_files(two):
    for name in ("notes.md", ".hidden.pt"):
        (two / name).write_text("no weights")
    done = add_experts(two, NewExperts(LENET, size=(32,), scenario="pets"))
    assert (done.added, done.skipped) == (2, ())
    assert done.manifest == read_manifest(two)
    assert [(entry.file, entry.classes, entry.outputs) for entry in done.manifest.experts] == [
        ("expert_2.pt", ("cat", "dog", "cow"), (0, 1, 2)), ("expert_10.pt", ("bird", "cat"), (0, 2))
    ]  # fmt: skip
    assert (done.manifest.class_names, done.manifest.scenario) == (("cat", "dog", "cow", "bird"), "pets")
    assert done.manifest.input == ImageFormat((1, 32, 32), (0.5,), (0.5,))


def test_pretrained_weights_are_not_fetched(tmp_path):
    name = "torchvision.models.shufflenet_v2_x0_5"
    save(tmp_path / "a.pt", torchvision.models.shufflenet_v2_x0_5(num_classes=2))
    new = NewExperts(name, {"weights": "IMAGENET1K_V1"}, classes=("cat", "dog"), size=(32,))
    assert add_experts(tmp_path, new).manifest.experts[0].architecture.init_args == {"weights": None, "num_classes": 2}


def test_a_stream_that_grows_keeps_its_places(two):
    add_experts(two, NewExperts(LENET, size=(32,), files=("expert_10.pt",)))
    text = (two / "manifest.yaml").read_text()
    again = add_experts(two, NewExperts(LENET, files=("expert_10.pt",)))
    assert (again.added, again.skipped) == (0, ("expert_10.pt",))
    assert (two / "manifest.yaml").read_text() == text
    before = read_manifest(two)
    after = add_experts(two, NewExperts(LENET))
    assert (after.added, after.skipped) == (1, ("expert_10.pt",))
    assert after.manifest.experts[:1] == before.experts
    assert after.manifest.class_names == ("bird", "cat", "dog", "cow")
    (two / "expert_10.pt").unlink()  # what a run has learned may go
    save(two / "expert_11.pt", LeNet5(2))
    assert add_experts(two, NewExperts(LENET, classes=("bird", "emu"))).manifest.class_names[-1] == "emu"


def test_the_initial_model_of_exml_experts_is_no_expert(tmp_path, digit_experts):
    for path in digit_experts.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    save(tmp_path / "initial.safetensors", LeNet5())
    done = add_experts(tmp_path, NewExperts(LENET, classes=tuple("0123456789")))
    assert done.added == 0
    assert done.skipped == tuple(f"expert_{k}.safetensors" for k in range(5))


def test_heads_of_one_file_are_listed_once_a_task(tmp_path):
    network = save(tmp_path / "heads.pt", Tiny(4))
    new = {"architecture": f"{__name__}.Tiny", "init_args": {"units": 4}, "size": (8,), "channels": 1}
    new["files"] = ("heads.pt",)
    add_experts(tmp_path, NewExperts(**new, classes=("ant", "bee", "-", "-")))
    with pytest.raises(ExmlError, match=r"heads\.pt is listed already, with the classes .*another --task"):
        add_experts(tmp_path, NewExperts(**new, classes=("-", "-", "cow", "dog")))
    done = add_experts(tmp_path, NewExperts(**new, classes=("-", "-", "cow", "dog"), task=1))
    assert [(entry.task, entry.outputs) for entry in done.manifest.experts] == [(0, (0, 1)), (1, (2, 3))]
    assert done.manifest.experts[0].classifier is None
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        expected = network((images - 0.5) / 0.5)[:, 2:]
    torch.testing.assert_close(load_expert(tmp_path, done.manifest, 1)((images - 0.5) / 0.5), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, r"expert_2\.pt: which images does it take\? Give --size"),
        ({"classes": ("cat", "dog")}, r"expert_2\.pt.*classifier\.weight \[3, 84\] where.*num_classes is 2"),
        ({"classes": ("cat", "dog"), "init_args": {"num_classes": 3}}, r"expert_2\.pt: LeNet5 has 3 output units.*2"),
        ({"classes": ("cat", "dog", "cat")}, r"expert_2\.pt: --classes names cat twice"),
        ({"classes": ("-", "-", "-")}, r"expert_2\.pt: --classes leaves a name empty"),
        ({"channels": 3}, r"expert_2\.pt: LeNet5 refuses images of shape \[3, 32, 32\]"),
        ({"mean": (0.1, 0.2), "std": (0.1, 0.2)}, r"expert_2\.pt: input mean \[0\.1, 0\.2\].*one value a channel"),
        ({"architecture": "nowhere.Net"}, r"expert_2\.pt: architecture class_path 'nowhere.Net' cannot be imported"),
        ({"accuracy": 75.0}, r"experts\[0\]\.accuracy: .* less than or equal to 1"),
        ({"classifier": "head"}, r"expert_2\.pt: the manifest's classifier 'head' is no layer"),
        ({"files": ("expert_2.pt", "/etc/x.pt")}, r"/etc/x\.pt is not in .*: put it there"),
        ({"files": ("expert_3.pt",)}, r"expert_3\.pt is missing, though --files names it"),
        ({"files": ()}, r"own has no weight files \(\.safetensors .*: put them there"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(two, changes, message):
    told = {"architecture": LENET, "size": (32,)} | changes
    with pytest.raises(ExmlError, match=message):
        add_experts(two, NewExperts(**told))
    assert not (two / "manifest.yaml").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (1, 2, 3)}, "--size 1 2 3"),
        ({"mean": (0.5,)}, "--mean and --std, or neither"),
        ({"mean": (125, 123, 114), "std": (60, 60, 60)}, r"--mean 125 123 114: give that of pixels in \[0, 1\]"),
        ({}, "none is not a folder"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, changes, message):
    with pytest.raises(ExmlError, match=message):
        add_experts(tmp_path / "none", NewExperts(LENET, **changes))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"expert_2\.pt: which classes does it know\? Give --classes, or expert_2\.txt"),
        (b"", r"expert_2\.txt leaves a name empty"),
        (b"\xff\xfe", r"expert_2\.pt: .*expert_2\.txt, its class names, is not UTF-8"),
    ],
)
def test_class_names_beside_a_file_that_will_not_do(two, content, message):
    (two / "expert_2.txt").unlink()
    if content is not None:
        (two / "expert_2.txt").write_bytes(content)
    with pytest.raises(ExmlError, match=message):
        add_experts(two, NewExperts(LENET, size=(32,)))


def test_an_error_or_ctrl_c_leaves_the_manifest_as_it_was(two, monkeypatch):
    add_experts(two, NewExperts(LENET, size=(32,), files=("expert_2.pt",)))
    text = (two / "manifest.yaml").read_text()
    broken = LeNet5(3)
    broken.classifier.bias.data[0] = float("nan")
    save(two / "expert_11.pt", broken)
    with pytest.raises(ExmlError, match=r"expert_11\.pt: classifier\.bias holds NaN"):
        add_experts(two, NewExperts(LENET, classes=("a", "b", "c")))

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("exml_lightning.experts.first_reading.load_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add_experts(two, NewExperts(LENET, classes=("a", "b", "c")))
    assert (two / "manifest.yaml").read_text() == text
    with pytest.raises(ExmlError, match="is of scenario own: leave out --scenario other"):
        add_experts(two, NewExperts(LENET, scenario="other"))
    save(two / "expert_2.pt", LeNet5(3))
    with pytest.raises(ExmlError, match=r"expert_2\.pt was changed since manifest\.yaml listed it"):
        add_experts(two, NewExperts(LENET))


def test_what_is_said_of_the_images_of_a_listed_file_must_be_what_is_listed(tmp_path):
    save_weights(LeNet5(2), tmp_path / "a.safetensors")
    said = {"classes": ("ant", "bee"), "size": (32,), "channels": 1, "files": ("a.safetensors",)}
    add_experts(tmp_path, NewExperts("exml_lightning.models.LeNet5", **said))
    again = add_experts(tmp_path, NewExperts("exml_lightning.models.LeNet5", **said, mean=(0.5,), std=(0.5,)))
    assert again.skipped == ("a.safetensors",)  # the same in other words
    for other in ({"mean": (0.1,), "std": (0.5,)}, {"size": (28,)}, {"channels": 3}):
        with pytest.raises(ExmlError, match=r"a\.safetensors is listed already, with .*correct its input in manifest"):
            add_experts(tmp_path, NewExperts("exml_lightning.models.LeNet5", **{**said, **other}))
