from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.reliable.pair import LIMITS, numbered, record
from zmesh.batches import TicketRun
from zmesh.errors import BodyTooLarge, ProtocolError
from zmesh.message import CONTROL_LANE, LANES, Outcome, Record, Tag, Ticket, extra, size_of
from zmesh.options import KIB, LinkOptions
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.fragments import split
from zmesh.reliable.link_events import (
    Accepted,
    Arrived,
    ControlArrived,
    LinkEvent,
    Returned,
    Room,
)
from zmesh.reliable.session import ACKED_TOGETHER, Session
from zmesh.reliable.unhurried import SETTLED_TOGETHER
from zmesh.wire.frames import Data, Drain, Gap, Interest, LaneState, Settle

OPTIONS = LinkOptions(window_messages=20, fragment_bytes=1000, body_bytes_max=10_000)
ROUND_TRIP = 0.001


class Side:
    """A session and what it told."""

    def __init__(self, options: LinkOptions = OPTIONS) -> None:
        self.events: list[LinkEvent] = []
        self.session = Session(options, LIMITS, CreditPool(10**9), self.events)

    def post(
        self,
        batch: Sequence[Record],
        now: float = 0.0,
        lane: int = 4,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Ticket:
        ticket = Ticket(len(batch))
        self.session.submit(lane, batch, ticket, now, key, ttl)
        return ticket

    def take(self, lane: int = 4, now: float = 0.0) -> list[Data]:
        """Everything a lane can transmit now, one record a frame."""
        out, frames = self.session.outgoing[lane], list[Data]()
        while out.ready:
            chunk = out.take(1, 1, now)
            if chunk is not None:
                frames.append(Data(lane, chunk[0], tuple(chunk[1])))
        return frames

    def give(self, *frames: Data, now: float = 0.0) -> list[bytes]:
        """Take frames in; return the bodies this released."""
        seen = len(self.events)
        for frame in frames:
            self.session.on_data(frame.lane, frame.first_seq, frame.records, now)
        return bodies(self.events[seen:])

    def settle(self, event: Arrived, outcome: Outcome = Outcome.ACCEPTED) -> bool:
        return self.session.settle(event.lane, event.first_seq, event.last_seq, outcome, "", 0.0)

    def settle_all(self) -> None:
        for event in self.told(Arrived):
            self.settle(event)

    def told(self, kind: type[Arrived]) -> list[Arrived]:
        return [event for event in self.events if isinstance(event, kind)]

    def next_expiry(self) -> float:
        return self.session.expiry

    @property
    def returned(self) -> list[tuple[bytes, Outcome]]:
        return [
            (bytes(event.record[2]), event.outcome)
            for event in self.events
            if isinstance(event, Returned)
        ]

    @property
    def rooms(self) -> int:
        return sum(isinstance(event, Room) for event in self.events)


def bodies(events: Sequence[LinkEvent]) -> list[bytes]:
    return [
        bytes(item[2]) for event in events if isinstance(event, Arrived) for item in event.records
    ]


def controls(source: Side, target: Side, now: float = 0.0) -> None:
    """Move control records."""
    source.session.gather_gaps()
    source.session.gather_control(now)
    while source.session.control_out.ready:
        first, items, _ = source.session.control_out.take(10**9, 10**9)
        target.session.on_control(first, items, now)


def acks(source: Side, target: Side, now: float = 0.0) -> None:
    """Move acknowledgements and credit."""
    target.session.on_ack(*source.session.take_acks(now, ROUND_TRIP))


def opened(options: LinkOptions = OPTIONS) -> tuple[Side, Side]:
    """Two sessions that told each other of their lanes."""
    a, b = Side(options), Side(options)
    a.session.resume(b.session.lane_states())
    b.session.resume(a.session.lane_states())
    return a, b


def flow(a: Side, b: Side, now: float = 0.0) -> None:
    """Move all there is in both directions."""
    for source, target in ((a, b), (b, a)):
        for lane in sorted(source.session.outgoing):
            target.give(*source.take(lane, now), now=now)
        controls(source, target, now)
    acks(a, b, now)
    acks(b, a, now)


# Submission


def test_a_batch_is_numbered_arrives_in_order_and_is_accepted() -> None:
    a, b = opened()
    ticket = a.post(numbered(10))
    flow(a, b)
    assert bodies(b.events) == [b"%d" % number for number in range(10)]
    assert not ticket.done
    b.settle_all()
    flow(b, a)
    assert ticket.accepted == 10
    assert a.events == [Accepted([ticket])]
    assert (a.session.queued_messages, a.session.queued_bytes) == (0, 0)


def test_a_body_over_the_limit_is_refused_and_takes_no_number() -> None:
    a, _ = opened()
    with pytest.raises(BodyTooLarge):
        a.post([record(), record(b"x" * 10_001)])
    assert a.session.queued_messages == 0
    assert a.session.submit(4, [record()], Ticket(), 0.0, None, None) == (1, 1)


def test_large_bodies_take_several_numbers_among_small_ones() -> None:
    a, b = opened()
    large = record(b"x" * 2500, "target")
    ticket = Ticket(3)
    assert a.session.submit(4, [record(b"a"), large, record(b"b")], ticket, 0.0, None, None) == (
        1,
        5,
    )
    flow(a, b)
    assert bodies(b.events) == [b"a", large[2], b"b"]
    b.settle_all()
    flow(b, a)
    assert ticket.accepted == 3


def test_lanes_have_numbers_of_their_own() -> None:
    a, b = opened()
    for lane in range(LANES):
        assert a.session.submit(lane, numbered(2), Ticket(2), 0.0, None, None) == (1, 2)
    flow(a, b)
    assert {(event.lane, event.first_seq) for event in b.told(Arrived)} == {
        (lane, seq) for lane in range(LANES) for seq in (1, 2)
    }


@pytest.mark.parametrize("lane", [-1, LANES, CONTROL_LANE])
def test_there_are_no_other_lanes(lane: int) -> None:
    _, b = opened()
    with pytest.raises(ProtocolError, match="no lane"):
        b.give(Data(lane, 1, (record(),)))
    with pytest.raises(ProtocolError, match="no lane"):
        b.session.on_ack((), ((lane, 10, 10),))
    with pytest.raises(ProtocolError, match="no lane"):
        b.session.on_control(1, [Gap(lane, ((1, 1, 0),))], 0.0)


def test_control_records_for_the_engine_arrive_in_order() -> None:
    a, b = opened()
    interest = Interest((("service", "resize"),), ())
    a.session.send_control(interest)
    a.session.send_control(Drain())
    flow(a, b)
    assert b.events == [ControlArrived([interest, Drain()])]
    assert not a.session.control_out.items


# Room


def test_room_is_told_once_when_a_full_queue_has_some_again() -> None:
    a, b = opened(replace(OPTIONS, queued_messages_max=5))
    a.post(numbered(4))
    assert a.session.room_messages == 1
    a.post(numbered(2))
    assert a.session.room_messages == -1
    flow(a, b)
    for seq in range(1, 7):
        b.session.settle(4, seq, seq, Outcome.ACCEPTED, "", 0.0)
        flow(b, a)
        assert a.rooms == (0 if seq < 2 else 1)
    a.post(numbered(5))
    assert a.session.room_messages == 0
    flow(a, b)
    b.settle_all()
    flow(b, a)
    assert a.rooms == 2
    a.post(numbered(5))
    flow(a, b)
    b.settle_all()
    flow(b, a)
    assert a.rooms == 2  # nobody had found it full


def test_bytes_fill_the_queue_as_well() -> None:
    a, _ = opened(replace(OPTIONS, queued_bytes_max=2000))
    a.post([record(b"x" * 983)] * 2)
    assert a.session.room_messages > 0
    a.post([record()])
    assert a.session.room_messages == 0


@pytest.mark.parametrize("how", ["expires", "is withdrawn", "is abandoned"])
def test_room_is_told_however_a_full_queue_empties(how: str) -> None:
    a, _ = opened(replace(OPTIONS, queued_messages_max=5))
    ticket = a.post(numbered(5), ttl=1.0)
    assert a.session.room_messages == 0
    if how == "expires":
        a.session.expire(1.0)
    elif how == "is withdrawn":
        a.session.withdraw(ticket)
    else:
        a.session.abandon()
    assert len(a.returned) == 5
    assert a.events[-1] == Room()
    assert a.rooms == 1


# Acknowledgements


def test_an_ack_is_due_after_the_delay_and_at_once_for_a_gap() -> None:
    a, b = opened()
    a.post(numbered(3))
    first, second, third = a.take()
    b.give(first, now=10.0)
    assert b.session.ack_at == 10.0 + OPTIONS.ack_delay_max
    assert not b.session.must_speak(10.0)
    assert b.session.must_speak(10.0 + OPTIONS.ack_delay_max)
    b.give(third, now=10.01)
    assert b.session.must_speak(10.01)
    assert b.session.take_acks(10.01, None)[0] == ((4, 1, ((3, 3),)),)
    assert not b.session.must_speak(99.0)
    b.give(second, now=10.02)
    assert not b.session.must_speak(10.02)
    assert b.session.take_acks(10.02, None)[0] == ((4, 3, ()),)


def test_a_duplicate_is_acked_at_once_because_an_ack_was_lost() -> None:
    a, b = opened()
    a.post(numbered(1))
    (data,) = a.take()
    b.give(data, now=10.0)
    b.session.take_acks(10.0, None)
    b.give(data, now=11.0)
    assert b.session.must_speak(11.0)
    assert b.session.take_acks(11.0, None)[0] == ((4, 1, ()),)


def test_many_messages_are_acked_before_the_delay() -> None:
    a, b = opened(replace(OPTIONS, window_messages=1000, ack_every_messages=256))
    a.post(numbered(256))
    data = a.take()
    b.give(*data[:255], now=10.0)
    assert not b.session.must_speak(10.0)
    b.give(data[255], now=10.0)
    assert b.session.must_speak(10.0)


def test_a_large_part_of_the_window_is_acked_before_the_delay() -> None:
    a, b = opened(replace(OPTIONS, window_bytes=4 * size_of(record(bytes(500)))))
    a.post([record(bytes(490)), record(bytes(10))])
    first, second = a.take()
    b.give(first, now=10.0)
    assert not b.session.must_speak(10.0)
    b.give(second, now=10.0)
    assert b.session.must_speak(10.0)
    acks(a, b, now=10.0)
    acks(b, a, now=10.0)
    assert not b.session.must_speak(10.0)


def test_an_ack_names_only_lanes_with_news_and_at_most_so_many_ranges() -> None:
    a, b = opened(replace(OPTIONS, window_messages=200))
    for lane in (2, 4):
        a.post(numbered(99), lane=lane)
    b.give(*a.take(2))
    b.give(*a.take(4)[::2])
    lanes, credit = b.session.take_acks(0.0, None)
    assert lanes[0] == (2, 99, ())
    assert lanes[1][:2] == (4, 1)
    assert len(lanes[1][2]) == LIMITS.ranges_max
    assert [lane for lane, _, _ in credit] == [2, 4]
    assert b.session.take_acks(0.0, None) == ((), ())


def test_an_ack_never_settles_and_a_settlement_never_acks() -> None:
    a, b = opened()
    ticket = a.post(numbered(2))
    b.give(*a.take())
    acks(b, a)
    assert a.session.outgoing[4].acked.cum == 2
    assert not a.events
    b.settle_all()
    controls(b, a)
    assert ticket.done
    assert a.session.data_pending is False


# Settlement


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_comes_back_with_its_reason_and_delay(outcome: Outcome) -> None:
    a, b = opened()
    ticket = a.post(numbered(1))
    b.give(*a.take())
    assert b.session.settle(4, 1, 1, outcome, "because", 2.5)
    controls(b, a)
    if outcome is Outcome.ACCEPTED:
        assert a.events == [Accepted([ticket])]
    else:
        returned = Returned(record(b"0"), ticket, 4, outcome, "because", 2.5, transmitted=True)
        assert a.events == [returned]


def test_packets_that_follow_each_other_closely_do_not_all_carry_an_ack() -> None:
    a, b = opened(LinkOptions())
    a.post(numbered(1))
    b.give(*a.take(), now=10.0)
    assert b.session.is_ack_due(10.0)
    b.session.take_acks(10.0, None)
    assert not b.session.is_ack_due(10.0)
    a.post(numbered(1))
    b.give(*a.take(), now=10.001)
    assert not b.session.is_ack_due(10.001)
    assert b.session.is_ack_due(10.0 + LinkOptions().ack_delay_max / 2)


@pytest.mark.parametrize(("count", "size"), [(ACKED_TOGETHER, 1), (2, 16 * 1024)])
def test_many_records_are_acknowledged_with_the_next_packet(count: int, size: int) -> None:
    a, b = opened(LinkOptions())
    b.session.take_acks(10.0, None)
    a.post([record(b"x" * size)] * count)
    *frames, last = a.take()
    b.give(*frames, now=10.001)
    assert not b.session.is_ack_due(10.001)
    b.give(last, now=10.001)
    assert b.session.is_ack_due(10.001)
    assert not b.session.must_speak(10.001)


def test_what_must_be_acknowledged_at_once_waits_for_no_company() -> None:
    a, b = opened(LinkOptions())
    a.post(numbered(1))
    frames = a.take()
    b.give(*frames, now=10.0)
    b.session.take_acks(10.0, None)
    b.give(*frames, now=10.001)  # again
    assert b.session.must_speak(10.001)
    assert b.session.is_ack_due(10.001)
    b.session.take_acks(10.001, None)
    b.session.tell_all()
    assert b.session.is_ack_due(10.001)


def test_a_lazy_settlement_waits_for_company_another_does_not() -> None:
    a, b = opened()
    a.post(numbered(2))
    b.give(*a.take())
    b.session.take_acks(0.0, None)
    b.session.accept_later(4, 1, 1, 5.0)
    assert not b.session.must_speak(5.0)
    assert b.session.settle_at == 5.0 + OPTIONS.ack_delay_max
    b.session.gather_control(5.0)
    assert not b.session.control_out.ready
    b.session.settle(4, 2, 2, Outcome.ACCEPTED, "", 0.0)
    assert b.session.must_speak(5.0)
    b.session.gather_control(5.0)
    assert b.session.control_out.items == {1: Settle(4, ((Outcome.ACCEPTED, 1, 2),))}


def test_a_lazy_settlement_waits_no_longer_than_an_ack() -> None:
    a, b = opened()
    a.post(numbered(1))
    b.give(*a.take())
    b.session.take_acks(0.0, None)
    b.session.accept_later(4, 1, 1, 5.0)
    due = 5.0 + OPTIONS.ack_delay_max
    assert b.session.must_speak(due)
    b.session.gather_control(due)
    assert b.session.control_out.ready
    assert b.session.settle_at == inf


@pytest.mark.parametrize(("count", "size"), [(SETTLED_TOGETHER, 1), (2, 32 * 1024)])
def test_many_lazy_settlements_go_with_the_next_packet(count: int, size: int) -> None:
    a, b = opened(LinkOptions())
    a.post([record(b"x" * size)] * count)
    b.give(*a.take())
    b.session.take_acks(0.0, None)
    for seq in range(1, count + 1):
        b.session.gather_control(5.0)
        assert not b.session.control_out.ready
        b.session.accept_later(4, seq, seq, 5.0)
    assert not b.session.must_speak(5.0)
    b.session.gather_control(5.0)
    assert b.session.control_out.items == {1: Settle(4, ((Outcome.ACCEPTED, 1, count),))}


def test_the_verdict_on_a_body_that_lacks_a_piece_is_told_in_time() -> None:
    _, b = opened()
    first, *_ = split(record(b"x" * 2500), 1000)
    b.give(Data(4, 1, (first,)), now=1.0)
    b.session.take_acks(1.0, None)
    b.session.on_control(1, [Gap(4, ((2, 3, 0),))], 1.0)
    due = 1.0 + OPTIONS.ack_delay_max
    assert b.session.settle_at == due
    b.session.gather_control(due)
    assert b.session.control_out.items == {1: Settle(4, ((Outcome.EXPIRED, 1, 1),))}


def test_what_is_not_open_cannot_be_settled() -> None:
    a, b = opened()
    a.post(numbered(1))
    b.give(*a.take())
    assert b.settle(b.told(Arrived)[0])
    assert not b.settle(b.told(Arrived)[0])
    assert not b.session.settle(7, 1, 1, Outcome.ACCEPTED, "", 0.0)


def test_a_settlement_of_unsent_numbers_is_a_lie_and_has_no_effect() -> None:
    a, b = opened()
    ticket = a.post(numbered(3))
    b.give(*a.take()[:1])
    a.post(numbered(1), lane=5)
    with pytest.raises(ProtocolError):
        a.session.on_control(1, [Settle(5, ((Outcome.ACCEPTED, 1, 1),))], 0.0)
    with pytest.raises(ProtocolError):
        a.session.on_control(2, [Settle(4, ((Outcome.ACCEPTED, 1, 4),))], 0.0)
    assert ticket.accepted == 0
    assert a.session.queued_messages == 4


# Credit


def test_what_was_consumed_may_be_sent_again_and_no_more() -> None:
    a, b = opened()
    a.post(numbered(50))
    flow(a, b)
    assert len(bodies(b.events)) == 20
    flow(a, b)
    assert len(bodies(b.events)) == 20
    b.session.settle(4, 1, 7, Outcome.ACCEPTED, "", 0.0)
    flow(b, a)
    flow(a, b)
    assert len(bodies(b.events)) == 27


def test_a_lost_grant_is_repeated_when_all_is_told() -> None:
    a, b = opened()
    a.post(numbered(30))
    flow(a, b)
    b.session.settle(4, 1, 20, Outcome.ACCEPTED, "", 0.0)
    b.session.gather_gaps()
    b.session.gather_control(0.0)
    b.session.take_acks(0.0, ROUND_TRIP)  # lost
    assert a.take() == []
    b.session.tell_all()
    acks(b, a)
    assert len(a.take()) == 10


def test_the_windows_of_all_lanes_grow_within_the_peers_pool() -> None:
    options = replace(OPTIONS, window_bytes=20_000, peer_bytes_max=60_000)
    a, b = opened(options)
    for _ in range(10):
        for lane in range(LANES):
            a.post([record(b"x" * 984)] * 40, lane=lane)
    for turn in range(200):
        flow(a, b, turn * 0.001)
        b.settle_all()
        b.events.clear()
    windows = [lane.credit.window_bytes for lane in b.session.incoming.values()]
    assert sum(windows) == LANES * 20_000 + 60_000
    assert a.session.queued_messages < 4000


# Time to live


def test_what_expires_before_it_was_sent_comes_back_and_leaves_a_hole() -> None:
    a, b = opened()
    a.post(numbered(1), now=0.0, ttl=1.0)
    a.post(numbered(1, 1), now=0.0)
    assert a.next_expiry() == 1.0
    a.session.expire(0.999)
    assert not a.events
    a.session.expire(1.0)
    assert a.returned == [(b"0", Outcome.EXPIRED)]
    assert a.next_expiry() == inf
    assert b.give(*a.take(now=1.0)) == []
    controls(a, b)
    assert bodies(b.events) == [b"1"]


def test_what_expires_unacked_after_it_was_sent_ends_by_the_peers_verdict() -> None:
    a, b = opened()
    a.post(numbered(1), now=0.0, ttl=1.0)
    a.take(now=0.5)  # lost
    a.session.expire(1.0)
    assert a.returned == []
    controls(a, b)
    assert b.session.must_speak(0.0)
    controls(b, a)
    assert a.returned == [(b"0", Outcome.EXPIRED)]


def test_what_expires_after_it_was_acked_is_the_peers_to_judge() -> None:
    a, b = opened()
    ticket = a.post(numbered(1), now=0.0, ttl=1.0)
    flow(a, b, 0.5)
    a.session.expire(1.0)
    controls(a, b)
    b.settle_all()
    controls(b, a)
    assert ticket.accepted == 1
    assert a.returned == []


def test_deadlines_of_what_was_settled_long_before_them_do_not_pile_up() -> None:
    a, b = opened()
    a.post(numbered(10), ttl=3600.0)
    flow(a, b)
    b.events.clear()
    for _ in range(600):
        a.post(numbered(10), lane=5, ttl=3600.0)
        flow(a, b)
        b.settle_all()
        b.events.clear()
        flow(b, a)
    assert a.session.queued_messages == 10
    assert len(a.session._expiries.heap) < 1200
    assert a.next_expiry() == 3600.0
    a.session.expire(3600.0)
    assert len(a.returned) == 0  # the peer has them
    assert a.next_expiry() == inf


def test_records_expire_each_in_its_time_after_others_were_forgotten() -> None:
    a, b = opened()
    for number in range(1500):
        a.post(numbered(1, number), lane=5, ttl=1000.0 + number % 100)
        flow(a, b)
        b.settle_all()
        b.events.clear()
        flow(b, a)
    for number in range(10):
        a.session.submit(6, numbered(1, number), Ticket(), 0.0, None, 10.0 - number)
    for number in range(10):
        a.session.expire(1.0 + number)
        assert a.returned[-1] == (b"%d" % (9 - number), Outcome.EXPIRED)
        assert len(a.returned) == number + 1


# Keys


def test_records_of_one_key_keep_their_order_across_lanes() -> None:
    a, b = opened()
    a.post(numbered(1, 1), lane=0, key="k")
    a.post(numbered(1, 2), lane=9, key="k")
    a.post(numbered(1, 3), lane=9)
    a.post(numbered(1, 4), lane=5, key="k")
    a.post(numbered(1, 5), lane=9, key="other")
    assert b.give(*a.take(9)) == []
    assert b.give(*a.take(5)) == []
    assert b.give(*a.take(0)) == [b"1", b"2", b"3", b"5", b"4"]


def test_a_key_needs_nobody_named_within_its_lane_or_once_all_is_settled() -> None:
    a, b = opened()
    a.post(numbered(1), lane=3, key="k")
    a.post(numbered(1), lane=3, key="k")
    assert [extra(frame.records[0], Tag.PREDECESSORS) for frame in a.take(3)] == [None, None]
    a.session.resume(b.session.lane_states())
    flow(a, b)
    b.settle_all()
    flow(b, a)
    a.post(numbered(1), lane=7, key="k")
    (frame,) = a.take(7)
    assert extra(frame.records[0], Tag.PREDECESSORS) is None
    assert extra(frame.records[0], Tag.KEY) == "k"


def test_a_predecessor_that_expired_unsent_holds_nobody_up() -> None:
    a, b = opened()
    a.post(numbered(1, 1), lane=0, key="k", ttl=1.0)
    a.post(numbered(1, 2), lane=9, key="k")
    assert b.give(*a.take(9)) == []
    a.session.expire(1.0)
    assert a.take(0) == []
    controls(a, b)
    assert bodies(b.events) == [b"2"]


def expire_unsent(a: Side, _b: Side) -> None:
    a.session.expire(1.0)
    assert a.take(5) == []


def expire_sent_and_lost(a: Side, _b: Side) -> None:
    a.take(5)
    a.session.expire(1.0)


def expire_at_the_peer(a: Side, b: Side) -> None:
    assert b.give(*a.take(5, now=0.5), now=0.5) == []


@pytest.mark.parametrize("how", [expire_unsent, expire_sent_and_lost, expire_at_the_peer])
def test_a_key_keeps_its_order_around_one_that_expired(how: Callable[[Side, Side], None]) -> None:
    """1, then 2 which expires, then 3: 3 still waits for 1."""
    a, b = opened()
    a.post(numbered(1, 1), lane=0, key="k")
    a.post(numbered(1, 2), lane=5, key="k", ttl=1.0)
    a.post(numbered(1, 3), lane=9, key="k")
    assert b.give(*a.take(9)) == []
    how(a, b)
    controls(a, b)
    assert bodies(b.events) == []
    assert b.give(*a.take(0), now=2.0) == [b"1", b"3"]


def test_one_behind_an_expired_one_in_its_lane_waits_for_other_lanes() -> None:
    a, b = opened()
    a.post(numbered(1, 1), lane=0, key="k")
    a.post(numbered(1, 2), lane=5, key="k", ttl=1.0)
    a.post(numbered(1, 3), lane=5, key="k")
    a.session.expire(1.0)
    assert b.give(*a.take(5)) == []
    controls(a, b)
    assert bodies(b.events) == []
    assert b.give(*a.take(0)) == [b"1", b"3"]


def test_a_chain_over_many_lanes_is_released_whatever_their_order() -> None:
    """Each waits for the one before; some have expired when their turn comes."""
    for order in (range(LANES), range(LANES - 1, -1, -1), (3, 0, 9, 1, 8, 2, 7, 4, 6, 5)):
        a, b = opened()
        for number, lane in enumerate(order):
            a.post(numbered(1, number), lane=lane, key="k", ttl=1.0 if number % 2 else None)
        frames = [a.take(lane, now=0.5) for lane in order]
        for frame in reversed(frames[1:]):
            assert b.give(*frame, now=0.5) == []
        assert b.give(*frames[0], now=2.0) == [b"0", b"2", b"4", b"6", b"8"]


def test_keys_that_are_done_are_forgotten() -> None:
    a, b = opened()
    for number in range(5000):
        a.post(numbered(1), lane=number % LANES, key=f"key {number}")
        flow(a, b)
        b.settle_all()
        b.events.clear()
        flow(b, a)
    assert len(a.session._keys) <= 1025


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from("kl"), st.booleans()), min_size=1, max_size=12
    ),
    st.randoms(use_true_random=False),
    st.floats(0.0, 1.0),
)
def test_the_order_of_a_key_holds_whatever_comes_when(
    plan: list[tuple[int, str, bool]], random: object, expire_after: float
) -> None:
    shuffle = random.shuffle  # type: ignore[attr-defined]
    a, b = opened()
    frames: list[Data] = []
    for number, (lane, key, mortal) in enumerate(plan):
        a.post(numbered(1, number), lane=lane, key=key, ttl=1.0 if mortal else None)
        if number / len(plan) < expire_after:
            frames += a.take(lane, now=0.5)
    a.session.expire(1.0)
    for lane in list(a.session.outgoing):
        frames += a.take(lane, now=1.0)
    shuffle(frames)
    for frame in frames[::2]:
        b.give(frame, now=0.6)
    controls(a, b, 1.1)
    for frame in frames[1::2]:
        b.give(frame, now=1.6)
    released = [int(body) for body in bodies(b.events)]
    for key in "kl":
        of_key = [number for number in released if plan[number][1] == key]
        assert of_key == sorted(of_key)
    assert {number for number, item in enumerate(plan) if not item[2]} <= set(released)


