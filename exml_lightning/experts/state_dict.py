"""The weights of a network in a file: which of those that a checkpoint holds, and what the file calls them."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.serialization import get_unsafe_globals_in_checkpoint

from exml_lightning.core.errors import ExmlError, printable, shown
from exml_lightning.files import check_regular, is_dense, load_torch_file, read_bytes, reason, sha256

INDEX = ".index.json"
"""Ends the name of a file that lists the files that weights are dealt out to."""
FIRST = ("state_dict", "model_state_dict", "model")
"""Where checkpoints keep what is taken, if nothing else is asked for."""
AVERAGES = {"ema", "avg", "average", "averaged", "averaging", "polyak", "shadow", "swa", "teacher"}
"""Parts of the names of weights that are a mean of others: taken only if there are no others, or if asked for."""
AROUND = {"module", "_module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""Parts of names that something around a network, or around a layer, has put there."""
COUNTERS = {"n_averaged", "total_ops", "total_params"}
"""What names of counters end with, which others have put there."""
BESIDE = {"criterion", "loss", "losses", "metric", "metrics", "acc", "accuracy", "auroc", "f1"}
"""Parts of the first part of names: losses and metrics that a LightningModule keeps beside its layers."""
MOST_NAMINGS = 32
"""Ways to read the names of a file that are tried: a stranger's may allow for thousands."""
COUNTER = "num_batches_tracked"
"""Files of before torch 0.4.1 lack it, and no answer depends on it."""
REMEDY = "save a state dict of dense tensors as safetensors, or by torch.save(network.state_dict(), FILE)"


@dataclass(frozen=True)
class FoundWeights:
    """The weights of a network, as they were found in a file.

    Args:
        state: By the names of the network.
        key: Which of the weights in the file they are; "" where it holds nothing else.
        others: The keys of the others in the file that fit the network.
        left_out: What the file has beside them that belongs to no network, by its name there.
    """

    state: dict[str, Tensor]
    key: str = ""
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def averaged(self) -> bool:
        """Whether their key says that they are an average of others."""
        return bool(AVERAGES & _parts(self.key))


class OtherShapesError(ExmlError):
    """The names of a file are the network's, but shapes are not: another number of classes, perhaps."""


class _Group(NamedTuple):
    """A state dict, or what may be one, in a file, and where it is there."""

    key: str
    content: Mapping[str, Any]


class _Names(NamedTuple):
    """How names of a network become those of a file: `removed` from their beginning, `added` there."""

    added: str
    removed: str

    def of(self, name: str) -> str | None:
        return f"{self.added}{name.removeprefix(self.removed)}" if name.startswith(self.removed) else None


def find_weights(path: Path, network: nn.Module, key: str | None = None) -> FoundWeights:
    """Find the weights of a network in a file; values, shapes and types of weights are not looked at yet.

    A file is safetensors, the index of several of them, or what `torch.load` reads with ``weights_only=True``. It holds
    a state dict, alone or under a key of a checkpoint. The names in it may have a beginning that the network's lack
    (the attribute of a LightningModule, ``module.`` of DataParallel), or lack one that these have (a wrapper around the
    network), and may have parts that wrappers have put there (``_orig_mod`` of `torch.compile`).

    Args:
        path: The file.
        network: The network; layers whose sizes come with the first image may be without.
        key: Which weights, by the key of the checkpoint or the beginning of their names, or both with a dot between;
            None for those under ``state_dict``, ``model_state_dict`` or ``model``, and no average of others.

    Raises:
        ExmlError: If it is missing, broken, holds no such weights, or those of another network: names what differs.
    """
    own, groups = network.state_dict(), _groups(read_file(path), path)
    broken: ExmlError | None = None
    found: list[FoundWeights] = []
    closest: list[tuple[int, str, bool]] = []
    for group in groups:
        for names in _namings(own, group.content):
            where = ".".join(filter(None, [group.key, names.added.rstrip(".")]))
            if key is not None and key not in (where, group.key, names.added.rstrip(".")):
                continue
            try:
                differences, same_names, weights = _compare(own, group.content, names, where, path)
            except ExmlError as error:
                broken = broken or error
                continue
            if differences:
                closest.append((len(weights.state), differences, same_names))
            else:
                found.append(weights)
    if not found and broken is not None:
        raise broken
    if not found and not closest:
        raise ExmlError(f"{path} has no weights {key!r}; it has {shown(_keys(own, groups)) or 'none with a key'}")
    if not found:
        what = f"{path} belongs to another network than {type(network).__name__} as the manifest describes it"
        _, differences, same_names = max(closest, key=lambda one: one[0])
        raise (OtherShapesError if same_names else ExmlError)(f"{what}: {differences}")
    chosen = min(found, key=lambda weights: weights.averaged)  # the first of those that it is true of
    rivals = {weights.key.partition(".")[0] for weights in found if weights.averaged == chosen.averaged}
    if key is None and len(rivals) > 1 and not rivals & {"", *FIRST}:
        raise ExmlError(f"{path} has several weights of this network, {shown(sorted(rivals))}: choose by --weights KEY")
    others = tuple(weights.key for weights in found if weights.key != chosen.key)
    return FoundWeights(chosen.state, chosen.key, others if key is None else (), chosen.left_out)


