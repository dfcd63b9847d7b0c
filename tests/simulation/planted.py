"""Known bugs, each planted alone in the real classes: what the simulator must find.

A bug is a function that patches one thing. Those marked (found) are no inventions: the code had
them once, and the simulator found them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from math import inf
from typing import Any

import pytest

from zmesh.actions import CallsAnswered
from zmesh.ids import SessionId
from zmesh.message import Outcome, Tag, with_extra
from zmesh.patterns import redelivery, request_reply
from zmesh.patterns.choosing import Choosing, Wish
from zmesh.patterns.interest import InterestTable
from zmesh.patterns.request_reply import RequestReply
from zmesh.patterns.serving import Serving
from zmesh.reliable import sender
from zmesh.reliable.credit import LaneCredit
from zmesh.reliable.delivery_rate import DeliveryRate
from zmesh.reliable.fragments import Assembly
from zmesh.reliable.handshake import Handshake, HelloVerdict, LocalIdentity, SessionChoice
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import Arrived
from zmesh.reliable.liveness import LivenessVerdict
from zmesh.reliable.ranges import RangeSet
from zmesh.reliable.receiver import IncomingLane
from zmesh.reliable.recovery import Recovery
from zmesh.reliable.round_trip import RoundTrip
from zmesh.reliable.send_window import ControlQueue, SendWindow
from zmesh.reliable.sender import OutgoingLane
from zmesh.reliable.session import Session
from zmesh.testing import link_process
from zmesh.testing.findings import Rule
from zmesh.testing.scenario import Level

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Bug:
    """One planted bug, and the promises of which at least one must be seen broken."""

    name: str
    level: Level
    rules: frozenset[Rule]
    plant: Plant
    every: int = 1  # of the seeds that can show it


BUGS: list[Bug] = []


def bug(level: Level, *rules: Rule, every: int = 1) -> Callable[[Plant], Plant]:
    """Register the decorated function as a bug."""

    def register(plant: Plant) -> Plant:
        BUGS.append(Bug(plant.__name__, level, frozenset(rules), plant, every))
        return plant

    return register


# Acknowledgements and replay


@bug("link", Rule.RESENT, Rule.LOST, Rule.IDENTITY)
def an_ack_is_one_too_high(patch: pytest.MonkeyPatch) -> None:
    real = Session.take_acks

    def take_acks(self: Session, *args: Any) -> Any:
        lanes, credit = real(self, *args)
        return tuple((lane, cum + 1, above) for lane, cum, above in lanes), credit

    patch.setattr(Session, "take_acks", take_acks)


@bug("link", Rule.IDENTITY)
def the_watermark_is_forgotten_on_reconnect(patch: pytest.MonkeyPatch) -> None:
    real = Session.lane_states

    def lane_states(self: Session) -> Any:
        self.incoming.clear()
        return real(self)

    patch.setattr(Session, "lane_states", lane_states)


@bug("link", Rule.LOST)
def replay_begins_one_number_too_late(patch: pytest.MonkeyPatch) -> None:
    real = OutgoingLane.resume

    def resume(self: OutgoingLane, cum: int, ranges: Any) -> Any:
        new = real(self, cum, ranges)
        if self.resend:
            self.resend.remove(self.resend.first, self.resend.first)
        return new

    patch.setattr(OutgoingLane, "resume", resume)


@bug("link", Rule.LOST)
def what_a_live_link_lost_is_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SendWindow, "on_lost", lambda *_: 0)


@bug("link", Rule.LOST)
def the_probe_timer_is_never_armed_again(patch: pytest.MonkeyPatch) -> None:
    real = Recovery._arm

    def arm(self: Recovery, now: float) -> None:
        if not self.probes_unanswered:
            real(self, now)
        else:
            self.probe_at = inf

    patch.setattr(Recovery, "_arm", arm)
    patch.setattr("zmesh.reliable.detector.FailureDetector.ping_due", lambda *_: False)


@bug("link", Rule.FLOOD)
def probes_never_back_off(patch: pytest.MonkeyPatch) -> None:
    real = RoundTrip.probe_timeout
    patch.setattr(RoundTrip, "probe_timeout", lambda self, _, jitter: real(self, 0, jitter))


@bug("link", Rule.MEMORY, Rule.LOST)
def lost_packets_stay_in_flight(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DeliveryRate, "on_lost", lambda *_: None)


# Credit


@bug("link", Rule.MEMORY, Rule.LOST)
def credit_leaks_one_message_in_each_batch(patch: pytest.MonkeyPatch) -> None:
    real = LaneCredit.consume

    def consume(self: LaneCredit, messages: int, size: int) -> None:
        real(self, messages - (messages > 1), size)

    patch.setattr(LaneCredit, "consume", consume)


@bug("link", Rule.LOST)
def credit_is_never_granted_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LaneCredit, "grant", lambda self, *_: (self.seq_limit, self.bytes_limit))


@bug("link", Rule.CREDIT)
def credit_in_bytes_is_ignored(patch: pytest.MonkeyPatch) -> None:
    real = OutgoingLane.grant

    def grant(self: OutgoingLane, seq_limit: int, _: int) -> None:
        real(self, seq_limit, 1 << 40)

    patch.setattr(OutgoingLane, "grant", grant)


@bug("link", Rule.CREDIT, Rule.LIVENESS, Rule.LOST)
def credit_of_an_old_session_is_believed_in_a_new_one(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Handshake.accept

    def accept(self: Handshake, *args: Any) -> SessionChoice:
        choice = real(self, *args)
        return SessionChoice(choice.session, choice.resumed, choice.ended, lanes_count=True)

    patch.setattr(Handshake, "accept", accept)


# Settlement


@bug("link", Rule.DUPLICATED, Rule.UNTRUE)
def a_settlement_is_applied_twice(patch: pytest.MonkeyPatch) -> None:
    real = OutgoingLane.on_settled

    def on_settled(self: OutgoingLane, *args: Any) -> Any:
        tickets, returned = real(self, *args)
        for ticket in tickets:
            ticket.accepted += 1
        return tickets, returned

    patch.setattr(OutgoingLane, "on_settled", on_settled)


@bug("link", Rule.LOST, Rule.LIVENESS)
def control_records_are_not_replayed(patch: pytest.MonkeyPatch) -> None:
    real = ControlQueue.acknowledge

    def acknowledge(self: ControlQueue, cum: int, ranges: Any, *, resume: bool = False) -> None:
        real(self, cum, ranges, resume=resume)
        if resume:
            self.resend = RangeSet()

    patch.setattr(ControlQueue, "acknowledge", acknowledge)


@bug("link", Rule.UNTRUE)
def a_rejection_is_told_as_acceptance(patch: pytest.MonkeyPatch) -> None:
    real = IncomingLane._outcome

    def outcome(self: IncomingLane, outcome: Outcome, *args: Any) -> None:
        real(self, Outcome.ACCEPTED if outcome is Outcome.REJECTED else outcome, *args)

    patch.setattr(IncomingLane, "_outcome", outcome)


@bug("link", Rule.UNTRUE)
def an_unknown_outcome_counts_as_acceptance(patch: pytest.MonkeyPatch) -> None:
    real = OutgoingLane.abandon

    def abandon(self: OutgoingLane) -> Any:
        returned = real(self)
        for event in returned:
            if event.outcome is Outcome.UNKNOWN:
                event.ticket.accepted += 1
        return [event for event in returned if event.outcome is not Outcome.UNKNOWN]

    patch.setattr(OutgoingLane, "abandon", abandon)


@bug("link", Rule.LOST)
def a_settled_range_ends_one_number_too_early(patch: pytest.MonkeyPatch) -> None:
    real = IncomingLane.settle

    def settle(self: IncomingLane, first: int, last: int, *args: Any) -> bool:
        return real(self, first, last - (last > first), *args)

    patch.setattr(IncomingLane, "settle", settle)


@bug("node", Rule.LOST)
def a_range_that_begins_with_a_large_body_settles_only_that(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = IncomingLane.settle

    def settle(self: IncomingLane, first: int, last: int, *args: Any) -> bool:
        transfer = self._transfers.get(first)
        return real(self, first, last if transfer is None else transfer.last, *args)

    patch.setattr(IncomingLane, "settle", settle)


@bug("link", Rule.LIVENESS)
def room_in_a_full_queue_is_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "_note_room", lambda _: None)


# Once, and in order


@bug("link", Rule.DUPLICATED)
def deduplication_is_off(patch: pytest.MonkeyPatch) -> None:
    real = IncomingLane.on_data

    def on_data(self: IncomingLane, first: int, records: Any, *args: Any) -> Any:
        if first + len(records) - 1 <= self.released:
            return [Arrived(self.lane, first, first + len(records) - 1, list(records))]
        return real(self, first, records, *args)

    patch.setattr(IncomingLane, "on_data", on_data)


@bug("link", Rule.MISORDERED, Rule.LOST)
def records_are_released_as_they_come(patch: pytest.MonkeyPatch) -> None:
    real = IncomingLane.on_data

    def on_data(self: IncomingLane, first: int, records: Any, *args: Any) -> Any:
        if first <= self.released:
            self.released = first - 1
        elif not self.early:
            self.released = max(self.released, first - 1)
        return real(self, first, records, *args)

    patch.setattr(IncomingLane, "on_data", on_data)


@bug("link", Rule.MISORDERED)
def predecessors_of_a_key_are_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(IncomingLane, "_may_follow", lambda *_: True)


@bug("link", Rule.LOST)
def the_lowest_lane_is_starved(patch: pytest.MonkeyPatch) -> None:
    real: Any = OutgoingLane.ready
    starved = property(lambda lane: lane.lane != 0 and real.fget(lane))
    patch.setattr(OutgoingLane, "ready", starved)


@bug("link", Rule.DAMAGED)
def fragments_are_put_together_the_wrong_way_round(patch: pytest.MonkeyPatch) -> None:
    def take(self: Assembly, body: Any) -> None:
        self._hash.update(body)
        self._missing -= 1
        whole = bytes(body) + self._body.getvalue()
        self._body = BytesIO(whole)
        self._body.seek(len(whole))

    patch.setattr(Assembly, "_take", take)


@bug("link", Rule.DAMAGED)
def the_digest_of_fragments_is_not_checked(patch: pytest.MonkeyPatch) -> None:
    real = Assembly.add

    def add(self: Assembly, piece: Any) -> Any:
        hashed = self._hash.copy()
        hashed.update(piece[2])
        if self._missing == 1:
            self._digest = hashed.digest()
        return real(self, piece)

    patch.setattr(Assembly, "add", add)


# Time to live


@bug("link", Rule.LOST)
def gaps_are_not_told(patch: pytest.MonkeyPatch) -> None:
    def gather_gaps(self: Session) -> None:
        for lane in self.outgoing.values():
            lane.gaps.clear()

    patch.setattr(Session, "gather_gaps", gather_gaps)


@bug("link", Rule.LATE)
def the_sender_forgets_to_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Session, "expire", lambda *_: None)
    patch.setattr(Session, "expiry", inf)


@bug("link", Rule.LATE)
def an_expired_message_is_still_delivered(patch: pytest.MonkeyPatch) -> None:
    real = IncomingLane._admit

    def admit(self: IncomingLane, seq: int, record: Any, deadline: float, now: float) -> bool:
        return real(self, seq, record, max(deadline, now), now)

    patch.setattr(IncomingLane, "_admit", admit)


@bug("link", Rule.LATE)
def time_to_live_is_not_counted_down(patch: pytest.MonkeyPatch) -> None:
    def with_ttl(chunk: Any, deadlines: dict[int, float], _: float) -> Any:
        first, records, size = chunk
        told = [
            with_extra(record, Tag.TTL_MS, 60_000) if seq in deadlines else record
            for seq, record in enumerate(records, first)
        ]
        return first, told, size

    patch.setattr(sender, "with_ttl", with_ttl)


# Identity and sessions


@bug("link", Rule.IDENTITY)
def an_incarnation_is_used_again(patch: pytest.MonkeyPatch) -> None:
    def same_again(mesh: Any, node: Any, name: Any, _: int, journal: Any) -> LocalIdentity:
        return LocalIdentity(mesh, node, name, 1, journal)

    patch.setattr(link_process, "LocalIdentity", same_again)


@bug("link", Rule.IDENTITY, Rule.LIVENESS)
def a_stale_hello_is_accepted(patch: pytest.MonkeyPatch) -> None:
    real = Handshake.judge

    def judge(self: Handshake, hello: Any, *, answered: bool) -> HelloVerdict:
        verdict = real(self, hello, answered=answered)
        return HelloVerdict.ACCEPT if verdict is HelloVerdict.STALE else verdict

    patch.setattr(Handshake, "judge", judge)


@bug("link", Rule.IDENTITY)
def a_hello_that_crossed_ours_ends_the_session(patch: pytest.MonkeyPatch) -> None:
    """(found)"""
    real = Handshake.on_welcome

    def on_welcome(self: Handshake, *args: Any) -> Any:
        before = self._peer_attempt
        choice = real(self, *args)
        self._peer_attempt = before
        return choice

    patch.setattr(Handshake, "on_welcome", on_welcome)


@bug("link", Rule.IDENTITY, Rule.LIVENESS, Rule.LOST)
def a_session_goes_on_although_the_peer_restarted(patch: pytest.MonkeyPatch) -> None:
    real = Handshake.accept

    def accept(self: Handshake, *args: Any) -> SessionChoice:
        held: SessionId | None = self.session
        choice = real(self, *args)
        if held is None or choice.resumed:
            return choice
        return SessionChoice(choice.session, resumed=True, ended=None)

    patch.setattr(Handshake, "accept", accept)


# Liveness


@bug("link", Rule.LIVENESS)
def a_busy_peer_is_taken_for_lost(patch: pytest.MonkeyPatch) -> None:
    real = LivenessVerdict._conclude

    def conclude(self: LivenessVerdict, now: float) -> None:
        self._causes = [cause for cause in self._causes if cause is not None]
        real(self, now)

    patch.setattr(LivenessVerdict, "_conclude", conclude)


@bug("link", Rule.LIVENESS, Rule.LOST)
def a_path_that_was_full_stays_so(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Link, "on_path_writable", lambda *_: None)


# Patterns


@bug("node", Rule.LOST, Rule.DUPLICATED, Rule.UNTRUE)
def failover_drops_the_call(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestReply, "_move", lambda *_: None)


@bug("node", Rule.LIVENESS)
def failover_waits_for_the_session_to_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RequestReply, "on_provider_gone", lambda *_: None)


@bug("node", Rule.LIVENESS)
def the_loser_of_a_hedge_is_never_cancelled(patch: pytest.MonkeyPatch) -> None:
    real = RequestReply._answer

    def answer(self: RequestReply, call: Any, *args: Any) -> None:
        for ticket in list(call.requests.values()):
            self._release(call, ticket)
        real(self, call, *args)

    patch.setattr(RequestReply, "_answer", answer)


@bug("node", Rule.DUPLICATED)
def a_hedge_asks_one_provider_after_another(patch: pytest.MonkeyPatch) -> None:
    real = RequestReply._hedge

    def hedge(self: RequestReply, call: Any) -> None:
        real(self, call)
        self._hedges.set(call.number, self._turn.now + call.hedge_after + 0.001)

    patch.setattr(RequestReply, "_hedge", hedge)


@bug("node", Rule.LOST)
def a_retry_keeps_its_message_id(patch: pytest.MonkeyPatch) -> None:
    real = RequestReply._goes_on

    def goes_on(self: RequestReply, call: Any) -> bool:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(self, "_next_message_id", lambda: call.message_id)
            return real(self, call)

    patch.setattr(RequestReply, "_goes_on", goes_on)


@bug("node", Rule.MISORDERED)
def a_key_goes_to_whoever_has_the_least_to_do(patch: pytest.MonkeyPatch) -> None:
    real = Choosing.choose

    def choose(
        self: Choosing, service: str, peers: Any, wish: Wish, *args: Any, **more: Any
    ) -> Any:
        return real(self, service, peers, Wish(prefer=wish.prefer), *args, **more)

    patch.setattr(Choosing, "choose", choose)


@bug("node", Rule.LATE)
def a_provider_works_on_when_the_time_is_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Serving, "_cancel", lambda *_: None)


@bug("node", Rule.UNTRUE)
def the_attempt_is_not_raised(patch: pytest.MonkeyPatch) -> None:
    def untouched(record: Any, tag: Tag, value: Any) -> Any:
        return record if tag is Tag.ATTEMPT else with_extra(record, tag, value)

    patch.setattr(redelivery, "with_extra", untouched)


@bug("node", Rule.LIVENESS, Rule.UNTRUE)
def interest_is_told_once_and_not_in_a_new_session(patch: pytest.MonkeyPatch) -> None:
    real = InterestTable.announce
    told: dict[tuple[int, bytes], None] = {}

    def announce(self: InterestTable, peer: Any) -> None:
        key = (id(self), peer.id)
        if key not in told:
            told[key] = None
            real(self, peer)

    patch.setattr(InterestTable, "announce", announce)


@bug("node", Rule.LIVENESS)
def a_peer_that_is_gone_stays_listed(patch: pytest.MonkeyPatch) -> None:
    def leave(self: Any, peer: Any, reason: str) -> None:
        self.calls.on_provider_gone(peer, reason)

    patch.setattr("zmesh.core.link_news.LinkNews.leave", leave)


@bug("node", Rule.UNTRUE, Rule.DUPLICATED, Rule.LOST)
def answers_go_to_the_oldest_call(patch: pytest.MonkeyPatch) -> None:
    real = RequestReply.on_replies

    def on_replies(
        self: RequestReply, peer: Any, source: Any, first: int, last: int, records: Any
    ) -> None:
        mixed = [
            with_extra(record, Tag.CORRELATION, number)
            for record, number in zip(records, [*self._calls, *[0] * len(records)], strict=False)
        ]
        real(self, peer, source, first, last, mixed)

    patch.setattr(RequestReply, "on_replies", on_replies)


@bug("node", Rule.LOST, Rule.LIVENESS)
def a_run_stays_with_a_provider_that_is_gone(patch: pytest.MonkeyPatch) -> None:
    real = RequestReply.on_provider_gone

    def on_provider_gone(self: RequestReply, peer: Any, reason: str) -> None:
        known = self._with.pop(peer.id, {})
        alone = {key: None for key in known if isinstance(key, int)}
        if alone:
            self._with[peer.id] = dict[Any, None](alone)
        real(self, peer, reason)
        for key in known:
            if not isinstance(key, int):
                self._with.setdefault(peer.id, {})[key] = None

    patch.setattr(RequestReply, "on_provider_gone", on_provider_gone)


@bug("node", Rule.UNTRUE)
def answers_to_a_run_are_one_place_off(patch: pytest.MonkeyPatch) -> None:
    def moved(calls: list[int], records: list[Any], peer: str) -> CallsAnswered:
        return CallsAnswered(calls, [*records[1:], *records[:1]], peer)

    patch.setattr(request_reply, "CallsAnswered", moved)


@bug("node", Rule.LATE)
def the_time_of_what_goes_together_is_not_told(patch: pytest.MonkeyPatch) -> None:
    def part_of(block: Any, start: int, stop: int, _: float) -> Any:
        return block[start:stop]

    patch.setattr(sender, "part_of", part_of)


@bug("node", Rule.MEMORY)
def the_last_request_of_a_run_is_answered_and_not_settled(patch: pytest.MonkeyPatch) -> None:
    real = Serving._end_together

    def end_together(self: Serving, *args: Any) -> Any:
        ids = real(self, *args)
        source, first, last = self.answered[-1]
        if first < last:
            self.answered[-1] = (source, first, last - 1)
        return ids

    patch.setattr(Serving, "_end_together", end_together)


@bug("node", Rule.LIVENESS, Rule.LOST)
def a_lost_link_is_never_dialed_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("zmesh.discovery.membership.Membership.on_unlinked", lambda *_, **__: None)