# Large bodies


def large(size: int = 3000) -> Record:
    return record(b"x" * size)


def test_transfers_in_two_lanes_are_put_together_side_by_side() -> None:
    a, b = opened()
    a.post([record(b"x" * 3000)], lane=2)
    a.post([record(b"y" * 3000)], lane=6)
    for pair in zip(a.take(2), a.take(6), strict=True):
        b.give(*pair)
    assert sorted(bodies(b.events)) == [b"x" * 3000, b"y" * 3000]


def stalled() -> tuple[Side, Side]:
    """Lane 6 waits for the room that lane 2 has, and has used up its credit meanwhile."""
    options = replace(OPTIONS, transfer_bytes_max=4000, window_bytes=4100, window_bytes_max=4100)
    a, b = opened(options)
    a.post([large()], lane=2, ttl=5.0)
    b.give(*a.take(2)[:1])
    a.post([large(4000)], lane=6)
    a.post([large(500)], lane=6)
    b.give(*a.take(6)[:3])
    acks(b, a)
    return a, b


def test_room_freed_by_a_settlement_goes_to_a_transfer_that_waits() -> None:
    a, b = stalled()
    b.give(*a.take(2))
    a.session.outgoing[2].on_lost(1, 3)
    b.give(*a.take(2))
    b.settle_all()
    assert b.session.incoming[6].held_bytes == 0
    acks(b, a)
    assert a.session.outgoing[6].bytes_limit > 4100


