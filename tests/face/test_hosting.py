"""Handlers that share tasks notice nothing of it: what a task is to them holds."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import pytest

from zmesh.face.hosting import Begun, begin, finish, is_kept, marks_of

Work = Callable[[], Awaitable[None]]


def own(task: "asyncio.Task[None] | None") -> "asyncio.Task[None]":
    assert task is not None
    return task


async def host(work: list[Work]) -> list["asyncio.Task[None]"]:
    """Do all work as `Services` does; return the tasks that it took."""
    left = list(work)
    tasks: list[asyncio.Task[None]] = []

    async def one(each: Work) -> None:
        await each()

    async def some() -> None:
        task = own(asyncio.current_task())
        marks = marks_of(task)
        begun: Begun | None = None
        while left and begun is None:
            begun = begin(one(left.pop(0)))
            if begun is None and is_kept(task, marks):
                break
        if left:
            tasks.append(asyncio.create_task(some()))
        if begun is not None:
            await finish(begun, lambda _: None)

    tasks.append(asyncio.create_task(some()))
    for task in tasks:  # grows
        await asyncio.wait([task])
    return tasks


async def test_what_waits_for_nothing_shares_a_task() -> None:
    seen: list[object] = []

    async def work() -> None:
        seen.append(id(asyncio.current_task()))

    tasks = await host([work] * 5)
    assert len(tasks) == 1
    assert seen == [id(tasks[0])] * 5


async def test_each_has_a_context_of_its_own_in_all_its_steps() -> None:
    number = contextvars.ContextVar("number", default=0)
    seen: list[tuple[int, int]] = []

    def working(mine: int, *, waits: bool) -> Work:
        async def work() -> None:
            assert number.get() == 0
            number.set(mine)
            if waits:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            seen.append((mine, number.get()))

        return work

    await host([working(mine, waits=mine % 2 == 0) for mine in range(1, 7)])
    assert sorted(seen) == [(mine, mine) for mine in range(1, 7)]
    assert number.get() == 0


async def test_who_waits_has_one_task_from_the_first_step_to_the_last() -> None:
    seen: list[tuple[object, object]] = []

    async def quick() -> None:
        await asyncio.wait_for(asyncio.sleep(0), None)

    async def quicker() -> None:
        pass

    async def waits() -> None:
        first = asyncio.current_task()
        await asyncio.sleep(0)
        seen.append((first, asyncio.current_task()))

    tasks = await host([quicker, waits, quicker, quick, waits, waits])
    assert all(first is last for first, last in seen)
    assert len({id(first) for first, _ in seen}) == 3
    assert len(tasks) == 4


async def test_a_timeout_ends_the_one_it_is_around_alone() -> None:
    ended: list[str] = []

    async def impatient() -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            ended.append("in time")

    async def patient() -> None:
        await asyncio.sleep(0.05)
        ended.append("done")

    await host([impatient, patient, impatient, patient])
    assert sorted(ended) == ["done", "done", "in time", "in time"]


async def test_a_timeout_that_was_left_in_time_reaches_nobody_else() -> None:
    ended: list[str] = []

    async def quick() -> None:
        async with asyncio.timeout(0.01):  # noqa: ASYNC100
            ended.append("quick")

    async def patient() -> None:
        await asyncio.sleep(0.05)
        ended.append("patient")

    await host([quick, quick, patient])
    assert ended == ["quick", "quick", "patient"]


async def test_children_that_fail_end_the_group_of_their_own_alone() -> None:
    ended: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def parent() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(10)
        except* ValueError:
            ended.append("group")

    async def patient() -> None:
        await asyncio.sleep(0.02)
        ended.append("patient")

    await host([parent, patient, parent])
    assert sorted(ended) == ["group", "group", "patient"]


async def test_who_cancels_itself_and_ends_at_once_hits_nobody_else() -> None:
    ended: list[str] = []

    async def cancels() -> None:
        own(asyncio.current_task()).cancel()

    async def patient() -> None:
        await asyncio.sleep(0)
        ended.append("patient")

    tasks = await host([cancels, patient, patient])
    assert ended == ["patient", "patient"]
    assert [task.cancelled() for task in tasks] == [True, False, False]


async def test_a_task_that_somebody_keeps_is_not_shared_further() -> None:
    kept: list[object] = []
    ended: list[str] = []

    async def keeps() -> None:
        kept.append(asyncio.current_task())

    async def cancels_later() -> None:
        asyncio.get_running_loop().call_soon(own(asyncio.current_task()).cancel)

    async def patient() -> None:
        await asyncio.sleep(0.01)
        ended.append("patient")

    tasks = await host([keeps, keeps, cancels_later, patient])
    assert kept == tasks[:2]
    assert len(tasks) == 4
    assert ended == ["patient"]


async def test_cancelling_the_task_of_one_that_waits_reaches_its_code() -> None:
    seen: list[str] = []
    started = asyncio.Event()

    async def waits() -> None:
        started.set()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # it may take its time
            seen.append("cancelled")
            raise

    async def work() -> None:
        begun = begin(waits())
        assert begun is not None
        await finish(begun, lambda _: None)

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]


async def test_what_is_raised_is_raised_in_either_step() -> None:
    async def fail(*, waits: bool) -> None:
        if waits:
            await asyncio.sleep(0)
        raise KeyError("paper")

    with pytest.raises(KeyError):
        begin(fail(waits=False))
    begun = begin(fail(waits=True))
    assert begun is not None
    with pytest.raises(KeyError):
        await finish(begun, lambda _: None)


async def test_each_step_that_holds_up_the_loop_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    async def work() -> None:
        for _ in range(2):
            await asyncio.sleep(0)

    for longest, times in ((60.0, 0), (0.0, 2)):
        monkeypatch.setattr("zmesh.face.hosting.BLOCKING", longest)
        begun = begin(work())
        assert begun is not None
        await finish(begun, told.append)
        assert len(told) == times
