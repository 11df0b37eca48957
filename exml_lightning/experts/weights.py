"""Reading and writing the weights of experts; nothing is unpickled."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.experts.manifest import ExpertEntry, Manifest
from exml_lightning.files import write_whole
from exml_lightning.models import probe


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
        path: Safetensors, or a state dict that `torch.load` reads with ``weights_only=True``.

    Raises:
        ExmlError: If the file is missing or broken, or belongs to another network, or holds NaN or infinity.
    """
    state = _read(path)
    own = network.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        raise ExmlError(
            f"{path} belongs to another network than {type(network).__name__}: "
            f"missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise ExmlError(
                f"{path}: {name} has shape {list(tensor.shape)}, "
                f"but {type(network).__name__} as the manifest describes it has {list(own[name].shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise ExmlError(f"{path}: {name} holds NaN or infinity: the expert is broken, leave it out of the manifest")
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing, though the manifest beside it names it") from error
    except (SafetensorError, UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ExmlError(f"{path} cannot be read as weights: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ExmlError(f"{path} is not a state dict of tensors")
    return state


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
    network = entry.architecture.build()
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
