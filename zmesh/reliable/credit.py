"""How much a peer may send us: absolute limits a lane, within pools for the peer and the node.

Granted = consumed + window. The limits are absolute, so a lost or repeated grant does no harm, and
they never shrink. A window starts small and doubles while a sender uses it up within a few round
trips, as far as the pools allow (after the auto-tuning of TCP and QUIC receive windows).
"""

from zmesh.options import LinkOptions


class CreditPool:
    """Bytes that may be promised in all; a peer's pool draws on the node's."""

    __slots__ = ("_parent", "limit", "used")

    def __init__(self, limit: int, parent: "CreditPool | None" = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent

    def draw(self, size: int) -> bool:
        """Take `size` bytes out of the pool, or nothing where they are not there."""
        if self.used + size > self.limit:
            return False
        if self._parent is not None and not self._parent.draw(size):
            return False
        self.used += size
        return True

    def put_back(self, size: int) -> None:
        """Return bytes that were drawn."""
        self.used -= size
        if self._parent is not None:
            self._parent.put_back(size)


class LaneCredit:
    """What one lane of one peer may send, and what it has used."""

    __slots__ = (
        "_drawn",
        "_epoch_bytes",
        "_epoch_messages",
        "_epoch_start",
        "_options",
        "_pool",
        "bytes_limit",
        "consumed_bytes",
        "consumed_messages",
        "seq_limit",
        "window_bytes",
        "window_messages",
    )

    def __init__(self, options: LinkOptions, pool: CreditPool) -> None:
        self._options = options
        self._pool = pool
        self._drawn = 0
        self.window_messages = options.window_messages
        self.window_bytes = options.window_bytes
        self.consumed_messages = 0
        self.consumed_bytes = 0
        self.seq_limit = self.window_messages
        self.bytes_limit = self.window_bytes
        self._epoch_start = 0.0
        self._epoch_messages = 0
        self._epoch_bytes = 0

    def consume(self, messages: int, size: int) -> None:
        """Note that the application is done with so much: as much more may come."""
        self.consumed_messages += messages
        self.consumed_bytes += size

    def grant(self, now: float, round_trip: float | None) -> tuple[int, int]:
        """Return the limits to tell the sender now: `(seq_limit, bytes_limit)`."""
        if (
            self.consumed_messages - self._epoch_messages >= self.window_messages
            or self.consumed_bytes - self._epoch_bytes >= self.window_bytes
        ):
            self._tune(now, round_trip or self._options.granularity)
        seq_limit = self.consumed_messages + self.window_messages
        self.seq_limit = max(self.seq_limit, seq_limit)
        bytes_limit = self.consumed_bytes + self.window_bytes
        self.bytes_limit = max(self.bytes_limit, bytes_limit)
        return self.seq_limit, self.bytes_limit

    def _tune(self, now: float, round_trip: float) -> None:
        """Double a window that was used up, if that took no more than four round trips."""
        options = self._options
        messages = self.consumed_messages - self._epoch_messages
        size = self.consumed_bytes - self._epoch_bytes
        if now - self._epoch_start < 4 * max(round_trip, options.granularity):
            if messages >= self.window_messages:
                self.window_messages = min(2 * self.window_messages, options.window_messages_max)
            more = min(self.window_bytes, options.window_bytes_max - self.window_bytes)
            if size >= self.window_bytes and more > 0 and self._pool.draw(more):
                self._drawn += more
                self.window_bytes += more
        self._epoch_start = now
        self._epoch_messages = self.consumed_messages
        self._epoch_bytes = self.consumed_bytes

    def close(self) -> None:
        """Give back to the pool what the window drew."""
        self._pool.put_back(self._drawn)
        self._drawn = 0
