import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

import pytest

from zmesh.face.shifts import APART, Shifts

where: ContextVar[str] = ContextVar("where", default="nowhere")


class Group:
    def __init__(self, apart: int = 0) -> None:
        self.apart = apart


class Bench:
    """Items are numbers; what each does is told by `jobs`."""

    def __init__(self) -> None:
        self.jobs: dict[int, Callable[[], Awaitable[None]]] = {}
        self.tasks: dict[int, asyncio.Task[None]] = {}
        self.ended: list[tuple[int, bool]] = []
        self.group = Group()
        self.shifts: Shifts[int] = Shifts(
            asyncio.get_running_loop(), self._run, self.tasks.__setitem__, self._on_ended
        )

    def add(self, job: Callable[[], Awaitable[None]]) -> int:
        number = len(self.jobs)
        self.jobs[number] = job
        self.shifts.add(number, self.group)
        return number

    async def done(self, count: int) -> list[tuple[int, bool]]:
        async with asyncio.timeout(10):
            while len(self.ended) < count:  # noqa: ASYNC110
                await asyncio.sleep(0)
        return self.ended

    async def _run(self, number: int) -> None:
        await self.jobs[number]()

    def _on_ended(self, number: int, is_cancelled: bool) -> None:
        self.ended.append((number, is_cancelled))


async def nothing() -> None:
    pass


async def test_what_does_not_wait_shares_a_task_and_keeps_its_order() -> None:
    bench = Bench()
    for _ in range(5):
        bench.add(nothing)
    assert await bench.done(5) == [(number, False) for number in range(5)]
    assert len(set(bench.tasks.values())) == 1


async def test_what_waits_keeps_the_task_and_the_others_begin_at_once() -> None:
    bench, gate = Bench(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    for _ in range(3):
        bench.add(wait)
    while len(bench.tasks) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert len(set(bench.tasks.values())) == 3
    assert bench.group.apart == APART
    gate.set()
    assert sorted(await bench.done(3)) == [(0, False), (1, False), (2, False)]


async def test_groups_that_wait_get_tasks_of_their_own_until_it_is_tried_again() -> None:
    bench = Bench()
    bench.group.apart = 2
    for _ in range(4):
        bench.add(nothing)
    await bench.done(4)
    assert len(set(bench.tasks.values())) == 3
    assert bench.tasks[2] is bench.tasks[3]


async def test_a_job_may_ask_for_its_task_and_use_timeouts_in_its_first_step() -> None:
    bench, gate = Bench(), asyncio.Event()
    seen: list[object] = []

    async def job() -> None:
        seen.append(asyncio.current_task())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await gate.wait()
        seen.append(asyncio.current_task())

    number = bench.add(job)
    bench.add(nothing)
    await bench.done(2)
    assert seen == [bench.tasks[number]] * 2
    assert (number, False) in bench.ended


async def test_each_job_has_a_context_of_its_own_before_and_after_it_waits() -> None:
    bench = Bench()
    seen: list[str] = []

    def job(name: str, *, waits: bool) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            seen.append(where.get())
            where.set(name)
            if waits:
                await asyncio.sleep(0)
                seen.append(where.get())

        return run

    bench.add(job("a", waits=False))
    where.set("outside")
    bench.add(job("b", waits=True))
    bench.add(job("c", waits=False))
    await bench.done(3)
    assert sorted(seen) == ["b", "nowhere", "outside", "outside"]
    assert where.get() == "outside"


async def test_a_cancelled_job_takes_nobody_with_it() -> None:
    bench, gate = Bench(), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    first = bench.add(wait)
    second = bench.add(nothing)
    await bench.done(1)
    assert bench.ended == [(second, False)]
    bench.tasks[first].cancel()
    assert await bench.done(2) == [(second, False), (first, True)]


async def test_a_job_that_cancels_its_own_task_takes_nobody_with_it() -> None:
    bench = Bench()

    async def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    for job in (cancel, nothing, nothing):
        bench.add(job)
    await bench.done(3)
    assert all(not is_cancelled for _, is_cancelled in bench.ended)
    assert bench.tasks[0] is not bench.tasks[1]


async def test_a_job_that_catches_what_it_waited_for_goes_on() -> None:
    bench = Bench()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    caught: list[str] = []

    async def job() -> None:
        try:
            await future
        except ValueError as error:
            caught.append(str(error))

    bench.add(job)
    await asyncio.sleep(0)
    future.set_exception(ValueError("no"))
    await bench.done(1)
    assert caught == ["no"]


async def test_what_was_removed_or_cleared_does_not_begin() -> None:
    bench = Bench()
    first, second, third = (bench.add(nothing) for _ in range(3))
    assert bench.shifts.remove(second)
    assert not bench.shifts.remove(second)
    assert bench.shifts.clear() == [first, third]
    fourth = bench.add(nothing)
    assert await bench.done(1) == [(fourth, False)]


async def test_cancelling_the_shared_task_before_it_begins_loses_nothing() -> None:
    bench = Bench()
    before = asyncio.all_tasks()
    for _ in range(2):
        bench.add(nothing)
    for task in asyncio.all_tasks() - before:
        task.cancel()
    assert sorted(await bench.done(2)) == [(0, False), (1, False)]
