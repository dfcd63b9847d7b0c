"""Turns that threads and coroutines share, and the thread that does things in order."""

import asyncio
import threading

import pytest

from zmesh import Closed, UsageError
from zmesh.face.one_by_one import Line, Worker


async def test_turns_come_in_the_order_of_asking() -> None:
    line = Line("turn")
    order: list[int] = []

    async def one(number: int) -> None:
        await line.take()
        order.append(number)
        line.leave()

    await line.take()
    tasks = [asyncio.create_task(one(number)) for number in range(5)]
    await asyncio.sleep(0)
    assert order == []
    line.leave()
    await asyncio.gather(*tasks)
    assert order == list(range(5))


async def test_thread_waits_for_the_turn_of_a_coroutine() -> None:
    line = Line("turn")
    order: list[str] = []
    began = threading.Event()

    def in_thread() -> None:
        began.set()
        line.take_in_thread()
        order.append("thread")
        line.leave()

    await line.take()
    waiting = asyncio.create_task(asyncio.to_thread(in_thread))
    await asyncio.to_thread(began.wait)
    order.append("coroutine")
    line.leave()
    await waiting
    assert order == ["coroutine", "thread"]


async def test_who_was_cancelled_while_waiting_is_passed_over() -> None:
    line = Line("turn")
    await line.take()
    first, second = asyncio.create_task(line.take()), asyncio.create_task(line.take())
    await asyncio.sleep(0)
    first.cancel()
    line.leave()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_turn_that_comes_together_with_a_cancellation_is_handed_on() -> None:
    line = Line("turn")
    await line.take()
    first, second = asyncio.create_task(line.take()), asyncio.create_task(line.take())
    await asyncio.sleep(0)
    line.leave()  # it is the first's now, which has not woken up
    first.cancel()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_taking_twice_is_refused() -> None:
    line = Line("turn")
    await line.take()
    with pytest.raises(UsageError):
        await line.take()
    line.leave()
    await line.take()


def test_taking_twice_in_a_thread_is_refused() -> None:
    line = Line("turn")
    line.take_in_thread()
    with pytest.raises(UsageError):
        line.take_in_thread()


async def test_closing_turns_away_all_but_who_has_the_turn() -> None:
    line = Line("turn")
    await line.take()
    waiting = asyncio.create_task(line.take())
    await asyncio.sleep(0)
    last = line.close()
    with pytest.raises(Closed):
        await waiting
    with pytest.raises(Closed):
        await asyncio.create_task(line.take())
    assert not last.done()
    line.leave()
    assert last.done()


def test_closing_has_the_turn_at_once_where_nobody_has() -> None:
    assert Line("turn").close().done()


async def test_worker_does_things_in_order_and_raises_what_they_raise() -> None:
    worker = Worker("test")
    done: list[int] = []

    def fail() -> None:
        raise ValueError("job")

    calls = [worker.call(lambda number=number: done.append(number)) for number in range(5)]  # type: ignore[misc]
    with pytest.raises(ValueError, match="job"):
        await worker.run(fail)
    assert all(call.done() for call in calls)
    assert done == list(range(5))
    assert await worker.run(lambda: 3) == 3
    worker.close()
    worker.join(5)


async def test_cancelled_wait_for_a_worker_lasts_until_the_job_is_done() -> None:
    worker = Worker("test")
    gate, over = threading.Event(), threading.Event()

    def job() -> None:
        gate.wait(10)
        over.set()

    task = asyncio.create_task(worker.run(job))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # again, while it waits
    assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
    worker.close()
    worker.join(5)


def test_worker_that_is_closed_ends_its_thread_and_takes_nothing() -> None:
    before = threading.active_count()
    worker = Worker("test")
    worker.call(lambda: None).result()
    assert threading.active_count() == before + 1
    worker.close()
    worker.join(5)
    assert threading.active_count() == before
    with pytest.raises(Closed):
        worker.call(lambda: None)


def test_worker_without_anything_to_do_has_no_thread() -> None:
    before = threading.active_count()
    worker = Worker("test")
    assert threading.active_count() == before
    worker.close()
    worker.join(5)
