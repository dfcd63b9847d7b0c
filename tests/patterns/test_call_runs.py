"""Calls by the run: they travel and are answered together, and each ends as one made alone."""

import pytest

from tests.engines import Host, World, echo
from tests.patterns.test_request_reply import answer_of, mesh_of, open_handler, text_of
from zmesh.actions import CallFailure, CallsAnswered, CancelRequest, DeliverRequests
from zmesh.batches import Block
from zmesh.events import CallEach, CancelCall, Reply, ReplyEach, SettleDeliveries
from zmesh.message import Kind, Outcome, Record, Tag, extra, head, with_extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.call_runs import CallRun, answered, numbered
from zmesh.patterns.serving import ReplyTicket
from zmesh.wire.codec import decode
from zmesh.wire.frames import Data


@pytest.fixture(autouse=True)
def _in_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Host, "in_runs", True)


def pair() -> tuple[World, Host, Host]:
    world = World()
    a, b = mesh_of(world, "a", "b")
    return world, a, b


def requests_of(host: Host) -> list[int]:
    """Return how many requests each delivery brought."""
    return [
        len(delivery.records)
        for action in host.actions
        if isinstance(action, DeliverRequests)
        for delivery in action.deliveries
    ]


def assert_nothing_is_left(*hosts: Host) -> None:
    for host in hosts:
        statistics = host.engine.statistics()
        assert (statistics.calls, statistics.requests) == (0, 0)
        assert (statistics.queued_messages, statistics.unsettled_in) == (0, 0)
        assert all(peer.calls == 0 for peer in host.engine._peers)
        news = host.engine._news
        assert not news.calls._with
        assert not len(news.calls._deadlines)
        assert not len(news.serving._deadlines)
        assert not news.serving._places
        assert not news.serving._owed


# Together


def test_calls_of_one_turn_are_one_frame_each_way_and_one_action() -> None:
    world, a, b = pair()
    frames: list[tuple[int, int]] = []

    def on_sent(source: int, _target: int, packet: list[bytes]) -> None:
        data = [
            each for each in decode(packet, world.options.wire).frames if isinstance(each, Data)
        ]
        frames.extend((source, len(frame.records)) for frame in data)

    world.network.on_sent = on_sent
    b.handlers["work"] = echo
    calls = [a.call("work", str(number)) for number in range(20)]
    world.run(1.0)
    assert frames == [(a.index, 20), (b.index, 20)]
    assert requests_of(b) == [20]
    [answers] = [action for action in a.actions if isinstance(action, CallsAnswered)]
    assert (answers.calls, answers.peer) == (calls, "b")
    assert [text_of(a.answers[call]) for call in calls] == [str(n) for n in range(20)]
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_requests_have_ids_of_their_own_and_tell_the_time_they_have() -> None:
    world, a, b = pair()
    for timeout in (3.0, None):
        for number in range(10):
            a.call("work", str(number), timeout=timeout)
        world.run(0.5)
    records = [record for _, _, _, record in b.places]
    assert len({extra(record, Tag.MESSAGE_ID) for record in records}) == 20
    assert [extra(record, Tag.CORRELATION) for record in records] == list(range(1, 21))
    assert {extra(record, Tag.TTL_MS) for record in records[:10]} == {3000}
    assert {extra(record, Tag.TTL_MS) for record in records[10:]} == {None}


def test_headers_travel_in_runs() -> None:
    world, a, b = pair()
    bare: Record = (head(Kind.REQUEST), "work", b"x")
    for has_headers in ([True] * 9, [True, False] * 5):
        records = [
            with_extra(bare, Tag.HEADERS, b"\x80") if each else bare for each in has_headers
        ]
        a.do(CallEach(a.calls + 1, records, 4, world.queue.now + 5.0))
        a.calls += len(records)
        world.run(0.5)
        told = [place[3] for place in b.places]
        b.places.clear()
        assert [extra(record, Tag.HEADERS) == b"\x80" for record in told] == has_headers
        assert all(extra(record, Tag.TTL_MS) == 5000 for record in told)
        for record in told:
            assert len(record) == 4
            assert list(record[3][::2]) == sorted(record[3][::2])


def test_what_waits_for_credit_tells_the_time_that_is_left() -> None:
    options = LinkOptions(window_messages=4, window_messages_max=4, ranges_max=4)
    world = World(NodeOptions(link=options))
    a, b = mesh_of(world, "a", "b")
    for number in range(12):
        a.call("work", str(number), timeout=10.0)
    world.run(2.0)
    assert len(b.places) == 4
    for _ in range(4):
        b.answer("done")
    world.run(1.0)
    told = [extra(record, Tag.TTL_MS) for _, _, _, record in b.places]
    assert len(told) == 4
    assert all(isinstance(left, int) and 7900 < left <= 8000 for left in told)


