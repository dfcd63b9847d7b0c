"""What became of stored messages that came here: none is handled again while its sender has it.

A message from a node with a journal has a number there for good (`Tag.STORED`), and is sent until
its outcome is known, by whatever session, in whatever life of either side. So its outcome is kept
here, on disk where there is a journal and before anybody is told, until the sender says that it
has forgotten the message. What is kept is thus bounded by what is under way, not by time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from zmesh.batches import runs
from zmesh.core.keeper import Keeper
from zmesh.errors import ZmeshError
from zmesh.events import Source
from zmesh.ids import NODE_ID_BYTES, NodeId
from zmesh.message import Outcome, Record, Tag, extra
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import (
    POSITION_MAX,
    Answer,
    DropStream,
    ForgetOutcomes,
    OutcomesRead,
    Ranges,
    ReadOutcomes,
    StoredOutcome,
    StoreOutcomes,
    Stream,
    StreamKind,
)

RANGES_MAX: Final = 100_000
"""Ranges of numbers kept of one sender; then nothing new of it is taken until it catches up."""

ORIGINS_MAX: Final = 16_384
"""Senders with a journal that are known: a stranger must not fill the disk with names."""

_FINAL: Final = (Outcome.ACCEPTED, Outcome.REJECTED)
_CROWDED_DELAY_S: Final = 1.0

Place = tuple[Source, int, int]
"""Where a copy of a message came from, and its numbers there."""

Settle = Callable[..., None]
"""`Turn.settle_now`."""


@dataclass(slots=True, eq=False)
class _Origin:
    """A sender's journal, and what is known of its messages."""

    node: NodeId
    journal: bytes
    accepted: RangeSet = field(default_factory=RangeSet)
    rejected: dict[int, str] = field(default_factory=dict)  # with the reason
    pending: dict[int, list[Place]] = field(default_factory=dict)  # the application has; copies
    gone: set[int] = field(default_factory=set)  # of these: their sender has forgotten them

    @property
    def stream(self) -> Stream:
        return Stream(StreamKind.LANE_IN, self.node + self.journal)

    def lasting(self, numbers: list[int]) -> list[int]:
        """Return those of the numbers that may be sent again: of the others nothing is kept."""
        if not self.gone:
            return numbers
        lasting = [number for number in numbers if number not in self.gone]
        self.gone.difference_update(numbers)
        return lasting

    def is_new(self, numbers: Sequence[int]) -> bool:
        """Return whether none of these came before, as far as can be told at a glance."""
        if self.rejected or not self.pending.keys().isdisjoint(numbers):
            return False
        return not self.accepted or min(numbers) > self.accepted.last


