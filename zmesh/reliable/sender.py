"""The sending half of a lane: numbers, what waits, what is under way, what became of it.

A record is kept from `submit` until its SETTLE: an ACK only ends its retransmission. Numbers are
contiguous and given at submission; one that expired or was withdrawn before it was ever sent is
a *hole*, and the receiver is told so by GAP when the sending position passes it.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, islice, repeat
from typing import cast

from zmesh.batches import Block, TicketRun
from zmesh.message import Outcome, Record, Ticket, size_of, sizes_of
from zmesh.reliable.fragments import Cutter
from zmesh.reliable.link_events import Returned
from zmesh.reliable.send_window import Chunk, SendWindow
from zmesh.reliable.spans import ENDED_SPANS_MIN, Span, expiry_of, part_of, run_numbers, with_ttl

LOOKED_BACK = 64
"""Records under way that are looked at to know the peer's window: of large ones it holds fewer."""


class OutgoingLane(SendWindow[Record]):
    """One priority's records on their way to one peer.

    `seq_limit` and `bytes_limit` are the peer's credit, absolute. `gaps` collects what to tell
    the peer by GAP, `(first, last, bytes)`. `deadlines` holds when records expire.
    """

    __slots__ = (
        "_block_messages", "_blocks", "_by_ticket", "_gone", "_packet_bytes", "_sizes", "_spans",
        "_uncut", "bytes_limit", "cutter", "deadlines", "gaps", "lane", "queued_bytes",
        "sent_bytes", "seq_limit", "waiting_since", "window_bytes",
    )  # fmt: skip

    def __init__(self, lane: int, ranges_max: int, cutter: Cutter, packet_bytes: int = 0) -> None:
        """Blocks of up to `packet_bytes` are not cut, if that takes no more than an ACK."""
        super().__init__(ranges_max)
        self.lane = lane
        self.cutter = cutter
        self._packet_bytes = packet_bytes
        self.seq_limit = 0
        self.bytes_limit = 0
        self.sent_bytes = 0
        self.queued_bytes = 0
        self.gaps: list[tuple[int, int, int]] = []
        self.deadlines: dict[int, float] = {}
        self.waiting_since = 0.0
        self.window_bytes = 0  # the peer's window is at least this
        self._gone: set[int] = set()  # transmitted, then given up: GAP said so
        self._sizes: dict[int, int] = {}  # of what is in `items`, as counted against credit
        self._spans: deque[Span] = deque()
        self._uncut: deque[int] = deque()  # large bodies whose turn has not come
        self._blocks: deque[Span] = deque()  # with a block that was not transmitted to its end
        self._block_messages = 0  # kept in blocks, and not in `items`
        self._by_ticket: dict[Ticket, list[Span]] = {}  # so that a withdrawal need not search

    @property
    def kept(self) -> int:
        """How many records have no outcome."""
        return len(self.items) + self._block_messages

    # Submission

    def submit(self, records: Sequence[Record], ticket: Ticket, now: float) -> tuple[int, int]:
        """Number the records; each ends on its own. Of a `TicketRun` each has its own ticket."""
        if type(records) is Block:
            return self._submit_block(records, ticket, now)
        if len(records) == 1:
            seq = self.submit_single(records[0], ticket, now)
            return seq, seq
        first, last = self._enqueue(records, now)
        self._append(Span(first, last, ticket, last - first + 1))
        return first, last

    def submit_single(self, record: Record, ticket: Ticket, now: float) -> int:
        """Number one record: what `submit` does, written out for calls and their answers."""
        seq = self.next_seq
        if self.next_transmit == seq:
            self.waiting_since = now
        self.next_seq = seq + 1
        self.items[seq] = record
        self._sizes[seq] = size = size_of(record)
        self.queued_bytes += size
        self._append(Span(seq, seq, ticket, 1))
        return seq

    def _submit_block(self, block: Block, ticket: Ticket, now: float) -> tuple[int, int]:
        first = self.next_seq
        if self.next_transmit == first:
            self.waiting_since = now
        self.next_seq = first + len(block)
        self.queued_bytes += block.size
        self._block_messages += len(block)
        span = Span(first, self.next_seq - 1, ticket, len(block), block=block)
        self._append(span)
        self._blocks.append(span)
        return first, span.last

    def submit_large(self, record: Record, ticket: Ticket, now: float) -> tuple[int, int]:
        """Give a large body as many numbers as it may need; it is cut when its turn comes."""
        first = self.submit_single(record, ticket, now)
        self.next_seq = first + self.cutter.count_max(record)
        self._uncut.append(first)
        return first, self.next_seq - 1

    def _cut(self) -> None:
        """Cut the large body that is transmitted next, if any, unless it goes whole."""
        seq = self.next_transmit
        if self._uncut[0] <= seq:
            self._look_at_window()
        while self._uncut and self._uncut[0] <= seq:
            record = self.items.get(seq) if self._uncut.popleft() == seq else None
            pieces = [] if record is None else self.cutter.cut(record, self.window_bytes)
            if len(pieces) < 2:
                continue
            [span] = self._between(seq, seq)
            span.cut(record, len(pieces))
            sizes, numbers = sizes_of(pieces), range(seq, span.last + 1)
            self.queued_bytes += sum(sizes) - self._sizes[seq]
            self.items.update(zip(numbers, pieces, strict=True))
            self._sizes.update(zip(numbers, sizes, strict=True))

    def _look_at_window(self) -> None:
        """Find out what the peer's window is at least: its credit above all that it has."""
        seq = self.next_transmit
        first = max(self.acked.cum + 1, seq - LOOKED_BACK)
        under_way = sum(self._sizes.get(number, 0) for number in range(first, seq))
        shown = self.bytes_limit - self.sent_bytes + under_way
        self.window_bytes = max(self.window_bytes, shown)

    def _append(self, span: Span) -> None:
        self._spans.append(span)
        if type(span.ticket) is TicketRun:
            span.ticket.join(self)
        self._by_ticket.setdefault(span.ticket, []).append(span)

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
        return seq in self.items or seq > self.acked.cum or self._is_in_block(seq)

    def _is_in_block(self, seq: int) -> bool:
        return any(one.block and seq > one.last - one.remaining for one in self._between(seq, seq))

    def grant(self, seq_limit: int, bytes_limit: int) -> None:
        """Raise the credit; a lower limit is old news."""
        self.seq_limit = max(self.seq_limit, seq_limit)
        self.bytes_limit = max(self.bytes_limit, bytes_limit)
        self.window_bytes = max(self.window_bytes, self.bytes_limit - self.sent_bytes)

    def forget_credit(self) -> None:
        """Wait for another peer's word, where nothing was transmitted yet."""
        self.seq_limit = self.bytes_limit = self.window_bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether something is not yet transmitted, with or without credit for it."""
        return self.next_transmit < self.next_seq or self.resend.count > 0

    @property
    def ready(self) -> bool:
        """Whether something can be transmitted now."""
        seq = self.next_transmit
        if self.resend.count > 0:
            return True
        if seq < self.next_seq and seq <= self.seq_limit:
            if self._uncut:
                self._cut()
            span = self._block_at(seq) if self._blocks else None
            if span is not None:
                return self._is_block_ready(span, seq)
            return self.sent_bytes + self._sizes.get(seq, 0) <= self.bytes_limit
        return False

    def _block_at(self, seq: int) -> Span | None:
        """Return the span of the number that is transmitted next, where that is in a block."""
        blocks = self._blocks
        return blocks[0] if blocks and blocks[0].first <= seq else None

    def _is_block_ready(self, span: Span, seq: int) -> bool:
        block, allowed = cast("Block", span.block), self.bytes_limit - self.sent_bytes
        if seq == span.first and block.size <= self._packet_bytes:
            if span.last <= self.seq_limit and block.size <= allowed:
                return True
            if self.acked.cum < seq - 1:
                return False  # an ACK comes soon, and may bring credit for all of it
        index = seq - span.first
        return block.size_of(index, index + 1) <= allowed

    @property
    def block_bytes(self) -> int:
        """Bytes of the block that can be transmitted next, where it should not be cut; else 0."""
        span = self._block_at(self.next_transmit)
        if span is None or self.resend.count or self.next_transmit != span.first:
            return 0
        size = cast("Block", span.block).size
        fits = span.last <= self.seq_limit and self.sent_bytes + size <= self.bytes_limit
        return size if fits and size <= self._packet_bytes else 0

    def take(self, budget: int, count_max: int, now: float) -> Chunk[Record] | None:
        """Return the next records to transmit, about `budget` bytes of them and at least one.

        None where what was ready has meanwhile been settled or become a hole.
        """
        chunk = self._take_lost(budget, count_max) if self.resend.count else None
        chunk = chunk or self._take_new(budget, count_max, now)
        if chunk is None:
            return None
        self.waiting_since = now
        return with_ttl(chunk, self.deadlines, now) if self.deadlines else chunk

    def _take_lost(self, budget: int, count_max: int) -> Chunk[Record] | None:
        self._part_blocks()
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

    def _take_new(self, budget: int, count_max: int, now: float) -> Chunk[Record] | None:
        items, seq, end = self.items, self.next_transmit, self.next_seq
        if self._blocks:
            span = self._block_at(seq)
            if span is not None:
                return self._take_block(span, budget, count_max, now)
            end = self._blocks[0].first
        if self._uncut:
            self._cut()
            end = min(end, *self._uncut) if self._uncut else end
        last = min(end - 1, self.seq_limit)
        if seq == last and seq in items:  # one record, as when somebody waits for each
            size = self._sizes[seq]
            if self.sent_bytes + size > self.bytes_limit:
                return None
            self.next_transmit = seq + 1
            self.sent_bytes += size
            return seq, (items[seq],), size
        seq = self._pass_holes(seq, last)
        span = self._block_at(seq)
        if span is not None:  # behind holes
            self.next_transmit = seq
            return self._take_block(span, budget, count_max, now)
        mean = max(1, self.queued_bytes // max(1, self.kept))
        records = self.run(seq, min(last, seq + count_max - 1, seq + budget // mean))
        ends = list(accumulate(map(self._sizes.__getitem__, range(seq, seq + len(records)))))
        allowed = self.bytes_limit - self.sent_bytes
        del records[min(bisect_left(ends, budget) + 1, bisect_right(ends, allowed)) :]
        size = ends[len(records) - 1] if records else 0
        self.sent_bytes += size
        # A body that went whole left some, and GAP is to go with it.
        self.next_transmit = self._pass_holes(seq + len(records), last) if records else seq
        return (seq, records, size) if records else None

    def _pass_holes(self, seq: int, last: int) -> int:
        """Return the first number from `seq` on with a record; those before it are gaps."""
        first = seq
        while seq <= last and seq not in self.items:
            seq += 1
        if seq > first:
            self.gaps.append((first, seq - 1, 0))
        return seq

    def _take_block(
        self, span: Span, budget: int, count_max: int, now: float
    ) -> Chunk[Record] | None:
        """Return all of a block, so that it is packed once for all peers, or a part of it."""
        block, seq = cast("Block", span.block), self.next_transmit
        start, allowed = seq - span.first, self.bytes_limit - self.sent_bytes
        stop = min(len(block), start + count_max, self.seq_limit - span.first + 1)
        stop, size = block.part(start, stop, budget, allowed)
        if stop == start:
            return None
        self.next_transmit = span.first + stop
        self.sent_bytes += size
        if stop == len(block):
            self._blocks.popleft()
        return seq, part_of(block, start, stop, now), size

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
        left = right = 0  # the first and the last that are to be dropped
        for span in self._between(first, last):
            if left and span.first != right + 1:  # a look at what ended before would not pay
                self._drop(left, right)
                left = 0
            if span.block is not None:
                if is_accepted and first <= span.last - span.remaining + 1:
                    tickets += self._accept_block(span, min(last, span.last))
                    continue
                self._part_block(span)
            if is_accepted and span.first == span.last and span.whole is None:
                span.remaining = 0  # posted one by one: dropped below, many at once
                left, right = left or span.first, span.first
                span.ticket.accepted += 1
                tickets.append(span.ticket)
                continue
            if is_accepted and isinstance(span.ticket, TicketRun):
                tickets += self._accept_each(span, max(first, span.first), min(last, span.last))
                continue
            low, high = max(first, span.first), min(last, span.last)
            if not is_accepted or span.whole is not None:
                accepted = self._end(span, low, high, outcome, details, returned)
            else:
                accepted = len(self._drop(low, high))
                span.remaining -= accepted
            if accepted:
                span.ticket.accepted += accepted
                tickets.append(span.ticket)
        if left:
            self._drop(left, right)
        return tickets, returned

    def _accept_block(self, span: Span, last: int) -> Sequence[Ticket]:
        """Take it that a block is accepted up to and with `last`; return tickets with more."""
        block, stop = cast("Block", span.block), last - span.first + 1
        start = len(block) - span.remaining
        if stop <= start:
            return ()
        self._block_messages -= stop - start
        self.queued_bytes -= block.size_of(start, stop)
        span.remaining = len(block) - stop
        if not span.remaining:
            span.block = None
        if type(span.ticket) is TicketRun:
            return span.ticket.on_accepted(self, start, stop - 1)
        span.ticket.accepted += stop - start
        return (span.ticket,)

    def _accept_each(self, span: Span, first: int, last: int) -> list[Ticket]:
        """Accept numbers of a run that fell apart."""
        tickets = [span.ticket_of(seq) for seq in range(first, last + 1) if self._drop(seq, seq)]
        for ticket in tickets:
            ticket.accepted += 1
        span.remaining -= len(tickets)
        return tickets

    def _part_block(self, span: Span) -> None:
        """Note of each record of a block what is noted of others: they do not end in order."""
        block, span.block = span.block, None
        if block is None:
            return
        start = len(block) - span.remaining
        numbers = range(span.first + start, span.last + 1)
        self._block_messages -= span.remaining
        self.items.update(zip(numbers, block[start:], strict=True))
        self._sizes.update(zip(numbers, block.sizes(start), strict=True))
        if block.deadline is not None:
            self.deadlines.update(dict.fromkeys(numbers, block.deadline))
        if span.last >= self.next_transmit:
            self._blocks.remove(span)

    def _part_blocks(self) -> None:
        if self._block_messages:
            for span in self._spans:
                self._part_block(span)

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
        spans, by_ticket = self._spans, self._by_ticket
        while spans and not spans[0].remaining:
            span = spans.popleft()
            siblings = by_ticket.pop(span.ticket)
            if len(siblings) > 1:
                siblings.remove(span)
                by_ticket[span.ticket] = siblings

    def _forget_behind(self) -> deque[Span]:
        """Forget spans that ended behind one that lasts; return those that are left."""
        self._spans = deque(span for span in self._spans if span.remaining)
        self._by_ticket.clear()
        for span in self._spans:
            self._by_ticket.setdefault(span.ticket, []).append(span)
        return self._spans

    def _between(self, first: int, last: int) -> list[Span]:
        """Return the live spans that overlap `first..last`, ascending."""
        spans = self._spans
        if spans and not spans[0].remaining:
            self._forget_ended()
        elif len(spans) > 2 * self.kept + ENDED_SPANS_MIN:
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

    def expiries(self) -> list[tuple[int, float]]:
        """Return when records expire: of what was submitted together one number, and when."""
        found = [expiry_of(span, self.deadlines) for span in self._spans if span.remaining]
        return [each for each in found if each is not None]

    def expire(self, first: int, deadline: float) -> list[Returned]:
        """Give up what expires then of what was submitted together, from this number on."""
        due: list[int] = []
        for span in self._between(first, first):
            self._part_block(span)
            numbers = range(first, span.last + 1)
            due = [seq for seq in numbers if self.deadlines.get(seq) == deadline]
        return [each for seq in due for each in self.give_up(seq, Outcome.EXPIRED)]

    def give_up(self, first: int, outcome: Outcome) -> list[Returned]:
        """Stop trying to deliver the record (with all its fragments) numbered `first`.

        What was never sent comes back at once and leaves holes. What was sent and is not acked is
        announced by GAP, and the peer's verdict decides; what is acked is the peer's already.
        """
        returned: list[Returned] = []
        for span in self._between(first, first):
            self._part_block(span)
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
            self._part_block(span)
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
        return returned

    def open_numbers(self, ticket: Ticket, *, in_runs: bool = False) -> list[int]:
        """Return the numbers of a ticket, but for spans of which all has its outcome."""
        spans = [span for span in self._by_ticket.get(ticket, ()) if span.remaining]
        numbers = [seq for span in spans for seq in range(span.first, span.last + 1)]
        return numbers or (run_numbers(self._spans, ticket) if in_runs else [])

    def number_of(self, ticket: Ticket, index: int) -> int | None:
        """Return the number of one of the small records submitted with a ticket, in one go."""
        spans = self._by_ticket.get(ticket)
        return spans[0].first + index if spans else None

    def open_of(self, ticket: Ticket) -> list[tuple[Record, bool]]:
        """Return the records of a ticket without outcome, and whether each was transmitted."""
        spans, items, sent = self._by_ticket.get(ticket, ()), self.items, self.next_transmit
        for span in spans:
            self._part_block(span)
        numbers = (seq for span in spans for seq in range(span.first, span.last + 1))
        return [(items[seq], seq < sent) for seq in numbers if seq in items]

    def abandon(self) -> list[Returned]:
        """End the session: what was sent is UNKNOWN, what was not is RELEASED."""
        returned: list[Returned] = []
        self._part_blocks()
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
