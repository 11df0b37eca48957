"""An `ExModel` as ONNX: writing the file, and making sure that it answers as PyTorch does."""

import importlib.util
import io
import json
import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.text import Text
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, one_line, printable
from exml_lightning.ex_model.model import ExModel

NEEDED = ("huggingface_hub", "onnx", "onnxruntime", "onnxscript")
"""Packages of the extra ``export``."""
BATCH = 32
TOLERANCE = 1e-3
"""Difference that rounding may make, against the largest logit."""
REMEDY = (
    "change its forward (no if, loop, .item() or .tolist() that depends on the values or the number of images), or "
    "leave the file out with --no_onnx"
)


@dataclass(frozen=True)
class Comparison:
    """How an ONNX file answered.

    Args:
        source: Where the images are from, in words.
        images: How many.
        equal: Fraction of them with the same label.
        largest: Largest difference of a logit.
        scale: Largest logit of PyTorch, without its sign.
    """

    source: str
    images: int
    equal: float
    largest: float
    scale: float

    def __str__(self) -> str:
        return (
            f"on {self.images} images ({self.source}): labels equal on {self.equal:.2%}, largest difference of logits "
            f"{self.largest:.2g}, of logits up to {self.scale:.2g}"
        )


def check_packages(onnx: bool = True) -> None:
    """Raise `ExmlError` if packages that it takes are missing; names them, and the command that installs them."""
    missing = [name for name in (NEEDED if onnx else NEEDED[:1]) if importlib.util.find_spec(name) is None]
    if missing:
        raise ExmlError(
            f'exml export needs {", ".join(missing)}: pip install "exml-lightning[export]", or in a clone '
            'pip install -e ".[export]"'
        )


def write_onnx(ex_model: ExModel, path: Path) -> None:
    """Write ONNX with an input ``images`` (float32 pixels in ``[0, 1]``, any number of them) and an output ``logits``.

    The names of the classes, in the order of the logits, and the shape of the images are in its metadata as JSON, under
    ``classes`` and ``image_shape``. The ex-model is on the CPU, in eval mode.

    Raises:
        ExmlError: If the network has something that ONNX or its exporter has not.
    """
    images, name = torch.zeros(2, *ex_model.image_shape), type(ex_model.network).__name__
    try:
        with _silence(), torch.no_grad():
            program = torch.onnx.export(
                ex_model,
                (images,),
                dynamo=True,
                verbose=False,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            )
            assert program is not None
            shape = program.model.graph.inputs[0].shape
            if shape is None or isinstance(shape[0], int):
                many = f"for any number of images, for {len(images)} only"
                raise ExmlError(f"{name} cannot be written as ONNX {many}: {REMEDY}")
            program.model.metadata_props["classes"] = json.dumps(ex_model.classes)
            program.model.metadata_props["image_shape"] = json.dumps(ex_model.image_shape)
            program.save(path, external_data=False)
    except ExmlError:
        raise
    except Exception as error:  # anyone's network
        raise ExmlError(f"{name} cannot be written as ONNX: {_cause(error, ex_model.network)}: {REMEDY}") from error


def _cause(error: BaseException, network: nn.Module) -> str:
    """Say what the first error of a chain was, and where in the network, if it was there."""
    while (before := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = before
    lines = Text.from_ansi(str(error)).plain.splitlines()
    said = f"{type(error).__name__} ({printable(lines[0] if lines else '', 200)})"
    layers = {id(module): name for name, module in network.named_modules()}
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        layer = layers.get(id(frame.f_locals.get("self")))
        if layer is not None:
            of = f"layer {layer}" if layer else "its forward"
            return f"{said} in {of}, {printable(frame.f_code.co_filename, 300)}:{line}"
    return said


def compare(ex_model: ExModel, path: Path, images: Tensor, source: str) -> Comparison:
    """Compare the answers of an ONNX file with PyTorch's: the first image alone, the others in batches.

    The ex-model is that of the file, on the CPU, in eval mode; images are uint8 ``(n, *ex_model.image_shape)``, from
    `source`.

    Raises:
        ExmlError: If a logit differs by more than rounding makes it, or is no finite number.
    """
    batches = [images[:1], *(batch for batch in images[1:].split(BATCH) if len(batch))]
    with torch.no_grad():
        ours = torch.cat([ex_model(batch) for batch in batches])
    theirs = torch.cat(ask_onnx(path, (batch / 255 for batch in batches)))
    largest, scale = (ours - theirs).abs().max().item(), ours.abs().max().item()
    equal = (ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean().item()
    found = Comparison(source, len(images), equal, largest, scale)
    if not largest <= TOLERANCE * max(scale, 1e-3):  # NaN is not
        raise ExmlError(f"model.onnx answers differently from PyTorch {found}; nothing was written: {REMEDY}")
    return found


def ask_onnx(path: Path, batches: Iterable[Tensor]) -> list[Tensor]:
    """Compute logits by onnxruntime, on the CPU: float32 ``(n, classes)`` for each batch.

    Batches are float32 pixels in ``[0, 1]``, ``(n, channels, height, width)``.

    Raises:
        ExmlError: If onnxruntime cannot read or run it.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return [torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0]) for images in batches]
    except Exception as error:  # it has errors of its own, with no class in common
        raise ExmlError(
            f"onnxruntime cannot run what was exported ({printable(one_line(error), 300)}): {REMEDY}"
        ) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's steps, warnings and reports to itself; what goes wrong is raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
