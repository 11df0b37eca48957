"""The settings of a run: what of its configuration can change its result, and in words where two runs differ."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from exml_lightning.report.run import Run

IGNORED = {
    "seed_everything": "the package draws nothing from global random states",
    "ckpt_path": "where a run went on",
    "checkpoint": "how often a run is saved",
    "generate": "is for `exml generate`",
    "privacy": "is for `exml experts`; what was done is in expert_training",
    "experts": "is for `exml experts`; what was done is in expert_training",
    "data.run_id": "tells the runs of a group apart",
    "data.root": "a place",
    "data.experts": "a place",
    "data.download": "a place",
    "data.eval_batch_size": "how many images are tested at once",
    "data.skip_broken": "the experts that were skipped count, not that it was allowed",
    "buffer.cache": "a place",
    "buffer.name": "what a strategy is called",
    "model.compile": "the same arithmetic, faster",
    "trainer": "where and how a run works, not what it computes, but for the keys in TRAINER",
}
"""Keys and groups of the configuration that do not count as settings, each with the reason."""

TRAINER: dict[str, tuple[Any, ...]] = {
    "precision": ("32-true", "32", 32),
    "accumulate_grad_batches": (1,),
    "gradient_clip_val": (0, 0.0),
    "gradient_clip_algorithm": ("norm",),
    "fast_dev_run": (False,),
    "limit_train_batches": (1.0,),  # all of them; 1 is a single one
    "limit_val_batches": (1.0,),
    "limit_test_batches": (1.0,),
    "overfit_batches": (0, 0.0),
    "sync_batchnorm": (False,),
    "plugins": ([],),
    "callbacks": ([],),
}
"""Keys of `trainer` that do count, each with the values that say the same as null."""

DEPEND_ON_EXPERTS = {
    "oracle",
    "ensemble_average",
    "probability_average",
    "min_entropy",
    "concat",
    "parameter_average",
}
"""Baselines that depend on no setting of learning and generating at all; others do on those of generating."""
WITHOUT_AUXILIARY = {"ModelInversion", "DataImpression", "Noise", "Procedural", "Replay", "Precomputed"}
"""Generators that do not look at data.auxiliary."""

OF_EXPERTS = ("expert_training", "expert_architecture")
"""Settings that every run has; where one is missing, it is not known."""
SHARED = ("data.", "trainer.", "buffer.size", *OF_EXPERTS, "experts_asked", "experts_skipped", "processes")
"""Settings that the strategies of a scenario are expected to share; data.auxiliary is not among them."""

Settings = dict[str, Any]
"""Values by ``group.key``; a value may be a mapping of its own. What is null is left out."""


def settings_of(run: Run) -> Settings:
    """Return what can change a run's result: its configuration, its experts, and its processes."""
    flat = {
        f"{group}.{key}": _one_name(value)
        for group, values in run.config.items()
        if isinstance(values, dict) and group != "baseline"
        for key, value in values.items()
    }
    generator = _class_of(flat.get("buffer.generator"))
    settings = {
        key: value for key, value in flat.items() if _counts(key, run, generator) and not _says_nothing(key, value)
    }
    if generator == "Precomputed" and "buffer.generator" in settings:
        settings["buffer.generator"] = _without_run(settings["buffer.generator"], run.run_id)
    if run.is_baseline:
        settings["baseline"] = run.config["baseline"]
    else:
        settings["processes"] = run.results.get("processes", 1)
    if "expert_architecture" in run.results:
        settings["expert_architecture"] = run.results["expert_architecture"] or "various"
    for name, key in (
        ("expert_training", "expert_training"),
        ("experts", "experts_asked"),
        ("experiences_skipped", "experts_skipped"),
    ):
        settings[key] = run.results.get(name)
    plain = _plain(settings)
    assert isinstance(plain, dict)
    return plain


def fill_architectures(found: Iterable[Settings]) -> None:
    """Let runs that do not say their experts' architecture have that of the others, if these have only one.

    Args:
        found: Settings of all runs of a scenario, to be changed: those made earlier do not say it. Only the
            others with the same `expert_training` count.
    """
    known: dict[str, dict[str, Any]] = defaultdict(dict)
    unknown: list[Settings] = []
    for settings in found:
        architecture = settings.get("expert_architecture")
        if architecture is None:
            unknown.append(settings)
        else:
            known[key_of(settings.get("expert_training"))][key_of(architecture)] = architecture
    for settings in unknown:
        candidates = list(known[key_of(settings.get("expert_training"))].values())
        if len(candidates) == 1:
            settings["expert_architecture"] = candidates[0]


