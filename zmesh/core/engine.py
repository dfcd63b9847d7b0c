"""The pure node: joins patterns, peers and links. `handle` what happened, perform what it returns.

One turn routes all events, does what is due, and lets every link that was touched write its
packets; acknowledgements, settlements and data share them. Its cost grows with the links touched,
not with the peers known. `deadline` says when the next turn is due without any event.
"""

from collections.abc import Callable, Iterable
from typing import Any, assert_never

from zmesh.actions import Action, Drained, HangUp
from zmesh.core.defects import Defects
from zmesh.core.engine_reads import EngineReads
from zmesh.core.guard import Guard
from zmesh.core.introductions import Introductions
from zmesh.core.link_news import LinkNews
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers, RemotePeer
from zmesh.core.residents import Residents
from zmesh.core.restoring import Restoring
from zmesh.core.stored_commands import stored_commands
from zmesh.core.trusting import Trusting
from zmesh.core.turn import Turn
from zmesh.discovery.endpoints import dialable
from zmesh.discovery.membership import Membership
from zmesh.errors import PeerUnknown
from zmesh.events import (
    BeginStream,
    Call,
    CallEach,
    CallLater,
    CancelCall,
    CancelFanOut,
    CancelStream,
    CancelSurvey,
    CandidateFound,
    CandidateGone,
    CloseNode,
    Describe,
    DrainNode,
    EndParts,
    EndpointsChanged,
    Event,
    ForgetTicket,
    GatheringCommand,
    InboundClosed,
    JoinGroup,
    JournalTold,
    KeepReplays,
    LeaveGroup,
    LoopLate,
    MakeRoom,
    OpenInbox,
    OpenStream,
    PacketsReceived,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
    Post,
    PostEach,
    ProbeAnswered,
    Publish,
    PublishMany,
    Pull,
    PurgeLetters,
    Push,
    RefuseStream,
    RelayedGone,
    Remember,
    Reply,
    ReplyEach,
    RequeueLetter,
    Serve,
    SettleDeliveries,
    StartFanOut,
    StartSurvey,
    StreamCommand,
    Subscribe,
    TakeParts,
    TimerFired,
    TrustChanged,
    Unpull,
    Unsubscribe,
    Withdraw,
    WritePart,
)
from zmesh.ids import TOKEN_BYTES, Entropy, NodeId, Path, SessionId
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import Failure, FailureKind, InterestKind
from zmesh.options import NodeOptions, Retention
from zmesh.patterns.shared_state import StateCommand
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link_events import SessionEnd
from zmesh.security.trust import Trust
from zmesh.storage import Opened
from zmesh.wire.frames import ByeCode, Drain


