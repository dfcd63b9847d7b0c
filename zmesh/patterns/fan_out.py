"""Fan-out: one message to every member of a group, and what became of it at each.

A member stays open until it accepted or refused the message, or the deadline: one that is lost or
leaves is waited for, and gets the message again when it is back in the group. A process without
storage comes back under another id, so one of the same name takes the place of a member whose
session is over. `groups` is the other side, and knows what it has handled.

A durable one is on disk before anything of it is sent, and goes on in another life of this node
with the members that have no outcome, until its deadline by the wall clock.
"""

from collections.abc import Callable, Iterable
from functools import partial

from zmesh.actions import (
    FanOutChanged,
    FanOutEnded,
    FanOutRestored,
    FanOutStored,
    MemberState,
)
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import ProtocolError
from zmesh.events import StartFanOut
from zmesh.ids import NodeId
from zmesh.message import FailureKind, InterestKind, Outcome, Tag, Ticket, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.fan_out_members import FanOutTicket, Member, Running
from zmesh.patterns.fan_outs_stored import FanOutsStored, restored_number
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.redelivery import Redelivery
from zmesh.reliable.link_events import Returned
from zmesh.storage import Entry, FailedAttempt
from zmesh.storage_errors import StorageError

_UNANSWERED = "it has not answered yet"
_GONE = "it is gone"
_UNSEEN = "it was not seen since this node restarted"


