"""Writes `docs/configuration.md` from the classes and the files that a configuration is made of.

python docs/hooks/reference.py
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin

import docstring_parser
import yaml
from torch import nn

import exml_lightning.baselines
import exml_lightning.core.generators
import exml_lightning.core.procedural
import exml_lightning.core.scales
import exml_lightning.models
import exml_lightning.scenarios
from exml_lightning.baselines import Baseline
from exml_lightning.callbacks import StreamCheckpoint, SyntheticBufferCallback
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.distillation import Distillation
from exml_lightning.core.generators import Generator
from exml_lightning.core.procedural import ProceduralImages
from exml_lightning.core.scales import Scale
from exml_lightning.data import ExpertStream
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.privacy import PrivacySettings
from exml_lightning.generation.files import GenerateOptions
from exml_lightning.module import ExModelModule
from exml_lightning.scenarios import AuxiliaryImages, ImageDataset, Scenario

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"

GROUPS: dict[str, type | tuple[type, ...]] = {
    "data": ExpertStream,
    "data.scenario": Scenario,
    "data.augmentation": Augmentation,
    "model": (ExModelModule, Distillation),
    "buffer": SyntheticBufferCallback,
    "checkpoint": StreamCheckpoint,
    "experts": ExpertRecipe,
    "privacy": PrivacySettings,
    "generate": GenerateOptions,
}
"""The keys of a configuration, and the class, or classes, that take those below each."""
CHOICES: dict[str, tuple[ModuleType, type]] = {
    "buffer.generator": (exml_lightning.core.generators, Generator),
    "model.normalize": (exml_lightning.core.scales, Scale),
    "buffer.generator.images": (exml_lightning.core.procedural, ProceduralImages),
    "data.scenario.dataset": (exml_lightning.scenarios, ImageDataset),
    "data.auxiliary": (exml_lightning.scenarios, AuxiliaryImages),
    "baseline": (exml_lightning.baselines, Baseline),
    "model.architecture": (exml_lightning.models, nn.Module),
}
"""The keys that take a `class_path`: where the shipped classes are, and what they have in common."""
FOLDERS = {
    "scenarios": "",
    "strategies": "strategies",
    "baselines": "baselines",
    "networks": "models",
    "recipes of experts": "experts",
    "trainers": "trainer",
}
"""What the folders of `configs/` hold."""

INTRODUCTION = """\
# Configuration

<!-- Written by `python docs/hooks/reference.py` from docstrings and signatures: change those, then run it. -->

Every key, as YAML files (`-c FILE`, stacked) and the command line (`--data.n_iter 500`) take it. Where a key takes a
class, give `class_path` and `init_args` in a file, or the class on the command line:
`--buffer.generator DataImpression`, then its keys: `--buffer.generator.steps 100`. Classes of your own go by their
dotted names ([own_generator.md](own_generator.md)). `exml VERB -c FILE --print_config` shows what a stack of files
comes to.
"""
NETWORKS = "The same for `experts.architecture`. Any other `nn.Module` that can be imported will do."
TRAINER = """\
## `trainer`

All of Lightning's [Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html). One epoch is one expert, so
`max_epochs` is the number of experts to learn; -1, the default, is all of them. `default_root_dir` is the run folder,
`runs/<scenario>/<strategy>/run<run_id>` by default. `devices` is 1 by default. Several devices:
[clusters.md](clusters.md).

