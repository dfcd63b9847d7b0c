"""What the core must not reach for itself: randomness."""

import os
import random


class SystemEntropy:
    """Tokens from the operating system, which nobody may guess; jitter and the like for less."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311  # of times and choices, never of secrets

    def token(self, size: int, /) -> bytes:
        """Return `size` unpredictable bytes."""
        return os.urandom(size)

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float in `[low, high]`."""
        return self._random.uniform(low, high)
