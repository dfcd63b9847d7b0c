"""Virtual time: one queue of what will happen, a clock for each host, and seeded randomness."""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any


class EventQueue:
    """What will happen, by virtual time; what is due together keeps the order it was asked in."""

    __slots__ = ("_heap", "_order", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_at(self) -> float | None:
        """When the next thing happens, or None where nothing will."""
        return self._heap[0][0] if self._heap else None

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action(*arguments)` happen at virtual second `when`, at the earliest now."""
        self._order += 1
        heappush(self._heap, (max(when, self.now), self._order, action, arguments))

    def after(self, delay: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action(*arguments)` happen `delay` virtual seconds from now."""
        self.at(self.now + delay, action, *arguments)

    def step(self) -> bool:
        """Let the next thing happen; False where nothing is left to."""
        if not self._heap:
            return False
        self.now, _, action, arguments = heappop(self._heap)
        action(*arguments)
        return True


class HostClock:
    """A host's monotonic clock: its own zero, its own rate, standing still while suspended.

    Hosts never see the queue's time, so nothing can come to depend on clocks that agree.
    """

    __slots__ = ("_base", "_local", "_queue", "rate")

    def __init__(self, queue: EventQueue, rate: float = 1.0, zero: float = 0.0) -> None:
        self._queue = queue
        self._base = queue.now
        self._local = zero
        self.rate = rate

    def read(self) -> float:
        """Return the local time in seconds."""
        return self._local + max(0.0, self._queue.now - self._base) * self.rate

    def when(self, local: float) -> float:
        """Return the queue's time at which this clock will read `local`."""
        return self._base + max(0.0, local - self._local) / self.rate

    def suspend(self, seconds: float) -> None:
        """Stand still for `seconds` of the queue's time, as `CLOCK_MONOTONIC` does in suspend."""
        self._local = self.read()
        self._base = max(self._base, self._queue.now) + seconds


class SeededEntropy:
    """`ids.Entropy` that repeats itself: the randomness of one simulated host."""

    __slots__ = ("_random",)

    def __init__(self, seed: str) -> None:
        self._random = Random(seed)  # noqa: S311  repeatable is the point

    def token(self, size: int, /) -> bytes:
        """Return `size` bytes."""
        return self._random.randbytes(size)

    def uniform(self, low: float, high: float, /) -> float:
        """Return a float in `[low, high]`."""
        return self._random.uniform(low, high)
