"""What one turn of the engine gathers: actions in order, tickets done, and carriers touched.

One `Turn` serves a node for life; `begin` starts it anew. Patterns act through it alone.
"""

from collections.abc import Iterable, Sequence
from operator import itemgetter

from zmesh.actions import (
    Action,
    DeliverGroup,
    DeliverInbox,
    DeliverJobs,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    PartsArrived,
    PublicationsMissed,
    RoomChanged,
    TicketsDone,
    TicketsStored,
    Trace,
)
from zmesh.batches import TicketRun
from zmesh.core.handled import Handled
from zmesh.core.keeper import Keeper
from zmesh.core.peers import InternalTicket, LogTicket, Peer, Peers, StoredTicket
from zmesh.core.positions import Positions
from zmesh.deadlines import Agenda
from zmesh.errors import BodyTooLarge, ZmeshError
from zmesh.events import Source
from zmesh.ids import NodeId
from zmesh.message import (
    COMPRESSED,
    Failure,
    FailureKind,
    Keys,
    Outcome,
    Record,
    Ticket,
)
from zmesh.options import LinkOptions
from zmesh.patience import Patience
from zmesh.security.refusal import of_application
from zmesh.storage import Opened
from zmesh.wire.compression import algorithm_in, unpacked, with_plain

_HEAD = itemgetter(0)


