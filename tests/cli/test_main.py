"""The command line as its users type it, in this process."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from exml_lightning.cli.main import VERBS, main
from exml_lightning.experts import load_expert, read_manifest, write_manifest
from exml_lightning.scenarios import MNIST, Digits
from tests.conftest import ROOT, refused
from tests.scenarios.test_datasets import write_idx

CONFIGURED = [verb for verb, about in VERBS.items() if about.configured]


def test_a_run_folder_holds_what_the_design_lists(small_run_once, finished_run):
    run = finished_run
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    assert names == [
        ".lock",
        "accuracy_matrix.csv",
        "accuracy_matrix.png",
        "accuracy_over_time.png",
        "buffer/experience=0.png",
        "buffer/experience=1.png",
        "checkpoints/experience=0.ckpt",
        "checkpoints/experience=1.ckpt",
        "checkpoints/last.ckpt",
        "config.yaml",
        "confusion_matrix.csv",
        "confusion_matrix.png",
        "ex_model/expert_0.safetensors",
        "ex_model/manifest.yaml",
        "metrics.csv",
        "samples/experience=0.png",
        "samples/experience=1.png",
        "summary.json",
    ]
    for name in ("accuracy_matrix", "accuracy_over_time", "confusion_matrix"):
        assert min(Image.open(run / f"{name}.png").size) > 200
    rows = list(csv.reader((run / "accuracy_matrix.csv").open()))
    assert rows[0] == ["after_experience", "0", "1", "2", "3", "4", "stream"]
    summary = json.loads((run / "summary.json").read_text())
    assert {
        "stream_accuracy",
        "average_accuracy",
        "forgetting",
        "accuracy_per_experience",
        "seconds_generating",
        "seconds_distilling",
        "peak_memory_mb",
    } <= summary.keys()
    words = ["-c", str(ROOT / "configs" / "split_digits.yaml"), "-c", str(small_run_once / "small.yaml")]
    assert summary["command"] == shlex.join(["exml", "fit", *words])
    assert (summary["seed"], summary["experts"], summary["expert_training"]["epochs"]) == (1234, 2, 50)
    assert summary["device"].startswith("cpu, ")
    assert [float(x) for x in rows[2][1:-1]] == summary["accuracy_per_experience"]
    assert float(rows[2][-1]) == summary["stream_accuracy"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["data"]["n_iter"] == 6


def test_figures_are_those_of_the_weights(small_run, tmp_path, capsys):
    """Accuracy recomputed from `ex_model/` alone, written out."""
    main(small_run(data__n_iter=40))
    out = capsys.readouterr().out
    assert "expert 1" in out
    assert "expert 2" in out
    folder = tmp_path / "run" / "ex_model"
    manifest = read_manifest(folder)
    ex_model = load_expert(folder, manifest, 0)
    assert sorted(manifest.experts[0].classes) == ["2", "4", "5", "8"]
    test = Digits().load(Path(), train=False)
    guesses = ex_model.classes[ex_model(manifest.input.normalize(test.images)).argmax(dim=1)]
    right = guesses == test.labels
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stream_accuracy"] == pytest.approx(right.float().mean().item())
    parts = [(5, 4), (8, 2), (6, 9), (1, 7), (0, 3)]
    expected = [right[torch.isin(test.labels, torch.tensor(part))].float().mean().item() for part in parts]
    assert summary["accuracy_per_experience"] == pytest.approx(expected)
    assert summary["stream_accuracy"] > 0.15


def test_test_and_validate_give_the_figures_of_the_fit(small_run, finished_run, capsys):
    summary = json.loads((finished_run / "summary.json").read_text())
    config = (finished_run / "config.yaml").read_bytes()
    main([*small_run(verb="test"), "--ckpt_path", "last"])
    test = json.loads((finished_run / "test.json").read_text())
    for key in ("stream_accuracy", "accuracy_per_experience"):
        assert test[key] == summary[key]
    capsys.readouterr()
    main([*small_run(verb="validate"), "--ckpt_path", str(finished_run / "checkpoints" / "experience=1.ckpt")])
    assert f"{100 * summary['stream_accuracy']:.2f} %" in capsys.readouterr().out
    assert (finished_run / "config.yaml").read_bytes() == config


def test_checkpoints_load_without_unpickling(finished_run):
    for path in (finished_run / "checkpoints").iterdir():
        state = torch.load(path, weights_only=True)
        assert not any("expert" in name for name in state["state_dict"])  # an expert is never saved


def test_same_seed_same_weights_other_seed_other_weights(small_run, finished_run, tmp_path):
    def weights(folder, *more):
        main([*small_run(folder), *more])
        return (tmp_path / folder / "ex_model" / "expert_0.safetensors").read_bytes()

    torch.manual_seed(99)  # the global state must not matter
    first = (finished_run / "ex_model" / "expert_0.safetensors").read_bytes()
    assert weights("b", "--data.seed", "1234") == first  # the seed of run 0
    assert weights("c", "--data.seed", "4321") != first


def test_an_ex_model_is_an_expert_of_another_stream(finished_run, tmp_path):
    settings = {
        "trainer": {"default_root_dir": str(tmp_path / "second"), "enable_progress_bar": False},
        "data": {"experts": str(finished_run / "ex_model"), "n_iter": 3, "scenario": {"classes_per_experience": None}},
        "buffer": {"size": 10, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 2}}},
    }
    settings["data"]["scenario"]["classes"] = [["5", "4", "8", "2"]]
    (tmp_path / "second.yaml").write_text(yaml.safe_dump(settings))
    main(["fit", "-c", str(ROOT / "configs" / "split_digits.yaml"), "-c", str(tmp_path / "second.yaml")])
    assert read_manifest(tmp_path / "second" / "ex_model").experts[0].outputs == (2, 4, 5, 8)


def test_fit_runs_with_the_original_training_data_absent(repository, tmp_path, monkeypatch):
    """MNIST with only its test files on disk, and a training split that raises when it is asked for."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8, generator=generator)
    raw = tmp_path / "data" / "MNIST" / "raw"
    write_idx(raw, "t10k", images, torch.arange(40) % 10)
    original = MNIST.load

    def only_test(self, root, train):
        assert not train, "fit asked for the training split"
        return original(self, root, train)

    monkeypatch.setattr(MNIST, "load", only_test)
    main([
        "fit", "-c", str(repository / "configs" / "split_mnist.yaml"),
        "-c", str(repository / "configs" / "trainer" / "smoke.yaml"), "--data.root", str(tmp_path / "data"),
        "--data.experts", str(repository / "checkpoints" / "split_digits" / "run0"),
        "--trainer.default_root_dir", str(tmp_path / "run"),
    ])  # fmt: skip
    assert (tmp_path / "run" / "ex_model" / "manifest.yaml").is_file()
    assert sorted(path.name for path in raw.iterdir()) == ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]