def test_replies_of_a_run_may_leave_in_any_order_and_in_several_runs() -> None:
    world, a, b = pair()
    calls = [a.call("work", str(number)) for number in range(9)]
    world.run(0.1)
    b.places.reverse()
    for _ in range(4):
        b.answer("early")
    world.run(0.1)
    b.places = [*b.places[::2], *b.places[1::2]]
    while b.places:
        b.answer("late")
    world.run(1.0)
    assert [text_of(a.answers[call]) for call in calls] == ["late"] * 5 + ["early"] * 4
    world.run(1.0)
    assert_nothing_is_left(a, b)


@pytest.mark.parametrize("others_end", ["answered", "cancelled"])
def test_one_that_is_open_for_long_keeps_no_request_of_the_others(others_end: str) -> None:
    world, a, b = pair()
    calls = [a.call("work", str(number), timeout=None) for number in range(64)]
    world.run(0.5)
    [run] = set(a.engine._news.calls._runs.values())
    last = b.places.pop()
    while b.places:
        if others_end == "answered":
            b.answer("done")
        else:
            a.do(CancelCall(calls[len(b.places) - 1]))
            source, first, until, _ = b.places.pop()
            b.do(SettleDeliveries(source, first, until, Outcome.RELEASED))
    world.run(0.5)
    assert not run.records
    b.places.append(last)
    b.answer("at last")
    world.run(0.5)
    assert text_of(a.answers[calls[63]]) == "at last"
    world.run(1.0)
    assert_nothing_is_left(a, b)


# Shared among providers


def test_a_run_is_shared_as_single_calls_would_be() -> None:
    world = World()
    a, b, c, d = mesh_of(world, "a", "bcd")
    calls = [a.call("work", str(number)) for number in range(30)]
    world.run(0.5)
    assert [len(host.handled) for host in (b, c, d)] == [10, 10, 10]
    for _ in range(10):
        b.answer("b")
    world.run(0.5)
    calls += [a.call("work") for _ in range(10)]
    world.run(0.5)
    assert [len(host.handled) for host in (b, c, d)] == [20, 10, 10]
    for host in (b, c, d):
        assert host.handled[:10] == sorted(host.handled[:10], key=int)  # in the order made
        while host.places:
            host.answer(host.name)
    world.run(1.0)
    assert all(call in a.answers for call in calls)
    world.run(1.0)
    assert_nothing_is_left(a, b, c, d)


# One that does not go as most do


def test_one_that_is_refused_fails_alone() -> None:
    world, a, b = pair()
    b.handlers["work"] = lambda record: Outcome.REJECTED if record[2] == b"3" else echo(record)
    calls = [a.call("work", str(number)) for number in range(9)]
    world.run(1.0)
    assert a.answers[calls[3]].failure is CallFailure.REJECTED
    assert [text_of(a.answers[call]) for call in calls if call != calls[3]] == list("01245678")
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_one_whose_handler_raises_fails_alone() -> None:
    world, a, b = pair()
    failure: Record = (head(Kind.FAILURE), "", b"boom")
    b.handlers["work"] = lambda record: failure if record[2] == b"3" else echo(record)
    calls = [a.call("work", str(number)) for number in range(9)]
    world.run(1.0)
    assert a.answers[calls[3]].failure is CallFailure.REMOTE_ERROR
    assert all(a.answers[call].failure is None for call in calls if call != calls[3])
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_one_that_is_given_back_goes_to_another_provider() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.handlers["work"] = lambda _: Outcome.RELEASED
    c.handlers["work"] = echo
    calls = [a.call("work", str(number)) for number in range(20)]
    world.run(1.0)
    assert [a.answers[call].peer for call in calls] == ["c"] * 20
    assert len(b.handled) == 10
    world.run(1.0)
    assert_nothing_is_left(a, b, c)


