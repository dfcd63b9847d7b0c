"""Publications: to every node with a matching subscription, this one included.

The publisher filters, so a node gets a publication once however many of its subscriptions match,
and not at all where none does.
"""

from zmesh.actions import Delivery, PeerState
from zmesh.batches import runs
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.events import Publish, Source
from zmesh.message import Failure, FailureKind, Outcome, Record
from zmesh.patterns.interest import InterestTable

_SILENT = (PeerState.BUSY, PeerState.SUSPECT)


class PublishSubscribe:
    """Sends publications to those who want them, and hands over those that came."""

    def __init__(self, turn: Turn, interest: InterestTable) -> None:
        self._turn = turn
        self._interest = interest
        self.unwanted = 0  # arrived after the last subscription to their topic ended

    def receivers(self, topic: str) -> list[Peer]:
        """Return the nodes a publication on a topic goes to now."""
        return [peer for peer in self._interest.receivers(topic) if peer.present]

    def room(self, topic: str) -> int | None:
        """Return how many publications on a topic fit the fullest receiver that takes any.

        One that is silent with a full queue does not count: `on_publish` fails it at once, so
        that it holds nobody up. None where nobody receives.
        """
        rooms = [
            self._turn.room(peer) for peer in self.receivers(topic) if not self._is_stuck(peer)
        ]
        return min(rooms, default=None)

    def on_publish(self, publish: Publish) -> None:
        """Submit a publication to all receivers; its ticket counts their outcomes."""
        turn, ticket, record = self._turn, publish.ticket, publish.record
        receivers = self.receivers(record[1])
        ticket.expected = len(receivers)
        if publish.ttl is not None:
            ticket.expires = turn.now + publish.ttl
        if not receivers:
            turn.note_accepted((ticket,))
        records = [record]
        for peer in receivers:
            if self._is_stuck(peer):
                why = "it is silent and its queue is full: this was not sent"
                turn.fail(ticket, Failure(FailureKind.PEER_LOST, peer.label, why))
            else:
                turn.submit(peer, publish.lane, records, ticket, key=publish.key, ttl=publish.ttl)

    def _is_stuck(self, peer: Peer) -> bool:
        return peer.state in _SILENT and self._turn.room(peer) <= 0

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: list[Record]
    ) -> None:
        """Hand publications over; those nobody here wants any more are accepted."""
        tokens = [self._interest.tokens(record[1]) for record in records]
        if all(tokens):
            delivery = Delivery(source, peer.label, first, last, records)
            self._turn.deliver_publications(delivery, tokens)
            return
        start = 0
        for wanted, low, high, run in runs(first, last, records, [bool(t) for t in tokens]):
            stop = start + len(run)
            if wanted:
                delivery = Delivery(source, peer.label, low, high, run)
                self._turn.deliver_publications(delivery, tokens[start:stop])
            else:
                self.unwanted += len(run)
                self._turn.settle(source, low, high, Outcome.ACCEPTED, lazy=True)
            start = stop
