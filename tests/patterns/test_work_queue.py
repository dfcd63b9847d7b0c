"""Work queues between nodes on a simulated network: late binding, outcomes, keys, failover."""

from dataclasses import replace
from itertools import count, pairwise

import pytest

from tests.engines import Host, World
from tests.patterns.queueing import bodies, mesh_of, numbers
from zmesh.actions import Drained, QueueRoomChanged
from zmesh.errors import UsageError
from zmesh.events import CloseNode, DrainNode, Pull, TimerFired, Unpull
from zmesh.message import Extras, FailureKind, Kind, Outcome, Record, Tag, Ticket, extra
from zmesh.options import NodeOptions
from zmesh.patterns.job_control import Offer, encode
from zmesh.patterns.job_queue import Job, JobQueue

OPTIONS = NodeOptions(attempts_max=3)


def cut(world: World, one: Host, other: Host, seconds: float) -> None:
    """Let nothing of what one sends reach the other, for so long."""
    world.network.cut(one.index, other.index)
    world.queue.after(seconds, world.network.heal, one.index, other.index)


def rest(host: Host) -> tuple[int, ...]:
    """Return what a host holds of queues."""
    statistics = host.engine.statistics()
    return (
        statistics.jobs_waiting, statistics.jobs_out, statistics.jobs_held,
        statistics.queued_messages, statistics.unsettled_in,
    )  # fmt: skip


# The plain way


def test_a_job_goes_to_who_pulls_its_queue_and_ends_accepted() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.pull("work")
    c.pull("other")
    ticket = a.push("work", "one")
    world.run(1.0)
    assert (bodies(b), bodies(c)) == (["one"], [])
    assert not a.finished(ticket)
    b.settle_job()
    world.run(1.0)
    assert a.finished(ticket)
    assert (ticket.accepted, ticket.failures) == (1, [])
    assert rest(a) == rest(b) == (0, 0, 0, 0, 0)


def test_a_job_waits_until_somebody_pulls() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    ticket = a.push("work", "one", "two")
    world.run(60.0)
    assert a.engine.statistics().jobs_waiting == 2
    b.job_outcome = Outcome.ACCEPTED
    b.pull("work", 10)
    world.run(1.0)
    assert (ticket.accepted, bodies(b)) == (2, ["one", "two"])


def test_this_node_may_pull_what_it_pushes() -> None:
    world = World()
    a = world.host("a")
    a.job_outcome = Outcome.ACCEPTED
    a.pull("work", 2)
    ticket = a.push("work", *numbers(50))
    world.run(1.0)
    assert bodies(a) == numbers(50)
    assert ticket.accepted == 50
    assert rest(a) == (0, 0, 0, 0, 0)


def test_an_empty_push_is_done_at_once() -> None:
    world = World()
    a = world.host("a")
    ticket = a.push("work")
    world.run(0.1)
    assert a.finished(ticket)


def test_large_jobs_travel_whole() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    text = "x" * 500_000
    ticket = a.push("work", text)
    world.run(1.0)
    assert bodies(b) == [text]
    b.settle_job()
    world.run(1.0)
    assert a.finished(ticket)


# Late binding


def test_a_consumer_never_has_more_than_its_prefetch() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=3)
    a.push("work", *numbers(20))
    world.run(1.0)
    assert bodies(b) == numbers(3)
    b.settle_job()
    b.settle_job()
    world.run(1.0)
    assert bodies(b) == numbers(5)
    assert a.engine.statistics().jobs_waiting == 15


def test_what_a_slow_consumer_does_not_take_the_fast_one_does() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=2)
    c.job_outcome = Outcome.ACCEPTED
    ticket = a.push("work", *numbers(100))
    world.run(5.0)
    assert len(b.jobs) == 2
    assert ticket.accepted == 98


def test_idle_consumers_share_the_jobs() -> None:
    world = World()
    a, b, c, d = mesh_of(world, "a", "bcd", prefetch=8)
    for text in numbers(24):
        a.push("work", text)
        world.run(0.1)
    assert [len(host.jobs) for host in (b, c, d)] == [8, 8, 8]


