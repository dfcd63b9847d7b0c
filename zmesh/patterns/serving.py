"""Requests: handed to the handlers of this node's services, each once, and answered.

A request that comes again by another way (its caller moved it here and back, or lost the session)
is known by its message id: while it is handled the answer will do for all copies, and afterwards
it is answered from memory as far as that reaches. A request whose time is over is taken back from
the application without being told: its caller may be out of reach.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from zmesh.actions import CancelRequest, Delivery
from zmesh.batches import runs
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.events import Reply, SettleDeliveries, Source
from zmesh.ids import JournalId, NodeId
from zmesh.message import (
    RECORD_OVERHEAD_BYTES,
    Outcome,
    Record,
    Tag,
    Ticket,
    extra,
    extras_of,
    size_of,
    with_extra,
)
from zmesh.options import NodeOptions
from zmesh.reliable.link_events import Returned, SessionEnd
from zmesh.reliable.seen import PENDING, MessageId, SeenTable

_MAY_ASK_AGAIN = (SessionEnd.PEER_FORGOT, SessionEnd.LINGER_OVER)
"""A caller that left or restarted knows nothing of its calls any more."""

REFUSED_FROM = 2
"""Replies are refused where they fill a queue's bytes so many times. Of requests that are handled
already the number is bounded, but not what comes of them."""

_TAKES_TOO_FEW = "its caller has too many replies to take first"


class ReplyTicket(InternalTicket):
    """The ticket of one reply; `message_id` is the request's, where it has one."""

    __slots__ = ("message_id", "size")

    def __init__(self, message_id: MessageId | None, size: int) -> None:
        super().__init__()
        self.message_id = message_id
        self.size = size


Place = tuple[Source, int, int]
"""Where a copy of a request came from, and its numbers there."""


@dataclass(slots=True)
class _Running:
    """A request the application has, and copies of it that came since."""

    message_id: MessageId
    place: Place
    copies: list[Place] = field(default_factory=list)
    cancelled: bool = False


@dataclass(slots=True)
class _Owed:
    """Replies on their way to one caller."""

    messages: int = 0
    size: int = 0


