"""`StreamClock`: how long the rest of a stream will take, by what its images and steps have taken so far."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class StreamClock:
    """Counts the images generated and the steps distilled, and the seconds they took.

    Args:
        shares: The images that are generated from each expert.
        steps: The steps of each expert.
        images: Images generated so far.
        seconds_generating: The time they took.
        distilled: Steps distilled so far.
        seconds_distilling: The time they took.
        newest_generating: The time that the images of the newest expert took.
    """

    shares: Sequence[int]
    steps: int
    images: float = 0.0
    seconds_generating: float = 0.0
    distilled: int = 0
    seconds_distilling: float = 0.0
    newest_generating: float = 0.0

    def while_generating(self, experience: int, images: float, seconds: float) -> float | None:
        """Guess the time left while images are made.

        Args:
            experience: The expert at hand, from 0.
            images: How many of its images are made, which are not counted yet.
            seconds: The time they took.

        Returns:
            Seconds; None as long as nothing is known of images or of steps.
        """
        steps = self.steps * (len(self.shares) - experience)
        return _sum(
            _time(self.seconds_generating + seconds, self.images + images, sum(self.shares[experience:]) - images),
            _time(self.seconds_distilling, self.distilled, steps),
        )

    def while_distilling(self, experience: int, before: int, steps: int, seconds: float) -> float | None:
        """Guess the time left while steps are done.

        Args:
            experience: The expert at hand, from 0.
            before: Its steps that were done before a resume.
            steps: Its steps since, which are not counted yet.
            seconds: The time they took.

        Returns:
            Seconds; None as long as nothing is known of images or of steps.
        """
        still = self.steps * (len(self.shares) - experience) - before - steps
        return _sum(
            _time(self.seconds_generating, self.images, sum(self.shares[experience + 1 :])),
            _time(self.seconds_distilling + seconds, self.distilled + steps, still),
        )


def _time(seconds: float, done: float, still: float) -> float | None:
    """What work takes by what other work took; nothing takes no time."""
    if still <= 0:
        return 0.0
    return seconds / done * still if done else None


def _sum(generating: float | None, distilling: float | None) -> float | None:
    return None if generating is None or distilling is None else generating + distilling
