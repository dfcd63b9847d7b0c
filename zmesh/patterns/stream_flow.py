"""One direction of a stream: what its reader granted, and what its writer wrote.

Limits are absolute and count parts and bytes from the beginning of the stream. A part may be
written while both counts are below them, so that a part of any size goes; what a reader has to
hold is its window and one part.
"""

from collections import deque
from collections.abc import Callable

from zmesh.message import Record, size_of


class Inflow:
    """The reader's side: what came, what was taken, and how much more may come."""

    __slots__ = (
        "_taken_bytes",
        "_taken_parts",
        "bytes_limit",
        "bytes_window",
        "parts",
        "parts_limit",
        "parts_window",
        "size",
    )

    def __init__(self, parts_window: int, bytes_window: int) -> None:
        self.parts_window = parts_window
        self.bytes_window = bytes_window
        self.parts = 0  # that came
        self.size = 0
        self._taken_parts = 0
        self._taken_bytes = 0
        self.parts_limit = 0
        self.bytes_limit = 0

    def grant(self, parts: int, size: int) -> None:
        """Note that the application took so much more; the limits rise accordingly."""
        self._taken_parts += parts
        self._taken_bytes += size
        self.parts_limit = self._taken_parts + self.parts_window
        self.bytes_limit = self._taken_bytes + self.bytes_window

    def take_in(self, number: int, size: int) -> str:
        """Count a part that came; return what is wrong with it, if anything."""
        if number != self.parts + 1:
            return f"part {number} came instead of {self.parts + 1}"
        if self.parts >= self.parts_limit or self.size >= self.bytes_limit:
            return f"part {number} came beyond the credit"
        self.parts = number
        self.size += size
        return ""


class Outflow:
    """The writer's side: what it may write, and what was written and may not leave yet."""

    __slots__ = ("_waiting", "bytes_limit", "parts", "parts_limit", "size", "was_full")

    def __init__(self) -> None:
        self.parts = 0  # that left
        self.size = 0
        self.parts_limit = 0
        self.bytes_limit = 0
        self.was_full = True  # a writer may wait to be told of room
        self._waiting: deque[Record] = deque()  # written while there was room, which went away

    @property
    def waiting(self) -> int:
        """How many parts were written and have not left."""
        return len(self._waiting)

    def room(self) -> tuple[int, int]:
        """Return how many parts and bytes may be written; (0, 0) where nothing may."""
        parts, size = self.parts_limit - self.parts, self.bytes_limit - self.size
        if parts > 0 and size > 0 and not self._waiting:
            return parts, size
        self.was_full = True
        return 0, 0

    def raise_limits(self, parts: int, size: int) -> None:
        """Take a grant; it never takes back what an earlier one gave."""
        self.parts_limit = max(self.parts_limit, parts)
        self.bytes_limit = max(self.bytes_limit, size)

    def restart(self) -> None:
        """Begin anew with another reader. Nothing has left; what waits goes on waiting."""
        self.parts_limit = self.bytes_limit = 0

    def write(self, record: Record) -> None:
        """Add a part; `leaving` tells which may go."""
        self._waiting.append(record)

    def leaving(self, fitted: Callable[[Record], Record]) -> list[Record]:
        """Return the parts that may leave now, in order; they count as written with it.

        `fitted` returns a part as its reader takes it: so it counts.
        """
        records: list[Record] = []
        while self._waiting and self.parts < self.parts_limit and self.size < self.bytes_limit:
            record = fitted(self._waiting.popleft())
            self.parts += 1
            self.size += size_of(record)
            records.append(record)
        return records
