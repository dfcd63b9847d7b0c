"""Shared maps: which replicas there are, who is told what, and when they compare.

Replicas of a map are the nodes that declared it (`InterestKind.STATE`). Each tells all others what
it writes, as changes over their links; of a peer it keeps only how far that one was told. And each
pulls: it compares itself with another replica and gets what it lacks, when it opens, when a
session begins, when changes from a peer do not join up with what came before, and now and then in
turn. So whatever a link gave up is found: replicas become equal by pulls, changes make it quick.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, assert_never

from zmesh.actions import StateChanged
from zmesh.core.defects import Defects
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import InvalidOption, MapFull, ProtocolError, UsageError
from zmesh.events import Source
from zmesh.ids import NODE_ID_BYTES, Entropy, NodeId
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import InterestKind, Outcome, Record, Ticket
from zmesh.options import NodeOptions
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.shared_map import LIFE_BYTES, ReplicaMap
from zmesh.patterns.shared_parts import (
    AnswerTicket,
    DeltaTicket,
    Member,
    QuestionTicket,
    Shared,
    WallClock,
)
from zmesh.patterns.shared_pulls import STATE_HEAD, Pulls
from zmesh.patterns.shared_replica import Replica
from zmesh.patterns.shared_saving import SharedSaving
from zmesh.patterns.state_records import Ask, Delta, Fetch, decode, encode_delta
from zmesh.reliable.link_events import Returned

StateCommand = OpenState | CloseState | WriteState | WallClockRead


_QUICK_LOOKS: Final = 4
"""Comparisons in a row after a replica left; the word of a last change doubles with each."""


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
        self._clock = WallClock()
        self.pulls = Pulls(turn, options, entropy, defects, self._clock)
        self._maps: dict[str, Shared] = {}
        self._dirty: dict[str, None] = {}  # maps that may have something to do
        self.saving = SharedSaving(turn, options) if turn.keeper.is_there else None
        kept = () if self.saving is None else self.saving.gathered
        self.gathered = (self._dirty, *kept)  # empty: nothing to flush
        self._due: Deadlines[str] = Deadlines(turn.agenda)
        self._joined_at = float("-inf")  # when the latest session began

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
        if self.saving is None:
            if name not in self._maps and len(self._maps) >= limit:
                raise UsageError(f"this node shares {limit} maps already: close some first")
        elif name not in self.saving and len(self.saving.names) >= limit:
            raise UsageError(
                f"this node keeps {limit} maps already: close some with forget=True first"
            )

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
            case CloseState(name, ticket):
                self._close(name)
                if ticket is not None:
                    self._forget(name, ticket)
            case WriteState(name, key, encoding, value, wall_ms, ticket):
                self._on_wall_clock(wall_ms)
                shared = self._maps.get(name)
                if shared is not None:
                    shared.replica.write(key, encoding, value, wall_ms, self._turn.now)
                    self._dirty[name] = None
                if ticket is not None:
                    self._wait(name, ticket)
            case WallClockRead(wall_ms):
                self._on_wall_clock(wall_ms)
            case _:
                assert_never(command)

    def _wait(self, name: str, ticket: Ticket) -> None:
        if self.saving is None:
            self._turn.stored(ticket, None)
        else:
            self.saving.wait(name, ticket)

    def _forget(self, name: str, ticket: Ticket) -> None:
        told = partial(self._turn.stored, ticket)
        if self.saving is None:
            told(None)
        else:
            self.saving.forget(name, told)

    def _open(self, name: str) -> None:
        if name in self._maps:
            return
        turn = self._turn
        life = self._entropy.token(LIFE_BYTES)
        kept = None if self.saving is None else self.saving.open(name)
        replica = Replica(name, turn.peers.local.id, life, self._options, kept)
        shared = self._maps[name] = Shared(replica, turn.now + self._options.shared_sync_every)
        grace_until = self._joined_at + self._options.shared_grace
        if grace_until > turn.now:
            shared.grace_until = grace_until
        self._interest.declare(InterestKind.STATE, name)
        for peer in self._interest.members(InterestKind.STATE, name):
            self.on_member(peer, name)
        self._dirty[name] = None
        self.pulls.check_whole(shared)

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
        if self.saving is not None:
            self.saving.touch(name)
        self._due.discard(name)
        self._dirty.pop(name, None)

    # Wall time

    def _on_wall_clock(self, wall_ms: int) -> None:
        self._clock.on_read(wall_ms, self._turn.now)
        for name, shared in self._maps.items():
            if shared.replica.is_ahead(wall_ms):  # is it wrong now, or was it? The others know
                self._dirty[name] = None
                for member in shared.members.values():
                    member.due = self._turn.now

    # Replicas

    def on_member(self, peer: Peer, name: str) -> None:
        """Take in that a peer holds a replica of a map."""
        shared = self._maps.get(name)
        if shared is None or peer is self._turn.peers.local or peer.id in shared.members:
            return
        # What was written before it gets by pulling from here.
        shared.members[peer.id] = Member(peer, shared.replica.written, self._turn.now)
        self._dirty[name] = None

    def on_session_begun(self) -> None:
        """Take in that some peer joined: what it shares is not known yet."""
        self._joined_at = self._turn.now

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what the session with a peer was about."""
        self.pulls.forget(peer)
        for name, shared in self._maps.items():
            if peer.id in shared.members:
                self._remove(shared, peer.id)
                self._dirty[name] = None

    def _remove(self, shared: Shared, node: NodeId) -> None:
        del shared.members[node]
        shared.quick_looks, shared.next_look = _QUICK_LOOKS, self._turn.now
        if shared.pull is not None and shared.pull.peer == node:
            shared.pull = None
        self.pulls.check_whole(shared)

    # What is due

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        if self.saving is None:
            return self._due.next
        return earliest(self._due.next, self.saving.deadline)

    def on_timer(self) -> None:
        """Look at the maps that are due; `flush` does the rest."""
        now, options = self._turn.now, self._options
        if self.saving is not None:
            self.saving.on_timer()
        for name in self._due.due(now):
            shared = self._maps[name]
            self._dirty[name] = None
            self.pulls.on_timer(shared)
            if shared.next_look <= now:
                pause = (
                    options.shared_sync_gap if shared.quick_looks else options.shared_sync_every
                )
                shared.quick_looks = max(0, shared.quick_looks - 1)
                shared.next_look = now + pause
                shared.replica.map.expire(now - options.shared_deleted_for)
                members = list(shared.members.values())
                if members:
                    shared.looked_at += 1
                    members[shared.looked_at % len(members)].due = now

    def flush(self) -> None:
        """Tell peers what was written in this turn, begin pulls, and tell the application."""
        dirty = list(self._dirty)
        self._dirty.clear()
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
                self.pulls.begin(shared)
            self._tell_changes(shared)
            if self.saving is not None:
                self.saving.touch(name)
            self._due.set(name, shared.deadline)
        if self.saving is not None:
            self.saving.flush()

    def _tell_changes(self, shared: Shared) -> None:
        changes = shared.replica.take_changes()
        if changes:
            self._turn.actions.append(StateChanged(shared.replica.name, changes))

    # Changes

    def _is_held(self, member: Member) -> bool:
        if member.held_until is not None and member.held_until <= self._turn.now:
            member.held_until = None
        return member.held_until is not None

    def _tell(self, shared: Shared, member: Member) -> bool:
        """Send a peer the next changes; False where it has been sent all."""
        delta = shared.replica.delta(member.told)
        if delta is None:
            return False
        ticket = DeltaTicket(shared.replica.name, delta.since)
        member.told, member.in_flight = delta.until, ticket
        self.pulls.submit(member.peer, shared.replica.name, encode_delta(delta), ticket)
        return True

    def on_accepted(self, peer: Peer, tickets: Iterable[Ticket]) -> None:
        """Note what a peer took."""
        for ticket in tickets:
            if type(ticket) is AnswerTicket:
                self.pulls.answered(peer)
            elif type(ticket) is DeltaTicket:
                self._delta_done(peer, ticket)

    def _delta_done(self, peer: Peer, ticket: DeltaTicket) -> Member | None:
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
            self.pulls.answered(peer)
        elif type(ticket) is QuestionTicket:
            shared = self._maps.get(ticket.name)
            if shared is not None:
                self.pulls.on_question_returned(peer, shared, ticket)
                self._dirty[ticket.name] = None
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

    # Records

    def on_records(
        self, peer: Peer, source: Source, first: int, last: int, records: Sequence[Record]
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
        if record[0] != STATE_HEAD:
            raise ProtocolError("malformed", "the body of a STATE record is not MSGPACK")
        told = decode(record[2], self._options.shared_bytes_max)
        self._dirty[record[1]] = None
        if isinstance(told, Ask | Fetch):
            return self.pulls.on_question(peer, shared, told)
        if isinstance(told, Delta):
            return self._on_delta(peer, shared, told)
        self.pulls.on_answer(peer, shared, told)
        return None

    def _on_delta(self, peer: Peer, shared: Shared, delta: Delta) -> str | None:
        if delta.origin[:NODE_ID_BYTES] != peer.id:
            raise ProtocolError("malformed", "changes that somebody else wrote")
        refusals = self.pulls.take(peer, shared, delta.entries)
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
            self.pulls.note_run(member, delta)
        return None
