"""Each baseline against its formula written out, on small experts; and by the command line."""

import json
import math
import shutil
import weakref
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from lightning import Trainer
from torch import nn

from exml_lightning import baselines
from exml_lightning.baselines import measure
from exml_lightning.callbacks.measured import Measured
from exml_lightning.cli.main import main
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator, Noise
from exml_lightning.core.generators.generator import no_progress, to_buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry, Manifest, load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.generation.samples import Sampler
from exml_lightning.scenarios import Digits, ImageDataset, Scenario, TestPart
from tests.conftest import EXPERTS, ROOT, refused

CONFIGS = ROOT / "configs"
NAMES = ("a", "b", "c", "d", "e")
FORMAT = ImageFormat((1, 8, 8), (0.3,), (0.5,))
CPU = torch.device("cpu")


class Net(nn.Sequential):
    """A small network for images of one channel."""

    def __init__(self, num_classes: int, size: int = 8, batch_norm: bool = False) -> None:
        norm = [nn.BatchNorm2d(4)] if batch_norm else []
        pool = nn.AdaptiveAvgPool2d(4)
        super().__init__(
            nn.Conv2d(1, 4, 3, padding=1), *norm, nn.Tanh(), pool, nn.Flatten(), nn.Linear(64, num_classes)
        )


@dataclass
class Head:
    """An expert to write: its classes, the unit of each, and how many units there are."""

    classes: tuple[int, ...]
    outputs: tuple[int, ...]
    units: int = 5
    init_args: dict[str, object] | None = None


def wide(*classes: int) -> Head:
    return Head(classes, classes)


def narrow(*classes: int) -> Head:
    return Head(classes, tuple(range(len(classes))), len(classes))


STREAMS = {
    "wide": [wide(0, 1), wide(3, 2), wide(4)],
    "wide, overlapping": [wide(0, 1, 2), wide(2, 3), wide(3, 4, 0)],
    "narrow": [narrow(1, 0), narrow(2, 4), narrow(3, 0)],
    "wide and narrow": [wide(0, 1), narrow(2, 3, 4), wide(1, 4), narrow(0, 2)],
}


class Pixels(ImageDataset):
    """Names five classes; its images are made by the tests."""

    class_names = NAMES
    image_format = FORMAT

    def load(self, root: Path, train: bool) -> LabelledImages:
        raise AssertionError("no file is read")


def write_experts(folder: Path, heads: list[Head]) -> Path:
    entries = []
    for k, head in enumerate(heads):
        architecture = Architecture("tests.test_baselines.Net", {"num_classes": head.units, **(head.init_args or {})})
        network = architecture.build(k)
        network[-1].weight.data.mul_(8)  # sure enough of itself
        file = f"expert_{k}.safetensors"
        entries.append(ExpertEntry(file, save_weights(network, folder / file), architecture,
                                   tuple(NAMES[c] for c in head.classes), head.outputs))  # fmt: skip
    write_manifest(Manifest("pixels", 0, NAMES, FORMAT, tuple(entries)), folder)
    return folder


def open_stream(folder: Path, heads: list[Head], experts: int = -1) -> ExpertStream:
    stream = ExpertStream(
        Scenario("pixels", Pixels(), classes=[[NAMES[c] for c in head.classes] for head in heads]),
        experts=str(folder),
    )
    stream.trainer = trainer(experts)
    return stream


def trainer(experts: int) -> Trainer:
    return Trainer(accelerator="cpu", devices=1, max_epochs=experts, logger=False, enable_progress_bar=False,
                   enable_checkpointing=False, enable_model_summary=False)  # fmt: skip


@pytest.fixture
def stream(tmp_path, request) -> ExpertStream:
    heads = STREAMS[request.param]
    return open_stream(write_experts(tmp_path, heads), heads)


def measured(baseline, stream, generator: Generator | None = None, size: int = 50) -> list[float]:
    counts = measure(baseline, Sampler(generator or Noise(), stream, None, False), size, CPU)
    return Measured(stream, counts, range(5)).row


