"""The scenarios: what every system is asked to do, in words that all of them share."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

KIB = 1024
MIB = 1024 * KIB

WINDOW = 1_000
"""Messages under way where each is acknowledged on its own."""

KEYS = tuple(f"key-{number}" for number in range(64))
"""What the messages of the keyed stream take turns in."""

CALLS_AT_ONCE = 64


class Better(Enum):
    """Which way is better."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing to do.

    Attributes:
        key: what it is called on a command line and in JSON.
        title: what it is called in a table.
        unit: of what is measured.
        better: which way is better.
        body_bytes: the length of each body.
        seconds: how long to produce; what was produced is then waited for.
        count: bodies to produce instead, where it is not 0.
        receivers: consumers, each in a process of its own.
        broadcast: whether each receiver gets all, so that deliveries are counted.
    """

    key: str
    title: str
    unit: str = "/s"
    better: Better = Better.HIGHER
    body_bytes: int = 100
    seconds: float = 0.4
    count: int = 0
    receivers: int = 1
    broadcast: bool = False

    @property
    def copies(self) -> int:
        """Return how many deliveries come of one body."""
        return self.receivers if self.broadcast else 1

    @property
    def is_shared(self) -> bool:
        """Tell whether several receivers share what is sent."""
        return self.receivers > 1 and not self.broadcast

    def load(self) -> Iterator[bytes]:
        """Yield bodies until the time is over, or so many; at least one."""
        body = bytes(self.body_bytes)
        if self.count:
            for _ in range(self.count):
                yield body
            return
        clock = time.perf_counter
        until = clock() + self.seconds
        yield body
        while clock() < until:
            yield body

    def value(self, count: int, seconds: float) -> float:
        """Return what so many deliveries in so many seconds are in the unit."""
        per_second = count / seconds
        return per_second * self.body_bytes / MIB if self.unit == "MiB/s" else per_second


STREAM = Scenario("stream", "one-way stream")
ACKED = Scenario("acked", "acked stream")
ACKED_ONE_WAY = Scenario("acked-one-way", "acked stream, beside bare one-way")
ACKED_1K = Scenario("acked-1k", "acked stream of 1 KiB, beside bare one-way", body_bytes=KIB)
KEYED = Scenario("keyed", "keyed acked stream, a handler")
CALL = Scenario("call", "call, one at a time, p50", unit="us", better=Better.LOWER)
CALLS = Scenario("calls", "calls, 64 at a time")
PUBLISH_8 = Scenario("publish-8", "publish to 8, deliveries", receivers=8, broadcast=True)
PUBLISH_64 = Scenario("publish-64", "publish to 64, deliveries", receivers=64, broadcast=True)
QUEUE = Scenario("queue", "work queue, 4 consumers", receivers=4)
DURABLE = Scenario("durable", "durable stream, beside bare acked")
LARGE = Scenario("large", "bodies of 1 MiB", unit="MiB/s", body_bytes=MIB)
BULK = Scenario(
    "bulk", "a stream of 100 MiB", unit="MiB/s", body_bytes=64 * KIB, count=100 * MIB // (64 * KIB)
)
START = Scenario("start", "start to first answer", unit="ms", better=Better.LOWER)
MEMORY = Scenario("memory", "memory of one more idle peer", unit="KiB", better=Better.LOWER)

SCENARIOS = (
    STREAM, ACKED, ACKED_ONE_WAY, ACKED_1K, KEYED, CALL, CALLS, PUBLISH_8, PUBLISH_64, QUEUE,
    DURABLE, LARGE, BULK, START, MEMORY,
)  # fmt: skip

ENCRYPTED = (ACKED, ACKED_ONE_WAY, CALL, CALLS, PUBLISH_8, LARGE, BULK, START)
"""Those that are measured encrypted as well, where a system can."""

FEW_PEERS, MORE_PEERS = 8, 32
"""How many are idle when memory is looked at first, and how many more then."""

END = b"end"
"""The last message of a stream whose sender learns nothing: no other body is so short."""