def test_one_who_is_idle_is_preferred_to_one_with_room() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=8)
    b.job_outcome = Outcome.ACCEPTED
    for text in numbers(20):
        a.push("work", text)
        world.run(0.1)
    assert len(c.jobs) <= 2
    assert len(b.jobs) >= 18


def test_producers_share_a_consumer_in_turns() -> None:
    world = World()
    a, b, c = mesh_of(world, "ab", "c")
    a.push("work", *("a",) * 50)
    world.run(1.0)
    b.push("work", *("b",) * 50)
    world.run(1.0)
    for _ in range(20):
        c.settle_job()
        world.run(0.1)
    taken = bodies(c)[1:]
    assert taken in (["a", "b"] * 10, ["b", "a"] * 10)


def test_producers_share_a_large_prefetch_evenly_whoever_came_first_or_has_most() -> None:
    world = World()
    a, b, d, c = mesh_of(world, "abd", "c", prefetch=30)
    a.push("work", *("a",) * 500)
    world.run(1.0)
    b.push("work", *("b",) * 100)
    d.push("work", *("d",) * 100)
    world.run(1.0)
    while len(c.jobs) < 300:
        c.settle_job()
        world.run(0.01)
    shares = [bodies(c)[30:].count(name) for name in "abd"]
    assert max(shares) - min(shares) <= 10, shares


def test_a_producer_with_little_gets_its_turn_and_leaves_the_rest_to_others() -> None:
    world = World()
    a, b, c = mesh_of(world, "ab", "c", prefetch=10)
    a.push("work", *("a",) * 100)
    world.run(1.0)
    ticket = b.push("work", "b")
    world.run(1.0)
    for _ in range(20):
        c.settle_job()
        world.run(0.01)
    assert ticket.accepted == 1
    assert len(c.open_jobs) == 10


def test_grants_that_one_producer_does_not_use_are_called_back_for_another() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    c.pull("work", 4)
    d = world.host("d")
    world.introduce(a, d)
    world.run(3.0)
    d.job_outcome = Outcome.ACCEPTED
    a.push("work", *numbers(40))  # c grants four, and four more when these are done
    world.run(1.0)
    d.pull("work", 40)
    world.run(1.0)
    assert a.engine.statistics().jobs_waiting == 0
    for _ in range(4):
        c.settle_job()
    world.run(1.0)
    ticket = b.push("work", *numbers(4))
    world.run(1.0)
    assert len(c.open_jobs) == 4
    for _ in range(4):
        c.settle_job()
    world.run(1.0)
    assert ticket.accepted == 4
    assert a.push("work", "more")
    world.run(1.0)
    assert a.engine.statistics().jobs_waiting == 0


def test_a_stopped_producer_with_grants_holds_up_no_other() -> None:
    world = World()
    a, b, c = mesh_of(world, "ab", "c")
    c.job_outcome = Outcome.ACCEPTED
    a.push("work", "one")
    world.run(1.0)
    granted = next(iter(c.engine.queues.taken._queues["work"].producers.values()))
    granted.limit += 1  # as if it had more to send when it stopped
    world.part(a, c)
    world.run(20.0)
    ticket = b.push("work", "two")
    world.run(2.0)
    assert ticket.accepted == 1


def test_a_producer_that_keeps_its_grants_holds_up_no_other_for_long() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 1)
    world.run(1.0)
    receivers = a.engine._news._arrivals._receivers
    receivers[Kind.JOB_CONTROL] = lambda _, source, first, last, __: a.engine._turn.settle(
        source, first, last, Outcome.ACCEPTED
    )
    consumer = a.engine._turn.peers.find(c.id)
    assert consumer is not None
    a.engine._turn.submit(consumer, 9, [encode(Offer("work", 1, 0, 0, 5))], Ticket())
    a.do(TimerFired())
    world.run(1.0)
    ticket = b.push("work", "one", "two")
    world.run(OPTIONS.recall_patience - 0.5)
    assert ticket.accepted == 0, "it waits for what was recalled"
    world.run(1.0)
    assert (ticket.accepted, bodies(c)) == (2, ["one", "two"])
    [greedy, _] = c.engine.queues.taken._queues["work"].producers.values()
    assert (greedy.peer.id, greedy.out, greedy.counts) == (a.id, 1, False)
    # It uses at last what it was granted, and has its share again.
    a.engine._turn.submit(consumer, 9, [encode(Offer("work", 1, 1, 1, 5))], Ticket())
    a.do(TimerFired())
    world.run(1.0)
    assert greedy.counts
    assert greedy.out == 1


