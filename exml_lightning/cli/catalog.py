"""`exml catalog`: the command."""

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exml_lightning.cli.parser import Parser, verb_parser
from exml_lightning.terminal import say

if TYPE_CHECKING:
    from exml_lightning.experts.selection import Choice

HELP = """\
List the experts and ex-models in folders and anywhere below them: every folder with a manifest.yaml.

  exml catalog checkpoints runs

Choose among them, in the order in which they are to be learned:

  exml catalog zoo --pick zoo/clinic_a:2 zoo/clinic_b:0 --output selection.yaml
  exml fit -c configs/from_folder.yaml --data.experts selection.yaml

Nothing of a folder is run, and weights are not read. docs/catalog.md says more.
"""


def run_catalog(args: list[str]) -> None:
    """Run ``exml catalog``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right; no file is written then.
    """
    given = catalog_parser().parse_args(args)
    from exml_lightning.core.errors import ExmlError, printable
    from exml_lightning.experts.catalog import find_experts, picked, print_catalog, record
    from exml_lightning.experts.selection import write_selection

    output = None if given.output is None else Path(given.output)
    if output is not None:
        _check_output(output)
    places = [Path(place) for place in given.folders]
    catalog = find_experts(places)
    for line in catalog.left_out:
        print(f"left out: {line}", file=sys.stderr)
    everything = catalog.experts
    where = printable(" ".join(given.folders), 300)
    if not everything:
        raise ExmlError(f"{where}: no folder of experts there, or below (a manifest.yaml: `exml manifest` writes one)")
    listed = picked(everything, given.pick) if given.pick else everything
    problem = None if output is None else _problem(output, listed, strict=bool(given.pick))
    if given.json:
        print(json.dumps([record(expert) for expert in listed], indent=2, allow_nan=False))
    else:
        of = "" if len(listed) == len(everything) else f" of {len(everything)}"
        print_catalog(f"{where}: {len(listed)}{of} expert{'' if len(listed) == 1 and not of else 's'}", listed)
    if output is not None:
        write_selection(output, listed)
        said = [f"{output}: {len(listed)} expert{'s' * (len(listed) != 1)} in this order"]
        said += [] if problem is None else [f"`exml fit` will not take it as it is: {printable(problem, 500)}"]
        said.append(f"next: exml fit -c configs/from_folder.yaml --data.experts {shlex.quote(str(output))}")
        if given.json:
            print("\n".join(said), file=sys.stderr)
        else:
            say("\n".join(said))


def _check_output(output: Path) -> None:
    from exml_lightning.core.errors import ExmlError
    from exml_lightning.experts.manifest import FILE_NAME
    from exml_lightning.experts.selection import SUFFIXES
    from exml_lightning.files import check_folder, folder_name

    if output.suffix not in SUFFIXES or output.name == FILE_NAME:
        raise ExmlError(f"--output {output}: name a file of its own that ends in .yaml")
    folder_name(output.stem, "--output")
    if output.exists():
        raise ExmlError(f"{output} is there already, changed by hand perhaps: delete it, or name another --output")
    check_folder(output.parent, "output")


def _problem(output: Path, listed: "Sequence[Choice]", strict: bool) -> str | None:
    """Say why a selection cannot be learned as it is; refuse that where the user picked each expert of it."""
    from exml_lightning.core.errors import ExmlError
    from exml_lightning.experts.selection import unite

    try:
        unite(output.stem, listed)
    except ExmlError as error:
        if strict:
            raise ExmlError(f"--pick: {error}") from error
        return str(error)
    return None


def catalog_parser() -> Parser:
    """Return the parser of the verb."""
    parser = verb_parser("catalog", "DIR... [options]", HELP)
    add = parser.add_argument
    add("folders", metavar="DIR", nargs="+", help="Folder to search, at any depth; links are followed.")
    add(
        "--pick",
        metavar="DIR:K",
        nargs="+",
        help="List these alone, in this order: the folder and the number of each, as they are listed.",
    )
    add("--output", metavar="FILE", help="Write what is listed as a selection, for --data.experts; a new .yaml file.")
    add("--json", action="store_true", help="Print a list of records for scripts in place of the table.")
    return parser
