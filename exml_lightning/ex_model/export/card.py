"""`README.md`, the model card, and `config.json` of an exported ex-model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.export.onnx_file import Comparison
from exml_lightning.ex_model.model import ExModel
from exml_lightning.experts import Manifest
from exml_lightning.report.runs import read_json
from exml_lightning.report.text import escape, markdown, printable

TEMPLATE = Path(__file__).with_name("card.md")
TAGS = ["image-classification", "continual-learning", "knowledge-distillation", "data-free", "onnx", "pytorch"]
HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("agpl-3.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense"),
)
"""Those that the header names by the Hub's identifier; others are ``other``, with their name."""
FIGURES = (
    *("stream_accuracy", "stored_experts", "chance", "average_accuracy"),
    *("agreement", "agreement_by_guessing", "forgetting"),
)
"""Of ``summary.json``: accuracy on the test stream, or agreement with the experts where no image was labelled."""
SHOWN_CLASSES = 50
SHOWN_EXPERTS = 100


def config_json(ex_model: ExModel) -> str:
    """Return ``config.json``: the network, the classes in the order of the logits, and the images."""
    images, architecture = ex_model.manifest.input, ex_model.manifest.experts[0].architecture
    channels, *size = images.shape
    values = {
        "architectures": [architecture.class_path.rpartition(".")[2]],
        "class_path": architecture.class_path,
        "init_args": architecture.init_args,
        "num_labels": len(ex_model.classes),
        "id2label": {str(i): name for i, name in enumerate(ex_model.classes)},
        "label2id": {name: i for i, name in enumerate(ex_model.classes)},
        **({} if ex_model.rejection_threshold is None else {"none_of_these_above": ex_model.rejection_threshold}),
        "num_channels": channels,
        "image_size": size,
        "image_mean": images.mean,
        "image_std": images.std,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def read_figures(folder: Path, manifest: Manifest) -> dict[str, float]:
    """Read those of `FIGURES` that a run has measured of its ex-model, fractions (forgetting may be negative).

    There are none where the folder is not of a run, or the run was cut short of them. The manifest has the ex-model
    alone.

    Raises:
        ExmlError: If the file is broken, or the run has gone on since it wrote the ex-model.
    """
    path = folder.parent / "summary.json"
    if folder.name != "ex_model" or not path.is_file():
        return {}
    summary = read_json(path)
    skipped = summary.get("experiences_skipped")  # by runs of before 0.2.0
    learned, left_out = summary.get("experiences_learned"), len(skipped) if isinstance(skipped, list) else 0
    asked = manifest.experts[0].training.get("experts")
    if not isinstance(learned, int) or learned + left_out != asked:
        raise ExmlError(
            f"{path} is of {learned} experts, but {folder} of {asked}: the run was stopped since it wrote that, so "
            "finish it by its command first"
        )
    found = {name: summary[name] for name in FIGURES if name in summary}
    return {name: value for name, value in found.items() if isinstance(value, float) and abs(value) <= 1}


def model_card(ex_model: ExModel, figures: dict[str, float], comparison: Comparison | None, license: str | None) -> str:
    """Return ``README.md``; names of classes and whatever else a stranger may have written are escaped.

    `figures` are those of `read_figures`, `comparison` is how the ONNX file answers, None without one. The licence is
    as the Hugging Face Hub names it, or a short text; None if none is stated.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData  # of the extra `export`

    manifest, (entry,) = ex_model.manifest, ex_model.manifest.experts
    strategy = entry.training.get("strategy")
    name = printable(f"{manifest.scenario} {strategy}" if isinstance(strategy, str) else manifest.scenario)
    header = ModelCardData(
        **_license(license),
        library_name="exml_lightning",
        pipeline_tag="image-classification",
        tags=[tag for tag in TAGS if comparison is not None or tag != "onnx"],
    )
    if "stream_accuracy" in figures:
        scenario = printable(str(entry.training.get("scenario", manifest.scenario)))
        value = round(figures["stream_accuracy"], 4)
        header.model_name = name
        header.eval_results = [
            EvalResult("image-classification", scenario, scenario, "accuracy", value, metric_name="stream accuracy")
        ]
    learned = _learned(entry.training)
    card = ModelCard.from_template(
        header,
        str(TEMPLATE),
        model=ex_model,
        entry=entry,
        images=manifest.input,
        rejected=ex_model.rejection_threshold,
        parameters=sum(parameter.numel() for parameter in ex_model.parameters()),
        name=name,
        strategy=str(strategy),
        learned=learned,
        experts=markdown(["expert", "architecture", "classes", "sha256 of its weights"], learned[:SHOWN_EXPERTS]),
        figures=figures,
        comparison=comparison,
        license=license,
        text=escape,
        listed=_listed,
        percent="{:.2%}".format,
    )
    return f"{card}\n"


def _license(license: str | None) -> dict[str, Any]:
    if license is None:
        return {}
    known = license.lower() in HUB_LICENSES
    return {"license": license.lower()} if known else {"license": "other", "license_name": printable(license)}


def _learned(training: dict[str, Any]) -> list[list[str]]:
    """Return number, architecture, classes and hash of each expert that an ex-model has learned from."""
    found = training.get("learned")
    experts = [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
    classes = [names if isinstance(names := expert.get("classes"), list) else [] for expert in experts]
    return [
        [str(k), str(e.get("architecture")), " ".join(map(str, names[:SHOWN_CLASSES])), str(e.get("sha256"))]
        for k, (e, names) in enumerate(zip(experts, classes, strict=True), 1)
    ]


def _listed(names: Sequence[str], between: str) -> str:
    more = len(names) - SHOWN_CLASSES
    return between.join(map(escape, names[:SHOWN_CLASSES])) + (f" and {more} more (`config.json`)" if more > 0 else "")
