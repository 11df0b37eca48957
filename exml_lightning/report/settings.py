"""The settings of a run: what of its configuration can change its result, as flat plain YAML."""

import json
import math
import re
from typing import Any

from exml_lightning.report.runs import Run

IGNORED = frozenset({
    *("seed_everything", "ckpt_path", "checkpoint"),  # the package draws nothing from global random states
    *("generate", "privacy", "experts"),  # of other verbs: expert_training says what was done
    *("data.run_id", "data.eval_batch_size", "data.skip_broken", "buffer.name", "model.compile"),
    *("data.root", "data.experts", "data.download", "buffer.cache"),  # places
    "trainer",  # where and how a run works, not what it computes, but for the keys in TRAINER
})  # fmt: skip
"""Keys and groups of the configuration that do not count as settings."""

TRAINER: dict[str, tuple[Any, ...]] = {
    "precision": ("32-true", "32", 32),
    "accumulate_grad_batches": (1,),
    "gradient_clip_val": (0, 0.0),
    "gradient_clip_algorithm": ("norm",),
    "fast_dev_run": (),
    "limit_train_batches": (1.0,),  # all of them; 1 is a single one
    "limit_val_batches": (1.0,),
    "limit_test_batches": (1.0,),
    "overfit_batches": (0, 0.0),
    "sync_batchnorm": (),
    "plugins": ([],),
    "callbacks": ([],),
}
"""Keys of `trainer` that do count, each with the values that say the same as null."""

DEPEND_ON_EXPERTS = {
    *("oracle", "ensemble_average", "probability_average", "min_entropy", "concat", "parameter_average", "merged")
}  # fmt: skip
"""Baselines that depend on no setting of learning and generating at all; others do on those of generating."""
LABELLED = {"ModelInversion", "DataImpression"}
"""Their labels count 1 where no weight is given."""
WITHOUT_AUXILIARY = {"ModelInversion", "DataImpression", "Noise", "Procedural", "Replay", "Precomputed"}
"""Generators that do not look at data.auxiliary."""

_SCALES = {"center": "Center", "standardize": "Standardize", "center_batch": "CenterBatch", "none": "NoScale"}
_SCALES["quantile"] = "NormalScores"
"""What `model.normalize` said before it was a class."""
_MOVED = ("model.others", "model.raw_logits", "model.familiarity", "model.reference")
"""Keys of before that are arguments of `model.normalize` now."""
_OF_SCENARIO = "data.scenario.auxiliary"
"""What ``data.auxiliary`` is where it is not given; before, scenarios gave that."""

PUBLISHED = {"experts.with_statistics": "experts_with_statistics", "experts.epsilon": "statistics_epsilon"}
"""What a run has used of experts, by the names of its results."""

Settings = dict[str, Any]
"""Numbers, texts and true by ``group.key.key``; null and false are left out, as versions without the key have it."""


def settings_of(run: Run) -> Settings:
    """Return what can change a run's result: its configuration, its experts, and its processes."""
    settings = dict(_as_now(key, value) for key, value in _flat(run.config).items() if _counts(key, value, run))
    if settings.get("buffer.generator") == "Precomputed":
        folder = str(settings.get("buffer.generator.folder"))  # each run may have a folder of its own
        settings["buffer.generator.folder"] = re.sub(rf"run{run.run_id}(?!\d)", "run<k>", folder)
    # Runs of before do not say the architecture: the configuration that they share with their experts does.
    experts = run.config.get("experts")
    given = experts.get("architecture") if isinstance(experts, dict) else None
    architecture = run.results.get("expert_architecture", given) or "not known of all, or not the same"
    settings |= _flat(architecture, "expert.architecture")
    settings |= _flat(run.results.get("expert_training"), "expert.training")
    settings |= {"experts": run.results["experts"], "experts.skipped": run.results.get("experiences_skipped") or None}
    settings |= {key: run.results.get(name) for key, name in PUBLISHED.items()}
    weight = settings.get("model.lambda_ce")
    if weight is None and not run.is_baseline and settings.get("buffer.generator") in LABELLED:
        settings["model.lambda_ce"] = 1
    elif not weight and not settings["experts.with_statistics"]:
        settings["model.lambda_ce"] = None  # which is 0 there
    settings["processes"] = None if run.is_baseline else run.results.get("processes", 1)
    plain = {key: _plain(value) for key, value in settings.items() if value is not None and value is not False}
    return {key: json.dumps(value) if isinstance(value, list) else value for key, value in plain.items()}


def key_of(value: Any) -> str:
    """Return a text that is the same for the same settings, and other for others, as for 1 and true."""
    return json.dumps(value, sort_keys=True)


def say(value: Any) -> str:
    """Put the value of a setting in words."""
    return (
        "null" if value is None else "true" if value is True else f"{value:g}" if type(value) is float else str(value)
    )


def _flat(value: Any, key: str = "") -> Settings:
    """Give a key to each argument of a class and each entry of a mapping, for instance ``buffer.generator.steps``."""
    found: Settings = {}
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        path = value["class_path"]
        is_known = path.startswith(("exml_lightning.", "torch."))
        found[key] = path.rpartition(".")[2] if is_known else path  # however long the path that names it
        arguments = [value[name] for name in ("init_args", "dict_kwargs") if isinstance(value.get(name), dict)]
        value = {name: entry for given in arguments for name, entry in given.items()}
    if not isinstance(value, dict):
        return {key: value}
    for name, entry in value.items():
        found |= _flat(entry, f"{key}.{name}" if key else str(name))
    return found


def _plain(value: Any) -> Any:
    """Write 10.0 as 10: files of several versions and people say the same differently."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else value if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    if isinstance(value, dict):
        return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
    return value


def _as_now(key: str, value: Any) -> tuple[str, Any]:
    """Say a setting of before in the words of now."""
    if key == "model.normalize":
        return key, _SCALES.get(str(value), value)
    if key == "model.optimizer" and str(value).endswith(".default_optimizer"):  # wherever the function was
        return key, "default_optimizer"
    if key.startswith(_OF_SCENARIO) and value is not None:
        key = key.replace(_OF_SCENARIO, "data.auxiliary")
    if key.startswith(_MOVED):
        key = f"model.normalize.{key.removeprefix('model.')}"
    of_before = (("model.unknown", "skip"), ("data.copies", 0))
    is_default = (key.startswith("model.normalize.") and value == 0) or (key, value) in of_before
    return key, None if is_default else value


def _counts(key: str, value: Any, run: Run) -> bool:
    group, _, rest = key.partition(".")
    name = rest.partition(".")[0]
    if group == "trainer":
        return name in TRAINER and not any(type(value) is type(same) and value == same for same in TRAINER[name])
    if group in IGNORED or f"{group}.{name}" in IGNORED:
        return False
    generator = run.config["buffer"].get("generator") or {"class_path": "ModelInversion"}
    name = generator["class_path"].rpartition(".")[2]
    unused: tuple[str, ...] = ()
    if name in WITHOUT_AUXILIARY or run.strategy in DEPEND_ON_EXPERTS:
        unused = _OF_SCENARIO, "data.auxiliary"
    elif name == "Unrelated":
        unused = (_OF_SCENARIO,)
    if key.startswith(unused):
        return False
    if run.is_baseline:
        more = () if run.strategy in DEPEND_ON_EXPERTS else ("buffer.", "data.seed", "data.auxiliary")
        return key.startswith(("baseline", "data.scenario", "data.labelled", *more))
    return group != "baseline"
