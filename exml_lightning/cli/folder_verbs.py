"""The verbs about folders of experts, images and runs: `exml manifest`, `statistics`, `catalog`, `predict` and others.

Whatever takes seconds to import is imported when a verb runs, not for its help.
"""

import math
import shlex
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exml_lightning.core.errors import ExmlError, printable
from exml_lightning.terminal import print_rows, say

if TYPE_CHECKING:
    from exml_lightning.core.images import ImageFormat
    from exml_lightning.core.labelled_images import LabelledImages
    from exml_lightning.experts import Manifest
    from exml_lightning.experts.selection import Choice


def manifest(
    folder: Path,
    *,
    architecture: str | None = None,
    init_args: dict[str, Any] | None = None,
    classes: list[str] | None = None,
    keep: list[str] | None = None,
    drop: list[str] | None = None,
    outputs: Literal["logits", "probabilities", "sigmoid"] | None = None,
    size: list[int] | None = None,
    channels: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    files: list[str] | None = None,
    weights: str | None = None,
    classifier: str | None = None,
    task: int = 0,
    accuracy: float | None = None,
    license: str | None = None,
    scenario: str | None = None,
) -> None:
    """Write or extend FOLDER/manifest.yaml, so that the weight files in FOLDER can be learned as a stream of experts.

    One call adds files of one architecture, in natural order, to the end of the stream; experts of another one are
    added by another call. Class names say which classes are the same in several experts. Each expert is loaded and
    asked before anything is written.

      exml manifest DIR --architecture torchvision.models.resnet18 --classes cat dog bird --size 224
      exml manifest DIR --architecture my_networks.Net --init_args '{width: 64}' --files a.pt b.pt --size 32
      exml manifest DIR    (a classifier that transformers or timm has saved, with its config.json)

    Args:
        folder: Folder of weight files: safetensors, or state dicts that torch reads safely.
        architecture: Dotted path of an nn.Module class, or of a function annotated to return one; without it, what the
            config.json of transformers or timm says, as of classes, size, channels, mean and std.
        init_args: Its keyword arguments; num_classes is filled in where it takes one.
        classes: A name for each output unit, in their order, - for one that is no class; without it, the lines of
            <stem>.txt beside each file. Two names for one unit, which tells two classes apart.
        keep: Of these classes, those to learn; without it, all.
        drop: Of these classes, those not to learn.
        outputs: What the network returns: logits, probabilities (a softmax in its forward) or a sigmoid of each class;
            told by what it returns if it can be.
        size: Height and width of the images it takes, one number for both; without it, those of the experts listed
            with the same network.
        channels: Of the images; without it, the first convolution's.
        mean: Mean of each channel, of pixels in [0, 1], that the images were normalised by, or one value for all;
            without it, the stream's if it has as many channels, else ImageNet's for RGB and 0.5 for grey.
        std: Standard deviation, like --mean.
        files: Files of the folder, in the order of the stream; without it, all weight files there that are not listed
            yet.
        weights: Which weights, where a file has several, an average of them perhaps: the key, or the beginning of their
            names.
        classifier: Dotted name of the last linear layer; found if it can be.
        task: Task label, where tasks have heads of their own.
        accuracy: On its own classes, 0 to 1; for people to read.
        license: What may be done with it, for instance MIT.
        scenario: Name of a new stream; without it, that of the folder.
    """
    from exml_lightning.experts.describe import NewExperts, add_experts
    from exml_lightning.experts.manifest import FILE_NAME

    def several(values: list[Any] | None) -> Any:
        return None if values is None else tuple(values)

    new = NewExperts(
        architecture,
        init_args or {},
        classes=several(classes),
        keep=several(keep),
        drop=tuple(drop or ()),
        outputs=outputs,
        weights=weights,
        size=several(size),
        channels=channels,
        mean=several(mean),
        std=several(std),
        files=several(files),
        classifier=classifier,
        task=task,
        accuracy=accuracy,
        license=license,
        scenario=scenario,
    )
    written, added, skipped, notes = add_experts(folder, new)
    for line in (*(f"{file}: listed already, left as it is" for file in skipped), *notes):
        say(printable(line, 500))
    rows = _experts_table(written)
    of_all = f" and images {rows[0][-1]}" if len({row[-1] for row in rows}) == 1 else ""
    shown = [0, 1, 2, 3, *([4] if any(entry.task for entry in written.experts) else []), *([] if of_all else [5])]
    print_rows(
        f"{folder / FILE_NAME}: {_count(written.experts, 'expert')} of {len(written.class_names)} classes{of_all}",
        [("", "file", "architecture", "classes", "task", "images")[k] for k in shown],
        [[row[k] for k in shown] for row in rows],
    )
    if not added:
        say("nothing was added")
        return
    if mean is None and architecture is not None:
        say(
            "mean and std were not given: the stream's are taken where it has as many channels, else ImageNet's for\n"
            "RGB and 0.5 for grey. An expert that was trained with others answers badly: give --mean and --std."
        )
    extended = added < len(written.experts)
    more = " (--ckpt_path last goes on with a run that learned the first ones)" if extended else ""
    say(f"next: exml fit -c configs/from_folder.yaml --data.experts {folder}{more}")
    say(
        f"better, if you have the images they were trained on: exml statistics {folder} IMAGES first\n"
        "(what that is worth and gives away: docs/statistics.md)"
    )


