"""The verbs: functions, whose signatures and docstrings are the options and the help; each is imported when it runs."""

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from exml_lightning.cli.config_names import known_configs, of_verb
from exml_lightning.core.errors import ExmlError
from exml_lightning.terminal import quiet_lightning

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from exml_lightning.cli.lightning_cli import StreamCLI


class Verb(NamedTuple):
    """A verb.

    Args:
        function: Its module and name.
        what: What it does, in a line.
        configured: Whether it takes the configuration of a stream: its function then gets a `StreamCLI`; of others,
            the parameters are the options.
        stopped: What is said where it was stopped.
        begins: Whether it says first that it has begun; not where stdout is what was asked for, or it loads at once.
    """

    function: str
    what: str
    configured: bool = False
    stopped: str = "nothing was written"
    begins: bool = True


def _stream_verb(name: str, what: str, begins: bool = True) -> Verb:
    return Verb(f"exml_lightning.cli.stream_verbs.{name}", what, True, "go on with the same command", begins)


VERBS = {
    "experts": _stream_verb("experts", "train the stream of experts of a scenario and write them with a manifest"),
    "fit": _stream_verb("fit", "learn one ex-model from a stream of experts"),
    "validate": _stream_verb(
        "validate", "print the accuracy of a checkpoint, or of a baseline, on the test stream", begins=False
    ),
    "generate": _stream_verb("generate", "write images made from experts of a folder: buffer files and pictures"),
    "test": _stream_verb(
        "test", "measure the accuracy of a checkpoint, or of a baseline, on the test stream and write test.json"
    ),
    "manifest": Verb(
        "exml_lightning.cli.folder_verbs.manifest",
        "describe trained classifiers of your own, so that they can be learned",
    ),
    "statistics": Verb(
        "exml_lightning.cli.folder_verbs.statistics",
        "publish what a layer of your experts saw of each class: what is learned from them is far better",
        stopped="experts that are done keep theirs; the same command measures all anew, and spends epsilon again",
    ),
    "catalog": Verb(
        "exml_lightning.cli.folder_verbs.catalog",
        "list the experts and ex-models in folders, and select some in an order of your own",
        begins=False,
    ),
    "predict": Verb("exml_lightning.cli.folder_verbs.predict", "label a folder of images by an ex-model"),
    "export": Verb(
        "exml_lightning.cli.folder_verbs.export",
        "write an ex-model as ONNX and safetensors with a model card, as the Hugging Face Hub expects it",
    ),
    "report": Verb(
        "exml_lightning.cli.folder_verbs.report",
        "write the paper's tables and figures of runs",
        stopped="files written are whole",
    ),
    "sweep": Verb(
        "exml_lightning.cli.sweep.command.sweep",
        "run scenarios x strategies x runs on Ray, here or on a cluster",
        stopped="go on with the same command",
    ),
}


def function_of(verb: str) -> Callable[..., None]:
    """Import what a verb runs."""
    module, _, name = VERBS[verb].function.rpartition(".")
    function: Callable[..., None] = getattr(import_module(module), name)
    return function


def parser_of(verb: str) -> "ArgumentParser":
    """Return the parser of the words after a verb."""
    if VERBS[verb].configured:
        from jsonargparse import capture_parser

        with quiet_lightning():
            parser: ArgumentParser = capture_parser(lambda: _stream_cli(verb, []))
            return parser
    from exml_lightning.cli.parser import function_parser

    return function_parser(verb, function_of(verb))


def run_verb(verb: str, words: Sequence[str]) -> None:
    """Run a verb.

    Args:
        verb: One of `VERBS`.
        words: Its options.

    Raises:
        ExmlError: For whatever the user can put right.
        SystemExit: With status 2 for words that do not exist.
    """
    if not VERBS[verb].configured:
        function = function_of(verb)
        given = parser_of(verb).parse_args(words)
        function(**{name: given[name] for name in inspect.signature(function).parameters})
        return
    with quiet_lightning():
        from lightning.fabric.utilities.exceptions import MisconfigurationException

        try:
            function_of(verb)(_stream_cli(verb, words))
        except MisconfigurationException as error:
            device = "; choose a device with trainer.accelerator, or -c configs/trainer/cpu.yaml"
            raise ExmlError(f"{' '.join(str(error).split())}{device if 'backend' in str(error) else ''}") from error


def _stream_cli(verb: str, words: Sequence[str]) -> "StreamCLI":
    from exml_lightning.cli.lightning_cli import StreamCLI

    return StreamCLI(verb, words, inspect.getdoc(function_of(verb)) or "")


def completion_script(shell: str) -> str:
    """Make a script that completes verbs, options and values on Tab.

    Args:
        shell: One that shtab knows, as bash and zsh.

    Raises:
        ExmlError: For another one, or where shtab is not installed.
    """
    if find_spec("shtab") is None:
        extra = 'pip install "exml-lightning[completion]", or in a clone pip install -e ".[completion]"'
        raise ExmlError(f"completion needs shtab: {extra}")
    import shtab
    from jsonargparse import ArgumentParser

    if shell not in shtab.SUPPORTED_SHELLS:
        raise ExmlError(f"--print_completion {shell!r}: give {', '.join(shtab.SUPPORTED_SHELLS)}")
    whole: Any = ArgumentParser(prog="exml")
    verbs = whole.add_subcommands()
    for verb, about in VERBS.items():
        parser = parser_of(verb)
        verbs.add_subcommand(verb, parser, help=about.what)
        for action in (action for action in parser._actions if action.dest == "config"):
            names = "_exml_sweep_files" if verb == "sweep" else "_exml_config_files"
            action.complete = {**shtab.FILE, "bash": names, "zsh": names}  # type: ignore[attr-defined]  # of shtab
    # Not by jsonargparse's get_completion_script, which lists the options of all classes that there are: 140 MB.
    return str(shtab.complete(whole, shell, preamble=_names_of_configs().get(shell, "")))


def _names_of_configs() -> dict[str, str]:
    """Write functions of shells that complete what follows ``-c``: a name or a file."""
    made: dict[str, list[str]] = {"bash": [], "zsh": []}
    for function, sweep in (("_exml_config_files", False), ("_exml_sweep_files", True)):
        names = " ".join(sorted(file.stem for file in of_verb(known_configs(), sweep).values()))
        made["bash"].append(f'{function}() {{ compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}')
        made["zsh"].append(f"{function}() {{ compadd {names}; _files }}")
    return {shell: "\n".join(lines) for shell, lines in made.items()}
