"""What waits for subscriptions of a peer that would rather miss some than hold anybody up.

Only so much of it is with the link at a time; the rest waits here, within the limits that the
subscriptions named and those for a peer. What finds no room is missed, and they are told how much.
A publication that several of a peer's subscriptions want waits once: in the queue of the one that
is content with least being dropped, and what that misses they all do.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from zmesh.core.peers import InternalTicket, OnceTicket, Peer
from zmesh.core.turn import Turn
from zmesh.message import Kind, Record, Tag, head, size_of
from zmesh.options import NodeOptions
from zmesh.patterns.wanted import Wanted
from zmesh.terms import WhenFull

_MILDEST = (WhenFull.DROP_OLDEST, WhenFull.DROP_NEWEST, WhenFull.DISCONNECT, WhenFull.LATEST)

_TOLD_MAX = 4
"""Subscriptions in one record that tells what they missed."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A publication that waits, and which subscriptions of the peer want it."""

    record: Record
    lane: int
    key: str | None
    expires: float | None  # on the node's clock
    wanted: list[Wanted]
    size: int
    at_most_once: bool = False
    number: int = 0
    holder: Wanted | None = None  # in whose queue it waits
    before: dict[Wanted, int] = field(default_factory=dict)  # missed since the one before


@dataclass(slots=True)
class _Queue:
    """What waits for one subscription: popped at both ends and in between, at constant cost."""

    waiting: OrderedDict[int, Waiting] = field(default_factory=OrderedDict)
    latest: dict[str, Waiting] = field(default_factory=dict)  # by topic, with WhenFull.LATEST