def test_room_freed_by_a_transfer_that_was_given_up_goes_to_one_that_waits() -> None:
    a, b = stalled()
    assert b.session.incoming[6].held_bytes > 0
    a.session.expire(5.0)
    controls(a, b)
    assert b.session.incoming[6].held_bytes == 0
    acks(b, a)
    assert a.session.outgoing[6].bytes_limit > 4100


def test_room_freed_by_a_transfer_that_failed_goes_to_one_that_waits() -> None:
    a, b = stalled()
    assert b.session.incoming[6].held_bytes > 0
    b.give(Data(2, 2, (record(b"not a fragment"),)))
    assert b.session.incoming[6].held_bytes == 0
    acks(b, a)
    assert a.session.outgoing[6].bytes_limit > 4100


# Links come and go


def test_a_new_link_replays_exactly_what_is_missing_in_order() -> None:
    a, b = opened()
    a.post(numbered(10))
    data = a.take()
    b.give(data[0], data[1], data[4], data[8])
    a.post(numbered(2, 10))
    a.session.resume(b.session.lane_states())
    assert [frame.first_seq for frame in a.take()] == [3, 4, 6, 7, 8, 10, 11, 12]


def test_control_records_are_replayed_as_well() -> None:
    a, b = opened()
    for name in "abc":
        a.session.send_control(Interest((("topic", name),), ()))
    first, items, _ = a.session.control_out.take(10**9, 10**9)
    b.session.on_control(first, items[:1], 0.0)
    a.session.resume(b.session.lane_states())
    assert a.session.control_out.take(10**9, 10**9)[0] == 2