class Handled:
    """The memory of one node. `settle` is to be set before anything arrives."""

    def __init__(self, keeper: Keeper) -> None:
        self.settle: Settle
        self.open: dict[tuple[NodeId, bytes, int], tuple[_Origin, dict[int, int]]] = {}
        self.duplicates = 0
        self._keeper = keeper
        self._origins: dict[NodeId, _Origin] = {}

    def __len__(self) -> int:
        """Count what the senders may not know yet, in ranges of numbers."""
        return sum(len(each.accepted) + len(each.rejected) for each in self._origins.values())

    # What comes

    def admit(
        self, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> list[tuple[int, int, Sequence[Record]]]:
        """Return what is to be handled, in runs; all else gets its outcome here, now or later."""
        numbers = [extra(record, Tag.STORED) for record in records]
        stored = [number for number in numbers if isinstance(number, int)]
        if not stored:
            return [(first, last, records)]
        if not 0 < min(stored) <= max(stored) <= POSITION_MAX:
            self.settle(source, first, last, Outcome.REJECTED, "numbers that no journal gives")
            return []
        origin = self._origin(source.node, source.journal)
        if origin is None or len(origin.accepted) + len(origin.rejected) > RANGES_MAX:
            reason = "too many outcomes that senders have not taken note of"
            self.settle(source, first, last, Outcome.RELEASED, reason, _CROWDED_DELAY_S)
            return []
        if len(stored) == len(records) == len(set(stored)) and origin.is_new(stored):
            self._begin(origin, source, dict(zip(range(first, last + 1), stored, strict=False)))
            return [(first, last, records)]
        is_alone = len(records) == 1  # and may have come in fragments, with a number each
        labels = [
            not isinstance(number, int)
            or self._admit_one(origin, (source, seq, last if is_alone else seq), number)
            for seq, number in enumerate(numbers, first)
        ]
        return [
            (low, high, run)
            for is_new, low, high, run in runs(first, last, records, labels)
            if is_new
        ]

    def is_known(self, source: Source, record: Record) -> bool:
        """Return whether a record is a copy of one that came before, and whose outcome is kept."""
        number = extra(record, Tag.STORED)
        origin = self._origins.get(source.node)
        if not isinstance(number, int) or origin is None or origin.journal != source.journal:
            return False
        known = (origin.pending, origin.accepted, origin.rejected)
        return any(number in numbers for numbers in known)

    def _admit_one(self, origin: _Origin, place: Place, number: int) -> bool:
        if number in origin.pending:
            origin.pending[number].append(place)
        elif number in origin.accepted:
            self.settle(*place, Outcome.ACCEPTED)
        elif number in origin.rejected:
            self.settle(*place, Outcome.REJECTED, origin.rejected[number])
        else:
            self._begin(origin, place[0], {place[1]: number})
            return True
        self.duplicates += 1
        return False

    def _begin(self, origin: _Origin, source: Source, numbers: dict[int, int]) -> None:
        for number in numbers.values():
            origin.pending[number] = []
        key = (source.node, source.session, source.lane)
        opened = self.open.get(key)
        if opened is None:
            self.open[key] = (origin, numbers)
        else:
            opened[1].update(numbers)

    def _origin(self, node: NodeId, journal: bytes) -> _Origin | None:
        """Return what is known of a sender; None where there is no room for another one."""
        origin = self._origins.get(node)
        if origin is None and len(self._origins) >= ORIGINS_MAX:
            return None
        if origin is None or origin.journal != journal:
            if origin is not None and self._keeper.is_there:
                self._keeper.write(DropStream(origin.stream))  # nobody will send these again
            origin = self._origins[node] = _Origin(node, journal)
        return origin

    # Outcomes

    def on_settle(
        self, source: Source, first: int, last: int, outcome: Outcome, reason: str, delay: float
    ) -> bool:
        """Take the application's verdict; whether it is passed on from here, now or later."""
        key = (source.node, source.session, source.lane)
        opened = self.open.get(key)
        if opened is None:
            return False
        origin, held = opened
        numbers = [held.pop(seq) for seq in range(first, last + 1) if seq in held]
        if not held:
            del self.open[key]
        if not numbers:
            return False
        places: list[Place] = [(source, first, last)]
        for number in numbers:
            places += origin.pending.pop(number, ())

        def pass_on(error: ZmeshError | None) -> None:
            if error is None:  # else the sender keeps it, for another life of this node
                for place in places:
                    self.settle(*place, outcome, reason, delay)

        is_over = self._origins.get(origin.node) is not origin  # its sender has another journal
        numbers = [] if is_over else origin.lasting(numbers)
        if outcome not in _FINAL or not numbers:
            pass_on(None)
            return True
        self._note(origin, numbers, outcome, reason)
        if self._keeper.is_there:
            ranges = RangeSet(tuple((number, number) for number in numbers)).as_tuple()
            kept = tuple(StoredOutcome(low, high, outcome, reason) for low, high in ranges)
            self._keeper.write(StoreOutcomes(origin.stream, kept), then=pass_on)
        else:
            pass_on(None)
        return True

    def _note(
        self, origin: _Origin, numbers: Sequence[int], outcome: Outcome, reason: str
    ) -> None:
        if outcome is Outcome.REJECTED:
            origin.rejected.update(dict.fromkeys(numbers, reason))
        elif numbers[-1] - numbers[0] == len(numbers) - 1:
            origin.accepted.add(numbers[0], numbers[-1])
        else:
            for number in numbers:
                origin.accepted.add(number, number)

    def drop(self, source: Source, first: int, last: int) -> None:
        """Forget that these came: they were not handled, and nobody has them any more."""
        opened = self.open.get((source.node, source.session, source.lane))
        if opened is not None:
            origin, held = opened
            for seq in range(first, last + 1):
                if seq in held:
                    number = held.pop(seq)
                    origin.pending.pop(number, None)
                    origin.gone.discard(number)

    def on_known(self, node: NodeId, journal: bytes, floor: int, ranges: Ranges) -> None:
        """Take note of what a sender has forgotten: all below a number, and ranges of others."""
        origin = self._origins.get(node)
        if origin is None or origin.journal != journal:
            return
        gone = [
            (max(0, low), min(high, POSITION_MAX))
            for low, high in ((0, floor - 1), *ranges)
            if low <= high and high >= 0 and low <= POSITION_MAX
        ]
        removed = 0
        for low, high in gone:
            removed += origin.accepted.remove(low, high)
            origin.gone.update(number for number in origin.pending if low <= number <= high)
            for number in [each for each in origin.rejected if low <= each <= high]:
                del origin.rejected[number]
                removed += 1
        if removed and self._keeper.is_there:
            self._keeper.later(ForgetOutcomes(origin.stream, tuple(gone)))

    # Another life

    def remember(self, node: NodeId, journal: bytes, ranges: Ranges) -> None:
        """Take note of what was accepted in an earlier life, as somebody else kept it."""
        origin = self._origin(node, journal)
        if origin is not None:
            for low, high in ranges:
                origin.accepted.add(low, high)

    def restore(self, stream: Stream, then: Callable[[ZmeshError | None], None]) -> None:
        """Read what an earlier life kept of a sender."""
        node = NodeId(stream.owner[:NODE_ID_BYTES])
        origin = _Origin(node, stream.owner[NODE_ID_BYTES:])
        self._origins[node] = origin

        def on_read(answer: Answer | ZmeshError) -> None:
            if not isinstance(answer, OutcomesRead):
                then(answer if isinstance(answer, ZmeshError) else None)
                return
            for each in answer.outcomes:
                if each.outcome is Outcome.ACCEPTED:
                    origin.accepted.add(each.first, each.last)
                else:
                    numbers = range(each.first, each.last + 1)
                    origin.rejected.update(dict.fromkeys(numbers, each.reason))
            if answer.is_end:
                then(None)
            else:
                after = answer.outcomes[-1].last
                self._keeper.read(ReadOutcomes(stream, after), on_read)

        self._keeper.read(ReadOutcomes(stream), on_read)