def key_of(value: Any) -> str:
    """Return a text that is the same for the same settings, and other for others, as for 1 and true."""
    return json.dumps(value, sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    """Leave out what is null, and write 10.0 as 10: files of several versions and people say the same differently."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _without_run(generator: dict[str, Any], run_id: int) -> dict[str, Any]:
    """Leave the number of the run out of the folder of precomputed samples: each run may have a folder of its own."""
    init_args = generator.get("init_args")
    folder = init_args.get("folder") if isinstance(init_args, dict) else None
    if not isinstance(init_args, dict) or not isinstance(folder, str):
        return generator
    return {**generator, "init_args": {**init_args, "folder": re.sub(rf"run{run_id}(?!\d)", "run<k>", folder)}}


def _one_name(value: Any) -> Any:
    """Name a class of the package alike, however long the path that names it (``exml_lightning.Noise``, ...)."""
    if not isinstance(value, dict) or not str(value.get("class_path")).startswith("exml_lightning."):
        return value
    return {**value, "class_path": value["class_path"].rpartition(".")[2]}


def _class_of(chosen: Any) -> str:
    class_path = chosen.get("class_path") if isinstance(chosen, dict) else None
    return str(class_path).rpartition(".")[2] if class_path else "ModelInversion"


def _counts(key: str, run: Run, generator: str) -> bool:
    group, _, name = key.partition(".")
    if key in IGNORED or (group in IGNORED and not (group == "trainer" and name in TRAINER)):
        return False
    if key == "data.auxiliary" and generator in WITHOUT_AUXILIARY:
        return False
    if not run.is_baseline or key == "data.scenario":
        return True
    if run.strategy in DEPEND_ON_EXPERTS:
        return False
    return group == "buffer" or key in ("data.seed", "data.auxiliary")


def _says_nothing(key: str, value: Any) -> bool:
    if key in ("model.others", "model.raw_logits", "model.familiarity"):
        return bool(value == 0)  # runs of before they existed do not say it
    same_as_null = TRAINER.get(key.removeprefix("trainer."), ()) if key.startswith("trainer.") else ()
    return any(type(value) is type(other) and value == other for other in same_as_null)


def shared(settings: Settings) -> Settings:
    """Return the settings that the strategies of a scenario are expected to share."""
    return {key: value for key, value in settings.items() if key.startswith(SHARED) and key != "data.auxiliary"}


def differences(ours: Settings, theirs: Settings) -> list[str]:
    """Say where settings differ.

    Args:
        ours: Settings.
        theirs: Settings to compare with.

    Returns:
        For instance ``["buffer.generator.confidence 0.99 instead of null"]``.
    """
    return [f"{key} {_side(key, a)} instead of {_side(key, b)}" for key, a, b in _unequal(ours, theirs, "")]


def _unequal(ours: Settings, theirs: Settings, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(key), theirs.get(key)
        if key_of(a) == key_of(b):
            continue
        if isinstance(a, dict) and isinstance(b, dict) and a.get("class_path") == b.get("class_path"):
            yield from _unequal(a, b, prefix if key == "init_args" else f"{prefix}{key}.")
        else:
            yield prefix + key, a, b


def flat(settings: Settings, prefix: str = "") -> Settings:
    """Return settings with a key for each argument of a class, for instance ``buffer.generator.steps``."""
    found: Settings = {}
    for key, value in settings.items():
        if isinstance(value, dict) and "class_path" in value:
            found[prefix + key] = str(value["class_path"]).rpartition(".")[2]
            arguments = value.get("init_args")
            found |= flat(arguments, f"{prefix}{key}.") if isinstance(arguments, dict) else {}
        else:
            found[prefix + key] = value
    return found


def _side(key: str, value: Any) -> str:
    return "not known" if key in OF_EXPERTS and value is None else say(value)


def say(value: Any) -> str:
    """Put a value of a configuration in words; of a mapping, without what is null, false or zero."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(say, value))}]"
    if not isinstance(value, dict):
        return str(value)
    if "class_path" in value:
        arguments = say(value.get("init_args") or {})
        return str(value["class_path"]).rpartition(".")[2] + (f" ({arguments})" if arguments else "")
    words = [(key, say(entry)) for key, entry in value.items() if entry or entry == ""]
    return ", ".join(key if word == "true" else f"{key} {word}" for key, word in words)
