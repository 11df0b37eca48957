from collections import Counter
from dataclasses import replace

import pytest
import torch

from exml_lightning.core.buffer import NOBODY, Buffer, quotas, update_buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator

FORMAT = ImageFormat((1, 2, 2), (0.25,), (0.5,))


def samples(experience: int, n: int) -> Buffer:
    ids = torch.arange(n) + 10_000 * experience
    return Buffer(
        ids.float().view(n, 1, 1, 1).expand(n, 1, 2, 2).clone(),
        torch.full((n,), experience),
        torch.zeros(n, dtype=torch.long),
        torch.full((n,), experience),
    )


@pytest.mark.parametrize("size", [7, 10, 60, 5000])
def test_the_buffer_stays_full_and_balanced(size):
    buffer = None
    for i in range(7):
        new = samples(i, size // (i + 1))
        buffer = update_buffer(buffer, new, size, keyed_generator("subsample", i), FORMAT)
        assert len(buffer) == size
        counts = Counter(buffer.experiences.tolist())
        assert counts[i] == size // (i + 1)
        earlier = [counts[e] for e in range(i)]
        if earlier:
            assert max(earlier) - min(earlier) <= 1
        # each row still belongs together, and no sample is there twice
        assert len(set(buffer.images[:, 0, 0, 0].tolist())) == size
        assert torch.equal(buffer.images[:, 0, 0, 0].div(10_000).floor().long(), buffer.experiences)


def test_pixels_beside_normalised_images_are_normalised():
    pixels, floats = samples(0, 3), samples(1, 2)
    old = replace(pixels, images=pixels.images.byte())
    joined = update_buffer(old, floats, 5, keyed_generator("subsample"), FORMAT)
    expected = torch.cat([(pixels.images / 255 - 0.25) / 0.5, floats.images])
    torch.testing.assert_close(joined.images, expected)
    same = update_buffer(old, replace(floats, images=floats.images.byte()), 5, keyed_generator("subsample"), FORMAT)
    assert same.images.dtype == torch.uint8


def test_quotas_fill_small_groups_and_share_the_rest():
    assert quotas([5, 5, 5], 7) in ([3, 2, 2], [2, 3, 2], [2, 2, 3])
    assert quotas([1, 9, 9], 9) == [1, 4, 4]
    assert quotas([2, 0], 2) == [2, 0]


def test_columns_that_are_there_go_everywhere_together():
    plain = samples(1, 4)
    assert list(plain.columns()) == ["images", "labels", "tasks", "experiences"]
    whole = replace(plain, targets=torch.arange(12.0).view(4, 3))
    rows = torch.tensor([3, 1])
    joined = Buffer.cat([whole, whole[rows]])
    assert list(joined.state_dict()) == ["images", "labels", "tasks", "experiences", "targets"]
    assert joined.targets[4:].tolist() == [[9, 10, 11], [3, 4, 5]]
    assert Buffer(**joined.state_dict()).to(torch.device("cpu")).images.equal(joined.images)


def test_samples_of_nobody_keep_a_sixth_of_the_places():
    buffer = replace(samples(0, 60), experiences=torch.full((60,), NOBODY))
    for i in range(4):
        buffer = update_buffer(buffer, samples(i, 50 // (i + 1)), 60, keyed_generator("subsample", i), FORMAT)
        counts = Counter(buffer.experiences.tolist())
        assert counts.pop(NOBODY) == 10
        assert sum(counts.values()) == 50
        assert max(counts.values()) - min(counts.values()) <= 1


def test_samples_of_nobody_make_room_for_as_many_as_come():
    """Where the first expert brings none, a later one's take the places of drawings alone."""
    buffer = replace(samples(0, 60), experiences=torch.full((60,), NOBODY))
    buffer = update_buffer(buffer, samples(3, 7), 60, keyed_generator("subsample"), FORMAT)
    assert Counter(buffer.experiences.tolist()) == {NOBODY: 53, 3: 7}
    buffer = update_buffer(buffer, samples(4, 6), 60, keyed_generator("subsample"), FORMAT)
    assert Counter(buffer.experiences.tolist()) == {NOBODY: 47, 3: 7, 4: 6}
