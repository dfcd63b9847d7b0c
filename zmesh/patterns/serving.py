"""Requests: handed to the handlers of this node's services, each once, and answered.

A request that comes again by another way (its caller moved it here and back, or lost the session)
is known by its message id: while it is handled the answer will do for all copies, and afterwards
it is answered from memory as far as that reaches. A request whose time is over is taken back from
the application without being told: its caller may be out of reach.

Requests that came together are noted together, and answered together where they are ready so;
what is to be said of one alone parts nothing.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import inf
from operator import itemgetter
from typing import cast

from zmesh.actions import CancelRequest, Delivery
from zmesh.batches import Block, largest_of, runs
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.events import Reply, ReplyEach, SettleDeliveries, Source
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
    tag_rows,
    values_of,
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


_BODY = itemgetter(2)
_TARGET = itemgetter(1)


class ReplyTicket(InternalTicket):
    """The ticket of replies that left together: which calls they answer, with which requests.

    `ids` are those of the requests, None where one has none.
    """

    __slots__ = ("calls", "ids", "noted", "open", "size")

    def __init__(self, ids: Sequence[MessageId | None], calls: Sequence[int], size: int) -> None:
        super().__init__(len(ids))
        self.ids = ids
        self.calls = calls
        self.size = size  # of those without outcome, about: the last has all that is left
        self.open = len(ids)
        self.noted = 0  # acceptances

    def request_of(self, reply: Record) -> MessageId | None:
        """Return the id of the request that a reply of these answers."""
        call = extra(reply, Tag.CORRELATION)
        return self.ids[self.calls.index(call)] if isinstance(call, int) else None


Place = tuple[Source, int, int]
"""Where a copy of a request came from, and its numbers there."""


@dataclass(slots=True, eq=False)
class _Running:
    """Requests with consecutive numbers that the application has, or had: one, or a run."""

    source: Source
    first: int
    ids: list[MessageId]
    open: int  # how many it still has
    copies: dict[int, list[Place]] | None = None  # of each, by its number, that came since
    cancelled: set[int] | None = None  # numbers

    def number_of(self, message_id: MessageId) -> int:
        """Return the number of one of them."""
        return self.first + self.ids.index(message_id)


@dataclass(slots=True)
class _Owed:
    """Replies on their way to one caller."""

    messages: int = 0
    size: int = 0

    def pay(self, ticket: ReplyTicket, count: int) -> None:
        """Take so many replies off that left with a ticket."""
        size = ticket.size if count == ticket.open else ticket.size * count // ticket.open
        ticket.open -= count
        ticket.size -= size
        self.messages -= count
        self.size -= size


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
        self._deadlines: Deadlines[_Running] = Deadlines(turn.agenda)
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
        if (
            len(records) > 1
            and not owes_enough
            and self._begin_together(peer, source, first, records)
        ):
            self._turn.deliver_requests(Delivery(source, peer.label, first, last, records))
            return
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

    def _begin_together(
        self, peer: Peer, source: Source, first: int, records: Sequence[Record]
    ) -> bool:
        """Note requests that came together; False where something is to be said of one alone."""
        rows = tag_rows(records)
        row = next(iter(rows))
        targets = records.targets if type(records) is Block else set(map(_TARGET, records))
        if len(rows) > 1 or Tag.MESSAGE_ID not in row:
            return False
        if not self._turn.peers.local.services.keys() >= targets:
            return False
        times = set(values_of(records, row, Tag.TTL_MS)) if Tag.TTL_MS in row else {None}
        numbers = cast("list[int]", values_of(records, row, Tag.MESSAGE_ID))
        if len(times) > 1 or len(set(numbers)) < len(numbers):
            return False
        journal, now = _journal(peer.incarnation), self._turn.now
        ids = list(zip(repeat(peer.id), repeat(journal), numbers, strict=False))
        if not self._seen.begin_all(ids, now):
            return False
        self._note(_Running(source, first, ids, len(ids)), times.pop())
        return True

    def _note(self, running: _Running, ttl_ms: object) -> None:
        source, first, ids = running.source, running.first, running.ids
        places = self._places.setdefault((source.session, source.lane), {})
        if len(ids) == 1:
            self._running[ids[0]] = places[first] = running
        else:
            self._running.update(dict.fromkeys(ids, running))
            places.update(dict.fromkeys(range(first, first + len(ids)), running))
        if isinstance(ttl_ms, int):
            self._deadlines.set(running, self._turn.now + ttl_ms / 1000)

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
                self._add_copy(message_id, place)
            else:
                self._answer_again(peer, message_id, state, place)
            return False
        if not self._seen.begin(message_id, now):
            self._settle(place, Outcome.RELEASED, "too many requests are being handled")
            return False
        self._note(_Running(place[0], place[1], [message_id], 1), extras.get(Tag.TTL_MS))
        return True

    def _add_copy(self, message_id: MessageId, place: Place) -> None:
        running = self._running[message_id]
        if running.copies is None:
            running.copies = {}
        running.copies.setdefault(running.number_of(message_id), []).append(place)

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
            call = cast("int", extra(reply, Tag.CORRELATION))
            if not self._answer(peer, place[0].lane, reply, call, message_id):
                self._settle(place, Outcome.RELEASED, _TAKES_TOO_FEW)
                return
            del self._kept[message_id]
            self._kept_bytes -= size_of(reply)
        self._settle(place, Outcome.ACCEPTED)

    def on_cancel(self, peer: Peer, record: Record) -> None:
        """Have the handler of a request stopped: its caller waits no longer."""
        message_id = self._message_id(peer, record)
        running = None if message_id is None else self._running.get(message_id)
        if running is not None and message_id is not None:
            self._cancel(running, running.number_of(message_id))

    def on_timer(self) -> None:
        """Have handlers stopped whose caller has given up by now, heard from or not."""
        for running in self._deadlines.due(self._turn.now):
            source = running.source
            places = self._places[source.session, source.lane]
            for number in range(running.first, running.first + len(running.ids)):
                if places.get(number) is running:
                    self._cancel(running, number)

    def _cancel(self, running: _Running, number: int) -> None:
        if running.cancelled is None:
            running.cancelled = set()
        if number not in running.cancelled:
            running.cancelled.add(number)
            self._turn.actions.append(CancelRequest(running.source, number))

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
        numbers = reply.first_seq, reply.last_seq
        self._reply(reply.source, *numbers, reply.correlation, reply.record)

    def _reply(self, source: Source, first: int, last: int, call: int, reply: Record) -> None:
        taken = self._take(source, first)
        message_id, copies = (None, ()) if taken is None else taken
        if len(reply) == 3:  # as most are
            record: Record = (*reply, (int(Tag.CORRELATION), call))
        else:
            record = with_extra(reply, Tag.CORRELATION, call)
        outcome, reason = Outcome.ACCEPTED, ""
        peer = self._turn.peers.find(source.node)
        if peer is None:
            if message_id is not None:
                self._keep(message_id, record)
        elif not self._still_asks(peer, source, message_id):
            pass  # its numbers began anew: another call of it may have this one's
        elif not self._answer(peer, source.lane, record, call, message_id):
            outcome, reason = Outcome.REJECTED, f"it was handled, but {_TAKES_TOO_FEW}"
        if reason:
            self._settle((source, first, last), outcome, reason)
        else:
            self._accept(source, first, last)
        if message_id is not None:
            self._seen.finish(message_id, outcome, self._turn.now)
        for copy in copies:
            self._settle(copy, outcome, reason)

    def on_reply_each(self, each: ReplyEach) -> None:
        """Answer requests, and accept them: together, where all is as it mostly is."""
        peer = self._turn.peers.find(each.source.node)
        if peer is not None and len(each.numbers) > 1 and self._answer_together(peer, each):
            return
        for number, call, record in zip(
            each.numbers, each.correlations, each.records, strict=True
        ):
            self._reply(each.source, number, number, call, record)

    def _answer_together(self, peer: Peer, each: ReplyEach) -> bool:
        source, numbers, link = each.source, each.numbers, self._options.link
        places = self._places.get((source.session, source.lane))
        if places is None or not source.session == peer.session == peer.carrier.session:
            return False
        found = list(map(places.get, numbers))
        if None in found:
            return False
        running = Counter(cast("list[_Running]", found))
        size = sum(map(len, map(_BODY, each.records))) + len(numbers) * RECORD_OVERHEAD_BYTES
        owed = self._owed.get(peer.id) or _Owed()
        if (
            any(one.copies for one in running)
            or largest_of(each.records) > min(link.fragment_bytes, link.body_bytes_max)
            or owed.size + size > REFUSED_FROM * link.queued_bytes_max
        ):
            return False
        ids = self._end_together(source, numbers, running)
        self._owed[peer.id] = owed
        owed.messages += len(ids)
        owed.size += size
        ticket = ReplyTicket(ids, each.correlations, size)
        self._turn.submit(peer, source.lane, _correlated(each), ticket)
        self._seen.finish_all(ids, Outcome.ACCEPTED, self._turn.now)
        return True

    def _end_together(
        self, source: Source, numbers: list[int], running: "Counter[_Running]"
    ) -> list[MessageId]:
        """Take requests back that were answered, and accept them; return their ids."""
        places = self._places[source.session, source.lane]
        low, high = numbers[0], numbers[-1]
        is_range = numbers == list(range(low, high + 1))
        if is_range and len(running) == 1:
            [one] = running
            ids = one.ids[low - one.first : high - one.first + 1]
        else:
            found = map(places.__getitem__, numbers)
            ids = [one.ids[number - one.first] for one, number in zip(found, numbers, strict=True)]
        for number in numbers:
            del places[number]
        if not places:
            del self._places[source.session, source.lane]
        for message_id in ids:
            del self._running[message_id]
        for one, count in running.items():
            self._end(one, count)
        ranges = [(low, high)] if is_range else [(number, number) for number in sorted(numbers)]
        for first, last in ranges:
            self._accept(source, first, last)
        return ids

    def on_settled(self, settled: SettleDeliveries) -> None:
        """Note the outcome of requests that get no reply; `Turn.settle` tells their callers."""
        places = self._places.get((settled.source.session, settled.source.lane))
        if places is None:
            return
        numbers = range(settled.first_seq, settled.last_seq + 1)
        for number in [seq for seq in numbers if seq in places]:
            taken = self._take(settled.source, number)
            if taken is None:
                continue
            message_id, copies = taken
            if settled.outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
                self._seen.finish(message_id, Outcome.REJECTED, self._turn.now)
            else:
                self._seen.forget(message_id)
            for source, first, last in copies:
                self._turn.settle(
                    source, first, last, settled.outcome, settled.reason, settled.delay
                )

    def on_returned(self, peer: Peer, returned: Returned, ended: SessionEnd | None) -> None:
        """Keep a reply that was not delivered, where its caller may ask again."""
        ticket = returned.ticket
        if not isinstance(ticket, ReplyTicket):
            return
        self._pay(peer, ticket, 1)  # owed no longer
        message_id = ticket.request_of(returned.record)
        if message_id is not None and ended in _MAY_ASK_AGAIN:
            self._keep(message_id, returned.record)

    # Replies on their way: a caller that takes none must not fill the memory with them

    def _answer(
        self, peer: Peer, lane: int, reply: Record, call: int, message_id: MessageId | None
    ) -> bool:
        """Send a reply; False where its caller has far too much to take already."""
        owed = self._owed.get(peer.id)
        if owed is None:
            owed = self._owed[peer.id] = _Owed()
        if owed.size >= REFUSED_FROM * self._options.link.queued_bytes_max:
            self.refused_replies += 1
            return False
        # What a reply has beside its body counts nothing against credit.
        size = len(reply[2]) + RECORD_OVERHEAD_BYTES
        ticket = ReplyTicket([message_id], [call], size)
        owed.messages += 1
        owed.size += size
        self._turn.submit(peer, lane, [reply], ticket)
        if ticket.failures:  # its body is too large to be sent
            self._pay(peer, ticket, 1)
        return True

    def on_accepted(self, peer: Peer, tickets: Iterable[Ticket]) -> None:
        """Note which of a peer's tickets are of replies it took."""
        for ticket in tickets:
            if type(ticket) is ReplyTicket:
                count, ticket.noted = ticket.accepted - ticket.noted, ticket.accepted
                self._pay(peer, ticket, count)

    def _pay(self, peer: Peer, ticket: ReplyTicket, count: int) -> None:
        owed = self._owed.get(peer.id)
        if owed is None or not count:
            return
        owed.pay(ticket, count)
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

    def _take(self, source: Source, number: int) -> tuple[MessageId, Sequence[Place]] | None:
        """Take a request back that has its outcome; return its id, and where copies came from."""
        place = (source.session, source.lane)
        running_by_number = self._places.get(place)
        running = None if running_by_number is None else running_by_number.pop(number, None)
        if running is None:
            return None
        if not running_by_number:
            del self._places[place]
        message_id = running.ids[number - running.first]
        del self._running[message_id]
        self._end(running, 1)
        return message_id, running.copies.pop(number, ()) if running.copies else ()

    def _end(self, running: _Running, count: int) -> None:
        """Note that the application has so many of these no longer."""
        running.open -= count
        if not running.open:
            self._deadlines.discard(running)

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


def _correlated(each: ReplyEach) -> list[Record]:
    """Return replies as they travel: with the calls they answer."""
    replies = zip(each.records, each.correlations, strict=True)
    if max(map(len, each.records)) > 3:
        return [with_extra(record, Tag.CORRELATION, call) for record, call in replies]
    tag = int(Tag.CORRELATION)
    return [(record[0], record[1], record[2], (tag, call)) for record, call in replies]
