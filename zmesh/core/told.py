"""What peers tell of themselves, taken in piece by piece: a thousand entries are milliseconds.

Nobody else waits for longer than a piece takes, however much a peer declares at once. Records of a
peer keep their order. Who takes back and declares faster than it is taken in has it taken in at
once where too much waits: that costs no more than it does, and memory is bounded.
"""

from collections import deque
from collections.abc import Callable
from math import inf, nextafter
from typing import Final

from zmesh.core.peers import RemotePeer
from zmesh.core.turn import Turn
from zmesh.wire.frames import ControlNews, Drain, Interest, Refused

ENTRIES_MAX: Final = 128
"""Entries taken in at once: half a millisecond."""

RECORD_COST: Final = 16
"""What a record counts for beside its entries: patterns look at the peer anew after each."""


class Told:
    """Control records that came, until they are taken in.

    Args:
        turn: whose agenda is told when there is more to take in.
        waiting_max: records of one peer, and entries in them, that may wait.
        room: how many more interests a peer may tell of; without any, more cost nothing.
        take: takes records in.
    """

    def __init__(
        self,
        turn: Turn,
        waiting_max: int,
        room: Callable[[RemotePeer], int],
        take: Callable[[RemotePeer, list[ControlNews]], None],
    ) -> None:
        self._turn = turn
        self._waiting_max = waiting_max
        self._room = room
        self._take = take
        self._waiting: dict[RemotePeer, deque[ControlNews]] = {}  # whose turn is next, first
        self.deadline: float | None = None

    def on_control(self, peer: RemotePeer, records: list[ControlNews]) -> None:
        """Take records in, or what is too much of them later."""
        waiting = self._waiting.get(peer)
        if waiting is None and sum(self._cost(peer, each) for each in records) <= ENTRIES_MAX:
            self._take(peer, records)
            return
        if waiting is None:
            waiting = self._waiting[peer] = deque()
        waiting.extend(records)
        if len(waiting) + sum(map(_entries, waiting)) > self._waiting_max:
            self.forget(peer)
            self._take(peer, list(waiting))
        else:
            self._plan()

    def on_timer(self) -> None:
        """Take in the next piece, of the peer whose turn it is."""
        self.deadline = None
        if not self._waiting:
            return
        peer = next(iter(self._waiting))
        waiting = self._waiting.pop(peer)
        records = self._piece(peer, waiting)
        if waiting:
            self._waiting[peer] = waiting
        self._take(peer, records)
        if self._waiting:
            self._plan()

    def waits(self, peer: RemotePeer) -> bool:
        """Return whether there is more to take in of a peer."""
        return peer in self._waiting

    def forget(self, peer: RemotePeer) -> None:
        """Forget what a peer told: its session is over."""
        self._waiting.pop(peer, None)

    def _plan(self) -> None:
        if self.deadline is None:  # after this turn, that is: others have theirs between
            self.deadline = nextafter(self._turn.now, inf)
            self._turn.agenda.look_at(self.deadline)

    def _cost(self, peer: RemotePeer, record: ControlNews) -> int:
        is_vain = isinstance(record, Interest) and not record.removed and self._room(peer) <= 0
        return 0 if is_vain else RECORD_COST + _entries(record)

    def _piece(self, peer: RemotePeer, waiting: deque[ControlNews]) -> list[ControlNews]:
        """Take from what waits what may be taken in at once: a piece of a record at least."""
        records: list[ControlNews] = []
        left = ENTRIES_MAX
        while waiting and left > 0:
            record = waiting.popleft()
            cost = self._cost(peer, record)
            if cost > left and isinstance(record, Interest):
                record, rest = _split(record, left)
                waiting.appendleft(rest)
            left -= cost
            records.append(record)
        return records


def _entries(record: ControlNews) -> int:
    match record:
        case Interest(added, removed):
            return len(added) + len(removed)
        case Refused(entries):
            return len(entries)
        case Drain():
            return 0


def _split(interest: Interest, count: int) -> tuple[Interest, Interest]:
    """Return what is to be taken in first, so many entries, and the rest."""
    removed, count = interest.removed[:count], max(0, count - len(interest.removed))
    return (
        Interest(interest.added[:count], removed),
        Interest(interest.added[count:], interest.removed[len(removed) :]),
    )