def test_lane_states_tell_what_was_received_and_granted() -> None:
    a, b = opened()
    a.post(numbered(5))
    data = a.take()
    b.give(data[0], data[2])
    states = b.session.lane_states()
    assert [state.lane for state in states] == [*range(LANES), CONTROL_LANE]
    assert states[4] == LaneState(4, 1, 1, ((3, 3),), 20, 256 * KIB)
    assert states[5] == LaneState(5, 1, 0, (), 20, 256 * KIB)
    assert a.session.lane_states()[4].next_seq == 6


@pytest.mark.parametrize(
    "state",
    [
        LaneState(4, 1, 4, (), 20, 1000),  # never sent
        LaneState(4, 1, 1, ((3, 9),), 20, 1000),
        LaneState(4, 1, 1, (), 20, 1000),  # acked 1..2 before
        LaneState(7, 1, 1, (), 20, 1000),  # nothing was ever sent there
        LaneState(CONTROL_LANE, 1, 1, (), 0, 0),
    ],
)
def test_a_peer_that_contradicts_itself_when_it_resumes_is_found_out(state: LaneState) -> None:
    a, b = opened()
    a.post(numbered(3))
    b.give(*a.take()[:2])
    acks(b, a)
    with pytest.raises(ProtocolError):
        a.session.resume((state,))


