"""What is on its way to one addressee: a stream of rows, and runs of them with the link."""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice, repeat
from operator import itemgetter
from typing import Final

from zmesh.core.peers import StoredTicket
from zmesh.ids import NodeId
from zmesh.message import Record, Tag, Ticket, extra, size_of, sizes_of, with_extra
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import FailedAttempt, Row, StoredRow, StoreRun, Stream, StreamKind

WINDOW_RECORDS: Final = 4096
WINDOW_BYTES: Final = 8 * 1024 * 1024
"""What one addressee has on its way, or in memory to follow: enough for any link."""

_LAST = itemgetter(0)
_ROW = itemgetter(0)
_ATTEMPTS = itemgetter(1)
_POSITION = itemgetter(0)
_RECORD = itemgetter(1)
_EXPIRES = itemgetter(3)
_ORDER = itemgetter(5)
_NOTE = itemgetter(6)


class Run(StoredTicket):
    """Consecutive rows of a box that are with the link, of one caller."""

    __slots__ = ("box", "dead", "node", "note", "number", "size", "told")

    def __init__(
        self, box: "Box", node: NodeId, rows: Sequence[Row], told: Ticket | None, size: int
    ) -> None:
        super().__init__(rows[0].position, len(rows))
        self.box = box
        self.node = node  # who has them
        self.number = self.order = rows[0].order
        self.told = told
        self.size = size
        self.note = rows[0].note
        self.dead: dict[int, tuple[str, int]] = {}  # position -> why, after how many attempts

    @property
    def last(self) -> int:
        """The position of the last row."""
        return self.first + self.count - 1

    def position_of(self, record: Record) -> int:
        """Return where a record of this run is in its box."""
        number = extra(record, Tag.STORED)
        assert isinstance(number, int), "what is sent from a box has a number"  # noqa: S101
        return self.first + number - self.number


