"""What is found out of strangers' networks when they are described, and what it does for the answers."""

from types import SimpleNamespace

import pytest
import torch
import torchvision
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import load_expert, read_manifest, save_weights
from exml_lightning.experts.describe import NewExperts, add_experts
from exml_lightning.models import LeNet5

HERE = __name__
IMAGES = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(4))


class Net(nn.Module):
    """A small network that ends, or begins, as strangers' do."""

    def __init__(self, num_classes: int = 2, end: str = "", begin: str = "") -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, track_running_stats="untracked" not in begin)
        self.first = nn.Hardtanh(inplace=True) if "inplace" in begin else nn.Identity()
        self.head = nn.Linear(64, num_classes)
        self.end = end

    def forward(self, images: torch.Tensor) -> object:
        logits = self.head(self.norm(self.first(images)).flatten(1))
        if self.end == "softmax":
            return logits.softmax(1)
        if self.end == "by hand":
            return logits.exp() / logits.exp().sum(1, keepdim=True)
        if self.end == "list":
            return [None, logits]
        if self.end == "object":
            return SimpleNamespace(logits=logits)
        if self.end == "all squeezed":
            return logits.squeeze()
        if self.end == "sigmoid":
            return logits.sigmoid()
        if self.end == "squeezed":
            return logits.squeeze(1)
        if self.end == "tuple":
            return logits, images
        return {"logits": logits} if self.end == "mapping" else logits


class Fixed(nn.Module):
    """Has a number of classes that nobody can change."""

    def __init__(self, units: int = 3) -> None:
        super().__init__()
        self.head = nn.Linear(64, units)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


class Lazy(nn.Module):
    """Learns its sizes from the first image."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.body, self.head = nn.LazyConv2d(3, 3), nn.LazyLinear(num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(images).flatten(1))


def make(folder, classes, units=None, begin="", end="", **said):
    """Describe one, by the command's words; return the network, its expert and the notes."""
    folder.mkdir()
    torch.manual_seed(2)
    network = Net(units or len(classes), end, begin).eval()
    network.head.weight.data *= 20
    torch.save(network.state_dict(), folder / "a.pt")
    new = NewExperts(f"{HERE}.Net", {"end": end, "begin": begin}, classes, (8,), 1, (0.5,), (0.5,), **said)
    notes = add_experts(folder, new).notes
    return network, load_expert(folder, read_manifest(folder), 0), " ".join(notes)


def plain(network, images):
    with torch.no_grad():
        return network.head(network.norm(network.first(images.clone())).flatten(1))


@pytest.mark.parametrize(("end", "said"), [
    ("softmax", "returns probabilities"), ("by hand", "returns probabilities"),
    ("sigmoid", "returns a sigmoid of each class"), ("", ""),
    ("tuple", "the first of the 2"), ("mapping", "its `logits` is taken"), ("list", "the first of the 2"),
    ("object", "its `logits` is taken"), ("all squeezed", ""),
])  # fmt: skip
def test_what_it_returns_is_told_and_becomes_logits(tmp_path, end, said):
    network, expert, notes = make(tmp_path / "zoo", ("cat", "dog", "cow"), end=end)
    logits = plain(network, IMAGES)
    expected = logits.log_softmax(1) if end in ("softmax", "by hand") else logits
    clamped = expected.clamp(-16.1, 16.1) if end == "sigmoid" else expected.clamp_min(-69)
    torch.testing.assert_close(expert(IMAGES), clamped, atol=0.05, rtol=0.05)
    assert said in notes
    assert bool(notes) == bool(said)


@pytest.mark.parametrize(("end", "squash"), [("sigmoid", torch.sigmoid), ("softmax", lambda z: z.softmax(1))])
def test_what_it_returns_can_be_said_instead(tmp_path, end, squash):
    network, expert, notes = make(tmp_path / "zoo", ("cat", "dog", "cow"), end=end, outputs="logits")
    torch.testing.assert_close(expert(IMAGES), squash(plain(network, IMAGES)))
    assert notes == ""