def test_a_lane_the_peer_does_not_name_is_replayed_from_its_start() -> None:
    a, _ = opened()
    a.post(numbered(3))
    a.take()
    a.session.resume(())
    assert [frame.first_seq for frame in a.take()] == [1, 2, 3]


def test_the_end_of_a_session_returns_all_and_gives_back_what_it_drew() -> None:
    options = replace(OPTIONS, window_bytes=2000)
    pool = CreditPool(10**6)
    b = Side(options)
    b.session = Session(options, LIMITS, pool, b.events)
    a = Side(options)
    a.session.resume(b.session.lane_states())
    for turn in range(5):
        a.post([record(b"x" * 984)] * 2)
        flow(a, b, turn * 0.001)
        b.settle_all()
    a.post(numbered(2), lane=2)
    flow(a, b)
    a.post(numbered(1), lane=3)
    assert pool.used > 0
    b.session.abandon()
    assert pool.used == 0
    a.session.abandon()
    assert a.returned[-3:] == [
        (b"0", Outcome.UNKNOWN),
        (b"1", Outcome.UNKNOWN),
        (b"0", Outcome.RELEASED),
    ]


def test_keys_that_are_done_are_forgotten_while_one_old_message_stays_open() -> None:
    session = Session(
        replace(OPTIONS, window_messages=20_000, window_messages_max=20_000), LIMITS, None, []
    )
    session.resume([LaneState(4, 1, 0, (), 20_000, 10**9)])
    for number in range(1, 5001):
        session.submit(4, [record(b"x")], Ticket(), 0.0, f"key-{number}", None)
        session.outgoing[4].take(100, 1, 0.0)
        session.on_ack(((4, number, ()),), ())
        if number > 1:
            settled = Settle(4, ((Outcome.ACCEPTED, number, number),))
            session.on_control(number - 1, [settled], 0.0)
    assert session.queued_messages == 1
    assert len(session._keys) <= 1024


