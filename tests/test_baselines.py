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
from tests.conftest import refused

CONFIGS = Path(__file__).parent.parent / "configs"
BASELINES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.yaml"))
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


def write_experts(folder: Path, heads: list[Head], names: tuple[str, ...] = NAMES, image=FORMAT) -> Path:
    entries = []
    for k, head in enumerate(heads):
        architecture = Architecture("tests.test_baselines.Net", {"num_classes": head.units, **(head.init_args or {})})
        network = architecture.build(k)
        network[-1].weight.data.mul_(8)  # sure enough of itself
        file = f"expert_{k}.safetensors"
        entries.append(ExpertEntry(file, save_weights(network, folder / file), architecture,
                                   tuple(names[c] for c in head.classes), head.outputs))  # fmt: skip
    write_manifest(Manifest("pixels", 0, names, image, tuple(entries)), folder)
    return folder


def open_stream(folder: Path, heads: list[Head], experts: int = -1) -> ExpertStream:
    stream = ExpertStream(
        Scenario("pixels", Pixels(), classes=[[NAMES[c] for c in head.classes] for head in heads]),
        experts=str(folder),
        eval_batch_size=7,
    )
    stream.trainer = Trainer(accelerator="cpu", devices=1, max_epochs=experts, logger=False, enable_progress_bar=False,
                             enable_checkpointing=False, enable_model_summary=False)  # fmt: skip
    return stream


@pytest.fixture
def stream(tmp_path, request) -> ExpertStream:
    heads = STREAMS[request.param]
    return open_stream(write_experts(tmp_path, heads), heads)


def measured(baseline, stream, generator: Generator | None = None, size: int = 50) -> list[float]:
    return measure(baseline, Sampler(generator or Noise(), stream, None, False), size, CPU)


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


@pytest.mark.parametrize("stream", ["wide"], indirect=True)
def test_no_answer_is_a_wrong_answer(stream):
    assert [accuracy(baselines.Oracle(), stream, images(5), [c] * 5, first_seen=7) for c in range(5)] == [0] * 5


@pytest.mark.parametrize("stream", ["wide, overlapping", "narrow"], indirect=True)
def test_the_oracle_is_refused_where_a_class_has_two_experts(stream):
    with pytest.raises(ExmlError, match=r"oracle is not defined here: class '.' is known to experts 0 and [12]"):
        measured(baselines.Oracle(), stream)


def test_min_entropy_is_refused_where_an_expert_can_say_one_thing_only(tmp_path):
    heads = [wide(0, 1), narrow(2)]
    stream = open_stream(write_experts(tmp_path, heads), heads)
    with pytest.raises(ExmlError, match="expert 1 has one class and no units for others"):
        measured(baselines.MinEntropy(), stream)


@pytest.mark.parametrize("stream", ["wide", "wide, overlapping"], indirect=True)
def test_the_parameter_average_is_one_network(stream):
    manifest, pixels = read_manifest(stream.experts), images()
    states = [load_expert(stream.experts, manifest, k).model.state_dict() for k in range(3)]
    mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    logits = torch.func.functional_call(Net(5), mean, FORMAT.normalize(pixels))
    assert accuracy(baselines.ParameterAverage(), stream, pixels, logits.argmax(dim=1).tolist()) == 1


@pytest.mark.parametrize(("experts", "known"), [(-1, {0, 1, 2, 3, 4}), (2, {0, 1, 2, 3})])
def test_the_parameter_average_knows_what_the_experts_asked_know(tmp_path, experts, known):
    heads = STREAMS["wide"]
    stream = open_stream(write_experts(tmp_path, heads), heads, experts)
    asked = []

    class Watched(baselines.ParameterAverage):
        def answer(self, expert: Expert, images: torch.Tensor, first_seen: int, num_classes: int) -> torch.Tensor:
            asked.append(set(expert.classes.tolist()))
            return super().answer(expert, images, first_seen, num_classes)

    accuracy(Watched(), stream, images(5), [0] * 5)
    assert asked == [known]


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ([wide(0, 1), replace(wide(2, 3), init_args={"batch_norm": True})], "different architectures have no mean"),
        ([narrow(0, 1), narrow(2, 3)], "expert 1 gives its classes"),
    ],
)
def test_weights_that_mean_other_things_are_not_averaged(tmp_path, heads, words):
    stream = open_stream(write_experts(tmp_path, heads), heads)
    with pytest.raises(ExmlError, match=words):
        measured(baselines.ParameterAverage(), stream)


WITH_NORM = [replace(head, init_args={"batch_norm": True}) for head in STREAMS["wide"]]


