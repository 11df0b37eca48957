"""Reading experts, and writing their weights; nothing is unpickled."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from exml_lightning.core.errors import BrokenExpertError, ExmlError, printable
from exml_lightning.core.expert import Expert
from exml_lightning.core.layout import fast_layout
from exml_lightning.core.logits import looks_like
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts.architecture import probe, show
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest
from exml_lightning.experts.saved_models import in_library_names
from exml_lightning.experts.state_dict import FoundWeights, file_hash, find_weights, read_file
from exml_lightning.experts.statistics_file import read_statistics
from exml_lightning.files import sha256, write_whole


def save_weights(network: nn.Module, path: Path) -> str:
    """Write the state dict of a network as safetensors, in one step, and return the hash of the file."""
    # Clones, since safetensors refuses tied weights.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in network.state_dict().items()}
    write_whole(path, lambda part: save_file(state, part))
    return sha256(path)


def load_weights(network: nn.Module, path: Path, key: str | None = None) -> FoundWeights:
    """Read weights into a network: those of a file that fit it, of several the ones of a `key`; see `find_weights`.

    Raises `ExmlError` if the file is missing, broken, of another network, or holds NaN or infinity; names and shapes
    come first. Returns what was taken, and what the file has beside it.
    """
    try:
        found = find_weights(path, network, key)
    except ExmlError:
        renamed = None if key is not None else in_library_names(network, read_file(path))
        if renamed is None:
            raise
        found = FoundWeights(renamed)
    own, state = network.state_dict(), dict(found.state)
    for name, tensor in state.items():
        if tensor.is_floating_point() != own[name].is_floating_point() or tensor.is_complex() != own[name].is_complex():
            raise ExmlError(f"{path}: {name} is {tensor.dtype} where the network has {own[name].dtype}: convert it")
        state[name] = tensor.to(own[name].dtype)
        if not torch.isfinite(state[name]).all():
            raise BrokenExpertError(f"{path}: {name} holds NaN or infinity: the expert is broken")
    network.load_state_dict(state)
    return found


def load_expert(folder: Path, manifest: Manifest, index: int) -> Expert:
    """Read an expert of a folder or selection, from 0, frozen, on the CPU; `ExmlError` if it is not as described.

    Its file is hashed at each call, which takes less than building its network: another may have taken its place.
    """
    entry = manifest.experts[index]
    path = entry.path(folder)
    if path.is_file() and file_hash(path) != entry.sha256:
        raise ExmlError(f"{path} has another hash (sha256) than the manifest says: bring it back, or train it again")
    shape = (entry.input or manifest.input).shape
    try:
        network = entry.architecture.empty(shape)
    except ExmlError as error:
        raise ExmlError(f"{path.parent / FILE_NAME}: {path.name} has an {error}") from error
    load_weights(network, path, entry.weights)
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
    network = entry.architecture.empty((entry.input or manifest.input).shape)
    load_weights(network, beside.parent / name)
    return dict(network.state_dict())


def _check_forward(network: nn.Module, entry: ExpertEntry, shape: tuple[int, int, int], path: Path) -> None:
    layers, name, classifier = dict(network.named_modules()), type(network).__name__, entry.classifier
    if classifier is not None and classifier not in layers:
        raise ExmlError(f"{path}: the manifest's classifier {classifier!r} is no layer of {name}")
    units = probe(network, shape, f"{path}: {name}")
    noise = torch.randn(2, *shape, generator=keyed_generator("what does it return"))
    if (entry.architecture.returns, looks_like(show(network, noise, name))) == (None, "probabilities"):
        what = f"{path}: {name} returns probabilities, where logits are expected"
        raise ExmlError(f"{what}: write `returns: probabilities` below its architecture in {FILE_NAME}")
    layer = layers[classifier] if classifier else None
    if isinstance(layer, nn.Linear) and layer.out_features != units:
        what = f"{path}: the manifest's classifier {classifier!r} has {layer.out_features} units"
        raise ExmlError(f"{what}, but the network has {units}: name its last linear layer")
    if units <= (last := max(entry.outputs)):
        raise ExmlError(f"{path}: the manifest names output unit {last}, but the network has units 0 to {units - 1}")
