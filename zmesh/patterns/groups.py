"""Groups: what a member does with what is fanned out to it.

A message that comes again by another session (its sender lost the first one and could not know how
far it had come) is known by its id: while the application has it, the verdict goes to all copies,
and afterwards each copy is given the outcome there was. `fan_out` is the other side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from zmesh.actions import Delivery
from zmesh.batches import runs
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import SettleDeliveries, Source
from zmesh.ids import JournalId
from zmesh.message import InterestKind, Outcome, Record, Tag, extra
from zmesh.options import NodeOptions
from zmesh.reliable.seen import PENDING, MessageId, SeenTable

_FINAL = (Outcome.ACCEPTED, Outcome.REJECTED)
"""Outcomes after which a message is not handled again."""

Place = tuple[Source, int, int]
"""Where a copy of a message came from, and its numbers there."""


@dataclass(slots=True)
class _Handled:
    """A message the application has, and copies of it that came since."""

    message_id: MessageId
    copies: list[Place] = field(default_factory=list)


class Groups:
    """The receiving side of fan-outs."""

    def __init__(self, turn: Turn, options: NodeOptions) -> None:
        self._turn = turn
        self._seen = SeenTable(options.seen_messages_max, options.seen_horizon)
        self._handled: dict[MessageId, _Handled] = {}
        self._places: dict[tuple[bytes, int], dict[int, _Handled]] = {}  # session, lane -> number
        self.duplicates = 0

    def __len__(self) -> int:
        """Count the messages the application has."""
        return len(self._handled)

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Hand messages over, but for copies and those of groups this node is not in."""
        single = len(records) == 1
        labels = [
            record[1]
            if self._admit(peer, record, (source, seq, last if single else seq))
            else None
            for seq, record in enumerate(records, first)
        ]
        for group, low, high, run in runs(first, last, records, labels):
            if group is not None:
                self._turn.deliver_group(Delivery(source, peer.label, low, high, run))

    def _admit(self, peer: Peer, record: Record, place: Place) -> bool:
        """Return whether a message is to be handled; if not, it is settled here or later."""
        if record[1] not in self._turn.peers.local.interests[InterestKind.GROUP]:
            self._settle(place, Outcome.RELEASED, "it is not in the group")
            return False
        if extra(record, Tag.STORED) is not None:
            return True  # `core.handled` knows copies of it, in all lives of its sender
        number = extra(record, Tag.MESSAGE_ID)
        if not isinstance(number, int):
            return True
        journal = JournalId(peer.incarnation.to_bytes(16, "big"))  # of the sender's process
        message_id = (peer.id, journal, number)
        state = self._seen.check(message_id, self._turn.now)
        if state is not None:
            self.duplicates += 1
            if state is PENDING:
                self._handled[message_id].copies.append(place)
            else:
                reason = "" if state is Outcome.ACCEPTED else "it was rejected before"
                self._settle(place, state, reason)
            return False
        if not self._seen.begin(message_id, self._turn.now):
            self._settle(place, Outcome.RELEASED, "too many messages are being handled")
            return False
        source, first, _ = place
        handled = self._handled[message_id] = _Handled(message_id)
        self._places.setdefault((source.session, source.lane), {})[first] = handled
        return True

    def on_settled(self, settled: SettleDeliveries) -> None:
        """Note the application's verdict, and let copies have it; `Turn.settle` passes it on."""
        place = (settled.source.session, settled.source.lane)
        places = self._places.get(place)
        if places is None:
            return
        numbers = range(settled.first_seq, settled.last_seq + 1)
        for number in [seq for seq in numbers if seq in places]:
            handled = places.pop(number)
            del self._handled[handled.message_id]
            if settled.outcome in _FINAL:
                self._seen.finish(handled.message_id, settled.outcome, self._turn.now)
            else:
                self._seen.forget(handled.message_id)
            for source, first, last in handled.copies:
                self._turn.settle(
                    source, first, last, settled.outcome, settled.reason, settled.delay
                )
        if not places:
            del self._places[place]

    def _settle(self, place: Place, outcome: Outcome, reason: str) -> None:
        source, first, last = place
        self._turn.settle(source, first, last, outcome, reason)
