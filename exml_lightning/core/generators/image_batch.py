"""Images that are optimised together, some of which are finished before others."""

import torch
from torch import Tensor


class ImageBatch:
    """Images, the state of Adam for each of them, and the rows they belong to.

    Args:
        images: What to start from, ``(n, channels, height, width)``; changed in place.
        rows: Their places among all images to make, int64 ``(n,)``, on the CPU.
        lr: Learning rate of Adam.

    Attributes:
        images: Those that are not finished, in need of gradients.
        rows: Their places, on the CPU.
        places: The same on the device of the images.
    """

    def __init__(self, images: Tensor, rows: Tensor, lr: float) -> None:
        self._made, self._first = torch.empty_like(images), int(rows[0])
        self._adam(images, lr)
        self._at(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def step(self, gradient: Tensor, low: Tensor, high: Tensor) -> None:
        """Make a step of Adam, and keep values between `low` and `high`, ``(channels, 1, 1)``."""
        self.images.grad = gradient.contiguous()  # fused Adam takes another memory format for other pixels
        self._optimizer.step()
        self.images.data.clamp_(low, high)

    def finish(self, done: Tensor) -> None:
        """Let the images `done`, bool ``(n,)``, be as they are."""
        if not done.any():
            return
        self._keep(done)
        (group,), state = self._optimizer.param_groups, self._optimizer.state[self.images]
        stay = ~done
        self._adam(self.images.detach()[stay], group["lr"])
        self._optimizer.state[self.images] = {
            name: value[stay] if value.shape[:1] == done.shape else value for name, value in state.items()
        }
        self._at(self.rows[stay.cpu()])

    def finish_all(self) -> Tensor:
        """Return all images, in the order they were given in."""
        self._keep(torch.ones(len(self), dtype=torch.bool, device=self.images.device))
        return self._made

    def _keep(self, done: Tensor) -> None:
        self._made[self.places[done] - self._first] = self.images.detach()[done]

    def _adam(self, images: Tensor, lr: float) -> None:
        self.images = images.requires_grad_()
        self._optimizer = torch.optim.Adam([self.images], lr=lr, fused=True)

    def _at(self, rows: Tensor) -> None:
        self.rows, self.places = rows, rows.to(self.images.device)
