"""Levers that were tried and not kept, and the speed of generating by batch size."""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.fx.experimental.optimization import fuse

from benchmarks.performance.generation import shipped_generator
from benchmarks.performance.timing import Job, interleave, synchronize
from benchmarks.performance.workload import SHIPPED, Workload
from exml_lightning.cli.memory import MMAP_THRESHOLD, TRIM_THRESHOLD, keep_freed_memory
from exml_lightning.core.rng import keyed_generator
from exml_lightning.ex_model.networks import compile_network
from exml_lightning.models import LeNet5

if TYPE_CHECKING:
    from benchmarks.performance.levers import Pair, Setting

SIZES = (64, 128, 256, 512, 1024)
EXPERTS = 5


def pairs(setting: "Setting") -> Iterator["Pair"]:
    """Make the levers that the package does not pull."""
    resnet, lenet = Workload("SlimResNet18"), Workload("LeNet5")
    slow, fast = setting.steps("SlimResNet18"), setting.steps("LeNet5")
    yield (
        "batch norm folded into convolutions",
        "SlimResNet18: a teacher's answers",
        *_folded(setting, resnet),
        slow,
    )
    for workload, steps in ((lenet, fast), (resnet, slow)):
        yield (
            "fused Adam for the ex-model",
            f"{workload.network}: its step alone",
            _adam(setting, workload, fused=False),
            _adam(setting, workload, fused=True),
            steps,
        )
        yield (
            "bfloat16 (`trainer.precision bf16-mixed`)",
            f"{workload.network}: a teacher's answers",
            _teacher(setting, workload, half=False),
            _teacher(setting, workload, half=True),
            steps,
        )
        yield (
            "the expert compiled for generating, too",
            f"{workload.network}: a pass to the input",
            _to_input(setting, workload, compiled=False),
            _to_input(setting, workload, compiled=True),
            steps,
        )
    yield (
        "the last convolution of LeNet5 as a matrix product",
        "LeNet5: a teacher's answers",
        _teacher(setting, lenet, half=False),
        _as_product(setting, lenet),
        fast,
    )
    yield (
        f"{EXPERTS} experts trained side by side (torch.func)",
        "LeNet5: a step of each, batch 32",
        *_side_by_side(setting, lenet),
        fast,
    )
    yield (
        "both teachers in one compiled call, not one each",
        "LeNet5: their answers",
        *_one_call(setting, lenet),
        fast,
    )
    yield (
        "buffer in uint8 (exact for real images alone)",
        "LeNet5: a mini-batch of the buffer",
        *_dtypes(setting, lenet),
        fast,
    )


def _answers(setting: "Setting", workload: Workload, model: nn.Module, half: bool = False) -> Job:
    images = setting.images(workload)

    @torch.no_grad()
    def ask() -> None:
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=half):
            model(images)

    return ask


def _model(setting: "Setting", workload: Workload) -> nn.Module:
    model = workload.expert(0).model.to(setting.device)
    return model.to(memory_format=torch.channels_last)


def _teacher(setting: "Setting", workload: Workload, half: bool) -> Job:
    return _answers(setting, workload, _model(setting, workload), half)


def _to_input(setting: "Setting", workload: Workload, compiled: bool) -> Job:
    model = _model(setting, workload)
    call = compile_network(model, setting.device) if compiled else model
    images = setting.images(workload).requires_grad_()
    labels = workload.labels(len(images)).to(setting.device)
    return lambda: _drop(torch.autograd.grad(F.cross_entropy(call(images), labels), [images]))


def _folded(setting: "Setting", workload: Workload) -> tuple[Job, Job]:
    model = _model(setting, workload)
    return _answers(setting, workload, model), _answers(setting, workload, fuse(model))


