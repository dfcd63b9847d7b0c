"""Direct messages: to one peer's inbox, by name or id."""

from collections.abc import Callable, Sequence

from zmesh.actions import Delivery
from zmesh.batches import TicketRun, runs
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.errors import AmbiguousPeer, PeerUnknown
from zmesh.events import Post, PostEach, Source
from zmesh.ids import NodeId
from zmesh.message import Failure, FailureKind, Outcome, Record, Tag, extra, with_extra


class Direct:
    """Sends direct messages, and holds those that came until the application reads its inbox.

    `reach` finds the peer of a name or id, taking it in where only a hint of it is known; it
    raises PeerUnknown or AmbiguousPeer.
    """

    def __init__(self, turn: Turn, reach: Callable[[str | NodeId], Peer]) -> None:
        self._turn = turn
        self._reach = reach
        self._open = False
        self._draining = False
        self._posts = 0
        self._held: list[tuple[Delivery, float]] = []  # with its arrival; bounded by credit

    @property
    def held(self) -> int:
        """How many records wait for the inbox to be read."""
        return sum(len(delivery.records) for delivery, _ in self._held)

    def on_post(self, post: Post) -> None:
        """Submit records to a peer, whether there is a link to it or not."""
        peer = self._peer_of(post.to)
        if isinstance(peer, Failure):
            for _ in post.records:
                self._turn.fail(post.ticket, peer)
            return
        if not post.records:
            self._turn.note_accepted((post.ticket,))
            return
        self._posts += 1
        ticket, ttl = post.ticket, post.ttl
        if not ticket.order:
            ticket.order = self._posts
        if ttl is not None:
            ticket.expires = self._turn.now + ttl
        self._turn.submit(peer, post.lane, post.records, ticket, key=post.key, ttl=ttl)

    def on_post_each(self, post: PostEach) -> None:
        """Do so with records that have a ticket each."""
        peer = self._peer_of(post.to)
        if isinstance(peer, Failure):
            for ticket in post.tickets:
                self._turn.fail(ticket, peer)
            return
        for order, ticket in enumerate(post.tickets, self._posts + 1):
            ticket.order = order
        self._posts += len(post.tickets)
        keys = None if post.keys.count(None) == len(post.keys) else post.keys
        ticket = post.tickets[0] if len(post.tickets) == 1 else TicketRun(post.tickets)
        self._turn.submit(peer, post.lane, post.records, ticket, key=keys)

    def _peer_of(self, addressee: str | NodeId) -> Peer | Failure:
        """Return who is meant, or why nothing can be sent there."""
        try:
            peer = self._reach(addressee)
        except (PeerUnknown, AmbiguousPeer) as error:
            return self._failure(addressee, error)
        if not peer.present and peer.is_gone:
            why = "it is gone and has not come back: this was not sent"
            return Failure(FailureKind.PEER_LOST, peer.label, why)
        return peer

    def _failure(self, addressee: str | NodeId, error: PeerUnknown | AmbiguousPeer) -> Failure:
        to = addressee if isinstance(addressee, str) else addressee.hex()
        if self._turn.peers.has_left(addressee):  # its goodbye came in the same turn
            return Failure(FailureKind.PEER_LOST, to, "it has left")
        return Failure(FailureKind.PEER_UNKNOWN, to, str(error))

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        """Deliver a batch, or hold it while nobody reads."""
        delivery = Delivery(source, peer.label, first, last, list(records))
        if self._open:
            self._turn.deliver_inbox(delivery)
        elif self._draining:
            self._release(delivery)
        else:
            self._held.append((delivery, self._turn.now))

    def on_open_inbox(self) -> None:
        """Deliver what was held, and from now on what comes."""
        self._open = True
        held, self._held = self._held, []
        for delivery, since in held:
            self._deliver_held(delivery, self._turn.now - since)

    def _deliver_held(self, delivery: Delivery, waited: float) -> None:
        """Deliver what has time left to live; the time it waited here counts."""
        records = delivery.records
        left = [_time_left(record, waited) for record in records]
        if all(ttl is None for ttl in left):
            self._turn.deliver_inbox(delivery)
            return
        aged = [
            record if ttl is None else with_extra(record, Tag.TTL_MS, ttl)
            for record, ttl in zip(records, left, strict=True)
        ]
        alive = [ttl is None or ttl > 0 for ttl in left]
        source = delivery.source
        for is_alive, first, last, run in runs(delivery.first_seq, delivery.last_seq, aged, alive):
            if is_alive:
                self._turn.deliver_inbox(Delivery(source, delivery.sender_name, first, last, run))
            else:
                self._turn.settle(source, first, last, Outcome.EXPIRED)

    def on_drain(self) -> None:
        """Give back what nobody reads: while the inbox is closed a drain would wait for it."""
        self._draining = True
        held, self._held = self._held, []
        for delivery, _ in held:
            self._release(delivery)

    def _release(self, delivery: Delivery) -> None:
        first, last = delivery.first_seq, delivery.last_seq
        reason = "the node is leaving, and nobody reads its inbox"
        self._turn.settle(delivery.source, first, last, Outcome.RELEASED, reason)

    def on_session_ended(self, peer: Peer) -> int:
        """Drop what was held of a session that is over; return how many numbers that was.

        Its sender knows that the outcome is unknown, and may send again.
        """
        held, self._held = self._held, []
        dropped = 0
        for delivery, since in held:
            if delivery.source.node == peer.id:
                self._turn.handled.drop(delivery.source, delivery.first_seq, delivery.last_seq)
                dropped += delivery.last_seq - delivery.first_seq + 1
            else:
                self._held.append((delivery, since))
        return dropped


def _time_left(record: Record, waited: float) -> int | None:
    """Return the milliseconds a record has left to live after waiting so many seconds."""
    ttl_ms = extra(record, Tag.TTL_MS)
    return max(0, ttl_ms - round(waited * 1000)) if isinstance(ttl_ms, int) else None
