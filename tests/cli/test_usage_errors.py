"""Wrong command lines: one line, what was likely meant, status 2."""

import subprocess

import pytest

from exml_lightning.cli.completion import completion_script
from exml_lightning.cli.main import VERBS, main
from exml_lightning.core.errors import ExmlError
from tests.conftest import refused

FILES = {
    "typo.yaml": "data:\n  n_itre: 3\n",
    "level.yaml": "n_iter: 3\n",
    "syntax.yaml": "data:\n  experts: [1\n",
    "list.yaml": "- 1\n",
    "empty.yaml": "",
    "scalar.yaml": "data: 3\n",
    "class.yaml": "model:\n  optimizer:\n    class_path: torch.optim.Adamm\n",
    "inner.yaml": "buffer:\n  generator:\n    class_path: ModelInversion\n    init_args:\n      stepss: 3\n",
}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-c typo.yaml", "typo.yaml: no key data.n_itre; did you mean data.n_iter?"),
        ("-c level.yaml", "level.yaml: no key n_iter; did you mean data.n_iter?"),
        ("-c syntax.yaml", "syntax.yaml, line 3: no valid YAML (expected ',' or ']', but got '<stream end>')"),
        ("-c list.yaml", "list.yaml holds a list: it must hold keys, such as `data: {run_id: 0}`"),
        ("-c empty.yaml", "empty.yaml is empty: it must hold keys, such as `data: {run_id: 0}`"),
        ("-c scalar.yaml", "scalar.yaml: data is 3: it must hold keys, or be left out"),
        ("-c class.yaml", "model.optimizer: no class torch.optim.Adamm; did you mean Adam?"),
        ("-c inner.yaml", "buffer.generator: ModelInversion has no setting stepss; did you mean steps?"),
        ("-c typ.yaml", "no file typ.yaml; did you mean typo.yaml?"),
        ("-c .", ". is a folder: name a file in it, for instance class.yaml"),
        ("-c", "--config needs a value"),
        ("--data.run_idd 3", "no option --data.run_idd; did you mean --data.run_id?"),
        ("--run_id=3", "no option --run_id; did you mean --data.run_id?"),
        ("--data.run_id x", "data.run_id: x is not a whole number"),
        ("--data.run_id", "--data.run_id needs a value"),
        ("--model.compile maybe", "model.compile: maybe is not true or false"),
        ("--model.lr_scheduler cosin", "model.lr_scheduler: no class cosin; did you mean cosine?"),
        ("--model.optimizer Adamm", "model.optimizer: no class Adamm; did you mean Adam?"),
        ("--model.optimizer.lrr 3", "model.optimizer: Adam has no setting lrr; did you mean lr?"),
        ("--buffer.generator.steps many", "buffer.generator.steps: many is not a whole number"),
        ("--data.scenario.dataset Digitss", "data.scenario.dataset: no class Digitss; did you mean Digits?"),
        ("extra", "'extra' is more than is asked for; options begin with --"),
        ("b.yaml", "'b.yaml' is more than is asked for: a file is given by -c, as -c b.yaml"),
        (
            "--model.normalize centre",
            "model.normalize: centre is none of center, standardize, center_batch, quantile, none; "
            "did you mean center?",
        ),
    ],
)
def test_one_line_says_what_was_meant(repository, tmp_path, monkeypatch, capsys, words, said):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    config = str(repository / "configs" / "split_digits.yaml")
    assert refused(["fit", "-c", config, *words.split(" ")], capsys, code=2) == f"exml: error: {said}\n"


def test_a_strategy_file_with_nearly_that_name(repository, monkeypatch, capsys):
    monkeypatch.chdir(repository)
    for wrong in ("configs/strategies/procedual.yaml", "configs/stratgies/procedural.yaml"):
        line = refused(["fit", "-c", wrong], capsys, code=2)
        assert line == f"exml: error: no file {wrong}; did you mean configs/strategies/procedural.yaml?\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("predict a", "IMAGES must be given: usage: exml predict EX_MODEL_DIR IMAGES [options]"),
        ("predict a b --outpt x", "no option --outpt; did you mean --output?"),
        ("manifest d --architecture x --size big", "size: big is not a whole number"),
        ("report", "RUN must be given: usage: exml report RUN... [--output DIR] [--html]"),
        ("sweep --grid 3", "grid: 3 is not a mapping"),
        ("fitt", "no verb 'fitt'; did you mean `exml fit`?"),
    ],
)
def test_the_other_verbs_say_it_alike(capsys, words, said):
    assert refused(words.split(), capsys, code=2) == f"exml: error: {said}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example_and_ends_with_0(verb, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([verb, "--help"])
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert f"\n  exml {verb} " in out
    assert "--quiet" in out


def test_completion_in_bash(repository, tmp_path):
    script = tmp_path / "exml.bash"
    script.write_text(completion_script("bash", VERBS))
    code = """
        source "$0"
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _shtab_exml; echo "${COMPREPLY[*]}"
    """

    def completed(*words: str) -> str:
        command = ["bash", "-c", code, str(script), "exml", *words]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()

    assert completed("fi") == "fit"
    for verb in VERBS:
        assert completed(verb, "--qui") == "--quiet"
    assert completed("fit", "--data.run") == "--data.run_id"
    assert completed("fit", "--model.normalize", "center") == "center center_batch"
    assert completed("fit", "-c", "configs/split_d") == "configs/split_digits.yaml"
    assert completed("predict", "--device", "") == "auto cpu cuda"


def test_completion_of_an_unknown_shell_and_without_shtab(monkeypatch, capsys):
    assert "'ash': give bash, zsh, " in refused(["--print_completion", "ash"], capsys)
    monkeypatch.setattr("exml_lightning.cli.completion.find_spec", lambda name: None)
    with pytest.raises(ExmlError, match=r'pip install "exml-lightning\[completion\]"'):
        completion_script("bash", VERBS)


def test_every_verb_can_be_completed():
    """A verb that takes no configuration names its parser in `completion.PARSERS`."""
    script = completion_script("zsh", VERBS)
    assert script.startswith("#compdef exml")
    assert all(verb in script for verb in VERBS)
