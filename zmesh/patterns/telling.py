"""What peers are told of queues, so much of it at a time that one who takes none fills no memory.

Offers and grants say how things stand, and peers can make us say so as often as they like. What
finds no room is said later, once, as things stand then.
"""

from collections.abc import Callable
from typing import Final

from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.ids import NodeId
from zmesh.message import LANES, Record

CONTROL_PRIORITY: Final = LANES - 1
"""The lane these travel on: what they set free should not wait behind jobs."""


class Telling:
    """Tells peers how things stand between them and this node.

    Args:
        turn: to submit through.
        say: returns how a queue stands with a peer, None where there is nothing to say (any more).
        answers_max: records to one peer that it has not taken.
        queues_max: queues that may wait to be told to one peer; those beyond are not told.
    """

    def __init__(
        self,
        turn: Turn,
        say: Callable[[Peer, str], Record | None],
        answers_max: int,
        queues_max: int,
    ) -> None:
        self._turn = turn
        self._say = say
        self._answers_max = answers_max
        self._queues_max = queues_max
        self._tickets: dict[NodeId, InternalTicket] = {}  # of all that a peer was told
        self._waiting: dict[Peer, dict[str, None]] = {}  # queues, by who is to be told of them
        self.gathered = (self._waiting,)  # empty: nothing to flush

    def tell(self, peer: Peer, queue: str) -> None:
        """Tell a peer how a queue stands, now or as soon as it has taken what was said before."""
        waiting = self._waiting.get(peer)
        if waiting is None and self._has_room(peer):
            self._send(peer, queue)
            return
        if waiting is None:
            waiting = self._waiting[peer] = {}
        if len(waiting) < self._queues_max:
            waiting[queue] = None

    def flush(self) -> None:
        """Tell what waited, where there is room."""
        for peer, queues in list(self._waiting.items()):
            while queues and self._has_room(peer):
                queue = next(iter(queues))
                del queues[queue]
                self._send(peer, queue)
            if not queues:
                del self._waiting[peer]

    def forget(self, peer: Peer) -> None:
        """Forget what was to be told to a peer: the session is over."""
        self._tickets.pop(peer.id, None)
        self._waiting.pop(peer, None)

    def _has_room(self, peer: Peer) -> bool:
        ticket = self._tickets.get(peer.id)
        return ticket is None or ticket.expected - ticket.accepted < self._answers_max

    def _send(self, peer: Peer, queue: str) -> None:
        record = self._say(peer, queue)
        if record is None:
            return
        ticket = self._tickets.get(peer.id)
        if ticket is None:
            ticket = self._tickets[peer.id] = InternalTicket(0)
        ticket.expected += 1
        self._turn.submit(peer, CONTROL_PRIORITY, [record], ticket)
