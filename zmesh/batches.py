"""Batches of records with consecutive numbers: how to part them, and what peers share of them."""

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Final, Self, TypeVar

from zmesh.message import COMPRESSED, RECORD_OVERHEAD_BYTES, Record, Tag, Ticket, sizes_of, tags_of

_HEAD = itemgetter(0)
_TARGET = itemgetter(1)
_BODY = itemgetter(2)
_LOW: Final = frozenset((int(Tag.HEADERS),))
"""Tags of what goes in runs: those that are written when it leaves follow them."""

L = TypeVar("L")
R = TypeVar("R")


def runs(
    first: int, last: int, records: Sequence[R], labels: Sequence[L]
) -> Iterator[tuple[L, int, int, list[R]]]:
    """Part the records numbered `first..last` wherever the label of a record changes.

    Yields `(label, first, last, records)` of each run. A record put together from fragments has
    several numbers and is alone in its batch.
    """
    for label, indexes in groupby(range(len(records)), key=labels.__getitem__):
        run = list(indexes)
        start, stop = run[0], run[-1] + 1
        end = last if stop == len(records) else first + stop - 1
        yield label, first + start, end, list(records[start:stop])


class Block(tuple[Record, ...]):  # noqa: SLOT001  # a tuple of any length has no room for slots
    """Records that go together, to one peer or to many, or that came together.

    What is found out about them, and the bytes they become, is found out once for all.
    """

    heads: AbstractSet[int]
    targets: AbstractSet[str]
    is_bare: bool  # none has extras
    lengths: list[int]  # what each counts against credit, less `overhead`
    overhead: int
    size: int  # what all count
    shares: int  # peers that have yet to be sent it, where there are several
    packed: bytes | None  # as the records of a DATA frame, until all were sent it
    deadline: float | None  # when all of them expire

    def __new__(cls, records: Iterable[Record]) -> Self:
        """Make a block of at least one record."""
        made = tuple(records)
        heads, targets = set(map(_HEAD, made)), set(map(_TARGET, made))
        is_bare = max(map(len, made)) == 3
        return cls.of_columns(made, heads, targets, map(_BODY, made), is_bare=is_bare)

    @classmethod
    def of_columns(
        cls,
        records: tuple[Record, ...],
        heads: AbstractSet[int],
        targets: AbstractSet[str],
        bodies: Iterable[bytes | memoryview],
        *,
        is_bare: bool,
    ) -> Self:
        """Make a block of records that have been looked at."""
        block = super().__new__(cls, records)
        block.heads, block.targets, block.is_bare = heads, targets, is_bare
        if is_bare and len(targets) == 1:
            block.lengths = list(map(len, bodies))
            block.overhead = len(next(iter(targets))) + RECORD_OVERHEAD_BYTES
        else:
            block.lengths, block.overhead = sizes_of(records), 0
        block.size = sum(block.lengths) + block.overhead * len(records)
        block.shares, block.packed = 0, None
        block.deadline = None
        return block

    def size_of(self, start: int, stop: int) -> int:
        """Return what the records `start` to `stop` (exclusive) count against credit."""
        return sum(self.lengths[start:stop]) + self.overhead * (stop - start)

    def sizes(self, start: int) -> list[int]:
        """Return what each record from `start` on counts."""
        return list(map(self.overhead.__add__, self.lengths[start:]))

    def part(self, start: int, stop: int, budget: int, bytes_max: int) -> tuple[int, int]:
        """Return where a part from `start` on ends that fills the budget, and what it counts.

        It ends at `stop` at the latest, and counts `bytes_max` at most: so it may be empty.
        """
        if not start and stop == len(self) and self.size <= min(budget, bytes_max):
            return stop, self.size
        ends = self.ends(start)
        count = min(bisect_left(ends, budget) + 1, bisect_right(ends, bytes_max), stop - start)
        return (start + count, ends[count - 1]) if count > 0 else (start, 0)

    def ends(self, start: int) -> list[int]:
        """Return what all up to and with each record count, from `start` on."""
        return list(accumulate(self.sizes(start)))


def largest_of(records: Sequence[Record]) -> int:
    """Return how many bytes the largest body has."""
    if type(records) is Block and records.overhead:
        return max(records.lengths)
    return len(records[0][2]) if len(records) == 1 else max(map(len, map(_BODY, records)))


def are_bare(records: Sequence[Record]) -> bool:
    """Return whether none of the records has extras."""
    return records.is_bare if type(records) is Block else max(map(len, records)) == 3


def fit_runs(records: Sequence[Record], bytes_max: int) -> bool:
    """Return whether these can be handled by the run: small, and as their sender made them."""
    if len(records) == 1 and len(records[0]) == 3:
        return len(records[0][2]) <= bytes_max and records[0][0] < COMPRESSED
    return (
        max(map(len, map(_BODY, records))) <= bytes_max
        and max(map(_HEAD, records)) < COMPRESSED
        and tags_of(records) <= _LOW
    )


class TicketRun(Ticket):
    """The tickets of consecutive records, each its own, that go to the same peers.

    Peers accept most records in the order they were sent. So nothing is counted for each record
    and peer: a ticket gets what is due to it when the last of them has come so far. Where a record
    ends otherwise, or out of order, the run falls apart, and each ticket counts for itself.
    """

    __slots__ = ("_passed", "_reported", "tickets")

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        super().__init__(len(tickets))
        self.tickets = tickets
        self._passed: dict[Hashable, int] | None = {}  # how many each carrier had accepted
        self._reported = 0  # tickets that got all of it

    def join(self, carrier: Hashable) -> None:
        """Note that a carrier has the records; all do before the first is accepted."""
        if self._passed is not None:
            self._passed[carrier] = 0

    def on_accepted(self, carrier: Hashable, first: int, last: int) -> Sequence[Ticket]:
        """Note that a carrier had the records `first..last` (indexes) accepted.

        Returns:
            The tickets whose count rose.
        """
        passed = self._passed
        if passed is not None and passed[carrier] == first:
            passed[carrier] = last + 1
            start, stop = self._reported, min(passed.values())
            if stop == start:
                return ()
            self._reported = stop
            done, count = self.tickets[start:stop], len(passed)
            for ticket in done:
                ticket.accepted += count
            return done
        self.part()
        some = self.tickets[first : last + 1]
        for ticket in some:
            ticket.accepted += 1
        return some

    def part(self) -> Sequence[Ticket]:
        """Have every ticket count for itself from now on; return them."""
        passed, self._passed = self._passed, None
        for stop in () if passed is None else passed.values():
            for ticket in self.tickets[self._reported : stop]:
                ticket.accepted += 1
        return self.tickets


def blocks(records: Sequence[Record], count_max: int, bytes_max: int) -> Iterator[Block]:
    """Part records into blocks of so many records and bytes at most, each of one at least."""
    ends = list(accumulate(sizes_of(records)))
    start = size = 0
    while start < len(ends):
        stop = min(start + count_max, bisect_right(ends, size + bytes_max, start))
        stop = max(stop, start + 1)
        yield Block(records[start:stop])
        start, size = stop, ends[stop - 1]
