"""`exml --print_completion SHELL`: a script that completes verbs, options, values and files, made by shtab."""

import argparse
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

from exml_lightning.core.errors import ExmlError

PARSERS = {
    "catalog": "exml_lightning.cli.catalog.catalog_parser",
    "export": "exml_lightning.cli.export.export_parser",
    "manifest": "exml_lightning.cli.commands.manifest_parser",
    "predict": "exml_lightning.cli.commands.predict_parser",
    "report": "exml_lightning.cli.report.report_parser",
    "sweep": "exml_lightning.cli.sweep.command.sweep_parser",
}
"""What makes the parser of a verb that takes no configuration."""
FILES = ("ckpt_path", "config", "output")
FOLDERS = ("data.root", "data.experts", "buffer.cache", "trainer.default_root_dir", "generate.folder")
"""Options that are completed by names of files or of folders; what has no name is one, too."""


def completion_script(shell: str, verbs: dict[str, str]) -> str:
    """Make the script.

    Args:
        shell: ``bash``, ``zsh``, or another that shtab knows.
        verbs: What each verb does.

    Returns:
        The script.

    Raises:
        ExmlError: For another shell, or where shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise ExmlError(
            'completion needs shtab: pip install "exml-lightning[completion]", or in a clone '
            'pip install -e ".[completion]"'
        )
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise ExmlError(f"--print_completion {shell!r}: give {', '.join(shtab.SUPPORTED_SHELLS)}")
    script: str = shtab.complete(whole_parser(verbs), shell)
    return script


def whole_parser(verbs: dict[str, str]) -> argparse.ArgumentParser:
    """Return a plain parser of all verbs and their options.

    Args:
        verbs: What each verb does.
    """
    parser = argparse.ArgumentParser(prog="exml")
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--print_completion", metavar="SHELL", help="print a completion script")
    added = parser.add_subparsers()
    for verb, what in verbs.items():
        plain = added.add_parser(verb, help=what)
        for action in _parser(verb)._actions:
            _copy(action, plain)
    return parser


def _parser(verb: str) -> argparse.ArgumentParser:
    if verb in PARSERS:
        module, _, name = PARSERS[verb].rpartition(".")
        made: argparse.ArgumentParser = getattr(import_module(module), name)()
        return made
    return _configured_parser(verb)


def _configured_parser(verb: str) -> argparse.ArgumentParser:
    """Make the parser as the verb itself does, and stop there."""
    from exml_lightning.cli.lightning_cli import RUN_VERBS, StreamCLI

    made: dict[str, argparse.ArgumentParser] = {}

    class Parsers(StreamCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            made.update(self._subcommand_parsers if verb in RUN_VERBS else {verb: parser})
            raise _MadeError

    with suppress(_MadeError):
        Parsers([verb] if verb in RUN_VERBS else [], verb)
    return made[verb]


class _MadeError(Exception):
    pass


def _copy(action: argparse.Action, to: argparse.ArgumentParser) -> None:
    """Add what can be completed of an option or a positional argument."""
    if action.help == argparse.SUPPRESS or "--help" in action.option_strings or action.dest.endswith(".help"):
        return
    settings: dict[str, Any] = {"help": " ".join(str(action.help or "").split()).replace("%", "%%")[:120]}
    if action.nargs == 0:
        to.add_argument(*action.option_strings, action="store_true", **settings)
        return
    choices = _choices(action)
    names = action.option_strings or [action.dest]
    copied = to.add_argument(*names, nargs=action.nargs, choices=choices, metavar=action.metavar, **settings)
    import shtab

    if action.dest in FILES or not action.option_strings:
        copied.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.dest in FOLDERS:
        copied.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _choices(action: argparse.Action) -> list[str] | None:
    if action.choices:
        return [str(choice) for choice in action.choices]
    todo, found = [getattr(action, "_typehint", None)], []
    for part in todo:
        if part is bool:
            found += ["true", "false"]
        elif isinstance(part, str):
            found.append(part)
        elif not isinstance(part, type):
            todo += get_args(part)
    return found or None