Beside the groups there are `budget`, the time a fit may take ([command_line.md](command_line.md)); `ckpt_path`, the
checkpoint to go on from or to measure (`last`, or a file; [resuming.md](resuming.md)); and Lightning's
`seed_everything`, off by default: every draw of the package is keyed by `data.seed`.
"""


def write() -> str:
    """Return the page."""
    parts = [INTRODUCTION]
    for key, kinds in GROUPS.items():
        first, *others = kinds if isinstance(kinds, tuple) else (kinds,)
        rows = [_table(first), *("\n".join(_table(kind).splitlines()[2:]) for kind in others)]
        parts.append(f"## `{key}`\n\n{_first(first)}\n\n" + "\n".join(rows))
    parts.append(TRAINER)
    for key, (module, base) in CHOICES.items():
        said = NETWORKS if base is nn.Module else _first(base)
        parts.append(f"## Classes for `{key}`\n\n{said}")
        for kind in _shipped(module, base):
            table = _table(kind)
            parts.append(
                f"### `{module.__name__}.{kind.__name__}`\n\n{_first(kind)}" + (f"\n\n{table}" if table else "")
            )
    parts.append("## Files\n\nWhat ships in `configs/`, and every key that a file sets.")
    for name, folder in FOLDERS.items():
        parts.append(f"### `configs/{folder}`: {name}\n\n{_files(ROOT / 'configs' / folder)}")
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _shipped(module: ModuleType, base: type) -> Iterator[type]:
    """Yield the classes of a module that a configuration may name, in alphabetical order."""
    for name in sorted(name for name in vars(module) if not name.startswith("_")):
        kind = getattr(module, name)
        if inspect.isclass(kind) and issubclass(kind, base) and not inspect.isabstract(kind):
            yield kind


def _first(kind: Any) -> str:
    """Return the description of a docstring, without its sections."""
    parsed = docstring_parser.parse(inspect.getdoc(kind) or "", docstring_parser.DocstringStyle.GOOGLE)
    return _markdown("\n\n".join(text for text in (parsed.short_description, parsed.long_description) if text))


def _table(kind: Any) -> str:
    """Return a row a key: its type, default and meaning; nothing for what has no keys."""
    meanings = _meanings(kind)
    rows = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if name in ("self", "num_classes") or parameter.kind is parameter.VAR_KEYWORD:
            continue
        cells = (
            f"`{name}`",
            _type(parameter.annotation),
            _default(kind, name, parameter.default),
            meanings.get(name, ""),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) if rows else ""


def _meanings(kind: Any) -> dict[str, str]:
    """Return what docstrings say of the arguments of a class and of those it inherits."""
    found: dict[str, str] = {}
    for owner in reversed(inspect.getmro(kind) if inspect.isclass(kind) else (kind,)):
        if owner.__module__.startswith("exml_lightning"):
            parsed = docstring_parser.parse(owner.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
            found |= {entry.arg_name: _markdown(entry.description or "") for entry in parsed.params}
    return {name: " ".join(text.split()) for name, text in found.items()}


def _markdown(text: str) -> str:
    return re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text.replace("``", "`"))


def _type(annotation: Any) -> str:
    """Say a type as a user of YAML thinks of it."""
    if annotation is inspect.Parameter.empty:
        return ""
    if get_origin(annotation) is Callable:
        return "class"
    if "Literal[" in str(annotation) or "Callable" in str(annotation):
        words = [f"`{word}`" for word in re.findall(r"'([^']*)'", str(annotation))]
        code = ["class"] if "Callable" in str(annotation) else []
        return " or ".join([*words, *code, *(["null"] if "None" in str(annotation) else [])])
    if inspect.isclass(annotation) and not get_args(annotation):
        return annotation.__name__
    plain = re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(annotation)).replace("NoneType", "None")
    return plain.replace(" | None", " or null").replace(" | ", " or ")


def _default(kind: Any, name: str, default: Any) -> str:
    """Return a default as YAML."""
    if is_dataclass(kind):
        field = {field.name: field for field in fields(kind)}[name]
        if field.default_factory is not MISSING:
            default = field.default_factory()
    if default is inspect.Parameter.empty:
        return "needed"
    if is_dataclass(default) or inspect.isfunction(default):
        return f"`{getattr(default, '__name__', type(default).__name__)}`"
    text = yaml.safe_dump(
        list(default) if isinstance(default, tuple) else default, default_flow_style=True, width=10**6
    )
    return f"`{text.removesuffix('...' + chr(10)).strip()}`"


def _files(folder: Path) -> str:
    """Return a row a file: what it is for, by its first comment, and what it sets."""
    rows = ["| file | what | sets |", "|---|---|---|"]
    for path in sorted(folder.glob("*.yaml")):
        text = path.read_text()
        comment = _markdown(" ".join(line.lstrip("# ") for line in text.splitlines()[: _comments(text)]))
        keys = ", ".join(f"`{key}: {value}`" for key, value in _leaves(yaml.safe_load(text)))
        rows.append(f"| `{path.name}` | {comment} | {keys} |".replace("<", "&lt;"))
    return "\n".join(rows)


def _comments(text: str) -> int:
    """Count the lines of comment that a file begins with."""
    return next(i for i, line in enumerate(text.splitlines()) if not line.startswith("#"))


def _leaves(values: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        place = above if key == "init_args" else f"{above}.{key}".lstrip(".")
        if key == "class_path":
            yield above, value.rpartition(".")[2]
        elif isinstance(value, dict):
            yield from _leaves(value, place)
        else:
            yield place, _plain(value)


def _plain(value: Any) -> str:
    """Return a value as YAML, in a line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


if __name__ == "__main__":
    PAGE.write_text(write())
    print(f"written: {PAGE}")
