"""MobileNetV2 (Sandler et al. 2018), the paper's model for CORe50 (Section 5)."""

import torchvision
from torchvision.models import MobileNet_V2_Weights

from exml_lightning.core.errors import ExmlError


class MobileNetV2(torchvision.models.MobileNetV2):  # type: ignore[misc]  # torchvision has no types
    """torchvision's MobileNetV2: its features, dropout of 0.2 and one linear layer (``classifier.1``).

    Takes normalised images ``(n, 3, height, width)`` of any size from 32x32 and returns logits ``(n, num_classes)``.

    Args:
        num_classes: Number of logits.
        weights: Pretrained weights of the features, by their name in ``torchvision.models.MobileNet_V2_Weights``, for
            instance ``IMAGENET1K_V1``: torchvision downloads them and checks their hash. The classifier is always
            new. None draws all weights.

    Raises:
        ExmlError: If there are no such weights, or they could not be fetched.
    """

    def __init__(self, num_classes: int = 10, weights: str | None = None) -> None:
        names = list(MobileNet_V2_Weights.__members__)
        if weights is not None and weights not in names:
            raise ExmlError(f"MobileNetV2 has no weights {weights!r}: give one of {', '.join(names)}, or null")
        super().__init__(num_classes=num_classes)
        if weights is None:
            return
        try:
            state = MobileNet_V2_Weights[weights].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network; a wrong hash
            raise ExmlError(
                f"the weights {weights} of MobileNetV2 could not be fetched ({error}): put the file into torch's cache "
                f"({MobileNet_V2_Weights[weights].url}), or do without: weights: null "
                "(-c configs/models/mobilenetv2_random.yaml)"
            ) from error
        prefix = "features."
        self.features.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        )