class Serving:
    """The providing side of calls."""

    def __init__(self, turn: Turn, options: NodeOptions) -> None:
        self._turn = turn
        self._options = options
        self._seen = SeenTable(options.seen_messages_max, options.seen_horizon)
        self._running: dict[MessageId, _Running] = {}
        self._places: dict[tuple[bytes, int], dict[int, _Running]] = {}  # session, lane -> number
        self._kept: dict[MessageId, Record] = {}  # replies that were not delivered, oldest first
        self._kept_bytes = 0
        self._owed: dict[NodeId, _Owed] = {}  # replies their callers have not taken
        self._deadlines: Deadlines[MessageId] = Deadlines(turn.agenda)
        self.answered: list[Place] = []  # in this turn, consecutive numbers together
        self._answered_at = -inf
        self.duplicates = 0
        self.refused_requests = 0  # given back: their caller takes too few replies
        self.refused_replies = 0  # not sent for the same reason

    def __len__(self) -> int:
        """Count the requests the application has."""
        return len(self._running)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._deadlines.next

    @property
    def replies_kept(self) -> int:
        """How many replies wait for their caller to ask again."""
        return len(self._kept)

    # Requests

    def on_requests(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Hand requests over, but for copies and those for services not provided here."""
        owes_enough = self._owes_enough(peer)
        if len(records) == 1:
            if self._admit(peer, records[0], (source, first, last), owes_enough=owes_enough):
                self._turn.deliver_requests(Delivery(source, peer.label, first, last, records))
            return
        fresh = [
            self._admit(peer, record, (source, seq, seq), owes_enough=owes_enough)
            for seq, record in enumerate(records, first)
        ]
        if all(fresh):
            self._turn.deliver_requests(Delivery(source, peer.label, first, last, records))
            return
        for is_fresh, low, high, run in runs(first, last, records, fresh):
            if is_fresh:
                self._turn.deliver_requests(Delivery(source, peer.label, low, high, run))

    def _admit(self, peer: Peer, record: Record, place: Place, *, owes_enough: bool) -> bool:
        """Return whether a request is to be handled; if not, it is settled here or later."""
        if record[1] not in self._turn.peers.local.services:
            self._settle(place, Outcome.RELEASED, "the service is not provided here")
            return False
        if owes_enough:
            self.refused_requests += 1
            self._settle(place, Outcome.RELEASED, _TAKES_TOO_FEW)
            return False
        extras, now = extras_of(record), self._turn.now
        number = extras.get(Tag.MESSAGE_ID)
        if not isinstance(number, int):
            return True
        message_id = (peer.id, _journal(peer.incarnation), number)
        state = self._seen.check(message_id, now)
        if state is not None:
            self.duplicates += 1
            if state is PENDING:
                self._running[message_id].copies.append(place)
            else:
                self._answer_again(peer, message_id, state, place)
            return False
        if not self._seen.begin(message_id, now):
            self._settle(place, Outcome.RELEASED, "too many requests are being handled")
            return False
        running = _Running(message_id, place)
        self._running[message_id] = running
        source, first, _ = place
        self._places.setdefault((source.session, source.lane), {})[first] = running
        ttl_ms = extras.get(Tag.TTL_MS)
        if isinstance(ttl_ms, int):
            self._deadlines.set(message_id, now + ttl_ms / 1000)
        return True

    def is_known(self, peer: Peer, record: Record) -> bool:
        """Return whether a request is a copy of one that came before."""
        message_id = self._message_id(peer, record)
        return message_id is not None and self._seen.check(message_id, self._turn.now) is not None

    def _answer_again(
        self, peer: Peer, message_id: MessageId, outcome: Outcome, place: Place
    ) -> None:
        if outcome is not Outcome.ACCEPTED:
            self._settle(
                place, Outcome.REJECTED, "it was handled before, without a reply to repeat"
            )
            return
        # Where no reply is kept it is on its way already, or has arrived.
        reply = self._kept.get(message_id)
        if reply is not None:
            if not self._answer(peer, place[0].lane, reply, message_id):
                self._settle(place, Outcome.RELEASED, _TAKES_TOO_FEW)
                return
            del self._kept[message_id]
            self._kept_bytes -= size_of(reply)
        self._settle(place, Outcome.ACCEPTED)

    def on_cancel(self, peer: Peer, record: Record) -> None:
        """Have the handler of a request stopped: its caller waits no longer."""
        message_id = self._message_id(peer, record)
        running = None if message_id is None else self._running.get(message_id)
        if running is not None:
            self._cancel(running)

    def on_timer(self) -> None:
        """Have handlers stopped whose caller has given up by now, heard from or not."""
        for message_id in self._deadlines.due(self._turn.now):
            self._cancel(self._running[message_id])

    def _cancel(self, running: _Running) -> None:
        if not running.cancelled:
            running.cancelled = True
            source, first, _ = running.place
            self._turn.actions.append(CancelRequest(source, first))

    def _message_id(self, peer: Peer, record: Record) -> MessageId | None:
        number = extra(record, Tag.MESSAGE_ID)
        if not isinstance(number, int):
            return None
        return (peer.id, _journal(peer.incarnation), number)

    def _still_asks(self, peer: Peer, source: Source, message_id: MessageId | None) -> bool:
        """Return whether the process behind a peer is the one whose request that was."""
        if source.session == peer.session == peer.carrier.session:
            return True
        return message_id is not None and message_id[1] == _journal(peer.latest_incarnation)

    # Outcomes

    def on_reply(self, reply: Reply) -> None:
        """Answer a request, and accept it; reject it where its caller takes too few replies."""
        source = reply.source
        running = self._take(source, reply.first_seq)
        if len(reply.record) == 3:  # as most are
            record: Record = (*reply.record, (int(Tag.CORRELATION), reply.correlation))
        else:
            record = with_extra(reply.record, Tag.CORRELATION, reply.correlation)
        outcome, reason = Outcome.ACCEPTED, ""
        peer = self._turn.peers.find(source.node)
        message_id = None if running is None else running.message_id
        if peer is None:
            if message_id is not None:
                self._keep(message_id, record)
        elif not self._still_asks(peer, source, message_id):
            pass  # its numbers began anew: another call of it may have this one's
        elif not self._answer(peer, source.lane, record, message_id):
            outcome, reason = Outcome.REJECTED, f"it was handled, but {_TAKES_TOO_FEW}"
        if reason:
            self._settle((source, reply.first_seq, reply.last_seq), outcome, reason)
        else:
            self._accept(source, reply.first_seq, reply.last_seq)
        if running is not None:
            self._seen.finish(running.message_id, outcome, self._turn.now)
            for copy in running.copies:
                self._settle(copy, outcome, reason)

    def on_settled(self, settled: SettleDeliveries) -> None:
        """Note the outcome of requests that get no reply; `Turn.settle` tells their callers."""
        places = self._places.get((settled.source.session, settled.source.lane))
        if places is None:
            return
        numbers = range(settled.first_seq, settled.last_seq + 1)
        for number in [seq for seq in numbers if seq in places]:
            running = self._take(settled.source, number)
            if running is None:
                continue
            if settled.outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
                self._seen.finish(running.message_id, Outcome.REJECTED, self._turn.now)
            else:
                self._seen.forget(running.message_id)
            for source, first, last in running.copies:
                self._turn.settle(
                    source, first, last, settled.outcome, settled.reason, settled.delay
                )

    def on_returned(self, peer: Peer, returned: Returned, ended: SessionEnd | None) -> None:
        """Keep a reply that was not delivered, where its caller may ask again."""
        ticket = returned.ticket
        if not isinstance(ticket, ReplyTicket):
            return
        self.on_accepted(peer, (ticket,))  # owed no longer
        if ticket.message_id is not None and ended in _MAY_ASK_AGAIN:
            self._keep(ticket.message_id, returned.record)

    # Replies on their way: a caller that takes none must not fill the memory with them

    def _answer(self, peer: Peer, lane: int, reply: Record, message_id: MessageId | None) -> bool:
        """Send a reply; False where its caller has far too much to take already."""
        owed = self._owed.get(peer.id)
        if owed is None:
            owed = self._owed[peer.id] = _Owed()
        if owed.size >= REFUSED_FROM * self._options.link.queued_bytes_max:
            self.refused_replies += 1
            return False
        # What a reply has beside its body counts nothing against credit.
        ticket = ReplyTicket(message_id, len(reply[2]) + RECORD_OVERHEAD_BYTES)
        owed.messages += 1
        owed.size += ticket.size
        self._turn.submit(peer, lane, [reply], ticket)
        if ticket.failures:  # its body is too large to be sent
            self.on_accepted(peer, (ticket,))
        return True

    def on_accepted(self, peer: Peer, tickets: Iterable[Ticket]) -> None:
        """Note which of a peer's tickets are of replies it took."""
        owed = self._owed.get(peer.id)
        if owed is None:
            return
        for ticket in tickets:
            if type(ticket) is ReplyTicket:
                owed.messages -= 1
                owed.size -= ticket.size
        if not owed.messages:
            del self._owed[peer.id]

    def _owes_enough(self, peer: Peer) -> bool:
        """Return whether a caller has as many replies to take as a queue may hold.

        Not `Turn.room`: that counts posts as well, of which a queue may be full for long.
        """
        owed, link = self._owed.get(peer.id), self._options.link
        return owed is not None and (
            owed.messages >= link.queued_messages_max or owed.size >= link.queued_bytes_max
        )

    def _take(self, source: Source, first: int) -> _Running | None:
        place = (source.session, source.lane)
        running_by_number = self._places.get(place)
        running = None if running_by_number is None else running_by_number.pop(first, None)
        if running is not None:
            del self._running[running.message_id]
            self._deadlines.discard(running.message_id)
            if not running_by_number:
                del self._places[place]
        return running

    def _keep(self, message_id: MessageId, reply: Record) -> None:
        self._kept[message_id] = reply
        self._kept_bytes += size_of(reply)
        options = self._options
        while (
            len(self._kept) > options.replies_kept_max
            or self._kept_bytes > options.replies_kept_bytes_max
        ):
            oldest = next(iter(self._kept))
            self._kept_bytes -= size_of(self._kept.pop(oldest))
            if self._seen.begin(oldest, self._turn.now):
                self._seen.finish(oldest, Outcome.UNKNOWN, self._turn.now)

    def _accept(self, source: Source, first: int, last: int) -> None:
        """Accept what was answered, with what follows it in this turn."""
        if self.answered:
            before, low, high = self.answered[-1]
            if before is source and high + 1 == first:
                self.answered[-1] = (source, low, last)
                return
        self.answered.append((source, first, last))

    def flush(self) -> None:
        """Accept the requests that were answered in this turn.

        To whoever called the answer says all. So where they come closely one after the other, it
        waits for company.
        """
        if not self.answered:
            return
        answered = self.answered[:]
        self.answered.clear()
        now = self._turn.now
        lazy = now - self._answered_at < self._options.link.ack_delay_max
        self._answered_at = now
        for source, first, last in answered:
            self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=lazy)

    def _settle(self, place: Place, outcome: Outcome, reason: str = "") -> None:
        source, first, last = place
        self._turn.settle(source, first, last, outcome, reason)  # with the reply, if there is one


def _journal(incarnation: int) -> JournalId:
    """Return what stands for a caller's process: its counter of requests starts with it."""
    return JournalId(incarnation.to_bytes(16, "big"))
