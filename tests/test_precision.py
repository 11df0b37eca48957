"""Mixed precision: what is generated does not follow it, and training comes near to float32."""

import pytest
import torch
from safetensors.torch import load_file

from exml_lightning.cli.main import main
from exml_lightning.core.distillation import Distillation
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.rng import keyed_generator


def saved(run):
    """Return the last checkpoint of a run, and its weights."""
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint, load_file(run / "ex_model" / "expert_0.safetensors")


def test_bf16_trains_on_the_same_images_and_comes_near_to_float32(finished_run, small_run, tmp_path, monkeypatch):
    """Targets are merged in full: logits of hundreds, and their squares, have no room in 16 bits."""
    seen = set()
    original = Distillation.__call__

    def watched(self, logits, answers, *others):
        seen.add((torch.is_autocast_enabled("cpu"), logits.dtype, answers.expert.dtype, answers.previous.dtype))
        return original(self, logits, answers, *others)

    monkeypatch.setattr(Distillation, "__call__", watched)
    words = [*small_run("mixed"), "--trainer.precision", "16-mixed", "--trainer.accelerator", "cpu"]
    with pytest.warns(UserWarning, match="Using `precision='bf16-mixed'` instead"):
        main(words)
    assert seen == {(False, torch.float32, torch.float32, torch.float32)}
    (whole, exact), (same, mixed) = saved(finished_run), saved(tmp_path / "mixed")
    assert same["callbacks"]["SameSettings"]["settings"]["trainer.precision"] == "bf16-mixed"
    whole, same = (checkpoint["ExpertStream"]["buffer"] for checkpoint in (whole, same))
    assert all(torch.equal(whole[column], same[column]) for column in whole)
    assert {tensor.dtype for tensor in mixed.values()} == {torch.float32}
    apart = max(float((exact[name] - mixed[name]).abs().max()) for name in exact)
    assert 0 < apart < 0.02  # it was done in another precision, of which 8 bits are left


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