def test_one_that_is_cancelled_is_cancelled_alone() -> None:
    world, a, b = pair()
    calls = [a.call("work", str(number)) for number in range(9)]
    world.run(0.5)
    place = b.places[4]
    a.do(CancelCall(calls[4]))
    world.run(0.5)
    cancelled = [action for action in b.actions if isinstance(action, CancelRequest)]
    assert cancelled == [CancelRequest(place[0], place[1])]
    b.places.remove(place)
    b.do(SettleDeliveries(place[0], place[1], place[2], Outcome.RELEASED))
    while b.places:
        b.answer("done")
    world.run(0.5)
    assert sorted(a.answers) == [call for call in calls if call != calls[4]]
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_one_that_is_cancelled_before_it_left_never_leaves() -> None:
    options = LinkOptions(window_messages=4, window_messages_max=4, ranges_max=4)
    world = World(NodeOptions(link=options))
    a, b = mesh_of(world, "a", "b")
    calls = [a.call("work", str(number)) for number in range(10)]
    world.run(0.5)
    a.do(CancelCall(calls[5]))
    b.handlers["work"] = echo
    while b.places:
        b.answer("done")
    world.run(1.0)
    assert b.handled == list("012346789")
    assert sorted(a.answers) == [call for call in calls if call != calls[5]]
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_all_of_a_run_that_have_no_answer_end_at_their_deadline() -> None:
    world, a, b = pair()
    calls = [a.call("work", str(number), timeout=2.0) for number in range(9)]
    world.run(0.5)
    for _ in range(3):
        b.answer("in time")
    b.places.reverse()
    began = world.queue.now
    world.run_until(lambda: len(a.answers) == 9, 10.0)
    assert world.queue.now - began == pytest.approx(1.5, abs=0.01)
    assert [a.answers[call].failure for call in calls] == [None] * 3 + [CallFailure.DEADLINE] * 6
    world.run(0.5)
    told = [action.first_seq for action in b.actions if isinstance(action, CancelRequest)]
    assert sorted(told) == sorted(place[1] for place in b.places)
    for source, first, last, _ in b.places:
        b.do(SettleDeliveries(source, first, last, Outcome.RELEASED))
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_what_never_left_in_time_ends_at_its_deadline_and_never_leaves() -> None:
    options = LinkOptions(window_messages=4, window_messages_max=4, ranges_max=4)
    world = World(NodeOptions(link=options))
    a, b = mesh_of(world, "a", "b")
    for number in range(12):
        a.call("work", str(number), timeout=2.0)
    world.run(3.0)
    assert [answer.failure for answer in a.answers.values()] == [CallFailure.DEADLINE] * 12
    for source, first, last, _ in b.places:
        b.do(SettleDeliveries(source, first, last, Outcome.RELEASED))
    world.run(2.0)
    assert b.handled == list("0123")
    assert_nothing_is_left(a, b)


def test_a_provider_that_dies_loses_those_that_have_no_answer() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    calls = [a.call("work", str(number)) for number in range(20)]
    world.run(0.5)
    for _ in range(4):
        b.answer("b")
    world.run(0.5)
    b.kill()
    c.handlers["work"] = echo
    while c.places:
        c.answer("c")
    took = world.run_until(lambda: len(a.answers) == 20)
    assert took < 0.5
    assert sum(a.answers[call].peer == "b" for call in calls) == 4
    assert a.engine.statistics().failovers == 6
    world.run(60.0)
    assert_nothing_is_left(a, c)


def test_calls_beyond_what_may_be_open_are_refused_one_by_one() -> None:
    world = World(NodeOptions(calls_max=5))
    a, b = mesh_of(world, "a", "b")
    calls = [a.call("work", str(number)) for number in range(8)]
    world.run(0.5)
    assert [a.answers[call].failure for call in calls[5:]] == [CallFailure.EXHAUSTED] * 3
    assert len(b.places) == 5


def test_a_run_whose_time_is_over_is_not_sent() -> None:
    world, a, b = pair()
    calls = [a.call("work", str(number), timeout=0.0) for number in range(3)]
    world.run(0.5)
    assert [a.answers[call].failure for call in calls] == [CallFailure.DEADLINE] * 3
    assert b.handled == []


def test_a_large_request_goes_by_itself() -> None:
    world, a, b = pair()
    b.handlers["work"] = echo
    texts = ["x" * 300_000, "small", "y" * 300_000]
    calls = [a.call("work", text) for text in texts]
    world.run(2.0)
    assert [text_of(answer_of(a, call)) for call in calls] == texts


def test_a_large_reply_goes_by_itself() -> None:
    world, a, b = pair()
    texts = ["small", "x" * 300_000, "more"]
    calls = [a.call("work", str(number)) for number in range(3)]
    world.run(0.5)
    for text in texts:
        b.answer(text)
    assert [text_of(answer_of(a, call)) for call in calls] == texts
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_only_who_was_asked_answers_a_run() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    calls = [a.call("work", str(number)) for number in range(2)]
    world.run(0.5)
    [to_b], [to_c] = b.places, c.places
    others = [extra(place[3], Tag.CORRELATION) for place in (to_c, to_b)]
    record: Record = (head(Kind.REPLY), "", b"false")
    numbers = [number for number in others if isinstance(number, int)]
    b.do(Reply(*to_b[:3], numbers[0], record))  # the call that c has
    world.run(0.5)
    assert a.answers == {}
    assert a.engine.statistics().late_replies == 1
    c.answer("true")
    assert text_of(answer_of(a, numbers[0])) == "true"
    assert len(calls) == 2


