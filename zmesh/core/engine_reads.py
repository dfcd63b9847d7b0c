"""What an engine can be asked: who is there, what there is room for, what would work."""

from collections.abc import Iterable
from contextlib import suppress

from zmesh.actions import PeerView
from zmesh.core.defects import Defects
from zmesh.core.engine_statistics import EngineStatistics, gather
from zmesh.core.guard import Guard
from zmesh.core.introductions import Introductions
from zmesh.core.link_news import LinkNews
from zmesh.core.peers import Peers
from zmesh.core.residents import Residents
from zmesh.core.restoring import Restoring
from zmesh.core.turn import Turn
from zmesh.discovery.membership import Membership
from zmesh.errors import AmbiguousPeer, PeerUnknown, UsageError
from zmesh.events import PathCause
from zmesh.ids import NodeId
from zmesh.message import InterestKind, Record, Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.call_later import CallsLater
from zmesh.patterns.letters import DeadLetter
from zmesh.patterns.queues import Queues
from zmesh.patterns.routing import check_pattern, check_topic
from zmesh.patterns.shared_state import SharedState
from zmesh.security.rules import Action
from zmesh.storage import Entry
from zmesh.terms import PLAIN, Terms


class EngineReads:
    """The engine's answers; nothing here changes what it does next."""

    guard: Guard
    _options: NodeOptions
    _turn: Turn
    _peers: Peers
    _defects: Defects
    _membership: Membership
    _news: LinkNews
    _introductions: Introductions
    _residents: Residents
    _restoring: Restoring

    def peers(self) -> list[PeerView]:
        """Return the peers that joined and have not left."""
        return [peer.view() for peer in self._peers if peer.present]

    def peer(self, node: NodeId) -> PeerView | None:
        """Return a peer that joined and has not left."""
        peer = self._peers.get(node)
        return None if peer is None or not peer.present else peer.view()

    @property
    def has_peers(self) -> bool:
        """Whether anybody joined who has not left."""
        return any(peer.present for peer in self._peers)

    def has_arrived(self, ticket: Ticket) -> bool:
        """Return whether what a ticket waits for is with a peer, which has not settled it."""
        everyone = [self._peers.local, *self._peers]
        tickets = (ticket, *self._news.outbox.runs_of(ticket))
        return any(peer.carrier.has_arrived(each) for peer in everyone for each in tickets)

    def members(self, group: str) -> list[PeerView]:
        """Return the nodes that are in a group and there, this one included."""
        members = self._news.interest.members(InterestKind.GROUP, group)
        return [peer.view() for peer in members if peer.present]

    def groups(self) -> set[str]:
        """Return the groups somebody is in who is there, this node included."""
        everyone = [self._peers.local, *self._peers]
        return {group for peer in everyone if peer.present for group in peer.groups}

    def resolve(self, to: str | NodeId) -> NodeId:
        """Return the node a name, an id or its hex digits stands for.

        Raises:
            PeerUnknown: nobody is known by it.
            AmbiguousPeer: several are.
        """
        return self._peers.resolve(to)

    def preferred(self, to: str) -> NodeId | None:
        """Return the node a call is to ask first; None where that one has left.

        Raises:
            PeerUnknown: nobody was ever known by that name or id.
            AmbiguousPeer: several are.
        """
        try:
            return self._peers.resolve(to)
        except PeerUnknown:
            if self._peers.has_left(to):
                return None
            raise

    def room(self, node: NodeId) -> int:
        """Return how many messages may be posted to a node; at most 0 where it is full.

        `RoomChanged` tells when there is room again.
        """
        peer = self._peers.find(node)
        return self._options.link.queued_messages_max if peer is None else self._turn.room(peer)

    def queued(self, node: NodeId) -> tuple[int, int]:
        """Return how many messages, and bytes, for a node have no outcome yet."""
        peer = self._peers.find(node)
        if peer is None:
            return 0, 0
        carrier = peer.carrier
        return carrier.queued_messages + peer.retries, carrier.queued_bytes + peer.retry_bytes

    def room_to_publish(self, topic: str) -> int | None:
        """Return how many publications on a topic fit the fullest receiver's queue.

        One that is silent with a full queue does not count; None where nobody receives.
        """
        return self._news.publish_subscribe.room(topic)

    def open_work(self) -> tuple[int, int]:
        """Return how many messages and calls of ours, and messages to us, have no outcome yet.

        Jobs in queues that nobody pulls do not count: there is nothing to wait for.
        """
        everyone = [self._peers.local, *self._peers]
        unsettled_out = sum(peer.carrier.queued_messages + peer.retries for peer in everyone)
        unsettled_out += self._news.publish_subscribe.waiting + self._news.queues.pushed.wanted
        unsettled_out += self._news.gatherings.fan_out.waiting
        unsettled_in = sum(peer.open_in for peer in everyone)
        streams = self._news.streams
        unsettled_in += streams.serving.running  # what opened them was settled when they began
        open_here = len(self._news.calls) + len(streams.calls) + self._news.shared_state.untold
        return unsettled_out + open_here, unsettled_in

    @property
    def stored_out(self) -> int:
        """How many direct messages are on disk and have no outcome, about."""
        return self._news.outbox.open

    def stream_room(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes of a stream may be written now.

        Who was told (0, 0) hears by `StreamRoom` when that changes.
        """
        return self._news.streams.room(stream)

    @property
    def queues(self) -> Queues:
        """The work queues, to be asked for their room and counters."""
        return self._news.queues

    def relayed(self) -> set[bytes]:
        """Return the rows of an application's outbox that the journal knows."""
        return self._news.outbox.relayed

    def take_replays(self) -> list[Entry]:
        """Return what an earlier life kept of signed messages, once it was restored."""
        replays, self._restoring.replays = self._restoring.replays, []
        return replays

    def take_stored(self, batches: Iterable[int]) -> list[Ticket]:
        """Return who waits for nothing but that these batches, which were just written, are.

        Whoever performs the orders may let them go before the engine has its turn with
        `JournalTold`: `TicketsStored` has only those that nobody took.
        """
        return self._turn.keeper.take_stored(batches)

    def dial_failures(self) -> dict[str, PathCause]:
        """Return why the latest dials failed, by endpoint, of those that have no link."""
        return self._membership.causes()

    def check_publish(self, topic: str) -> None:
        """Raise InvalidOption where a topic cannot be published to."""
        check_topic(topic, self._options.wire.text_bytes_max)

    def check_send(self, to: str) -> None:
        """Raise NotAllowed where the rules here forbid this node to send to a peer."""
        if self.guard.trust is None:
            return
        with suppress(PeerUnknown, AmbiguousPeer):  # which is told later
            node = self._peers.resolve(to)
            peer = self._peers.get(node)
            if peer is not None:
                self.guard.check_own(Action.SEND, self.guard.name_of(node, peer.label))

    def receivers(self, record: Record) -> list[str]:
        """Return what the nodes are called that would get a publication now."""
        return self._news.publish_subscribe.names(record)

    def check_subscribe(self, pattern: str, terms: Terms = PLAIN) -> None:
        """Raise InvalidOption, UsageError or NotAllowed where a `Subscribe` would not work."""
        check_pattern(pattern, self._options.wire.text_bytes_max)
        self.guard.check_own(Action.SUBSCRIBE, pattern)
        self._news.interest.check(pattern, terms)
        if self._news.interest.subscriptions >= self._options.subscriptions_max:
            limit = self._options.subscriptions_max
            raise UsageError(f"this node has {limit} subscriptions already: end some first")

    @property
    def later(self) -> CallsLater:
        """The requests whose answer may come later, to be asked for what became of them."""
        return self._news.later

    @property
    def shared_state(self) -> SharedState:
        """The shared maps, to be read, and to ask what would work."""
        return self._news.shared_state

    def dead_letters(self) -> list[DeadLetter]:
        """Return the messages that could not be handled, oldest first."""
        return self._news.dead_letters.letters()

    def statistics(self) -> EngineStatistics:
        """Return counters, and what is held now."""
        return gather(
            self._peers,
            self._news,
            self._introductions,
            self._defects,
            self._membership,
            self._residents,
        )
