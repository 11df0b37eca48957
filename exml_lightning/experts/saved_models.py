"""Folders that transformers or timm has saved an image classifier to: what their files say of it, and its network."""

import contextlib
import io
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, printable
from exml_lightning.files import read_bytes

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
WEIGHTS = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"
NOT_OF_A_NETWORK = (
    *(
        "architectures",
        "auto_map",
        "dtype",
        "id2label",
        "label2id",
        "num_labels",
        "torch_dtype",
        "transformers_version",
    ),
    "use_pretrained_backbone",
)
"""Keys of a configuration of transformers that its layers do not depend on, or that bring code or fetch weights."""
EXTRA = 'pip install "exml-lightning[hub]"'


@dataclass(frozen=True)
class SavedModel:
    """What a folder says of the classifier in it; None for what it does not say. See `NewExperts`."""

    architecture: str
    init_args: dict[str, Any]
    file: str
    classes: tuple[str, ...] | None
    size: tuple[int, ...] | None
    channels: int | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None


def read_saved_model(folder: Path) -> SavedModel | None:
    """Read what transformers or timm has written beside weights; None where there is no ``config.json``.

    Nothing is imported and no weights are read. Raises `ExmlError` if the folder holds something else than an image
    classifier of one of them, or its files are broken.
    """
    path = folder / CONFIG
    if not path.is_file():
        return None
    config = _json(path)
    file = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise ExmlError(f"{folder} has {CONFIG}, but none of {', '.join(WEIGHTS)}: put the weights there")
    try:
        if isinstance(config.get("model_type"), str):
            beside = folder / PREPROCESSOR
            return _of_transformers(path, config, _json(beside) if beside.is_file() else None, file)
        if isinstance(config.get("architecture"), str):
            return _of_timm(path, config, file)
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as error:
        if isinstance(error, ExmlError):
            raise
        raise ExmlError(f"{path}, or {PREPROCESSOR} beside it, is not as transformers or timm write it") from error
    raise ExmlError(f"{path} is of neither transformers nor timm: name the network by --architecture")


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ExmlError):
            raise
        raise ExmlError(f"{path} is not JSON: fetch it again") from error
    if not isinstance(content, dict):
        raise ExmlError(f"{path} is no mapping: fetch it again")
    return content


def _of_transformers(path: Path, config: dict[str, Any], preprocessor: dict[str, Any] | None, file: str) -> SavedModel:
    kinds = [str(kind) for kind in config.get("architectures") or []]
    if not any(kind.endswith("ForImageClassification") for kind in kinds):
        raise ExmlError(f"{path}: {printable(', '.join(kinds)) or 'it'} is no image classifier of transformers")
    names = [str(name) for _, name in sorted(config.get("id2label", {}).items(), key=lambda pair: int(pair[0]))]
    count = len(names) or int(config.get("num_labels", 2))
    own = {key: value for key, value in config.items() if key not in NOT_OF_A_NETWORK and key[0] != "_"}
    told = bool(names) and not all(re.fullmatch(r"LABEL_\d+", name) for name in names)
    channels = int(config.get("num_channels", 3))
    size, mean, std = _size(config.get("image_size")), None, None
    if preprocessor is not None:
        cropped = preprocessor.get("do_center_crop") and preprocessor.get("crop_size")
        size = _size(cropped or preprocessor.get("size")) or size
        mean, std = _normalised(preprocessor, channels) or (None, None)
    return SavedModel(
        f"{__name__}.image_classifier",
        {"model_type": own.pop("model_type"), "config": own, "num_classes": count},
        file,
        tuple(names) if told else None,
        size,
        channels,
        mean,
        std,
    )


def _size(said: Any) -> tuple[int, ...] | None:
    """Height and width, as a preprocessor says them: a number, two, or by name."""
    if isinstance(said, Mapping):
        found = [said.get(name, said.get("shortest_edge")) for name in ("height", "width")]
        return None if None in found else (int(str(found[0])), int(str(found[1])))
    if isinstance(said, list | tuple):
        return tuple(int(value) for value in said)
    return None if said is None else (int(said),)


