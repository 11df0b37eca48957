import pytest
import torch
import torch.nn.functional as F

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.priors import BatchNormStatistics
from exml_lightning.core.rng import keyed_generator


def generate(expert, n=6, **settings):
    return ModelInversion(**{"steps": 30, **settings}).generate(expert, n, keyed_generator("inversion"))


def test_images_get_the_class_they_were_meant_for(make_expert):
    expert = make_expert(classes=(1, 3, 4), outputs=(0, 2, 1))
    buffer = generate(expert, 9, steps=100, temperature=1.0)
    answers = expert.classes[expert(buffer.images).argmax(dim=1)]
    assert torch.equal(answers, buffer.labels)
    assert sorted(buffer.labels.tolist()) == [1, 1, 1, 3, 3, 3, 4, 4, 4]
    # only the expert's own classes compete: the labels are class indices, not output units
    assert expert(buffer.images).softmax(dim=1).amax(dim=1).min() > 0.9


def test_one_step_is_adam_on_the_loss_written_out(make_expert):
    expert = make_expert()
    settings = {"temperature": 2.0, "l2": 0.1, "blur": 0.2, "total_variation": 0.3, "lr": 0.05}
    buffer = generate(expert, 2, steps=1, **settings)
    draws = keyed_generator("inversion")
    columns = torch.randperm(2, generator=draws)
    start = torch.randn(2, 1, 8, 8, generator=draws).clamp(-0.6, 1.4).requires_grad_()
    padded = F.pad(start, (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).view(1, 1, 3, 3) / 16
    logits = expert.model(start)[:, [1, 3]]
    loss = -torch.log_softmax(logits / 2, dim=1)[torch.arange(2), columns].sum()
    loss = loss + 0.1 * (start**2).sum() + 0.2 * ((start - F.conv2d(padded, kernel)) ** 2).sum()
    loss = loss + 0.3 * ((start.diff(dim=2) ** 2).sum() + (start.diff(dim=3) ** 2).sum())
    (gradient,) = torch.autograd.grad(loss, start)
    # Adam's first step is lr * g / (|g| + eps)
    expected = (start - 0.05 * gradient / (gradient.abs() + 1e-8)).clamp(-0.6, 1.4)
    torch.testing.assert_close(buffer.images, expected.detach(), atol=2e-5, rtol=0)


def test_batch_norm_term_falls(make_expert):
    expert = make_expert(batch_norm=True)

    def distance(images):
        with torch.no_grad(), BatchNormStatistics(expert.model) as statistics:
            expert(images)
            return statistics.pop().item()

    without = distance(generate(expert, 32, batch_norm=0, l2=0, blur=0, steps=60).images)
    start = distance(generate(expert, 32, batch_norm=10, l2=0, blur=0, steps=1).images)
    pulled = distance(generate(expert, 32, batch_norm=10, l2=0, blur=0, steps=60).images)
    assert pulled < 0.5 * start
    assert pulled < 0.5 * without


def test_batch_norm_without_such_layers_is_refused(make_expert):
    with pytest.raises(ExmlError, match=r"buffer\.generator\.batch_norm is 1\.0, but .* has no batch-norm layer"):
        generate(make_expert(), 2, batch_norm=1.0)


def test_an_image_does_not_depend_on_those_beside_it(make_expert):
    # the same draws cut into batches of 2 or of 4: the same images
    expert = make_expert()
    together = generate(expert, 4, steps=8, batch_size=4).images
    torch.testing.assert_close(generate(expert, 4, steps=8, batch_size=2).images, together, atol=1e-4, rtol=0)


def test_expert_is_not_changed_and_gets_no_gradients(make_expert):
    expert = make_expert(batch_norm=True)
    before = {name: tensor.clone() for name, tensor in expert.state_dict().items()}
    generate(expert, batch_norm=1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in expert.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in expert.parameters())


def test_augmentation_is_part_of_the_optimisation(make_expert):
    expert = make_expert()
    plain = generate(expert)
    moved = generate(expert, augmentation=Augmentation(shift=0.2))
    assert torch.equal(plain.labels, moved.labels)
    assert not torch.allclose(plain.images, moved.images)


def test_one_class_is_learnable(make_expert):
    expert = make_expert(classes=(2,), outputs=(4,))
    noise, buffer = generate(expert, 5, steps=1), generate(expert, 5, steps=50)
    assert buffer.labels.tolist() == [2] * 5
    assert expert(buffer.images).mean() > expert(noise.images).mean() + 0.1


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"lr": 0}, {"temperature": 0}, {"temperature": -1}, {"batch_size": 0}, {"l2": -1}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ExmlError, match=next(iter(wrong))):
        ModelInversion(**wrong)