def images(n: int = 40) -> torch.Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=draws)


def accuracy(
    baseline: baselines.Baseline, stream: ExpertStream, pixels: torch.Tensor, labels: list[int], first_seen: int = 0
) -> float:
    """Accuracy on one part of a test stream: 1 if, and only if, each image gets its label."""
    part = LabelledImages(pixels, torch.tensor(labels), torch.tensor(labels))
    stream.test_parts = [TestPart(part, first_seen, 0)]
    (fraction,) = measured(baseline, stream)
    return fraction


def spoken(stream: ExpertStream, pixels: torch.Tensor) -> list[list[tuple[dict[int, float], dict[int, float]]]]:
    """For each image and expert, the logit of each class: those it speaks of, and its own."""
    manifest = read_manifest(stream.experts)
    said = [[] for _ in pixels]
    for k, entry in enumerate(manifest.experts):
        own = dict(zip(manifest.classes_of(k), entry.outputs, strict=True))
        with torch.no_grad():
            units = load_expert(stream.experts, manifest, k).model(FORMAT.normalize(pixels)).double().tolist()
        is_wide = len(units[0]) == 5 and all(c == unit for c, unit in own.items())
        for i, row in enumerate(units):
            mine = {c: row[unit] for c, unit in own.items()}
            said[i].append((dict(enumerate(row)) if is_wide else mine, mine))
    return said


def softmax(logits: dict[int, float]) -> dict[int, float]:
    total = sum(math.exp(v) for v in logits.values())
    return {c: math.exp(v) / total for c, v in logits.items()}


def likeliest(scores: dict[int, float]) -> int:
    return max(scores, key=scores.__getitem__)


def means(answers: list[dict[int, float]]) -> dict[int, float]:
    values = {c: [answer[c] for answer in answers if c in answer] for c in range(5)}
    return {c: sum(v) / len(v) for c, v in values.items() if v}


def surest(experts: list[tuple[dict[int, float], dict[int, float]]]) -> int:
    entropies = [-sum(p * math.log(p) for p in softmax(every).values() if p > 0) for every, _ in experts]
    return likeliest(experts[entropies.index(min(entropies))][1])


FORMULAS = {
    baselines.EnsembleAverage: lambda experts: likeliest(means([every for every, _ in experts])),
    baselines.ProbabilityAverage: lambda experts: likeliest(
        {c: sum(softmax(every).get(c, 0.0) for every, _ in experts) / len(experts) for c in range(5)}
    ),
    baselines.MinEntropy: surest,
    baselines.Concat: lambda experts: likeliest(means([own for _, own in experts])),
}


@pytest.mark.parametrize("stream", STREAMS, indirect=True)
@pytest.mark.parametrize("kind", FORMULAS)
def test_an_ensemble_by_its_formula(stream, kind):
    pixels = images()
    expected = [FORMULAS[kind](experts) for experts in spoken(stream, pixels)]
    assert len(set(expected)) > 1
    assert accuracy(kind(), stream, pixels, expected) == 1


@pytest.mark.parametrize("stream", ["wide", "wide, overlapping"], indirect=True)
def test_the_formulas_differ_on_these_experts(stream):
    said = spoken(stream, images())
    assert len({tuple(formula(experts) for experts in said) for formula in FORMULAS.values()}) == len(FORMULAS)


