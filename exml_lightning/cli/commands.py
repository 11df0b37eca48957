"""`exml manifest` and `exml predict`: the verbs that need neither Lightning nor a configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exml_lightning.cli.parser import Parser, verb_parser
from exml_lightning.terminal import say

if TYPE_CHECKING:
    from exml_lightning.core.images import ImageFormat
    from exml_lightning.experts import Manifest

MANIFEST_HELP = """\
Write or extend DIR/manifest.yaml, so that the weight files in DIR can be learned as a stream of experts.

One call adds files of one architecture, in natural order, to the end of the stream; experts of another one are added by
another call. Class names say which classes are the same in several experts. Each expert is loaded and asked before
anything is written.

  exml manifest DIR --architecture torchvision.models.resnet18 --classes cat dog bird --size 224
  exml manifest DIR --architecture my_networks.Net --init_args '{width: 64}' --files a.pt b.pt --size 32
"""
PREDICT_HELP = """\
Label images by an ex-model (the ex_model/ folder of a run), or by any expert of a folder with a manifest.

Each image is made grey or RGB, resized until its short side fits, cropped in the middle and normalised, all as the
manifest says. The CSV has the columns file, label, probability and p(CLASS) for each class that the model knows.

  exml predict runs/split_digits/model_inversion/run0/ex_model photos
"""


def run_manifest(args: list[str]) -> None:
    """Run ``exml manifest``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right; the manifest is then as it was.
    """
    given = manifest_parser().parse_args(args)
    from exml_lightning.experts.describe import NewExperts, add_experts
    from exml_lightning.terminal import print_rows

    folder = Path(given.folder)
    values: dict[str, Any] = {name: value for name, value in vars(given).items() if name != "folder"}
    for name in ("classes", "size", "mean", "std", "files"):
        values[name] = None if values[name] is None else tuple(values[name])
    new = NewExperts(**{**values, "init_args": values["init_args"] or {}})
    manifest, added, skipped = add_experts(folder, new)
    for file in skipped:
        say(f"{file}: listed already, left as it is")
    print_rows(
        f"{folder / 'manifest.yaml'}: {_count(manifest.experts, 'expert')} of {len(manifest.class_names)} classes",
        ["", "file", "architecture", "classes", "task", "images"],
        _experts_table(manifest),
    )
    if added and new.mean is None:
        say(
            "mean and std were not given: the stream's are taken where it has as many channels, else ImageNet's for\n"
            "RGB and 0.5 for grey. An expert that was trained with others answers badly: give --mean and --std."
        )
    if added:
        extended = added < len(manifest.experts)
        more = " (--ckpt_path last goes on with a run that learned the first ones)" if extended else ""
        say(f"next: exml fit -c configs/from_folder.yaml --data.experts {folder}{more}")
    else:
        say("nothing was added")


def run_predict(args: list[str]) -> None:
    """Run ``exml predict``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right; no file is written then.
    """
    given = predict_parser().parse_args(args)
    from exml_lightning.core.errors import ExmlError
    from exml_lightning.ex_model.predict import predict, summarize, write_predictions
    from exml_lightning.files import check_folder
    from exml_lightning.terminal import print_rows

    output = Path(given.output)
    if output.is_dir():
        raise ExmlError(f"{output} is a folder: name a file with --output FILE")
    check_folder(output.parent, "output")
    predictions = predict(
        Path(given.folder), Path(given.images), given.batch_size, given.device, given.expert, show_progress=True
    )
    write_predictions(predictions, output)
    print_rows(
        f"{output}: {_count(predictions.files, 'image')}",
        ["label", "images", "mean probability"],
        summarize(predictions),
    )
    if predictions.broken:
        say(f"left out, since they could not be read: {predictions.broken}")


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _experts_table(manifest: "Manifest") -> list[list[str]]:
    from exml_lightning.experts.catalog import architecture_words

    rows = []
    for i, entry in enumerate(manifest.experts):
        shown = " ".join(entry.classes[:8])
        classes = shown if len(entry.classes) <= 8 else f"{shown} ... ({len(entry.classes)})"
        rows.append(
            [
                str(i),
                entry.file,
                architecture_words(entry.architecture),
                classes,
                str(entry.task),
                _say(entry.input or manifest.input),
            ]
        )
    return rows


def _say(images: "ImageFormat") -> str:
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (images.mean, images.std))
    return f"{'x'.join(map(str, images.shape))}, mean {mean}, std {std}"


def manifest_parser() -> Parser:
    """Return the parser of ``exml manifest``."""
    parser = verb_parser("manifest", "DIR --architecture CLASS_PATH [options]", MANIFEST_HELP)
    add = parser.add_argument
    add("folder", metavar="DIR", help="Folder of weight files: safetensors, or state dicts that torch reads safely.")
    add(
        "--architecture",
        metavar="CLASS_PATH",
        required=True,
        help="Dotted path of an nn.Module class, or of a function annotated to return one.",
    )
    add(
        "--init_args",
        metavar="YAML",
        type=dict[str, Any] | None,
        default=None,
        help="Its keyword arguments; num_classes is filled in where it takes one.",
    )
    add(
        "--classes",
        metavar="NAME",
        nargs="+",
        type=str,
        help="A name for each output unit, in their order, - for one that is no class; without it, the lines of "
        "<stem>.txt beside each file.",
    )
    add(
        "--size",
        metavar="PIXELS",
        nargs="+",
        type=int,
        help="Height and width of the images it takes, one number for both; without it, those of the stream.",
    )
    add("--channels", type=int | None, default=None, help="Of the images; without it, the first convolution's.")
    add(
        "--mean",
        metavar="VALUE",
        nargs="+",
        type=float,
        help="Mean of each channel, of pixels in [0, 1], that the images were normalised by, or one value for all; "
        "without it, the stream's if it has as many channels, else ImageNet's for RGB and 0.5 for grey.",
    )
    add("--std", metavar="VALUE", nargs="+", type=float, help="Standard deviation, like --mean.")
    add(
        "--files",
        metavar="FILE",
        nargs="+",
        type=str,
        help="Files of DIR, in the order of the stream; without it, all weight files there that are not listed yet.",
    )
    add("--classifier", type=str | None, default=None, help="Dotted name of the last linear layer; found if it can be.")
    add("--task", type=int, default=0, help="Task label, where tasks have heads of their own.")
    add("--accuracy", type=float | None, default=None, help="On its own classes, 0 to 1; for people to read.")
    add("--license", type=str | None, default=None, help="What may be done with it, for instance MIT.")
    add("--scenario", type=str | None, default=None, help="Name of a new stream; without it, that of DIR.")
    return parser


def predict_parser() -> Parser:
    """Return the parser of ``exml predict``."""
    parser = verb_parser("predict", "EX_MODEL_DIR IMAGES [options]", PREDICT_HELP)
    add = parser.add_argument
    add("folder", metavar="EX_MODEL_DIR", help="Folder with a manifest.yaml and weights.")
    add("images", metavar="IMAGES", help="Folder of images, searched at any depth, or one image file.")
    add("--output", metavar="FILE", default="predictions.csv", help="CSV to write; one that is there is replaced.")
    add("--batch_size", type=int, default=256, help="Images the network is shown at once.")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA where there is one.")
    add(
        "--expert",
        metavar="K",
        type=int | None,
        default=None,
        help="Which expert of the folder, from 0: the ex-model of a multi-task stream has one for each task, in their "
        "order. Needed where there are several.",
    )
    return parser
