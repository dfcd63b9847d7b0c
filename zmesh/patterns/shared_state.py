"""Shared maps: which replicas there are, who is told what, and when they compare.

Replicas of a map are the nodes that declared it (`InterestKind.STATE`). Each tells all others what
it writes, as changes over their links; of a peer it keeps only how far that one was told. And each
pulls: it compares itself with another replica and gets what it lacks, when it opens, when a
session begins, when changes from a peer do not join up with what came before, and now and then in
turn. So whatever a link gave up is found: replicas become equal by pulls, changes make it quick.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, assert_never

from zmesh.actions import StateChanged, StateReady
from zmesh.core.defects import Defects
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import InvalidOption, MapFull, ProtocolError, UsageError
from zmesh.events import CloseState, OpenState, Source, WallClockRead, WriteState
from zmesh.ids import NODE_ID_BYTES, Entropy, NodeId
from zmesh.message import (
    PRIORITY_DEFAULT,
    Encoding,
    InterestKind,
    Kind,
    Outcome,
    Record,
    Ticket,
    head,
)
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.shared_map import LIFE_BYTES, Entry, ReplicaMap
from zmesh.patterns.shared_replica import Refusals, Replica
from zmesh.patterns.state_pull import Pull, answer
from zmesh.patterns.state_records import (
    Ask,
    Delta,
    Digest,
    Fetch,
    Piece,
    StateRecord,
    decode,
    encode_ask,
    encode_delta,
    encode_digest,
    encode_fetch,
    encode_piece,
)
from zmesh.reliable.link_events import Returned

StateCommand = OpenState | CloseState | WriteState | WallClockRead

_HEAD: Final = head(Kind.STATE, Encoding.MSGPACK)

_ANSWERS_MAX: Final = 2
"""Answers to one peer on their way, for each map there may be: an honest one has asked once."""


class DeltaTicket(InternalTicket):
    """Changes on their way to a peer."""

    __slots__ = ("name", "origin", "since")

    def __init__(self, name: str, delta: Delta) -> None:
        super().__init__()
        self.name = name
        self.origin = delta.origin
        self.since = delta.since


class QuestionTicket(InternalTicket):
    """A question of a pull."""

    __slots__ = ("name", "number")

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.number = number


class AnswerTicket(InternalTicket):
    """An answer to somebody else's pull."""

    __slots__ = ()


@dataclass(slots=True)
class _Member:
    """Another replica, for as long as its session and its interest last."""

    peer: Peer
    told: int  # all written here up to this stamp was sent to it
    due: float | None  # when to pull from it
    in_flight: DeltaTicket | None = None
    held_until: float | None = None  # it gave changes back: it is left alone for a while
    rest_until: float = 0.0  # it was pulled from just before
    tried: bool = False  # it was pulled from, with whatever result
    run: tuple[bytes, int, int] | None = None  # origin, since, until: ahead of what was seen


@dataclass(slots=True)
class _Shared:
    """A map and what surrounds it."""

    replica: Replica
    next_look: float  # when to compare with another, and to forget old deletions
    members: dict[NodeId, _Member] = field(default_factory=dict)
    pull: Pull | None = None
    pull_until: float = 0.0
    looked_at: int = 0  # members compared with in their turn
    is_whole: bool = False  # it has a snapshot, or nobody has more
    grace_until: float | None = None  # until then others may still tell that they share it

    @property
    def deadline(self) -> float | None:
        """When there is something to do."""
        waiting = [member.held_until for member in self.members.values()]
        waiting.append(self.grace_until)
        if self.pull is not None:
            return earliest(self.next_look, self.pull_until, *waiting)
        due = [
            max(member.due, member.rest_until)
            for member in self.members.values()
            if member.due is not None
        ]
        return earliest(self.next_look, *waiting, *due)


