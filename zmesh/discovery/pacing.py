"""Pacing: news by key, looked at no faster than allowed; of a key only the latest counts. Pure."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from zmesh.deadlines import Deadlines
from zmesh.options import DiscoveryOptions

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Pacer(Generic[K, V]):
    """Holds news until there is time for it: a rate with bursts over all, and a gap within a key.

    The rate is the leaky bucket of ITU-T I.371 (GCRA), which needs one number and no refilling.

    A key that chatters costs one look a gap, whatever it says; a flood of keys costs
    `records_per_second` looks. Nothing is lost but what finds `records_max` keys waiting.
    """

    def __init__(self, options: DiscoveryOptions, now: float) -> None:
        self._options = options
        self._waiting: dict[K, V] = {}
        self._agenda: Deadlines[K] = Deadlines()
        self._ready: dict[K, None] = {}
        self._looked: dict[K, float] = {}  # within the last gap, oldest first
        self._step = 1.0 / options.records_per_second
        self._tolerance = (options.records_burst - 1) * self._step
        self._busy_until = now  # if every look took its step
        self.refused = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: K, news: V, now: float) -> None:
        """Take in news, which replace older news of the same key."""
        if key not in self._waiting:
            if len(self._waiting) >= self._options.records_max:
                self.refused += 1
                return
            looked = self._looked.get(key)
            self._agenda.set(key, now if looked is None else looked + self._options.record_gap)
        self._waiting[key] = news

    def take(self, now: float) -> tuple[K, V] | None:
        """Return news to look at now, or None: see `deadline`."""
        self._ready.update(dict.fromkeys(self._agenda.due(now)))
        if not self._ready or now < self._busy_until - self._tolerance:
            return None
        self._busy_until = max(self._busy_until, now) + self._step
        self._forget(now)
        key = next(iter(self._ready))
        del self._ready[key]
        self._looked.pop(key, None)
        self._looked[key] = now
        return key, self._waiting.pop(key)

    @property
    def deadline(self) -> float | None:
        """When `take` may have something, in seconds; None: when news come."""
        if not self._waiting:
            return None
        free = self._busy_until - self._tolerance
        if self._ready or self._agenda.next is None:
            return free
        return max(free, self._agenda.next)

    def _forget(self, now: float) -> None:
        while self._looked:
            oldest = next(iter(self._looked))
            if self._looked[oldest] + self._options.record_gap > now:
                break
            del self._looked[oldest]
