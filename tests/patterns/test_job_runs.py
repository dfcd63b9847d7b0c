"""Jobs that leave together, and what becomes of those that do not end as the others do."""

import pytest

from tests.engines import Host, World
from tests.patterns.queueing import bodies, mesh_of, numbers
from zmesh.batches import fit_runs
from zmesh.events import CloseNode
from zmesh.message import FailureKind, Outcome, Record, Tag, with_extra


def left(host: Host) -> tuple[int, int, tuple[int, int]]:
    statistics = host.engine.statistics()
    return statistics.jobs_waiting, statistics.jobs_out, host.engine.queues.pushed.queued("work")


def test_of_jobs_that_left_together_each_has_its_own_outcome() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", 10)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    assert bodies(b) == numbers(10)
    for outcome in (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.MODIFIED, Outcome.RELEASED):
        b.settle_job(outcome)
    world.run(0.1)
    assert ticket.accepted == 1
    assert [failure.kind for failure in ticket.failures] == [FailureKind.REJECTED]
    world.run(10.0)
    assert sorted(b.jobs[10:]) == [("002", 2), ("003", 1)]
    while b.open_jobs:
        b.settle_job()
    world.run(1.0)
    assert (ticket.accepted, len(ticket.failures)) == (9, 1)
    assert left(a) == (0, 0, (0, 0))


def test_what_a_consumer_had_not_accepted_when_it_died_goes_to_another() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", 10)
    c.unpull()
    world.run(1.0)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    for _ in range(3):
        b.settle_job()
    world.run(1.0)
    assert ticket.accepted == 3
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 4)
    b.kill()
    world.run(60.0)
    assert c.jobs == [(text, 2) for text in numbers(10)[3:]]
    assert (ticket.accepted, ticket.failures) == (10, [])
    assert left(a) == (0, 0, (0, 0))


def test_what_a_lost_consumer_says_in_the_end_counts_no_more() -> None:
    world = World()
    a, b, c = mesh_of(world, "a", "bc", 10)
    c.unpull()
    world.run(1.0)
    ticket = a.push("work", *numbers(6))
    world.run(1.0)
    c.job_outcome = Outcome.ACCEPTED
    c.pull("work", 6)
    for one, other in ((a, b), (b, a)):
        world.network.cut(one.index, other.index)
    world.run_until(lambda: ticket.accepted == 6, 60.0)
    while b.open_jobs:
        b.settle_job()
    for one, other in ((a, b), (b, a)):
        world.network.heal(one.index, other.index)
    world.run(60.0)
    assert (ticket.accepted, ticket.failures) == (6, [])
    assert left(a) == (0, 0, (0, 0))


def test_closing_fails_each_job_without_outcome_once() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", 4)
    ticket = a.push("work", *numbers(10))
    world.run(1.0)
    b.settle_job()
    b.settle_job(Outcome.REJECTED)
    world.run(1.0)
    a.do(CloseNode())
    world.run(1.0)
    assert ticket.accepted == 1
    kinds = [failure.kind for failure in ticket.failures]
    assert kinds == [FailureKind.REJECTED] + 8 * [FailureKind.CLOSED]


@pytest.mark.parametrize("count", [4, 5, 7, 23])
def test_jobs_that_leave_together_are_shared_as_evenly_as_single_ones(count: int) -> None:
    world = World()
    a, *consumers = mesh_of(world, "a", "bcde", 50)
    for host in consumers:
        host.job_outcome = Outcome.ACCEPTED
    a.push("work", *numbers(1000))
    world.run(1.0)  # room is granted ahead now
    for host in consumers:
        host.job_outcome = None
        host.jobs.clear()
    a.push("work", *numbers(count))
    world.run(1.0)
    shares = [len(host.jobs) for host in consumers]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


def test_runs_and_other_jobs_leave_in_one_order() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", 1)
    b.unpull()
    world.run(1.0)
    a.push("work", "1", "2", "3")
    a.push("work", "4", key="k")
    a.push("work", "5", "6")
    a.push("work", "0", lane=9)
    a.push("work", "7", ttl=600.0)
    a.push("work", "8", "9", lane=2)
    b.job_outcome = Outcome.ACCEPTED
    b.pull("work", 3)
    world.run(2.0)
    assert bodies(b) == list("0123456789")


def test_a_job_that_comes_back_has_its_old_place_before_a_run() -> None:
    world = World()
    a, b = mesh_of(world, "a", "b", 2)
    a.push("work", *numbers(6))
    world.run(1.0)
    b.settle_job(Outcome.RELEASED)
    world.run(1.0)
    b.job_outcome = Outcome.ACCEPTED
    while b.open_jobs:
        b.settle_job()
    world.run(2.0)
    assert bodies(b) == ["000", "001", "000", "002", "003", "004", "005"]


def test_only_small_plain_records_are_handled_by_the_run() -> None:
    plain: Record = (6, "work", b"body")
    assert fit_runs([plain, with_extra(plain, Tag.HEADERS, b"\x80")], 4)
    assert not fit_runs([plain], 3)
    assert not fit_runs([plain, with_extra(plain, Tag.SIGNATURE, b"s")], 4)
    assert not fit_runs([(0x86, "work", b"body")], 4)
