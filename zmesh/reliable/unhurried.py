"""What was accepted, and nobody waits to hear of: noted at once, taken in and told together."""

from collections.abc import Mapping

from zmesh.message import Outcome
from zmesh.reliable.receiver import IncomingLane

SETTLED_TOGETHER = 64
"""So many verdicts that nobody waits for go with the next packet; fewer wait for company."""


class Unhurried:
    """Ranges of one session that were accepted, until their lanes know and the peer was told.

    Before the peer is told of anything that depends on them, the lanes are let know (`take_in`).
    Where more came than `light_bytes` a record (`are_large`) that is done at once: it is to be
    known how much memory and credit they hold.
    """

    __slots__ = ("_packet_bytes", "are_large", "bytes", "light_bytes", "messages", "ranges")

    def __init__(self, packet_bytes: int) -> None:
        """More than `packet_bytes` is not to wait."""
        self._packet_bytes = packet_bytes
        self.light_bytes = packet_bytes // SETTLED_TOGETHER  # of a record: then it never is
        self.are_large = False
        self.ranges: list[tuple[int, int, int]] = []  # lane, first and last; no lane knows yet
        self.messages = 0  # which the peer was not told of, whether lanes know of them or not
        self.bytes = 0  # of these, where lanes know

    def add(self, lane: int, first: int, last: int) -> None:
        """Note what was accepted."""
        self.messages += last - first + 1
        ranges = self.ranges
        if ranges:
            before, start, end = ranges[-1]
            if before == lane and end + 1 == first:
                ranges[-1] = (lane, start, last)
                return
        ranges.append((lane, first, last))

    def take_in(self, incoming: Mapping[int, IncomingLane]) -> list[int]:
        """Let lanes know; return which there are news of."""
        ranges, self.ranges = self.ranges, []
        lanes: list[int] = []
        for number, first, last in ranges:
            lane = incoming.get(number)
            if lane is not None:
                before = lane.credit.consumed_bytes
                if lane.settle(first, last, Outcome.ACCEPTED):
                    lanes.append(number)
                self.bytes += lane.credit.consumed_bytes - before
        return lanes

    @property
    def is_enough(self) -> bool:
        """Whether it is to be told with the next packet."""
        return self.messages >= SETTLED_TOGETHER or self.bytes >= self._packet_bytes

    def told(self) -> None:
        """Begin anew: the peer is told of all."""
        self.messages = self.bytes = 0
        self.are_large = False
