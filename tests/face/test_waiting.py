"""What tasks wait for that are woken together: as with a future, but for the one call."""

import asyncio
import contextvars

import pytest

from zmesh.face.waiting import Waiting, Waking


class Bench:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen: list[object] = []
        self.waking = Waking(
            self.loop, lambda: self.seen.append("before"), lambda: self.seen.append("after")
        )

    def waiting(self) -> Waiting[object]:
        return Waiting(self.loop)

    async def wait(self, waiting: Waiting[object], name: str = "") -> object:
        answer = await waiting
        self.seen.append(name)
        return answer

    def answer(self, *some: Waiting[object]) -> None:
        for waiting in some:
            waiting.answer = "answer"
        self.waking.add(some)


async def test_all_that_have_answers_are_woken_in_one_call_in_order() -> None:
    bench = Bench()
    waiting = [bench.waiting() for _ in range(3)]
    tasks = [
        asyncio.create_task(bench.wait(each, name))
        for each, name in zip(waiting, "abc", strict=True)
    ]
    await asyncio.sleep(0)
    bench.answer(waiting[2], waiting[0])
    bench.answer(waiting[1])
    assert bench.seen == []
    assert await asyncio.gather(*tasks) == ["answer"] * 3
    assert bench.seen == ["before", "c", "a", "b", "after"]


async def test_what_has_its_answer_is_not_waited_for() -> None:
    bench = Bench()
    waiting = bench.waiting()
    bench.answer(waiting)
    assert await bench.wait(waiting) == "answer"
    assert bench.seen == [""]
    await asyncio.sleep(0)
    assert bench.seen == ["", "before", "after"]


async def test_a_task_goes_on_in_its_own_context() -> None:
    bench = Bench()
    number = contextvars.ContextVar("number", default=0)
    seen: list[int] = []

    async def work(waiting: Waiting[object], own: int) -> None:
        number.set(own)
        await waiting
        seen.append(number.get())

    some = [bench.waiting(), bench.waiting()]
    tasks = [asyncio.create_task(work(each, own)) for own, each in enumerate(some, 1)]
    await asyncio.sleep(0)
    bench.answer(*some)
    await asyncio.gather(*tasks)
    assert (seen, number.get()) == ([1, 2], 0)


async def test_a_task_that_is_cancelled_while_it_waits_goes_on_with_that() -> None:
    bench = Bench()
    waiting = bench.waiting()
    task = asyncio.create_task(bench.wait(waiting))
    await asyncio.sleep(0)
    before = waiting.is_over
    assert task.cancel("enough")
    assert (before, waiting.is_over) == (False, True)
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert task.cancelled()


async def test_a_task_that_is_cancelled_after_its_answer_came_is_cancelled_still() -> None:
    bench = Bench()
    waiting = bench.waiting()
    task = asyncio.create_task(bench.wait(waiting))
    await asyncio.sleep(0)
    bench.answer(waiting)
    assert not waiting.cancel()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert bench.seen == ["before", "after"]


async def test_a_task_is_woken_once_by_a_cancellation_and_an_answer() -> None:
    bench = Bench()
    waiting = bench.waiting()

    async def patient() -> str:
        try:
            await waiting
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
        return "went on"

    task = asyncio.create_task(patient())
    await asyncio.sleep(0)
    task.cancel()
    bench.waking.add([waiting])  # whoever has the answer may not know yet
    assert await task == "went on"


async def test_a_timeout_around_it_ends_the_waiting() -> None:
    bench = Bench()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await bench.waiting()


async def test_a_task_that_ends_the_loop_leaves_none_of_the_others_asleep() -> None:
    class Ends(Waiting[object]):
        def wake(self) -> None:
            raise SystemExit

    bench = Bench()
    waiting = bench.waiting()
    task = asyncio.create_task(bench.wait(waiting, "other"))
    await asyncio.sleep(0)
    waiting.answer = "answer"
    bench.waking._ready = [Ends(bench.loop), waiting]
    with pytest.raises(SystemExit):
        bench.waking._wake()
    assert await task == "answer"
    assert bench.seen == ["before", "after", "before", "other", "after"]