@pytest.mark.parametrize("units", [2, 4])
def test_the_fault_nearest_to_success_is_named_of_a_network_without_num_classes(tmp_path, units):
    """Not that it takes no such argument, which is tried first."""
    torch.manual_seed(0)
    save_weights(Fixed(units), tmp_path / "a.safetensors")
    with pytest.raises(ExmlError, match=r"1 of another shape|1 unexpected \(head\.bias\)|of another shape"):
        add_experts(tmp_path, NewExperts(f"{HERE}.Fixed", {}, ("a", "b", "c"), (8,), 1))


def test_small_logits_of_an_untrained_network_are_no_probabilities(tmp_path):
    save_weights(LeNet5(3), tmp_path / "a.safetensors")
    weights = LeNet5(3)
    weights.classifier.weight.data *= 1e-3
    weights.classifier.bias.data.fill_(0.5)
    save_weights(weights, tmp_path / "a.safetensors")  # all answers are 0.5, about
    add_experts(tmp_path, NewExperts("exml_lightning.models.LeNet5", classes=("a", "b", "c"), size=(32,)))
    assert read_manifest(tmp_path).experts[0].architecture.returns is None


@pytest.mark.parametrize("end", ["", "sigmoid", "squeezed"])
@pytest.mark.parametrize("classes", [("no", "yes"), ("-", "yes")])
def test_one_unit_tells_two_classes_apart(tmp_path, end, classes):
    """By softmax the second of them is as probable as the sigmoid of the unit says."""
    network, expert, _ = make(tmp_path / "zoo", classes, units=1, end=end)
    z = plain(network, IMAGES)[:, 0].clamp(-16, 16)
    if classes[0] == "no":
        torch.testing.assert_close(expert(IMAGES).softmax(1)[:, 1], z.sigmoid(), atol=1e-4, rtol=1e-4)
    else:
        torch.testing.assert_close(expert(IMAGES)[:, 0], z, atol=0.05, rtol=0.05)
    assert expert.model(IMAGES).shape == (5, 2)


def test_one_unit_and_one_name_is_refused(tmp_path):
    with pytest.raises(ExmlError, match="one output unit, which tells two classes apart: name both"):
        make(tmp_path / "zoo", ("yes",), units=1)


def test_images_stay_as_they_are(tmp_path):
    network, expert, _ = make(tmp_path / "zoo", ("cat", "dog"), begin="inplace")
    images = IMAGES * 3
    torch.testing.assert_close(expert(images), plain(network, images))
    assert torch.equal(images, IMAGES * 3)
    student = expert_architecture(tmp_path).with_classes(4).empty((1, 8, 8), 0)
    student(images)
    assert torch.equal(images, IMAGES * 3)


def expert_architecture(tmp_path):
    return read_manifest(tmp_path / "zoo").experts[0].architecture


def test_batch_norm_without_statistics_is_noticed(tmp_path):
    _, expert, notes = make(tmp_path / "zoo", ("cat", "dog"), begin="untracked")
    assert "otherwise in other company" in notes
    assert not torch.allclose(expert(IMAGES)[:1], expert(IMAGES[:1]))  # it is so


def test_some_classes_only(tmp_path):
    network, expert, _ = make(tmp_path / "a", ("cat", "dog", "cow"), keep=("cow", "cat"))
    torch.testing.assert_close(expert(IMAGES), plain(network, IMAGES)[:, [0, 2]])
    _, expert, _ = make(tmp_path / "b", ("cat", "dog", "cow"), drop=("cow", "cat"))
    assert read_manifest(tmp_path / "b").experts[0].classes == ("dog",)
    for said, message in (({"keep": ("cwo",)}, "'cwo'.*not among the classes"), ({"drop": ("cat", "dog")}, "no class")):
        with pytest.raises(ExmlError, match=message):
            make(tmp_path / message[:3], ("cat", "dog"), **said)