def file_hash(path: Path) -> str:
    """Return the hash (sha256) of weights: of a file, or of an index and of all files that it lists, together."""
    if not path.name.endswith(INDEX):
        return sha256(path)
    digest = hashlib.sha256(sha256(path).encode())
    for part in indexed_files(path):
        digest.update(sha256(part).encode())
    return digest.hexdigest()


def indexed_files(path: Path) -> list[Path]:
    """Name the files, of the same folder, that an index lists; `ExmlError` if it is broken or one is missing."""
    try:
        files = sorted({*json.loads(read_bytes(path))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ExmlError(f"{path} is no index of weight files (weight_map): fetch it again") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not (path.parent / file).is_file():
            raise ExmlError(f"{path} lists {printable(str(file))}, which is no file of its folder: put it there")
    return [path.parent / file for file in files]


def read_file(path: Path) -> Mapping[str, Any]:
    """Read what a file holds, a mapping, of tensors or of more; `ExmlError` if it cannot be."""
    if path.name.endswith(INDEX) and path.is_file():
        content: dict[str, Any] = {}
        for part in indexed_files(path):
            content |= read_file(part)
        return content
    try:
        check_regular(path)
        read = load_file(path) if path.suffix == ".safetensors" else load_torch_file(path)
    except ExmlError:
        raise
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing, though the manifest beside it names it") from error
    except Exception as error:  # readers of broken files raise almost anything
        objects = _objects(path) if isinstance(error, UnpicklingError) else ""  # anything else may be a pipe
        raise ExmlError(f"{path} cannot be read as weights ({reason(error)}{objects}): {REMEDY}") from error
    if not isinstance(read, Mapping):
        raise ExmlError(f"{path} holds {type(read).__name__}, no state dict: {REMEDY}")
    return read


def _objects(path: Path) -> str:
    """Name the classes that a checkpoint would have to be trusted to make; "" where that cannot be told."""
    try:
        return f": {shown(get_unsafe_globals_in_checkpoint(path))}"
    except Exception:  # a damaged file, or one of an older torch
        return ""


def _groups(content: Mapping[str, Any], path: Path) -> list[_Group]:
    """Find what may be state dicts: what is taken first comes first."""
    groups = [_Group("", content), *_nested("", content)]
    order = {name: place for place, name in enumerate(FIRST)}
    groups.sort(key=lambda group: order.get(group.key, len(order)))
    held = [group for group in groups if any(isinstance(value, Tensor) for value in group.content.values())]
    if not held:
        raise ExmlError(f"{path} has no state dict, alone or under a key ({', '.join(FIRST)}): {REMEDY}")
    return held


def _nested(key: str, content: Mapping[str, Any]) -> Iterator[_Group]:
    for name, value in content.items():
        if isinstance(name, str) and isinstance(value, Mapping) and key.count(".") < 2:
            where = f"{key}.{name}".lstrip(".")
            yield _Group(where, value)
            yield from _nested(where, value)


def _bare(names: Iterable[str]) -> dict[str, str]:
    """Return names by what is left of them without the parts that wrappers have put there, if that tells them apart."""
    several = list(names)
    bare = {".".join(part for part in name.split(".") if part not in AROUND): name for name in several}
    return bare if len(bare) == len(several) else {name: name for name in several}


def _namings(own: Mapping[str, Tensor], content: Mapping[str, Any]) -> list[_Names]:
    """Find the ways in which names of a file may be those of a network: all that fit most of them.

    A few of the network's names are looked for in the file, with and without their beginnings.
    """
    theirs = _bare(name for name in content if isinstance(name, str))
    mine = [name for name in _bare(own) if not name.endswith(COUNTER)]
    found: dict[_Names, int] = {}
    for name in [*mine[:2], mine[len(mine) // 2], mine[-1]] if mine else []:
        parts = name.split(".")
        for count in range(len(parts)):
            removed = "".join(f"{part}." for part in parts[:count])
            rest = name.removeprefix(removed)
            if not all(other.startswith(removed) for other in mine) or len(found) > MOST_NAMINGS:
                break
            if rest in theirs:
                found[_Names("", removed)] = 0
            if not removed or "." in rest:  # one part alone, a weight, is anybody's
                ends = (other for other in theirs if other.endswith(f".{rest}"))
                found |= dict.fromkeys(
                    (_Names(other.removesuffix(rest), removed) for other in islice(ends, MOST_NAMINGS)), 0
                )
    for names in found:
        found[names] = sum(names.of(name) in theirs for name in mine)
    most = max(found.values(), default=0)
    return [names for names, count in found.items() if count == most] or [_Names("", "")]


def _compare(
    own: Mapping[str, Tensor], content: Mapping[str, Any], names: _Names, where: str, path: Path
) -> tuple[str, bool, FoundWeights]:
    """Say in which names and shapes a state dict differs from a network's, "" for none; and whether in shapes alone.

    Returns what it holds, too.
    """
    theirs = _bare(name for name in content if isinstance(name, str))
    wanted = {name: names.of(bare) for bare, name in _bare(own).items()}
    state = {name: content[theirs[other]] for name, other in wanted.items() if other in theirs}
    for name, tensor in state.items():
        if not is_dense(tensor):
            raise ExmlError(f"{path}: {printable(name)} is no ordinary tensor: {REMEDY}")
    tied = {tensor.data_ptr(): name for name, tensor in own.items() if name in state and _has_values(tensor)}
    for name in own.keys() - state.keys():
        if name.endswith(COUNTER):
            state[name] = own[name]
        elif _has_values(own[name]) and own[name].data_ptr() in tied:  # safetensors keeps tied weights once
            state[name] = state[tied[own[name].data_ptr()]]
    used = {*wanted.values()}
    beside = [(bare, name) for bare, name in theirs.items() if bare not in used]
    no_layer = {name for bare, name in beside if not bare.startswith(names.added) or _is_beside(bare)}
    unexpected = [name for _, name in beside if name not in no_layer]
    same_names = own.keys() <= state.keys() and not unexpected
    return _differences(state, own, unexpected), same_names, FoundWeights(state, where, (), tuple(sorted(no_layer)))


def _parts(name: str) -> set[str]:
    """The words that a name is made of, in lower case."""
    return {*re.split(r"[._]", name.lower())}


def _is_beside(name: str) -> bool:
    first, _, rest = name.partition(".")
    return (rest or first).rpartition(".")[2] in COUNTERS or bool(_parts(first) & BESIDE)


def _has_values(tensor: Tensor) -> bool:
    return not isinstance(tensor, UninitializedParameter | UninitializedBuffer) and tensor.numel() > 0


def _differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor], unexpected: list[str]) -> str:
    """Say what is missing, unexpected and of another shape, in the order of the network; empty if nothing is."""
    lazy = UninitializedParameter, UninitializedBuffer
    kinds = {
        "missing": [name for name in own if name not in state],
        "unexpected": [printable(name) for name in unexpected],
        "of another shape": [
            f"{name} {list(state[name].shape)} where the network has {list(tensor.shape)}"
            for name, tensor in own.items()
            if name in state and not isinstance(tensor, lazy) and state[name].shape != tensor.shape
        ],
    }
    several = {kind: found[:3] + ["..."] * (len(found) > 3) for kind, found in kinds.items() if found}
    said = "; ".join(f"{len(kinds[kind])} {kind} ({', '.join(names)})" for kind, names in several.items())
    heads = [name.partition(".")[0].lower() for kind in ("missing", "unexpected") for name in kinds[kind]]
    if said and heads and all(name.startswith("aux") for name in heads):
        without = "false" if kinds["missing"] else "true"
        said += f": auxiliary classifiers; describe the network by init_args {{aux_logits: {without}}}"
    return said


def _keys(own: Mapping[str, Tensor], groups: Iterable[_Group]) -> list[str]:
    """The keys that weights in a file can be asked for by."""
    keys = [group.key for group in groups]
    keys += [names.added.rstrip(".") for group in groups for names in _namings(own, group.content)]
    return [key for key in dict.fromkeys(keys) if key]