def _experts_table(written: "Manifest") -> list[list[str]]:
    from exml_lightning.experts.catalog import architecture_words

    def classes(names: Sequence[str]) -> str:
        return " ".join(names[:8]) + (f" ... ({len(names)})" if len(names) > 8 else "")

    def images(taken: "ImageFormat") -> str:
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (taken.mean, taken.std))
        return f"{'x'.join(map(str, taken.shape))}, mean {mean}, std {std}"

    return [
        [
            str(i),
            entry.file,
            architecture_words(entry.architecture),
            classes(entry.classes),
            str(entry.task),
            images(entry.input or written.input),
        ]
        for i, entry in enumerate(written.experts)
    ]


def catalog(folders: list[Path], pick: list[str] | None = None, output: Path | None = None, json: bool = False) -> None:
    """List the experts and ex-models in folders and anywhere below them: every folder with a manifest.yaml.

      exml catalog checkpoints runs

    Choose among them, in the order in which they are to be learned:

      exml catalog zoo --pick zoo/clinic_a:2 zoo/clinic_b:0 --output selection.yaml
      exml fit -c configs/from_folder.yaml --data.experts selection.yaml

    Nothing of a folder is run, and weights are not read. docs/catalog.md says more.

    Args:
        folders: Folders to search, at any depth; links are followed.
        pick: List these alone, in this order: the folder and the number of each, as they are listed (zoo/a:0).
        output: Write what is listed as a selection, for --data.experts; a new .yaml file.
        json: Print a list of records for scripts in place of the table.
    """
    from exml_lightning.experts.catalog import find_experts, picked, print_catalog, record
    from exml_lightning.experts.selection import write_selection

    if output is not None:
        _check_new(output)
    found, left_out = find_experts(folders)
    for line in left_out:
        print(f"left out: {line}", file=sys.stderr)
    where = printable(" ".join(map(str, folders)), 300)
    if not found:
        raise ExmlError(f"{where}: no folder of experts there, or below (a manifest.yaml: `exml manifest` writes one)")
    listed = picked(found, pick) if pick else found
    problem = None if output is None else _why_not_learned(output, listed)
    if pick and problem is not None:
        raise ExmlError(f"--pick: {problem}")
    if json:
        print(dumps([record(expert) for expert in listed], indent=2, allow_nan=False))
    else:
        of = f" of {len(found)}" if pick else ""
        print_catalog(f"{where}: {len(listed)}{of} expert{'' if len(listed) == 1 and not of else 's'}", listed)
    if output is None:
        return
    write_selection(output, listed)
    said = [f"{output}: {_count(listed, 'expert')} in this order"]
    said += [] if problem is None else [f"`exml fit` will not take it as it is: {printable(problem, 500)}"]
    said.append(f"next: exml fit -c configs/from_folder.yaml --data.experts {shlex.quote(str(output))}")
    if json:
        print("\n".join(said), file=sys.stderr)
    else:
        say("\n".join(said))