def test_a_grant_used_late_gives_nobody_more_than_the_prefetch() -> None:
    world = World()
    a, b, c = mesh_of(world, "ab", "c")
    c.job_outcome = Outcome.ACCEPTED
    a.push("work", "one")
    world.run(1.0)
    c.job_outcome = None
    for one, other in ((a, c), (c, a)):
        cut(world, one, other, 6.0)
    world.run(5.3)
    held = b.push("work", "two")  # gets the room that a was granted
    world.run(0.5)
    late = a.push("work", "three")
    world.run(10.0)
    assert [text for text, *_ in c.open_jobs] == ["two"]
    c.job_outcome = Outcome.ACCEPTED
    c.settle_job()
    world.run(1.0)
    assert (held.accepted, late.accepted) == (1, 1)
    assert c.jobs == [("one", 1), ("two", 1), ("three", 1)]
    assert rest(a) == rest(b) == rest(c) == (0, 0, 0, 0, 0)


@pytest.mark.parametrize("producers", ["a", "ab"])
def test_a_job_that_expired_on_its_way_costs_no_room_for_ever(producers: str) -> None:
    world = World()
    a, *others, c = mesh_of(world, producers, "c")
    c.job_outcome = Outcome.ACCEPTED
    a.push("work", "one")
    world.run(1.0)
    expired = a.push("work", "x" * 2_000_000, ttl=1.0)
    world.run(0.001)
    cut(world, a, c, 2.0)  # with a part of it there
    world.run(5.0)
    assert [failure.kind for failure in expired.failures] == [FailureKind.EXPIRED]
    assert bodies(c) == ["one"]
    tickets = [host.push("work", *numbers(3)) for host in (*others, a)]
    world.run(OPTIONS.recall_patience + 1.0)
    assert [ticket.accepted for ticket in tickets] == [3] * len(producers)
    again = a.push("work", *numbers(3))
    world.run(1.0)
    assert again.accepted == 3
    assert all(host.engine.statistics().redelivered == 0 for host in world.hosts.values())


def test_a_job_that_comes_after_it_was_written_off_uses_the_room_of_the_next() -> None:
    world = World()
    a, c = mesh_of(world, "a", "c")
    c.job_outcome = Outcome.ACCEPTED
    a.push("work", "one")
    world.run(1.0)
    c.job_outcome = None
    large = "x" * 2_000_000
    tickets = [a.push("work", text) for text in (large, "small")]
    world.run(0.001)
    cut(world, a, c, OPTIONS.recall_patience + 1.0)
    world.run(20.0)
    assert len(c.open_jobs) == 1
    [producer] = c.engine.queues.taken._queues["work"].producers.values()
    assert (producer.limit, producer.arrived) == (3, 3), "the next was granted meanwhile"
    c.job_outcome = Outcome.ACCEPTED
    c.settle_job()
    world.run(5.0)
    assert [ticket.accepted for ticket in tickets] == [1, 1]
    again = a.push("work", *numbers(3))
    world.run(1.0)
    assert again.accepted == 3
    assert rest(a) == rest(c) == (0, 0, 0, 0, 0)


# Order


def test_higher_priorities_leave_first_and_each_in_its_order() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    for lane in (1, 9, 4):
        a.push("work", f"{lane}a", f"{lane}b", lane=lane)
    world.run(0.1)
    b.job_outcome = Outcome.ACCEPTED
    b.pull("work", 1)
    world.run(1.0)
    assert bodies(b) == ["9a", "9b", "4a", "4b", "1a", "1b"]


