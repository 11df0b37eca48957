"""Reading and writing the weights of experts; nothing is unpickled."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.expert import Expert
from exml_lightning.experts.manifest import ExpertEntry, Manifest
from exml_lightning.files import write_whole
from exml_lightning.models import probe

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep a state dict."""
SHOWN = 3
"""How many names of each kind a message shows."""


def sha256(path: Path) -> str:
    """Hash a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_weights(network: nn.Module, path: Path) -> str:
    """Write the state dict of a network as safetensors.

    Args:
        network: The network.
        path: The file; replaced in one step if it exists.

    Returns:
        Its hash.
    """
    # Clones, since safetensors refuses tied weights.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    write_whole(path, lambda part: save_file(state, part))
    return sha256(path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read a state dict into a network.

    Args:
        network: The network.
        path: Safetensors, or what `torch.load` reads with ``weights_only=True``: a state dict, alone or in a checkpoint
            under ``state_dict``, ``model_state_dict`` or ``model``. A first part that all names have and the network's
            do not (``module.`` of DataParallel, the attribute of a LightningModule) is left out.

    Raises:
        ExmlError: If the file is missing or broken, or belongs to another network, or holds NaN or infinity.
    """
    own = network.state_dict()
    state = _without_prefix(_read(path), own)
    for name in own.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # files of before torch 0.4.1 lack it, and no answer depends on it
            state[name] = own[name]
    differences = _differences(state, own)
    if differences:
        raise ExmlError(
            f"{path} belongs to another network than {type(network).__name__} "
            f"as the manifest describes it: {differences}"
        )
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise ExmlError(f"{path}: {name} holds NaN or infinity: the expert is broken, leave it out of the manifest")
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing, though the manifest beside it names it") from error
    except UnpicklingError as error:
        # What torch says beside this is how to run the code.
        held = re.search(r"GLOBAL (\S+)", str(error))
        raise ExmlError(
            f"{path} holds {held.group(1)}, which cannot be read without running code: save its state dict alone, by "
            "torch.save(network.state_dict(), FILE)"
            if held
            else f"{path} cannot be read as weights: it is damaged, or was not written by torch.save"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ExmlError(
            f"{path} cannot be read as weights ({one_line(error)[:200]}): write it as safetensors, or by "
            "torch.save(network.state_dict(), FILE)"
        ) from error
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExmlError(
            f"{path} is not a state dict of tensors, nor a checkpoint with one under {', '.join(WRAPPERS)}: "
            "write one by torch.save(network.state_dict(), FILE)"
        )
    return dict(state)


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out first parts that all names have, as far as this makes names of the network out of them."""
    bare = state
    while not bare.keys() & own.keys():
        firsts = {name.partition(".")[0] for name in bare}
        if len(firsts) != 1 or not all("." in name for name in bare):
            return state
        bare = {name.partition(".")[2]: tensor for name, tensor in bare.items()}
    return bare


def _differences(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Say what is missing, unexpected and of another shape, in the order of the network; empty if nothing is."""
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} where the network has {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    return "; ".join(
        f"{len(found)} {kind} ({', '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''})"
        for kind, found in kinds.items()
        if found
    )


def load_expert(folder: Path, manifest: Manifest, index: int) -> Expert:
    """Read and check one expert.

    Args:
        folder: The folder of experts.
        manifest: Its manifest.
        index: Place in the stream, from 0.

    Returns:
        The expert, frozen, on the CPU.

    Raises:
        ExmlError: If anything about it is not as the manifest says; names the file.
    """
    entry = manifest.experts[index]
    path = folder / entry.file
    if path.is_file() and sha256(path) != entry.sha256:
        raise ExmlError(
            f"{path} has another hash (sha256) than the manifest says: it was changed or damaged; "
            "bring the original back or train it again"
        )
    network = entry.architecture.skeleton().build()
    load_weights(network, path)
    _check_forward(network, entry, manifest, path)
    return Expert(
        network,
        manifest.classes_of(index),
        entry.outputs,
        manifest.input,
        index,
        entry.task,
        entry.classifier,
        entry.input,
    )


def _check_forward(network: nn.Module, entry: ExpertEntry, manifest: Manifest, path: Path) -> None:
    if entry.classifier is not None and entry.classifier not in dict(network.named_modules()):
        raise ExmlError(
            f"{path}: the manifest's classifier {entry.classifier!r} is no layer of {type(network).__name__}"
        )
    units = probe(network, (entry.input or manifest.input).shape, f"{path}: {type(network).__name__}")
    layer = dict(network.named_modules())[entry.classifier] if entry.classifier else None
    if isinstance(layer, nn.Linear) and layer.out_features != units:
        raise ExmlError(
            f"{path}: the manifest's classifier {entry.classifier!r} has {layer.out_features} units, but the network "
            f"has {units}: name its last linear layer"
        )
    if units <= max(entry.outputs):
        raise ExmlError(
            f"{path}: the manifest names output unit {max(entry.outputs)}, but the network has units 0 to {units - 1}"
        )
