"""The command line: ``exml VERB -c SCENARIO``."""

import difflib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from exml_lightning.cli.config_files import misspelt, wrong_file
from exml_lightning.cli.memory import keep_freed_memory
from exml_lightning.cli.strategy import stack_strategy
from exml_lightning.cli.verbs import VERBS, completion_script, run_verb
from exml_lightning.core.errors import ExmlError
from exml_lightning.terminal import Terminated, ended_by_sigterm, is_first_process, is_quiet, set_quiet

HELP = """\
usage: exml VERB [-c NAME|FILE ...] [options]

Ex-Model Continual Learning: grow one model from a stream of trained classifiers, without their data.

verbs:
{verbs}

examples:
  exml fit -c split_digits
  exml experts -c split_mnist --data.root data
  exml fit -c split_mnist --strategy auxiliary --data.root data
  exml generate -c split_digits --strategy model_inversion
  exml test -c split_mnist --data.root data --ckpt_path last
  exml test -c split_mnist -c min_entropy --data.root data
  exml manifest DIR --architecture torchvision.models.resnet18 --classes cat dog bird --size 224
  exml fit -c from_folder --data.experts DIR
  exml catalog checkpoints runs
  exml predict runs/split_digits/best/run0/ex_model photos --output predictions.csv
  exml export runs/split_digits/best/run0/ex_model
  exml report runs
  exml sweep --scenarios split_digits --strategies best auxiliary --runs 0 --workers 2

`exml VERB --help` lists the options of a verb; `exml VERB -c FILE --print_config` shows the whole configuration.
`exml --print_completion bash` (or zsh, tcsh) prints a script that completes words on Tab.
Every verb takes --quiet. Exit status: 0 done, 1 bad input, 2 wrong words, 130 Ctrl-C, 141 closed
pipe, 143 SIGTERM.
"""

CLOSED_PIPE = 141
"""Exit status where stdout was closed, as a shell reports SIGPIPE."""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: The words after ``exml``; default those of this process.

    Raises:
        SystemExit: With status 1 and one line on stderr for bad input, with 2 for a word or a key that does not exist.
    """
    verb, *words = (sys.argv[1:] if args is None else args) or ["--help"]
    if verb in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {name:<10} {about.what}" for name, about in VERBS.items())), end="")
    elif verb == "--version":
        from importlib.metadata import version

        print(f"exml_lightning {version('exml-lightning')}")
    elif verb == "--print_completion":
        _interruptible(lambda: print(completion_script(*words[:1] or [""])), "nothing was written")
    else:
        _check(verb, words)
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)  # for networks of the user's own, as `python -m exml_lightning` does
        keep_freed_memory()

        def run() -> None:
            _begin(verb, words)
            run_verb(verb, words)

        quiet = is_quiet()
        try:
            _interruptible(run, VERBS[verb].stopped)
        finally:
            set_quiet(quiet)  # --quiet is for this command alone


def _check(verb: str, words: list[str]) -> None:
    """Refuse, by `SystemExit` with status 2, what can be seen to be wrong before anything slow is imported."""
    wrong: str | None = None
    if verb not in VERBS:
        close = difflib.get_close_matches(verb, VERBS, n=1)
        wrong = f"no verb {verb!r}; " + (f"did you mean `exml {close[0]}`?" if close else f"verbs: {', '.join(VERBS)}")
    elif VERBS[verb].configured:
        wrong = misspelt(words, ("config", "strategy"))
        begun = any(".help" in word or word.startswith(("-c", "--co", "--data", "--help", "-h")) for word in words)
        if wrong is None and not begun:
            what, more = ("experts", ", or --data.experts DIR") if verb == "generate" else ("scenario", "")
            wrong = f"which {what}? For instance: exml {verb} -c split_digits{more}"
    elif verb == "sweep":
        wrong = misspelt(words, ("config",))
    if wrong is None:
        wrong = wrong_file(words, verb == "sweep")
    if wrong is None and VERBS[verb].configured:
        try:
            stack_strategy(words)
        except ExmlError as error:
            wrong = str(error)
    if wrong is not None:
        print(f"exml: error: {wrong}", file=sys.stderr)
        raise SystemExit(2)


def _begin(verb: str, words: list[str]) -> None:
    """Say at once that a verb has begun, before seconds of imports; not where stdout is what was asked for alone."""
    other = "-h", "--help", "--print_config", "--dry_run"
    asked = "--quiet" in words or any(".help" in word or word.startswith(other) for word in words)
    if VERBS[verb].begins and not asked and not is_quiet() and is_first_process():
        print(f"exml {verb}: starting, which takes some seconds", flush=True)


def _interruptible(run: Callable[[], None], advice: str) -> None:
    """Let bad input, Ctrl-C and SIGTERM end a verb with one line and a status, from the first import on."""
    try:
        with ended_by_sigterm():
            run()
            sys.stdout.flush()
    except ValueError as error:
        cause: BaseException | None = error
        while not isinstance(cause, ExmlError):  # jsonargparse wraps what a constructor raises
            if cause is None:
                raise
            cause = cause.__cause__
        print(f"exml: error: {cause}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError as error:
        try:
            print(flush=True)
        except BrokenPipeError:  # it is stdout that nobody reads any more, as after `| head`
            print(f"exml: stopped ({error}); {advice}", file=sys.stderr)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it ends
            raise SystemExit(CLOSED_PIPE) from None
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into sys.exit(1) while it handles the interrupt.
        pressed = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        if not pressed and not isinstance(error, Terminated):
            raise
        print(f"\nexml: stopped; {advice}", file=sys.stderr)
        raise SystemExit(130 if pressed else 143) from None
