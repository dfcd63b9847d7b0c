"""What was submitted to a lane together, and who is told what became of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from zmesh.batches import Block, TicketRun
from zmesh.message import Extras, Outcome, Record, Tag, Ticket, tag_rows, with_extra
from zmesh.reliable.send_window import Chunk

_TTL_MS: Final = Tag.TTL_MS

ENDED_SPANS_MIN = 64
"""Fewer are not worth being forgotten at once."""


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive numbers submitted with one ticket.

    `whole` is the record a fragmented body was before it was split: its numbers end as one, by the
    `verdict` on the first. (Of a body that was given up the peer may have got any pieces.)

    `block` has the records themselves, as long as they end in order: the last `remaining` of them
    are kept, and nothing is noted for each.
    """

    first: int
    last: int
    ticket: Ticket
    remaining: int
    whole: Record | None = None
    verdict: tuple[Outcome, str, float] | None = None
    block: Block | None = None

    def ticket_of(self, seq: int) -> Ticket:
        """Return the ticket of one number, which is not accepted in its turn."""
        ticket = self.ticket
        return ticket.part()[seq - self.first] if isinstance(ticket, TicketRun) else ticket

    def cut(self, record: Record | None, count: int) -> None:
        """Note that its only record is sent in so many pieces."""
        self.whole, self.remaining, self.last = record, count, self.first + count - 1


def run_numbers(spans: Iterable[Span], ticket: Ticket) -> list[int]:
    """Return the numbers of a ticket that was submitted in a run with others: it is searched."""
    numbers: list[int] = []
    for span in spans:
        run = span.ticket
        if span.remaining and type(run) is TicketRun and ticket in run.tickets:
            numbers.append(span.first + run.tickets.index(ticket))
    return numbers


def expiry_of(span: Span, deadlines: Mapping[int, float]) -> tuple[int, float] | None:
    """Return the first number of a span that expires, and when: those after it do so with it."""
    if span.block is not None:
        deadline = span.block.deadline
        return None if deadline is None else (span.first, deadline)
    if deadlines:
        for seq in range(span.first, span.last + 1):
            if seq in deadlines:
                return seq, deadlines[seq]
    return None


def with_ttl(chunk: Chunk[Record], deadlines: Mapping[int, float], now: float) -> Chunk[Record]:
    """Tell the receiver how long each record has left: clocks need not agree."""
    first, records, size = chunk
    if len(records) == 1:
        deadline = deadlines.get(first)
        return chunk if deadline is None else (first, (_told(records[0], deadline, now),), size)
    if isinstance(records, tuple):  # of a block, which tells of its own
        return chunk
    told = list(records)
    for index, record in enumerate(told):
        deadline = deadlines.get(first + index)
        if deadline is not None:
            told[index] = _told(record, deadline, now)
    return first, told, size


def _told(record: Record, deadline: float, now: float) -> Record:
    return with_extra(record, _TTL_MS, max(1, round((deadline - now) * 1000)))


def part_of(block: Block, start: int, stop: int, now: float) -> Sequence[Record]:
    """Return records of a block as they are transmitted: with the time left, if they expire."""
    records = block if stop - start == len(block) else block[start:stop]
    if block.deadline is None:
        return records
    left_ms, tag = max(1, round((block.deadline - now) * 1000)), int(Tag.TTL_MS)
    rows = tag_rows(records)
    row = cast("tuple[int, ...]", next(iter(rows)))
    if len(rows) > 1 or not row or row[0] <= tag:
        return tuple(with_extra(record, Tag.TTL_MS, left_ms) for record in records)
    # As in requests: nothing is looked up for each.
    each = cast("Sequence[tuple[int, str, bytes | memoryview, Extras]]", records)
    return tuple([(one[0], one[1], one[2], (tag, left_ms, *one[3])) for one in each])
