"""`README.md`, the model card, and `config.json` of an exported ex-model."""

import json
import re
from typing import Any

import yaml

from exml_lightning.ex_model.export.compare import Comparison
from exml_lightning.ex_model.export.results import Results
from exml_lightning.ex_model.model import ExModel
from exml_lightning.report.text import escape, markdown, printable

TAGS = ("image-classification", "continual-learning", "knowledge-distillation", "data-free", "onnx", "pytorch")
HUB_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")
"""What can name a licence on the Hub."""
HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0"),
    *("agpl-3.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "unlicense"),
)
"""Those that the card names by the Hub's identifier; others are ``other``, with their name."""
SHOWN_CLASSES = 50
SHOWN_EXPERTS = 100

USE = """\
## Use

In PyTorch, by the package exml_lightning; images are pixels, uint8 in [0, 255] or floats in [0, 1], of shape
`[n, {shape}]`:

```python
from exml_lightning import load_ex_model

model = load_ex_model("FOLDER")  # this folder; model is an nn.Module
labels = [model.classes[i] for i in model(images).argmax(dim=1)]
```

Without it, by onnxruntime; images are float32 in [0, 1]. The graph normalises them itself and returns logits:

```python
import json
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
(logits,) = session.run(["logits"], {{"images": images}})
labels = [classes[i] for i in logits.argmax(axis=1)]
```
"""


def config_json(ex_model: ExModel) -> str:
    """Return ``config.json``: the network, the classes in the order of the logits, and the images."""
    manifest, (entry,) = ex_model.manifest, ex_model.manifest.experts
    channels, *size = manifest.input.shape
    values = {
        "architectures": [entry.architecture.class_path.rpartition(".")[2]],
        "class_path": entry.architecture.class_path,
        "init_args": entry.architecture.init_args,
        "num_labels": len(ex_model.classes),
        "id2label": {str(i): name for i, name in enumerate(ex_model.classes)},
        "label2id": {name: i for i, name in enumerate(ex_model.classes)},
        "num_channels": channels,
        "image_size": size,
        "image_mean": manifest.input.mean,
        "image_std": manifest.input.std,
    }
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def model_card(ex_model: ExModel, results: Results | None, comparison: Comparison, license: str | None) -> str:
    """Return ``README.md``.

    Args:
        ex_model: What is exported.
        results: What its run has measured; None for nothing.
        comparison: How its ONNX file answers.
        license: As the Hugging Face Hub names it, or a short text; None if none is stated.
    """
    entry = ex_model.manifest.experts[0]
    learned = _learned(entry.training)
    parts = [
        f"# {escape(_name(ex_model))}\n",
        _about(ex_model, learned),
        USE.format(shape=", ".join(map(str, ex_model.image_shape))),
        _experts(learned),
        _measured(ex_model, results),
        "## ONNX against PyTorch\n\n"
        f"On {comparison.images} images ({comparison.source}): labels equal on {comparison.equal:.2%}, largest "
        f"difference of logits {comparison.largest:.2g}, of logits up to {comparison.scale:.2g}.\n",
        _limits(learned, results),
        _licence(license),
    ]
    matter = yaml.safe_dump(_front_matter(ex_model, results, license), sort_keys=False, allow_unicode=True, width=110)
    return "\n".join([f"---\n{matter}---\n", *(part for part in parts if part)])


def _front_matter(ex_model: ExModel, results: Results | None, license: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if license is not None:
        known = license.lower() in HUB_LICENSES
        values = {"license": license.lower()} if known else {"license": "other", "license_name": printable(license)}
    values |= {"library_name": "exml_lightning", "pipeline_tag": "image-classification", "tags": list(TAGS)}
    if results is not None and results.kind == "accuracy" and "stream_accuracy" in results.figures:
        scenario = printable(str(ex_model.manifest.experts[0].training.get("scenario", ex_model.manifest.scenario)))
        value = round(results.figures["stream_accuracy"], 4)
        values["model-index"] = [
            {
                "name": _name(ex_model),
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": scenario, "type": scenario},
                        "metrics": [{"type": "accuracy", "value": value, "name": "stream accuracy"}],
                    }
                ],
            }
        ]
    return values


