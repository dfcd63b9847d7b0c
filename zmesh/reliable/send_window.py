"""Numbered items until they are released: what sending halves are made of, and control's own."""

from collections.abc import Sequence
from typing import Generic, TypeVar, assert_never, cast

from zmesh.errors import ProtocolError
from zmesh.reliable.ranges import RangeSet, Watermark
from zmesh.wire.frames import Control, Drain, Gap, Interest, Ranges, Refused, Settle

T = TypeVar("T")

Chunk = tuple[int, Sequence[T], int]
"""What goes into one DATA frame: first number, records, and their size in bytes."""


def control_size(record: Control) -> int:
    """Return about how many bytes a control record takes on the wire."""
    match record:
        case Settle(_, outcomes, ()):
            return 20 * len(outcomes)
        case Settle(_, outcomes, details):
            return 20 * len(outcomes) + sum(30 + 4 * len(reason) for _, reason, _ in details)
        case Gap(_, ranges):
            return 24 * len(ranges)
        case Interest(added, removed):
            return sum(16 + 4 * len(text) for _, text in added + removed)
        case Drain():
            return 2
        case Refused(entries):
            return sum(16 + 4 * (len(text) + len(reason)) for _, text, reason in entries)
        case _:
            assert_never(record)


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

    def run(self, first: int, last: int) -> list[T]:
        """Return the items from `first` on that follow each other without a hole."""
        run = list(map(self.items.get, range(first, last + 1)))
        if None in run:
            del run[run.index(None) :]
        return cast("list[T]", run)

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


class ControlQueue(SendWindow[Control]):
    """The control lane's sending half: no settlement; an ACK releases.

    Instead of credit there is a fixed `window`: the peer refuses numbers further above the lowest
    it lacks.
    """

    __slots__ = ("_window", "size")

    def __init__(self, ranges_max: int, window: int) -> None:
        super().__init__(ranges_max)
        self._window = window
        self.size = 0  # bytes of the items, about

    def enqueue(self, items: Sequence[Control]) -> tuple[int, int]:
        """Give each record its number; return the first and the last."""
        for record in items:
            self.size += control_size(record)
        return super().enqueue(items)

    @property
    def _last(self) -> int:
        """The highest number that may be transmitted now."""
        return min(self.next_seq - 1, self.acked.cum + self._window)

    @property
    def ready(self) -> bool:
        """Whether something can be (re)transmitted now."""
        return (
            self.next_transmit < self.next_seq
            and (self.next_transmit <= self.acked.cum + self._window)
        ) or self.resend.count > 0

    def acknowledge(self, cum: int, ranges: Ranges, *, resume: bool = False) -> None:
        """Take an ACK, or with `resume` what HELLO says, and forget what has arrived."""
        for first, last in self.resume(cum, ranges) if resume else self.on_ack(cum, ranges):
            for seq in range(first, last + 1):
                self.size -= control_size(self.items.pop(seq))

    def take(self, budget: int, count_max: int) -> Chunk[Control]:
        """Return the next records, about `budget` bytes and at least one; only when `ready`."""
        resending = self.resend.count > 0
        first, last = self.resend.pop_first() if resending else (self.next_transmit, self._last)
        if first == last:  # as mostly: what one turn settled
            record = self.items[first]
            if not resending:
                self.next_transmit = first + 1
            return first, [record], control_size(record)
        size, records = 0, list[Control]()
        for seq in range(first, min(last, first + count_max - 1) + 1):
            record = self.items[seq]
            records.append(record)
            size += control_size(record)
            if size >= budget:
                break
        after = first + len(records)
        if resending:
            self.resend.add(after, last)
        else:
            self.next_transmit = after
        return first, records, size
