from dataclasses import replace

import pytest
import torch

from exml_lightning.core.agreement import agreement
from exml_lightning.core.buffer import Buffer, update_buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator

FORMAT = ImageFormat((1, 1, 1), (0.0,), (1.0,))


def samples(answers, experiences, tasks=None):
    n = len(answers)
    images = torch.arange(n, dtype=torch.float32).view(n, 1, 1, 1)
    tasks = torch.zeros(n, dtype=torch.long) if tasks is None else torch.tensor(tasks)
    return Buffer(images, torch.zeros(n, dtype=torch.long), tasks, torch.tensor(experiences), torch.tensor(answers))


def test_agreement_is_counted_for_each_expert_by_itself():
    buffer = samples([2, 1, 0, 2, 1], [0, 0, 3, 3, 3])
    guesses = torch.tensor([2, 0, 0, 2, 2])  # right: 1 of 2, then 2 of 3

    def predict(images, tasks):
        rows = images.flatten().long()
        return torch.nn.functional.one_hot(guesses[rows], 3).float()

    assert agreement(predict, buffer, FORMAT) == pytest.approx([1 / 2, 2 / 3])
    pixels = replace(buffer, images=buffer.images.byte())
    found = agreement(lambda images, tasks: predict(images * 255, tasks), pixels, FORMAT)
    assert found == pytest.approx([1 / 2, 2 / 3])


def test_the_task_of_each_sample_is_told():
    buffer = samples([0, 1], [0, 1], tasks=[4, 6])

    def predict(images, tasks):
        assert tasks.tolist() == [4, 6]
        return torch.eye(2)

    assert agreement(predict, buffer, FORMAT) == [1.0, 1.0]


def test_answers_stay_with_their_samples_when_the_buffer_is_subsampled():
    old = samples(list(range(10)), [0] * 10)
    new = samples([20, 21], [1, 1])
    joined = update_buffer(old, new, 6, keyed_generator("subsample"), FORMAT)
    assert joined.answers is not None
    assert joined.answers[:4].tolist() == joined.images[:4].flatten().long().tolist()
    assert joined.answers[4:].tolist() == [20, 21]
    assert joined.state_dict().keys() == {"images", "labels", "tasks", "experiences", "answers"}
    assert torch.equal(Buffer(**joined.state_dict()).answers, joined.answers)