class Backlog:
    """One peer's."""

    def __init__(self, peer: Peer, turn: Turn, options: NodeOptions) -> None:
        self._peer = peer
        self._turn = turn
        self._options = options
        self._waiting: OrderedDict[int, Waiting] = OrderedDict()
        self._queues: dict[Wanted, _Queue] = {}
        self._numbered = 0
        self._size = 0
        self._in_flight: list[tuple[InternalTicket, int]] = []  # with their sizes
        self._in_flight_bytes = 0
        self._seen = 0  # what the carrier had when these were last looked through
        self._untold: Counter[Wanted] = Counter()  # missed before the next that is sent
        self._later: Counter[Wanted] = Counter()  # missed before the next that will wait
        self._lane = 0  # of the last that was missed
        self.missed = 0

    def __len__(self) -> int:
        """Count the publications that wait."""
        return len(self._waiting)

    @property
    def size(self) -> int:
        """How many bytes they are."""
        return self._size

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits, nor is to be told."""
        return not (self._waiting or self._untold or self._later)

    # What comes in

    def add(self, waiting: Waiting) -> None:
        """Let a publication wait, if there is room; what has to make room is missed."""
        while waiting.wanted:
            holder = min(waiting.wanted, key=_mildness)
            queue = self._queues.setdefault(holder, _Queue())
            topic = waiting.record[1]
            if holder.terms.when_full is WhenFull.LATEST and topic in queue.latest:
                self._miss(queue.latest[topic])
            if not self._is_full(holder, queue, waiting.size):
                self._enqueue(holder, queue, waiting)
                return
            match holder.terms.when_full:
                case WhenFull.DISCONNECT:
                    self._count(self._untold, waiting.lane, [holder])
                    self.end(holder)
                    waiting.wanted = [each for each in waiting.wanted if not each.ended]
                case WhenFull.DROP_NEWEST:
                    self._count(self._later, waiting.lane, waiting.wanted)
                    return
                case _:
                    if not queue.waiting:  # the room is taken by others
                        self._count(self._untold, waiting.lane, waiting.wanted)
                        return
                    self._miss(next(iter(queue.waiting.values())))

    def end(self, wanted: Wanted) -> None:
        """End a subscription here: it is told, and gets nothing more."""
        wanted.ended = True
        count = self._untold.pop(wanted, 0) + self._later.pop(wanted, 0)
        self._tell(self._lane, {wanted: count})
        self.forget(wanted)

    def forget(self, wanted: Wanted) -> None:
        """Let nothing wait for a subscription that has ended."""
        self._untold.pop(wanted, None)
        self._later.pop(wanted, None)
        queue = self._queues.pop(wanted, None)
        for waiting in list(queue.waiting.values()) if queue is not None else ():
            waiting.wanted = [each for each in waiting.wanted if not each.ended]
            self._miss(waiting)

    def _is_full(self, holder: Wanted, queue: _Queue, size: int) -> bool:
        options = self._options
        return (
            len(queue.waiting) >= holder.terms.limit
            or len(self._waiting) >= options.backlog_max
            or self._size + size > options.backlog_bytes_max
        )

    def _enqueue(self, holder: Wanted, queue: _Queue, waiting: Waiting) -> None:
        self._numbered += 1
        waiting.number = self._numbered
        waiting.holder = holder
        waiting.before = {
            each: self._later.pop(each) for each in waiting.wanted if each in self._later
        }
        self._waiting[waiting.number] = waiting
        queue.waiting[waiting.number] = waiting
        if holder.terms.when_full is WhenFull.LATEST:
            queue.latest[waiting.record[1]] = waiting
        self._size += waiting.size

    def _take(self, waiting: Waiting) -> None:
        """Let a publication wait no longer."""
        del self._waiting[waiting.number]
        self._size -= waiting.size
        queue = None if waiting.holder is None else self._queues.get(waiting.holder)
        if queue is not None:
            del queue.waiting[waiting.number]
            queue.latest.pop(waiting.record[1], None)

    def _miss(self, waiting: Waiting) -> None:
        self._take(waiting)
        self._untold.update({each: n for each, n in waiting.before.items() if not each.ended})
        self._count(self._untold, waiting.lane, waiting.wanted)

    def _count(self, missed: Counter[Wanted], lane: int, wanted: list[Wanted]) -> None:
        """Count one publication that these have missed."""
        self.missed += bool(wanted)
        self._lane = lane
        missed.update(wanted)

    # What goes out

    def flush(self) -> None:
        """Hand to the link what there is room for; call it whenever there may be some."""
        if self._waiting:
            self._look_through()
            while self._waiting and self._has_room:
                self._send(next(iter(self._waiting.values())))
        if not self._waiting and not self.is_idle:
            untold = self._untold + self._later
            self._untold.clear()
            self._later.clear()
            self._tell(self._lane, untold)

    @property
    def _has_room(self) -> bool:
        options = self._options
        return (
            len(self._in_flight) < options.backlog_in_flight_max
            and self._in_flight_bytes < options.backlog_in_flight_bytes_max
        )

    def _look_through(self) -> None:
        """Forget what has its outcome, if anything has changed."""
        queued = self._peer.carrier.queued_messages
        if queued != self._seen:
            self._in_flight = [each for each in self._in_flight if not each[0].done]
            self._in_flight_bytes = sum(size for _, size in self._in_flight)
            self._seen = queued

    def _send(self, waiting: Waiting) -> None:
        now, ttl = self._turn.now, None
        if waiting.expires is not None:
            ttl = waiting.expires - now
            if ttl <= 0:
                self._miss(waiting)
                return
        self._take(waiting)
        untold = Counter(waiting.before)
        for each in waiting.wanted:
            if each in self._untold:
                untold[each] += self._untold.pop(each)
        if untold:
            self._tell(waiting.lane, untold)
        ticket = OnceTicket() if waiting.at_most_once else InternalTicket()
        ticket.expires = waiting.expires
        self._in_flight.append((ticket, waiting.size))
        self._in_flight_bytes += waiting.size
        self._turn.submit(
            self._peer, waiting.lane, [waiting.record], ticket, key=waiting.key, ttl=ttl
        )
        self._seen = self._peer.carrier.queued_messages

    def _tell(self, lane: int, untold: dict[Wanted, int]) -> None:
        """Say how many publications these have missed."""
        counts = [item for wanted, count in untold.items() for item in (wanted.number, count)]
        step = 2 * _TOLD_MAX
        records: list[Record] = [
            (head(Kind.MISSED), "", b"", (int(Tag.MISSED), tuple(counts[at : at + step])))
            for at in range(0, len(counts), step)
        ]
        self._turn.submit(self._peer, lane, records, InternalTicket(len(records)))


def waiting_of(
    record: Record, lane: int, key: str | None, expires: float | None, wanted: list[Wanted]
) -> Waiting:
    """Return a publication that is to wait."""
    return Waiting(record, lane, key, expires, wanted, size_of(record))


def _mildness(wanted: Wanted) -> tuple[int, int]:
    return _MILDEST.index(wanted.terms.when_full), -wanted.terms.limit