def test_a_job_that_came_back_has_its_old_place() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.push("work", "1", "2", "3")
    world.run(1.0)
    b.settle_job(Outcome.RELEASED)
    world.run(1.0)
    b.job_outcome = Outcome.ACCEPTED
    b.settle_job()
    world.run(1.0)
    assert b.jobs == [("1", 1), ("1", 1), ("2", 1), ("3", 1)]


def test_delayed_jobs_leave_when_it_is_time() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=10)
    b.job_outcome = Outcome.ACCEPTED
    a.push("work", "late", delay=5.0)
    a.push("work", "soon")
    world.run(4.9)
    assert bodies(b) == ["soon"]
    world.run(0.2)
    assert bodies(b) == ["soon", "late"]


# Keys


def test_one_job_of_a_key_is_out_at_a_time_whatever_its_priority() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=10)
    for lane, text in zip((1, 9, 4), "123", strict=True):
        a.push("work", text, key="k", lane=lane)
    seen: list[str] = []
    for _ in range(3):
        world.run(1.0)
        [consumer] = [host for host in (b, c) if host.open_jobs]
        assert len(consumer.open_jobs) == 1
        seen.append(consumer.settle_job())
    assert seen == ["1", "2", "3"]


def test_a_key_stays_with_one_consumer() -> None:
    world = World()
    a, z, *consumers = mesh_of(world, "az", "bcd", prefetch=10)
    for host in consumers:
        host.job_outcome = Outcome.ACCEPTED
    keys = numbers(30)
    for producer in (a, z):
        for _ in range(3):
            for key in keys:
                producer.push("work", key, key=key)
    world.run(2.0)
    taken = [set(bodies(host)) for host in consumers]
    assert sum(len(host.jobs) for host in consumers) == 180
    assert sum(map(len, taken)) == 30, "no key has been with two"
    assert all(taken)


def test_only_the_keys_of_a_consumer_that_goes_move() -> None:
    world = World()
    a, b, c, d = mesh_of(world, "a", "bcd", prefetch=50)
    for host in (b, c, d):
        host.job_outcome = Outcome.ACCEPTED
    keys = numbers(40)
    for key in keys:
        a.push("work", key, key=key)
    world.run(1.0)
    before = {key: host for host in (b, c, d) for key in bodies(host)}
    d.unpull()
    world.run(1.0)
    for host in (b, c):
        host.jobs.clear()
    for key in keys:
        a.push("work", key, key=key)
    world.run(1.0)
    after = {key: host for host in (b, c) for key in bodies(host)}
    assert all(after[key] is host for key, host in before.items() if host is not d)
    assert len(after) == 40


def test_waiting_keys_move_to_a_consumer_that_comes() -> None:
    world = World()
    a, b, c = world.mesh("a", "b", "c")
    b.pull("work", 1)
    for key in numbers(40):
        a.push("work", key, key=key)
    world.run(1.0)
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 1)
    world.run(1.0)
    assert 5 < len(c.jobs) < 35
    assert a.engine.statistics().jobs_waiting + len(c.jobs) + 1 == 40


def test_a_key_whose_consumer_has_no_room_holds_up_no_other() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    a.push("work", "first", key="k")
    a.push("work", "second", key="k")
    a.push("work", "other")
    world.run(1.0)
    b.settle_job()
    world.run(1.0)
    assert len(b.open_jobs) == 1
    b.settle_job()
    world.run(1.0)
    b.settle_job()
    assert bodies(b) == ["first", "second", "other"]


def test_a_key_keeps_its_order_while_its_first_job_fails() -> None:
    world = World(OPTIONS)
    a, b = mesh_of(world, "a", "b", prefetch=10)
    a.push("work", "1", key="k")
    a.push("work", "2", key="k")
    world.run(1.0)
    b.settle_job(Outcome.MODIFIED)
    world.run(2.0)
    assert b.jobs == [("1", 1), ("1", 2)]
    b.settle_job()
    world.run(1.0)
    assert b.jobs[2:] == [("2", 1)]


