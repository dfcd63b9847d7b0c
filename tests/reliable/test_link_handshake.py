"""How two links find into one session, whatever happens on the way, and how sessions end."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.reliable.pair import OPTIONS, End, Pair, Puppet, identity, numbered, record
from zmesh.events import PathCause
from zmesh.ids import LinkId, SessionId
from zmesh.message import LANES, Outcome, Ticket
from zmesh.reliable.link_events import (
    Clash,
    Liveness,
    Opened,
    PathWanted,
    SessionEnd,
    SessionEnded,
)
from zmesh.reliable.link_states import LinkState
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    Data,
    Error,
    ErrorCode,
    Fenced,
    Frame,
    Hello,
    LaneState,
    Packet,
    Ping,
    Welcome,
)

NOW = 100.0


def opened(end: End) -> list[bool]:
    """Whether each link that opened resumed the session."""
    return [event.resumed for event in end.events if isinstance(event, Opened)]


def first_of(packet: Packet) -> type[Frame]:
    return type(packet.frames[0])


def post_both(pair: Pair, amount: int = 20) -> list[Ticket]:
    return [end.post(numbered(amount), pair.now) for end in pair.ends]


def assert_settled(pair: Pair, tickets: Sequence[Ticket], amount: int = 20) -> None:
    """All arrived once, in order, in one session that both are in."""
    assert pair.a.link.is_open
    assert pair.b.link.is_open
    assert pair.a.link.session == pair.b.link.session
    for end in pair.ends:
        assert end.bodies == [b"%d" % number for number in range(amount)]
        assert end.returned == []
        assert end.ended == []
    assert all(ticket.done for ticket in tickets)


# Crossing HELLOs


@pytest.mark.parametrize("head_start", [-0.01, 0.0, 0.01, 0.4, 0.6])
@pytest.mark.parametrize("delay_a", [0.0, 0.03, 0.7, 1.5])
@pytest.mark.parametrize("delay_b", [0.0, 0.03, 0.7, 1.5])
def test_two_that_call_each_other_meet_in_one_session(
    head_start: float, delay_a: float, delay_b: float
) -> None:
    """HELLOs arrive in every order: both before either was answered, one before, after, late."""
    pair = Pair()
    delays = {id(pair.a): delay_a, id(pair.b): delay_b}

    def slow_handshake(source: End, packet: Packet) -> Sequence[float]:
        return (delays[id(source)],) if first_of(packet) in (Hello, Welcome) else (0.0,)

    pair.weather = slow_handshake
    tickets = post_both(pair)
    pair.at(max(0.0, -head_start), pair.connect, pair.a)
    pair.at(max(0.0, head_start), pair.connect, pair.b)
    pair.run(20.0)
    assert_settled(pair, tickets)
    assert pair.a.statistics.defects == pair.b.statistics.defects == 0


@pytest.mark.parametrize("order", ["a answers", "b answers", "both answer", "both cross"])
def test_each_arrival_order_of_two_hellos_by_hand(order: str) -> None:
    pair = Pair()
    pair.redial_after = None
    held: list[tuple[End, Packet]] = []

    def hold(source: End, packet: Packet) -> Sequence[float]:
        held.append((source, packet))
        return ()

    pair.weather = hold
    tickets = post_both(pair)
    paths = {id(end): pair.dial(end) for end in pair.ends}
    for end in pair.ends:
        end.link.hello(paths[id(end)], pair.now)
        pair.turn(end)
    (_, hello_a), (_, hello_b) = held
    first = {
        "a answers": [(pair.b, hello_b)],
        "b answers": [(pair.a, hello_a)],
        "both answer": [(pair.a, hello_a), (pair.b, hello_b)],
        "both cross": [(pair.b, hello_b), (pair.a, hello_a)],
    }[order]
    pair.weather = lambda _source, _packet: (0.0,)
    for end, packet in first:
        pair.deliver(end, paths[id(end)], packet)
    pair.run(0.3)
    for end, packet in ((pair.a, hello_a), (pair.b, hello_b)):  # the rest, and copies
        pair.deliver(end, paths[id(end)], packet)
    pair.run(20.0)
    assert_settled(pair, tickets)


# Loss, repetition, lateness


@pytest.mark.parametrize("lost", [Hello, Welcome, Ping])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_lost_handshake_packets_are_repeated(lost: type[Frame], times: int) -> None:
    pair = Pair()
    dropped = 0

    def drop(_source: End, packet: Packet) -> Sequence[float]:
        nonlocal dropped
        if dropped < times and any(isinstance(frame, lost) for frame in packet.frames):
            dropped += 1
            return ()
        return (0.0,)

    pair.weather = drop
    tickets = post_both(pair)
    pair.connect()
    pair.run(30.0)
    assert dropped == times
    assert_settled(pair, tickets)


def test_every_packet_of_a_handshake_may_come_twice_and_late() -> None:
    pair = Pair()
    pair.weather = lambda _source, packet: (
        (0.0, 0.2, 3.0) if first_of(packet) in (Hello, Welcome) else (0.0,)
    )
    tickets = post_both(pair)
    pair.connect()
    pair.run(30.0)
    assert_settled(pair, tickets)
    assert opened(pair.a) == opened(pair.b) == [False]
    assert pair.a.statistics.links == 1


def test_after_four_hellos_without_an_answer_another_path_is_wanted() -> None:
    pair = Pair()
    pair.redial_after = None
    pair.weather = lambda _source, _packet: ()
    pair.connect()
    pair.run(20.0)
    assert [first_of(packet) for packet in pair.a.sent] == [Hello] * 4
    assert {packet.link for packet in pair.a.sent} == {pair.a.sent[0].link}
    assert pair.a.link.state is LinkState.IDLE
    assert pair.a.events == [PathWanted()]
    assert pair.a.link.deadline is None


def test_an_answer_that_is_not_confirmed_is_given_up() -> None:
    puppet = Puppet()
    puppet.give(Packet(puppet.link_id, 0, (puppet.hello(),)), NOW)
    assert puppet.link.deadline == NOW + OPTIONS.confirm_timeout
    puppet.hear(NOW)
    puppet.end.post(numbered(1), NOW)
    assert puppet.hear(NOW) == []  # nothing goes before the link is confirmed
    puppet.link.on_timer(NOW + OPTIONS.confirm_timeout)
    assert puppet.link.state is LinkState.IDLE
    assert puppet.end.link.queued_messages == 1


def test_a_copy_of_the_hello_just_answered_gets_the_same_welcome() -> None:
    puppet = Puppet()
    packet = Packet(puppet.link_id, 0, (puppet.hello(),))
    puppet.give(packet, NOW)
    (first,) = puppet.hear(NOW)
    puppet.give(packet, NOW + 0.5)
    (again,) = puppet.hear(NOW + 0.5)
    assert first == again
    assert isinstance(first, Welcome)
    assert first.attempt == 1


def test_a_stale_hello_changes_nothing() -> None:
    puppet = Puppet()
    old = Packet(LinkId(b"old link"), 0, (puppet.hello(),))
    puppet.open(NOW)
    puppet.give(old, NOW + 1.0)
    assert puppet.hear(NOW + 1.0) == []
    assert puppet.link.is_open
    assert puppet.end.statistics.packets_stale == 1


def test_a_new_hello_on_a_living_link_moves_the_session_to_the_new_link() -> None:
    """The peer knows better than we do that the old one is gone."""
    puppet = Puppet().open(NOW)
    session = puppet.link.session
    ticket = puppet.end.post(numbered(2), NOW)
    puppet.hear(NOW)
    puppet.path, puppet.link_id = 7, LinkId(b"new link")
    hello = puppet.hello((LaneState(4, 1, 1, (), 100, 10**6),), resume=session)
    puppet.give(Packet(puppet.link_id, 0, (hello,)), NOW)
    (welcome,) = puppet.hear(NOW)
    assert isinstance(welcome, Welcome)
    assert welcome.session == session
    puppet.say(NOW, Ping(1))
    assert Data(4, 2, tuple(numbered(1, 1))) in puppet.hear(NOW)
    assert opened(puppet.end) == [False, True]
    assert not ticket.done


def test_packets_of_another_link_are_dropped_and_answered_once_a_second() -> None:
    puppet = Puppet().open(NOW)
    stale = Packet(LinkId(b"old link"), 5, (Data(4, 1, (record(b"x"),)),))
    for moment, answered in ((0.0, True), (0.5, False), (0.999, False), (1.0, True)):
        puppet.give(stale, NOW + moment)
        said = puppet.hear_packets(NOW + moment)
        assert [packet.link for packet in said] == [stale.link] * answered
        assert [packet.frames for packet in said] == [
            (Error(ErrorCode.UNKNOWN_LINK, "say HELLO"),)
        ] * answered
    assert puppet.end.statistics.packets_stale == 4
    assert puppet.end.arrived == []


@pytest.mark.parametrize(
    "frame", [Error(ErrorCode.UNKNOWN_LINK, ""), Bye(ByeCode.CLOSED, ""), Fenced(9)]
)
def test_complaints_about_another_link_are_not_answered(frame: Frame) -> None:
    puppet = Puppet().open(NOW)
    puppet.give(Packet(LinkId(b"old link"), 0, (frame,)), NOW)
    assert puppet.hear(NOW) == []
    assert puppet.link.is_open


def test_packets_on_another_path_are_not_of_this_link() -> None:
    puppet = Puppet().open(NOW)
    puppet.path = b"somebody else"
    puppet.say(NOW, Data(4, 1, (record(b"x"),)))
    assert puppet.end.arrived == []
    assert puppet.end.statistics.packets_stale == 1


def test_a_peer_that_does_not_know_the_link_is_told_hello_on_the_same_path() -> None:
    puppet = Puppet().open(NOW)
    puppet.say(NOW, Error(ErrorCode.UNKNOWN_LINK, "say HELLO"))
    (packet,) = puppet.hear_packets(NOW)
    (hello,) = packet.frames
    assert isinstance(hello, Hello)
    assert packet.link != puppet.link_id
    assert hello.resume == puppet.link.session
    assert puppet.link.state is LinkState.CALLING
    assert puppet.end.ended == []


def test_a_peer_that_reports_any_other_error_is_given_up() -> None:
    puppet = Puppet().open(NOW)
    puppet.say(NOW, Error(ErrorCode.MALFORMED, "?"))
    assert puppet.link.state is LinkState.IDLE
    assert puppet.hear(NOW) == []
    assert PathWanted() in puppet.end.events


def test_a_hello_refused_ends_the_call() -> None:
    pair = Pair()
    pair.redial_after = None
    pair.connect()
    link = pair.a.link
    (packet,) = pair.a.sent
    assert link.path is not None
    refusal = Packet(packet.link, 0, (Error(ErrorCode.WRONG_NODE, ""),))
    link.on_packet(link.path, refusal, pair.now)
    assert link.state is LinkState.IDLE
    assert link.take_events() == [PathWanted()]


# Identity


def test_an_older_incarnation_is_fenced() -> None:
    puppet = Puppet()
    puppet.me = identity("b", incarnation=5)
    puppet.open(NOW)
    puppet.me = identity("b", incarnation=4)
    puppet.give(Packet(LinkId(b"old link"), 0, (puppet.hello(),)), NOW)
    (packet,) = puppet.hear_packets(NOW)
    assert packet == Packet(LinkId(b"old link"), 0, (Fenced(5),))
    assert puppet.link.is_open
    assert puppet.end.ended == []


def test_a_clone_is_refused_and_harms_nobody() -> None:
    puppet = Puppet().open(NOW)
    puppet.me = identity("b", life="clone")
    puppet.give(Packet(LinkId(b"new link"), 0, (puppet.hello(),)), NOW)
    (error,) = puppet.hear(NOW)
    assert isinstance(error, Error)
    assert error.code is ErrorCode.DUPLICATE_IDENTITY
    assert puppet.link.is_open
    assert puppet.end.defects == ["clone"]
    assert not any(isinstance(event, Clash) for event in puppet.end.events)


@pytest.mark.parametrize(
    ("frame", "fenced"),
    [(Fenced(2), True), (Error(ErrorCode.DUPLICATE_IDENTITY, "same incarnation"), False)],
)
def test_who_is_told_that_it_is_there_twice_says_so(frame: Frame, fenced: bool) -> None:
    pair = Pair()
    pair.connect()
    link = pair.a.link
    (packet,) = pair.a.sent
    assert link.path is not None
    link.on_packet(link.path, Packet(packet.link, 0, (frame,)), pair.now)
    assert Clash(fenced) in link.take_events()
    assert link.state is LinkState.IDLE


@pytest.mark.parametrize("incarnation", [0, 1])
def test_fenced_by_what_is_not_newer_is_a_lie(incarnation: int) -> None:
    puppet = Puppet().open(NOW)
    puppet.say(NOW, Fenced(incarnation))
    assert puppet.end.defects == ["fenced"]
    assert puppet.link.is_open
    assert not any(isinstance(event, Clash) for event in puppet.end.events)


# Sessions


@pytest.mark.parametrize("caller", ["a", "b"])
def test_a_cut_connection_costs_nothing(caller: str) -> None:
    pair = Pair().opened()
    pair.redial_after = None
    tickets = post_both(pair)
    for end in pair.ends:
        pair.turn(end)
    pair.cut()  # everything is on the way
    assert pair.b.bodies == []
    pair.connect(pair.a if caller == "a" else pair.b)
    pair.run(1.0)
    assert_settled(pair, tickets)
    assert opened(pair.a) == opened(pair.b) == [False, True]
    assert pair.a.statistics.duplicates == pair.b.statistics.duplicates == 0
    assert pair.a.verdicts == [Liveness.ALIVE, Liveness.SUSPECT, Liveness.ALIVE]


def test_a_new_link_replays_exactly_what_is_missing_in_order() -> None:
    pair = Pair(replace(OPTIONS, packet_bytes=100)).opened()
    pair.b.accepts = False

    def odd_packets(source: End, packet: Packet) -> Sequence[float]:
        return () if source is pair.a and packet.number % 2 else (0.0,)

    pair.weather = odd_packets
    pair.a.post(numbered(60), pair.now)
    pair.turn(pair.a)
    pair.run(0.0007)  # there, and no ACK back
    pair.weather = lambda _source, _packet: (0.0,)
    before = len(pair.a.sent)
    numbers = [
        (frame.first_seq, frame.first_seq + len(frame.records) - 1)
        for packet in pair.a.sent
        for frame in packet.frames
        if isinstance(frame, Data) and packet.number % 2
    ]
    assert len(numbers) > 3
    pair.cut()
    pair.run(1.0)
    replayed = [
        (frame.first_seq, frame.first_seq + len(frame.records) - 1)
        for packet in pair.a.sent[before:]
        for frame in packet.frames
        if isinstance(frame, Data)
    ]
    assert replayed == numbers
    assert pair.b.statistics.duplicates == 0
    assert pair.b.bodies == [b"%d" % number for number in range(60)]


def test_settlements_survive_a_cut() -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    ticket = pair.a.post(numbered(3), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    pair.b.settle(replace(pair.b.arrived[0], last_seq=1), pair.now)
    pair.turn(pair.b)
    pair.cut()  # the settlement is on its way
    pair.b.settle(replace(pair.b.arrived[0], first_seq=2), pair.now)
    pair.run(1.0)
    assert ticket.accepted == 3
    assert pair.a.link.queued_messages == 0


def test_a_restarted_peer_ends_the_session_and_says_what_may_have_been_handled() -> None:
    pair = Pair(replace(OPTIONS, window_messages=3))
    pair.b.accepts = False
    pair.opened()
    session = pair.a.link.session
    ticket = pair.a.post(numbered(5), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    pair.restart(pair.b)
    pair.run(1.0)
    assert session is not None
    end = pair.a.events.index(SessionEnded(session, SessionEnd.PEER_RESTARTED))
    assert pair.a.events[end + 1 : end + 6] == pair.a.returned
    assert [(item.outcome, item.transmitted) for item in pair.a.returned] == [
        *[(Outcome.UNKNOWN, True)] * 3,
        *[(Outcome.RELEASED, False)] * 2,
    ]
    assert opened(pair.a) == [False, False]
    assert pair.a.link.incarnation == 2
    assert ticket.accepted == 0
    again = pair.a.post(numbered(2), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    assert again.done
    assert pair.b.bodies == [b"0", b"1"]


@pytest.mark.parametrize("after", [0.02, 0.5, 0.95, 1.05, 3.0])
@pytest.mark.parametrize("caller", ["a", "b"])
def test_a_peer_back_from_a_crash_is_met_whenever_it_comes(after: float, caller: str) -> None:
    """Its host refuses probes meanwhile, so the old session lingers only for a second."""
    pair = Pair().opened()
    pair.redial_after = None
    pair.a.post(numbered(3), pair.now)
    reborn = pair.restart(pair.b)
    reborn.probe_answer = PathCause.REFUSED
    pair.run(after)
    reborn.probe_answer = None
    pair.connect(pair.a if caller == "a" else reborn)
    pair.run(2.0)
    assert pair.a.link.is_open
    assert pair.a.link.session == reborn.link.session
    assert len(pair.a.ended) == 1
    assert [item.outcome for item in pair.a.returned] == [Outcome.RELEASED] * 3
    tickets = [end.post(numbered(5), pair.now) for end in pair.ends]
    for end in pair.ends:
        pair.turn(end)
    pair.run(60.0)
    assert all(ticket.done for ticket in tickets)
    assert len(pair.a.ended) == 1
    assert pair.a.defects == reborn.defects == []


def test_a_handshake_under_way_when_the_linger_ends_is_not_disturbed() -> None:
    pair = Pair(replace(OPTIONS, session_linger=10.0), OPTIONS).opened()
    pair.redial_after = None
    tickets = post_both(pair)
    pair.cut()
    pair.run(9.9)
    pair.weather = lambda _source, packet: (
        (0.2,) if first_of(packet) in (Hello, Welcome) else (0.0,)
    )
    pair.connect()
    pair.run(1.0)
    assert_settled(pair, tickets)


def test_a_peer_that_stays_away_is_lost_when_the_linger_ends_and_not_before() -> None:
    pair = Pair()
    pair.b.accepts = False
    pair.opened()
    pair.redial_after = None
    pair.a.post(numbered(2), pair.now)
    pair.turn(pair.a)
    pair.run(0.1)
    pair.a.post(numbered(1), pair.now)
    pair.b.probe_answer = None
    pair.cut()
    pair.run(OPTIONS.session_linger - 0.1)
    assert pair.a.ended == []
    pair.run(0.2)
    assert pair.a.ended == [SessionEnd.LINGER_OVER]
    assert pair.a.verdicts[-1] is Liveness.LOST
    assert [item.outcome for item in pair.a.returned] == [
        Outcome.UNKNOWN,
        Outcome.UNKNOWN,
        Outcome.RELEASED,
    ]
    assert pair.a.link.session is None
    assert pair.a.link.deadline is None


def test_the_session_of_a_killed_process_lingers_for_a_moment_only() -> None:
    pair = Pair().opened()
    pair.redial_after = None
    pair.b.probe_answer = PathCause.REFUSED
    pair.cut()
    pair.run(0.1)
    assert pair.a.link.liveness is Liveness.LOST
    assert pair.a.ended == []
    pair.run(OPTIONS.gone_linger)
    assert pair.a.ended == [SessionEnd.LINGER_OVER]


def test_what_one_side_forgot_the_other_gives_up() -> None:
    pair = Pair(replace(OPTIONS, session_linger=5.0), OPTIONS)
    pair.b.accepts = False
    pair.opened()
    pair.redial_after = None
    pair.a.post(numbered(1), pair.now)
    pair.b.post(numbered(1), pair.now)
    for end in pair.ends:
        pair.turn(end)
    pair.run(0.1)
    pair.cut()
    pair.run(6.0)
    assert pair.a.ended == [SessionEnd.LINGER_OVER]
    assert pair.b.ended == []
    pair.connect(pair.b)
    pair.run(1.0)
    assert pair.b.ended == [SessionEnd.PEER_FORGOT]
    assert pair.a.link.session == pair.b.link.session
    tickets = [end.post(numbered(3), pair.now, lane=lane) for end in pair.ends for lane in (0, 9)]
    pair.b.accepts = True
    for end in pair.ends:
        pair.turn(end)
    pair.run(5.0)
    assert all(ticket.done for ticket in tickets)
    assert pair.a.defects == pair.b.defects == []


def test_a_resume_that_went_back_ends_the_session_and_the_next_call_begins_another() -> None:
    puppet = Puppet().open(NOW)
    ticket = puppet.end.post(numbered(3), NOW)
    (packet,) = puppet.hear_packets(NOW)
    puppet.say(NOW, Ack(packet.number, 0, ((4, 3, ()),), ()))
    session = puppet.link.session
    puppet.link_id = LinkId(b"new link")
    went_back = puppet.hello((LaneState(4, 1, 2, (), 100, 10**6),), resume=session)
    puppet.give(Packet(puppet.link_id, 0, (went_back,)), NOW)
    assert puppet.end.defects == ["resume"]
    assert puppet.end.ended == [SessionEnd.PEER_FORGOT]
    assert [item.outcome for item in puppet.end.returned] == [Outcome.UNKNOWN] * 3
    assert puppet.link.state is LinkState.IDLE
    assert puppet.hear(NOW) == []
    puppet.say(NOW, Ping(1))
    assert puppet.link.state is LinkState.IDLE
    puppet.fresh = SessionId(b"another session.")
    puppet.link_id = LinkId(b"3rd link")
    puppet.open(NOW + 1.0, puppet.hello(resume=session))
    assert puppet.link.session == puppet.fresh
    assert ticket.accepted == 0


def test_the_lanes_of_a_session_the_answerer_forgot_are_not_believed() -> None:
    puppet = Puppet()
    old = [LaneState(lane, 50, 49, (), 10**6, 10**9) for lane in range(LANES)]
    hello = puppet.hello(tuple(old), resume=SessionId(b"long forgotten.."))
    puppet.open(NOW, hello)
    puppet.end.post(numbered(5), NOW)
    assert not any(isinstance(frame, Data) for frame in puppet.hear(NOW))
    puppet.say(NOW, Ack(0, 0, (), ((4, 3, 10**6),)))
    assert Data(4, 1, tuple(numbered(3))) in puppet.hear(NOW)
    assert puppet.end.defects == []