def test_which_weights_is_said_and_kept(tmp_path, capsys):
    folder = tmp_path / "zoo"
    folder.mkdir()
    torch.manual_seed(0)
    raw, mean = Net(2).eval(), Net(2).eval()
    torch.save({"state_dict": raw.state_dict(), "state_dict_ema": mean.state_dict()}, folder / "a.pt")
    words = f"--architecture {HERE}.Net --classes cat dog --size 8 --channels 1 --mean 0 --std 1".split()
    main(["manifest", str(folder), *words])
    assert "its weights state_dict are taken; it also has state_dict_ema (--weights KEY)" in capsys.readouterr().out
    torch.testing.assert_close(load_expert(folder, read_manifest(folder), 0)(IMAGES), plain(raw, IMAGES))
    first = read_manifest(folder).experts[0].identity
    with pytest.raises(ExmlError, match="listed already, with the weights state_dict: take its entry out"):
        add_experts(folder, NewExperts(f"{HERE}.Net", files=("a.pt",), weights="state_dict_ema", size=(8,)))
    (folder / "manifest.yaml").unlink()
    main(["manifest", str(folder), *words, "--weights", "state_dict_ema"])
    assert read_manifest(folder).experts[0].identity != first  # else what was made of the one would be taken
    assert read_manifest(folder).experts[0].weights == "state_dict_ema"
    torch.testing.assert_close(load_expert(folder, read_manifest(folder), 0)(IMAGES), plain(mean, IMAGES))


def test_layers_without_sizes(tmp_path):
    torch.manual_seed(0)
    network = Lazy(2).eval()
    expected = network(IMAGES).detach()
    torch.save(network.state_dict(), tmp_path / "a.pth.tar")
    (tmp_path / "a.txt").write_text("cat\ndog\n")
    add_experts(tmp_path, NewExperts(f"{HERE}.Lazy", size=(8,), channels=1))
    torch.testing.assert_close(load_expert(tmp_path, read_manifest(tmp_path), 0)(IMAGES), expected)
    student = read_manifest(tmp_path).experts[0].architecture.with_classes(3)
    one, other = (student.empty((1, 8, 8), 7, "ex-model") for _ in range(2))
    assert torch.equal(one.head.weight, other.head.weight)


def test_the_size_of_another_network_has_to_be_given(tmp_path):
    make(tmp_path / "zoo", ("cat", "dog"))
    save_weights(LeNet5(2), tmp_path / "zoo" / "b.safetensors")
    new = NewExperts("exml_lightning.models.LeNet5", classes=("cat", "dog"))
    with pytest.raises(ExmlError, match=r"b\.safetensors: which images .* Give --size \(the stream's are 8x8\)"):
        add_experts(tmp_path / "zoo", new)


@pytest.mark.parametrize("weights", ["IMAGENET1K_V1", "DEFAULT"])
def test_what_weights_change_in_a_factory_besides_is_kept(tmp_path, weights, monkeypatch):
    """GoogLeNet scales its images otherwise where it is asked for weights, and loses its auxiliary classifiers."""
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", None)  # nothing may be fetched
    torch.manual_seed(0)
    network = torchvision.models.googlenet(num_classes=2, transform_input=True, aux_logits=False, init_weights=False)
    images = torch.rand(8, 3, 64, 64)
    for layer in network.modules():  # as it is made it lets nothing of an image through
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        network(images)
        network.eval()
        network.fc.weight.data *= 10
        assert not torch.allclose(network(images[:2]), network(images[:2] * 2), atol=0.1)
    save_weights(network, tmp_path / "a.safetensors")
    add_experts(tmp_path, NewExperts("torchvision.models.googlenet", {"weights": weights}, ("cat", "dog"), (64,)))
    expert = load_expert(tmp_path, read_manifest(tmp_path), 0)
    with torch.no_grad():
        torch.testing.assert_close(expert(images), network(images), atol=1e-3, rtol=1e-3)


def test_what_pretrained_changes_elsewhere_is_not_known(tmp_path):
    save_weights(LeNet5(2), tmp_path / "a.safetensors")
    architecture = "tests.experts.test_architecture.network_of"
    said = add_experts(tmp_path, NewExperts(architecture, {"pretrained": True}, ("cat", "dog"), (32,), 1))
    assert "pretrained is left out, since the file has the weights" in said.notes[0]


def test_a_softmax_that_the_manifest_does_not_say_is_refused(tmp_path):
    make(tmp_path / "zoo", ("cat", "dog"), end="softmax")
    manifest = tmp_path / "zoo" / "manifest.yaml"
    text = manifest.read_text()
    assert "returns: probabilities" in text
    manifest.write_text(text.replace(", returns: probabilities", "").replace("returns: probabilities", ""))
    with pytest.raises(ExmlError, match=r"a\.pt: Net returns probabilities.*write `returns: probabilities` below"):
        load_expert(tmp_path / "zoo", read_manifest(tmp_path / "zoo"), 0)