class Engine(EngineReads):
    """One node without its sockets.

    Args:
        local: who it is.
        options: bounds and times.
        entropy: for jitter, tokens and choices among equals.
        now: seconds on the clock that `handle` gets.
        opened: what the node's journal says, where it has one; action `Restored` tells when all
            it keeps was read, and nobody is to be met before.
        wall_ms: what the wall clock reads, in milliseconds since 1970; needed with a journal.
        retention: how long durable publications are kept there.
        trust: who gets a link, and may do what; without it everybody in the mesh, anything.
    """

    def __init__(
        self,
        local: LocalIdentity,
        options: NodeOptions,
        entropy: Entropy,
        now: float,
        *,
        opened: Opened | None = None,
        wall_ms: int = 0,
        retention: Retention = Retention(),  # noqa: B008  # frozen
        trust: Trust | None = None,
    ) -> None:
        self._local = local
        self._options = options
        self._entropy = entropy
        session = SessionId(entropy.token(TOKEN_BYTES))
        self._loopback = Loopback(session, options.link)
        self._peers = Peers(Peer(local.node, local.name, self._loopback), options)
        self._peers.local.session = session
        self._peers.local.journal = local.journal
        self._peers.local.incarnation = local.incarnation
        self._peers.local.is_edge = local.is_edge
        self._peers.local.decompresses = frozenset(local.decompresses)
        self._turn = Turn(self._peers, options.link, now, opened)
        self._turn.keeper.on_wall_clock(wall_ms, now)
        self._defects = Defects(self._turn, options.defects_traced_max)
        self._membership = Membership(
            local.node, options, entropy, self._turn.agenda, is_edge=local.is_edge,
            patience=self._turn.patience,
        )  # fmt: skip
        self.guard = Guard(self._turn, trust, options.trust)
        self._news = LinkNews(
            options, self._turn, entropy, self._membership, self._defects, self._reach, retention,
            self.guard,
        )  # fmt: skip
        self._residents = Residents(local, options, entropy, self._turn, self._news)
        self._introductions = Introductions(
            local, options, self._turn, self._membership, self._defects, self._residents.admit,
            self.guard,
        )  # fmt: skip
        self._trusting = Trusting(
            self._turn, self.guard, self._news, self._residents, self._membership
        )
        self._frequent: dict[type[Event], Callable[[Any], None]] = {  # found without a search
            PacketsReceived: self._on_packets,
            TrustChanged: self._trusting.on_changed,
            SettleDeliveries: self._on_settled,
            Reply: self._news.serving.on_reply,
            ReplyEach: self._news.serving.on_reply_each,
            Call: self._news.calls.on_call,
            CallEach: self._news.calls.on_call_each,
            CallLater: self._news.later.on_call_later,
            ForgetTicket: self._news.later.on_forget,
            **stored_commands(self._turn, self._news),
            PostEach: self._news.direct.on_post_each,
            Publish: self._news.topics.on_publish,
            PublishMany: self._news.publish_subscribe.on_publish_many,
            Push: self._news.queues.on_command,
            RequeueLetter: self._news.dead_letters.on_requeue,
            PurgeLetters: self._news.dead_letters.on_purge,
        }
        self._restoring = Restoring(self._turn, self._news)
        if opened is not None:
            self._restoring.begin()
        self.deadline: float | None = None  # when `handle` is due, whatever happens
        self._drain_until: float | None = None
        self._drained = False
        self._closed = False

    # Turns

    def handle(self, events: Iterable[Event], now: float) -> list[Action]:
        """Take in what happened, in order; return what is to be done, in order.

        `now` never goes backwards. After `CloseNode` nothing has an effect.
        """
        turn, frequent = self._turn, self._frequent
        turn.begin(now)
        for event in events:
            if self._closed:
                break
            on_event = frequent.get(type(event))
            if on_event is not None:
                on_event(event)
            else:
                self._on_event(event)
        if not self._closed:
            if self.deadline is not None and self.deadline <= now:
                self._do_what_is_due()
                turn.agenda.put_off(now)
            self._settle_down()
            if self._drain_until is not None:
                self._check_drained()
        self.deadline = None if self._closed else turn.agenda.next
        return turn.end()

    def _do_what_is_due(self) -> None:
        now, news, membership = self._turn.now, self._news, self._membership
        parts = (
            self._residents, self._introductions, news.told, news.redelivery, news.calls,
            news.serving, news.gatherings,
            news.shared_state, news.queues, news.streams.calls, news.outbox, news.confirming,
            news.later, self._turn.keeper,
            news.topics.log, news.topics.readers, news.following,
        )  # fmt: skip
        for part in parts:
            if part.deadline is not None and part.deadline <= now:
                part.on_timer()
        if membership.deadline is not None and membership.deadline <= now:
            membership.on_timer(now)
            for node in membership.take_asks(now):
                peer = self._peers.get(node)
                if peer is not None:
                    self._introductions.ask(peer)

    def _settle_down(self) -> None:
        """Pass events and orders on until all is quiet; then let links write their packets."""
        turn, residents, news = self._turn, self._residents, self._news
        unsent: dict[Peer, None] = {}
        if news.serving.answered:
            news.serving.flush()
        while True:
            while turn.touched or turn.heard:
                unsent = self._take_events(unsent)
            news.flush()
            if self._membership.orders:
                self._perform_orders()
            if turn.touched:
                continue
            batch, unsent = unsent, {}
            has_news = False
            for peer in batch:
                if isinstance(peer, RemotePeer):
                    has_news |= residents.write(peer)
                if peer.is_full:
                    turn.tell_of_room(peer)
            if not (has_news or turn.touched):
                return

    def _take_events(self, unsent: dict[Peer, None]) -> dict[Peer, None]:
        """Take what carriers tell; return who of these and others may have packets to send."""
        turn, residents = self._turn, self._residents
        touched, turn.touched = turn.touched, {}
        heard, turn.heard = turn.heard, {}
        for peer in touched | heard if touched else heard:
            if peer.carrier.events:
                residents.take_events(peer)
        return unsent | touched if unsent else touched

    def _perform_orders(self) -> None:
        """Pass on whom membership wants dialed and hung up."""
        for order in self._membership.take_dials():
            self._turn.actions.append(order)
            if isinstance(order, HangUp):
                self._introductions.on_hung_up(order.path)

    # Events

    def _on_packets(self, received: PacketsReceived) -> None:
        for path, parts in received.packets:
            self._introductions.on_parts(path, parts)

    def _on_settled(self, settled: SettleDeliveries) -> None:
        news = self._news
        news.serving.on_settled(settled)
        news.queues.taken.on_settled(settled)
        news.gatherings.groups.on_settled(settled)
        self._turn.settle(
            settled.source,
            settled.first_seq,
            settled.last_seq,
            settled.outcome,
            settled.reason,
            settled.delay,
        )

    def _on_event(self, event: Event) -> None:
        match event:
            case Pull() | Unpull():
                self._news.queues.on_command(event)
            case (
                CancelCall() | Serve() | Withdraw() | Subscribe() | Unsubscribe() | OpenInbox()
                | DrainNode() | CloseNode()
            ):  # fmt: skip
                self._on_command(event)
            case (
                JoinGroup() | LeaveGroup() | StartFanOut() | CancelFanOut() | StartSurvey()
                | CancelSurvey() | Describe()
                | OpenState() | CloseState() | WriteState() | WallClockRead()
                | WritePart() | TakeParts() | EndParts() | OpenStream() | CancelStream()
                | BeginStream() | RefuseStream()
            ):  # fmt: skip
                self._on_pattern_command(event)
            case (
                PacketsReceived() | SettleDeliveries() | Reply() | ReplyEach() | Call()
                | CallEach() | Post() | PostEach()
                | Publish() | PublishMany() | Push() | JournalTold() | Remember() | RelayedGone()
                | MakeRoom()
                | RequeueLetter() | PurgeLetters() | CallLater() | ForgetTicket() | TrustChanged()
                | KeepReplays()
            ):  # fmt: skip
                raise AssertionError("these are taken before")
            case _:
                self._on_news(event)

    def _on_command(
        self,
        command: CancelCall | Serve | Withdraw | Subscribe | Unsubscribe | OpenInbox | DrainNode
        | CloseNode,
    ) -> None:  # fmt: skip
        news = self._news
        match command:
            case CancelCall(call):
                news.calls.on_cancel(call)
            case Serve(service):
                news.interest.declare(InterestKind.SERVICE, service)
                news.on_services((service,))
            case Withdraw(service):
                news.interest.retract(InterestKind.SERVICE, service)
            case Subscribe(token, pattern, terms):
                news.interest.subscribe(token, pattern, terms)
                news.following.on_subscribe(token, pattern, terms)
                news.publish_subscribe.flush()
            case Unsubscribe(token):
                news.following.on_unsubscribe(token)
                news.interest.unsubscribe(token)
            case OpenInbox():
                news.direct.on_open_inbox()
            case DrainNode(deadline):
                self._drain(deadline)
            case CloseNode():
                self._close()
            case _:
                assert_never(command)

    def _on_pattern_command(
        self, command: GatheringCommand | StateCommand | StreamCommand
    ) -> None:
        news = self._news
        match command:
            case (
                JoinGroup() | LeaveGroup() | StartFanOut() | CancelFanOut() | StartSurvey()
                | CancelSurvey() | Describe()
            ):  # fmt: skip
                news.gatherings.on_command(command)
            case OpenState() | CloseState() | WriteState() | WallClockRead():
                news.shared_state.on_command(command)
            case (
                WritePart() | TakeParts() | EndParts() | OpenStream() | CancelStream()
                | BeginStream() | RefuseStream()
            ):  # fmt: skip
                news.streams.on_command(command)
            case _:
                assert_never(command)

    def _on_news(
        self,
        event: PathUp | PathDown | InboundClosed | PathFull | PathWritable | ProbeAnswered
        | CandidateFound | CandidateGone | EndpointsChanged | LoopLate | TimerFired,
    ) -> None:  # fmt: skip
        match event:
            case PathUp(path):
                self._introductions.on_path_up(path)
            case PathDown(path, cause):
                self._introductions.on_path_down(path, cause)
            case InboundClosed():
                self._introductions.on_inbound_closed()
            case PathFull(path) | PathWritable(path):
                self._on_path_flow(path, is_full=isinstance(event, PathFull))
            case ProbeAnswered(endpoint, cause):
                self._news.on_probe(endpoint, cause)
            case CandidateFound() | CandidateGone() | EndpointsChanged():
                self._on_discovery(event)
            case LoopLate(lag):
                self._turn.patience.on_loop_late(lag, self._turn.now)
                self._membership.on_loop_late(lag, self._turn.now)
                for peer in self._peers:
                    peer.link.on_loop_late(lag, self._turn.now)
            case TimerFired():
                pass  # every turn does what is due
            case _:
                assert_never(event)

    def _on_path_flow(self, path: Path, *, is_full: bool) -> None:
        peer = self._peers.on_path(path)
        if peer is None:
            return
        if is_full:
            peer.link.on_path_full(path)
        else:
            peer.link.on_path_writable(path)
        self._turn.touched[peer] = None

    def _on_discovery(self, event: CandidateFound | CandidateGone | EndpointsChanged) -> None:
        now, hints = self._turn.now, self._peers.hints
        match event:
            case CandidateFound(source, node, name, endpoints, is_edge):
                is_met = not (is_edge and self._local.is_edge)
                if node is not None and node != self._local.node and is_met:
                    hints.add(source, node, name)
                self._membership.on_candidate(source, node, name, endpoints, now, is_edge=is_edge)
            case CandidateGone(source, node):
                hints.remove(source, node)
                self._membership.on_candidate_gone(source, node, now)
            case EndpointsChanged(endpoints):
                self._membership.on_local_endpoints(endpoints, now)
                told_max = self._options.wire.endpoints_max
                if len(endpoints) > told_max:  # link-local ones are of no use to others
                    endpoints, _ = dialable(endpoints, told_max, scoped=False)
                self._introductions.endpoints = endpoints
                self._peers.local.endpoints = endpoints
                self._residents.on_endpoints(endpoints)
            case _:
                assert_never(event)

    def _reach(self, to: str | NodeId) -> Peer:
        """Return the peer a message is for, taking in who was only heard of."""
        peer = self._peers.find(to) if isinstance(to, bytes) else None
        if peer is None or not peer.present:
            node = self._peers.resolve(to)
            is_welcome = node == self._local.node or self.guard.admits(node)
            peer = self._peers.find(node) or (self._residents.admit(node) if is_welcome else None)
            if peer is None:
                if not is_welcome:
                    raise PeerUnknown(node.hex(), why="its key is not trusted here")
                raise PeerUnknown(node.hex(), ["too many others"])
        if peer.session != peer.carrier.session:
            # A session ended in this very turn: what it returned goes before what is new.
            self._residents.take_events(peer)
            self._news.redelivery.flush()
        return peer

    # Draining and closing

    def _drain(self, deadline: float) -> None:
        self._drain_until = deadline
        self._turn.agenda.look_at(deadline)
        self._news.draining = True
        self._news.direct.on_drain()
        for peer in self._peers:
            if peer.announced:
                peer.link.send_control(Drain())
                self._turn.touched[peer] = None

    def _check_drained(self) -> None:
        """End the drain when nothing is open, or when it has lasted long enough."""
        assert self._drain_until is not None  # noqa: S101  # called only during a drain
        unsettled_out, unsettled_in = self.open_work()
        if self._turn.now < self._drain_until and (unsettled_out or unsettled_in):
            return
        self._drain_until = None
        self._drained = not (unsettled_out or unsettled_in)
        self._turn.actions.append(Drained(unsettled_out, unsettled_in))

    def _close(self) -> None:
        news, turn = self._news, self._turn
        turn.keeper.on_timer()  # what might have been done later
        news.serving.flush()
        news.calls.close()
        news.queues.pushed.close()
        news.streams.calls.close()
        news.gatherings.close()
        code = ByeCode.DRAINED if self._drained else ByeCode.CLOSED
        for peer in list(self._peers):
            peer.present = False  # not an event: nobody left but us
            self._residents.end(peer, SessionEnd.CLOSED, code)
        local = self._peers.local
        news.redelivery.on_gone(local, FailureKind.CLOSED, "")
        for _, ticket in self._loopback.close():
            turn.fail(ticket, Failure(FailureKind.CLOSED, local.name))
        self._closed = True
