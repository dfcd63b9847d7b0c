"""When records of one session expire: a heap over all lanes, one entry for what went together."""

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush

from zmesh.batches import Block
from zmesh.message import Record
from zmesh.reliable.link_events import Returned
from zmesh.reliable.sender import OutgoingLane

DEADLINES_MIN = 1024
"""Fewer are not worth being looked through."""


class Expiries:
    """The deadlines of what was submitted to the lanes of a session."""

    __slots__ = ("_max", "_outgoing", "heap")

    def __init__(self, outgoing: Mapping[int, OutgoingLane]) -> None:
        self._outgoing = outgoing
        self.heap: list[tuple[float, int, int]] = []  # when `due` has to do, lane, first number
        self._max = DEADLINES_MIN  # then those of ended records are dropped

    def add(self, out: OutgoingLane, seq: int, deadline: float) -> None:
        """Let one record expire."""
        out.deadlines[seq] = deadline
        self._push(out, seq, deadline)

    def add_all(
        self, out: OutgoingLane, first: int, records: Sequence[Record], deadline: float
    ) -> None:
        """Let records expire that were submitted together; a block has its deadline."""
        if type(records) is not Block:
            out.deadlines.update(dict.fromkeys(range(first, first + len(records)), deadline))
        self._push(out, first, deadline)

    def due(self, now: float) -> list[Returned]:
        """Give up what has outlived its time to live."""
        returned: list[Returned] = []
        while self.heap and self.heap[0][0] <= now:
            deadline, lane, first = heappop(self.heap)
            returned += self._outgoing[lane].expire(first, deadline)
        return returned

    def _push(self, out: OutgoingLane, first: int, deadline: float) -> None:
        heappush(self.heap, (deadline, out.lane, first))
        if len(self.heap) >= self._max:
            self._tidy()

    def _tidy(self) -> None:
        """Drop those of records that have ended: the heap holds about twice the others at most."""
        self.heap = [
            (deadline, lane.lane, first)
            for lane in self._outgoing.values()
            for first, deadline in lane.expiries()
        ]
        heapify(self.heap)
        self._max = 2 * len(self.heap) + DEADLINES_MIN