def test_the_second_of_two_answers_to_one_call_is_late() -> None:
    world, a, b = pair()
    a.call("work", "0")
    a.call("work", "1")
    world.run(0.5)
    record: Record = (head(Kind.REPLY), "", b"twice")
    source = b.places[0][0]
    b.do(ReplyEach(source, [b.places[0][1], b.places[1][1]], [1, 1], [record, record]))
    world.run(0.5)
    assert text_of(a.answers[1]) == "twice"
    assert 2 not in a.answers
    assert a.engine.statistics().late_replies == 1


# Copies, and replies that do not arrive


def test_a_run_that_comes_again_is_handled_once() -> None:
    """The caller moves them away and back while they are handled."""
    world = World()
    a, b = mesh_of(world, "a", "b")
    calls = [a.call("work", str(number), timeout=None) for number in range(9)]
    world.run(0.5)
    world.part(a, b)
    world.run_until(lambda: a.sees(b) is None, 60.0)
    world.join(a, b)
    world.run(10.0)
    assert len(b.handled) == 9
    assert b.engine.statistics().duplicate_requests == 9
    while b.places:
        b.answer("once")
    assert [text_of(answer_of(a, call)) for call in calls] == ["once"] * 9
    world.run(1.0)
    assert_nothing_is_left(a, b)


def test_a_reply_is_known_by_the_call_it_answers() -> None:
    ids = [None, None, None]
    ticket = ReplyTicket(ids, [7, 8, 9], 60)
    assert ticket.expected == 3
    other = ReplyTicket([(b"n", b"j", 4), (b"n", b"j", 5)], [7, 8], 40)  # type: ignore[list-item]
    reply: Record = (head(Kind.REPLY), "", b"", (int(Tag.CORRELATION), 8))
    assert other.request_of(reply) == (b"n", b"j", 5)


# The parts


def test_requests_are_numbered_behind_what_they_have() -> None:
    bare: Record = (head(Kind.REQUEST), "work", b"")
    told = with_extra(bare, Tag.HEADERS, b"\x80")
    tags = (int(Tag.MESSAGE_ID), int(Tag.CORRELATION))
    assert numbered([bare, bare], [3, 5], 10) == [
        (*bare, (tags[0], 10, tags[1], 3)),
        (*bare, (tags[0], 11, tags[1], 5)),
    ]
    assert numbered([bare, told], range(3, 5), 10) == [
        (*bare, (tags[0], 10, tags[1], 3)),
        (*bare, (int(Tag.HEADERS), b"\x80", tags[0], 11, tags[1], 4)),
    ]


def test_what_answers_calls_is_told_from_what_does_not() -> None:
    def reply_to(call: int, kind: Kind = Kind.REPLY) -> Record:
        return (head(kind), "", b"", (int(Tag.CORRELATION), call))

    assert answered([reply_to(1), reply_to(2)]) == [1, 2]
    assert answered([reply_to(1)]) == [1]
    assert answered([reply_to(1), reply_to(1)]) is None
    assert answered([reply_to(1), reply_to(2, Kind.FAILURE)]) is None
    assert answered([reply_to(1), (head(Kind.REPLY), "", b"")]) is None
    assert answered([(head(Kind.REPLY), "", b"")]) is None


def test_a_run_is_the_ticket_of_its_requests() -> None:
    world, a, _ = pair()
    for number in range(9):
        a.call("work", str(number))
    world.run(0.1)
    [run] = set(a.engine._news.calls._runs.values())
    assert isinstance(run, CallRun)
    assert (run.expected, run.open, run.service) == (9, 9, "work")
    assert type(Block(run.records)) is Block


def test_a_service_that_is_not_here_any_more_gives_the_run_back() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.engine._peers.local.services.clear()
    c.handlers["work"] = echo
    calls = [a.call("work", str(number)) for number in range(20)]
    world.run(1.0)
    assert b.handled == []
    assert [a.answers[call].peer for call in calls] == ["c"] * 20


def test_a_service_of_this_node_is_called_by_the_run_too() -> None:
    world = World()
    a = world.host("a")
    a.serve("work", open_handler)
    calls = [a.call("work", str(number)) for number in range(9)]
    world.run(0.5)
    assert len(a.places) == 9
    a.do(CancelCall(calls[8]))
    for _ in range(8):
        a.answer("here")
    world.run(0.5)
    assert sorted(a.answers) == calls[:8]