def test_the_next_of_a_key_leaves_when_the_one_before_expired() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=10)
    first = a.push("work", "1", key="k", delay=9.0, ttl=10.0)
    a.push("work", "2", key="k")
    world.run(0.5)
    assert b.jobs == []
    b.unpull()
    world.run(12.0)
    assert [failure.kind for failure in first.failures] == [FailureKind.EXPIRED]
    b.pull("work")
    world.run(1.0)
    assert bodies(b) == ["2"]


# Outcomes


def test_a_rejected_job_is_a_dead_letter_at_its_producer() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    ticket = a.push("work", "bad")
    world.run(1.0)
    b.settle_job(Outcome.REJECTED)
    world.run(1.0)
    [failure] = ticket.failures
    assert (failure.kind, failure.peer) == (FailureKind.REJECTED, "b")
    assert failure.reason == "handler said so"
    [letter] = a.engine.dead_letters()
    assert (letter.topic, letter.body, letter.peer) == ("work", b"bad", b.id)


def test_a_job_whose_handler_fails_comes_again_ever_later_and_then_is_a_dead_letter() -> None:
    world = World(replace(OPTIONS, redeliver_min=1.0))
    a, b = mesh_of(world, "a", "b")
    ticket = a.push("work", "bad")
    pauses = []
    for attempt in range(1, 4):
        pauses.append(world.run_until(lambda attempt=attempt: len(b.jobs) == attempt))  # type: ignore[misc]
        b.settle_job(Outcome.MODIFIED)
    world.run(10.0)
    assert b.jobs == [("bad", 1), ("bad", 2), ("bad", 3)]
    assert 1.0 <= pauses[1] <= 2.1 <= 2.0 + pauses[2] / 2
    [failure] = ticket.failures
    assert (failure.kind, failure.attempts) == (FailureKind.DEAD_LETTERED, 3)
    [letter] = a.engine.dead_letters()
    assert (letter.attempts, letter.reason) == (3, "handler said so")
    assert rest(a) == (0, 0, 0, 0, 0)


def test_a_push_may_say_how_many_attempts() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    b.job_outcome = Outcome.MODIFIED
    ticket = a.push("work", "bad", attempts_max=1)
    world.run(2.0)
    assert b.jobs == [("bad", 1)]
    assert [failure.kind for failure in ticket.failures] == [FailureKind.DEAD_LETTERED]


def test_a_released_job_counts_no_attempt_and_comes_when_told() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc")
    a.push("work", "later")
    world.run(1.0)
    [first] = [host for host in (b, c) if host.jobs]
    first.settle_job(Outcome.RELEASED, delay=5.0)
    world.run(4.0)
    assert len(b.jobs) + len(c.jobs) == 1
    world.run(2.0)
    assert b.jobs + c.jobs == [("later", 1)] * 2


def test_a_job_nobody_takes_in_time_expires() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    ticket = a.push("work", "old", ttl=2.0)
    world.run(3.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.EXPIRED]
    b.pull("work")
    world.run(1.0)
    assert b.jobs == []
    assert rest(a) == (0, 0, 0, 0, 0)


def test_a_job_that_expires_with_its_consumer_leaves_room_for_others() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    ticket = a.push("work", "old", ttl=2.0)
    a.push("work", "next")
    world.run(3.0)
    b.settle_job(Outcome.EXPIRED)
    world.run(1.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.EXPIRED]
    assert bodies(b) == ["old", "next"]


def test_a_job_that_comes_back_too_late_expires() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    ticket = a.push("work", "old", ttl=2.0)
    world.run(3.0)
    b.settle_job(Outcome.MODIFIED)
    world.run(1.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.EXPIRED]


def test_a_body_nobody_may_send_fails_at_once() -> None:
    world = World()
    a = world.host(
        "a", options=replace(world.options, link=replace(world.options.link, body_bytes_max=10))
    )
    ticket = a.push("work", "x" * 11, "y")
    world.run(0.1)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.REJECTED]
    assert a.engine.statistics().jobs_waiting == 1


