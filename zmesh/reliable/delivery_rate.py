"""How fast the peer takes bytes, and so how many may be on the way to it at once.

The estimate follows draft-cheng-iccrg-delivery-rate-estimation, which feeds BBR. TCP below does
the congestion control; this only keeps what waits in its buffers short, so that a control frame
is never behind megabytes of data.
"""

from collections import deque
from typing import Final, NamedTuple

from zmesh.reliable.round_trip import RoundTrip

SLOT_S: Final = 0.5
SLOTS: Final = 10
"""The best rate of the last 10 slots counts: 5 s outlive a pause of the application, and are not
much to wait for when the network became slower."""

GAIN: Final = 2
"""Bandwidth-delay products in flight: room to find out that the path carries more (as in BBR)."""

ELAPSED_MIN_S: Final = 1e-6
"""Shorter times are the clock's grain, not a measurement."""


class Snapshot(NamedTuple):
    """The state of the path when a packet was sent; to be kept with the packet."""

    sent_at: float
    first_sent_at: float
    delivered_bytes: int
    delivered_at: float


class DeliveryRate:
    """Bytes a second that reach the peer, over the best of the last seconds, for one link.

    A sample is the bytes acknowledged since a packet was sent, over the time it took to send or
    to acknowledge them, whichever was longer: compressed or bunched ACKs cannot inflate it. Times
    when the application has little to send lower it to what is sent, which does no harm: from the
    floor of `in_flight_max` it doubles with every round trip.
    """

    __slots__ = (
        "_best", "_delivered_at", "_delivered_bytes", "_first_sent_at", "in_flight_bytes",
    )  # fmt: skip

    def __init__(self) -> None:
        self.in_flight_bytes = 0
        self._delivered_bytes = 0
        self._delivered_at = 0.0
        self._first_sent_at = 0.0
        # (slot, rate), slots rising and rates falling: the first is the maximum
        self._best: deque[tuple[int, float]] = deque()

    @property
    def bytes_per_s(self) -> float:
        """The estimate; 0.0 before the first sample."""
        return self._best[0][1] if self._best else 0.0

    def on_sent(self, size: int, now: float) -> Snapshot:
        """Note that a packet of `size` bytes was sent; return what `on_acked` needs of it."""
        if self.in_flight_bytes == 0:
            # The path was idle: the time until now says nothing about it.
            self._first_sent_at = self._delivered_at = now
        self.in_flight_bytes += size
        return Snapshot(now, self._first_sent_at, self._delivered_bytes, self._delivered_at)

    def on_acked(self, newest: Snapshot, size: int, now: float) -> None:
        """Take in one ACK: `size` bytes in all, `newest` of the packet sent last among them."""
        self.in_flight_bytes = max(0, self.in_flight_bytes - size)
        self._delivered_bytes += size
        self._delivered_at = now
        self._first_sent_at = max(self._first_sent_at, newest.sent_at)
        elapsed = max(newest.sent_at - newest.first_sent_at, now - newest.delivered_at)
        if elapsed >= ELAPSED_MIN_S:
            self._on_sample((self._delivered_bytes - newest.delivered_bytes) / elapsed, now)

    def on_lost(self, size: int) -> None:
        """Note that `size` bytes in flight are given up for lost."""
        self.in_flight_bytes = max(0, self.in_flight_bytes - size)

    def _on_sample(self, rate: float, now: float) -> None:
        best, slot = self._best, int(now / SLOT_S)
        while best and best[-1][1] <= rate:
            best.pop()
        if not best or best[-1][0] != slot:
            best.append((slot, rate))
        while best[0][0] <= slot - SLOTS:
            best.popleft()

    def in_flight_max(self, round_trip: RoundTrip, floor: int) -> int:
        """Return how many bytes may be in flight: twice the bandwidth-delay product, or `floor`.

        The delay is the shortest seen, not the smoothed one: that includes the queue this limit
        makes, so the two would raise each other without end.
        """
        delay = round_trip.shortest_loop()
        return floor if delay is None else max(floor, int(GAIN * self.bytes_per_s * delay))
