"""A queue that drops: which message goes, what the reader is told, and that nobody waits."""

import asyncio

import pytest

from tests.face.support import SOURCE, Verdicts, record_of
from zmesh.actions import Delivery
from zmesh.errors import SlowSubscriber
from zmesh.face.inbox import BatchReader, Reader
from zmesh.face.lossy import LossyQueue
from zmesh.message import Kind, Outcome, Tag, with_extra
from zmesh.terms import WhenFull

ACCEPTED = Outcome.ACCEPTED


class Bench:
    """A lossy queue, and what became of each message put into it."""

    def __init__(self, when_full: str, limit: int = 3) -> None:
        self.verdicts = Verdicts()
        self.queue = LossyQueue(
            asyncio.get_running_loop(), self.verdicts.settlements, "t", WhenFull(when_full), limit
        )
        self._next = 1

    def put(self, *bodies: object, topic: str = "t") -> None:
        """Deliver messages; their numbers go on from those before."""
        records = [record_of(each, Kind.PUBLICATION, topic) for each in bodies]
        last = self._next + len(bodies) - 1
        delivery = Delivery(SOURCE, "printer", self._next, last, records)
        self._next = last + 1
        self.queue.put(self.verdicts.settlements, delivery, 0, len(records))

    async def read(self) -> list[tuple[object, int]]:
        """Read what waits: bodies, each with the gap before it."""
        reader, found = Reader(self.queue, "auto"), []
        for _ in range(len(self.queue)):
            message = await anext(reader)
            found.append((message.body, message.gap))
        reader.leave(ACCEPTED)
        return found


async def test_oldest_make_room() -> None:
    bench = Bench("drop_oldest")
    bench.put(1, 2)
    bench.put(3, 4, 5)
    assert bench.verdicts.take() == [(1, 2, ACCEPTED)], "who published them is not kept waiting"
    assert await bench.read() == [(3, 2), (4, 0), (5, 0)]
    assert bench.queue.dropped == 2
    bench.put(6)
    assert await bench.read() == [(6, 0)]


async def test_newest_find_no_room() -> None:
    bench = Bench("drop_newest")
    bench.put(1, 2, 3, 4, 5)
    assert bench.verdicts.take() == [(4, 5, ACCEPTED)]
    assert await bench.read() == [(1, 0), (2, 0), (3, 0)]
    bench.put(6)
    assert await bench.read() == [(6, 2)]
    assert bench.queue.dropped == 2


async def test_latest_of_each_topic_is_kept_in_its_place() -> None:
    bench = Bench("latest")
    bench.put("x1", topic="x")
    bench.put("y1", topic="y")
    bench.put("x2", "x3", topic="x")
    assert await bench.read() == [("x3", 2), ("y1", 0)]
    bench.put("x4", topic="x")
    assert await bench.read() == [("x4", 0)]
    assert bench.queue.dropped == 2


async def test_latest_of_more_topics_than_the_limit_drops_the_oldest() -> None:
    bench = Bench("latest", 2)
    for number in range(100):
        bench.put(number, topic=str(number))
    assert await bench.read() == [(98, 98), (99, 0)]
    assert len(bench.queue._latest) <= 4


async def test_disconnect_ends_it() -> None:
    bench = Bench("disconnect")
    bench.put(1, 2, 3)
    reader = Reader(bench.queue, "auto")
    assert (await anext(reader)).body == 1
    bench.put(4)
    assert len(bench.queue) == 3
    bench.put(5)
    assert bench.queue.is_overrun
    with pytest.raises(SlowSubscriber, match=r"'t' has ended.*more than 3"):
        await anext(reader)
    with pytest.raises(SlowSubscriber):
        await bench.queue.take_one()
    bench.put(6)
    settled = {
        seq: outcome
        for first, last, outcome in bench.verdicts.take()
        for seq in range(first, last + 1)
    }
    assert settled.keys() == set(range(1, 7)), "nothing is left without a verdict"


async def test_reader_that_waits_is_told_of_the_end() -> None:
    bench = Bench("disconnect")
    task = asyncio.ensure_future(anext(Reader(bench.queue, "auto")))
    await asyncio.sleep(0)
    bench.queue.missed(1)
    with pytest.raises(SlowSubscriber):
        await task


async def test_what_publishers_dropped_is_told_with_the_next() -> None:
    bench = Bench("drop_oldest")
    bench.put(1)
    bench.queue.missed(5)
    bench.put(2)
    bench.queue.missed(7)
    assert await bench.read() == [(1, 0), (2, 5)]
    bench.put(3, 4)
    assert await bench.read() == [(3, 7), (4, 0)]
    assert bench.queue.dropped == 12


async def test_gaps_of_what_is_dropped_go_to_the_next() -> None:
    bench = Bench("drop_oldest", 2)
    bench.put(1)
    bench.queue.missed(5)
    bench.put(2, 3, 4)
    assert await bench.read() == [(3, 7), (4, 0)]


async def test_gap_before_what_expires_goes_to_the_next() -> None:
    bench = Bench("drop_oldest")
    bench.queue.missed(2)
    record = with_extra(record_of("late", Kind.PUBLICATION, "t"), Tag.TTL_MS, 1)
    delivery = Delivery(SOURCE, "printer", 1, 1, [record])
    bench.queue.put(bench.verdicts.settlements, delivery, 0, 1)
    bench.put("in time")
    await asyncio.sleep(0.005)
    reader = Reader(bench.queue, "auto")
    message = await anext(reader)
    assert (message.body, message.gap) == ("in time", 2)
    reader.leave(ACCEPTED)


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "latest"])
async def test_delivered_and_dropped_are_all_that_came(when_full: str) -> None:
    bench = Bench(when_full, 7)
    delivered = gaps = 0
    for number in range(200):
        bench.put(*range(number % 5), topic=str(number % 3))
        if number % 11 == 0:
            bench.queue.missed(number)
        if number % 4 == 0:
            for _, gap in await bench.read():
                delivered, gaps = delivered + 1, gaps + gap
        assert len(bench.queue) <= 7
    for _, gap in await bench.read():
        delivered, gaps = delivered + 1, gaps + gap
    published = sum(n % 5 for n in range(200)) + sum(range(0, 200, 11))
    assert delivered + bench.queue.dropped == published
    bench.put("last")
    gaps += (await bench.read())[0][1]
    assert gaps == bench.queue.dropped, "every drop is told with some message"


async def test_several_readers_share_it() -> None:
    bench = Bench("drop_oldest", 10)
    bench.put(*range(6))
    first, second = Reader(bench.queue, "auto"), Reader(bench.queue, "auto")
    bodies = [(await anext(each)).body for each in (first, second, first, second)]
    assert bodies == [0, 1, 2, 3]
    for each in (first, second):
        each.leave(ACCEPTED)


async def test_closing_gives_back_what_waits() -> None:
    bench = Bench("drop_oldest")
    bench.put(1, 2)
    bench.queue.close()
    bench.put(3, 4)
    released = [(first, last) for first, last, _ in bench.verdicts.take()]
    assert released == [(1, 1), (2, 2), (3, 4)]


async def test_what_a_cancelled_batch_gives_back_tells_its_gap_again() -> None:
    bench = Bench("drop_oldest")
    bench.put(1, 2, 3, 4, 5)
    batches = BatchReader(bench.queue, "auto", 10, 60.0)
    task = asyncio.ensure_future(anext(batches))
    async with asyncio.timeout(10):
        while len(bench.queue):  # noqa: ASYNC110
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    batches.leave(ACCEPTED)
    assert await bench.read() == [(3, 2), (4, 0), (5, 0)]
