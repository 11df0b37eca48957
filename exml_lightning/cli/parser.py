"""Parsers of the command line: a function's signature as options, and what is wrong in one line, with status 2."""

import inspect
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from exml_lightning.cli.config_names import with_paths
from exml_lightning.cli.usage_errors import explain
from exml_lightning.terminal import Quiet


class LinesKept(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of a description."""


class OneLineErrors(ArgumentParser):
    """Says what is wrong in one line, what was likely meant, and ends with status 2."""

    words: Sequence[str] = ()
    """What is parsed."""
    of_sweep = False
    """Whether a name after ``-c`` is that of a sweep."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Write names of files as paths, and keep the words, for what is to be said of them."""
        self.words = with_paths([str(word) for word in (sys.argv[1:] if args is None else args)], self.of_sweep)
        return super().parse_args(self.words, *more, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print a line and end.

        Args:
            message: What jsonargparse or argparse says.
            ex: What it stems from.

        Raises:
            SystemExit: With status 2.
        """
        if not self.exit_on_error:  # of a setting within another, whose parser says it in its turn
            super().error(message, ex)
        print(f"exml: error: {explain(self, self.words, message)}", file=sys.stderr)
        self.exit(2)
        raise AssertionError


def function_parser(verb: str, function: Callable[..., None]) -> OneLineErrors:
    """Make the parser of a verb from its function.

    A parameter without a default is positional, or needed if it is by keyword only; a list takes one or more words; a
    flag takes none; ``config`` is a file of the other options. The text of the docstring is the help, and what it says
    of an argument is the help of that.

    Args:
        verb: The verb.
        function: What it runs.
    """
    about = docstring_parser.parse(inspect.getdoc(function) or "", docstring_parser.DocstringStyle.GOOGLE)
    meanings = {entry.arg_name: entry.description for entry in about.params}
    parser = OneLineErrors(prog=f"exml {verb}", description=about.description, formatter_class=LinesKept)
    parser.of_sweep = verb == "sweep"
    parser.add_argument("--quiet", action=Quiet)
    types = get_type_hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        default, kind = parameter.default, types[name]
        options: dict[str, Any] = {"help": meanings[name]}
        if name == "config":
            parser.add_argument("-c", "--config", action="config", **options)
            continue
        items = next((get_args(part)[0] for part in (kind, *get_args(kind)) if get_origin(part) is list), None)
        if kind is bool:
            options["action"] = "store_true"
        elif get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        else:
            options |= {"type": items, "nargs": "+"} if items else {"type": kind}
        if default is not parameter.empty:
            parser.add_argument(f"--{name}", default=default, **options)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            parser.add_argument(f"--{name}", required=True, **options)
        else:
            parser.add_argument(name, metavar=name.upper(), **options)
    return parser