def test_no_entropy_is_left_where_a_probability_is_0():
    """Probabilities that vanish in float32: the entropy is 0, not NaN, and the surest expert wins."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    network[1].weight.data.zero_()
    network[1].bias.data.copy_(torch.tensor([0.0, 300.0]))
    score = baselines.MinEntropy().answer(Expert(network, (4, 2), (0, 1), FORMAT), torch.zeros(1, 1, 8, 8), 0, 5)
    assert score.tolist() == [[-math.inf, -math.inf, 0.0, -math.inf, -math.inf]]


@pytest.mark.parametrize("stream", ["wide"], indirect=True)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_oracle_asks_the_expert_of_the_part_about_its_classes(stream, part):
    pixels = images()
    expected = [likeliest(experts[part][1]) for experts in spoken(stream, pixels)]
    assert accuracy(baselines.Oracle(), stream, pixels, expected, first_seen=part) == 1
    # no answer is a wrong one
    assert [accuracy(baselines.Oracle(), stream, images(5), [c] * 5, first_seen=7) for c in range(5)] == [0] * 5


@pytest.mark.parametrize("experts", [-1, 2])
@pytest.mark.parametrize("name", ["wide", "wide, overlapping"])
def test_the_parameter_average_is_one_network_that_knows_the_classes_of_the_experts_asked(tmp_path, name, experts):
    stream = open_stream(write_experts(tmp_path, STREAMS[name]), STREAMS[name], experts)
    manifest, pixels, asked = read_manifest(tmp_path), images(), range(3)[: experts if experts > 0 else 3]
    states = [load_expert(tmp_path, manifest, k).model.state_dict() for k in asked]
    mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    logits = torch.func.functional_call(Net(5), mean, FORMAT.normalize(pixels))
    known = sorted({c for k in asked for c in manifest.classes_of(k)})
    expected = [known[i] for i in logits[:, known].argmax(dim=1)]
    assert accuracy(baselines.ParameterAverage(), stream, pixels, expected) == 1


WITH_NORM = [replace(head, init_args={"batch_norm": True}) for head in STREAMS["wide"]]
REFUSED = {
    "class .c. is known to experts 0 and 1": (
        baselines.Oracle,
        STREAMS["wide, overlapping"],
    ),
    "oracle is not defined here: class .a. is known to experts 0 and 2": (baselines.Oracle, STREAMS["narrow"]),
    "expert 1 has one class and no units for others": (baselines.MinEntropy, [wide(0, 1), narrow(2)]),
    "cannot be put together: expert 0 is Architecture.*expert 1 Architecture": (
        baselines.ParameterAverage,
        [wide(0, 1), WITH_NORM[1]],
    ),
    r"expert 1 has units \[0, 1\] for the classes of the stream \[2, 3\]": (
        baselines.Merged,
        [narrow(0, 1), narrow(2, 3)],
    ),
    "Net has no batch-norm layer.*use plain parameter_average": (baselines.ParameterAverageBatchNorm, STREAMS["wide"]),
    "size is 2: give 1 or more for each of the 3 experts": (baselines.ParameterAverageBatchNorm, WITH_NORM),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_baseline_that_is_not_defined_is_refused_before_work(tmp_path, words):
    kind, heads = REFUSED[words]
    stream = open_stream(write_experts(tmp_path, heads), heads)
    with pytest.raises(ExmlError, match=words):
        measured(kind(), stream, size=2)


@pytest.mark.parametrize("kind", [*FORMULAS, baselines.Oracle, baselines.ParameterAverage,
                                  baselines.Merged, baselines.ParameterAverageBatchNorm])  # fmt: skip
def test_one_expert_is_in_memory_at_a_time(tmp_path, monkeypatch, kind):
    stream = open_stream(write_experts(tmp_path, WITH_NORM), WITH_NORM)
    label = torch.tensor([0] * 20)
    stream.test_parts = [TestPart(LabelledImages(images(20), label, label), k, 0) for k in range(2)]
    load, alive = stream.load_expert, []

    def watched(index: int, device: torch.device) -> Expert:
        assert not any(reference() for reference in alive)
        expert = load(index, device)
        alive.extend([weakref.ref(expert), weakref.ref(expert.model), weakref.ref(expert.model[0].weight)])
        return expert

    monkeypatch.setattr(stream, "load_expert", watched)
    measured(kind(), stream)
    assert len(alive) == 18  # each is read to be checked, and again to be asked


@dataclass
class Fixed(Generator):
    """Gives the images of each expert's experience, as many as are asked for."""

    parts: list[torch.Tensor]

    def generate(self, expert, num_samples, generator, progress=no_progress) -> Buffer:
        chosen = self.parts[expert.experience][:num_samples]
        return to_buffer(chosen, torch.zeros(len(chosen), dtype=torch.long), expert)

    def settings(self) -> dict[str, object]:
        return {"class": "Fixed"}