def test_bodies_being_put_together_draw_on_the_pool_of_the_node() -> None:
    pool = CreditPool(6000)
    here, there = Side(), Side()
    here.session = Session(OPTIONS, LIMITS, pool, here.events)
    there.session.resume([LaneState(4, 1, 0, (), 20, 10**6)])
    there.post([record(b"x" * 5000)])
    first, *rest = there.take()
    here.give(first)
    assert pool.used == 5000
    assert here.give(*rest) == [b"x" * 5000]
    here.settle_all()
    assert pool.used == 0


def test_withdrawn_tickets_leave_nothing_behind() -> None:
    side = Side()
    tickets = [side.post([record(b"x")]) for _ in range(3000)]
    lane = side.session.outgoing[4]
    for ticket in tickets:
        side.session.withdraw(ticket)
    assert lane.queued_bytes == 0
    assert not lane.items
    side.post([record(b"y")])
    assert len(lane._by_ticket) <= 2  # what has ended is forgotten with the next look


def test_keys_of_records_that_are_split_name_their_last_fragments() -> None:
    options = replace(OPTIONS, fragment_bytes=10)
    session = Session(options, LIMITS, None, [])
    session.resume([LaneState(lane, 1, 0, (), 1000, 10**9) for lane in (4, 7)])
    large, small = record(b"x" * 25), record(b"y")
    tickets = TicketRun([Ticket() for _ in range(3)])
    session.submit(4, [large, small, large], tickets, 0.0, ["a", "b", "a"], None)
    session.submit(7, [small, small], Ticket(2), 0.0, ["a", "b"], None)
    last, middle = session.outgoing[4].next_seq - 1, session.outgoing[4].next_seq // 2
    _, [first, second], _ = session.outgoing[7].take(10**6, 100, 0.0) or (0, [], 0)
    assert extra(first, Tag.PREDECESSORS) == ((4, last),)
    assert extra(second, Tag.PREDECESSORS) == ((4, middle),)


