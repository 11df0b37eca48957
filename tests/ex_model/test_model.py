"""`ExModel`, compared with the network and the weights' file alone; loading and saving."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.model import load_ex_model, save_ex_model
from exml_lightning.experts import load_expert, read_manifest, write_manifest
from exml_lightning.models import LeNet5
from tests.conftest import EXPERTS

MEAN, STD = 0.3054, 0.3235  # the shipped manifest's


@pytest.fixture
def pixels() -> torch.Tensor:
    """Twenty digits of scikit-learn, each pixel repeated four times each way; uint8."""
    images = torch.tensor(load_digits().images[:20] * 255 / 16).round().to(torch.uint8)
    return images[:, None].repeat_interleave(4, 2).repeat_interleave(4, 3)


def test_it_normalises_and_gives_the_logits_of_its_classes(pixels):
    model = load_ex_model(EXPERTS, expert=1)
    assert (model.classes, model.image_shape, model.training) == (("8", "2"), (1, 32, 32), False)
    network = LeNet5()
    network.load_state_dict(load_file(EXPERTS / "expert_1.safetensors"))
    with torch.no_grad():
        expected = network.eval()((pixels / 255 - MEAN) / STD)[:, [8, 2]]
        assert torch.allclose(model(pixels), expected, atol=1e-5)
        assert torch.equal(model(pixels), model(pixels / 255))
        doubled = model.double()(pixels)
    assert doubled.dtype == torch.float64
    assert torch.allclose(doubled.float(), expected, atol=1e-4)


def test_gradients_flow_to_weights_and_pixels(pixels):
    model = load_ex_model(EXPERTS, expert=1)
    images = (pixels / 255).requires_grad_()
    model(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert set(model.state_dict()) == {f"network.{name}" for name in model.network.state_dict()}


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(1, 1, 28, 28), r"shape \[1, 1, 28, 28\]: give \[n, 1, 32, 32\]"),
        (torch.zeros(1, 1, 32, 32, dtype=torch.int64), r"images are torch.int64: give uint8"),
    ],
)
def test_other_images_are_refused(images, said):
    with pytest.raises(ExmlError, match=said):
        load_ex_model(EXPERTS, expert=0)(images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x * 255, r"from 0 to 255, not floats in \[0, 1\]: divide them by .* 255 as a rule, or give uint8"),
        (lambda x: x * 255 - 12, r"from -12 to 243, .*: divide them"),  # of a cubic resize
        (lambda x: x * 16, r"from 0 to 16, .*: divide them by the largest value that a pixel can have"),
        (lambda x: (x - MEAN) / STD, "they are normalised, it seems, which the ex-model does itself"),
        (lambda x: x * 2 - 1, "from -1 to 1, .* normalised"),
        (lambda x: (x - 0.1307) / 0.3081, "from -0.424213 to 2.82149, .* normalised"),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_floats_of_another_range_are_refused(pixels, change, said, kind):
    model = load_ex_model(EXPERTS, expert=0)
    images = change(pixels / 255)
    with pytest.raises(ExmlError, match=said if kind == torch.float32 else r"not floats in \[0, 1\]"):
        model(images.to(kind))
    with pytest.raises(ExmlError, match=said), torch.autocast("cpu", torch.bfloat16):
        model.train()(images)


def test_what_interpolation_adds_is_taken(pixels):
    model = load_ex_model(EXPERTS, expert=0)
    board = ((torch.arange(50)[:, None] + torch.arange(50)) % 2).float().expand(2, 1, 50, 50)
    worst = 0.0
    for size in (33, 75, 100, 130):
        image = torch.nn.functional.interpolate(board, size=(size, size), mode="bicubic")
        worst = max(worst, float(image.amax()) - 1)
        model(image[..., :32, :32])
    assert worst > 0.2
    model(torch.tensor([-1e-6, 1 + 1e-6]).repeat_interleave(512).view(1, 1, 32, 32))
    assert model(pixels[:0] / 255).shape == (0, 2)


def test_the_look_at_floats_leaves_graphs_alone(pixels):
    """What a graph sees is no value; each of these would raise, break the graph, or warn, if one were looked at."""
    model, images = load_ex_model(EXPERTS, expert=0), pixels[:3] / 255
    expected = model(images)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    exported = torch.export.export(model, (images,), dynamic_shapes={"images": {0: torch.export.Dim("n")}}).module()
    for answer in (compiled, exported):
        assert torch.allclose(answer(images), expected, atol=1e-5)
    assert torch.allclose(torch.vmap(lambda image: model(image[None])[0])(images), expected, atol=1e-5)
    assert model.to("meta")(images.to("meta")).shape == expected.shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_waited_for_once(pixels):
    model, images = load_ex_model(EXPERTS, expert=0).cuda(), (pixels / 255).cuda()
    with pytest.raises(ExmlError, match="divide them"):
        model.train()(images * 255)
    model = load_ex_model(EXPERTS, expert=0).cuda()
    model(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        model(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_saved_and_loaded_it_answers_the_same_bit_for_bit(tmp_path, pixels):
    model = load_ex_model(EXPERTS, expert=0)
    save_ex_model(model, tmp_path / "new" / "model")
    again = load_ex_model(str(tmp_path / "new" / "model"))
    assert again.classes == model.classes
    assert torch.equal(again(pixels), model(pixels))
    assert read_manifest(tmp_path / "new" / "model").experts[0].accuracy == 1.0

    with torch.no_grad():
        next(model.network.parameters()).mul_(1.5)  # trained further
    save_ex_model(model, tmp_path / "new" / "model")
    again = load_ex_model(tmp_path / "new" / "model")
    assert torch.equal(again(pixels), model(pixels))
    manifest = read_manifest(tmp_path / "new" / "model")
    assert manifest.experts[0].accuracy is None
    assert manifest.experts[0].training == {**model.manifest.experts[0].training, "saved_from_python": True}

    expert = load_expert(tmp_path / "new" / "model", manifest, 0)  # of another stream
    assert torch.equal(expert(manifest.input.normalize(pixels)), model(pixels))


def test_a_folder_of_other_experts_is_not_written_over(tmp_path):
    """`exml experts` of a Joint scenario, and `exml fit`, write one file of the very name that saving does."""
    manifest, folder = read_manifest(EXPERTS), tmp_path / "zoo"
    shutil.copytree(EXPERTS, folder)
    write_manifest(replace(manifest, experts=manifest.experts[:1]), folder)
    with pytest.raises(ExmlError, match="zoo is a folder of other experts: name another one"):
        save_ex_model(load_ex_model(EXPERTS, expert=1), folder)
    assert (folder / "expert_0.safetensors").read_bytes() == (EXPERTS / "expert_0.safetensors").read_bytes()


def test_which_one_is_to_be_loaded(tmp_path):
    with pytest.raises(ExmlError, match=r"has 5 experts; which of them\? give --expert K \(in Python expert=K\)"):
        load_ex_model(EXPERTS)
    with pytest.raises(ExmlError, match="there is no expert 5: give"):
        load_ex_model(EXPERTS, expert=5)
    save_ex_model(load_ex_model(EXPERTS, expert=0), tmp_path / "run" / "ex_model")
    with pytest.raises(ExmlError, match=r"run is a run folder: its ex-model is .*run/ex_model"):
        load_ex_model(tmp_path / "run")

    manifest = read_manifest(tmp_path / "run" / "ex_model")
    entry = manifest.experts[0]
    heads = tuple(replace(entry, classes=(entry.classes[k],), outputs=(entry.outputs[k],), task=k) for k in range(2))
    write_manifest(replace(manifest, experts=heads), tmp_path / "run" / "ex_model")
    assert load_ex_model(tmp_path / "run" / "ex_model", task=1).classes == ("4",)
    with pytest.raises(ExmlError, match="has 2 experts; there is no task 2: give"):
        load_ex_model(tmp_path / "run" / "ex_model", task=2)


def test_changed_weights_are_refused(tmp_path):
    save_ex_model(load_ex_model(EXPERTS, expert=0), tmp_path)
    shutil.copy(EXPERTS / "expert_1.safetensors", tmp_path / "expert_0.safetensors")
    with pytest.raises(ExmlError, match="has another hash"):
        load_ex_model(tmp_path)
