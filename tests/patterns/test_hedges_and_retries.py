"""Calls whose caller said how: by key, preferred, hedged, asked again; between whole nodes."""

from string import ascii_lowercase

import pytest

from tests.engines import Host, World, body, echo, reply
from tests.patterns.test_request_reply import answer_of, mesh_of, open_handler, text_of
from zmesh.actions import CallFailure, CancelRequest, PeerState
from zmesh.events import CancelCall, CloseNode, DrainNode, SettleDeliveries
from zmesh.message import Kind, Outcome, Record, Tag, extra, head
from zmesh.options import NodeOptions

NO_BUDGET = NodeOptions(retries_per_call=0.0, retries_per_second=0.0, retries_saved_max=0.0)


def raising(_: Record) -> Record:
    return (head(Kind.FAILURE), "", b"boom")


def first_and_other(*hosts: Host) -> tuple[Host, Host]:
    """Return who was asked, and who was not."""
    (first,) = [host for host in hosts if host.places]
    (other,) = [host for host in hosts if not host.places]
    return first, other


def leftovers(host: Host) -> list[int]:
    statistics = host.engine.statistics()
    calls = host.engine._news.calls
    return [
        statistics.calls, statistics.queued_messages, statistics.unsettled_in,
        statistics.requests, len(calls._with), len(calls._waiting), len(calls._hedges),
        len(calls._deadlines), len(calls._pauses), len(host.engine._news.serving._deadlines),
        *(peer.calls for peer in host.engine._peers),
    ]  # fmt: skip


# Hedges


def test_a_second_provider_is_asked_when_the_first_takes_long_and_its_answer_wins() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", "twice", hedge_after=0.5)
    world.run(0.4)
    first, other = first_and_other(b, c)
    other.handlers["work"] = echo
    answer = answer_of(a, call)
    assert (text_of(answer), answer.peer) == ("twice", other.name)
    world.run(0.1)
    (cancel,) = first.ordered(CancelRequest)
    assert isinstance(cancel, CancelRequest)
    assert cancel.first_seq == first.places[0][1]
    first.answer("too late")
    world.run(1.0)
    assert a.engine.statistics().late_replies == 1
    assert a.engine.statistics().calls_hedged == 1
    assert sum(leftovers(a) + leftovers(b) + leftovers(c)) == 0


def test_the_first_provider_may_still_win_and_the_hedge_is_cancelled() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", hedge_after=0.5)
    world.run(0.4)
    first, other = first_and_other(b, c)
    world.run(0.3)
    assert len(other.places) == 1
    first.answer("from the first")
    assert answer_of(a, call).peer == first.name
    world.run(0.1)
    assert len(other.ordered(CancelRequest)) == 1
    assert not first.ordered(CancelRequest)


def test_a_quick_answer_needs_no_hedge() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.handlers["work"] = c.handlers["work"] = echo
    for _ in range(10):
        answer_of(a, a.call("work", hedge_after=0.5))
    world.run(5.0)
    assert len(b.handled) + len(c.handled) == 10
    assert sum(leftovers(a)) == 0


def test_a_hedge_carries_the_message_id_and_one_attempt_more() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    a.call("work", hedge_after=0.5)
    world.run(1.0)
    records = sorted((host.places[0][3] for host in (b, c)), key=len)
    assert len({extra(record, Tag.MESSAGE_ID) for record in records}) == 1
    assert {extra(record, Tag.ATTEMPT) for record in records} == {None, 2}


def test_where_there_is_no_other_provider_the_only_one_is_asked_once() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    call = a.call("work", hedge_after=0.1)
    world.run(2.0)
    b.answer("alone")
    assert text_of(answer_of(a, call)) == "alone"
    assert len(b.handled) == 1


def test_only_two_providers_have_a_hedged_call() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bcde")
    a.call("work", hedge_after=0.1)
    world.run(3.0)
    assert sum(len(host.handled) for host in others) == 2


def test_a_hedged_call_that_loses_one_provider_stays_with_the_other() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bcd")
    call = a.call("work", hedge_after=0.1)
    world.run(1.0)
    one, other = (host for host in others if host.places)
    one.kill()
    world.run(2.0)
    assert sum(len(host.handled) for host in others) == 2
    other.kill()
    (third,) = (host for host in others if host.alive)
    world.run_until(lambda: bool(third.places))
    third.answer("at last")
    assert text_of(answer_of(a, call)) == "at last"
    world.run(1.0)
    assert sum(leftovers(a)) == 0


def test_a_call_that_moved_is_hedged_anew() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bcd")
    a.call("work", hedge_after=1.0)
    world.run(0.5)
    (first,) = (host for host in others if host.places)
    first.kill()
    world.run(1.0)
    assert sum(len(host.places) for host in others if host.alive) == 1
    world.run(1.0)
    assert sum(len(host.places) for host in others if host.alive) == 2


