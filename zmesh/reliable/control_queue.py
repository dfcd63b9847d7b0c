"""The sending half of the control lane: settlements, gaps, interest and drain."""

from collections.abc import Sequence
from typing import assert_never

from zmesh.reliable.sender import Chunk, SendWindow
from zmesh.wire.frames import Control, Drain, Gap, Interest, Ranges, Refused, Settle


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
