"""Reading and writing the weights of experts; nothing is unpickled."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from exml_lightning.core.errors import BrokenExpertError, ExmlError, printable
from exml_lightning.core.expert import Expert
from exml_lightning.core.layout import fast_layout
from exml_lightning.experts.architecture import probe
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest
from exml_lightning.experts.statistics_file import read_statistics
from exml_lightning.files import check_regular, is_dense, load_torch_file, reason, sha256, write_whole

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep a state dict."""
MAX_PREFIXES = 8
"""Wrappers around a network that names are freed of."""
REMEDY = "save a state dict of dense tensors as safetensors, or by torch.save(network.state_dict(), FILE)"


def save_weights(network: nn.Module, path: Path) -> str:
    """Write the state dict of a network as safetensors, in one step, and return the hash of the file."""
    # Clones, since safetensors refuses tied weights.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    write_whole(path, lambda part: save_file(state, part))
    return sha256(path)


def load_weights(network: nn.Module, path: Path) -> None:
    """Read a state dict into a network.

    A file is safetensors, or what `torch.load` reads with ``weights_only=True``: a state dict, alone or in a checkpoint
    under ``state_dict``, ``model_state_dict`` or ``model``. A first part that all names have and the network's do not
    (``module.`` of DataParallel, the attribute of a LightningModule) is left out. Raises `ExmlError` if it is missing,
    broken, of another network, or holds NaN or infinity; names and shapes come first.
    """
    own = network.state_dict()
    state = _without_prefix(_read(path), own)
    for name in own.keys() - state.keys():
        if name.endswith("num_batches_tracked"):  # files of before torch 0.4.1 lack it, and no answer depends on it
            state[name] = own[name]
    if differences := _differences(state, own):
        what = f"{path} belongs to another network than {type(network).__name__} as the manifest describes it"
        raise ExmlError(f"{what}: {differences}")
    for name, tensor in state.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex() != own[name].is_complex():
            raise ExmlError(f"{path}: {name} is {tensor.dtype} where the network has {own[name].dtype}: convert it")
        state[name] = tensor.to(own[name].dtype)
        if not torch.isfinite(state[name]).all():
            raise BrokenExpertError(f"{path}: {name} holds NaN or infinity: the expert is broken")
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        check_regular(path)
        content = load_file(path) if path.suffix == ".safetensors" else load_torch_file(path)
    except ExmlError:
        raise
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing, though the manifest beside it names it") from error
    except Exception as error:  # readers of broken files raise almost anything
        raise ExmlError(f"{path} cannot be read as weights ({reason(error)}): {REMEDY}") from error
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(state, dict) or not state or not all(isinstance(name, str) for name in state):
        raise ExmlError(f"{path} has no state dict, alone or under {', '.join(WRAPPERS)}: {REMEDY}")
    for name, tensor in state.items():
        if not is_dense(tensor):
            raise ExmlError(f"{path}: {printable(name)} is no ordinary tensor: {REMEDY}")
    return dict(state)


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out first parts that all names have, as far as this makes names of the network out of them."""
    bare = state
    for _ in range(MAX_PREFIXES):
        if bare.keys() & own.keys():
            return bare
        firsts = {name.partition(".")[0] for name in bare}
        if len(firsts) != 1 or not all("." in name for name in bare):
            return state
        bare = {name.partition(".")[2]: tensor for name, tensor in bare.items()}
    return state


def _differences(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> str:
    """Say what is missing, unexpected and of another shape, in the order of the network; empty if nothing is."""
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [printable(name) for name in state if name not in own],
        "of another shape": [
            f"{name} {list(state[name].shape)} where the network has {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and state[name].shape != tensor.shape
        ],
    }
    several = {kind: found[:3] + ["..."] * (len(found) > 3) for kind, found in kinds.items() if found}
    return "; ".join(f"{len(kinds[kind])} {kind} ({', '.join(names)})" for kind, names in several.items())


def load_expert(folder: Path, manifest: Manifest, index: int) -> Expert:
    """Read an expert of a folder or selection, from 0, frozen, on the CPU; `ExmlError` if it is not as described.

    Its file is hashed at each call, which takes less than building its network: another may have taken its place.
    """
    entry = manifest.experts[index]
    path = entry.path(folder)
    if path.is_file() and sha256(path) != entry.sha256:
        raise ExmlError(f"{path} has another hash (sha256) than the manifest says: bring it back, or train it again")
    try:
        network = entry.architecture.skeleton().build()
    except ExmlError as error:
        raise ExmlError(f"{path.parent / FILE_NAME}: {path.name} has an {error}") from error
    load_weights(network, path)
    shape = (entry.input or manifest.input).shape
    _check_forward(network, entry, shape, path)
    network, classes = fast_layout(network, shape), manifest.classes_of(index)
    known = entry.outputs, manifest.input, index, entry.task, entry.classifier, entry.input, str(path)
    expert = Expert(network, classes, *known, initial_weights(folder, manifest, index))
    if entry.statistics is not None:
        expert.statistics = read_statistics(path.with_name(entry.statistics.file), entry.statistics, expert)
    return expert


def initial_weights(folder: Path, manifest: Manifest, index: int) -> dict[str, Tensor] | None:
    """Read the weights that the training of an expert began with, on the CPU; None where they are not at hand.

    ``training.initial`` of the manifest names their file, beside the expert's: `exml experts` writes it. Raises
    `ExmlError` if it is not of the expert's network, broken, or no file of that folder.
    """
    entry = manifest.experts[index]
    name, beside = entry.training.get("initial"), entry.path(folder)
    if name is None:
        return None
    if not isinstance(name, str) or Path(name).name != name:
        what = f"{beside.parent / FILE_NAME}: training.initial of expert {index} is {printable(str(name), 80)}"
        raise ExmlError(f"{what}: name a file of the same folder, or leave it out")
    if not (beside.parent / name).exists():
        return None
    network = entry.architecture.skeleton().build()
    load_weights(network, beside.parent / name)
    return dict(network.state_dict())


def _check_forward(network: nn.Module, entry: ExpertEntry, shape: tuple[int, int, int], path: Path) -> None:
    layers, name, classifier = dict(network.named_modules()), type(network).__name__, entry.classifier
    if classifier is not None and classifier not in layers:
        raise ExmlError(f"{path}: the manifest's classifier {classifier!r} is no layer of {name}")
    units = probe(network, shape, f"{path}: {name}")
    layer = layers[classifier] if classifier else None
    if isinstance(layer, nn.Linear) and layer.out_features != units:
        what = f"{path}: the manifest's classifier {classifier!r} has {layer.out_features} units"
        raise ExmlError(f"{what}, but the network has {units}: name its last linear layer")
    if units <= (last := max(entry.outputs)):
        raise ExmlError(f"{path}: the manifest names output unit {last}, but the network has units 0 to {units - 1}")