def _check_new(output: Path) -> None:
    from exml_lightning.experts.manifest import FILE_NAME
    from exml_lightning.experts.selection import SUFFIXES
    from exml_lightning.files import check_file, folder_name

    if output.suffix not in SUFFIXES or output.name == FILE_NAME:
        raise ExmlError(f"--output {output}: name a file of its own that ends in .yaml")
    folder_name(output.stem, "--output")
    if output.exists():
        raise ExmlError(f"{output} is there already, changed by hand perhaps: delete it, or name another --output")
    check_file(output, "output")


def _why_not_learned(output: Path, listed: "Sequence[Choice]") -> str | None:
    """Say why a selection cannot be learned as it is, if it cannot."""
    from exml_lightning.experts.selection import unite

    try:
        unite(output.stem, listed)
    except ExmlError as error:
        return str(error)
    return None


def statistics(folder: Path, images: Path, epsilon: float | None = None, delta: float | None = None) -> None:
    """Publish, beside the experts of a folder, what they see of images of their classes, in a few moments.

    What is learned from an expert that has such statistics is far better. They are a few moments for each class: images
    like the average of a class, and its common variations, can be made from them, so ask whose images these are first
    (docs/statistics.md). For owners of experts: the images should be those that an expert was trained on, or alike.

      exml statistics zoo my_training_images

    Args:
        folder: Folder of experts with a manifest.yaml, which is extended.
        images: Folder with a sub-folder of images for each class. Experts that lack images of a class are left alone.
        epsilon: What the statistics of each expert may tell of one image, by differential privacy (docs/privacy.md);
            less is more private. Null for statistics without noise. Needs the extra ``privacy``.
        delta: Beside epsilon, below 1 / n for n images of an expert; null for 1 / (10 n).
    """
    from exml_lightning.experts import load_expert, read_manifest
    from exml_lightning.experts.catalog import published_words
    from exml_lightning.experts.manifest import FILE_NAME
    from exml_lightning.experts.privacy import check_installed
    from exml_lightning.experts.statistics_file import publish_all
    from exml_lightning.scenarios.labelled_folder import read_labelled

    if epsilon is not None:
        if not 0 < epsilon < math.inf:
            raise ExmlError(f"--epsilon is {epsilon}: give a number greater than 0")
        check_installed("--epsilon")
    if delta is not None and epsilon is None:
        raise ExmlError("--delta has a meaning with --epsilon only: give that, too")
    if delta is not None and not 0 < delta < 1:
        raise ExmlError(f"--delta is {delta}: give a probability, far below 1 / number of images")
    found = read_manifest(folder)
    labelled = read_labelled(images, found.class_names, found.input.shape, "images")
    written = publish_all(folder, found, labelled, load_expert, epsilon, delta)
    rows = [
        [str(k), entry.file, published_words(entry.statistics), _lacking(entry.classes, found.class_names, labelled)]
        for k, entry in enumerate(written.experts)
    ]
    print_rows(f"{folder / FILE_NAME}: published statistics", ["", "file", "measured", "no images of"], rows)


def _lacking(classes: Sequence[str], names: Sequence[str], images: "LabelledImages") -> str:
    """Name the classes of an expert that have no images: its statistics are as they were."""
    there = {names[c] for c in images.labels.unique().tolist()}
    return " ".join(name for name in classes if name not in there)


