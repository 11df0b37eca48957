"""Reading what `torch.save` wrote, by a stranger perhaps: no code is run, and no more is read than is there."""

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.fields import printable
from exml_lightning.regular_file import check_regular

ZIP = b"PK\x03\x04"
"""How torch tells its zip files from its older pickles."""


def load_torch_file(path: Path) -> object:
    """Read a file of `torch.save` with ``weights_only=True``.

    Args:
        path: The file.

    Returns:
        Tensors, numbers, text and containers, on the CPU. Tensors of a zip file are mapped: those that are not looked
        at take no memory, and none reaches beyond the file, whatever sizes it claims.

    Raises:
        ExmlError: If its parts claim more bytes than the file has.
        Exception: Whatever torch raises for another file, or one that holds code.
    """
    check_regular(path)
    with path.open("rb") as file:
        mapped = file.read(len(ZIP)) == ZIP
    if mapped:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
        if packed or sum(part.file_size for part in parts) > path.stat().st_size:
            raise ExmlError(f"{path} claims to hold more than it does, as no file of torch.save does: it is not read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old protocols and of sparse tensors, which are refused anyway
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def reason(error: Exception) -> str:
    """Say in one line why a file cannot be read, without torch's advice how to run the code in it."""
    if "weights_only" in str(error):
        return "it holds code, or is of a kind that is not read without running code"
    return printable(one_line(error), 200)


def is_dense(value: object) -> bool:
    """Whether it is a tensor with values in memory, one after the other: not sparse, quantised, nested or on meta."""
    return (
        type(value) in (Tensor, nn.Parameter)
        and isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
    )
