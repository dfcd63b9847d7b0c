"""Patience with others while this node itself is late. Pure.

A loop that runs late sees answers late, and on a crowded machine it is not the only one. Who then
gives up too soon begins the same work again, for all others to wait for: the more nodes start
together, the less is finished. So waits grow with the lateness, and less is begun at once.
After Dadgar et al., "Lifeguard", 2017, as in the failure detector.
"""

from typing import Final

FACTOR_MAX: Final = 8.0
HALF_LIFE_S: Final = 5.0
"""What a late loop adds is gone some 30 s after the loop keeps time again."""


class Patience:
    """How many times as long as usual to wait for others: 1 to 8."""

    __slots__ = ("_as_of", "_factor")

    def __init__(self) -> None:
        self._factor = 1.0
        self._as_of = 0.0

    def on_loop_late(self, lag: float, now: float) -> None:
        """Note that this node's loop ran `lag` seconds late."""
        self._factor = min(self.factor(now) + lag, FACTOR_MAX)
        self._as_of = now

    def factor(self, now: float) -> float:
        """Return how many times as long to wait as usual."""
        if self._factor == 1.0:
            return 1.0
        halvings = (now - self._as_of) / HALF_LIFE_S
        return 1.0 + (self._factor - 1.0) * float(0.5**halvings)

    def at_once(self, most: int, now: float) -> int:
        """Return how many things to have under way that may be `most` at other times."""
        factor = self.factor(now)
        return max(1, int(most / (factor * factor)))