@pytest.mark.parametrize("kind", [*FORMULAS, baselines.Oracle, baselines.ParameterAverage,
                                  baselines.ParameterAverageBatchNorm])  # fmt: skip
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


def test_batch_norm_statistics_become_those_of_the_samples(tmp_path):
    stream = open_stream(write_experts(tmp_path, WITH_NORM), WITH_NORM)
    samples = [torch.randn(60, 1, 8, 8) + shift for shift in (-1.0, 0.0, 3.0)]
    plain = averaged(baselines.ParameterAverage, stream, samples)
    model = averaged(baselines.ParameterAverageBatchNorm, stream, samples)
    values = plain[0](torch.cat(samples)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, values.mean(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model[1].running_var, values.var(dim=1), rtol=1e-4, atol=1e-4)
    assert torch.equal(model[0].weight, plain[0].weight)
    assert not model.training
    assert not torch.allclose(model[1].running_mean, plain[1].running_mean)


def test_batch_norm_statistics_of_many_batches_hold_the_variance_between_experts(tmp_path):
    stream = open_stream(write_experts(tmp_path, WITH_NORM), WITH_NORM)
    samples = [torch.randn(300, 1, 8, 8) + shift for shift in (-5.0, 0.0, 5.0)]
    model = averaged(baselines.ParameterAverageBatchNorm, stream, samples)
    values = model[0](torch.cat(samples)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_var, values.var(dim=1), rtol=0.02, atol=0)


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


# --- the command line


def command(tmp_path: Path, baseline: str, *more: str, verb: str = "test", run: str = "run") -> list[str]:
    return [verb, "-c", str(CONFIGS / "split_digits.yaml"), "-c", str(CONFIGS / "baselines" / f"{baseline}.yaml"),
            "--data.experts", str(CONFIGS.parent / "checkpoints" / "split_digits" / "run0"),
            "--trainer.default_root_dir", str(tmp_path / run), "--trainer.enable_progress_bar", "false",
            "--buffer.cache", "null", *more]  # fmt: skip


@pytest.mark.parametrize("baseline", [name for name in BASELINES if name != "parameter_average_batch_norm"])
def test_every_baseline_runs(baseline, tmp_path, capsys):
    main(command(tmp_path, baseline))
    test = json.loads((tmp_path / "run" / "test.json").read_text())
    assert test.keys() == {
        "stream_accuracy",
        "accuracy_per_experience",
        "peak_memory_mb",
        "seconds_testing",
        "baseline",
        "command",
        "seed",
        "device",
        "processes",
        "experts",
        "expert_training",
        "expert_architecture",
        "experts_digest",
    }
    assert test["expert_architecture"] == {"class_path": "exml_lightning.models.LeNet5", "init_args": {}}
    assert test["processes"] == 1
    assert test["command"].startswith(f"exml test -c {CONFIGS / 'split_digits.yaml'} -c ")
    assert (test["seed"], test["experts"], test["expert_training"]["epochs"]) == (1234, 5, 50)
    assert test["baseline"].lower() == baseline.replace("_", "")
    sizes = [94, 87, 95, 92, 82]  # of the test images of digits 5 4, 8 2, 6 9, 1 7, 0 3
    weighted = sum(a * n for a, n in zip(test["accuracy_per_experience"], sizes, strict=True)) / sum(sizes)
    assert test["stream_accuracy"] == pytest.approx(weighted)
    assert test["stream_accuracy"] == 1 if baseline == "oracle" else 0.3 < test["stream_accuracy"] < 0.9
    assert test["seconds_testing"] > 0
    assert f"{100 * test['stream_accuracy']:.2f} %" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["config.yaml", "test.json"]
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["baseline"]["class_path"].rpartition(".")[2] == test["baseline"]
    assert config["data"]["scenario"]["name"] == "split_digits"


def test_a_network_without_batch_norm_is_named(tmp_path, capsys):
    line = refused(command(tmp_path, "parameter_average_batch_norm"), capsys)
    assert "LeNet5 has no batch-norm layer" in line
    assert "use plain parameter_average" in line


def test_batch_norm_is_measured_on_the_samples_that_the_buffer_says(tmp_path, capsys):
    heads = [Head(classes, classes, 10, {"batch_norm": True}) for classes in [(5, 4), (8, 2), (6, 9), (1, 7), (0, 3)]]
    write_experts(tmp_path / "experts", heads, Digits.class_names, Digits.image_format)
    noise = ["--data.experts", str(tmp_path / "experts"), "--buffer.generator", "Noise"]
    main(command(tmp_path, "parameter_average_batch_norm", *noise))
    assert 0 <= json.loads((tmp_path / "run" / "test.json").read_text())["stream_accuracy"] <= 1
    line = refused(command(tmp_path, "parameter_average_batch_norm", *noise, "--buffer.size", "4"), capsys)
    assert "buffer.size is 4: give 1 or more for each of the 5 experts" in line


def test_validate_prints_and_writes_nothing(tmp_path, capsys):
    main(command(tmp_path, "min_entropy", verb="test"))
    stream_accuracy = json.loads((tmp_path / "run" / "test.json").read_text())["stream_accuracy"]
    capsys.readouterr()
    main(command(tmp_path, "min_entropy", verb="validate", run="other"))
    assert f"{100 * stream_accuracy:.2f} %" in capsys.readouterr().out
    assert not (tmp_path / "other").exists()


def test_the_run_folder_has_the_name_of_the_baseline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main([word for word in command(tmp_path, "ensemble_average")
          if word not in ("--trainer.default_root_dir", str(tmp_path / "run"))])  # fmt: skip
    assert (tmp_path / "runs" / "split_digits" / "ensemble_average" / "run0" / "test.json").is_file()


def test_the_bar_names_the_expert(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("exml_lightning.terminal.draws_bars", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    main(command(tmp_path, "concat", "--trainer.enable_progress_bar", "true"))
    assert "expert 5/5 asking" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verb", "more", "words"),
    [
        ("fit", [], "a baseline is not trained: measure it with `exml test`"),
        ("test", ["--ckpt_path", "last"], "a baseline has no checkpoint: leave out --ckpt_path"),
        ("validate", ["--ckpt_path", "last"], "a baseline has no checkpoint: leave out --ckpt_path"),
        ("test", ["--trainer.accelerator", "cpu", "--trainer.devices", "2"], "measured on one device"),
        ("test", ["--trainer.max_epochs", "0"], "trainer.max_epochs is 0"),
        ("test", ["--data.run_id", "1"], "these experts belong to split_digits run 0"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, capsys, verb, more, words):
    assert words in refused(command(tmp_path, "concat", *more, verb=verb), capsys)
    assert not (tmp_path / "run").exists()


def test_a_baseline_that_does_not_exist_is_named(tmp_path, capsys):
    assert "Nope" in refused(command(tmp_path, "concat", "--baseline", "Nope"), capsys, code=2)


def test_the_first_experts_alone_are_asked(tmp_path):
    main(command(tmp_path, "oracle", "--trainer.max_epochs", "2"))
    test = json.loads((tmp_path / "run" / "test.json").read_text())
    assert test["accuracy_per_experience"] == [1, 1, 0, 0, 0]


def test_a_broken_expert_late_in_the_stream_is_noticed_before_the_first_is_asked(tmp_path, capsys, digit_experts):
    shutil.copytree(digit_experts, tmp_path / "experts")
    (tmp_path / "experts" / "expert_4.safetensors").write_bytes(b"broken")
    args = ["--data.experts", str(tmp_path / "experts"), "--trainer.enable_progress_bar", "true"]
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(command(tmp_path, "concat", *args))
    error = capsys.readouterr().err
    assert "expert_4.safetensors has another hash" in error
    assert "Asking" not in error


def test_the_oracle_is_refused_for_new_instances(tmp_path, capsys, digit_experts):
    manifest = read_manifest(digit_experts)
    shutil.copytree(digit_experts, tmp_path / "experts")
    every = replace(manifest.experts[0], classes=manifest.class_names, outputs=tuple(range(10)))
    write_manifest(replace(manifest, experts=(every, every)), tmp_path / "experts")
    overlay = {"data": {"scenario": {"classes_per_experience": None, "groups": [[0], [0]], "shuffle_classes": False}}}
    (tmp_path / "ni.yaml").write_text(yaml.safe_dump(overlay))
    more = ["-c", str(tmp_path / "ni.yaml"), "--data.experts", str(tmp_path / "experts")]
    assert "class '0' is known to experts 0 and 1" in refused(command(tmp_path, "oracle", *more), capsys)
    main(command(tmp_path, "concat", *more))
    assert len(json.loads((tmp_path / "run" / "test.json").read_text())["accuracy_per_experience"]) == 1


def test_the_test_of_an_ex_model_counts_seconds_too(small_run, tmp_path):
    main(small_run(trainer__max_epochs=1, data__n_iter=1))
    main([*small_run(verb="test"), "--ckpt_path", "last"])
    assert json.loads((tmp_path / "run" / "test.json").read_text())["seconds_testing"] > 0
