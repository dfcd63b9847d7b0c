"""Telling receivers which stored messages are forgotten here, so that they forget the outcomes.

It is never urgent: what a receiver keeps until then is small. What was not told when a session
ended is told by the floor, the number below which nothing is left: with it the next one begins,
and where older messages kept it low then, it is told once more when they are gone.
"""

from collections.abc import Callable
from typing import Final, cast

from zmesh.actions import SenderForgot
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.errors import ProtocolError
from zmesh.events import Source
from zmesh.ids import NodeId
from zmesh.message import PRIORITY_DEFAULT, Kind, Record, head
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import POSITION_MAX, Ranges
from zmesh.wire.bodies import body_of, encode_body

TELL_COUNT: Final = 4096
"""Numbers gathered for a peer before it is told."""

TELL_AFTER_S: Final = 0.5
RANGES_TOLD_MAX: Final = 1024
"""At once, and taken note of at once: the floor tells the others."""


class Confirming:
    """What each peer is to be told, and what peers tell."""

    def __init__(self, turn: Turn, floor: Callable[[], int]) -> None:
        self._turn = turn
        self._floor = floor
        self._untold: dict[NodeId, RangeSet] = {}
        self._owed: dict[NodeId, int] = {}  # who is to hear of the floor once it is there
        self._due: Deadlines[NodeId | None] = Deadlines(turn.agenda)  # None: to look at the floor
        self._looks = False

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    def add(self, node: NodeId, first: int, last: int) -> None:
        """Note that messages which a peer has settled are forgotten."""
        untold = self._untold.get(node)
        if untold is None:
            untold = self._untold[node] = RangeSet()
            self._due.set(node, self._turn.now + TELL_AFTER_S)
        untold.add(first, last)
        if untold.count >= TELL_COUNT:
            self._tell(node)

    def on_timer(self) -> None:
        """Tell who was not told for a while."""
        for node in self._due.due(self._turn.now):
            if node is None:
                self._look()
            else:
                self._tell(node)

    def on_floor_moved(self) -> None:
        """Look soon whether the floor is where somebody waits for it."""
        if self._owed and not self._looks:
            self._looks = True
            self._due.set(None, self._turn.now + TELL_AFTER_S)

    def _look(self) -> None:
        self._looks = False
        floor = self._floor()
        for node in [node for node, number in self._owed.items() if number <= floor]:
            self._tell(node)

    def on_opened(self, peer: Peer) -> None:
        """Tell a peer whose session begins what is no longer here."""
        if self._turn.keeper.is_there:
            self._owed[peer.id] = self._turn.keeper.numbers_given
            self._submit(peer, ())

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what a peer was to be told: the floor tells it."""
        self._untold.pop(peer.id, None)
        self._owed.pop(peer.id, None)
        self._due.discard(peer.id)

    def _tell(self, node: NodeId) -> None:
        self._due.discard(node)
        untold = self._untold.pop(node, None)
        peer = self._turn.peers.find(node)
        if peer is not None and peer.session is not None:
            self._submit(peer, () if untold is None else untold.as_tuple(RANGES_TOLD_MAX))

    def _submit(self, peer: Peer, ranges: Ranges) -> None:
        flat = [number for pair in ranges for number in pair]
        floor = self._floor()
        if floor >= self._owed.get(peer.id, 0):
            self._owed.pop(peer.id, None)
        encoding, body = encode_body([floor, *flat])
        record = (head(Kind.DURABILITY, encoding), "known", body)
        self._turn.submit(peer, PRIORITY_DEFAULT, [record], InternalTicket())

    def on_record(self, peer: Peer, source: Source, record: Record) -> None:
        """Forget outcomes that their sender no longer needs."""
        try:
            told = body_of(record)
        except ProtocolError as error:
            self._turn.trace("confirmation_refused", 30, peer=peer.label, why=str(error))
            return
        match told:
            case [_, *rest] if len(rest) % 2 == 0 and all(map(_is_number, told)):
                floor, *flat = cast("list[int]", told)
                ranges = tuple(zip(flat[::2], flat[1::2], strict=True))
                # Each costs a look at everything that is kept of its sender.
                self._known(peer.id, source.journal, floor, ranges[:RANGES_TOLD_MAX])
            case _:
                pass  # of a later version, or what no journal gives: a database has no room for it

    def _known(self, node: NodeId, journal: bytes, floor: int, ranges: Ranges) -> None:
        self._turn.handled.on_known(node, journal, floor, ranges)
        self._turn.actions.append(SenderForgot(node, journal, None, floor, ranges))


def _is_number(value: object) -> bool:
    """Return whether a value is a number that a journal gives, or the one after them."""
    return type(value) is int and 0 <= value <= POSITION_MAX + 1