def test_help_and_version(capsys):
    for args in ([], ["--help"]):
        main(args)
        out = capsys.readouterr().out
        assert all(verb in out for verb in VERBS)
    main(["--version"])
    assert version("exml-lightning") in capsys.readouterr().out


def test_help_of_the_verbs_without_a_configuration_is_quick():
    """No torch, no Lightning."""
    code = f"""
import sys
from exml_lightning.cli.main import main
for verb in {[verb for verb in VERBS if verb not in CONFIGURED]}:
    try:
        main([verb, "--help"])
    except SystemExit:
        print(sorted({{"torch", "lightning", "ray"}} & set(sys.modules)))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.count("[]\n") == len(VERBS) - len(CONFIGURED)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fit", "-c", "configs/split_digits.yaml"], "exml fit: starting, which takes some seconds\n"),
        (["statistics", "zoo", "images"], "exml statistics: starting, which takes some seconds\n"),
        (["fit", "-c", "configs/split_digits.yaml", "--quiet"], ""),
        (["fit", "-c", "configs/split_digits.yaml", "--print_config"], ""),
        (["test", "--help"], ""),
        (["validate", "-c", "configs/split_digits.yaml"], ""),  # its figures are what stdout is for
        (["catalog", "zoo", "--json"], ""),
    ],
)
def test_a_verb_says_that_it_has_begun_before_anything_is_loaded(words, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    ran = []
    monkeypatch.setattr("exml_lightning.cli.main.run_verb", lambda *args: ran.append(capsys.readouterr()))
    main(words)
    assert ran == [(said, "")]


def test_what_comes_before_that_line_loads_nothing_heavy():
    code = "import sys, exml_lightning.cli.main; print({'torch', 'lightning', 'jsonargparse'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize(
    "words", ["sweep --scenarios split_digits --strategies oracle --runs 0 --dry_run", "fit -c split_digits"]
)
def test_a_reader_that_has_seen_enough_ends_a_verb_with_a_line(words):
    """Of a line that is still in the buffer as well, which Python would complain about when it ends."""
    with subprocess.Popen([sys.executable, "-m", "exml_lightning", *words.split()], stdout=-1, stderr=-1) as process:
        process.stdout.close()
        assert re.fullmatch(r"exml: stopped \(\[Errno 32\] Broken pipe\); [^\n]+\n", process.stderr.read().decode())
    assert process.returncode == 141


def test_networks_in_the_working_directory_are_found(tmp_path, monkeypatch):
    """By the console script, too, whose path begins with another folder."""
    (tmp_path / "networks_nearby.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(16, 2))\n"
    )
    (tmp_path / "own").mkdir()
    torch.save({"1.weight": torch.ones(2, 16), "1.bias": torch.ones(2)}, tmp_path / "own" / "a.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder not in ("", str(tmp_path))])
    options = ["--architecture", "networks_nearby.Net", "--classes", "a", "b", "--size", "4", "--channels", "1"]
    main(["manifest", "own", *options])
    assert read_manifest(tmp_path / "own").experts[0].classifier == "1"


def test_a_misspelt_verb_gets_a_suggestion(capsys):
    assert "did you mean `exml experts`?" in refused(["expert"], capsys, code=2)
    assert "verbs:" in refused(["xyzzy"], capsys, code=2)


@pytest.mark.parametrize("verb", CONFIGURED)
def test_a_verb_alone_asks_for_what_it_needs(verb, capsys):
    what, more = ("experts", ", or --data.experts DIR") if verb == "generate" else ("scenario", "")
    said = f"exml: error: which {what}? For instance: exml {verb} -c split_digits{more}\n"
    assert refused([verb], capsys, code=2) == said


def test_without_experts_the_command_that_trains_them_is_given(tmp_path, capsys):
    options = ["--data.run_id", "3", "--data.root", "elsewhere", "--trainer.default_root_dir", str(tmp_path / "run")]
    line = refused(["fit", "-c", str(ROOT / "configs" / "split_digits.yaml"), *options], capsys)
    assert "`exml experts -c configs/split_digits.yaml --data.run_id 3 --data.root elsewhere`" in line
    assert not (tmp_path / "run").exists()


def test_missing_data_are_named(repository, tmp_path, capsys):
    config = str(repository / "configs" / "split_mnist.yaml")
    line = refused(
        ["experts", "-c", config, "--data.root", str(tmp_path), "--data.experts", str(tmp_path / "e")], capsys
    )
    assert "train-images-idx3-ubyte is missing" in line
    assert "--data.download true" in line


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--buffer.size", "1"], "buffer.size is 1, but the stream has 2 experts"),
        (["--data.n_iter", "0"], "data.n_iter is 0"),
        (["--data.run_id", "5"], "data.run_id is 5: give 0 to 4"),
        (["--buffer.generator.init_args.batch_norm", "1"], "no batch-norm layer"),
        (["--data.scenario.classes_per_experience", "5"], "these experts belong to split_digits run 0"),
        (["--model.architecture", '{"class_path": "exml_lightning.models.Nope"}'], "cannot be imported"),
        (["--ckpt_path", "nowhere.ckpt"], "nowhere.ckpt does not exist"),
        (["--trainer.max_steps", "3"], "trainer.max_steps would stop within an experience"),
        (["--trainer.accelerator", "gpu", "--trainer.devices", "99"], "choose a device with trainer.accelerator"),
        (["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "-1"], "model.optimizer"),
        (["--privacy.epsilon", "8"], "privacy.epsilon is for `exml experts`"),
        (["--baseline", "Oracle"], "a baseline is not trained: measure it with `exml test`"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(small_run, tmp_path, capsys, args, words):
    line = refused([*small_run(), *args], capsys)
    assert words in line
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "config.yaml").exists()


def copy_experts(digit_experts: Path, folder: Path) -> Path:
    shutil.copytree(digit_experts, folder)
    return folder


def test_a_broken_expert_late_in_the_stream_stops_the_run_before_it_starts(small_run, digit_experts, tmp_path, capsys):
    folder = copy_experts(digit_experts, tmp_path / "experts")
    (folder / "expert_4.safetensors").write_bytes(b"broken")
    line = refused(small_run(data__experts=str(folder), trainer__max_epochs=5), capsys)
    assert "expert_4.safetensors has another hash" in line
    assert not (tmp_path / "run" / "buffer").exists()


def test_a_stream_that_is_not_trained_to_its_end_says_so(small_run, digit_experts, tmp_path, capsys):
    folder = copy_experts(digit_experts, tmp_path / "experts")
    manifest = read_manifest(folder)
    write_manifest(replace(manifest, experts=manifest.experts[:3]), folder)
    line = refused(small_run(data__experts=str(folder), trainer__max_epochs=-1), capsys)
    assert "lists 3 of 5 experts" in line
    assert "--trainer.max_epochs 3" in line


def test_a_second_run_does_not_overwrite_the_first(small_run, tmp_path, capsys):
    main(small_run())
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file() and p.name != "summary.json"}
    refused([*small_run(), "--data.seed", "7"], capsys)
    main(small_run())
    begin = "2 of 2 experts are learned; to begin anew, delete the folder or name another"
    assert f"going on with {tmp_path}/run/checkpoints/last.ckpt: {begin}" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before


def test_test_asks_for_a_checkpoint(small_run, capsys):
    assert "--ckpt_path last" in refused(small_run(verb="test"), capsys)
    assert "last.ckpt does not exist; `exml fit` writes" in refused(
        [*small_run(verb="test"), "--ckpt_path", "last"], capsys
    )


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_damaged_checkpoint_is_refused(small_run, finished_run, capsys, verb):
    last = finished_run / "checkpoints" / "last.ckpt"
    content = torch.load(last)
    last.write_bytes(last.read_bytes()[:1000])
    assert "damaged" in refused([*small_run(verb=verb), "--ckpt_path", "last"], capsys)
    del content["ExpertStream"]["buffer"]
    for other in ({"weights": torch.zeros(2)}, content):
        torch.save(other, last)
        assert "is not a checkpoint of `exml fit`" in refused([*small_run(verb=verb), "--ckpt_path", "last"], capsys)


def test_a_checkpoint_of_another_run_is_not_continued_here(small_run, finished_run, tmp_path, capsys):
    shutil.copytree(finished_run, tmp_path / "other")
    before = (finished_run / "ex_model" / "expert_0.safetensors").read_bytes()
    other = str(tmp_path / "other" / "checkpoints" / "experience=0.ckpt")
    assert "already holds a run" in refused([*small_run(), "--ckpt_path", other], capsys)
    assert (finished_run / "ex_model" / "expert_0.safetensors").read_bytes() == before


def test_another_logger_leaves_the_run_folder_complete_and_guarded(small_run, tmp_path, capsys):
    logger = ["--trainer.logger", "CSVLogger", "--trainer.logger.init_args.save_dir", str(tmp_path / "logs")]
    main([*small_run(), *logger])
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert list((tmp_path / "logs").rglob("metrics.csv"))
    assert "under other settings" in refused([*small_run(), *logger, "--data.seed", "7"], capsys)


def test_a_run_folder_that_is_a_file_is_named(small_run, tmp_path, capsys):
    (tmp_path / "run").write_text("a file")
    assert "is a file" in refused(small_run(), capsys)


def test_missing_auxiliary_images_are_noticed_before_work_starts(small_run, tmp_path, capsys):
    args = ["--buffer.generator", "Auxiliary", "--data.auxiliary", "FolderImages",
            "--data.auxiliary.folder", str(tmp_path / "photos")]  # fmt: skip
    assert "photos is not a folder" in refused([*small_run(), *args], capsys)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_ex_model_is_refused(small_run, finished_run, capsys):
    args = [*small_run(verb="test"), "--ckpt_path", "last", "--model.architecture"]
    assert "the checkpoint is of another ex-model" in refused(
        [*args, '{"class_path": "tests.cli.test_main.Flat"}'], capsys
    )


class Flat(torch.nn.Module):
    """A network that takes any image."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(1024, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1))