def averaged(kind: type[baselines.ParameterAverage], stream: ExpertStream, samples: list[torch.Tensor]) -> nn.Module:
    source = baselines.ExpertSource(
        stream.manifest,
        lambda index: stream.load_expert(index, CPU),
        lambda expert: samples[expert.experience],
        stream.seed,
    )
    (expert,) = kind().models(source)
    return expert.model


@pytest.mark.parametrize(("count", "rtol"), [(60, 1e-4), (300, 0.02)])
def test_batch_norm_statistics_become_those_of_the_samples(tmp_path, count, rtol):
    """In one batch, and in several, each with samples of all experts: the variance between these is in it, too."""
    stream = open_stream(write_experts(tmp_path, WITH_NORM), WITH_NORM)
    samples = [torch.randn(count, 1, 8, 8) + shift for shift in (-5.0, 0.0, 5.0)]
    plain = averaged(baselines.ParameterAverage, stream, samples)
    model = averaged(baselines.ParameterAverageBatchNorm, stream, samples)
    values = plain[0](torch.cat(samples)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, values.mean(dim=1), rtol=rtol, atol=0.01)
    torch.testing.assert_close(model[1].running_var, values.var(dim=1), rtol=rtol, atol=1e-4)
    assert torch.equal(model[0].weight, plain[0].weight)
    assert not model.training
    assert not torch.allclose(model[1].running_mean, plain[1].running_mean)


def test_batch_norm_measured_anew_brings_the_function_of_the_experts_back(tmp_path):
    """Two experts compute one function, since batch norm takes the scale of its input out; their mean does not."""
    heads = WITH_NORM[:2]
    stream = open_stream(write_experts(tmp_path, heads), heads)
    draws = torch.Generator().manual_seed(0)
    samples = [torch.randn(100, 1, 8, 8, generator=draws) + 1 for _ in heads]
    first = stream.load_expert(0, CPU).model
    torch.optim.swa_utils.update_bn([torch.cat(samples)], first)
    second = Net(5, batch_norm=True).eval()
    second.load_state_dict(first.state_dict())
    second[0].weight.data *= 9
    second[0].bias.data *= 9
    second[1].running_mean *= 9
    second[1].running_var *= 81
    entries = [replace(entry, sha256=save_weights(network, tmp_path / entry.file))
               for entry, network in zip(stream.manifest.experts, (first, second), strict=True)]  # fmt: skip
    write_manifest(replace(stream.manifest, experts=tuple(entries)), tmp_path)
    stream = open_stream(tmp_path, heads)

    pixels = images(100)
    logits = first(FORMAT.normalize(pixels)).detach()
    torch.testing.assert_close(second(FORMAT.normalize(pixels)), logits, rtol=1e-3, atol=1e-3)
    labels = logits[:, :4].argmax(dim=1)
    stream.test_parts = [TestPart(LabelledImages(pixels, labels, labels), 0, 0)]
    assert measured(baselines.ParameterAverageBatchNorm(), stream, Fixed(samples), 200) == [1.0]
    anew = averaged(baselines.ParameterAverageBatchNorm, stream, samples)(FORMAT.normalize(pixels))
    torch.testing.assert_close(anew, logits, rtol=0.01, atol=0.01)
    plain = averaged(baselines.ParameterAverage, stream, samples)(FORMAT.normalize(pixels))
    assert (plain - logits).abs().max() > 0.3


@pytest.fixture
def digits(tmp_path):
    """The shipped experts in a folder of their own, and the test images of their classes."""
    stream = ExpertStream(Scenario("split_digits", Digits(), 2), experts=str(shutil.copytree(EXPERTS, tmp_path / "e")))
    stream.trainer = trainer(-1)
    stream.setup("test")
    return stream


