"""Randomness for the discovery tests: fixed, so that every time in them can be literal."""

from dataclasses import dataclass
from random import Random


@dataclass(slots=True)
class FixedEntropy:
    """Always the same place between low and high: 1.0 is the longest wait there is."""

    place: float = 1.0

    def token(self, size: int, /) -> bytes:
        return bytes(size)

    def uniform(self, low: float, high: float, /) -> float:
        return low + self.place * (high - low)


class SeededEntropy:
    """Any place, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def token(self, size: int, /) -> bytes:
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float, /) -> float:
        return self._random.uniform(low, high)