class Box:
    """What is on its way to one addressee, a name or an id as hex."""

    def __init__(self, to: str, following: int, last: int) -> None:
        self.to = to
        self.stream = Stream(StreamKind.WAITING, to.encode())
        self.following = following  # the position of the next row
        self.written = last  # rows up to here are on disk
        self.cursor = last  # rows up to here are with the link, or have their outcome
        self.ready: deque[StoredRow] = deque()  # the rows that follow, as far as in memory
        self.ready_bytes = 0
        self.runs: dict[Run, None] = {}  # with the link, in order
        self.out = 0  # messages of them
        self.out_bytes = 0
        self.is_reading = False
        self.epoch = 0  # what was asked for in an earlier one is void
        self.low = 0  # all numbers below are forgotten, or of others
        self.done = RangeSet()  # positions that have their outcome, above the lowest without one
        self.failed: dict[int, list[FailedAttempt]] = {}  # attempts in this life, by position
        self._firsts: list[int] = []  # of what callers wait for
        self._callers: list[tuple[int, Ticket]] = []  # with the last position

    @property
    def holder(self) -> NodeId | None:
        """Who has what is with the link: one node at a time."""
        return next(iter(self.runs)).node if self.runs else None

    @property
    def following_ready(self) -> int:
        """The position of the row that may be added to those in memory."""
        return (self.ready[-1].row.position if self.ready else self.cursor) + 1

    @property
    def has_space(self) -> bool:
        """Whether more rows may be in memory."""
        return (
            self.out + len(self.ready) < WINDOW_RECORDS
            and self.out_bytes + self.ready_bytes < WINDOW_BYTES
        )

    def add_ready(self, rows: Sequence[StoredRow]) -> None:
        """Add the rows that follow those in memory."""
        self.ready.extend(rows)
        self.ready_bytes += sum(sizes_of(list(map(_RECORD, map(_ROW, rows)))))

    def add_run(self, run: StoreRun) -> None:
        """Add the rows of a run that follows those in memory, as far as they have space."""
        if not self.has_space:
            return
        ends = list(accumulate(sizes_of(run.records)))
        count = bisect_left(ends, WINDOW_BYTES - self.out_bytes - self.ready_bytes) + 1
        count = min(count, len(ends), WINDOW_RECORDS - self.out - len(self.ready))
        self.ready.extend(map(StoredRow, islice(run.rows(), count), repeat(0)))
        self.ready_bytes += ends[count - 1]

    def take_alike(self, count_max: int) -> tuple[list[Row], list[Record], int]:
        """Take the rows that come next, as far as they differ in nothing but number and record.

        Returns:
            The rows; their records as they are sent, with their numbers; and how many bytes the
            rows had in memory.
        """
        taken = list(islice(self.ready, count_max))
        rows = list(map(_ROW, taken))
        count = len(rows) if self._are_alike(rows) else self._count_alike(rows)
        del taken[count:], rows[count:]
        for _ in taken:
            self.ready.popleft()
        records = list(map(_RECORD, rows))
        size = sum(sizes_of(records))
        self.ready_bytes -= size
        self.cursor = rows[-1].position
        return rows, _numbered(records, rows[0].order, list(map(_ATTEMPTS, taken))), size

    def _are_alike(self, rows: Sequence[Row]) -> bool:
        """Whether all are, as mostly: a look at each column, and none at each row."""
        count, first = len(rows), rows[0]
        notes, expiries = list(map(_NOTE, rows)), list(map(_EXPIRES, rows))
        return (
            notes.count(first.note) == count == expiries.count(first.expires_ms)
            and list(map(_POSITION, rows)) == list(range(first.position, first.position + count))
            and list(map(_ORDER, rows)) == list(range(first.order, first.order + count))
            and self._span_of(first.position) == self._span_of(rows[-1].position)
        )

    def _count_alike(self, rows: Sequence[Row]) -> int:
        first = rows[0]
        span = self._span_of(first.position)
        for index, row in enumerate(rows):
            if (
                row.position != first.position + index
                or row.order != first.order + index
                or (row.note, row.expires_ms) != (first.note, first.expires_ms)
                or self._span_of(row.position) != span
            ):
                return index
        return len(rows)

    def _span_of(self, position: int) -> tuple[int, bool]:
        """Return who was the last to wait for rows up to this one, and whether for this too."""
        index = bisect_right(self._firsts, position) - 1
        return index, index >= 0 and position <= self._callers[index][0]

    def add_caller(self, first: int, last: int, ticket: Ticket) -> None:
        """Note who waits for the outcome of rows."""
        self._firsts.append(first)
        self._callers.append((last, ticket))

    def caller_of(self, position: int) -> Ticket | None:
        """Return who waits for the outcome of a row; None where that was in another life."""
        index, is_waited_for = self._span_of(position)
        return self._callers[index][1] if is_waited_for else None

    def end_caller(self, first: int) -> None:
        """Forget who waits for the rows from `first` on: they have their outcome."""
        index = bisect_right(self._firsts, first) - 1
        if self._firsts[index] == first:
            del self._firsts[index], self._callers[index]
        else:
            self._callers[index] = (first - 1, self._callers[index][1])

    def drop_ready(self, first: int, last: int) -> None:
        """Take rows out of memory; an answer that is on its way may still have them."""
        kept = [each for each in self.ready if not first <= each.row.position <= last]
        if len(kept) < len(self.ready):
            self.ready = deque(kept)
            self.ready_bytes = sum(size_of(each.row.record) for each in kept)
        if self.is_reading:
            self.is_reading = False
            self.epoch += 1

    def lowest_open(self) -> int:
        """Return the lowest position that may be without outcome."""
        return next(iter(self.runs)).first if self.runs else self.cursor + 1

    def trim(self) -> None:
        """Forget callers all of whose messages have their outcome."""
        lowest = self.lowest_open()
        self.done.remove(0, lowest - 1)
        done = bisect_left(self._callers, lowest, key=_LAST)
        if done == len(self._callers) or done > 64:
            del self._firsts[:done], self._callers[:done]

    def rewind(self) -> None:
        """Take back what is with the link: it is read again."""
        for run in self.runs:
            run.is_void = True
        self.cursor = self.lowest_open() - 1
        self.runs.clear()
        self.ready.clear()
        self.out = self.out_bytes = self.ready_bytes = 0
        self.is_reading = False
        self.epoch += 1


def _numbered(records: list[Record], first: int, attempts: list[int]) -> list[Record]:
    """Return records with the numbers from `first` on, and how often each was attempted."""
    if not any(attempts) and max(map(len, records)) == 3:
        tag = int(Tag.STORED)
        return [(*record[:3], (tag, number)) for number, record in enumerate(records, first)]
    told = [with_extra(record, Tag.STORED, first + at) for at, record in enumerate(records)]
    return [
        with_extra(record, Tag.ATTEMPT, before + 1) if before else record
        for record, before in zip(told, attempts, strict=True)
    ]