class Turn:
    """The one place through which patterns reach links and the application."""

    def __init__(
        self, peers: Peers, options: LinkOptions, now: float, opened: Opened | None = None
    ) -> None:
        self.peers = peers
        self.now = now
        self.patience = Patience()  # while this node is late
        self.agenda = Agenda()  # of what patterns and links have to do at a time
        self.keeper = Keeper(opened, self.agenda)
        self.keeper.on_stored = self.stored
        self.handled = Handled(self.keeper)
        self.handled.settle = self.settle_now
        self.stored_done: dict[StoredTicket, None] = {}  # for the outbox to look at
        self.log_done: dict[LogTicket, None] = {}  # for the readers of the log to look at
        self.positions = Positions(self.keeper)
        self.positions.settle = self.settle_now
        self.actions: list[Action] = []
        self.touched: dict[Peer, None] = {}  # whose carriers have events or packets to give
        self.heard: dict[Peer, None] = {}  # whose carriers have events alone
        self._options = options
        self._done: dict[Ticket, None] = {}
        self._plain: tuple[object, bytes] | None = (
            None  # a body, and what it was: for several peers
        )
        self.decompressed = 0  # bodies, for peers that cannot

    def begin(self, now: float) -> None:
        """Start a turn."""
        self.now = self.keeper.now = now

    def end(self) -> list[Action]:
        """Return the actions of the turn; the disk is at work while the others are done."""
        actions, self.actions = self.keeper.take_actions() + self.actions, []
        if self._done:
            actions.append(TicketsDone(list(self._done)))
            self._done = {}
        self._plain = None
        return actions

    # Towards peers

    def submit(
        self,
        peer: Peer,
        lane: int,
        records: Sequence[Record],
        ticket: Ticket,
        *,
        key: Keys = None,
        ttl: float | None = None,
    ) -> None:
        """Submit records to a peer; those with a body nobody may send fail at once."""
        if peer.wants_plain and max(map(_HEAD, records)) >= COMPRESSED:
            records = [self.fitted(peer, record) for record in records]
        try:
            peer.carrier.submit(lane, records, ticket, self.now, key=key, ttl=ttl)
        except BodyTooLarge as error:
            each = ticket.part() if isinstance(ticket, TicketRun) else [ticket] * len(records)
            for own in each:
                self.fail(own, Failure(FailureKind.REJECTED, peer.label, str(error)))
        self.touched[peer] = None

    def fitted(self, peer: Peer, record: Record) -> Record:
        """Return a record as a peer can take it: with a plain body where it cannot decompress."""
        if record[0] < COMPRESSED or algorithm_in(record) in peer.decompresses:
            return record
        made = self._plain
        if made is None or made[0] is not record[2]:
            self.decompressed += 1
            made = self._plain = (record[2], unpacked(record))
        return with_plain(record, made[1])

    def withdraw(self, peer: Peer, ticket: Ticket, index: int | None = None) -> bool:
        """Take back what was submitted to a peer with the ticket; whether the peer may have it.

        With an index that one alone of small records that were submitted together.
        """
        self.touched[peer] = None
        return peer.carrier.withdraw(ticket, index)

    def settle(
        self,
        source: Source,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
        *,
        lazy: bool = False,
    ) -> None:
        """Give records that arrived from a peer their outcome: now, or when it is on disk.

        With `lazy` they are accepted, nobody waits to hear of it, and it may wait for company.
        """
        if reason:  # of the application, whose texts may hold what UTF-8 has no bytes for
            reason = of_application(reason.encode(errors="replace").decode())
        is_kept = False
        if self.positions.open or self.handled.open:
            # A range may have messages of both, each with an outcome to keep: all is in one batch.
            for memory in (self.positions, self.handled):
                if memory.open and memory.on_settle(source, first, last, outcome, reason, delay):
                    is_kept = True
        if not (is_kept or (lazy and self._accept_later(source, first, last))):
            self.settle_now(source, first, last, outcome, reason, delay)

    def _accept_later(self, source: Source, first: int, last: int) -> bool:
        """Accept records of the session there is; whether it is that which they came in."""
        peer = self.peers.find(source.node)
        if peer is None or source.session != peer.session:
            return False
        is_new = peer.carrier.accept_later(source.session, source.lane, first, last, self.now)
        if is_new is None:
            return False
        if is_new:
            self.touched[peer] = None
        count = last - first + 1
        peer.open_in = peer.open_in - count if peer.open_in > count else 0
        return True

    def settle_now(
        self,
        source: Source,
        first: int,
        last: int,
        outcome: Outcome,
        reason: str = "",
        delay: float = 0.0,
    ) -> None:
        """Give records their outcome at once."""
        peer = self.peers.find(source.node)
        if peer is None:
            return
        session, count = source.session, last - first + 1
        settled = peer.carrier.settle(
            session, source.lane, first, last, outcome, self.now, reason, delay
        )
        if settled:
            self.touched[peer] = None
        if session != peer.session:
            peer.stale_in = max(0, peer.stale_in - count)
        elif settled or session != peer.carrier.session:
            peer.open_in = peer.open_in - count if peer.open_in > count else 0

    def room(self, peer: Peer) -> int:
        """Return how many more messages may be posted to a peer; at most 0 where it is full.

        Whoever was told so hears by `RoomChanged` when there is room again.
        """
        carrier = peer.carrier
        room = carrier.room_messages - peer.retries
        if carrier.queued_bytes + peer.retry_bytes >= self._options.queued_bytes_max:
            room = 0
        peer.is_full = peer.is_full or room <= 0
        return room

    def tell_of_room(self, peer: Peer) -> None:
        """Tell that a full peer has room again, if it has."""
        if peer.is_full and self.room(peer) > 0:
            peer.is_full = False
            self.room_changed(peer.id)

    # Towards the application

    def deliver_inbox(self, delivery: Delivery) -> None:
        """Hand direct messages over."""
        last = self.actions[-1] if self.actions else None
        if type(last) is DeliverInbox:
            last.deliveries.append(delivery)
        else:
            self.actions.append(DeliverInbox([delivery]))

    def deliver_requests(self, delivery: Delivery) -> None:
        """Hand requests over."""
        last = self.actions[-1] if self.actions else None
        if type(last) is DeliverRequests:
            last.deliveries.append(delivery)
        else:
            self.actions.append(DeliverRequests([delivery]))

    def deliver_publications(self, delivery: Delivery, tokens: list[tuple[int, ...]]) -> None:
        """Hand publications over, each to the subscriptions of its tokens."""
        last = self.actions[-1] if self.actions else None
        if type(last) is DeliverPublications:
            last.deliveries.append((delivery, tokens))
        else:
            self.actions.append(DeliverPublications([(delivery, tokens)]))

    def deliver_group(self, delivery: Delivery) -> None:
        """Hand over what was fanned out to a group."""
        last = self.actions[-1] if self.actions else None
        if type(last) is DeliverGroup:
            last.deliveries.append(delivery)
        else:
            self.actions.append(DeliverGroup([delivery]))

    def deliver_jobs(self, delivery: Delivery, token: int) -> None:
        """Hand jobs over to a pull."""
        last = self.actions[-1] if self.actions else None
        if type(last) is DeliverJobs:
            last.deliveries.append((delivery, token))
        else:
            self.actions.append(DeliverJobs([(delivery, token)]))

    def deliver_missed(self, counts: list[tuple[int, int]]) -> None:
        """Tell subscriptions how many publications they were not sent."""
        self.actions.append(PublicationsMissed(counts))

    def deliver_part(self, stream: int, record: Record) -> None:
        """Hand over the next part of a stream."""
        last = self.actions[-1] if self.actions else None
        if type(last) is PartsArrived and last.stream == stream:
            last.records.append(record)
        else:
            self.actions.append(PartsArrived(stream, [record]))

    def note_accepted(self, tickets: Iterable[Ticket]) -> None:
        """Report those of the tickets that are done now, unless a pattern's own."""
        done = self._done
        for ticket in tickets:
            is_done = ticket.accepted + len(ticket.failures) >= ticket.expected
            if not is_done:
                continue
            if not isinstance(ticket, InternalTicket):
                done[ticket] = None
            elif isinstance(ticket, StoredTicket):
                self.stored_done[ticket] = None
            elif isinstance(ticket, LogTicket):
                self.log_done[ticket] = None

    def fail(self, ticket: Ticket, failure: Failure) -> None:
        """Give one record of a ticket its final outcome other than accepted."""
        ticket.fail(failure)
        self.note_accepted((ticket,))

    def stored(self, ticket: Ticket, error: ZmeshError | None) -> None:
        """Tell that what came with a ticket is on disk, or why it is not."""
        last = self.actions[-1] if self.actions else None
        if type(last) is TicketsStored and last.error is error:
            last.tickets.append(ticket)
        else:
            self.actions.append(TicketsStored([ticket], error))

    def room_changed(self, node: NodeId) -> None:
        """Tell that a full peer has room again."""
        self.actions.append(RoomChanged(node))

    def trace(self, name: str, level: int, **fields: object) -> None:
        """Tell something worth a log line or a counter."""
        self.actions.append(Trace(name, level, fields))
