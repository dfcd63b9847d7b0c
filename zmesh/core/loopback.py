"""The way to this node itself: patterns use it as they use a link, and need no second path.

What is submitted arrives in the same turn, as it would off a wire: with its key and its time to
live. Nothing can be lost on the way, so there is no transmission and no credit here; the bound is
that of a link's queue.
"""

from collections.abc import Sequence
from itertools import count, repeat

from zmesh.batches import TicketRun, largest_of
from zmesh.errors import BodyTooLarge
from zmesh.ids import SessionId
from zmesh.message import Keys, Outcome, Record, Tag, Ticket, size_of, with_extra
from zmesh.options import LinkOptions
from zmesh.reliable.link_events import Accepted, Arrived, LinkEvent, Returned, Room


class Loopback:
    """Carries records from this node to itself; see `zmesh.ports.Carrier`."""

    def __init__(self, session: SessionId, options: LinkOptions) -> None:
        self._session = session
        self._options = options
        self._open: dict[tuple[int, int], tuple[Record, Ticket]] = {}  # by lane and number
        self._numbers = count(1)  # shared by all lanes: contiguity is a matter of wires
        self._queued_bytes = 0
        self._was_full = False
        self.events: list[LinkEvent] = []

    @property
    def session(self) -> SessionId | None:
        """The one session there is, for as long as the node lives."""
        return self._session

    @property
    def room_messages(self) -> int:
        """How many more records may be submitted; 0 or less where it is full."""
        if self._queued_bytes >= self._options.queued_bytes_max:
            return 0
        return self._options.queued_messages_max - len(self._open)

    @property
    def queued_messages(self) -> int:
        """How many records the application has not settled yet."""
        return len(self._open)

    @property
    def queued_bytes(self) -> int:
        """How many bytes they are."""
        return self._queued_bytes

    def submit(
        self,
        lane: int,
        records: Sequence[Record],
        ticket: Ticket,
        now: float,  # noqa: ARG002  what is here at once cannot be late
        *,
        key: Keys = None,
        ttl: float | None = None,
    ) -> tuple[int, int]:
        """Hand the records over; raises BodyTooLarge as a link would."""
        largest = largest_of(records)
        if largest > self._options.body_bytes_max:
            raise BodyTooLarge(largest, self._options.body_bytes_max)
        if key is not None:
            keys = repeat(key) if isinstance(key, str) else key
            records = [
                record if own is None else with_extra(record, Tag.KEY, own)
                for record, own in zip(records, keys, strict=False)
            ]
        if ttl is not None:
            ttl_ms = max(1, round(ttl * 1000))
            records = [with_extra(record, Tag.TTL_MS, ttl_ms) for record in records]
        first = last = 0
        each = ticket.part() if isinstance(ticket, TicketRun) else repeat(ticket)
        for record, own in zip(records, each, strict=False):
            last = next(self._numbers)
            first = first or last
            self._open[lane, last] = (record, own)
            self._queued_bytes += size_of(record)
        self.events.append(Arrived(lane, first, last, list(records)))
        self._was_full = self._was_full or self.room_messages <= 0
        return first, last

    def settle(
        self,
        session: bytes,
        lane: int,
        first: int,
        last: int,
        outcome: Outcome,
        now: float,  # noqa: ARG002
        reason: str = "",
        delay: float = 0.0,
    ) -> bool:
        """Give records their outcome; False where none of them waits for it."""
        if session != self._session:
            return False
        settled = False
        accepted: list[Ticket] = []
        for number in range(first, last + 1):
            entry = self._open.pop((lane, number), None)
            if entry is None:
                continue
            settled = True
            record, ticket = entry
            self._queued_bytes -= size_of(record)
            if outcome is Outcome.ACCEPTED:
                ticket.accepted += 1
                accepted.append(ticket)
            else:
                self.events.append(
                    Returned(record, ticket, lane, outcome, reason, delay, transmitted=True)
                )
        if accepted:
            self.events.append(Accepted(accepted))
        if self._was_full and self.room_messages > 0:
            self._was_full = False
            self.events.append(Room())
        return settled

    def accept_later(
        self, session: bytes, lane: int, first: int, last: int, now: float
    ) -> bool | None:
        """Accept records at once: there is no traffic to wait for."""
        if session != self._session:
            return None
        return self.settle(session, lane, first, last, Outcome.ACCEPTED, now)

    def withdraw(self, ticket: Ticket, index: int | None = None) -> bool:  # noqa: ARG002
        """Do nothing: everything has arrived, and the application's verdict decides."""
        return True

    def has_arrived(self, ticket: Ticket) -> bool:
        """Return whether something of a ticket has no outcome: all of it has arrived."""
        return any(each is ticket for _, each in self._open.values())

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return the records of a ticket without outcome: all of them have arrived."""
        return [(record, True) for record, each in self._open.values() if each is ticket]

    def take_events(self) -> list[LinkEvent]:
        """Return what happened since the last call, in order."""
        events, self.events = self.events, []
        return events

    def close(self) -> list[tuple[Record, Ticket]]:
        """Return what was not settled; nobody will any more."""
        left = list(self._open.values())
        self._open.clear()
        self._queued_bytes = 0
        return left
