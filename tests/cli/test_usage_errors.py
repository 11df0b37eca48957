"""Wrong command lines: one line, what was likely meant, status 2."""

import os
import subprocess
import sys

import pytest

from exml_lightning.cli.config_files import wrong_file
from exml_lightning.cli.verbs import VERBS, completion_script
from exml_lightning.core.errors import ExmlError
from tests.conftest import refused

FILES = {
    "typo.yaml": "data:\n  n_itre: 3\n",
    "level.yaml": "n_iter: 3\n",
    "syntax.yaml": "data:\n  experts: [1\n",
    "list.yaml": "- 1\n",
    "empty.yaml": "",
    "scalar.yaml": "data: 3\n",
    "nothing.yaml": "data:\n",
    "class.yaml": "model:\n  optimizer:\n    class_path: torch.optim.Adamm\n",
    "default.yaml": "buffer: {generator: {init_args: {imges: 3}}}\n",
    "inner.yaml": "buffer:\n  generator:\n    class_path: ModelInversion\n    init_args:\n      stepss: 3\n",
    "whole.yaml": "data: {n_iter: 3}\n",
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-c syntax.yaml", "syntax.yaml, line 3: no valid YAML (expected ',' or ']', but got '<stream end>')"),
        ("--config=list.yaml", "list.yaml holds [1]: it must hold keys, such as `data: {run_id: 0}`"),
        ("-c whole.yaml --config empty.yaml", "empty.yaml is empty: it must hold keys, such as `data: {run_id: 0}`"),
        ("-c scalar.yaml", "scalar.yaml: data is 3: it must hold keys, or be left out"),
        ("-c nothing.yaml", "nothing.yaml: data holds nothing: it must hold keys, or be left out"),
        ("-c typ.yaml", "no file typ.yaml; did you mean typo.yaml?"),
        ("-c .", ". is a folder: name a file in it, for instance class.yaml"),
        ("-c configs/split_mnist.yaml", None),  # which ships
        ("-c whole.yaml", None),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file(files, words, said):
    assert wrong_file(words.split()) == said


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "weights.yaml").write_bytes(b"\xff\xfe\x00")
    assert wrong_file(["-c", str(tmp_path / "weights.yaml")]).startswith(
        f"{tmp_path / 'weights.yaml'} cannot be read as text ("
    )