def predict(
    folder: Path,
    images: Path,
    output: Path = Path("predictions.csv"),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    expert: int | None = None,
) -> None:
    """Label images by an ex-model (the ex_model/ folder of a run), or by any expert of a folder with a manifest.

    Each image is made grey or RGB, resized until its short side fits, cropped in the middle and normalised, all as the
    manifest says. The CSV has the columns file, label, probability and p(CLASS) for each class that the model knows.
    Of images in sub-folders with the names of classes, it says how many are labelled right.

      exml predict runs/split_digits/best/run0/ex_model photos

    Args:
        folder: Folder with a manifest.yaml and weights.
        images: Folder of images, searched at any depth, or one image file.
        output: CSV to write; one that is there is replaced.
        device: auto is CUDA where there is one.
        expert: Which expert of the folder, from 0: the ex-model of a multi-task stream has one for each task, in their
            order. Needed where there are several.
    """
    from exml_lightning.ex_model.predict import how_much_is_right, summarize, write_predictions
    from exml_lightning.ex_model.predict import predict as label
    from exml_lightning.files import check_file

    check_file(output, "output")
    predictions = label(folder, images, device, expert, show_progress=True)
    write_predictions(predictions, output)
    print_rows(
        f"{output}: {_count(predictions.files, 'image')}",
        ["label", "images", "mean probability"],
        summarize(predictions),
    )
    if (found := how_much_is_right(predictions)) is not None:
        line, headings, rows = found
        print_rows(f"labels given to images of each class, in the folder of that name\n{line}", headings, rows)
    if predictions.broken:
        say(f"left out, since they could not be read: {predictions.broken}")


def export(
    folder: Path,
    output: Path | None = None,
    expert: int | None = None,
    check: Path | None = None,
    license: str | None = None,
    no_onnx: bool = False,
) -> None:
    """Write an ex-model (the ex_model/ folder of a run), or any expert of a folder, as others expect a model.

    Into the new folder go README.md (a model card), config.json, model.safetensors, model.onnx and manifest.yaml, in
    the layout of the Hugging Face Hub. model.onnx takes pixels in [0, 1], normalises them itself and returns logits.
    It is compared with PyTorch on images before anything is put in place: those of --check, or the samples in the run
    folder. See docs/export.md.

      exml export runs/split_digits/best/run0/ex_model
      exml export runs/zoo/best/run0/ex_model --output zoo_model --check photos --license apache-2.0

    Args:
        folder: Folder with a manifest.yaml and weights.
        output: Folder to write to, default FOLDER_export; an earlier export there is replaced, other files stay.
        expert: Which expert of the folder, from 0; needed where there are several.
        check: A folder of images, searched at any depth, or one image file.
        license: The model's licence, as the Hub names it; without it, what the manifest states.
        no_onnx: Leave model.onnx out, for a network that cannot be written as such; no images are needed then.
    """
    from exml_lightning.ex_model.export.folder import export_ex_model

    made = export_ex_model(folder, output=output, expert=expert, check=check, license=license, onnx=not no_onnx)
    say(f"{made.folder}: {', '.join(made.files)}")
    if made.comparison is not None:
        say(f"model.onnx against PyTorch {made.comparison}")
    if made.license is None:
        say("no licence is stated: say which one holds with --license NAME, for instance --license apache-2.0")
    say(f'in Python: exml_lightning.load_ex_model("{made.folder}")')


def report(runs: list[Path], output: Path = Path("report"), html: bool = False) -> None:
    """Write the paper's tables and figures of runs, from the small files in their folders.

    A run is a run folder of `exml fit` or `exml test`, or a folder with run folders anywhere below. Into the folder of
    --output go report.md, table_2, table_3 and table_other (.md, .csv), runs.csv and, where there are runs for them,
    figure_2.png and samples_*.png, figure_3.png and buffer_size_*.png, accuracy_over_time_*.png, and their numbers.
    With --html also report.html, all of it on one page to look at. docs/report.md explains them.

      exml report runs
      exml report runs --html
      exml report runs/split_mnist runs/joint_mnist --output report

    Args:
        runs: Run folders, or folders with run folders below.
        output: Folder to write to; files of an earlier report are replaced.
        html: Also write report.html: one file that needs no network.
    """
    from exml_lightning.report.document import write_report

    words = ["exml", "report", *map(str, runs)]
    words += ["--output", str(output)] if output != Path("report") else []
    write_report(runs, output, html, shlex.join([*words, "--html"] if html else words))


def _count(things: Sequence[object], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"