class FanOut:
    """The sending side of fan-outs."""

    def __init__(
        self,
        turn: Turn,
        interest: InterestTable,
        redelivery: Redelivery,
        options: NodeOptions,
        known: Callable[[NodeId, int, int], None],
    ) -> None:
        self._turn = turn
        self.stored = FanOutsStored(turn, known)
        self._storing: dict[int, Running] = {}
        self._restored: list[Running] = []
        self._interest = interest
        self._redelivery = redelivery
        self._options = options
        self._running: dict[int, Running] = {}
        self._deadlines: Deadlines[int] = Deadlines(turn.agenda)
        self._retries: Deadlines[tuple[int, int]] = Deadlines(turn.agenda)  # by fan-out and place
        self._message_ids = 0
        self.repeats = 0  # sent again, for whatever reason

    def __len__(self) -> int:
        """Count the fan-outs under way."""
        return len(self._running) + len(self._storing)

    @property
    def waiting(self) -> int:
        """How many members have nothing on its way to them now, and no outcome.

        Those of durable fan-outs do not count: another life goes on with them.
        """
        return sum(
            member.is_open and member.ticket is None
            for running in self._running.values()
            if not running.stored
            for member in running.members.values()
        )

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._deadlines.next, self._retries.next)

    # Commands

    def on_start(self, start: StartFanOut) -> None:
        """Send a message to every member that is there now; `FanOutEnded` tells the end."""
        if start.durable:
            self._store(start)
            return
        self._message_ids += 1
        record = with_extra(start.record, Tag.MESSAGE_ID, self._message_ids)
        expires = None if start.ttl is None else self._turn.now + start.ttl
        running = Running(start.fan_out, record, start.lane, expires, start.include_late)
        self._running[running.number] = running
        self._deadlines.set(running.number, start.deadline)
        running.open = 1  # more than there are: not over before the last was added
        for peer in self._present(running):
            self._add(running, peer)
        running.open -= 1
        self._check_over(running)

    def _present(self, running: Running) -> list[Peer]:
        members = self._interest.members(InterestKind.GROUP, running.group)
        return [peer for peer in members if peer.present]

    def on_cancel(self, number: int) -> None:
        """Forget a fan-out nobody waits for, and take back what has not arrived."""
        running = self._running.get(number)
        if running is not None and self._forget(running) and running.stored:
            self.stored.forget(running)
        self._storing.pop(number, None)

    # On disk

    def _store(self, start: StartFanOut) -> None:
        """Store a message for the members that are there now; it is sent when it is on disk."""
        now, wall_ms = self._turn.now, start.wall_ms
        self._turn.keeper.on_wall_clock(wall_ms, now)
        number = self.stored.number()
        ttl = start.ttl
        running = Running(
            start.fan_out,
            with_extra(start.record, Tag.STORED, number),
            start.lane,
            None if ttl is None else now + ttl,
            start.include_late,
            stored=number,
            deadline_ms=wall_ms + round((start.deadline - now) * 1000),
            expires_ms=0 if ttl is None else wall_ms + max(1, round(ttl * 1000)),
        )
        for peer in self._present(running):
            running.add(peer.id, peer.label)
        self._storing[running.number] = running
        self.stored.store(running, partial(self._on_stored, running, start.deadline))

    def _on_stored(self, running: Running, deadline: float, error: StorageError | None) -> None:
        if self._storing.pop(running.number, None) is None:
            if error is None:  # it was cancelled meanwhile
                self.stored.forget(running)
            return
        self._turn.actions.append(FanOutStored(running.number, error))
        if error is not None:
            return
        self._running[running.number] = running
        self._deadlines.set(running.number, deadline)
        running.open += 1
        present = {peer.id: peer for peer in self._present(running)}
        for member in list(running.members.values()):
            peer = present.pop(member.node, None)
            if peer is None:
                self._wait(running, member, _GONE, 0.0)
            else:
                self._send(running, member, peer)
        if running.include_late:
            for peer in present.values():
                self._add(running, peer)
        running.open -= 1
        self._check_over(running)

    def on_entry(self, entry: Entry) -> None:
        """Take up what an earlier life kept: of each fan-out the message first."""
        try:
            running = self.stored.message_of(entry)
            if running is not None:
                running.open += 1  # not over before all was read
                self._running[running.number] = running
                self._restored.append(running)
                self._turn.actions.append(FanOutRestored(running.number, running.record))
                return
            running = self._running.get(restored_number(entry))
            if running is not None:  # else its message was lost with a damaged journal
                member = self.stored.member_of(entry, running)
                if member.is_open:
                    member.reason = _UNSEEN
                self._tell(running, member)
        except (ProtocolError, ValueError) as error:
            self._turn.trace("fan_out_unreadable", 40, fan_out=entry.name, why=str(error))

    def on_restored(self) -> None:
        """Go on with the fan-outs of earlier lives, of which all was read."""
        now = self._turn.now
        wall_ms = self._turn.keeper.wall_ms(now)
        for running in self._restored:
            left = (running.deadline_ms - wall_ms) / 1000
            self._deadlines.set(running.number, now + max(0.0, left))
            running.open -= 1
            self._check_over(running)
        self._restored.clear()

    # Members

    def on_member(self, peer: Peer, groups: Iterable[str]) -> None:
        """Take note that a node is in these groups now, newly or again."""
        for running in list(self._running.values()):
            if running.group in groups:
                self._on_member_of(running, peer)

    def _on_member_of(self, running: Running, peer: Peer) -> None:
        member = running.by_node.get(peer.id)
        if member is None:
            member = self._replaced_by(running, peer)
            if member is not None:
                self._take_over(running, member, peer)
            elif running.include_late:
                self._add(running, peer)
        elif not member.is_open:
            return
        elif member.ticket is not None:  # what it was sent before goes on its way
            self._change(running, member, _UNANSWERED)
        elif (running.number, member.place) not in self._retries:
            self._send(running, member, peer)

    def on_away(self, peer: Peer, reason: str) -> None:
        """Take note that a node was lost or has left, or its session is over: it is waited for."""
        for running in self._running.values():
            member = running.by_node.get(peer.id)
            if member is None or not member.is_open:
                continue
            if not member.reason.startswith(_GONE):  # else it is known better
                self._change(running, member, f"{_GONE}: {reason}")
            if member.ticket is None:  # a successor may be there already
                self._wait(running, member, member.reason, 0.0)

    def _add(self, running: Running, peer: Peer) -> None:
        member = running.add(peer.id, peer.label)
        if running.stored:
            self.stored.keep(running, member)
        self._send(running, member, peer)

    def _replaced_by(self, running: Running, peer: Peer) -> Member | None:
        """Return the member whose place a newcomer takes, if there is one."""
        for member in running.members.values():
            if member.name == peer.label and self._is_replaceable(running, member):
                return member
        return None

    def _is_replaceable(self, running: Running, member: Member) -> bool:
        """Return whether a node of the same name may be the successor of a member.

        Where whoever comes is included, one that was given up too soon is so on its return.
        """
        if not member.is_open:
            return False
        peer = self._turn.peers.find(member.node)
        if peer is None or peer.present:
            return peer is None
        return running.include_late or peer.carrier.session is None

    def _take_over(self, running: Running, member: Member, peer: Peer) -> None:
        self._recall(member)
        self._retries.discard((running.number, member.place))
        del running.by_node[member.node]
        member.node = peer.id
        running.by_node[peer.id] = member
        if running.stored:
            self.stored.keep(running, member)
        self.repeats += 1
        self._send(running, member, peer)

    # Sending

    def _send(self, running: Running, member: Member, peer: Peer) -> None:
        """Send a member the message, unless that can wait or is too late."""
        ttl = None if running.expires is None else running.expires - self._turn.now
        if ttl is not None and ttl <= 0:
            self._fail(running, member, FailureKind.EXPIRED, "its time to live was over")
            return
        if self._turn.room(peer) <= 0:
            self._wait(running, member, "its queue is full", 0.0)
            return
        record = running.record
        if member.attempts > 1:
            record = with_extra(record, Tag.ATTEMPT, member.attempts)
        ticket = member.ticket = FanOutTicket(running, member)
        self._change(running, member, _UNANSWERED)
        self._turn.submit(peer, running.lane, [record], ticket, ttl=ttl)
        if ticket.failures:  # its body is too large to be sent
            member.ticket = None
            self._fail(running, member, FailureKind.REJECTED, ticket.failures[0].reason)

    def _recall(self, member: Member) -> None:
        """Take back what is on its way to a member, as far as it has not arrived."""
        ticket, member.ticket = member.ticket, None
        peer = None if ticket is None else self._turn.peers.find(member.node)
        if ticket is not None and peer is not None:
            self._turn.withdraw(peer, ticket)

    def _wait(self, running: Running, member: Member, reason: str, pause: float) -> None:
        """Look after a member again after a pause, or when it is back in the group."""
        self._change(running, member, reason)
        again_at = self._turn.now + max(pause, self._options.redeliver_min)
        self._retries.set((running.number, member.place), again_at)

    # Outcomes

    def on_accepted(self, tickets: Iterable[Ticket]) -> None:
        """Note which members accepted the message."""
        if not self._running:
            return
        for ticket in tickets:
            if isinstance(ticket, FanOutTicket) and ticket.member.ticket is ticket:
                ticket.member.ticket = None
                self._finish(ticket.running, ticket.member, MemberState.ACCEPTED)

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Decide on a message that a member did not accept."""
        ticket = returned.ticket
        if not isinstance(ticket, FanOutTicket) or ticket.member.ticket is not ticket:
            return
        running, member = ticket.running, ticket.member
        member.ticket = None
        match returned.outcome:
            case Outcome.REJECTED:
                self._fail(running, member, FailureKind.REJECTED, returned.reason)
            case Outcome.EXPIRED:
                self._fail(running, member, FailureKind.EXPIRED, "nobody began to handle it")
            case Outcome.MODIFIED:
                self._try_again(running, member, peer, returned, returned.reason)
            case Outcome.UNKNOWN:  # and so would be the outcome of a handler that kills its node
                self._try_again(running, member, peer, returned, member.reason)
            case _:
                reason = returned.reason or "it gave the message back"
                self._wait(running, member, reason, returned.delay)

    def _try_again(
        self, running: Running, member: Member, peer: Peer, returned: Returned, reason: str
    ) -> None:
        """Count an attempt, and make another unless there were enough."""
        attempts = member.attempts
        at_ms = self._turn.keeper.wall_ms(self._turn.now)
        member.failed = (*member.failed, FailedAttempt(at_ms, reason))
        if attempts >= self._options.attempts_max:
            self._redelivery.dead_letters.keep(
                peer, returned.record, reason, attempts, lane=running.lane, history=member.failed
            )
            self._fail(running, member, FailureKind.DEAD_LETTERED, reason)
            return
        member.attempts += 1
        if running.stored:
            self.stored.keep(running, member)
        pause = max(returned.delay, self._redelivery.backoff(attempts))
        self._wait(running, member, reason, pause)

    def on_timer(self) -> None:
        """Send again what is due, and end the fan-outs whose time is over."""
        now = self._turn.now
        for number, place in self._retries.due(now):
            running = self._running[number]
            self._look_after(running, running.members[place])
        for number in self._deadlines.due(now):
            self._end(self._running[number])

    def _look_after(self, running: Running, member: Member) -> None:
        """Send a member the message if it is there, or its successor; else it is waited for."""
        present = self._present(running)
        for peer in present:
            if peer.id == member.node:
                self.repeats += 1
                self._send(running, member, peer)
                return
        if self._is_replaceable(running, member):
            for peer in present:
                if peer.label == member.name and peer.id not in running.by_node:
                    self._take_over(running, member, peer)
                    return

    # Ends

    def _fail(self, running: Running, member: Member, failure: FailureKind, reason: str) -> None:
        member.failure, member.reason = failure, reason
        self._finish(running, member, MemberState.FAILED)

    def _finish(self, running: Running, member: Member, state: MemberState) -> None:
        """Note an outcome: at once, or when it is on disk, or cannot be."""
        if not running.stored:
            self._conclude(running, member, state)
            return
        member.outcome = state
        self.stored.keep(running, member, lambda _: self._kept(running, member))

    def _kept(self, running: Running, member: Member) -> None:
        if member.outcome is not None and running.number in self._running:
            self._conclude(running, member, member.outcome)

    def _conclude(self, running: Running, member: Member, state: MemberState) -> None:
        member.state, member.outcome = state, None
        if state is MemberState.ACCEPTED:
            member.reason = ""
        running.open -= 1
        self._tell(running, member)
        self._check_over(running)

    def _check_over(self, running: Running) -> None:
        """End a fan-out when all members have their outcome, unless others may come."""
        if not running.open and not running.include_late:
            self._end(running)

    def _end(self, running: Running) -> None:
        """Tell the end, and before it what was on its way to the disk: it need not be there."""
        if not self._forget(running):
            return
        for member in running.members.values():
            if member.outcome is not None:
                member.state, member.outcome = member.outcome, None
                self._tell(running, member)
        if running.stored:
            self.stored.forget(running)
        self._turn.actions.append(FanOutEnded(running.number))

    def _forget(self, running: Running) -> bool:
        """Take back what has not arrived; False where that was done before."""
        if self._running.pop(running.number, None) is None:
            return False
        self._deadlines.discard(running.number)
        for member in running.members.values():
            self._recall(member)
            self._retries.discard((running.number, member.place))
        return True

    def close(self) -> None:
        """End all: the node closes. What is on disk goes on in another life."""
        for running in list(self._running.values()):
            self._forget(running)
            self._turn.actions.append(FanOutEnded(running.number, is_closed=True))

    # Telling

    def _change(self, running: Running, member: Member, reason: str) -> None:
        """Say anew why a member has no outcome yet."""
        if member.reason != reason:
            member.reason = reason
            self._tell(running, member)

    def _tell(self, running: Running, member: Member) -> None:
        actions, standing = self._turn.actions, member.standing()
        last = actions[-1] if actions else None
        if type(last) is FanOutChanged and last.fan_out == running.number:
            last.members.append(standing)
        else:
            actions.append(FanOutChanged(running.number, [standing]))