@pytest.mark.parametrize("end", ["deadline", "cancelled"])
def test_nobody_goes_on_with_a_hedged_call_that_ended(end: str) -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", hedge_after=0.1, timeout=1.0)
    world.run(0.5)
    if end == "cancelled":
        a.do(CancelCall(call))
    world.run(1.0)
    assert len(b.ordered(CancelRequest)) == len(c.ordered(CancelRequest)) == 1
    assert (call in a.answers) == (end == "deadline")
    for host in (b, c):
        host.answer("for nobody")
    world.run(1.0)
    assert sum(leftovers(a)) == 0


def test_hedges_stop_where_the_budget_is_spent() -> None:
    options = NodeOptions(retries_per_call=0.2, retries_per_second=0.0, retries_saved_max=3.0)
    world = World(options)
    a, b, c = mesh_of(world, "a", "bc")
    for _ in range(10):
        a.call("work", hedge_after=0.1)
    world.run(1.0)
    assert len(b.handled) + len(c.handled) == 13
    statistics = a.engine.statistics()
    assert (statistics.calls_hedged, statistics.retries_withheld) == (3, 7)


def test_failover_needs_no_budget() -> None:
    world = World(NO_BUDGET)
    a, b, c = mesh_of(world, "a", "bc")
    calls = [a.call("work", str(number)) for number in range(10)]
    world.run(0.5)
    c.handlers["work"] = echo
    while c.places:
        c.answer("early")
    b.kill()
    assert all(answer_of(a, call).failure is None for call in calls)


def test_closing_with_a_hedged_call_open_ends_it_once() -> None:
    world = World()
    a, _, _ = mesh_of(world, "a", "bc")
    call = a.call("work", hedge_after=0.1)
    world.run(0.5)
    a.do(CloseNode())
    assert answer_of(a, call).failure is CallFailure.CLOSED


# Retries


def test_a_handler_that_raised_is_asked_again_elsewhere() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    a.call("work")
    world.run(0.5)
    busy, other = first_and_other(b, c)
    other.handlers["work"] = raising
    call = a.call("work", "again", retries=1)
    world.run_until(lambda: len(busy.places) == 2)
    assert extra(busy.places[1][3], Tag.MESSAGE_ID) == 3, "nobody may answer it from memory"
    busy.answer("the call before")
    busy.answer("well")
    assert text_of(answer_of(a, call)) == "well"
    assert a.engine.statistics().calls_retried == 1


def test_the_only_provider_is_asked_again_after_a_pause() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    moods = [raising, raising, echo]

    def moody(record: Record) -> Record:
        return moods.pop(0)(record)

    b.handlers["work"] = moody
    call = a.call("work", "third time lucky", retries=2)
    assert text_of(answer_of(a, call)) == "third time lucky"
    assert len(b.handled) == 3
    world.run(1.0)
    assert sum(leftovers(a) + leftovers(b)) == 0


@pytest.mark.parametrize(("retries", "asked"), [(0, 1), (1, 2), (3, 4)])
def test_a_call_is_asked_again_as_often_as_it_may_and_then_fails(retries: int, asked: int) -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = raising
    answer = answer_of(a, a.call("work", retries=retries))
    assert answer.failure is CallFailure.REMOTE_ERROR
    assert answer.record is not None
    assert body(answer.record) == b"boom"
    assert len(b.handled) == asked


def test_attempts_bound_retries_too() -> None:
    world = World(NodeOptions(attempts_max=3))
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = raising
    assert answer_of(a, a.call("work", retries=50)).failure is CallFailure.REMOTE_ERROR
    assert len(b.handled) == 3


def test_a_retry_the_budget_does_not_allow_is_not_made() -> None:
    world = World(NO_BUDGET)
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = raising
    assert answer_of(a, a.call("work", retries=5)).failure is CallFailure.REMOTE_ERROR
    assert len(b.handled) == 1
    assert a.engine.statistics().retries_withheld == 1


def test_a_rejection_is_final() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = lambda _: Outcome.REJECTED
    assert answer_of(a, a.call("work", retries=5)).failure is CallFailure.REJECTED
    assert len(b.handled) == 1


def test_who_has_the_hedge_may_do_better_than_who_raised() -> None:
    world = World(NodeOptions(retries_saved_max=1.0, retries_per_second=0.0, retries_per_call=0.0))
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", hedge_after=0.5, retries=1)
    world.run(0.4)
    _, other = first_and_other(b, c)
    other.handlers["work"] = raising
    world.run(1.0)
    assert call not in a.answers
    (first,) = (host for host in (b, c) if host.places)
    first.answer("well")
    assert text_of(answer_of(a, call)) == "well"


def test_who_raised_is_asked_anew_when_the_other_gives_the_call_back() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", "well", hedge_after=0.5, retries=1)
    world.run(0.4)
    first, other = first_and_other(b, c)
    other.handlers["work"] = raising
    world.run(1.0)
    first.handlers["work"] = lambda _: Outcome.RELEASED
    other.handlers["work"] = echo
    source, seq, last, _ = first.places.pop()
    first.do(SettleDeliveries(source, seq, last, Outcome.RELEASED))
    assert text_of(answer_of(a, call)) == "well"


