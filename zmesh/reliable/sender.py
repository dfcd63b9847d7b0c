"""The sending half of a lane: numbers, what waits, what is under way, what became of it.

A record is kept from `submit` until its SETTLE: an ACK only ends its retransmission. Numbers are
contiguous and given at submission; one that expired or was withdrawn before it was ever sent is
a *hole*, and the receiver is told so by GAP when the sending position passes it.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, compress, islice, repeat
from typing import Generic, TypeVar, cast

from zmesh.errors import ProtocolError
from zmesh.message import Outcome, Record, Tag, Ticket, size_of, sizes_of, with_extra
from zmesh.reliable.link_events import Returned
from zmesh.reliable.ranges import RangeSet, Watermark
from zmesh.wire.frames import Ranges

ENDED_SPANS_MIN = 64
"""Fewer are not worth being forgotten at once."""

T = TypeVar("T")

Chunk = tuple[int, list[T], int]
"""What goes into one DATA frame: first number, records, and their size in bytes."""


class SendWindow(Generic[T]):
    """Numbered items until they are released, and which of them to (re)transmit next."""

    __slots__ = ("acked", "items", "next_seq", "next_transmit", "resend")

    def __init__(self, ranges_max: int) -> None:
        self.items: dict[int, T] = {}
        self.next_seq = 1
        self.next_transmit = 1
        self.acked = Watermark(ranges_max)
        self.resend = RangeSet()

    def enqueue(self, items: Sequence[T]) -> tuple[int, int]:
        """Give each item its number; return the first and the last."""
        first = self.next_seq
        if len(items) == 1:
            self.items[first] = items[0]
            self.next_seq = first + 1
            return first, first
        self.next_seq = first + len(items)
        self.items.update(zip(range(first, self.next_seq), items, strict=True))
        return first, self.next_seq - 1

    def on_ack(self, cum: int, ranges: Ranges) -> list[tuple[int, int]]:
        """Note what the peer has received; return the numbers that are newly so.

        Raises ProtocolError where the peer acknowledges what was never sent.
        """
        acked = self.acked
        self._check_sent(ranges[-1][1] if ranges else cum)
        new = acked.advance(cum)
        for first, last in ranges:
            new += acked.add(first, last) or []
        if self.resend.count:
            for first, last in new:
                self.resend.remove(first, last)
        return new

    def resume(self, cum: int, ranges: Ranges) -> list[tuple[int, int]]:
        """Take the peer's word, at the start of a link, for what it has; resend the rest."""
        if cum < self.acked.cum:
            raise ProtocolError(
                "resume", f"peer has 1..{cum} and acked 1..{self.acked.cum} before"
            )
        new = self.on_ack(cum, ranges)
        acked = self.acked
        self.resend = RangeSet(tuple(acked.above.missing(acked.cum + 1, self.next_transmit - 1)))
        return new

    def covers(self, first: int, last: int) -> bool:
        """Return whether the peer has all of `first..last`."""
        acked = self.acked
        return last <= acked.cum or not acked.above.missing(max(first, acked.cum + 1), last)

    def on_lost(self, first: int, last: int) -> int:
        """Queue for retransmission what of `first..last` the peer lacks; return how many."""
        acked = self.acked
        lost = acked.above.missing(max(first, acked.cum + 1), last)
        return sum(self.resend.add(start, end) for start, end in lost)

    def _check_sent(self, seq: int) -> None:
        if seq >= self.next_transmit:
            raise ProtocolError("unsent", f"peer speaks of number {seq}, which was never sent")


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive numbers submitted with one ticket.

    `each`: of records that were submitted together, and have a ticket of their own, these; then
    `ticket` is the first of them. Such a ticket is that of one record alone.
    `whole` is the record a fragmented body was before it was split: its numbers end as one, by the
    `verdict` on the first. (Of a body that was given up the peer may have got any pieces.)
    """

    first: int
    last: int
    ticket: Ticket
    remaining: int
    whole: Record | None = None
    verdict: tuple[Outcome, str, float] | None = None
    each: Sequence[Ticket] | None = None

    def ticket_of(self, seq: int) -> Ticket:
        """Return the ticket of a number."""
        return self.ticket if self.each is None else self.each[seq - self.first]


class OutgoingLane(SendWindow[Record]):
    """One priority's records on their way to one peer.

    `seq_limit` and `bytes_limit` are the peer's credit, absolute. `gaps` collects what to tell
    the peer by GAP, `(first, last, bytes)`. `deadlines` holds when records expire.
    """

    __slots__ = (
        "_by_ticket",
        "_gone",
        "_sizes",
        "_spans",
        "bytes_limit",
        "deadlines",
        "gaps",
        "lane",
        "queued_bytes",
        "sent_bytes",
        "seq_limit",
        "waiting_since",
    )

    def __init__(self, lane: int, ranges_max: int) -> None:
        super().__init__(ranges_max)
        self.lane = lane
        self.seq_limit = 0
        self.bytes_limit = 0
        self.sent_bytes = 0
        self.queued_bytes = 0
        self.gaps: list[tuple[int, int, int]] = []
        self.deadlines: dict[int, float] = {}
        self.waiting_since = 0.0
        self._gone: set[int] = set()  # transmitted, then given up: GAP said so
        self._sizes: dict[int, int] = {}  # of what is in `items`, as counted against credit
        self._spans: deque[Span] = deque()
        self._by_ticket: dict[Ticket, list[Span]] = {}  # so that a withdrawal need not search

    # Submission

    def submit(self, records: Sequence[Record], ticket: Ticket, now: float) -> tuple[int, int]:
        """Number the records; each ends on its own."""
        if len(records) == 1:
            first = last = self._enqueue_single(records[0], now)
        else:
            first, last = self._enqueue(records, now)
        self._append(Span(first, last, ticket, last - first + 1))
        return first, last

    def submit_each(
        self, records: Sequence[Record], tickets: Sequence[Ticket], now: float
    ) -> tuple[int, int]:
        """Number records that have a ticket each."""
        first, last = self._enqueue(records, now)
        self._spans.append(Span(first, last, tickets[0], last - first + 1, each=tickets))
        return first, last

    def submit_whole(
        self, whole: Record, fragments: Sequence[Record], ticket: Ticket, now: float
    ) -> tuple[int, int]:
        """Number the fragments of one record, which end together."""
        first, last = self._enqueue(fragments, now)
        self._append(Span(first, last, ticket, last - first + 1, whole))
        return first, last

    def _append(self, span: Span) -> None:
        self._spans.append(span)
        siblings = self._by_ticket.get(span.ticket)
        if siblings is None:
            self._by_ticket[span.ticket] = [span]
        else:
            siblings.append(span)

    def _enqueue_single(self, record: Record, now: float) -> int:
        seq = self.next_seq
        if self.next_transmit == seq:
            self.waiting_since = now
        self.next_seq = seq + 1
        self.items[seq] = record
        self._sizes[seq] = size = size_of(record)
        self.queued_bytes += size
        return seq

    def _enqueue(self, records: Sequence[Record], now: float) -> tuple[int, int]:
        if self.next_transmit == self.next_seq:
            self.waiting_since = now
        sizes = sizes_of(records)
        self.queued_bytes += sum(sizes)
        first, last = self.enqueue(records)
        self._sizes.update(zip(range(first, last + 1), sizes, strict=True))
        return first, last

    # Transmission

    @property
    def first_open(self) -> int:
        """All numbers below this have an outcome."""
        self._forget_ended()
        return self._spans[0].first if self._spans else self.next_seq

    def is_open(self, seq: int) -> bool:
        """Whether a number may still hold up what names it: no outcome, or a GAP on its way."""
        return seq in self.items or seq > self.acked.cum

    def grant(self, seq_limit: int, bytes_limit: int) -> None:
        """Raise the credit; a lower limit is old news."""
        self.seq_limit = max(self.seq_limit, seq_limit)
        self.bytes_limit = max(self.bytes_limit, bytes_limit)

    @property
    def waiting(self) -> bool:
        """Whether something is not yet transmitted, with or without credit for it."""
        return self.next_transmit < self.next_seq or self.resend.count > 0

    @property
    def ready(self) -> bool:
        """Whether something can be transmitted now."""
        seq = self.next_transmit
        if seq < self.next_seq and seq <= self.seq_limit:
            return self.sent_bytes + self._sizes.get(seq, 0) <= self.bytes_limit or (
                self.resend.count > 0
            )
        return self.resend.count > 0

    def take(self, budget: int, count_max: int, now: float) -> Chunk[Record] | None:
        """Return the next records to transmit, about `budget` bytes of them and at least one.

        None where what was ready has meanwhile been settled or become a hole.
        """
        chunk = self._take_lost(budget, count_max) if self.resend.count else None
        if chunk is None:
            chunk = self._take_new(budget, count_max)
        if chunk is None:
            return None
        self.waiting_since = now
        if self.deadlines:
            self._write_ttl(chunk, now)
        return chunk

    def _take_lost(self, budget: int, count_max: int) -> Chunk[Record] | None:
        items, gone = self.items, self._gone
        while self.resend.count:
            seq, last = self.resend.pop_first()
            while seq <= last and (seq not in items or seq in gone):
                seq += 1
            first, size, records = seq, 0, list[Record]()
            while seq <= last and size < budget and len(records) < count_max:
                if seq not in items or seq in gone:
                    break
                record = items[seq]
                records.append(record)
                size += self._sizes[seq]
                seq += 1
            self.resend.add(seq, last)
            if records:
                return first, records, size
        return None

    def _take_new(self, budget: int, count_max: int) -> Chunk[Record] | None:
        items, seq = self.items, self.next_transmit
        last = min(self.next_seq - 1, self.seq_limit)
        if seq == last and seq in items:  # one record, as when somebody waits for each
            return self._take_single(seq)
        while seq <= last and seq not in items:
            seq += 1
        if seq > self.next_transmit:
            self.gaps.append((self.next_transmit, seq - 1, 0))
        records = self._run(seq, min(last, seq + count_max - 1), budget)
        ends = list(accumulate(map(self._sizes.__getitem__, range(seq, seq + len(records)))))
        allowed = self.bytes_limit - self.sent_bytes
        del records[min(bisect_left(ends, budget) + 1, bisect_right(ends, allowed)) :]
        size = ends[len(records) - 1] if records else 0
        self.next_transmit = seq + len(records)
        self.sent_bytes += size
        return (seq, records, size) if records else None

    def _take_single(self, seq: int) -> Chunk[Record] | None:
        size = self._sizes[seq]
        if self.sent_bytes + size > self.bytes_limit:
            return None
        self.next_transmit = seq + 1
        self.sent_bytes += size
        return seq, [self.items[seq]], size

    def _run(self, first: int, last: int, budget: int) -> list[Record]:
        """Return records from `first` on without a hole, as many as may fill the budget."""
        items = self.items
        if first > last or not items:
            return []
        mean = max(1, self.queued_bytes // len(items))
        last = min(last, first + budget // mean)
        run = list(map(items.get, range(first, last + 1)))
        if None in run:
            del run[run.index(None) :]
        return cast("list[Record]", run)

    def _write_ttl(self, chunk: Chunk[Record], now: float) -> None:
        """Tell the receiver how long each record has left: clocks need not agree."""
        first, records, _ = chunk
        for index, record in enumerate(records):
            deadline = self.deadlines.get(first + index)
            if deadline is not None:
                left_ms = max(1, round((deadline - now) * 1000))
                records[index] = with_extra(record, Tag.TTL_MS, left_ms)

    # Outcomes

    def on_settled(
        self, outcome: Outcome, first: int, last: int, details: dict[int, tuple[str, float]]
    ) -> tuple[list[Ticket], list[Returned]]:
        """Take the peer's verdict on `first..last`; what was settled before is left alone.

        `details` are `(reason, delay in seconds)` by number. Returns the tickets with more
        acceptances, and the records that ended otherwise. Raises ProtocolError for numbers
        never sent.
        """
        self._check_sent(last)
        tickets: list[Ticket] = []
        returned: list[Returned] = []
        is_accepted = outcome is Outcome.ACCEPTED
        left = 0  # to be dropped
        for span in self._between(first, last):
            if is_accepted and span.first == span.last and span.whole is None:
                span.remaining = 0  # posted one by one: dropped below, many at once
                left += 1
                span.ticket.accepted += 1
                tickets.append(span.ticket)
                continue
            low, high = max(first, span.first), min(last, span.last)
            if is_accepted and span.each is not None:
                tickets += self._accept_each(span, span.each, low, high)
                continue
            if not is_accepted or span.whole is not None:
                accepted = self._end(span, low, high, outcome, details, returned)
            else:
                accepted = len(self._drop(low, high))
                span.remaining -= accepted
            if accepted:
                span.ticket.accepted += accepted
                tickets.append(span.ticket)
        if left:
            self._drop(first, last)
        return tickets, returned

    def _accept_each(
        self, span: Span, each: Sequence[Ticket], low: int, high: int
    ) -> Sequence[Ticket]:
        """Accept what has no outcome yet of records with a ticket each; return their tickets."""
        tickets = each[low - span.first : high - span.first + 1]
        there = list(map(self.items.__contains__, range(low, high + 1)))
        if not all(there):
            tickets = list(compress(tickets, there))
        self._drop(low, high)
        span.remaining -= len(tickets)
        for ticket in tickets:
            ticket.accepted += 1
        return tickets

    def _end(
        self,
        span: Span,
        first: int,
        last: int,
        outcome: Outcome,
        details: dict[int, tuple[str, float]],
        returned: list[Returned],
        *,
        transmitted: bool = True,
    ) -> int:
        """Give numbers of one span an outcome; return how many records were accepted by it."""
        nothing = ("", 0.0)
        if span.whole is not None:
            if span.verdict is None and first == span.first:
                span.verdict = (outcome, *details.get(first, nothing))
            span.remaining -= len(self._drop(first, last))
            if span.remaining:
                return 0
            outcome, reason, delay = span.verdict or (outcome, *nothing)
            if outcome is Outcome.ACCEPTED:
                return 1
            returned.append(
                Returned(span.whole, span.ticket, self.lane, outcome, reason, delay, transmitted)
            )
            return 0
        for seq in range(first, last + 1):
            for record in self._drop(seq, seq):
                span.remaining -= 1
                reason, delay = details.get(seq, nothing)
                ticket = span.ticket_of(seq)
                returned.append(
                    Returned(record, ticket, self.lane, outcome, reason, delay, transmitted)
                )
        return 0

    def _drop(self, first: int, last: int) -> list[Record]:
        """Forget the numbers and return the records that were still kept for them."""
        if first == last:
            return self._drop_single(first)
        dropped = list(map(self.items.pop, range(first, last + 1), repeat(None)))
        if None in dropped:
            dropped = [record for record in dropped if record is not None]
        self.queued_bytes -= sum(map(self._sizes.pop, range(first, last + 1), repeat(0)))
        if self.deadlines:
            for seq in range(first, last + 1):
                self.deadlines.pop(seq, None)
        if self._gone:
            self._gone.difference_update(range(first, last + 1))
        return cast("list[Record]", dropped)

    def _drop_single(self, seq: int) -> list[Record]:
        record = self.items.pop(seq, None)
        if record is None:
            return []
        self.queued_bytes -= self._sizes.pop(seq)
        self.deadlines.pop(seq, None)
        self._gone.discard(seq)
        return [record]

    def _forget_ended(self) -> None:
        spans = self._spans
        while spans and spans[0].remaining == 0:
            span = spans.popleft()
            if span.each is not None:
                continue
            siblings = self._by_ticket[span.ticket]
            if len(siblings) == 1:
                del self._by_ticket[span.ticket]
            else:
                siblings.remove(span)

    def _forget_behind(self) -> deque[Span]:
        """Forget spans that ended behind one that lasts; return those that are left."""
        self._spans = deque(span for span in self._spans if span.remaining)
        self._by_ticket.clear()
        for span in self._spans:
            if span.each is None:
                self._by_ticket.setdefault(span.ticket, []).append(span)
        return self._spans

    def _between(self, first: int, last: int) -> list[Span]:
        """Return the live spans that overlap `first..last`, ascending."""
        spans = self._spans
        if spans and not spans[0].remaining:
            self._forget_ended()
        elif len(spans) > 2 * len(self.items) + ENDED_SPANS_MIN:
            spans = self._forget_behind()
        low, high = 0, len(spans)
        if spans and spans[0].last >= first:  # settled in the order sent, as most are
            high = 0
        while low < high:
            middle = (low + high) // 2
            if spans[middle].last < first:
                low = middle + 1
            else:
                high = middle
        found = []
        for span in islice(spans, low, None):
            if span.first > last:
                break
            if span.remaining:
                found.append(span)
        return found

    # Giving up

    def give_up(self, first: int, outcome: Outcome) -> list[Returned]:
        """Stop trying to deliver the record (with all its fragments) numbered `first`.

        What was never sent comes back at once and leaves holes. What was sent and is not acked is
        announced by GAP, and the peer's verdict decides; what is acked is the peer's already.
        """
        returned: list[Returned] = []
        for span in self._between(first, first):
            last = first if span.whole is None else span.last
            sent_last = min(last, self.next_transmit - 1)
            for seq in range(first, sent_last + 1):
                if seq in self.items and seq not in self.acked and seq not in self._gone:
                    self._gone.add(seq)
                    self.resend.remove(seq, seq)
                    self.gaps.append((seq, seq, self._sizes[seq]))
            unsent_first = max(first, self.next_transmit)
            fresh = sent_last < first
            self._end(span, unsent_first, last, outcome, {}, returned, transmitted=not fresh)
        return returned

    def refuse(self, seq: int, reason: str) -> list[Returned]:
        """End at once a record that turned out not to be sendable, with all its fragments.

        The peer is told by GAP of numbers it waits for; its verdict on them comes too late.
        """
        returned: list[Returned] = []
        for span in self._between(seq, seq):
            first, last = (seq, seq) if span.whole is None else (span.first, span.last)
            for number in range(first, min(last, self.next_transmit - 1) + 1):
                if number in self.items and number not in self._gone:
                    self.resend.remove(number, number)
                    self.gaps.append((number, number, self._sizes[number]))
            self._end(span, first, last, Outcome.REJECTED, {first: (reason, 0.0)}, returned)
        return returned

    def withdraw(self, ticket: Ticket) -> list[Returned]:
        """Give up everything submitted with the ticket, as RELEASED."""
        returned: list[Returned] = []
        for span in [span for span in self._by_ticket.get(ticket, ()) if span.remaining]:
            firsts = [span.first] if span.whole is not None else range(span.first, span.last + 1)
            for first in firsts:
                returned += self.give_up(first, Outcome.RELEASED)
        if ticket not in self._by_ticket:
            for first in self._places_of(ticket):
                returned += self.give_up(first, Outcome.RELEASED)
        return returned

    def _places_of(self, ticket: Ticket) -> list[int]:
        """Return the number of the record whose own this ticket is, if it has no outcome."""
        found = [
            span.first + span.each.index(ticket)
            for span in self._spans
            if span.each is not None and ticket in span.each
        ]
        return [seq for seq in found if seq in self.items]

    def holds(self, ticket: Ticket) -> bool:
        """Return whether something submitted with the ticket has no outcome yet."""
        if ticket not in self._by_ticket:
            return bool(self._places_of(ticket))
        return any(span.remaining for span in self._by_ticket[ticket])

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return the records of a ticket without outcome, and whether each was transmitted."""
        spans, items, sent = self._by_ticket.get(ticket, ()), self.items, self.next_transmit
        numbers = (seq for span in spans for seq in range(span.first, span.last + 1))
        return [(items[seq], seq < sent) for seq in numbers if seq in items]

    def abandon(self) -> list[Returned]:
        """End the session: what was sent is UNKNOWN, what was not is RELEASED."""
        returned: list[Returned] = []
        for span in [span for span in self._spans if span.remaining]:
            if span.whole is not None:
                sent = span.first < self.next_transmit
                outcome = Outcome.UNKNOWN if sent else Outcome.RELEASED
                span.verdict = None  # on some of it: nobody knows about the rest
                self._end(span, span.first, span.last, outcome, {}, returned, transmitted=sent)
                continue
            sent_last = min(span.last, self.next_transmit - 1)
            self._end(span, span.first, sent_last, Outcome.UNKNOWN, {}, returned)
            unsent = max(span.first, self.next_transmit)
            self._end(span, unsent, span.last, Outcome.RELEASED, {}, returned, transmitted=False)
        self._spans.clear()
        self._by_ticket.clear()
        return returned
