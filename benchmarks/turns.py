"""What the durable benchmarks share: measures that take turns, and the shape of one."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

END = b"end"
"""The last message to a consumer, which says so once it has acknowledged it."""

Rates = Mapping[str, float]
"""Messages per second by what was measured: one measurement may tell several."""

Measure = Callable[[bytes, float], Rates]
"""Called with a body and for how many seconds to produce."""


def fresh_name() -> str:
    """Return a name that nothing has yet."""
    return f"bench-{os.urandom(6).hex()}"


def for_seconds(seconds: float) -> Iterator[None]:
    """Yield again and again until so many seconds are over, at least once."""
    until = time.perf_counter() + seconds
    yield
    while time.perf_counter() < until:
        yield


def best_of(sizes: Sequence[int], measure: Callable[[int], float]) -> int:
    """Return the size with the highest rate of two turns: a disk has slow moments."""
    turns = [[measure(size) for size in sizes] for _ in range(2)]
    rates = map(max, *turns)
    return max(zip(rates, sizes, strict=True))[1]
