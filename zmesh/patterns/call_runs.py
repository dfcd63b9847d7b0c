"""Calls by the run: those of one turn that ask for nothing special ask one provider together.

That is most calls, and then nothing is made for each of them but the request itself. One that does
not end with an answer of whom it asked first goes on by itself, as a call that was made alone.
"""

from collections.abc import Sequence
from itertools import count

from zmesh.core.peers import InternalTicket, Peer
from zmesh.message import Kind, Record, Tag, extra, tag_rows, values_of

_MESSAGE_ID = int(Tag.MESSAGE_ID)
_CORRELATION = int(Tag.CORRELATION)


class CallRun(InternalTicket):
    """Calls with one provider, and the ticket of their requests; none was moved or given up."""

    __slots__ = ("at", "deadline", "first_id", "lane", "numbers", "open", "provider", "records")

    def __init__(
        self,
        provider: Peer,
        numbers: Sequence[int],
        records: Sequence[Record],
        lane: int,
        deadline: float | None,
        first_id: int,
        at: float,
    ) -> None:
        super().__init__(len(records))
        self.provider = provider
        self.numbers = numbers
        self.records: Sequence[Record] = numbered(records, numbers, first_id)  # as they travel
        self.lane = lane
        self.deadline = deadline
        self.first_id = first_id  # the message id of its first request; the others follow
        self.at = at
        self.open = len(records)  # calls that are still in it

    @property
    def service(self) -> str:
        """What they ask."""
        return self.records[0][1]


def numbered(records: Sequence[Record], numbers: Sequence[int], first_id: int) -> list[Record]:
    """Return requests with consecutive message ids, and the numbers of their calls.

    All that they may have beside is headers.
    """
    if len(records) == 1 and len(records[0]) == 3:
        return [(*records[0], (_MESSAGE_ID, first_id, _CORRELATION, numbers[0]))]
    each = zip(count(first_id), numbers, records, strict=False)
    if max(map(len, records)) == 3:
        return [
            (record[0], record[1], record[2], (_MESSAGE_ID, own, _CORRELATION, call))
            for own, call, record in each
        ]
    return [
        (
            record[0],
            record[1],
            record[2],
            (*(record[3:] or ((),))[0], _MESSAGE_ID, own, _CORRELATION, call),
        )
        for own, call, record in each
    ]


def answered(records: Sequence[Record]) -> list[int] | None:
    """Return the calls that records answer, where all are replies to one each; else None."""
    if len(records) == 1:
        record = records[0]
        call = extra(record, Tag.CORRELATION)
        return [call] if isinstance(call, int) and record[0] & 15 == Kind.REPLY else None
    if {record[0] & 15 for record in records} != {Kind.REPLY}:
        return None
    rows = tag_rows(records)
    row = next(iter(rows))
    if len(rows) > 1 or _CORRELATION not in row:
        return None
    calls: list[int] = values_of(records, row, _CORRELATION)  # type: ignore[assignment]  # checked
    return calls if len(set(calls)) == len(calls) else None