# Consumers that go


def test_the_jobs_of_a_consumer_that_is_killed_go_to_another_at_once() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=5)
    c.unpull()
    world.run(1.0)
    ticket = a.push("work", *numbers(5))
    a.push("work", "k1", key="k")
    world.run(1.0)
    assert len(b.jobs) == 5
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 5)
    world.run(1.0)
    b.kill()
    assert world.run_until(lambda: ticket.accepted == 5) < 0.5
    assert sorted(c.jobs) == [*((text, 2) for text in numbers(5)), ("k1", 1)]
    assert a.engine.statistics().jobs_uncertain == 5


def test_the_jobs_with_keys_of_a_consumer_that_is_killed_move_at_once() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=50)
    for key in numbers(20):
        a.push("work", f"{key} 1", key=key)
        a.push("work", f"{key} 2", key=key)
    world.run(1.0)
    mine = len(b.jobs)
    assert 0 < mine < 20
    c.job_outcome = Outcome.ACCEPTED
    while c.open_jobs:
        c.settle_job()
    b.kill()
    world.run(0.5)
    assert len(c.jobs) == 40
    for key in numbers(20):
        texts = [text for text in bodies(c) if text.startswith(key)]
        assert texts == [f"{key} 1", f"{key} 2"]


def test_the_jobs_of_a_consumer_that_restarts_come_again() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=5)
    ticket = a.push("work", *numbers(3))
    world.run(1.0)
    b.kill()
    b = world.host("b")
    world.introduce(a, b)
    b.job_outcome = Outcome.ACCEPTED
    b.pull("work", 5)
    world.run(20.0)
    assert ticket.accepted == 3
    assert b.jobs == [(text, 2) for text in numbers(3)]


def test_a_job_that_kills_its_consumers_ends_as_a_dead_letter() -> None:
    world = World(OPTIONS)
    [a] = world.mesh("a")
    ticket = a.push("work", "poison")
    for number in count():
        b = world.host("b")
        world.introduce(a, b)
        b.pull("work")
        world.run_until(lambda b=b: bool(b.jobs) or a.finished(ticket), 60.0)  # type: ignore[misc]
        if a.finished(ticket):
            break
        assert b.jobs == [("poison", number + 1)]
        b.kill()
    assert number == 3
    assert [failure.kind for failure in ticket.failures] == [FailureKind.DEAD_LETTERED]


def test_a_consumer_that_stops_pulling_gives_back_what_it_has() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=5)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    c.job_outcome = Outcome.ACCEPTED
    while c.open_jobs:
        c.settle_job()
    b.unpull()
    world.run(1.0)
    assert ticket.accepted == 10
    assert all(attempt == 1 for _, attempt in c.jobs)
    assert rest(b) == (0, 0, 0, 0, 0)


def test_a_consumer_that_says_goodbye_gives_back_what_it_has() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=5)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    c.job_outcome = Outcome.ACCEPTED
    while c.open_jobs:
        c.settle_job()
    b.do(CloseNode())
    world.run(1.0)
    assert ticket.accepted == 10


def test_who_pulls_again_at_once_is_served_again() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=2)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    b.open_jobs.clear()
    b.job_outcome = Outcome.ACCEPTED
    b.do(Unpull(1), Pull(2, "work", 2))
    world.run(1.0)
    assert ticket.accepted == 10
    b.do(Unpull(2))
    b.world.run(0.0)
    b.do(Pull(3, "work", 2))
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    assert ticket.accepted == 10


def test_two_pulls_of_one_node_share_its_jobs() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.pull("work", 2, token=1)
    b.pull("work", 3, token=2)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    assert len(b.jobs) == 5
    b.do(Unpull(1))
    world.run(1.0)
    assert len(b.jobs) == 5
    statistics = b.engine.statistics()
    assert (statistics.jobs_held, statistics.pulls) == (3, 1)
    b.do(Unpull(2))
    world.run(1.0)
    assert a.engine.statistics().jobs_waiting == 10
    assert ticket.accepted == 0