@pytest.mark.parametrize("kind", [*FORMULAS, baselines.ParameterAverage, baselines.Merged])
def test_the_shipped_experts_are_good_alone_and_worse_together(digits, kind):
    assert measured(baselines.Oracle(), digits) == [1] * 5
    fractions = measured(kind(), digits)
    sizes = [len(part.images) for part in digits.test_parts]
    assert sizes == [94, 87, 95, 92, 82]  # of digits 5 4, 8 2, 6 9, 1 7, 0 3
    assert 0.3 < sum(a * n for a, n in zip(fractions, sizes, strict=True)) / sum(sizes) < 0.9


def test_the_first_experts_alone_are_asked(digits):
    digits.trainer = trainer(2)
    assert measured(baselines.Oracle(), digits) == [1, 1, 0, 0, 0]
    digits.trainer = trainer(0)
    with pytest.raises(ExmlError, match=r"trainer\.max_epochs is 0"):
        measured(baselines.Oracle(), digits)


def test_a_broken_expert_late_in_the_stream_is_noticed_before_the_first_is_asked(digits, monkeypatch):
    (digits.experts / "expert_4.safetensors").write_bytes(b"broken")
    monkeypatch.setattr(baselines.Concat, "answer", None)  # cannot be called
    with pytest.raises(ExmlError, match=r"expert_4\.safetensors has another hash"):
        measured(baselines.Concat(), digits)


def command(verb: str, *more: str) -> list[str]:
    experts = ["--data.experts", str(EXPERTS), "--trainer.enable_progress_bar", "false", "--trainer.accelerator", "cpu"]
    files = ["-c", str(CONFIGS / "split_digits.yaml"), "-c", str(CONFIGS / "baselines" / "min_entropy.yaml")]
    return [verb, *files, *experts, *more]


def test_the_command_writes_figures_into_a_folder_with_the_name_of_the_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(command("test"))
    run = tmp_path / "runs" / "split_digits" / "min_entropy" / "run0"
    assert sorted(path.name for path in run.iterdir()) == [
        *("config.yaml", "test.json", "test_confusion_matrix.csv", "test_confusion_matrix.png"),
    ]
    test = json.loads((run / "test.json").read_text())
    assert (test["baseline"], test["seed"], test["experts"], test["processes"]) == ("MinEntropy", 1234, 5, 1)
    assert test["expert_architecture"] == {"class_path": "exml_lightning.models.LeNet5", "init_args": {}}
    assert test["expert_training"]["epochs"] == 50
    assert test["command"].startswith(f"exml test -c {CONFIGS / 'split_digits.yaml'} -c ")
    assert test["seconds_testing"] > 0
    assert test.keys() >= {"accuracy_per_experience", "peak_memory_mb", "device", "experts_digest"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["baseline"]["class_path"].rpartition(".")[2] == "MinEntropy"
    printed = f"{100 * test['stream_accuracy']:.2f} %"
    assert printed in capsys.readouterr().out
    shutil.rmtree(tmp_path / "runs")
    main(command("validate"))  # prints, and writes nothing
    assert printed in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "more", "words"),
    [
        ("fit", [], "a baseline is not trained: measure it with `exml test`"),
        ("validate", ["--ckpt_path", "last"], "a baseline has no checkpoint: leave out --ckpt_path"),
        ("test", ["--trainer.devices", "2"], "measured on one device"),
        ("test", ["--data.run_id", "1"], "these experts belong to split_digits run 0"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(tmp_path, monkeypatch, capsys, verb, more, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(command(verb, *more), capsys)
    assert not list(tmp_path.iterdir())


def test_the_test_of_an_ex_model_counts_seconds_too(finished_run, small_run):
    main([*small_run(verb="test"), "--ckpt_path", "last"])
    assert json.loads((finished_run / "test.json").read_text())["seconds_testing"] > 0
