"""Parsers of the command line: help that keeps its lines, and what is wrong in one line, with status 2."""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from exml_lightning.cli.usage_errors import check_files, explain
from exml_lightning.terminal import Quiet


class LinesKept(RawDescriptionHelpFormatter, DefaultHelpFormatter):
    """Keeps the lines of a description and of an epilog."""


class OneLineErrors(ArgumentParser):
    """Says what is wrong in one line, what was likely meant, and ends with status 2."""

    words: Sequence[str] = ()
    """What is parsed."""

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Look at the files given by ``-c`` first: what is wrong with them is said with their names."""
        self.words = [str(word) for word in (sys.argv[1:] if args is None else args)]
        wrong = check_files(self.words)
        if wrong is not None:
            self.error(wrong)
        return super().parse_args(args, *more, **options)

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
        parser = getattr(ex, "subcommand_parser", None) or self
        print(f"exml: error: {self.explain(message, parser)}", file=sys.stderr)
        self.exit(2)
        raise AssertionError

    def explain(self, message: str, parser: ArgumentParser) -> str:
        """Say what is wrong in one line; see `usage_errors.explain`."""
        return explain(message, parser, self.words)


class Parser(OneLineErrors):
    """The parser of a verb without a configuration."""


def verb_parser(verb: str, usage: str, description: str, kind: type[Parser] = Parser) -> Parser:
    """Make the parser of a verb without a configuration, with the option that all verbs have.

    Args:
        verb: The verb.
        usage: The words after it.
        description: Its help, whose lines are kept.
        kind: The class, for one that says more of what is wrong.
    """
    parser = kind(prog=f"exml {verb}", usage=f"exml {verb} {usage}", description=description, formatter_class=LinesKept)
    parser.add_argument("--quiet", action=Quiet)
    return parser
