import pytest
import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import DataImpression, ModelInversion
from exml_lightning.core.generators.generator import no_progress
from exml_lightning.core.generators.image_batch import ImageBatch
from exml_lightning.core.generators.optimised import LOOK_EVERY
from exml_lightning.core.rng import keyed_generator

STEPS = 4 * LOOK_EVERY


def generate(expert, progress=no_progress, kind=ModelInversion, **settings):
    generator = kind(steps=STEPS, lr=0.02, augmentation=Augmentation(0.1, 10), **settings)
    return generator.generate(expert, 11, keyed_generator("confidence"), progress)


def test_each_image_is_as_it_was_when_the_expert_was_sure(make_expert):
    """Without augmentation nothing but the number of steps differs from image to image."""
    expert = make_expert()

    def made(steps, confidence=None):
        generator = ModelInversion(steps=steps, lr=0.02, confidence=confidence, batch_size=4)
        return generator.generate(expert, 11, keyed_generator("confidence"))

    stages = [made(steps) for steps in range(LOOK_EVERY, STEPS + 1, LOOK_EVERY)]
    found = made(STEPS, 0.9)
    columns = (found.labels == 3).long()
    # what is looked at is the answer of the step, to the images before it
    looks = [made(steps - 1) for steps in range(LOOK_EVERY, STEPS + 1, LOOK_EVERY)]
    sure = torch.stack([expert(look.images).softmax(dim=1)[torch.arange(11), columns] > 0.9 for look in looks])
    first = torch.where(sure.any(dim=0), sure.int().argmax(dim=0), len(stages) - 1)
    assert len(first.unique()) > 1  # they leave at different times
    expected = torch.stack([stages[stage].images[i] for i, stage in enumerate(first.tolist())])
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [ModelInversion, DataImpression])
def test_progress_ends_at_the_number_of_images(make_expert, kind):
    expert, done = make_expert(), []
    expert.classifier = next(name for name, layer in expert.model.named_modules() if hasattr(layer, "out_features"))

    def progress(images, confidence=None):
        done.append((images, confidence and confidence()))

    samples = generate(expert, progress=progress, kind=kind, confidence=0.6, batch_size=4)
    assert sum(images for images, _ in done) == pytest.approx(11)
    assert samples.images.isfinite().all()


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 99])
def test_what_is_no_probability_is_refused(confidence):
    with pytest.raises(ExmlError, match=f"confidence is {confidence}"):
        ModelInversion(confidence=confidence)


def test_images_that_stay_keep_their_adam_state():
    start, low, high = torch.zeros(3, 1, 1, 1), torch.tensor(-9.0), torch.tensor(9.0)
    batch, alone = ImageBatch(start.clone(), torch.arange(4, 7), 0.1), ImageBatch(start.clone(), torch.arange(3), 0.1)
    gradients = [torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1, 1), torch.tensor([-1.0, 5.0, 1.0]).view(3, 1, 1, 1)]
    for each in (batch, alone):
        each.step(gradients[0], low, high)
    batch.finish(torch.tensor([False, True, False]))
    assert batch.rows.tolist() == [4, 6]
    batch.step(gradients[1][[0, 2]], low, high)
    left = alone.images.detach()[1].clone()
    alone.step(gradients[1], low, high)
    made = batch.finish_all()
    assert torch.equal(made[1], left)
    torch.testing.assert_close(made[[0, 2]], alone.finish_all()[[0, 2]])


def test_a_gradient_in_another_memory_format_is_the_same_gradient():
    start, low, high = torch.zeros(2, 3, 4, 5), torch.tensor(-9.0), torch.tensor(9.0)
    gradient = torch.arange(120.0).view(2, 3, 4, 5) - 60.5
    batch = ImageBatch(start, torch.arange(2), 0.1)
    batch.step(gradient.to(memory_format=torch.channels_last), low, high)
    torch.testing.assert_close(batch.finish_all(), -0.1 * gradient.sign(), rtol=1e-5, atol=0)
