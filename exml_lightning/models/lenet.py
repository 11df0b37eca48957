"""LeNet5 for 32x32 images (LeCun et al. 1998), the paper's model for MNIST."""

from torch import Tensor, nn


class LeNet5(nn.Module):
    """Three 5x5 convolutions (6, 16, 120 channels) with tanh and average pooling, 84 hidden units, a classifier.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the input images, which are 32x32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(120, 84),
            nn.Tanh(),
        )
        self.classifier = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits.

        Args:
            images: Normalised images, ``(n, in_channels, 32, 32)``.

        Returns:
            Logits ``(n, num_classes)``.
        """
        logits: Tensor = self.classifier(self.features(images))
        return logits
