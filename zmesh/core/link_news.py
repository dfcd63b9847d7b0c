"""What links tell, brought to the patterns and to the application."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import assert_never

from zmesh.actions import IdentityClash, PeerChange, PeerChanged, PeerState, Probe
from zmesh.batches import are_bare
from zmesh.core.arrivals import Arrivals, Receiver
from zmesh.core.defects import Defects
from zmesh.core.guard import Guard
from zmesh.core.handled import Handled
from zmesh.core.peers import Peer, RemotePeer, StoredTicket
from zmesh.core.positions import Positions
from zmesh.core.told import Told
from zmesh.core.turn import Turn
from zmesh.discovery.membership import Membership, Unlinked
from zmesh.errors import PeerLost
from zmesh.events import PathCause, Push, Source
from zmesh.ids import Entropy, NodeId
from zmesh.message import (
    FailureKind,
    InterestKind,
    Kind,
    Outcome,
    Record,
    Tag,
    Ticket,
    tags_of,
)
from zmesh.options import NodeOptions, Retention
from zmesh.patterns.call_later import CallsLater
from zmesh.patterns.call_runs import CallRun
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.direct import Direct
from zmesh.patterns.durable_topics import DurableTopics
from zmesh.patterns.fan_out_members import FanOutTicket
from zmesh.patterns.following import Following
from zmesh.patterns.gatherings import Gatherings
from zmesh.patterns.interest import Entry, InterestTable
from zmesh.patterns.job_queue import Attempt
from zmesh.patterns.job_runs import RunAttempt
from zmesh.patterns.letters import DeadLetter, RequeuedTicket
from zmesh.patterns.outbox import Outbox
from zmesh.patterns.publish_subscribe import PublishSubscribe
from zmesh.patterns.queues import Queues
from zmesh.patterns.redelivery import Redelivery
from zmesh.patterns.request_reply import CallTicket, RequestReply
from zmesh.patterns.serving import ReplyTicket, Serving
from zmesh.patterns.shared_parts import AnswerTicket, DeltaTicket
from zmesh.patterns.shared_state import SharedState
from zmesh.patterns.streams import Streams
from zmesh.reliable.link_events import (
    Accepted,
    Arrived,
    Clash,
    ControlArrived,
    Defect,
    LeftBehind,
    LinkEvent,
    Liveness,
    LivenessChanged,
    Opened,
    PathWanted,
    ProbeWanted,
    Returned,
    Room,
    SessionEnd,
    SessionEnded,
)
from zmesh.security.rules import Action
from zmesh.storage import Entry as StoredEntry
from zmesh.storage import EntryKind, StreamKind
from zmesh.wire.frames import ControlNews, Drain, Interest, Refused

_FINAL = (SessionEnd.PEER_LEFT, SessionEnd.LINGER_OVER, SessionEnd.CLOSED, SessionEnd.REVOKED)
"""Ends after which nothing waits for the peer any longer."""

_GONE = {
    SessionEnd.PEER_RESTARTED: FailureKind.PEER_RESTARTED,
    SessionEnd.PEER_FORGOT: FailureKind.PEER_RESTARTED,
    SessionEnd.LINGER_OVER: FailureKind.PEER_LOST,
    SessionEnd.PEER_LEFT: FailureKind.PEER_LOST,
    SessionEnd.CLOSED: FailureKind.CLOSED,
    SessionEnd.REVOKED: FailureKind.PEER_LOST,
}


_CALLS = {CallTicket, CallRun, ReplyTicket}
"""Tickets of requests and of their answers."""

_Acceptor = Callable[[Peer, Sequence[Ticket]], None]
"""Takes note of tickets of which a peer accepted something."""


class LinkNews:
    """Translates link events. The patterns are public: the engine brings them commands."""

    def __init__(
        self,
        options: NodeOptions,
        turn: Turn,
        entropy: Entropy,
        membership: Membership,
        defects: Defects,
        reach: Callable[[str | NodeId], Peer],
        retention: Retention,
        guard: Guard,
    ) -> None:
        self._options = options
        self._turn = turn
        self._membership = membership
        self._reach = reach
        self._defects = defects
        self._guard = guard
        self._probing: dict[str, dict[RemotePeer, None]] = {}  # endpoint -> who wants to know
        self._locating: dict[str, dict[RemotePeer, None]] = {}  # endpoint -> who may be there
        self.draining = False
        self.interest = InterestTable(turn, options, defects.note, guard)
        self._untold: dict[RemotePeer, None] = {}  # who has changed, and more is to come
        self.told = Told(turn, 4 * options.interest_max, self.interest.room, self._on_control)
        self.direct = Direct(turn, reach)
        self.publish_subscribe = PublishSubscribe(turn, self.interest, options)
        self.dead_letters = DeadLetters(turn, options)
        self.dead_letters.send_again = self._send_again
        self.redelivery = Redelivery(turn, options, entropy, self.dead_letters)
        self.calls = RequestReply(turn, self.interest, options, entropy)
        self.serving = Serving(turn, options)
        self.confirming = Confirming(turn, self._floor)
        known = self.confirming.add
        self.gatherings = Gatherings(turn, self.interest, self.redelivery, options, known)
        self.queues = Queues(turn, self.interest, options, self.redelivery, self.confirming)
        self.queues.taken.is_forbidden = lambda peer, queue: (
            guard.decide(peer, Action.PUSH, queue) is not None
        )
        self.shared_state = SharedState(turn, self.interest, options, entropy, defects)
        self.streams = Streams(turn, self.interest, options, entropy, defects)
        self.outbox = Outbox(turn, options, self.redelivery, self.confirming, self.dead_letters)
        self.dead_letters.takers[StreamKind.WAITING] = self.outbox.take_back
        self.dead_letters.takers[StreamKind.QUEUE] = self.queues.pushed.take_back
        self.later = CallsLater(turn, self.calls, options, entropy, known)
        self.calls.later = self.later.on_answered
        self.following = Following(turn, self.interest, options.wire)
        self.publish_subscribe.were_here = self.following.were_here
        self.topics = DurableTopics(
            turn, self.interest, self.publish_subscribe, options, retention
        )
        self.entry_readers = self._readers_of_entries()
        # Of all that is flushed, the containers themselves: a turn looks at them without a call.
        self._gathered = (
            *self.publish_subscribe.gathered, *self.shared_state.gathered, *self.interest.gathered,
            *self.redelivery.gathered, *self.queues.gathered, *self.outbox.gathered,
            *self.topics.gathered, *self.following.gathered,
        )  # fmt: skip
        self._acceptors: dict[type[Ticket], _Acceptor] = {
            ReplyTicket: self.serving.on_accepted,
            FanOutTicket: self.gatherings.on_accepted,
            Attempt: self.queues.pushed.on_accepted,
            RunAttempt: self.queues.pushed.on_run_accepted,
            **dict.fromkeys((DeltaTicket, AnswerTicket), self.shared_state.on_accepted),
        }
        self._arrivals = Arrivals(
            turn, options, defects, guard, self.interest, self._receivers_by_kind(),
            self._is_known, self.queues.taken.on_refused,
        )  # fmt: skip

    def _readers_of_entries(self) -> dict[EntryKind, Callable[[StoredEntry], None]]:
        """Return who takes what the journal keeps beside messages."""
        readers: dict[EntryKind, Callable[[StoredEntry], None]] = {
            EntryKind.TICKET: self.later.on_entry,
            EntryKind.SUBSCRIPTION: self.following.on_entry,
            EntryKind.RETAINED: self.topics.on_entry,
            EntryKind.RELAYED: self.outbox.on_relayed,
            EntryKind.FAN_OUT: self.gatherings.fan_out.on_entry,
        }
        if self.shared_state.saving is not None:
            readers[EntryKind.SHARED] = self.shared_state.saving.on_entry
        return readers

    def _receivers_by_kind(self) -> dict[int, Receiver]:
        """Return who takes what arrives."""
        return {
            Kind.DIRECT: self._on_direct,
            Kind.DURABILITY: self._on_durability,
            Kind.PUBLICATION: self.publish_subscribe.on_records,
            Kind.MISSED: self._on_missed,
            Kind.REQUEST: self.serving.on_requests,
            Kind.REPLY: self._on_replies,
            Kind.FAILURE: self._on_replies,
            Kind.CANCEL: self._on_cancels,
            Kind.GROUP: self._on_group,
            Kind.STATE: self.shared_state.on_records,
            Kind.JOB: self.queues.taken.on_jobs,
            Kind.JOB_CONTROL: self.queues.on_control,
            Kind.STREAM: self.streams.on_records,
            Kind.STREAM_CONTROL: self.streams.on_records,
        }

    @property
    def handled(self) -> Handled:
        """The memory of stored messages that came."""
        return self._turn.handled

    @property
    def positions(self) -> Positions:
        """The memory of publications that came from logs."""
        return self._turn.positions

    @property
    def decompressed(self) -> int:
        """How many bodies were made plain again, for peers that cannot decompress."""
        return self._turn.decompressed

    def flush(self) -> None:
        """Let patterns pass on what they gathered in this turn, if any did."""
        if any(self._gathered):
            self.publish_subscribe.flush()
            self.shared_state.flush()
            self.interest.flush()
            self.redelivery.flush()
            self.queues.flush()
            self.outbox.flush()
            self.topics.flush()
            self.following.flush()

    def _floor(self) -> int:
        """Return the number below which no message of this node's journal is left."""
        floors = (
            self.outbox.floor, self.later.floor, self.gatherings.fan_out.stored.floor,
            self.queues.pushed.floor,
        )  # fmt: skip
        return min(floors)

    def on_event(self, peer: Peer, event: LinkEvent) -> None:
        """Take what the carrier of a peer tells."""
        match event:
            case Arrived():
                self._arrivals.on_arrived(peer, event)
            case Accepted(tickets):
                self._on_accepted(peer, tickets)
            case Returned():
                self._on_returned(peer, event)
            case Room():
                pass  # of the carrier's queue alone: `Turn.tell_of_room` counts retries as well
            case _:
                if isinstance(peer, RemotePeer):
                    self._on_link_event(peer, event)

    def _on_accepted(self, peer: Peer, tickets: Sequence[Ticket]) -> None:
        kinds = set(map(type, tickets))
        if not kinds <= _CALLS:  # of these nobody hears
            self._turn.note_accepted(tickets)
        if len(kinds) == 1:
            on_accepted = self._acceptors.get(kinds.pop())
            if on_accepted is not None:
                on_accepted(peer, tickets)
            return
        for ticket in tickets:
            on_accepted = self._acceptors.get(type(ticket))
            if on_accepted is not None:
                on_accepted(peer, (ticket,))

    def _on_link_event(self, peer: RemotePeer, event: LinkEvent) -> None:
        match event:
            case Opened():
                self._on_opened(peer, event)
            case ControlArrived(records):
                self.told.on_control(peer, records)
            case LivenessChanged() | LeftBehind() | SessionEnded():
                self._on_change(peer, event)
            case ProbeWanted(endpoints):
                self._on_probe_wanted(peer, endpoints)
            case PathWanted():
                self._membership.on_unlinked(peer.id, self._turn.now)
            case Clash(fenced):
                endpoint = peer.link.endpoints[0] if peer.link.endpoints else ""
                self._turn.actions.append(IdentityClash(endpoint, fenced))
            case Defect(kind, detail):
                self._defects.note(peer.id, kind, detail)
            case Arrived() | Accepted() | Returned() | Room():
                raise AssertionError("every carrier's events are taken before")
            case _:
                assert_never(event)

    def _on_change(
        self, peer: RemotePeer, event: LivenessChanged | LeftBehind | SessionEnded
    ) -> None:
        match event:
            case LivenessChanged():
                self._on_liveness(peer, event)
            case LeftBehind(code, text):
                self.leave(peer, text or f"it said goodbye ({code.name.lower()})")
                self._membership.on_unlinked(peer.id, self._turn.now, Unlinked.LEFT)
            case SessionEnded(_, reason):
                self._on_session_ended(peer, reason)
            case _:
                assert_never(event)

    # Records

    def _is_known(self, peer: Peer, source: Source, record: Record) -> bool:
        """Return whether a record is a copy of one that came before: its pattern settles it."""
        kind = record[0] & 15
        if kind == Kind.REQUEST:
            return self.serving.is_known(peer, record)
        is_kept = kind in (Kind.DIRECT, Kind.GROUP, Kind.JOB)
        return is_kept and self._turn.handled.is_known(source, record)

    def _on_direct(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        if are_bare(records) or Tag.STORED not in tags_of(records):
            self.direct.on_records(peer, source, first, last, records)
            return
        for low, high, run in self._turn.handled.admit(source, first, last, records):
            self.direct.on_records(peer, source, low, high, run)

    def _on_durability(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        for record in records:
            if record[1] == "known":
                self.confirming.on_record(peer, source, record)
            elif record[1] in ("passed", "ended"):
                self.following.on_told(source, record)

    def _on_group(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        for low, high, run in self._turn.handled.admit(source, first, last, records):
            self.gatherings.groups.on_records(peer, source, low, high, run)

    def _on_replies(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        for_calls = self.gatherings.survey.on_replies(peer, records)
        self.calls.on_replies(peer, source, first, last, for_calls)

    def _on_missed(
        self, _: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        self.publish_subscribe.on_missed(source, first, last, records)

    def _on_cancels(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> None:
        self._turn.settle(source, first, last, Outcome.ACCEPTED, lazy=True)
        for record in records:
            self.serving.on_cancel(peer, record)

    def _on_returned(self, peer: Peer, returned: Returned) -> None:
        ended = peer.ended if isinstance(peer, RemotePeer) else None
        kind = returned.record[0] & 15
        if isinstance(returned.ticket, StoredTicket):
            self.outbox.on_returned(peer, returned, ended)
        elif kind in (Kind.DIRECT, Kind.PUBLICATION, Kind.MISSED) or isinstance(
            returned.ticket, RequeuedTicket
        ):
            self.topics.readers.on_returned(returned, self._options.attempts_max)
            self.redelivery.on_returned(peer, returned, ended)
        elif kind == Kind.REQUEST:
            self.calls.on_returned(returned)
            self.gatherings.on_returned(peer, returned)
        elif kind == Kind.GROUP:
            self.gatherings.on_returned(peer, returned)
        elif kind in (Kind.REPLY, Kind.FAILURE):
            self.serving.on_returned(peer, returned, ended)
        elif kind == Kind.JOB:
            self.queues.pushed.on_returned(peer, returned)
        elif kind == Kind.STATE:
            self.shared_state.on_returned(peer, returned)
        elif kind in (Kind.STREAM, Kind.STREAM_CONTROL):
            self.streams.on_returned(peer, returned)

    def _send_again(self, letter: DeadLetter, ticket: Ticket) -> None:
        """Send a dead letter that is in memory alone back to where it was for."""
        record, key = letter.as_new(), letter.key
        if record[0] & 15 == Kind.JOB:
            self.queues.pushed.check_push(record[1])
            self.queues.on_command(Push([record], letter.lane, ticket, key))
            return
        peer = self._reach(letter.peer)
        if not peer.present and peer.is_gone:
            raise PeerLost(peer.label, "it has not come back")
        self._turn.submit(peer, letter.lane, [record], ticket, key=key)

    def _on_control(self, peer: RemotePeer, records: list[ControlNews]) -> None:
        learned: list[Entry] = []
        has_changed = False
        for record in records:
            match record:
                case Interest():
                    more, is_news = self.interest.on_interest(peer, record)
                    learned += more
                    if not is_news:
                        continue
                case Drain():
                    peer.draining = True
                case Refused():
                    self.interest.on_refused(peer, record)
                    continue
                case _:
                    assert_never(record)
            has_changed = True
            self.queues.on_peer_changed(peer)  # each counts: what comes back begins anew
        if has_changed or peer in self._untold:
            self._on_learned(peer, learned)

    def on_rules(self, peer: RemotePeer) -> None:
        """Judge anew what a peer told of itself: rules have changed."""
        learned, has_changed = self.interest.judge_anew(peer)
        if has_changed:
            self.queues.on_peer_changed(peer)
            self._on_learned(peer, learned)

    def _on_learned(self, peer: RemotePeer, learned: list[Entry]) -> None:
        """Tell patterns what a peer is interested in from now on."""
        self.publish_subscribe.flush()
        if self.told.waits(peer):  # a view has all its interests: one after the last piece will do
            self._untold[peer] = None
        else:
            self._untold.pop(peer, None)
            self._tell(peer, PeerChange.UPDATED)
        self.on_services([text for kind, text in learned if kind is InterestKind.SERVICE])
        groups = [text for kind, text in learned if kind is InterestKind.GROUP]
        self.gatherings.on_here(peer, groups)
        for kind, text in learned:
            if kind is InterestKind.STATE:
                self.shared_state.on_member(peer, text)

    # Coming and going

    def _on_opened(self, peer: RemotePeer, event: Opened) -> None:
        turn = self._turn
        peer.session = event.session
        peer.journal = event.journal
        self.outbox.on_peer(peer)  # others may bear the name it had
        changed = turn.peers.rename(peer, event.name) or peer.endpoints != event.endpoints
        peer.incarnation = event.incarnation
        peer.endpoints = event.endpoints
        peer.decompresses = frozenset(event.decompresses)
        peer.wants_plain = not turn.peers.local.decompresses <= peer.decompresses
        peer.supplanted.clear()
        self._locate(peer)
        if not peer.announced:
            peer.draining = False
            self.following.on_opened(peer)
            self.interest.announce(peer)
            self.following.on_announced(peer)
            self.shared_state.on_session_begun()
            self.confirming.on_opened(peer)
            if self.draining:
                peer.link.send_control(Drain())
        self._membership.on_linked(
            peer.id, turn.now, path=peer.link.path, endpoints=event.endpoints,
            is_edge=peer.is_edge,
        )  # fmt: skip
        if peer.present:
            self.outbox.on_peer(peer)
            if changed:
                self._tell(peer, PeerChange.UPDATED)
            return
        peer.present = True
        self.queues.on_peer_changed(peer)
        self.outbox.on_peer(peer)
        self._tell(peer, PeerChange.JOINED)
        self.on_services(list(peer.services))
        self.gatherings.on_here(peer, peer.groups)

    def on_services(self, services: Iterable[str]) -> None:
        """Make the calls that wait for a provider of these services."""
        for service in services:
            self.calls.on_provider(service)
            self.later.on_provider(service)

    def _on_liveness(self, peer: RemotePeer, event: LivenessChanged) -> None:
        match event.new:
            case Liveness.ALIVE if event.old in (Liveness.BUSY, Liveness.SUSPECT):
                if peer.suspected:  # or it is another process: then Opened told of it
                    peer.suspected = False
                    self._tell(peer, PeerChange.RECOVERED, event.why)
                    self.on_services(list(peer.services))
            case Liveness.BUSY | Liveness.SUSPECT:
                if peer.present:
                    peer.suspected = True
                    self._tell(peer, PeerChange.SUSPECTED, event.why)
                    self._turn.room_changed(peer.id)  # publishers no longer wait for its room
            case Liveness.LOST:
                self.leave(peer, event.why)
                self.queues.on_lost(peer, is_gone=event.is_gone)
                self._membership.on_unlinked(peer.id, self._turn.now, Unlinked.LOST)
            case Liveness.LEFT:
                self.leave(peer, event.why)
            case _:
                pass  # ALIVE for the first time: Opened says so
        self.queues.on_peer_changed(peer)

    def leave(self, peer: RemotePeer, reason: str) -> None:
        """Tell that a peer is gone, once, and move its calls elsewhere."""
        if peer.present:
            gone = PeerState.LEFT if peer.state is PeerState.LEFT else PeerState.LOST
            view = replace(peer.view(), state=gone)  # a restarted one is alive again already
            self._turn.actions.append(PeerChanged(PeerChange.LEFT, view, reason))
            peer.present = peer.suspected = False
            self._turn.room_changed(peer.id)
            self.outbox.on_peer(peer)  # now its name may be that of another alone
        self.calls.on_provider_gone(peer, reason)
        self.gatherings.on_away(peer, reason)
        self.streams.calls.on_away(peer, reason)

    def _on_session_ended(self, peer: RemotePeer, reason: SessionEnd) -> None:
        if reason is not SessionEnd.PEER_FORGOT:
            self.leave(peer, reason.value)
        else:
            self.calls.on_provider_gone(peer, reason.value)
            self.gatherings.on_away(peer, reason.value)
        peer.ended = reason
        peer.session = None
        peer.announced = False
        peer.wants_plain = True  # another process may be the next
        peer.decompresses = frozenset()
        peer.open_in -= self.direct.on_session_ended(peer)
        peer.stale_in += peer.open_in
        peer.open_in = 0
        self.told.forget(peer)
        self._untold.pop(peer, None)
        self.interest.forget(peer)
        self.queues.on_session_ended(peer)
        self.outbox.on_session_ended(peer)
        self.confirming.on_session_ended(peer)
        self.following.on_session_ended(peer)
        self.shared_state.on_session_ended(peer)
        self.streams.on_session_ended(peer, reason.value)
        if reason in _FINAL:
            self.on_gone(peer, reason)
        else:
            self.redelivery.on_restarted(peer, reason.value)

    def on_gone(self, peer: RemotePeer, reason: SessionEnd) -> None:
        """Fail what still waits for a peer that is not waited for."""
        self.redelivery.on_gone(peer, _GONE[reason], reason.value)
        self._turn.room_changed(peer.id)

    def _tell(self, peer: RemotePeer, change: PeerChange, reason: str = "") -> None:
        self._turn.actions.append(PeerChanged(change, peer.view(), reason))

    # Probes

    def _on_probe_wanted(self, peer: RemotePeer, endpoints: tuple[str, ...]) -> None:
        telling = [] if peer.elsewhere else self._membership.telling(endpoints)
        for endpoint in telling:
            self._probe(endpoint, peer, self._probing)
        # What leads elsewhere has no say; where nothing else is left, the peer is out of reach.
        answer = PathCause.REFUSED if telling else PathCause.UNREACHABLE
        for endpoint in endpoints:
            if endpoint not in telling:
                peer.link.on_probe(endpoint, answer, self._turn.now)
                self._turn.touched[peer] = None

    def _locate(self, peer: RemotePeer) -> None:
        """Find out whether a peer that listens on loopback alone does so on this machine.

        Now that it is there for sure: later, nobody listening there would be taken for its end.
        """
        peer.elsewhere = self._membership.may_be_elsewhere(peer.endpoints)
        if peer.elsewhere:
            for endpoint in self._membership.telling(peer.endpoints):
                self._probe(endpoint, peer, self._locating)

    def _probe(
        self, endpoint: str, peer: RemotePeer, asking: dict[str, dict[RemotePeer, None]]
    ) -> None:
        if endpoint not in self._probing and endpoint not in self._locating:
            self._turn.actions.append(Probe(endpoint, self._options.dial_timeout))
        asking.setdefault(endpoint, {})[peer] = None

    def on_probe(self, endpoint: str, cause: PathCause | None) -> None:
        """Take the answer to a probe."""
        for peer in self._locating.pop(endpoint, ()):
            peer.elsewhere = peer.elsewhere and cause is not None
        for peer in self._probing.pop(endpoint, ()):
            answer = self._membership.judged(peer.id, endpoint, peer.judged(endpoint, cause))
            peer.link.on_probe(endpoint, answer, self._turn.now)
            self._turn.touched[peer] = None
