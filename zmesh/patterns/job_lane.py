"""The stored jobs of one priority that anybody may take in any order: a window over the disk.

A window of each priority is in memory, so that a backlog of one hides no other. Jobs with a key, a
delay or a time to live are not among them: those are in memory, all of them, because somebody has
to look at each.
"""

from collections import deque
from typing import Final

from zmesh.message import LANES, Ticket
from zmesh.options import NodeOptions
from zmesh.storage import Stream, StreamKind

WINDOW_MAX: Final = 4096
"""Jobs of one priority ready in memory: more would only make the next restart slower."""

PAGE_ROWS: Final = 1024
PAGE_BYTES: Final = 1024 * 1024

WATCHED_LANE: Final = 16
"""The lane of the stream whose jobs are all in memory, whatever their priority."""


def lane_stream(queue: str, lane: int) -> Stream:
    """Return where the jobs of a queue are on disk."""
    return Stream(StreamKind.QUEUE, queue.encode(), lane)


class JobLane:
    """What is stored of one priority of a queue, and how far it was read."""

    __slots__ = (
        "_bytes", "_callers", "_loaded_max", "_window", "cursor", "is_broken", "is_reading",
        "loaded", "ready", "ready_bytes", "stream", "waiting", "written",
    )  # fmt: skip

    def __init__(self, queue: str, lane: int, options: NodeOptions) -> None:
        self.stream = lane_stream(queue, lane)
        self.cursor = 0  # jobs up to this number are in memory, or have their outcome
        self.written = 0  # jobs up to this number are on disk
        self.waiting = 0  # jobs between these two
        self.loaded = 0  # jobs in memory
        self.ready = 0  # of these, jobs that may leave
        self.ready_bytes = 0
        self.is_reading = False
        self.is_broken = False  # the disk failed: another life may read it
        self._window = max(1, min(WINDOW_MAX, options.queued_jobs_max // LANES))
        self._bytes = max(1, options.queued_jobs_bytes_max // LANES)
        self._loaded_max = max(self._window, options.queued_jobs_max)
        self._callers: deque[tuple[int, int, Ticket]] = deque()  # of those that wait

    @property
    def is_stuck(self) -> bool:
        """Whether nothing can be read now: what is in memory failed, and waits to be tried."""
        return self.is_broken or (self.loaded >= self._loaded_max and not self.is_reading)

    @property
    def has_space(self) -> bool:
        """Whether another job may be in memory."""
        return (
            self.ready < self._window
            and self.ready_bytes < self._bytes
            and self.loaded < self._loaded_max
        )

    @property
    def page(self) -> tuple[int, int]:
        """How many jobs, and bytes, are to be read now; no jobs where there are enough."""
        if not self.waiting or self.is_reading or self.is_broken or not self.has_space:
            return 0, 0
        if self.ready > self._window // 2 or self.ready_bytes > self._bytes // 2:
            return 0, 0
        count = min(PAGE_ROWS, self._window - self.ready, self._loaded_max - self.loaded)
        return count, min(PAGE_BYTES, self._bytes - self.ready_bytes)

    def put_off(self, first: int, last: int, count: int, caller: Ticket) -> None:
        """Leave jobs on the disk alone until it is their turn."""
        if not self.waiting:
            self.cursor = first - 1
        self.waiting += count
        self._callers.append((first, last, caller))

    def caller_of(self, number: int) -> Ticket | None:
        """Return who waits for the outcome of the job that was read next, if anybody does."""
        callers = self._callers
        while callers and callers[0][1] < number:
            callers.popleft()
        return callers[0][2] if callers and callers[0][0] <= number else None