def test_without_retries_the_first_answer_of_a_hedged_call_may_be_an_exception() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    call = a.call("work", hedge_after=0.5)
    world.run(0.4)
    first, other = first_and_other(b, c)
    other.handlers["work"] = raising
    assert answer_of(a, call).failure is CallFailure.REMOTE_ERROR
    world.run(0.1)
    assert len(first.ordered(CancelRequest)) == 1


# Keys and preferences


def keyed(a: Host, key: str, count: int) -> None:
    for number in range(count):
        a.call("work", f"{key}{number}", timeout=None, key=key)


def test_calls_of_one_key_go_to_one_provider_in_order_whatever_its_load() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bcd")
    for key in ascii_lowercase:
        keyed(a, key, 10)
    world.run(1.0)
    for key in ascii_lowercase:
        got = [[text for text in host.handled if text[0] == key] for host in others]
        assert sorted(map(len, got)) == [0, 0, 10]
        assert max(got) == [f"{key}{number}" for number in range(10)]
    assert all(host.handled for host in others)
    assert {extra(record, Tag.KEY) for host in others for *_, record in host.places} == {
        *ascii_lowercase
    }


def test_every_caller_finds_the_same_provider_of_a_key() -> None:
    world = World()
    a, b, *others = mesh_of(world, "ab", "cdef")
    keyed(a, "k", 3)
    keyed(b, "k", 3)
    world.run(1.0)
    assert sorted(len(host.handled) for host in others) == [0, 0, 0, 6]


def test_a_key_stays_with_a_silent_provider_and_moves_when_it_is_lost() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bcd")
    keyed(a, "k", 1)
    world.run(1.0)
    (mine,) = (host for host in others if host.places)
    world.network.cut(mine.index, a.index)
    world.run_until(lambda: a.sees(mine) is PeerState.SUSPECT)
    keyed(a, "k", 5)
    world.run(0.1)
    assert sum(len(host.handled) for host in others if host is not mine) == 0
    mine.kill()
    world.run(2.0)
    moved = [host.handled for host in others if host is not mine and host.handled]
    assert moved == [["k0", "k0", "k1", "k2", "k3", "k4"]]


def test_a_key_leaves_a_draining_provider() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bc")
    keyed(a, "k", 1)
    world.run(1.0)
    mine, other = first_and_other(*others)
    mine.do(DrainNode(world.queue.now + 60.0))
    world.run(1.0)
    keyed(a, "k", 4)
    world.run(1.0)
    assert (len(mine.handled), len(other.handled)) == (1, 4)


def test_a_key_that_was_given_back_is_asked_for_again_where_it_belongs() -> None:
    world = World()
    a, *others = mesh_of(world, "a", "bc")
    keyed(a, "k", 1)
    world.run(1.0)
    mine, other = first_and_other(*others)
    moods: list[Outcome] = [Outcome.RELEASED, Outcome.RELEASED]
    mine.handlers["work"] = lambda _: moods.pop() if moods else reply("well")
    call = a.call("work", key="k")
    assert answer_of(a, call).peer == mine.name
    assert not other.handled


def test_the_preferred_provider_gets_the_calls_and_the_others_when_it_is_gone() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    for _ in range(6):
        a.call("work", prefer=b.id)
    world.run(1.0)
    assert (len(b.handled), len(c.handled)) == (6, 0)
    b.kill()
    world.run(1.0)
    assert len(c.handled) == 6


def test_a_preferred_peer_that_does_not_provide_the_service_is_not_asked() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    b.handlers["work"] = c.handlers["work"] = echo
    assert answer_of(a, a.call("work", prefer=a.id)).peer in ("b", "c")


# Latency


def test_a_slow_provider_gets_few_of_the_calls() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.serve("work", open_handler)
    c.serve("work", echo)
    world.run(1.0)

    def slow(host: Host) -> None:
        while host.places:
            host.answer("slow")
        world.queue.after(0.5, slow, host)

    world.queue.after(0.5, slow, b)
    for _ in range(100):
        answer_of(a, a.call("work"))
    assert len(b.handled) <= 3
    assert a.engine.statistics().latencies == 2


def test_a_provider_that_never_answers_is_avoided_after_the_first_deadline() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.serve("work", open_handler)
    c.serve("work", echo)
    world.run(1.0)
    for _ in range(100):
        answer_of(a, a.call("work", timeout=1.0))
    assert len(b.handled) <= 3


# Deadlines at the provider


def test_a_handler_is_stopped_at_the_deadline_although_its_caller_is_out_of_reach() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.call("work", timeout=2.0)
    world.run(0.5)
    a.kill()
    world.run(1.4)
    assert not b.ordered(CancelRequest)
    world.run(0.2)
    assert len(b.ordered(CancelRequest)) == 1
    b.answer("for nobody")
    world.run(1.0)
    assert len(b.engine._news.serving._deadlines) == 0


def test_an_answered_request_is_not_cancelled_at_its_deadline() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.handlers["work"] = echo
    answer_of(a, a.call("work", timeout=1.0))
    assert len(b.engine._news.serving._deadlines) == 0
    world.run(2.0)
    assert not b.ordered(CancelRequest)