def test_a_silent_consumer_gets_no_new_jobs_and_its_keys_move() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=50)
    c.job_outcome = b.job_outcome = Outcome.ACCEPTED
    world.part(a, b)
    world.run(15.0)
    b.jobs.clear()
    tickets = [a.push("work", key, key=key) for key in numbers(20)]
    tickets.append(a.push("work", *numbers(20)))
    world.run(1.0)
    assert sum(ticket.accepted for ticket in tickets) == 40
    assert b.jobs == []


def test_a_consumer_out_of_reach_keeps_jobs_with_a_key_until_its_session_ends() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=50)
    keyed = [a.push("work", f"k{key}", key=key) for key in numbers(20)]
    plain = a.push("work", *numbers(20))
    world.run(1.0)
    with_b = [text for text in bodies(b) if text.startswith("k")]
    assert 0 < len(with_b) < 20
    c.job_outcome = Outcome.ACCEPTED
    while c.open_jobs:
        c.settle_job()
    for one, other in ((a, b), (b, a)):
        world.network.cut(one.index, other.index)
    world.run_until(lambda: plain.accepted == 20, 60.0)
    assert sum(ticket.accepted for ticket in keyed) == 20 - len(with_b)
    world.run_until(lambda: sum(ticket.accepted for ticket in keyed) == 20, 200.0)


def test_a_late_verdict_of_a_consumer_that_was_lost_changes_nothing() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=50)
    c.unpull()
    world.run(1.0)
    ticket = a.push("work", *numbers(20))
    world.run(1.0)
    assert len(b.jobs) == 20
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 50)
    world.run(1.0)
    for one, other in ((a, b), (b, a)):
        cut(world, one, other, 40.0)
    world.run_until(lambda: ticket.accepted == 20, 39.0)
    while b.open_jobs:
        b.settle_job()
    world.run(60.0)
    assert a.finished(ticket)
    assert rest(a) == rest(b) == rest(c) == (0, 0, 0, 0, 0)
    before = len(b.jobs) + len(c.jobs)
    b.job_outcome = Outcome.ACCEPTED
    again = a.push("work", *numbers(100))
    world.run(5.0)
    assert again.accepted == 100
    assert len(b.jobs) + len(c.jobs) == before + 100


def test_a_job_that_comes_again_to_who_has_done_it_is_not_done_again() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=50)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    for one, other in ((a, b), (b, a)):
        cut(world, one, other, 400.0)
    world.run(5.0)
    for _ in range(5):
        b.settle_job()
    world.run(500.0)  # the session is over, on both sides; b still has five
    assert len(b.jobs) == 10
    assert ticket.accepted == 5
    while b.open_jobs:
        b.settle_job()
    world.run(5.0)
    assert ticket.accepted == 10
    assert len(b.jobs) == 10
    assert b.engine.statistics().duplicate_jobs == 10
    assert rest(a) == rest(b) == (0, 0, 0, 0, 0)


# Bounds


def test_a_full_queue_says_so_and_tells_when_there_is_room() -> None:
    world = World(replace(OPTIONS, queued_jobs_max=5))
    a, b = mesh_of(world, "a", "b")
    a.push("work", *numbers(5))
    world.run(1.0)
    assert a.engine.queues.pushed.room("work") == 0
    assert a.engine.queues.pushed.queued("work") == (5, 5 * (3 + 4 + 16))
    assert not a.ordered(QueueRoomChanged)
    b.settle_job()
    world.run(1.0)
    assert a.ordered(QueueRoomChanged) == [QueueRoomChanged("work")]
    assert a.engine.queues.pushed.room("work") == 1


def test_bytes_count_as_well() -> None:
    world = World(replace(OPTIONS, queued_jobs_bytes_max=1000))
    a = world.host("a")
    a.push("work", "x" * 1000)
    world.run(0.1)
    assert a.engine.queues.pushed.room("work") == 0
    assert a.engine.queues.pushed.room("other") > 0


