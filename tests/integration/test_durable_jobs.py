"""Durable jobs of real processes that are killed, on loopback."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import Child, run
from zmesh import Jobs, Message, Node

CONSUMER = "tests/integration/programs/durable_consumer.py"
PRODUCER = "tests/integration/programs/durable_producer.py"


@asynccontextmanager
async def producer(
    directory: Path, node: Node, what: str, argument: float = 0
) -> AsyncIterator[tuple[Child, int]]:
    """Run a producer with the journal in a directory; tell how many jobs it found there."""
    journal = str(directory / "shop.db")
    async with run(PRODUCER, journal, node.endpoints[0], what, f"{argument:g}") as child:
        word, waiting = (await child.line()).split()
        assert word == "open"
        yield child, int(waiting)


async def killed(child: Child) -> str:
    """Kill a child; return what it still said."""
    child.process.kill()
    _, out, error = await child.ended()
    assert error == ""
    return out


async def next_job(jobs: Jobs) -> Message:
    return await asyncio.wait_for(anext(jobs), 20)


async def test_each_stored_job_is_done_once_where_its_producer_is_killed(tmp_path: Path) -> None:
    stored: set[int] = set()
    done: list[Message] = []
    is_more = asyncio.Event()

    async def work(node: Node) -> None:
        async with node.pull("work", prefetch=8) as jobs:
            async for job in jobs:
                done.append(job)
                is_more.set()

    async with Node("worker", mdns=False, storage=tmp_path / "worker.db") as node:
        working = asyncio.create_task(work(node))
        for life in range(4):
            async with producer(tmp_path, node, "numbers", 10_000 * life) as (child, _):
                stored |= {int(await child.line()) for _ in range(150)}
                stored |= set(map(int, (await killed(child)).split("\n")[:-1]))
        async with producer(tmp_path, node, "nothing"), asyncio.timeout(30):
            while not stored <= {job.body for job in done}:
                is_more.clear()
                await is_more.wait()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert max(Counter(job.body for job in done).values()) == 1
    for key in ("k0", "k1", "k2"):
        numbers = [job.body for job in done if job.key == key]
        assert numbers == sorted(numbers), key


async def test_attempts_outlive_a_killed_producer(tmp_path: Path) -> None:
    async with (
        Node("worker", mdns=False, storage=tmp_path / "worker.db") as node,
        node.pull("work", settle="manual") as jobs,
    ):
        async with producer(tmp_path, node, "one") as (child, _):
            for attempt in (1, 2):
                job = await next_job(jobs)
                assert job.attempt == attempt
                await job.fail("not yet")
            job = await next_job(jobs)
            assert job.attempt == 3
            await job.fail("not yet")
            job = await next_job(jobs)  # so what was counted before is on disk
            await killed(child)
        async with producer(tmp_path, node, "nothing") as (_, waiting):
            assert waiting == 1
            await job.release()  # it was begun in a session that is over
            again = await next_job(jobs)
            assert (again.body, again.attempt >= 4) == ("one", True)
            await again.accept()


async def test_a_delayed_job_comes_at_its_time_after_its_producer_was_killed(
    tmp_path: Path,
) -> None:
    async with (
        Node("worker", mdns=False, storage=tmp_path / "worker.db") as node,
        node.pull("work") as jobs,
    ):
        begun = time.time()
        async with producer(tmp_path, node, "delayed", 4.0) as (child, _):
            assert await child.line() == "stored"
            await killed(child)
        async with producer(tmp_path, node, "nothing") as (_, waiting):
            assert waiting == 1
            job = await next_job(jobs)
            assert 4.0 <= time.time() - begun < 8.0
            assert (job.body, job.attempt) == ("late", 1)


async def test_no_job_is_lost_where_its_consumer_is_killed(tmp_path: Path) -> None:
    done: list[int] = []
    async with Node("shop", mdns=False, storage=tmp_path / "shop.db") as shop:
        receipt = await shop.push_many("work", range(400))
        arguments = (str(tmp_path / "worker.db"), shop.endpoints[0])
        for _ in range(3):
            async with run(CONSUMER, *arguments) as child:
                done += [int(await child.line()) for _ in range(80)]
                done += map(int, (await killed(child)).split("\n")[:-1])
        async with run(CONSUMER, *arguments) as child:
            while len(set(done)) < 400:
                done.append(int(await child.line()))
            assert await asyncio.wait_for(receipt, 20) == 400
    assert len(done) < 2 * 400, "it remembers all but what it did last"