# Many that expire together


def test_many_that_expire_together_tell_the_time_they_have_left() -> None:
    a, b = opened()
    a.post(numbered(10), now=0.0, ttl=5.0)
    assert len(a.session._expiries.heap) == 1
    out = a.session.outgoing[4]
    first = out.take(10_000, 6, 2.0)
    assert first is not None
    assert [extra(record, Tag.TTL_MS) for record in first[1]] == [3000] * 6
    last = out.take(10_000, 6, 4.0)
    assert last is not None
    assert [extra(record, Tag.TTL_MS) for record in last[1]] == [1000] * 4
    assert b.give(Data(4, first[0], tuple(first[1]))) == [b"%d" % n for n in range(6)]


def test_what_follows_the_time_in_a_record_stays_behind_it() -> None:
    a, _ = opened()
    low, high = (int(Tag.HEADERS), b"\x80"), (int(Tag.MESSAGE_ID), 7)
    for extras in (low, high, (*low, *high)):
        records: list[Record] = [(0, "", b"x", extras)] * 9
        a.post(records, now=0.0, ttl=5.0)
        chunk = a.session.outgoing[4].take(10_000, 20, 1.0)
        assert chunk is not None
        for told in chunk[1]:
            assert len(told) == 4
            assert list(told[3][::2]) == sorted({*extras[::2], int(Tag.TTL_MS)})
            assert extra(told, Tag.TTL_MS) == 4000