def test_the_ex_model_may_have_another_architecture(small_run, tmp_path, capsys):
    flat = [*small_run(), "--model.architecture", '{"class_path": "tests.cli.test_main.Flat"}']
    assert "set model.start to scratch" in refused(flat, capsys)
    main([*flat, "--model.start", "scratch"])
    manifest = read_manifest(tmp_path / "run" / "ex_model")
    assert manifest.experts[0].architecture.class_path == "tests.cli.test_main.Flat"
    assert load_expert(tmp_path / "run" / "ex_model", manifest, 0).model(torch.zeros(1, 1, 32, 32)).shape == (
        1,
        10,
    )


def test_a_diverging_run_stops_and_keeps_the_last_good_checkpoint(small_run, tmp_path, capsys):
    optimizer = ["--model.optimizer", "torch.optim.SGD", "--model.lr_scheduler", "torch.optim.lr_scheduler.StepLR"]
    explodes = ["--model.lr_scheduler.init_args.step_size", "4", "--model.lr_scheduler.init_args.gamma", "1e30"]
    line = refused([*small_run(), *optimizer, *explodes], capsys)
    assert "diverged while it learned expert 0" in line
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    assert all(tensor.isfinite().all() for tensor in state["state_dict"].values())
    assert not (tmp_path / "run" / "checkpoints" / "experience=0.ckpt").exists()
