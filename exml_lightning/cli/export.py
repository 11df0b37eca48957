"""`exml export`: its options, and what it prints."""

from pathlib import Path

from exml_lightning.cli.parser import Parser, verb_parser
from exml_lightning.terminal import say

HELP = """\
Write an ex-model (the ex_model/ folder of a run), or any expert of a folder, as others expect a model: README.md (a
model card), config.json, model.safetensors, model.onnx and manifest.yaml, in the layout of the Hugging Face Hub.

model.onnx takes pixels in [0, 1], normalises them itself and returns logits. It is compared with PyTorch on images
before anything is put in place: those of --check, or the samples in the run folder. See docs/export.md.

  exml export runs/split_digits/model_inversion/run0/ex_model
  exml export runs/zoo/model_inversion/run0/ex_model --output zoo_model --check photos --license apache-2.0
"""


def run_export(args: list[str]) -> None:
    """Run ``exml export``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right; nothing is left behind then.
    """
    given = export_parser().parse_args(args)
    from exml_lightning.ex_model.export.folder import export_ex_model

    made = export_ex_model(
        given.folder,
        output=given.output,
        expert=given.expert,
        check=given.check,
        license=given.license,
    )
    say(f"{made.folder}: {', '.join(made.files)}")
    say(f"model.onnx against PyTorch {made.comparison}")
    if made.license is None:
        say("no licence is stated: say which one holds with --license NAME, for instance --license apache-2.0")
    say(f'in Python: exml_lightning.load_ex_model("{made.folder}")')


def export_parser() -> Parser:
    """Return the parser of the verb."""
    parser = verb_parser("export", "EX_MODEL_DIR [options]", HELP)
    add = parser.add_argument
    add("folder", type=Path, metavar="EX_MODEL_DIR", help="Folder with a manifest.yaml and weights.")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        help="Folder to write to, default EX_MODEL_DIR_export; an earlier export there is replaced, other files stay.",
    )
    add("--expert", type=int, metavar="K", help="Which expert of the folder, from 0; needed where there are several.")
    add("--check", type=Path, metavar="IMAGES", help="A folder of images, searched at any depth, or one image file.")
    add(
        "--license",
        metavar="NAME",
        help="The model's licence, as the Hub names it; without it, what the manifest states.",
    )
    return parser