def test_many_that_expire_together_do_so_as_far_as_they_have_no_outcome() -> None:
    a, b = opened(replace(OPTIONS, window_messages=6, window_messages_max=6))
    ticket = a.post(numbered(10), now=0.0, ttl=5.0)
    flow(a, b)
    b.session.settle(4, 1, 2, Outcome.ACCEPTED, "", 0.0)
    controls(b, a)
    assert ticket.accepted == 2
    assert a.next_expiry() == 5.0
    a.session.expire(4.9)
    assert a.returned == []
    a.session.expire(5.0)
    assert sorted(a.returned) == [(b"%d" % n, Outcome.EXPIRED) for n in range(6, 10)]  # never sent
    assert a.next_expiry() == inf


def test_what_was_parted_still_expires_together_and_tells_its_time() -> None:
    a, _ = opened()
    ticket = a.post(numbered(10), now=0.0, ttl=5.0)
    assert a.session.withdraw(ticket, 3) is False
    assert a.returned == [(b"3", Outcome.RELEASED)]
    frames = a.take(now=1.0)
    assert len(frames) == 9
    assert {extra(record, Tag.TTL_MS) for frame in frames for record in frame.records} == {4000}
    a.session.outgoing[4].resend.add(1, 3)
    again = a.take(now=2.0)
    assert {extra(record, Tag.TTL_MS) for frame in again for record in frame.records} == {3000}


def test_deadlines_of_what_went_together_do_not_pile_up() -> None:
    a, _ = opened()
    a.post(numbered(10), ttl=3600.0)
    for _ in range(2500):
        a.post(numbered(10), lane=5, ttl=3600.0)
        out = a.session.outgoing[5]
        chunk = out.take(100_000, 100, 0.0)
        assert chunk is not None
        out.on_ack(chunk[0] + 9, ())
        out.on_settled(Outcome.ACCEPTED, chunk[0], chunk[0] + 9, {})
        out.grant(out.next_seq + 100, 10**9)
    assert len(a.session._expiries.heap) < 1200
    a.session.expire(3600.0)
    assert len(a.returned) == 10


def test_many_that_expire_together_are_given_up_once_after_others_were_tidied() -> None:
    a, _ = opened()
    ttl, count = 5.0, 7  # too few for a block
    a.post(numbered(count), now=0.0, ttl=ttl)
    a.take()
    out = a.session.outgoing[4]
    out.on_ack(count, ())  # the peer has them, and has not told what became of them
    for _ in range(1100):
        a.post(numbered(1), lane=5, now=0.0, ttl=3600.0)
    assert [each for each in a.session._expiries.heap if each[1] == 4] == [(ttl, 4, 1)]
    with patch.object(type(out), "give_up", return_value=[]) as given_up:
        a.session.expire(ttl)
    assert [each.args[0] for each in given_up.call_args_list] == list(range(1, count + 1))


# One of many


def test_one_of_many_is_withdrawn_alone() -> None:
    a, b = opened()
    ticket = a.post(numbered(10))
    assert a.session.withdraw(ticket, 3) is False  # it never left
    assert a.returned == [(b"3", Outcome.RELEASED)]
    flow(a, b)
    assert a.session.withdraw(ticket, 5) is True  # the peer has it
    assert a.returned == [(b"3", Outcome.RELEASED)]
    b.settle_all()
    controls(b, a)
    assert a.session.withdraw(ticket, 5) is False  # it has its outcome
    assert ticket.accepted == 9
