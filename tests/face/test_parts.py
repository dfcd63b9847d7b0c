"""Parts of a stream: read in order and told as taken, written as there is room."""

import asyncio
from collections.abc import Callable

import pytest

from tests.face.support import record_of
from zmesh.errors import StreamBroken, UsageError
from zmesh.events import Event, TakeParts, WritePart
from zmesh.face.parts import STREAK_MAX, BodyParts, PartQueue, PartWriter, WholeBody
from zmesh.message import Kind, Record, size_of


def part(body: object) -> Record:
    return record_of(body, Kind.STREAM)


class Ground:
    """Notes commands, and lets the room be what the test says."""

    def __init__(self) -> None:
        self.commands: list[Event] = []
        self.flushes = 0
        self.rooms: list[tuple[int, int]] = []

    def command(self, event: Event) -> None:
        self.commands.append(event)

    def flush(self) -> None:
        self.flushes += 1

    def room(self, stream: int) -> tuple[int, int]:
        assert stream == 2
        return self.rooms.pop(0) if self.rooms else (0, 0)


def queue_of(ground: Ground, parts: int = 1000, size: int = 100_000) -> PartQueue:
    return PartQueue(2, ground.command, parts, size)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_parts_are_read_in_order_until_the_end() -> None:
    queue = queue_of(Ground())
    queue.put([part(1), part(2)])
    queue.end()
    assert [await queue.take(), await queue.take()] == [part(1), part(2)]
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await queue.take()


async def test_what_came_is_read_before_the_error() -> None:
    queue = queue_of(Ground())
    queue.put([part(1)])
    queue.end(StreamBroken("b", "gone"))
    queue.put([part(2)])
    queue.end()
    assert await queue.take() == part(1)
    with pytest.raises(StreamBroken):
        await queue.take()


async def test_a_reader_waits_for_the_next_part() -> None:
    queue = queue_of(Ground())
    reading = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    with pytest.raises(UsageError):
        await queue.take()
    queue.put([part(1)])
    assert await reading == part(1)


async def test_a_reader_that_is_cancelled_takes_nothing_along() -> None:
    queue = queue_of(Ground())
    reading = asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.put([part(1)])
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert await queue.take() == part(1)


async def test_what_was_taken_is_told_by_the_quarter_window() -> None:
    ground = Ground()
    queue = queue_of(ground, parts=8, size=1000)
    queue.put([part(n) for n in range(5)])
    sizes = [size_of(await queue.take()) for _ in range(5)]
    assert ground.commands == [TakeParts(2, 2, sum(sizes[:2])), TakeParts(2, 2, sum(sizes[2:4]))]
    queue.put([part("x" * 300)])
    size = size_of(await queue.take())
    assert ground.commands[2:] == [TakeParts(2, 2, sizes[4] + size)]


async def test_a_reader_that_never_waits_lets_others_run() -> None:
    queue = queue_of(Ground())
    queue.put([part(n) for n in range(STREAK_MAX + 1)])
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for _ in range(STREAK_MAX):
        await queue.take()
    assert not turns
    await queue.take()
    assert turns


async def test_a_body_is_asked_for_when_it_is_read() -> None:
    ground = Ground()
    queue = queue_of(ground)
    asked: list[int] = []
    body = BodyParts(queue, lambda: asked.append(1))
    assert not asked
    queue.put([part({"n": 1}), part(b"raw")])
    queue.end()
    assert [each async for each in body] == [{"n": 1}, b"raw"]
    assert [each async for each in body] == []
    assert asked == [1]


async def test_a_whole_body_is_one_part() -> None:
    assert [each async for each in WholeBody(lambda: 7)] == [7]


async def test_a_writer_waits_for_room() -> None:
    ground = Ground()
    writer = PartWriter(2, ground, ground.room)
    writing = asyncio.ensure_future(writer.write(part(1)))
    await soon(lambda: ground.flushes > 0)
    assert not ground.commands
    ground.rooms = [(2, 1000)]
    writer.wake()
    await writing
    await writer.write(part(2))
    assert ground.commands == [WritePart(2, part(1)), WritePart(2, part(2))]
    third = asyncio.ensure_future(writer.write(part(3)))
    await asyncio.sleep(0)
    assert len(ground.commands) == 2
    third.cancel()
    with pytest.raises(asyncio.CancelledError):
        await third


async def test_the_bytes_of_a_part_count_when_it_is_written() -> None:
    ground = Ground()
    ground.rooms = [(9, 10), (9, 10)]
    writer = PartWriter(2, ground, ground.room)
    await writer.write(part(b"x" * 500))
    await writer.write(part(b"y"))
    assert (len(ground.commands), ground.rooms) == (2, [])


async def test_a_writer_that_never_waits_lets_others_run() -> None:
    ground = Ground()
    ground.rooms = [(10_000, 1_000_000)]
    writer = PartWriter(2, ground, ground.room)
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    for n in range(STREAK_MAX):
        assert not turns
        await writer.write(part(n))
    assert turns
