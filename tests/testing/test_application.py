from dataclasses import dataclass
from random import Random

from zmesh.message import Outcome
from zmesh.testing.application import Application, Verdict
from zmesh.testing.clock import EventQueue
from zmesh.testing.scenario import Consumer


@dataclass
class Job:
    number: int


def application(
    consumer: Consumer,
) -> tuple[EventQueue, Application[Job], list[tuple[int, Verdict]]]:
    queue, done = EventQueue(), list[tuple[int, Verdict]]()
    app: Application[Job] = Application(
        queue, Random(1), consumer, lambda job, verdict: done.append((job.number, verdict))
    )
    return queue, app, done


def test_handlers_that_take_no_time_decide_at_once() -> None:
    _, app, done = application(Consumer())
    app.take(Job(1))
    assert done == [(1, Verdict(Outcome.ACCEPTED))]
    assert app.idle


def test_as_many_handlers_run_as_may_and_the_rest_waits_in_order() -> None:
    queue, app, done = application(Consumer(concurrency=2, seconds=1.0))
    for number in range(4):
        app.take(Job(number))
    assert not done
    assert [job.number for job in app.drop(lambda job: job.number > 1)] == [2, 3]
    while queue.step():
        pass
    assert sorted(number for number, _ in done) == [0, 1]
    assert app.idle


def test_slow_times_and_long_handlers() -> None:
    queue, app, done = application(Consumer(concurrency=9, long_share=1.0, long_seconds=20.0))
    app.slow_down(until=5.0, seconds=0.5)
    app.take(Job(1))
    queue.step()
    assert (queue.now, len(done)) == (0.5, 1)
    queue.at(6.0, app.take, Job(2))
    while queue.step():
        pass
    assert (queue.now, len(done)) == (26.0, 2)


def test_shares_of_outcomes_name_their_message() -> None:
    _, app, done = application(
        Consumer(outcomes=((Outcome.REJECTED, 0.5), (Outcome.RELEASED, 0.5)))
    )
    for number in range(50):
        app.take(Job(number))
    outcomes = {verdict.outcome for _, verdict in done}
    assert outcomes == {Outcome.REJECTED, Outcome.RELEASED}
    assert all(verdict.reason == f"because of {number}" for number, verdict in done)