def test_a_wrong_file_is_named_before_torch_is_imported(tmp_path):
    code = """
import sys
from exml_lightning.cli.main import main
try:
    main(["fit", "-c", "nowhere.yaml"])
except SystemExit as error:
    print(error.code, "torch" in sys.modules or "lightning" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (out.stdout, out.stderr) == ("2 False\n", "exml: error: no file nowhere.yaml\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-c typo.yaml", "typo.yaml: no key data.n_itre; did you mean data.n_iter?"),
        ("-c level.yaml", "level.yaml: no key n_iter; did you mean data.n_iter?"),
        ("-c class.yaml", "model.optimizer: no class torch.optim.Adamm; did you mean Adam?"),
        ("-c inner.yaml", "buffer.generator: ModelInversion has no setting stepss; did you mean steps?"),
        ("-c default.yaml", "buffer.generator: Unrelated has no setting imges; did you mean images?"),
        ("--data.run_idd 3", "no option --data.run_idd; did you mean --data.run_id?"),
        ("--run_id=3", "no option --run_id; did you mean --data.run_id?"),
        ("--model.lr_scheduler cosin", "model.lr_scheduler: no class cosin; did you mean cosine?"),
        ("--model.optimizer Adamm", "model.optimizer: no class Adamm; did you mean Adam?"),
        ("--model.optimizer.lrr 3", "model.optimizer: Adam has no setting lrr; did you mean lr?"),
        ("--data.scenario.dataset Digitss", "data.scenario.dataset: no class Digitss; did you mean Digits?"),
        ("--data.scenario.nam x", "data.scenario: Scenario has no setting nam; did you mean name?"),
        ("--strategy model_inversion --buffer.generator.augmentation.shiftt 3",
         "buffer.generator.augmentation: Augmentation has no setting shiftt; did you mean shift?"),
        ("--buffer.generator no.such.module", "buffer.generator: no class no.such.module"),
        # What jsonargparse says itself, in a line.
        ("--data.run_id x", "Parser key \"data.run_id\": Expected a <class 'int'>. Got value: x"),
        ("--data.run_id", "argument --data.run_id: expected one argument"),
        ("extra", "unrecognized arguments: extra"),
    ],
)  # fmt: skip
def test_one_line_says_what_was_meant(files, parse, repository, capsys, words, said):
    config = str(repository / "configs" / "split_digits.yaml")
    with pytest.raises(SystemExit) as exit_:
        parse(["fit", "-c", config, *words.split(" ")])
    assert exit_.value.code == 2
    assert capsys.readouterr().err == f"exml: error: {said}\n"


@pytest.mark.parametrize(
    "words",
    [
        "-c configs/trainer/cpu.yaml",
        "-c configs/trainer/gpu.yaml",
        "-c configs/trainer/ddp.yaml",
        "-c configs/trainer/smoke.yaml",
        "-c configs/loggers/tensorboard.yaml",
        "--trainer.strategy ddp --trainer.logger false",
        "--model.lr_scheduler null --model.compile true",
        "--data.scenario null --data.augmentation null",
        "--buffer.generator null",
    ],
)
def test_only_the_wrong_word_is_blamed(parse, repository, monkeypatch, capsys, words):
    monkeypatch.chdir(repository)
    with pytest.raises(SystemExit):
        parse(["fit", "-c", "configs/split_digits.yaml", *words.split(), "--data.run_idd", "3"])
    assert capsys.readouterr().err == "exml: error: no option --data.run_idd; did you mean --data.run_id?\n"


def test_the_innermost_reason_is_said_with_its_key(parse, repository, capsys):
    config = str(repository / "configs" / "split_digits.yaml")
    with pytest.raises(SystemExit):
        parse(["fit", "-c", config, "--strategy", "model_inversion", "--buffer.generator.steps", "many"])
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith('exml: error: Parser key "buffer.generator": ')
    assert line.endswith("Parser key \"steps\": Expected a <class 'int'>. Got value: many\n")


def test_a_strategy_file_with_nearly_that_name(repository, monkeypatch):
    monkeypatch.chdir(repository)
    for wrong in ("configs/strategies/auxilary.yaml", "configs/stratgies/auxiliary.yaml"):
        assert wrong_file(["-c", wrong]) == f"no file {wrong}; did you mean configs/strategies/auxiliary.yaml?"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict a", "the following arguments are required: images"),
        ("predict a b --outpt x", "no option --outpt; did you mean --output?"),
        ("manifest d --architecture x --size big",
         "Parser key \"size\" element 1: Expected a <class 'int'>. Got value: big"),
        ("statistics d", "the following arguments are required: images"),
        ("fitt", "no verb 'fitt'; did you mean `exml fit`?"),
    ],
)  # fmt: skip
def test_the_other_verbs_say_it_alike(capsys, words, said):
    assert refused(words.split(), capsys, code=2) == f"exml: error: {said}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example_and_ends_with_0(verb, parse, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse([verb, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert f"\n  exml {verb} " in out
    assert "--quiet" in out
    if VERBS[verb].configured:
        for option in ("--data.run_id", "--buffer.size", "--experts.epochs", "--checkpoint.every_n_steps"):
            assert option in out
        assert "Folder of the experts" in out


def test_completion_in_bash(tmp_path):
    script = tmp_path / "exml.bash"
    script.write_text(completion_script("bash"))
    code = """
        source "$0"
        complete() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_exml; echo "${COMPREPLY[*]}"; }
        complete exml fi
        complete exml predict --device ""
        for verb in $VERBS; do complete exml $verb --qui; done
        complete exml fit --data.run
        complete exml fit -c split_d
        complete exml sweep --config mn
    """
    environment = {**os.environ, "VERBS": " ".join(VERBS)}
    command = ["bash", "-c", code, str(script)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert out.splitlines() == [
        "fit",
        "auto cpu cuda",
        *["--quiet"] * len(VERBS),
        "--data.run_id",
        "split_digits",
        "mnist",
    ]


def test_completion_of_an_unknown_shell_and_without_shtab(monkeypatch, capsys):
    assert "'ash': give bash, zsh, " in refused(["--print_completion", "ash"], capsys)
    monkeypatch.setattr("exml_lightning.cli.verbs.find_spec", lambda name: None)
    with pytest.raises(ExmlError, match=r'pip install "exml-lightning\[completion\]"'):
        completion_script("bash")
