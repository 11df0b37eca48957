"""Mixed precision: what is generated does not follow it, and training comes near to float32."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file

from exml_lightning.cli.main import main
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.rng import keyed_generator


@pytest.fixture
def fit(small_run, tmp_path):
    """Runs a fit in a precision; returns its checkpoint's buffer, its weights and its summary."""

    def run(name, *options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main([*small_run(name, data__n_iter=40, checkpoint__every_n_steps=0), *options])
        folder = tmp_path / name
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        summary = json.loads((folder / "summary.json").read_text())
        return saved["ExpertStream"]["buffer"], load_file(folder / "ex_model" / "expert_0.safetensors"), summary

    return run


def test_bf16_trains_on_the_same_images_and_comes_near_to_float32(fit):
    whole, exact, _ = fit("exact", "--trainer.precision", "32-true")
    same, mixed, _ = fit("mixed", "--trainer.precision", "bf16-mixed")
    assert all(torch.equal(whole[column], same[column]) for column in whole)
    assert {tensor.dtype for tensor in mixed.values()} == {torch.float32}
    apart = max(float((exact[name] - mixed[name]).abs().max()) for name in exact)
    assert 0 < apart < 0.02  # it was done in another precision, of which 8 bits are left


def test_16_mixed_on_a_cpu_is_bf16_and_says_so(small_run, tmp_path):
    with pytest.warns(UserWarning, match="Using `precision='bf16-mixed'` instead"):
        main([*small_run(trainer__max_epochs=1), "--trainer.precision", "16-mixed"])
    state = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["callbacks"]["SameSettings"]["settings"]["trainer.precision"] == "bf16-mixed"


def test_images_are_made_in_bf16_if_that_is_asked_for(make_expert):
    def made(precision, steps=20):
        generator = ModelInversion(steps=steps, l2=0.0, blur=0.0, precision=precision)
        return generator.generate(make_expert(), 8, keyed_generator("precision"))

    exact, mixed = made("32-true"), made("bf16-mixed")
    assert mixed.images.dtype == torch.float32
    assert torch.equal(exact.labels, mixed.labels)
    assert not torch.equal(exact.images, mixed.images)
    expert = make_expert()
    right = (expert.classes[expert(mixed.images).argmax(dim=1)] == mixed.labels).float().mean()
    assert right == 1


def test_an_ambient_autocast_changes_no_image(make_expert):
    generator = ModelInversion(steps=5)
    alone = generator.generate(make_expert(), 4, keyed_generator("ambient"))
    with torch.autocast("cpu", torch.bfloat16):
        inside = generator.generate(make_expert(), 4, keyed_generator("ambient"))
    assert torch.equal(alone.images, inside.images)