def test_queues_are_bounded_and_idle_ones_make_room() -> None:
    world = World(replace(OPTIONS, queues_max=2))
    a, b = world.mesh("a", "b")
    for token, queue in enumerate(("one", "two", "three"), 1):
        b.pull(queue, 4, token)
    world.run(1.0)
    for queue in ("one", "two", "three", "one"):
        ticket = a.push(queue, "x")
        world.run(1.0)
        b.settle_job()
        world.run(1.0)
        assert ticket.accepted == 1
    b.do(Unpull(1), Unpull(2), Unpull(3))
    a.push("four", "x")
    a.push("five", "x")
    world.run(1.0)
    with pytest.raises(UsageError, match="jobs wait in 2 queues already"):
        a.engine.queues.pushed.check_push("six")
    a.engine.queues.pushed.check_push("five")


# Draining and closing


def test_a_drain_waits_for_jobs_that_somebody_pulls() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b")
    ticket = a.push("work", *numbers(3))
    world.run(1.0)
    a.do(DrainNode(world.queue.now + 60.0))
    world.run(1.0)
    assert not a.ordered(Drained)
    b.job_outcome = Outcome.ACCEPTED
    b.settle_job()
    world.run(1.0)
    assert ticket.accepted == 3
    assert a.ordered(Drained) == [Drained(0, 0)]


def test_a_drain_does_not_wait_for_jobs_nobody_pulls() -> None:
    world = World()
    [a] = world.mesh("a")
    ticket = a.push("work", *numbers(3))
    world.run(1.0)
    a.do(DrainNode(world.queue.now + 60.0))
    world.run(1.0)
    assert a.ordered(Drained) == [Drained(0, 0)]
    assert a.engine.queues.pushed.waiting == 3
    a.do(CloseNode())
    world.run(1.0)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.CLOSED] * 3


def test_a_close_ends_every_job_once() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", prefetch=2)
    a.pull("work", 1)
    ticket = a.push("work", *numbers(5))
    world.run(1.0)
    a.do(CloseNode())
    world.run(5.0)
    assert a.finished(ticket)
    assert [failure.kind for failure in ticket.failures] == [FailureKind.CLOSED] * 5
    assert len(b.jobs) == 2


def test_a_consumer_that_drains_gets_nothing_new() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", prefetch=5)
    c.job_outcome = Outcome.ACCEPTED
    b.do(DrainNode(world.queue.now + 100.0))
    world.run(1.0)
    ticket = a.push("work", *numbers(20))
    world.run(1.0)
    assert ticket.accepted == 20
    assert b.jobs == []


@pytest.mark.parametrize("has_ttl", [False, True])
@pytest.mark.parametrize("attempts", [0, 3])
@pytest.mark.parametrize(
    "told",
    [
        (),
        (Tag.KEY, "k"),
        (Tag.COMPRESSED, (1, 9)),
        (Tag.ROUTING_KEY, "a.b"),
        (Tag.HEADERS, b"h", Tag.KEY, "k", Tag.COMPRESSED, (1, 9), Tag.ROUTING_KEY, "a.b"),
    ],
)
def test_a_job_leaves_with_its_tags_ascending(
    told: Extras, attempts: int, *, has_ttl: bool
) -> None:
    record: Record = (6, "work", b"body", told) if told else (6, "work", b"body")
    job = Job(7, JobQueue("work"), 4, record, Ticket(), 20, 10.0 if has_ttl else None)
    job.attempts = attempts
    left = job.on_the_way(5, now=8.0)
    assert len(left) == 4
    tags = left[3][::2]
    assert all(one < other for one, other in pairwise(tags))  # type: ignore[operator]
    assert len(tags) == len(told) // 2 + 2 + has_ttl + bool(attempts)
    pairs = list(zip(left[3][::2], left[3][1::2], strict=True))
    assert all(pair in pairs for pair in zip(told[::2], told[1::2], strict=True))
    assert extra(left, Tag.TTL_MS) == (2000 if has_ttl else None)