class SharedState:
    """All shared maps of a node."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        options: NodeOptions,
        entropy: Entropy,
        defects: Defects,
    ) -> None:
        self._turn = turn
        self._interest = interest
        self._options = options
        self._entropy = entropy
        self._defects = defects
        self._maps: dict[str, _Shared] = {}
        self._dirty: dict[str, None] = {}  # maps that may have something to do
        self._due: Deadlines[str] = Deadlines()
        self._answers: dict[NodeId, int] = {}  # on their way
        self._wall_ms = 0
        self._wall_at = 0.0
        self._joined_at = float("-inf")  # when the latest session began
        self.pulls = 0
        self.refused_ahead = 0
        self.refused_full = 0
        self.rewritten = 0  # entries, because this node's clock had been wrong

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def size(self) -> int:
        """Bytes in all maps."""
        return sum(shared.replica.map.size for shared in self._maps.values())

    @property
    def untold(self) -> int:
        """How many peers have not been sent all that was written here."""
        return sum(
            member.told < shared.replica.written
            for shared in self._maps.values()
            for member in shared.members.values()
        )

    def map(self, name: str) -> ReplicaMap | None:
        """Return the entries of a map that is open here."""
        shared = self._maps.get(name)
        return None if shared is None else shared.replica.map

    def is_whole(self, name: str) -> bool:
        """Return whether a map has had a snapshot, or there was none to have."""
        shared = self._maps.get(name)
        return shared is not None and shared.is_whole

    # What would work

    def check_open(self, name: str) -> None:
        """Raise UsageError where another map would be one too many."""
        limit = self._options.shared_maps_max
        if name not in self._maps and len(self._maps) >= limit:
            raise UsageError(f"this node shares {limit} maps already: close some first")

    def check_write(self, name: str, key: str, size: int) -> None:
        """Raise InvalidOption or MapFull where a key cannot hold a value of so many bytes."""
        limit = self._options.shared_value_bytes_max
        if size > limit:
            raise InvalidOption("size of value", size, f"at most {limit} bytes, encoded")
        own = self._maps[name].replica.map
        if not own.has_room(key, size):
            raise MapFull(name, len(own), own.size)

    # Commands

    def on_command(self, command: StateCommand) -> None:
        """Do what the application wants."""
        match command:
            case OpenState(name, wall_ms):
                self._on_wall_clock(wall_ms)
                self._open(name)
            case CloseState(name):
                self._close(name)
            case WriteState(name, key, encoding, value, wall_ms):
                self._on_wall_clock(wall_ms)
                shared = self._maps.get(name)
                if shared is not None:
                    shared.replica.write(key, encoding, value, wall_ms, self._turn.now)
                    self._dirty[name] = None
            case WallClockRead(wall_ms):
                self._on_wall_clock(wall_ms)
            case _:
                assert_never(command)

    def _open(self, name: str) -> None:
        if name in self._maps:
            return
        turn = self._turn
        replica = Replica(name, turn.peers.local.id, self._life(), self._options)
        shared = self._maps[name] = _Shared(replica, turn.now + self._options.shared_sync_every)
        grace_until = self._joined_at + self._options.shared_grace
        if grace_until > turn.now:
            shared.grace_until = grace_until
        self._interest.declare(InterestKind.STATE, name)
        for peer in self._interest.members(InterestKind.STATE, name):
            self.on_member(peer, name)
        self._dirty[name] = None
        self._check_whole(shared)

    def _close(self, name: str) -> None:
        """Send what peers were not told yet, all at once, and forget the map."""
        shared = self._maps.get(name)
        if shared is None:
            return
        for member in shared.members.values():
            while self._tell(shared, member):
                pass
        self._tell_changes(shared)
        self._interest.retract(InterestKind.STATE, name)
        del self._maps[name]
        self._due.discard(name)
        self._dirty.pop(name, None)

    def _life(self) -> bytes:
        return self._entropy.token(LIFE_BYTES)

    # Wall time

    def _wall(self) -> int:
        """Return what the wall clock reads now, counted on from when it was last read."""
        return self._wall_ms + int((self._turn.now - self._wall_at) * 1000)

    def _on_wall_clock(self, wall_ms: int) -> None:
        self._wall_ms, self._wall_at = wall_ms, self._turn.now
        for name, shared in self._maps.items():
            replica, origin = shared.replica, shared.replica.origin
            rewritten = replica.on_wall_clock(wall_ms, self._life(), self._turn.now)
            if replica.origin == origin:
                continue
            self.rewritten += rewritten
            self._dirty[name] = None
            for member in shared.members.values():
                member.told = 0
                member.in_flight = None
            self._turn.trace("state_clock_put_back", 30, map=name, rewritten=rewritten)

    # Replicas

    def on_member(self, peer: Peer, name: str) -> None:
        """Take in that a peer holds a replica of a map."""
        shared = self._maps.get(name)
        if shared is None or peer is self._turn.peers.local or peer.id in shared.members:
            return
        # What was written before it gets by pulling from here.
        shared.members[peer.id] = _Member(peer, shared.replica.written, self._turn.now)
        self._dirty[name] = None

    def on_session_begun(self) -> None:
        """Take in that some peer joined: what it shares is not known yet."""
        self._joined_at = self._turn.now

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what the session with a peer was about."""
        self._answers.pop(peer.id, None)
        for name, shared in self._maps.items():
            if peer.id in shared.members:
                self._remove(shared, peer.id)
                self._dirty[name] = None

    def _remove(self, shared: _Shared, node: NodeId) -> None:
        del shared.members[node]
        if shared.pull is not None and shared.pull.peer == node:
            shared.pull = None
        self._check_whole(shared)

    def _check_whole(self, shared: _Shared) -> None:
        """A replica is whole where nobody it knows of has more, or could be asked."""
        if shared.is_whole or not all(member.tried for member in shared.members.values()):
            return
        if shared.grace_until is not None:
            if shared.grace_until > self._turn.now:
                return
            shared.grace_until = None
        self._become_whole(shared)

    def _become_whole(self, shared: _Shared) -> None:
        shared.is_whole = True
        shared.grace_until = None
        self._turn.actions.append(StateReady(shared.replica.name))

    # What is due

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    def on_timer(self) -> None:
        """Look at the maps that are due; `flush` does the rest."""
        now, options = self._turn.now, self._options
        for name in self._due.due(now):
            shared = self._maps[name]
            self._dirty[name] = None
            if shared.pull is not None and shared.pull_until <= now:
                self._end_pull(shared, shared.pull, retry_after=options.shared_sync_every)
            self._check_whole(shared)
            if shared.next_look <= now:
                shared.next_look = now + options.shared_sync_every
                shared.replica.map.expire(now - options.shared_deleted_for)
                members = list(shared.members.values())
                if members:
                    shared.looked_at += 1
                    members[shared.looked_at % len(members)].due = now

    def flush(self) -> None:
        """Tell peers what was written in this turn, begin pulls, and tell the application."""
        dirty, self._dirty = self._dirty, {}
        for name in dirty:
            shared = self._maps.get(name)
            if shared is None:
                continue
            for node, member in list(shared.members.items()):
                if name not in member.peer.interests[InterestKind.STATE]:
                    self._remove(shared, node)
                elif member.in_flight is None and not self._is_held(member):
                    self._tell(shared, member)
            if shared.pull is None:
                self._begin_pull(shared)
            self._tell_changes(shared)
            self._due.set(name, shared.deadline)

    def _tell_changes(self, shared: _Shared) -> None:
        changes = shared.replica.take_changes()
        if changes:
            self._turn.actions.append(StateChanged(shared.replica.name, changes))

    # Changes

    def _is_held(self, member: _Member) -> bool:
        if member.held_until is not None and member.held_until <= self._turn.now:
            member.held_until = None
        return member.held_until is not None

    def _tell(self, shared: _Shared, member: _Member) -> bool:
        """Send a peer the next changes; False where it has been sent all."""
        delta = shared.replica.delta(member.told)
        if delta is None:
            return False
        ticket = DeltaTicket(shared.replica.name, delta)
        member.told, member.in_flight = delta.until, ticket
        self._submit(member.peer, shared.replica.name, encode_delta(delta), ticket)
        return True

    def _submit(self, peer: Peer, name: str, body: bytes, ticket: InternalTicket) -> None:
        self._turn.submit(peer, PRIORITY_DEFAULT, [(_HEAD, name, body)], ticket)

    def on_accepted(self, peer: Peer, tickets: Iterable[Ticket]) -> None:
        """Note what a peer took."""
        if not self._maps and not self._answers:
            return
        for ticket in tickets:
            if type(ticket) is AnswerTicket:
                self._answered(peer)
            elif type(ticket) is DeltaTicket:
                self._delta_done(peer, ticket)

    def _delta_done(self, peer: Peer, ticket: DeltaTicket) -> _Member | None:
        """Let further changes go; return the member that the ticket was for, if it still is."""
        shared = self._maps.get(ticket.name)
        member = None if shared is None else shared.members.get(peer.id)
        if member is None or member.in_flight is not ticket:
            return None
        member.in_flight = None
        self._dirty[ticket.name] = None
        return member

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Take back what a peer did not take."""
        ticket = returned.ticket
        if type(ticket) is AnswerTicket:
            self._answered(peer)
        elif type(ticket) is QuestionTicket:
            shared = self._maps.get(ticket.name)
            if shared is not None and shared.pull is not None:
                pull = shared.pull
                if (pull.peer, pull.number) == (peer.id, ticket.number):
                    self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)
        elif type(ticket) is DeltaTicket:
            self._on_delta_returned(peer, ticket, returned)

    def _on_delta_returned(self, peer: Peer, ticket: DeltaTicket, returned: Returned) -> None:
        member = self._delta_done(peer, ticket)
        if member is None:
            return
        if returned.outcome is Outcome.REJECTED:
            # It would be refused again; the peer compares itself with others now and then.
            self._defects.note(peer.id, "changes to a map refused", returned.reason)
            return
        member.told = ticket.since
        member.held_until = self._turn.now + max(returned.delay, self._options.shared_sync_gap)

    # Pulls

    def _begin_pull(self, shared: _Shared) -> None:
        now = self._turn.now
        for member in shared.members.values():
            if member.due is None or max(member.due, member.rest_until) > now:
                continue
            member.due = None
            self.pulls += 1
            shared.pull = pull = Pull(self.pulls, member.peer.id, shared.replica.map)
            self._ask(shared, pull, encode_ask(Ask(pull.number, shared.replica.map.root)))
            return

    def _ask(self, shared: _Shared, pull: Pull, body: bytes) -> None:
        name = shared.replica.name
        shared.pull_until = self._turn.now + self._options.shared_sync_timeout
        peer = shared.members[pull.peer].peer
        self._submit(peer, name, body, QuestionTicket(name, pull.number))

    def _end_pull(self, shared: _Shared, pull: Pull, retry_after: float | None = None) -> None:
        """End a pull; it is made again after so many seconds, unless it brought everything."""
        member, now = shared.members[pull.peer], self._turn.now
        shared.pull = None
        member.tried = True
        member.rest_until = now + self._options.shared_sync_gap
        if retry_after is not None:
            member.due = now + retry_after
        self._check_whole(shared)
        self._dirty[shared.replica.name] = None

    def _complete(self, shared: _Shared, pull: Pull) -> None:
        assert pull.digest is not None  # noqa: S101  # it is the first answer
        if pull.digest.is_whole and not shared.is_whole:
            self._become_whole(shared)
        if not pull.is_clean:
            self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)
            return
        replica = shared.replica.map
        replica.absorb(pull.digest.seen)
        for member in shared.members.values():
            if member.run is not None:
                origin, since, until = member.run
                if replica.seen.get(origin, 0) >= since:
                    replica.note_seen(origin, until)
                    member.run = None
        self._end_pull(shared, pull)

    # Records

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: list[Record]
    ) -> None:
        """Take what another replica tells or asks."""
        for index, record in enumerate(records):
            low = first + index
            high = last if len(records) == 1 else low  # one from fragments has several numbers
            try:
                reason = self._on_record(peer, record)
            except ProtocolError as error:
                self._defects.note(peer.id, "malformed state", error.detail)
                reason = f"malformed: {error.detail}"
            if reason is None:
                self._turn.settle(source, low, high, Outcome.ACCEPTED)
            else:
                self._turn.settle(source, low, high, Outcome.REJECTED, reason)

    def _on_record(self, peer: Peer, record: Record) -> str | None:
        """Return why a record is refused; None where it is taken."""
        shared = self._maps.get(record[1])
        if shared is None:
            return "this node does not hold the map"
        if record[0] != _HEAD:
            raise ProtocolError("malformed", "the body of a STATE record is not MSGPACK")
        told = decode(record[2], self._options.shared_bytes_max)
        self._dirty[record[1]] = None
        if isinstance(told, Ask | Fetch):
            return self._on_question(peer, shared, told)
        if isinstance(told, Delta):
            return self._on_delta(peer, shared, told)
        self._on_answer(peer, shared, told)
        return None

    def _on_question(self, peer: Peer, shared: _Shared, question: Ask | Fetch) -> str | None:
        if self._answers.get(peer.id, 0) >= _ANSWERS_MAX * self._options.shared_maps_max:
            return "too many questions at once"
        own = shared.replica.map
        if isinstance(question, Ask):
            sums = b"" if question.root == own.root else own.sums
            body = encode_digest(Digest(question.number, shared.is_whole, own.seen, sums))
        else:
            body = encode_piece(answer(own, question, self._options.shared_piece_bytes))
        self._answers[peer.id] = self._answers.get(peer.id, 0) + 1
        self._submit(peer, shared.replica.name, body, AnswerTicket())
        return None

    def _answered(self, peer: Peer) -> None:
        """Count an answer less that is on its way."""
        count = self._answers.get(peer.id, 0)
        if count > 1:
            self._answers[peer.id] = count - 1
        else:
            self._answers.pop(peer.id, None)

    def _on_answer(self, peer: Peer, shared: _Shared, told: StateRecord) -> None:
        pull = shared.pull
        if pull is None or pull.peer != peer.id or not isinstance(told, Digest | Piece):
            return  # of a pull that was given up
        if told.number != pull.number:
            return
        try:
            if isinstance(told, Digest):
                question = pull.on_digest(told)
            else:
                refusals = self._take(peer, shared, told.entries)
                pull.is_clean = pull.is_clean and not refusals
                outdated, question = pull.on_piece(told)
                shared.replica.drop(outdated, peer.id)
        except ProtocolError:
            self._end_pull(shared, pull, retry_after=self._options.shared_sync_every)
            raise
        if question is None:
            self._complete(shared, pull)
        else:
            self._ask(shared, pull, encode_fetch(question))

    def _on_delta(self, peer: Peer, shared: _Shared, delta: Delta) -> str | None:
        if delta.origin[:NODE_ID_BYTES] != peer.id:
            raise ProtocolError("malformed", "changes that somebody else wrote")
        refusals = self._take(peer, shared, delta.entries)
        member = shared.members.get(peer.id)
        if refusals:
            if member is not None:
                member.due = self._turn.now + self._options.shared_sync_every
            return (
                f"stamped more than {self._options.shared_drift_max:g} s ahead of this clock"
                if refusals.ahead
                else "over a limit, or without room, here"
            )
        own = shared.replica.map
        if own.seen.get(delta.origin, 0) >= delta.since:
            own.note_seen(delta.origin, delta.until)
        elif member is not None:
            self._note_run(member, delta)
        return None

    def _note_run(self, member: _Member, delta: Delta) -> None:
        """Remember changes ahead of what was seen, until a pull has filled the gap."""
        run = member.run
        if run is not None and run[0] == delta.origin and run[2] >= delta.since:
            member.run = (delta.origin, run[1], max(run[2], delta.until))
        else:
            member.run = (delta.origin, delta.since, delta.until)
        if member.due is None:
            member.due = self._turn.now

    def _take(self, peer: Peer, shared: _Shared, entries: list[tuple[str, Entry]]) -> Refusals:
        refusals = shared.replica.take(entries, self._wall(), self._turn.now)
        if refusals.ahead:
            self.refused_ahead += refusals.ahead
            detail = f"entries of map {shared.replica.name!r} stamped too far ahead: whose clock?"
            self._defects.note(peer.id, "state from the future", detail)
        if refusals.full:
            self.refused_full += refusals.full
            detail = f"map {shared.replica.name!r} has no room for all that others hold"
            self._defects.note(peer.id, "state without room", detail)
        return refusals
