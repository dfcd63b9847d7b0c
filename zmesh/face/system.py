"""What the core must not reach for itself: randomness."""

import os
import random


class SystemEntropy:
    """Randomness from the operating system, for everything another node may not guess."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def token(self, size: int, /) -> bytes:
        """Return `size` unpredictable bytes."""
        return os.urandom(size)

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float in `[low, high]`."""
        return self._random.uniform(low, high)