def _licence(license: str | None) -> str:
    return f"## Licence\n\n{'Not stated' if license is None else escape(printable(license))}.\n"


def _name(ex_model: ExModel) -> str:
    strategy = ex_model.manifest.experts[0].training.get("strategy")
    return printable(ex_model.manifest.scenario + (f" {strategy}" if isinstance(strategy, str) else ""))


def _learned(training: dict[str, Any]) -> list[dict[str, Any]]:
    found = training.get("learned")
    return [expert for expert in found if isinstance(expert, dict)] if isinstance(found, list) else []


def _about(ex_model: ExModel, learned: list[dict[str, Any]]) -> str:
    manifest, (entry,) = ex_model.manifest, ex_model.manifest.experts
    count, strategy = len(learned), entry.training.get("strategy")
    made = (
        f"One classifier, grown from {count} trained one{'' if count == 1 else 's'} without their training data "
        f"(Ex-Model Distillation, strategy `{escape(str(strategy))}`)."
        if count
        else "A trained classifier."
    )
    classes = ", ".join(map(escape, ex_model.classes[:SHOWN_CLASSES]))
    more = len(ex_model.classes) - SHOWN_CLASSES
    parameters = sum(parameter.numel() for parameter in ex_model.parameters())
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (manifest.input.mean, manifest.input.std))
    rows = [
        f"- **Classes** ({len(ex_model.classes)}, in the order of the logits): {classes}"
        + (f" and {more} more (`config.json`)" if more > 0 else ""),
        f"- **Network**: `{entry.architecture.class_path}`, {parameters:,} parameters",
        f"- **Images**: {'x'.join(map(str, ex_model.image_shape))} (channels, height, width); normalised within the "
        f"model by mean {mean}, std {std}",
        *(
            [f"- **Differential privacy**: epsilon {entry.privacy.epsilon:g}, delta {entry.privacy.delta:g}"]
            if entry.privacy
            else []
        ),
    ]
    return "\n".join([made, "", *rows, ""])


def _experts(learned: list[dict[str, Any]]) -> str:
    if not learned:
        return ""
    rows = [
        [
            str(k + 1),
            str(expert.get("architecture")),
            " ".join(map(str, names[:SHOWN_CLASSES])) if isinstance(names := expert.get("classes"), list) else "",
            str(expert.get("sha256")),
        ]
        for k, expert in enumerate(learned[:SHOWN_EXPERTS])
    ]
    table = markdown(["expert", "architecture", "classes", "sha256 of its weights"], rows)
    more = len(learned) - SHOWN_EXPERTS
    return f"## Experts\n\nIn the order they were learned.\n\n{table}" + (f"\nAnd {more} more.\n" if more > 0 else "")


def _measured(ex_model: ExModel, results: Results | None) -> str:
    accuracy = ex_model.manifest.experts[0].accuracy
    if results is None:
        said = "Not known." if accuracy is None else f"{accuracy:.2%} on its own classes, as its manifest says."
        return f"## Accuracy\n\n{said}\n"
    figures = "\n".join(f"- {name.replace('_', ' ')}: {value:.2%}" for name, value in results.figures.items())
    table = f"\n{markdown(results.headings, results.rows)}" if results.rows else ""
    if results.kind == "accuracy":
        return (
            "## Accuracy\n\nOn the test stream, in %: after each expert, on the classes that each expert brought.\n\n"
            f"{figures}\n{table}"
        )
    return (
        "## Agreement\n\nNo data set was at hand, so accuracy is **not known**. Agreement is the fraction of the "
        "images made from an expert for which this model gives the class that the expert gave; it says little of real "
        "images.\n\n"
        f"{figures}\n{table}"
    )


def _limits(learned: list[dict[str, Any]], results: Results | None) -> str:
    lines = ["It answers with one of its classes whatever it is shown; its probabilities are not calibrated."]
    if learned:
        lines.append(
            "It learned from its experts' answers, not from their data: it has their mistakes and biases, and is as "
            "private as they are."
        )
    if results is None or results.kind == "agreement":
        lines.append("Measure it on images of your own before you rely on it.")
    return "## Limits\n\n" + "".join(f"- {line}\n" for line in lines)
