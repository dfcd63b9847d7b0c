"""Calls between whole nodes on a simulated network: choice, failover, deadlines, cancellation."""

import pytest

from tests.engines import Host, World, echo, reply, request
from zmesh.actions import CallAnswered, CallFailure, CancelRequest, PeerState
from zmesh.events import (
    Call,
    CancelCall,
    CloseNode,
    DrainNode,
    Reply,
    SettleDeliveries,
    Withdraw,
)
from zmesh.message import Kind, Outcome, Record, Tag, extra, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.request_reply import CallTicket
from zmesh.wire.codec import decode
from zmesh.wire.frames import Ack, ControlData, Data, Settle


@pytest.fixture(params=["alone", "in runs"], autouse=True)
def _in_runs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make calls, and answer them, as the face does, and each alone: little may depend on it."""
    monkeypatch.setattr(Host, "in_runs", request.param == "in runs")


def open_handler(_: Record) -> None:
    """Leave the request open."""


def mesh_of(world: World, callers: str, providers: str) -> list[Host]:
    hosts = world.mesh(*callers, *providers)
    for host in hosts[len(callers) :]:
        host.serve("work", open_handler)
    world.run(1.0)
    return hosts


def answer_of(host: Host, call: int, within: float = 30.0) -> CallAnswered:
    host.world.run_until(lambda: call in host.answers, within)
    return host.answers[call]


def text_of(answer: CallAnswered) -> str:
    assert answer.failure is None, (answer.failure, answer.reason)
    assert answer.record is not None
    return bytes(answer.record[2]).decode()


# The plain way


def test_a_call_is_answered_by_the_provider() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    answer = answer_of(a, a.call("work", "hello"))
    assert (text_of(answer), answer.peer) == ("hello", "b")
    world.run(1.0)
    for host in (a, b):
        statistics = host.engine.statistics()
        assert (statistics.calls, statistics.requests) == (0, 0)
        assert (statistics.queued_messages, statistics.unsettled_in) == (0, 0)
    assert all(peer.calls == 0 for peer in a.engine._peers)


def test_a_call_takes_one_packet_each_way_and_the_reply_carries_the_settlement() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    sent: list[tuple[int, list[type]]] = []

    def on_sent(source: int, _target: int, packet: list[bytes]) -> None:
        frames = decode(packet, world.options.wire).frames
        if any(isinstance(frame, Data) for frame in frames):
            sent.append((source, [type(frame) for frame in frames]))

    world.network.on_sent = on_sent
    answer_of(a, a.call("work"))
    world.run(1.0)
    assert sent == [(a.index, [Data]), (b.index, [Ack, ControlData, Data])]


def test_settlements_of_calls_that_follow_closely_keep_each_other_company() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    replies: list[list[type]] = []

    def on_sent(source: int, _target: int, packet: list[bytes]) -> None:
        frames = decode(packet, world.options.wire).frames
        if source == b.index and any(isinstance(frame, Data) for frame in frames):
            replies.append([type(frame) for frame in frames])

    world.network.on_sent = on_sent
    for _ in range(3):
        answer_of(a, a.call("work"))
    assert [ControlData in frames for frames in replies] == [True, False, False]
    world.run(1.0)
    assert a.engine.statistics().queued_messages == 0


def test_requests_answered_in_one_turn_are_settled_as_one_range() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    settled: list[object] = []

    def on_sent(source: int, _target: int, packet: list[bytes]) -> None:
        for frame in decode(packet, world.options.wire).frames:
            if source == b.index and isinstance(frame, ControlData):
                settled.extend(
                    outcome
                    for record in frame.records
                    if isinstance(record, Settle)
                    for outcome in record.outcomes
                )

    world.network.on_sent = on_sent
    calls = [a.call("work") for _ in range(5)]
    for call in calls:
        answer_of(a, call)
    world.run(1.0)
    assert settled == [(Outcome.ACCEPTED, 1, 5)]


def test_a_service_of_this_node_counts_too() -> None:
    world = World()
    a = world.host("a")
    a.serve("work", echo)
    answer = answer_of(a, a.call("work", "here"))
    assert (text_of(answer), answer.peer) == ("here", "a")


def test_large_requests_and_replies_travel_whole() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    text = "x" * 500_000
    assert text_of(answer_of(a, a.call("work", text))) == text


def test_headers_of_requests_and_replies_are_kept() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    seen: list[object] = []

    def handler(record: Record) -> Record:
        seen.append(extra(record, Tag.HEADERS))
        return (head(Kind.REPLY), "", b"", (int(Tag.HEADERS), b"\x80"))

    b.serve("work", handler)
    world.run(1.0)
    a.do(Call(1, (head(Kind.REQUEST), "work", b"", (int(Tag.HEADERS), b"\x81\xa1k\x01")), 4, None))
    answer = answer_of(a, 1)
    assert seen == [b"\x81\xa1k\x01"]
    assert answer.record is not None
    assert extra(answer.record, Tag.HEADERS) == b"\x80"


def test_a_handler_that_raises_fails_the_call_and_is_not_asked_again() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    for host in (b, c):
        host.handlers["work"] = lambda _: (head(Kind.FAILURE), "", b"boom")
    answer = answer_of(a, a.call("work"))
    assert answer.failure is CallFailure.REMOTE_ERROR
    assert answer.record is not None
    assert answer.record[2] == b"boom"
    assert len(b.handled) + len(c.handled) == 1


def test_a_rejected_request_fails_the_call_with_the_reason() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = lambda _: Outcome.REJECTED
    answer = answer_of(a, a.call("work"))
    assert (answer.failure, answer.reason) == (CallFailure.REJECTED, "handler said so")
    assert answer.peer == "b"


# Choice


def test_calls_go_to_the_provider_with_the_fewest_open_ones() -> None:
    world = World()
    a, b, c, d = mesh_of(world, "a", "bcd")
    for _ in range(30):
        a.call("work")
    world.run(1.0)
    assert [len(host.handled) for host in (b, c, d)] == [10, 10, 10]
    for _ in range(10):
        b.answer("done")
    world.run(1.0)
    for _ in range(10):
        a.call("work")
    world.run(1.0)
    assert [len(host.handled) for host in (b, c, d)] == [20, 10, 10]


def test_providers_that_are_alike_share_calls_made_one_at_a_time() -> None:
    world = World()
    hosts = world.mesh("a", "b", "c", "d")
    for host in hosts[1:]:
        host.serve("work", echo)
    world.run(1.0)
    for _ in range(60):
        answer_of(hosts[0], hosts[0].call("work"))
    assert all(len(host.handled) > 8 for host in hosts[1:])


def test_a_silent_provider_is_asked_only_when_there_is_no_other() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    world.network.cut(b.index, a.index)
    world.run_until(lambda: a.sees(b) is PeerState.SUSPECT)
    for _ in range(6):
        a.call("work", timeout=None)
    world.run(0.1)
    assert (len(b.handled), len(c.handled)) == (0, 6)
    c.kill()
    world.run_until(lambda: a.sees(c) is None)
    assert a.sees(b) in (PeerState.SUSPECT, PeerState.BUSY)
    call = a.call("work", timeout=None)
    world.network.heal(b.index, a.index)
    world.run_until(lambda: len(b.handled) == 7)
    assert call not in a.answers


def test_a_draining_provider_gets_no_new_calls_and_finishes_what_it_has() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    first, second = a.call("work", "1"), a.call("work", "2")
    world.run(1.0)
    b.do(DrainNode(world.queue.now + 60.0))
    world.run(1.0)
    assert next(view for view in a.engine.peers() if view.name == "b").draining
    for _ in range(5):
        a.call("work")
    world.run(1.0)
    assert (len(b.handled), len(c.handled)) == (1, 6)
    b.answer("from b")
    c.answer("from c")
    assert {text_of(answer_of(a, call)) for call in (first, second)} == {"from b", "from c"}


# Nobody there


def test_a_call_nobody_can_take_fails_at_once() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    answer = answer_of(a, a.call("nothing"), within=0.0)
    assert answer.failure is CallFailure.NO_PROVIDER


def test_a_withdrawn_service_is_not_asked_again() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.serve("work", echo)
    world.run(1.0)
    answer_of(a, a.call("work"))
    b.do(Withdraw("work"))
    world.run(1.0)
    assert answer_of(a, a.call("work")).failure is CallFailure.NO_PROVIDER


def test_a_request_that_crosses_the_withdrawal_goes_elsewhere() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.do(Withdraw("work"))
    calls = [a.call("work") for _ in range(4)]  # before the news arrives
    world.run(1.0)
    assert len(c.handled) == 4
    for _ in calls:
        c.answer("done")
    for call in calls:
        assert answer_of(a, call).peer == "c"
    assert b.handled == []


# Failover


def test_calls_of_a_killed_provider_are_answered_by_another_within_half_a_second() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    calls = [a.call("work", str(number)) for number in range(10)]
    world.run(1.0)
    c.handlers["work"] = echo
    while c.places:
        c.answer("early")
    b.kill()
    took = world.run_until(lambda: all(call in a.answers for call in calls))
    assert took < 0.5
    assert all(a.answers[call].failure is None for call in calls)
    assert a.engine.statistics().failovers == 5


def test_a_request_that_moved_carries_the_same_message_id_and_one_more_attempt() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    a.call("work")
    world.run(1.0)
    first, other = (b, c) if b.places else (c, b)
    record = first.places[0][3]
    first.kill()
    world.run(2.0)
    again = other.places[0][3]
    assert extra(again, Tag.MESSAGE_ID) == extra(record, Tag.MESSAGE_ID)
    assert extra(again, Tag.CORRELATION) == extra(record, Tag.CORRELATION)
    assert (extra(record, Tag.ATTEMPT), extra(again, Tag.ATTEMPT)) == (None, 2)


def test_calls_of_a_provider_that_leaves_move_too() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    calls = [a.call("work"), a.call("work")]
    world.run(1.0)
    b.do(CloseNode())
    world.run(1.0)
    assert len(c.places) == 2
    c.answer("1")
    c.answer("2")
    assert {text_of(answer_of(a, call)) for call in calls} == {"1", "2"}


def test_a_provider_that_gives_a_request_back_is_not_asked_twice_in_a_row() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.handlers["work"] = lambda _: Outcome.RELEASED
    c.handlers["work"] = echo
    for _ in range(10):
        assert answer_of(a, a.call("work")).peer == "c"
    assert len(b.handled) <= 10


def test_a_single_provider_that_gives_back_is_asked_again_ever_later() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = lambda _: Outcome.MODIFIED
    call = a.call("work", timeout=None)
    world.run(1.0)
    assert 2 <= len(b.handled) <= 6
    b.handlers["work"] = echo
    assert text_of(answer_of(a, call, 60.0)) == ""


def test_a_call_is_given_up_after_so_many_attempts() -> None:
    world = World(NodeOptions(attempts_max=3))
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = lambda _: Outcome.MODIFIED
    answer = answer_of(a, a.call("work", timeout=None))
    assert answer.failure is CallFailure.EXHAUSTED
    assert "3 attempts" in answer.reason
    assert "handler said so" in answer.reason
    assert len(b.handled) == 3


def test_a_call_that_lost_its_only_provider_waits_for_another() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", "patience", timeout=20.0)
    world.run(1.0)
    b.kill()
    world.run(5.0)
    assert call not in a.answers
    c = world.host("c")
    c.serve("work", echo)
    world.introduce(a, c)
    assert text_of(answer_of(a, call, 3.0)) == "patience"


def test_a_call_that_lost_its_only_provider_is_answered_by_its_next_life() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", "again", timeout=20.0)
    world.run(1.0)
    b.kill()
    again = world.host("b")
    again.serve("work", echo)
    world.introduce(a, again)
    assert text_of(answer_of(a, call, 10.0)) == "again"


def test_a_waiting_call_ends_at_its_deadline() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=5.0)
    world.run(1.0)
    b.kill()
    answer = answer_of(a, call)
    assert answer.failure is CallFailure.DEADLINE
    assert world.queue.now == pytest.approx(9.0, abs=0.01)


def test_a_waiting_call_without_deadline_ends_when_nobody_came_for_a_lingering_session() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=5.0)))
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=None)
    world.run(1.0)
    b.kill()
    answer = answer_of(a, call, 10.0)
    assert answer.failure is CallFailure.PEER_LOST
    assert answer.reason
    assert a.engine.statistics().calls == 0


def test_the_first_answer_wins_and_a_later_one_is_counted() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", timeout=None)
    world.run(1.0)
    first, other = (b, c) if b.places else (c, b)
    world.part(first, a)
    world.run_until(lambda: bool(other.places), 60.0)
    world.join(first, a)
    first.answer("the first provider")  # and the other one still works on it
    assert text_of(answer_of(a, call, 20.0)) == "the first provider"
    world.run(1.0)
    assert other.ordered(CancelRequest), "who still works on it is told to stop"
    other.answer("too late")
    world.run(5.0)
    assert a.engine.statistics().late_replies == 1


def test_an_answer_from_somebody_who_was_never_asked_is_dropped() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.serve("work", open_handler)
    c.serve("other", open_handler)
    world.run(1.0)
    call = a.call("work")
    a.do(Call(99, request("other"), 4, None))
    world.run(1.0)
    source, first, last, _ = c.places[0]
    c.do(Reply(source, first, last, call, reply("forged")))
    world.run(1.0)
    assert call not in a.answers
    assert a.engine.statistics().late_replies == 1


# Deadlines and cancellation


def test_an_unanswered_call_ends_at_its_deadline_and_its_handler_is_told() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=2.0)
    answer = answer_of(a, call)
    assert answer.failure is CallFailure.DEADLINE
    world.run(0.1)
    (cancel,) = b.ordered(CancelRequest)
    assert isinstance(cancel, CancelRequest)
    source, first, _, _ = b.places[0]
    assert (cancel.source, cancel.first_seq) == (source, first)


def test_a_request_whose_time_is_over_is_never_begun() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=1)))
    a, b = mesh_of(world, "a", "b")
    first, second = a.call("work", "first", timeout=None), a.call("work", "second", timeout=1.0)
    assert answer_of(a, second).failure is CallFailure.DEADLINE
    b.answer("done")
    answer_of(a, first)
    world.run(5.0)
    assert b.handled == ["first"]


def test_a_request_that_was_too_long_under_way_is_cancelled_when_it_arrives() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    world.network.cut(a.index, b.index)
    call = a.call("work", timeout=1.0)
    world.run(3.0)
    world.network.heal(a.index, b.index)
    world.run(1.0)
    assert a.answers[call].failure is CallFailure.DEADLINE
    assert len(b.ordered(CancelRequest)) == len(b.handled)


def test_a_request_tells_its_handler_how_long_it_has() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.call("work", timeout=3.0)
    world.run(1.0)
    left = extra(b.places[0][3], Tag.TTL_MS)
    assert isinstance(left, int)
    assert 2900 <= left <= 3000


def test_a_call_past_its_deadline_is_not_sent() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    answer = answer_of(a, a.call("work", timeout=0.0), within=0.0)
    assert answer.failure is CallFailure.DEADLINE
    world.run(1.0)
    assert b.handled == []


def test_a_cancelled_call_stops_its_handler_and_is_never_answered() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=None)
    world.run(1.0)
    a.do(CancelCall(call), CancelCall(call), CancelCall(77))
    world.run(1.0)
    assert len(b.ordered(CancelRequest)) == 1
    b.answer("nobody cares")
    world.run(1.0)
    assert a.answers == {}
    assert a.engine.statistics().calls == 0
    assert a.engine.statistics().queued_messages == 0


def test_calls_given_up_pile_nothing_up_for_a_provider_that_stalls() -> None:
    world = World(NodeOptions(link=LinkOptions(window_messages=4)))
    a, b = mesh_of(world, "a", "b")
    world.network.cut(b.index, a.index)
    calls = []
    for _ in range(100):
        calls.append(a.call("work", timeout=0.02))
        world.run(0.03)
    assert all(a.answers[call].failure is CallFailure.DEADLINE for call in calls)
    assert a.engine.statistics().queued_messages <= 8, "what was sent, and its cancellation"


def test_a_call_cancelled_before_it_left_is_never_seen() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.do(Call(1, request("work"), 4, None), CancelCall(1))
    world.run(1.0)
    assert b.handled == []
    assert not b.ordered(CancelRequest)
    assert a.engine.statistics().queued_messages == 0


def test_too_many_open_calls_are_refused() -> None:
    world = World(NodeOptions(calls_max=3))
    a, _ = mesh_of(world, "a", "b")
    for _ in range(3):
        a.call("work", timeout=None)
    answer = answer_of(a, a.call("work"), within=0.0)
    assert answer.failure is CallFailure.EXHAUSTED
    assert "3 calls" in answer.reason


def test_a_request_with_a_body_nobody_may_send_is_refused() -> None:
    world = World(NodeOptions(link=LinkOptions(body_bytes_max=10)))
    a, _ = mesh_of(world, "a", "b")
    answer = answer_of(a, a.call("work", "x" * 11), within=0.0)
    assert answer.failure is CallFailure.REJECTED


# The providing side


def test_a_request_that_comes_twice_is_handled_once_while_it_is_open() -> None:
    """The caller moved it away and back: the provider was lost, and then found again."""
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=None)
    world.run(1.0)
    world.part(a, b)
    world.run_until(lambda: a.sees(b) is None, 60.0)
    world.join(a, b)
    world.run_until(lambda: a.sees(b) is PeerState.ALIVE, 60.0)
    world.run(2.0)
    assert len(b.handled) == 1
    assert b.engine.statistics().duplicate_requests == 1
    b.answer("once")
    assert text_of(answer_of(a, call)) == "once"
    world.run(1.0)
    assert b.engine.statistics().unsettled_in == 0
    assert a.engine.statistics().queued_messages == 0


def lose_session(world: World, a: Host, b: Host) -> None:
    """Let both give their session up, with both processes alive."""
    world.part(a, b)
    world.run_until(lambda: a.sees(b) is None and b.sees(a) is None, 60.0)
    world.run(10.0)


def find_again(world: World, a: Host, b: Host) -> None:
    world.join(a, b)
    world.run_until(lambda: a.sees(b) is b.sees(a) is PeerState.ALIVE, 60.0)


def test_a_reply_that_found_no_session_is_given_when_the_request_comes_again() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=5.0)))
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=300.0)
    world.run(1.0)
    world.part(a, b)
    b.answer("kept")
    lose_session(world, a, b)
    assert b.engine.statistics().replies_kept == 1
    world.join(a, b)
    find_again(world, a, b)
    assert text_of(answer_of(a, call)) == "kept"
    assert len(b.handled) == 1
    assert b.engine.statistics().replies_kept == 0


def test_a_reply_no_longer_kept_is_said_to_be_so() -> None:
    options = NodeOptions(link=LinkOptions(session_linger=5.0), replies_kept_max=1)
    world = World(options)
    a, b = mesh_of(world, "a", "b")
    calls = [a.call("work", str(number), timeout=300.0) for number in range(2)]
    world.run(1.0)
    world.part(a, b)
    b.answer("zero")
    b.answer("one")
    lose_session(world, a, b)
    assert b.engine.statistics().replies_kept == 1
    world.join(a, b)
    find_again(world, a, b)
    answers = [answer_of(a, call) for call in calls]
    assert answers[0].failure is CallFailure.REJECTED
    assert "handled before" in answers[0].reason
    assert text_of(answers[1]) == "one"
    assert len(b.handled) == 2


def test_a_request_given_back_may_be_handled_when_it_comes_again() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", timeout=None)
    world.run(1.0)
    source, first, last, _ = b.places.pop()
    b.do(SettleDeliveries(source, first, last, Outcome.RELEASED))
    world.run(2.0)
    assert len(b.handled) == 2
    b.answer("second time")
    assert text_of(answer_of(a, call)) == "second time"


def test_a_request_without_message_id_is_answered_all_the_same() -> None:
    """Another implementation may not number its calls."""
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = echo
    peer = a.engine._peers.get(b.id)
    assert peer is not None
    bare: Record = (head(Kind.REQUEST), "work", b"", (int(Tag.CORRELATION), 5))
    peer.link.submit(4, [bare], CallTicket(5, peer, 0, 0.0), world.queue.now)
    a.post(b, "and go")
    world.run(1.0)
    assert len(b.handled) == 1
    assert a.engine.statistics().late_replies == 1


def test_more_requests_than_can_be_remembered_are_given_back() -> None:
    world = World(NodeOptions(seen_messages_max=2))
    a, b = mesh_of(world, "a", "b")
    calls = [a.call("work", str(number), timeout=None) for number in range(3)]
    world.run(1.0)
    assert len(b.handled) == 2
    b.answer("0")
    b.answer("1")
    world.run(3.0)
    b.answer("2")
    assert [text_of(answer_of(a, call)) for call in calls] == ["0", "1", "2"]


def test_hundreds_of_calls_through_breaking_connections_are_each_answered_once() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    for host in (b, c):
        host.serve("work", echo)
    world.run(1.0)
    calls = []
    for number in range(300):
        calls.append(a.call("work", str(number), timeout=60.0))
        world.run(0.01)
        if number % 40 == 39:
            world.network.reset(a.index, (b, c)[number % 2].index)
    world.run_until(lambda: all(call in a.answers for call in calls), 60.0)
    assert [text_of(a.answers[call]) for call in calls] == [str(n) for n in range(300)]
    assert len(b.handled) + len(c.handled) == 300


def test_a_caller_that_takes_no_replies_is_served_no_more_until_it_does() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_bytes_max=1_000)))
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = lambda _: reply("x" * 400)
    world.network.cut(b.index, a.index)
    calls = []
    for _ in range(10):
        calls.append(a.call("work", timeout=60.0))
        world.run(0.01)
    assert len(b.handled) == 3
    assert b.engine.statistics().requests_refused == 7
    world.network.heal(b.index, a.index)
    assert {text_of(answer_of(a, call)) for call in calls} == {"x" * 400}
    world.run(1.0)
    assert len(b.handled) == 10
    assert b.engine._news.serving._owed == {}


def test_replies_to_requests_that_were_handed_over_before_are_bounded_too() -> None:
    world = World(NodeOptions(link=LinkOptions(queued_bytes_max=1_000)))
    a, c, b = mesh_of(world, "ac", "b")
    world.network.cut(b.index, a.index)
    calls = [a.call("work", timeout=60.0) for _ in range(10)]
    world.run(0.1)
    assert len(b.handled) == 10
    for _ in calls:
        b.answer("x" * 400)
    world.run(0.1)
    statistics = b.engine.statistics()
    assert (statistics.queued_messages, statistics.replies_refused) == (5, 5)
    b.handlers["work"] = echo
    assert text_of(answer_of(c, c.call("work", "others are served"))) == "others are served"
    world.network.heal(b.index, a.index)
    answers = [answer_of(a, call) for call in calls]
    assert [text_of(answer) for answer in answers if answer.failure is None] == ["x" * 400] * 5
    refused = [answer for answer in answers if answer.failure is CallFailure.REJECTED]
    assert len(refused) == 5
    assert all("it was handled, but its caller" in answer.reason for answer in refused)
    assert len(b.handled) == 11
    world.run(1.0)
    assert b.engine._news.serving._owed == {}


def test_a_reply_to_a_call_of_an_earlier_life_answers_no_call_of_the_next() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.call("work", "of the first life")
    world.run(1.0)
    a.kill()
    again = world.host("a")
    world.introduce(again, b)
    world.run(3.0)
    call = again.call("work", "of the second life")
    world.run(1.0)
    assert b.handled == ["of the first life", "of the second life"]
    b.answer("to the first")
    world.run(1.0)
    assert again.answers == {}
    b.answer("to the second")
    assert text_of(answer_of(again, call)) == "to the second"


def test_a_reply_given_while_its_caller_comes_back_as_another_process_is_for_nobody() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.call("work", "of the first life")
    world.run(1.0)
    a.kill()
    again = world.host("a")
    world.introduce(again, b)
    call = again.call("work", "too early")  # nobody is known yet
    link = b.engine._peers.get(a.id).link  # type: ignore[union-attr]
    world.run_until(lambda: link.incarnation == 2)
    assert not link.is_open
    b.answer("to the first")
    world.run(3.0)
    assert again.engine.statistics().late_replies == 0
    assert again.answers[call].failure is CallFailure.NO_PROVIDER