def _adam(setting: "Setting", workload: Workload, fused: bool) -> Job:
    model = _model(setting, workload)
    parameters = list(model.requires_grad_(True).parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.Adam(parameters, lr=1e-6, fused=fused)
    return lambda: _drop(optimizer.step())


def _as_product(setting: "Setting", workload: Workload) -> Job:
    model = _model(setting, workload)
    assert isinstance(model, LeNet5)
    features, classifier = list(model.features), model.classifier
    last = next(k for k, layer in enumerate(features) if isinstance(layer, nn.Conv2d) and layer.out_channels == 120)
    images, convolution = setting.images(workload), features[last]
    assert isinstance(convolution, nn.Conv2d)

    @torch.no_grad()
    def ask() -> None:
        values = nn.Sequential(*features[:last])(images)
        values = F.linear(values.flatten(1), convolution.weight.flatten(1), convolution.bias)
        classifier(nn.Sequential(*features[last + 1 :])(values))

    return ask


def _one_call(setting: "Setting", workload: Workload) -> tuple[Job, Job]:
    images, models = setting.images(workload), [_model(setting, workload) for _ in range(2)]
    each = [compile_network(model, setting.device) for model in models]
    together = torch.compile(lambda images: [model(images) for model in models], dynamic=False)

    @torch.no_grad()
    def ask_each() -> None:
        for answer in each:
            answer(images)

    @torch.no_grad()
    def ask_together() -> None:
        together(images)

    return ask_each, ask_together


def _side_by_side(setting: "Setting", workload: Workload) -> tuple[Job, Job]:
    device, count = setting.device, 8 if setting.quick else 32
    models = [workload.model(k).to(device).to(memory_format=torch.channels_last) for k in range(EXPERTS)]
    images = torch.stack([workload.images(count, k) for k in range(EXPERTS)]).to(device)
    labels = workload.labels(count).to(device)
    optimizers = [torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9) for model in models]

    def one_after_the_other() -> None:
        for model, optimizer, batch in zip(models, optimizers, images, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels).backward()
            optimizer.step()

    parameters, buffers = stack_module_state(models)
    together = torch.optim.SGD(parameters.values(), lr=1e-6, momentum=0.9)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(models[0], (parameters, buffers), (batch,)), labels)

    def side_by_side() -> None:
        together.zero_grad()
        vmap(loss)(parameters, buffers, images).sum().backward()
        together.step()

    return one_after_the_other, side_by_side


def _dtypes(setting: "Setting", workload: Workload) -> tuple[Job, Job]:
    size = 100 if setting.quick else 5000
    pixels = (torch.rand(size, *workload.image_format.shape, generator=keyed_generator("lever")) * 255).byte()
    pixels = pixels.to(setting.device)
    images = workload.image_format.normalize(pixels)
    rows = torch.arange(8 if setting.quick else 128, device=setting.device)
    return lambda: _drop(images[rows]), lambda: _drop(workload.image_format.normalize(pixels[rows]))


def _drop(_: object) -> None:
    """Nothing is done with it."""


def batch_sizes(setting: "Setting") -> list[dict[str, Any]]:
    """Measure generating by batch size, on a CPU with freed memory kept and given back.

    Args:
        setting: Where and how long.
    """
    rows = []
    for network in SHIPPED:
        for kept in (False, True) if setting.device.type == "cpu" else (True,):
            _keep(kept)
            rows.append(
                {"network": network, "freed memory": "kept" if kept else "given back", **_speeds(setting, network)}
            )
    return rows


def _keep(kept: bool) -> None:
    """Have glibc keep freed memory, or not; see `exml_lightning.cli.memory`."""
    library = ctypes.CDLL(None)
    if kept:
        keep_freed_memory()
    elif hasattr(library, "mallopt"):
        library.mallopt(MMAP_THRESHOLD, 1 << 17)
        library.mallopt(TRIM_THRESHOLD, 1 << 17)


def _speeds(setting: "Setting", network: str) -> dict[str, float]:
    workload, shipped = Workload(network, classes_per_expert=2), shipped_generator(network)
    expert = workload.read_expert(setting.folder / f"sizes {network}", 0).to(setting.device)
    sizes = (8, 16) if setting.quick else SIZES
    slow = setting.device.type == "cpu" and network == "SlimResNet18"
    steps = 1 if setting.quick or slow else 20

    def generate(size: int) -> None:
        generator = replace(shipped, steps=steps, batch_size=size)
        generator.generate(expert, size, keyed_generator("lever"))

    jobs: dict[str, Job] = {str(size): partial(generate, size) for size in sizes}
    seconds = interleave(jobs, 2 if setting.quick or slow else 5, 1, partial(synchronize, setting.device))
    return {name: 1e-3 * steps * int(name) / median(each) for name, each in seconds.items()}
