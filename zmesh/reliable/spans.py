"""What was submitted to a lane together, and who is told what became of it."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from zmesh.batches import Block, TicketRun
from zmesh.message import Extras, Outcome, Record, Tag, Ticket, tag_rows, with_extra
from zmesh.reliable.send_window import Chunk

ENDED_SPANS_MIN = 64
"""Fewer are not worth being forgotten at once."""


@dataclass(slots=True, eq=False)
class Span:
    """Consecutive numbers submitted with one ticket.

    `whole` is the record a fragmented body was before it was split: its numbers end as one, by the
    `verdict` on the first. (Of a body that was given up the peer may have got any pieces.)

    `block` has the records themselves, as long as they end in order: the last `remaining` of them
    are kept, and nothing is noted for each. All of them expire at its `deadline`.
    """

    first: int
    last: int
    ticket: Ticket
    remaining: int
    whole: Record | None = None
    verdict: tuple[Outcome, str, float] | None = None
    block: Block | None = None
    deadline: float | None = None

    def ticket_of(self, seq: int) -> Ticket:
        """Return the ticket of one number, which is not accepted in its turn."""
        ticket = self.ticket
        return ticket.part()[seq - self.first] if isinstance(ticket, TicketRun) else ticket

    def cut(self, record: Record | None, count: int) -> None:
        """Note that its only record is sent in so many pieces."""
        self.whole, self.remaining, self.last = record, count, self.first + count - 1


def with_ttl(chunk: Chunk[Record], deadlines: Mapping[int, float], now: float) -> Chunk[Record]:
    """Tell the receiver how long each record has left: clocks need not agree."""
    first, records, size = chunk
    if isinstance(records, tuple):  # of a block, which tells of its own
        return chunk
    told = list(records)
    for index, record in enumerate(told):
        deadline = deadlines.get(first + index)
        if deadline is not None:
            left_ms = max(1, round((deadline - now) * 1000))
            told[index] = with_extra(record, Tag.TTL_MS, left_ms)
    return first, told, size


def all_with_ttl(records: Sequence[Record], left_s: float) -> list[Record]:
    """Tell the receiver how long records have left that expire at the same time."""
    left_ms, tag = max(1, round(left_s * 1000)), int(Tag.TTL_MS)
    rows = tag_rows(records)
    row = cast("tuple[int, ...]", next(iter(rows)))
    if len(rows) > 1 or tag in row:
        return [with_extra(record, Tag.TTL_MS, left_ms) for record in records]
    if not row:
        return [(head, target, body, (tag, left_ms)) for head, target, body, *_ in records]
    place = 2 * bisect_left(row, tag)
    if not place:  # as of requests
        return [(each[0], each[1], each[2], (tag, left_ms, *each[3])) for each in _full(records)]
    return [
        (each[0], each[1], each[2], (*each[3][:place], tag, left_ms, *each[3][place:]))
        for each in _full(records)
    ]


def _full(records: Sequence[Record]) -> Sequence[tuple[int, str, bytes | memoryview, Extras]]:
    """Return records that have extras, all of them, as such."""
    return cast("Sequence[tuple[int, str, bytes | memoryview, Extras]]", records)
