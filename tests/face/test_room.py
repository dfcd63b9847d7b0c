"""Waiting for room, first come first served."""

import asyncio

import pytest

from zmesh.face.room import RoomQueues


class Bench:
    """One place with so much room."""

    def __init__(self, room: int = 0) -> None:
        self.room = room
        self.went: list[str] = []
        self.queues: RoomQueues[str] = RoomQueues(
            asyncio.get_running_loop(), lambda _: self.room > 0
        )

    async def go(self, name: str) -> None:
        await self.queues.wait("p")
        self.room -= 1
        self.went.append(name)
        self.queues.passed("p")


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_those_who_wait_go_in_order_as_far_as_room_goes() -> None:
    bench = Bench()
    tasks = [asyncio.create_task(bench.go(name)) for name in "abcd"]
    await settle()
    bench.room = 2
    bench.queues.passed("p")
    await settle()
    assert bench.went == ["a", "b"]
    bench.room = 9
    bench.queues.passed_all()
    await asyncio.wait(tasks)
    assert bench.went == ["a", "b", "c", "d"]
    assert bench.queues.is_free("p")


async def test_nobody_slips_in_before_one_who_was_woken() -> None:
    bench = Bench()
    task = asyncio.create_task(bench.go("a"))
    await settle()
    bench.room = 1
    bench.queues.passed("p")
    assert not bench.queues.is_free("p")
    await task
    assert not bench.queues.is_free("p")
    bench.room = 1
    assert bench.queues.is_free("p")


@pytest.mark.parametrize("is_woken", [False, True])
async def test_one_who_gives_up_lets_the_next_go(is_woken: bool) -> None:
    bench = Bench()
    first = asyncio.create_task(bench.go("a"))
    second = asyncio.create_task(bench.go("b"))
    await settle()
    if is_woken:
        bench.room = 1
        bench.queues.passed("p")
    first.cancel()
    await settle()
    bench.room = 1
    bench.queues.passed("p")
    await second
    assert bench.went == ["b"]


async def test_all_go_where_there_is_nothing_to_wait_for() -> None:
    bench = Bench()
    tasks = [asyncio.create_task(bench.go(name)) for name in "abc"]
    await settle()
    bench.queues.gone("p")
    await asyncio.wait(tasks)
    assert bench.went == ["a", "b", "c"]
    task = asyncio.create_task(bench.go("d"))
    await settle()
    bench.queues.close()
    await task
