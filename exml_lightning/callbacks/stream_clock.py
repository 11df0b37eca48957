"""`StreamClock`: what the images and steps of a stream have taken so far, and how long the rest will take."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class StreamClock:
    """Counts the images generated and the steps distilled, and the seconds they took.

    Args:
        shares: The images that are generated from each expert.
        steps: The steps of each expert.
        images: Images generated so far.
        seconds_generating: The time they took.
        distilled: Steps distilled so far.
        seconds_distilling: The time they took, but for those under way.
        newest_generating: The time that the images of the newest expert took.
        newest_asking: The time that asking teachers took before the steps of the newest expert.
    """

    shares: Sequence[int] = ()
    steps: int = 0
    images: float = 0.0
    seconds_generating: float = 0.0
    distilled: int = 0
    seconds_distilling: float = 0.0
    newest_generating: float = 0.0
    newest_asking: float = 0.0
    _since: float | None = field(default=None, init=False)

    def start(self) -> None:
        """Distilling begins: teachers are asked, then steps are done."""
        self._since = time.monotonic()

    def stop(self) -> None:
        """Steps end, or pause: measuring accuracy does not count."""
        self.seconds_distilling, self._since = self.all_distilling, None

    @property
    def all_distilling(self) -> float:
        """Seconds that steps took, those under way included."""
        return self.seconds_distilling + self.under_way

    @property
    def under_way(self) -> float:
        """Seconds since `start`; 0 if nothing is distilled."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def while_generating(self, images: float, seconds: float) -> float | None:
        """Guess the seconds left while images are made; None as long as nothing is known of images or of steps.

        So many `images` of the expert at hand, which are not counted yet, took so many `seconds`.
        """
        seconds, images = self.seconds_generating + seconds, self.images + images
        return self._left(seconds, images, sum(self.shares) - images)

    def while_distilling(self) -> float | None:
        """Guess the time left while steps are done; see `while_generating`."""
        return self._left(self.seconds_generating, self.images, sum(self.shares) - self.images)

    def _left(self, seconds_generating: float, images: float, images_left: float) -> float | None:
        generating = _time(seconds_generating, images, images_left)
        distilling = _time(self.all_distilling, self.distilled, self.steps * len(self.shares) - self.distilled)
        return None if generating is None or distilling is None else generating + distilling


def _time(seconds: float, done: float, still: float) -> float | None:
    """What work takes by what other work took; nothing takes no time."""
    if still <= 0:
        return 0.0
    return seconds / done * still if done else None
