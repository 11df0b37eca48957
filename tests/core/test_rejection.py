import torch

from exml_lightning.core.rejection import none_of_these, rejection_threshold
from exml_lightning.core.rng import keyed_generator


def test_one_more_class_of_logit_0_and_the_hundredth_least_sure_of_own_images():
    logits = 3 * torch.randn(1000, 4, generator=keyed_generator("logits"))
    expected = torch.cat([logits, torch.zeros(1000, 1)], dim=1).softmax(dim=1)[:, 4]
    torch.testing.assert_close(none_of_these(logits), expected)
    threshold = rejection_threshold(logits)
    assert int((expected > threshold).sum()) == 10
    assert 0 < threshold < 1
