"""Commands, acknowledgements, credit, settlement, violations and ends of one link."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from tests.reliable.pair import OPTIONS, End, Pair, Puppet, numbered, record
from tests.sizes import total_size
from zmesh.errors import BodyTooLarge
from zmesh.events import PathCause
from zmesh.ids import LinkId, SessionId
from zmesh.message import CONTROL_LANE, LANES, Outcome, Ticket, size_of
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.link_events import (
    Accepted,
    LeftBehind,
    Liveness,
    Opened,
    PathWanted,
    SessionEnd,
)
from zmesh.reliable.link_states import LinkState
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Data,
    Drain,
    Error,
    ErrorCode,
    Frame,
    Gap,
    Iam,
    Interest,
    LaneState,
    Packet,
    Ping,
    Pong,
    Refused,
    Settle,
    Who,
)

NOW = 100.0


def only(frames: Sequence[Frame], kind: type[Frame]) -> list[Frame]:
    return [frame for frame in frames if isinstance(frame, kind)]


# Open


def test_a_link_opens_and_both_know_the_other() -> None:
    pair = Pair().opened()
    a, b = pair.a.link, pair.b.link
    assert (a.name, a.incarnation, a.endpoints) == ("b", 1, ("tcp://b",))
    assert (b.name, b.incarnation, b.endpoints) == ("a", 1, ("tcp://a",))
    assert a.session == b.session
    assert a.session is not None
    opened = Opened(
        a.session,
        resumed=False,
        name="b",
        incarnation=1,
        endpoints=("tcp://b",),
        journal=b.local.journal,
    )
    assert pair.a.events[0] == opened
    assert a.liveness is b.liveness is Liveness.ALIVE
    assert a.round_trip.smoothed == pytest.approx(2 * pair.delay)


def test_what_was_submitted_before_the_first_link_goes_when_it_opens() -> None:
    pair = Pair()
    tickets = [pair.a.post(numbered(3), pair.now), pair.b.post(numbered(3), pair.now, lane=9)]
    assert pair.a.link.queued_messages == 3
    pair.opened()
    assert all(ticket.done for ticket in tickets)
    assert pair.a.bodies == pair.b.bodies == [b"0", b"1", b"2"]


def test_what_is_submitted_is_refused_above_the_body_limit() -> None:
    pair = Pair(replace(OPTIONS, body_bytes_max=1000))
    with pytest.raises(BodyTooLarge):
        pair.a.post([record(b"x" * 1001)], pair.now)
    assert pair.a.link.queued_messages == 0


def test_submit_tells_the_numbers_and_counts_what_waits() -> None:
    pair = Pair()
    link, ticket = pair.a.link, Ticket(5)
    assert link.submit(4, numbered(2), ticket, pair.now) == (1, 2)
    assert link.submit(4, numbered(3), ticket, pair.now) == (3, 5)
    assert link.submit(5, numbered(1), Ticket(), pair.now) == (1, 1)
    assert link.queued_messages == 6
    assert link.queued_bytes == total_size(numbered(6))
    assert link.room_messages == OPTIONS.queued_messages_max - 6
    assert pair.a.statistics.queued_messages == 6


def test_control_records_arrive_once_and_in_order() -> None:
    pair = Pair()
    interests = [Interest((("topic", str(number)),), ()) for number in range(50)]
    for interest in interests[:25]:
        pair.a.link.send_control(interest)
    pair.opened()
    for interest in interests[25:]:
        pair.a.link.send_control(interest)
        pair.turn(pair.a)
    pair.a.link.send_control(Drain())
    pair.turn(pair.a)
    pair.run(0.1)
    assert pair.b.controls == [*interests, Drain()]


def test_a_turn_makes_one_packet_of_many_lanes_and_messages() -> None:
    pair = Pair().opened()
    before = len(pair.a.sent)
    for lane in range(LANES):
        pair.a.post(numbered(10), pair.now, lane)
    pair.turn(pair.a)
    assert len(pair.a.sent) == before + 1


# A healthy network


def test_a_hundred_thousand_messages_without_one_sent_or_received_twice() -> None:
    pair = Pair().opened()
    tickets = [pair.a.post(numbered(5000, 5000 * turn), pair.now) for turn in range(20)]
    assert pair.a.link.room_messages == 0
    back = [pair.b.post(numbered(1000), pair.now, lane) for lane in range(LANES)]
    pair.turn(pair.a)
    pair.turn(pair.b)
    pair.run(5.0)
    assert all(ticket.done and not ticket.failures for ticket in tickets + back)
    assert pair.b.bodies == [b"%d" % number for number in range(100_000)]
    for end in pair.ends:
        statistics = end.statistics
        assert (statistics.retransmitted, statistics.duplicates, statistics.packets_lost) == (
            0,
        ) * 3
        assert (statistics.defects, statistics.packets_stale, statistics.links) == (0, 0, 1)
        assert (statistics.held_messages, statistics.held_bytes) == (0, 0)
        assert statistics.bytes_in_flight == 0
        assert statistics.packets_sent == len(end.sent) < 2000


def test_no_more_is_held_by_a_slow_consumer_than_it_granted() -> None:
    pair = Pair(replace(OPTIONS, window_messages=50, window_bytes=70_000))
    pair.b.accepts = False
    pair.opened()
    pair.a.post([record(b"x" * 984)] * 1000, pair.now)
    pair.turn(pair.a)
    pair.run(10.0)
    assert len(pair.b.bodies) == 50
    assert pair.b.statistics.held_messages == 50
    assert pair.b.statistics.held_bytes == 50_000
    for _ in range(200):
        for event in pair.b.arrived:
            pair.b.settle(event, pair.now)
        pair.b.events.clear()
        pair.turn(pair.b)
        pair.run(0.01)
        assert pair.b.statistics.held_messages <= 16 * 1024
        assert pair.b.statistics.held_bytes <= 4 * 2**20
    assert pair.a.link.queued_messages == 0
    assert pair.a.defects == pair.b.defects == []


def test_an_idle_link_says_little_and_tells_nothing() -> None:
    """Ten minutes: PITFALLS for a link are events out of nothing."""
    pair = Pair().opened()
    for end in pair.ends:
        end.events.clear()
        end.sent.clear()
    pair.run(600.0)
    assert pair.a.events == pair.b.events == []
    assert 50 < len(pair.a.sent) < 300
    frames = {type(frame) for packet in pair.a.sent for frame in packet.frames}
    assert frames == {Ping, Pong, Ack}


def test_a_handler_may_take_hours_and_nothing_is_sent_again() -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    ticket = pair.a.post(numbered(10), pair.now)
    pair.turn(pair.a)
    pair.run(2 * 3600.0)
    assert len(pair.b.arrived) == 1
    assert not ticket.done
    pair.b.settle(pair.b.arrived[0], pair.now)
    pair.turn(pair.b)
    pair.run(0.1)
    assert ticket.accepted == 10
    assert pair.a.statistics.retransmitted == 0
    assert pair.a.defects == []


# Acknowledgements


def test_data_is_acked_within_the_delay_and_at_once_after_a_gap() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, (record(b"a"),)))
    assert puppet.hear(NOW + 0.024) == []
    assert puppet.link.deadline == NOW + OPTIONS.ack_delay_max
    (ack,) = only(puppet.hear(NOW + OPTIONS.ack_delay_max), Ack)
    assert isinstance(ack, Ack)
    assert (ack.largest, ack.delay_us, ack.lanes) == (2, 25_000, ((4, 1, ()),))
    puppet.say(NOW + 1.0, Data(4, 3, (record(b"c"),)))
    (ack,) = only(puppet.hear(NOW + 1.0), Ack)
    assert isinstance(ack, Ack)
    assert (ack.largest, ack.lanes) == (3, ((4, 1, ((3, 3),)),))
    puppet.say(NOW + 2.0, Data(4, 2, (record(b"b"),)))
    assert puppet.hear(NOW + 2.0) == []
    assert puppet.end.bodies == [b"a", b"b", b"c"]


def test_a_ping_is_answered_at_once_with_everything() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    for lane in (2, 7):
        puppet.say(NOW, Data(lane, 1, (record(),)))
    puppet.hear(NOW + 1.0)
    puppet.say(NOW + 2.0, Ping(77))
    (frames,) = [packet.frames for packet in puppet.hear_packets(NOW + 2.0)]
    assert frames[1] == Pong(77)
    ack = frames[0]
    assert isinstance(ack, Ack)
    assert [lane for lane, _, _ in ack.lanes] == [2, 7, CONTROL_LANE]
    assert [lane for lane, _, _ in ack.credit] == [2, 7]


def test_an_ack_stops_retransmission_and_settles_nothing() -> None:
    puppet = Puppet().open(NOW)
    ticket = puppet.end.post(numbered(1), NOW)
    (packet,) = puppet.hear_packets(NOW)
    puppet.say(NOW + 0.01, Ack(packet.number, 0, ((4, 1, ()),), ()))
    for second in range(4):
        puppet.link.on_timer(NOW + second)
        assert not only(puppet.hear(NOW + second), Data)
    assert ticket.accepted == 0
    assert puppet.link.queued_messages == 1
    puppet.say(NOW + 4.0, ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 1),)),)))
    assert ticket.done
    assert puppet.end.events[-1] == Accepted([ticket])


def test_a_record_unacked_is_probed_for_and_sent_again_when_the_peer_lacks_it() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.post(numbered(2), NOW)
    puppet.hear(NOW)
    due = NOW
    for _ in range(10):
        assert puppet.link.deadline is not None
        due = puppet.link.deadline
        puppet.link.on_timer(due)
        probes = puppet.hear_packets(due)
        if probes:
            break
    assert [type(frame) for frame in probes[0].frames] == [Ping]  # and not the data again
    assert due < NOW + 1.5
    puppet.say(due, Pong(probes[0].number), Ack(probes[0].number, 0, ((4, 1, ()),), ()))
    due += 1.0
    puppet.link.on_timer(due)
    assert only(puppet.hear(due), Data) == [Data(4, 2, tuple(numbered(1, 1)))]
    assert puppet.end.defects == ["gap"]
    assert puppet.end.statistics.retransmitted == 1


# Credit


def test_no_more_is_sent_than_the_peer_granted_in_messages_or_bytes() -> None:
    lanes = (LaneState(2, 1, 0, (), 3, 10**6), LaneState(6, 1, 0, (), 1000, 60))
    puppet = Puppet()
    puppet.open(NOW, puppet.hello(lanes))
    puppet.end.post(numbered(10), NOW, lane=2)
    puppet.end.post(numbered(10), NOW, lane=6)
    assert only(puppet.hear(NOW), Data) == [
        Data(6, 1, tuple(numbered(3))),
        Data(2, 1, tuple(numbered(3))),
    ]
    puppet.say(NOW, Ack(0, 0, (), ((2, 2, 0), (6, 0, 10))))  # lower limits are old news
    assert only(puppet.hear(NOW), Data) == []
    size = size_of(record(b"0"))
    puppet.say(NOW, Ack(0, 0, (), ((2, 5, 0), (6, 0, 4 * size))))
    assert only(puppet.hear(NOW), Data) == [
        Data(6, 4, tuple(numbered(1, 3))),
        Data(2, 4, tuple(numbered(2, 3))),
    ]


def test_granted_is_consumed_and_free_and_told_with_the_settlement() -> None:
    puppet = Puppet(replace(OPTIONS, window_messages=4, window_bytes=2000))
    puppet.end.accepts = False
    puppet.open(NOW)
    puppet.say(NOW, Data(4, 1, tuple(numbered(4))))
    assert puppet.credit(NOW)[4] == (4, 2000)
    arrived = puppet.end.arrived[0]
    puppet.end.settle(replace(arrived, last_seq=3), NOW)
    frames = puppet.hear(NOW)
    (ack,) = only(frames, Ack)
    assert isinstance(ack, Ack)
    assert ack.credit == ((4, 7, 2000 + 3 * size_of(record(b"0"))),)
    assert only(frames, ControlData) == [ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 3),)),))]


def is_ack(packet: Packet) -> bool:
    return any(isinstance(frame, Ack) and frame.credit for frame in packet.frames)


def test_lost_grants_do_not_deadlock() -> None:
    pair = Pair(replace(OPTIONS, window_messages=10))
    pair.opened()
    lost = 0

    def drop_grants(source: End, packet: Packet) -> Sequence[float]:
        nonlocal lost
        if source is pair.b and is_ack(packet) and lost < 5:
            lost += 1
            return ()
        return (0.0,)

    pair.weather = drop_grants
    ticket = pair.a.post(numbered(200), pair.now)
    pair.turn(pair.a)
    pair.run(30.0)
    assert lost == 5
    assert ticket.accepted == 200
    assert pair.b.bodies == [b"%d" % number for number in range(200)]


def test_a_node_wide_pool_bounds_the_windows_of_all_its_links() -> None:
    pool = CreditPool(100_000)
    options = replace(OPTIONS, window_bytes=20_000, window_bytes_max=10**6)
    puppets = [Puppet(options, pool=pool, name=name) for name in "bcd"]
    for puppet in puppets:
        puppet.open(NOW)
    body = record(b"x" * 4000)
    sent = dict.fromkeys(range(3), 0)
    for turn in range(50):
        now = NOW + turn * 0.001
        for index, puppet in enumerate(puppets):
            limit = puppet.credit(now).get(4, (0, options.window_bytes))[1]
            batch = (body,) * (limit // size_of(body) - sent[index])
            if batch:
                puppet.say(now, Data(4, sent[index] + 1, batch))
                sent[index] += len(batch)
                puppet.hear(now)
    assert 0 < pool.used <= 100_000
    assert [puppet.end.defects for puppet in puppets] == [[], [], []]
    for puppet in puppets:
        puppet.link.close(ByeCode.CLOSED, "")
    assert pool.used == 0


# Settlement


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_reaches_the_sender_with_reason_and_delay(outcome: Outcome) -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    ticket = pair.a.post(numbered(1), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    assert pair.b.settle(pair.b.arrived[0], pair.now, outcome, "the reason", 1.25)
    pair.turn(pair.b)
    pair.run(0.1)
    if outcome is Outcome.ACCEPTED:
        assert ticket.accepted == 1
        return
    (returned,) = pair.a.returned
    assert returned.record == record(b"0")
    assert returned.ticket is ticket
    assert (returned.outcome, returned.reason, returned.delay) == (outcome, "the reason", 1.25)
    assert (returned.lane, returned.transmitted) == (4, True)
    assert pair.a.link.queued_messages == 0


def test_settled_twice_counts_once_on_either_side() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, tuple(numbered(2))))
    arrived = puppet.end.arrived[0]
    assert puppet.end.settle(arrived, NOW)
    assert not puppet.end.settle(arrived, NOW, Outcome.REJECTED, "too late")
    ticket = puppet.end.post(numbered(2), NOW)
    puppet.hear(NOW)
    puppet.say(NOW, ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 2),)),)))
    puppet.say(NOW, ControlData(2, (Settle(4, ((Outcome.REJECTED, 1, 2),)),)))
    puppet.say(NOW, ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 2),)),)))
    assert ticket.accepted == 2
    assert puppet.end.returned == []
    assert puppet.end.defects == []


def test_a_lazy_settlement_shares_a_packet_but_waits_no_longer_than_an_ack() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, (record(),)))
    puppet.hear(NOW + 0.025)
    session = puppet.link.session
    assert session is not None
    assert puppet.link.accept_later(session, 4, 1, 1, NOW + 1.0)
    assert puppet.hear(NOW + 1.0) == []
    assert puppet.link.deadline == NOW + 1.0 + OPTIONS.ack_delay_max
    assert only(puppet.hear(NOW + 1.025), ControlData)


def test_what_is_accepted_later_is_news_once_until_the_peer_was_told() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, (record(), record(), record())))
    session = puppet.link.session
    assert session is not None
    assert puppet.link.accept_later(session, 4, 1, 1, NOW)
    assert puppet.link.accept_later(session, 4, 2, 2, NOW) is False
    told = only(puppet.hear(NOW + 0.025), ControlData)
    assert told == [ControlData(1, (Settle(4, ((Outcome.ACCEPTED, 1, 2),)),))]
    assert puppet.link.accept_later(session, 4, 3, 3, NOW + 1.0)
    assert puppet.link.accept_later(SessionId(b"another session."), 4, 3, 3, NOW) is None


def test_what_is_accepted_later_is_credit_with_the_next_ack() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, (record(), record())))
    before = puppet.credit(NOW)[4]
    session = puppet.link.session
    assert session is not None
    puppet.link.accept_later(session, 4, 1, 2, NOW)
    after = (before[0] + 2, before[1] + 2 * size_of(record()))
    assert puppet.credit(NOW)[4] == after


def test_a_packet_of_records_is_all_while_an_ack_waits_anyway() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    link, numbers = puppet.link, iter(range(1, 1000))
    puppet.hear(NOW + 0.5)

    def give(*frames: Frame, at: float = NOW + 1.0) -> bool:
        packet = Packet(puppet.link_id, 100 + next(numbers), frames)
        return link.on_packet(puppet.path, packet, at)

    assert not give(Data(4, 1, (record(),)))  # from now on an ACK waits
    due = link.deadline
    assert give(Data(4, 2, (record(),)))
    assert give(Data(4, 3, (record(),)), Data(5, 1, (record(),))) is False  # another lane's order
    assert link.deadline == due
    assert puppet.hear(NOW + 1.0) == []
    assert not give(Data(4, 2, (record(),)))  # a duplicate is told of at once
    assert only(puppet.hear(NOW + 1.0), Ack)
    assert not give(Data(4, 4, (record(),)))
    assert not give(Ack(0, 0, (), ()))
    assert not give(Data(4, 5, (record(),)), Ping(7))
    assert not give(Data(4, 9, (record(),)))  # out of order
    assert not give(*(Data(4, seq, (record(),)) for seq in (6, 7)), Bye(ByeCode.CLOSED, ""))


def test_a_packet_is_not_all_where_so_much_came_that_an_ack_is_due() -> None:
    options = replace(OPTIONS, ack_every_messages=3)
    puppet = Puppet(options).open(NOW)
    puppet.end.accepts = False
    puppet.hear(NOW + 0.5)
    told = [
        puppet.link.on_packet(
            puppet.path, Packet(puppet.link_id, 100 + seq, (Data(4, seq, (record(),)),)), NOW + 1.0
        )
        for seq in (1, 2, 3)
    ]
    assert told == [False, True, False]
    assert only(puppet.hear(NOW + 1.0), Ack)


def test_deliveries_of_another_session_cannot_be_settled() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.accepts = False
    puppet.say(NOW, Data(4, 1, (record(),)))
    session = puppet.link.session
    assert session is not None
    other = SessionId(b"another session.")
    assert not puppet.link.settle(other, 4, 1, 1, Outcome.ACCEPTED, NOW)
    puppet.say(NOW, Bye(ByeCode.CLOSED, ""))
    assert not puppet.link.settle(session, 4, 1, 1, Outcome.ACCEPTED, NOW)


# Violations

lies: dict[str, Callable[[], Frame]] = {
    "data over credit": lambda: Data(4, 1025, (record(),)),
    "bytes over credit": lambda: Data(4, 1, (record(b"x" * (256 * 1024)),)),
    "a lane that is none": lambda: Data(LANES, 1, (record(),)),
    "an ack of numbers unsent": lambda: Ack(0, 0, ((4, 3, ()),), ()),
    "an ack of ranges unsent": lambda: Ack(0, 0, ((4, 0, ((2, 3),)),), ()),
    "an ack of a packet unsent": lambda: Ack(99, 0, (), ()),
    "an ack of a control record unsent": lambda: Ack(0, 0, ((CONTROL_LANE, 1, ()),), ()),
    "a settlement of numbers unsent": lambda: ControlData(
        1, (Settle(4, ((Outcome.ACCEPTED, 1, 3),)),)
    ),
    "a gap over credit": lambda: ControlData(1, (Gap(4, ((1025, 1025, 0),)),)),
    "a gap of bytes over credit": lambda: ControlData(1, (Gap(4, ((1, 1, 2**40),)),)),
    "a control record too far ahead": lambda: ControlData(4097, (Drain(),)),
    "a frame that belongs on no link": lambda: Who(Puppet().me.mesh, Puppet().me.node),
    "another one": lambda: Iam(Puppet().me.mesh, Puppet().me.node, "b", 1, (), ()),
}


@pytest.mark.parametrize("lie", sorted(lies))
def test_a_lie_is_counted_and_has_no_effect(lie: str) -> None:
    puppet = Puppet().open(NOW)
    ticket = puppet.end.post(numbered(2), NOW)
    puppet.hear(NOW)
    before = puppet.end.statistics
    puppet.say(NOW, lies[lie]())
    after = puppet.end.statistics
    assert len(puppet.end.defects) == after.defects == 1
    assert puppet.end.arrived == []
    assert ticket.accepted == 0
    assert puppet.end.returned == []
    assert after.held_messages == before.held_messages == 0
    assert after.queued_messages == before.queued_messages == 2
    assert after.bytes_in_flight == before.bytes_in_flight
    assert puppet.link.is_open
    puppet.say(NOW, Data(4, 1, (record(b"honest"),)))
    assert puppet.end.bodies == [b"honest"]


@pytest.mark.parametrize("lie", sorted(lies))
def test_who_lies_again_and_again_is_cut_off_and_refused_for_a_while(lie: str) -> None:
    puppet = Puppet().open(NOW)
    puppet.end.post(numbered(2), NOW)
    puppet.hear(NOW)
    for turn in range(OPTIONS.violations_max):
        assert puppet.link.is_open
        frame = lies[lie]()
        if isinstance(frame, ControlData) and turn:
            frame = replace(frame, first_seq=frame.first_seq + turn)
        puppet.say(NOW, frame)
    assert puppet.link.state is LinkState.IDLE
    (error,) = only(puppet.hear(NOW), Error)
    assert isinstance(error, Error)
    assert error.code in (ErrorCode.OVER_CREDIT, ErrorCode.MALFORMED)
    assert PathWanted() in puppet.end.events
    assert puppet.link.liveness is Liveness.SUSPECT

    later = NOW + OPTIONS.refusal - 0.1
    puppet.give(Packet(LinkId(b"new link"), 0, (puppet.hello(),)), later)
    puppet.link.hello(5, later)
    assert puppet.hear(later) == []
    assert puppet.link.state is LinkState.IDLE

    puppet.link_id = LinkId(b"new link")
    puppet.open(NOW + OPTIONS.refusal, puppet.hello(resume=puppet.link.session))
    assert puppet.end.statistics.retransmitted == 2  # the session goes on


def test_a_body_other_than_announced_is_rejected_and_no_lie() -> None:
    """It may have been damaged on its way; its sender is to know, and nothing else happens."""
    pair = Pair(replace(OPTIONS, fragment_bytes=1000)).opened()

    def damage(source: End, packet: Packet) -> Sequence[float]:
        changed = packet
        for frame in packet.frames:
            if isinstance(frame, Data) and len(frame.records) > 1:
                first, second, *rest = frame.records
                wrong = (second[0], second[1], bytes(second[2])[::-1])
                lying = replace(frame, records=(first, wrong, *rest))
                frames = tuple(lying if each is frame else each for each in packet.frames)
                changed = replace(packet, frames=frames)
        assert source.link.path is not None
        pair.at(pair.delay, pair.deliver, source, source.link.path, changed)
        return ()

    pair.weather = damage
    body = record(bytes(number % 256 for number in range(5000)))
    pair.a.post([body], pair.now)
    pair.turn(pair.a)
    pair.run(1.0)
    (returned,) = pair.a.returned
    assert returned.record == body
    assert (returned.outcome, returned.reason) == (
        Outcome.REJECTED,
        "the pieces are not what was announced",
    )
    assert pair.b.defects == []
    assert pair.b.bodies == []


@pytest.mark.parametrize("is_full", [False, True])
def test_a_peer_that_takes_no_control_records_is_given_up(is_full: bool) -> None:
    puppet = Puppet(replace(OPTIONS, control_queued_max=100)).open(NOW)
    if is_full:  # it reads nothing at all, and still may ask for answers
        puppet.link.on_path_full(puppet.path)
    for number in range(101):
        puppet.link.send_control(Interest((("topic", str(number)),), ()))
    puppet.hear(NOW)
    assert not puppet.link.is_open
    assert puppet.end.ended == [SessionEnd.PEER_FORGOT]


def test_a_peer_that_takes_no_refusals_with_long_reasons_is_given_up() -> None:
    """A message of 30 bytes is refused in 900: they are not to be kept without end."""
    puppet = Puppet(replace(OPTIONS, control_queued_bytes_max=100_000)).open(NOW)
    queue = puppet.link._session.control_out
    refusal = Refused((("topic", "a.b", "because " * 100),))
    for number in range(1, 31):
        puppet.link.send_control(refusal)
        puppet.hear(NOW)
        assert puppet.link.is_open
        if number % 10 == 0:  # what it takes counts no more
            puppet.say(NOW, Ack(0, 0, ((CONTROL_LANE, number, ()),), ()))
            assert queue.size == 0
    for _ in range(100):
        puppet.link.send_control(refusal)
        puppet.hear(NOW)
    assert not puppet.link.is_open
    assert puppet.end.ended == [SessionEnd.PEER_FORGOT]


# Ends


def test_bye_ends_link_and_session_on_both_sides() -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    pair.a.post(numbered(2), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    pair.b.link.close(ByeCode.DRAINED, "going home")
    pair.turn(pair.b)
    pair.run(0.1)
    assert LeftBehind(ByeCode.DRAINED, "going home") in pair.a.events
    assert pair.a.ended == [SessionEnd.PEER_LEFT]
    assert pair.b.ended == [SessionEnd.CLOSED]
    assert [item.outcome for item in pair.a.returned] == [Outcome.UNKNOWN] * 2
    assert pair.a.link.liveness is pair.b.link.liveness is Liveness.LEFT
    assert pair.a.link.state is LinkState.IDLE
    assert pair.a.link.session is None


def test_a_closed_link_takes_nothing_any_more() -> None:
    puppet = Puppet().open(NOW)
    puppet.end.post(numbered(1), NOW)
    puppet.link.close(ByeCode.CLOSED, "")
    assert puppet.hear(NOW) == [Bye(ByeCode.CLOSED, "")]
    assert puppet.end.verdicts[-1] is Liveness.LEFT
    assert puppet.link.state is LinkState.CLOSED
    assert puppet.link.deadline is None
    puppet.end.events.clear()
    puppet.say(NOW, Data(4, 1, (record(),)))
    puppet.give(Packet(LinkId(b"new link"), 0, (puppet.hello(),)), NOW)
    puppet.link.hello(5, NOW)
    puppet.link.on_path_down(puppet.path, PathCause.CLOSED, NOW)
    puppet.link.close(ByeCode.CLOSED, "again")
    puppet.link.on_timer(NOW + 100.0)
    assert puppet.hear(NOW + 100.0) == []
    assert puppet.end.events == []


def test_a_link_that_lingers_is_closed_as_well() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.cut()
    pair.a.link.close(ByeCode.CLOSED, "")
    assert pair.a.link.deadline is None


def test_who_left_may_come_back_to_a_new_session() -> None:
    pair = Pair().opened()
    session = pair.a.link.session
    pair.b.link.close(ByeCode.CLOSED, "")
    pair.turn(pair.b)
    pair.run(0.1)
    pair.restart(pair.b)
    ticket = pair.a.post(numbered(1), pair.now)
    pair.connect(pair.b)
    pair.run(0.1)
    assert ticket.done
    assert pair.a.link.liveness is Liveness.ALIVE
    assert pair.a.link.session not in (None, session)


def test_withdrawn_records_come_back_where_they_never_left() -> None:
    pair = Pair()
    ticket, other = pair.a.post(numbered(3), pair.now), pair.a.post(numbered(1, 3), pair.now)
    pair.a.link.withdraw(ticket)
    pair.opened()
    assert [(item.outcome, item.transmitted) for item in pair.a.returned] == [
        (Outcome.RELEASED, False)
    ] * 3
    assert pair.b.bodies == [b"3"]
    assert other.done


def test_a_record_withdrawn_on_its_way_ends_once_by_the_peers_verdict() -> None:
    for lost in (False, True):
        pair = Pair().opened()
        pair.weather = lambda _source, packet, lost=lost: (  # type: ignore[misc]
            () if lost and only(packet.frames, Data) else (0.0,)
        )
        ticket = pair.a.post(numbered(1), pair.now)
        pair.turn(pair.a)
        pair.a.link.withdraw(ticket)
        pair.turn(pair.a)
        pair.run(0.1)
        assert (ticket.accepted, len(pair.a.returned)) == ((0, 1) if lost else (1, 0))
        assert [item.outcome for item in pair.a.returned] == [Outcome.EXPIRED] * lost
        assert pair.b.bodies == ([] if lost else [b"0"])
        assert pair.a.link.queued_messages == 0


def test_what_expires_before_it_could_be_sent_comes_back_in_time() -> None:
    pair = Pair()
    pair.a.post(numbered(1), pair.now, ttl=2.0)
    later = pair.a.post(numbered(1, 1), pair.now)
    assert pair.a.link.deadline == pair.now + 2.0
    pair.run(2.0)
    (returned,) = pair.a.returned
    assert (returned.outcome, returned.transmitted) == (Outcome.EXPIRED, False)
    pair.opened()
    assert pair.b.bodies == [b"1"]
    assert later.done
    assert pair.b.statistics.held_messages == 0


def test_what_expires_on_its_way_is_neither_delivered_nor_waited_for() -> None:
    pair = Pair().opened()
    pair.weather = lambda _source, packet: () if only(packet.frames, Data) else (0.0,)
    pair.a.post(numbered(1), pair.now, ttl=0.15)
    pair.turn(pair.a)
    pair.run(0.1)
    pair.weather = lambda _source, _packet: (0.0,)
    pair.run(0.2)
    assert [item.outcome for item in pair.a.returned] == [Outcome.EXPIRED]
    after = pair.a.post(numbered(1, 1), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    assert after.done
    assert pair.b.bodies == [b"1"]


def test_what_outlives_its_time_at_the_receiver_is_not_delivered() -> None:
    """It came before one that was lost, and had to wait for it."""
    pair = Pair().opened()
    pair.weather = lambda _source, packet: () if only(packet.frames, Data) else (0.0,)
    first = pair.a.post(numbered(1), pair.now)
    pair.turn(pair.a)
    pair.weather = lambda _source, _packet: (0.0,)
    pair.a.post(numbered(1, 1), pair.now, ttl=0.0005 + pair.delay)
    third = pair.a.post(numbered(1, 2), pair.now)
    pair.turn(pair.a)
    pair.run(3.0)
    assert pair.b.bodies == [b"0", b"2"]
    assert first.done
    assert third.done
    assert [item.outcome for item in pair.a.returned] == [Outcome.EXPIRED]