def _normalised(preprocessor: dict[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of pixels in [0, 1] that do what a preprocessor does to pixels in [0, 255].

    None where it normalises by what it does not say.

    It gives the network (x f - o - m) / s, where f rescales and o is 1 for some, with m and s where it normalises.
    """
    factor = float(preprocessor.get("rescale_factor", 1 / 255)) if preprocessor.get("do_rescale", True) else 1.0
    offset = 1.0 if preprocessor.get("rescale_offset") else 0.0
    mean, std = [0.0] * channels, [1.0] * channels
    if preprocessor.get("do_normalize", True):
        if preprocessor.get("image_mean") is None or preprocessor.get("image_std") is None:
            return None
        mean, std = ([float(value) for value in preprocessor[key]] for key in ("image_mean", "image_std"))
    if preprocessor.get("do_flip_channel_order"):
        raise ExmlError(
            f"{PREPROCESSOR} turns colours into BGR, which exml does not: write a network of your own around it that "
            "does (images.flip(1)), and name that by --architecture"
        )
    scale = 255 * factor
    return tuple((value + offset) / scale for value in mean), tuple(value / scale for value in std)


def _of_timm(path: Path, config: dict[str, Any], file: str) -> SavedModel:
    name, pretrained = config["architecture"], config.get("pretrained_cfg", config)
    if not re.fullmatch(r"[A-Za-z0-9_.]+", name):  # "hf-hub:..." would have timm fetch something else
        raise ExmlError(f"{path}: architecture {printable(name)!r} is no network of timm")
    arguments = {key: value for key, value in (config.get("model_args") or {}).items() if key != "pretrained"}
    arguments |= {"num_classes": int(config.get("num_classes", pretrained.get("num_classes")))}
    shape = pretrained.get("input_size")
    names = pretrained.get("label_names") or config.get("label_names")
    mean, std = ([float(value) for value in pretrained[key]] if key in pretrained else None for key in ("mean", "std"))
    return SavedModel(
        "timm.create_model",
        {**arguments, "model_name": name},
        file,
        tuple(str(label) for label in names) if names else None,
        None if shape is None else (int(shape[1]), int(shape[2])),
        None if shape is None else int(shape[0]),
        None if mean is None else tuple(mean),
        None if std is None else tuple(std),
    )


def image_classifier(model_type: str, config: dict[str, Any], num_classes: int) -> nn.Module:
    """Make an image classifier of transformers, without weights.

    Args:
        model_type: Which, as ``config.json`` has it: ``resnet``, ``vit``.
        config: The rest of its configuration.
        num_classes: Number of logits.

    Raises:
        ExmlError: If transformers is not installed.
        Exception: Whatever transformers raises for a configuration that it does not know; code beside weights is not
            run.
    """
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
    except ImportError as error:
        raise ExmlError(f"this network is of transformers, which is not installed: {EXTRA}") from error
    settings = AutoConfig.for_model(model_type, **config, num_labels=num_classes)
    make: Any = AutoModelForImageClassification  # it has no types
    network: nn.Module = make.from_config(settings, trust_remote_code=False)
    return network


def in_library_names(network: nn.Module, weights: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Give weights the names of a network of transformers, whose files may have those of earlier versions of it.

    None if it is a network of something else, or not all weights fit it.
    """
    library: Any = sys.modules.get("transformers")
    if library is None or not isinstance(network, library.PreTrainedModel):
        return None
    before = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    try:
        with contextlib.redirect_stderr(io.StringIO()), torch.random.fork_rng(devices=[]):
            loaded, found = type(network).from_pretrained(
                None, config=network.config, state_dict=dict(weights), output_loading_info=True
            )
    except Exception:  # anyone's weights
        return None
    finally:
        library.logging.set_verbosity(before)
    return None if any(found.values()) else dict(loaded.state_dict())
