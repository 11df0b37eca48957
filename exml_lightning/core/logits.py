"""Letting a classifier answer in logits, whatever its `forward` returns, and leave what it is given as it was."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError

Returns = Literal["logits", "probabilities", "sigmoid"]
"""Logits, probabilities that add up to 1 (a softmax), or one of each class by itself (a sigmoid)."""
LEAST = 1e-30
"""Of a probability that a logarithm is taken of: a softmax of float32 reaches 0 for logits a hundred apart."""
SATURATED = 1e-7
"""How near to 0 or 1 a sigmoid of float32 is told from them, about."""


def answer_in_logits(network: nn.Module, returns: Returns | None = None, binary: bool = False) -> nn.Module:
    """Let a network return logits, float ``(n, classes)``, by hooks: its weights and layers keep their names.

    Of a mapping, or an object, its ``logits`` are taken, of a tuple the first tensor. Probabilities p become log p,
    those of a sigmoid log p - log(1 - p). If it is `binary`, its one unit, ``(n, 1)`` or ``(n,)``, tells two classes
    apart: it becomes the logit of the second, beside 0 for the first. What it is shown is copied, since a first layer
    may write on it.

    Returns the network. Asking it raises `ExmlError` if it is said to be binary and has not one unit.
    """
    network.register_forward_pre_hook(_copied, prepend=True)
    network.register_forward_hook(partial(_in_logits, returns=returns, binary=binary))
    return network


def _copied(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value.clone() if isinstance(value, Tensor) else value for value in inputs)


def _in_logits(network: nn.Module, inputs: Any, output: Any, *, returns: Returns | None, binary: bool) -> Any:
    answer = _answer(output)
    if not isinstance(answer, Tensor):
        return answer  # who asks says what is wrong with it
    if answer.ndim == 1 and not binary and isinstance(inputs[0], Tensor) and len(inputs[0]) == 1:
        answer = answer[None]  # of one image, which a `squeeze` has taken away
    if binary:
        answer = answer.reshape(-1, 1) if answer.ndim < 2 else answer
        if answer.ndim != 2 or answer.shape[1] != 1:
            raise ExmlError(f"{type(network).__name__} is binary, but returns {list(answer.shape)}: one unit is needed")
    if returns == "sigmoid" or (returns == "probabilities" and binary):
        answer = torch.logit(answer.float(), eps=SATURATED)
    elif returns == "probabilities":
        answer = answer.float().clamp_min(LEAST).log()
    return torch.cat([torch.zeros_like(answer), answer], dim=1) if binary else answer


def _answer(output: Any) -> Any:
    """Find the logits in what a network returns."""
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if isinstance(output, tuple | list):
        return next((value for value in output if isinstance(value, Tensor)), output)
    return getattr(output, "logits", output)


def where_answer_is(output: object) -> str:
    """Say which part of what a network returns is taken for its logits; "" where it is all of it."""
    if isinstance(output, Tensor) or _answer(output) is output:
        return ""
    return f"the first of the {len(output)} that it returns" if isinstance(output, tuple | list) else "its `logits`"


def looks_like(answers: Tensor) -> Returns:
    """Tell by answers to several images, float ``(n, units)``, what they are.

    Rows of several values in [0, 1] that add up to 1 are probabilities; other values in [0, 1] those of sigmoids.
    Logits of many images are negative somewhere, or above 1. What is not finite, or the same for all images, tells
    nothing.
    """
    if not bool(torch.isfinite(answers).all()) or bool(((answers < 0) | (answers > 1)).any()):
        return "logits"
    if torch.equal(answers.amax(dim=0), answers.amin(dim=0)):
        return "logits"
    sums_to_one = answers.ndim == 2 and answers.shape[1] > 1 and bool(((answers.sum(dim=1) - 1).abs() < 1e-3).all())
    return "probabilities" if sums_to_one else "sigmoid"


def other_in_company(together: Tensor, alone: Tensor) -> bool:
    """Whether a network answered the first image otherwise when it was alone, ``(1, units)``, than among others.

    Its batch norm may have no running statistics, for instance. Rounding differs in a batch, too: more than a hundredth
    of the spread of its answers ``(n, units)`` is another answer.
    """
    return float((together[:1] - alone).abs().max()) > 1e-2 * float(together.std(correction=0)) + 1e-6
