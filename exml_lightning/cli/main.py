"""The command line: ``exml VERB --config configs/<scenario>.yaml``."""

import difflib
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from exml_lightning.cli.memory import keep_freed_memory
from exml_lightning.terminal import Terminated, ended_by_sigterm, is_quiet, set_quiet

VERBS = {
    "experts": "train the stream of experts of a scenario and write them with a manifest",
    "fit": "learn one ex-model from a stream of experts",
    "validate": "print the accuracy of a checkpoint, or of a baseline, on the test stream",
    "generate": "write images made from experts of a folder: buffer files and pictures",
    "test": "measure the accuracy of a checkpoint, or of a baseline, on the test stream and write test.json",
    "manifest": "describe trained classifiers of your own, so that they can be learned",
    "catalog": "list the experts and ex-models in folders, and select some in an order of your own",
    "predict": "label a folder of images by an ex-model",
    "export": "write an ex-model as ONNX and safetensors with a model card, as the Hugging Face Hub expects it",
    "report": "write the paper's tables and figures of runs",
    "sweep": "run scenarios x strategies x runs on Ray, here or on a cluster",
}

HELP = """\
usage: exml VERB [--config FILE ...] [options]

Ex-Model Continual Learning: grow one model from a stream of trained classifiers, without their data.

verbs:
{verbs}

examples:
  exml fit --config configs/split_digits.yaml
  exml experts -c configs/split_mnist.yaml --data.root data
  exml fit -c configs/split_mnist.yaml -c configs/strategies/auxiliary.yaml --data.root data
  exml generate --data.experts checkpoints/split_digits/run0 --generate.num_samples 50
  exml test -c configs/split_mnist.yaml --data.root data --ckpt_path last
  exml test -c configs/split_mnist.yaml -c configs/baselines/min_entropy.yaml --data.root data
  exml manifest DIR --architecture torchvision.models.resnet18 --classes cat dog bird --size 224
  exml fit -c configs/from_folder.yaml --data.experts DIR
  exml catalog checkpoints runs --classes 3 7
  exml predict runs/split_digits/model_inversion/run0/ex_model photos --output predictions.csv
  exml export runs/split_digits/model_inversion/run0/ex_model
  exml report runs
  exml sweep --scenarios split_digits --strategies model_inversion auxiliary --runs 0 --workers 2

`exml VERB --help` lists the options of a verb; `exml VERB -c FILE --print_config` shows the whole configuration.
`exml --print_completion bash` (or zsh, fish, tcsh) prints a script that completes words on Tab.
Every verb takes --quiet. Exit status: 0 done, 1 bad input, 2 wrong words, 130 Ctrl-C, 143 SIGTERM.
"""


def main(args: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: The words after ``exml``; default those of this process.

    Raises:
        SystemExit: With status 1 and one line on stderr for bad input, with 2 for a word or a key that does not exist.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(HELP.format(verbs="\n".join(f"  {verb:<10} {what}" for verb, what in VERBS.items())), end="")
        return
    if args[0] == "--version":
        print(f"exml_lightning {version('exml-lightning')}")
        return
    if args[0] == "--print_completion":
        _interruptible(_print_completion, args, "nothing was written")
        return
    if args[0] not in VERBS:
        close = difflib.get_close_matches(args[0], VERBS, n=1)
        hint = f"did you mean `exml {close[0]}`?" if close else f"verbs: {', '.join(VERBS)}"
        print(f"exml: error: no verb {args[0]!r}; {hint}", file=sys.stderr)
        raise SystemExit(2)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # for networks of the user's own, as `python -m exml_lightning` does
    keep_freed_memory()
    quiet = is_quiet()
    try:
        _run_verb(args)
    finally:
        set_quiet(quiet)  # --quiet is for this command alone


def _run_verb(args: list[str]) -> None:
    if args[0] == "sweep":
        _interruptible(_run_alone, args, "go on with the same command")
        return
    if args[0] in ("manifest", "catalog", "predict", "export", "report"):
        _interruptible(_run_alone, args, "files written are whole" if args[0] == "report" else "nothing was written")
        return
    asks = [".help" in word or word.startswith(("-c", "--config", "--data", "--help", "-h")) for word in args[1:]]
    if not any(asks):
        what, option = (
            ("experts", "--data.experts checkpoints/split_digits/run0")
            if args[0] == "generate"
            else ("scenario", "-c configs/split_digits.yaml")
        )
        print(f"exml: error: which {what}? For instance: exml {args[0]} {option}", file=sys.stderr)
        raise SystemExit(2)
    _interruptible(_run, args, "go on with the same command")


def _interruptible(run: Callable[[list[str]], None], args: list[str], advice: str) -> None:
    """Let Ctrl-C end a verb with one line and status 130, SIGTERM with 143, from the first import on."""
    try:
        with ended_by_sigterm():
            run(args)
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning turns Ctrl-C into sys.exit(1) while it handles the interrupt.
        pressed = isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt)
        if not pressed and not isinstance(error, Terminated):
            raise
        print(f"\nexml: stopped; {advice}", file=sys.stderr)
        raise SystemExit(130 if pressed else 143) from None


def _run_alone(args: list[str]) -> None:
    from exml_lightning.core.errors import ExmlError

    try:
        _verb_alone(args[0])(args[1:])
    except ExmlError as error:
        print(f"exml: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _print_completion(args: list[str]) -> None:
    from exml_lightning.cli.completion import completion_script
    from exml_lightning.core.errors import ExmlError

    try:
        print(completion_script(args[1] if len(args) > 1 else "", VERBS))
    except ExmlError as error:
        print(f"exml: error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _verb_alone(verb: str) -> Callable[[list[str]], None]:
    if verb == "report":
        from exml_lightning.cli.report import run_report

        return run_report
    if verb == "catalog":
        from exml_lightning.cli.catalog import run_catalog

        return run_catalog
    if verb == "export":
        from exml_lightning.cli.export import run_export

        return run_export
    if verb == "sweep":
        from exml_lightning.cli.sweep.command import run_sweep

        return run_sweep
    from exml_lightning.cli.commands import run_manifest, run_predict

    return run_manifest if verb == "manifest" else run_predict


def _run(args: list[str]) -> None:
    from exml_lightning.terminal import quiet_lightning

    with quiet_lightning():  # Lightning takes seconds to import: not for --help
        _run_with_lightning(args)


def _run_with_lightning(args: list[str]) -> None:
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from exml_lightning.cli.verbs import run_experts, run_generate, run_stream
    from exml_lightning.core.errors import ExmlError

    try:
        if args[0] == "experts":
            run_experts(args[1:])
        elif args[0] == "generate":
            run_generate(args[1:])
        else:
            run_stream(args)
    except ValueError as error:
        cause: BaseException | None = error
        while not isinstance(cause, ExmlError):  # jsonargparse wraps what a constructor raises
            if cause is None:
                raise
            cause = cause.__cause__
        print(f"exml: error: {cause}", file=sys.stderr)
        raise SystemExit(1) from None
    except MisconfigurationException as error:
        hint = (
            "; choose a device with trainer.accelerator, or -c configs/trainer/cpu.yaml"
            if "backend" in str(error)
            else ""
        )
        print(f"exml: error: {' '.join(str(error).split())}{hint}", file=sys.stderr)
        raise SystemExit(1) from None
