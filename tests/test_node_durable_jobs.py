"""Durable jobs of real nodes: stored before `push` returns, counted, bounded, and done later."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.nodes import QUICK
from zmesh import JournalFull, JournalOptions, Node, NodeOptions, Rejected, Storage, UsageError

SMALL = NodeOptions(queued_jobs_max=10, redeliver_min=0.01, redeliver_max=0.02)


@asynccontextmanager
async def kept(path: Path, name: str, options: NodeOptions = QUICK) -> AsyncIterator[Node]:
    """A node with a journal in a directory."""
    async with Node(name, mdns=False, storage=path / f"{name}.db", options=options) as node:
        yield node


async def take(node: Node, count: int) -> list[object]:
    """Take, and accept, so many jobs."""
    bodies: list[object] = []
    async with node.pull("work", prefetch=4) as jobs, asyncio.timeout(20):
        async for job in jobs:
            bodies.append(job.body)
            if len(bodies) == count:
                break
    return bodies


def waiting(node: Node) -> int:
    return node.statistics().engine.jobs_waiting


async def test_a_job_pushed_by_a_node_with_storage_is_done_in_another_life(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        receipt = await node.push("work", {"n": 1}, headers={"h": "x"}, key="k", priority=7)
        assert waiting(node) == 1
        report = await node.close()
        assert (report.unsettled_out, report.jobs_waiting) == (1, 1)
        assert receipt.done
    async with kept(tmp_path, "a") as node, node.pull("work") as jobs:
        job = await asyncio.wait_for(anext(jobs), 10)
        assert (job.body, dict(job.headers), job.key, job.priority, job.attempt) == (
            {"n": 1},
            {"h": "x"},
            "k",
            7,
            1,
        )


async def test_what_was_done_is_not_done_again_in_another_life(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        await node.push_many("work", range(20))
        assert await take(node, 12) == list(range(12))
    async with kept(tmp_path, "a") as node:
        assert 8 <= waiting(node) <= 20
        assert await take(node, 8) == list(range(12, 20))


async def test_more_jobs_than_a_queue_has_room_for_wait_on_disk(tmp_path: Path) -> None:
    async with kept(tmp_path, "a", SMALL) as node:
        async with asyncio.timeout(10):
            receipt = await node.push_many("work", range(500))
        assert waiting(node) == 500
        node.push_nowait("work", "of this life", priority=9)
        assert await take(node, 501) == ["of this life", *range(500)]
        assert await asyncio.wait_for(receipt, 10) == 500


async def test_jobs_with_a_key_wait_for_room_in_their_queue(tmp_path: Path) -> None:
    async with kept(tmp_path, "a", SMALL) as node:
        pushing = asyncio.create_task(node.push_many("work", range(50), key="k"))
        async with asyncio.timeout(10):
            while waiting(node) < SMALL.queued_jobs_max:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.01)
        single = asyncio.create_task(node.push("work", "last", key="k"))
        await asyncio.sleep(0.05)
        assert not pushing.done()
        assert not single.done()
        assert waiting(node) == SMALL.queued_jobs_max
        bodies = await take(node, 51)
        assert [body for body in bodies if isinstance(body, int)] == list(range(50))
        assert await asyncio.wait_for(await pushing, 10) == 50
        assert await asyncio.wait_for(await single, 10) == 1


async def test_a_job_for_this_life_alone_is_not_stored(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        await node.push("work", "one", durable=False)
        node.push_nowait("work", "two")
        await asyncio.sleep(0)
        assert waiting(node) == 2
    async with kept(tmp_path, "a") as node:
        assert waiting(node) == 0


async def test_durable_jobs_need_storage() -> None:
    async with Node("a", mdns=False) as node:
        with pytest.raises(UsageError, match="storage"):
            await node.push("work", "one", durable=True)
        with pytest.raises(UsageError, match="storage"):
            await node.push_many("work", ["one"], durable=True)


async def test_what_finds_no_room_on_disk_is_not_pushed(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "a.db", options=JournalOptions(journal_bytes_max=1024 * 1024))
    async with Node("a", mdns=False, storage=storage) as node:
        with pytest.raises(JournalFull):
            await node.push_many("work", [bytes(100_000)] * 20)
        there = waiting(node)
        assert there == 0
        with pytest.raises(JournalFull):
            await node.push("work", bytes(1_100_000), key="k")
        assert waiting(node) == there
        await node.push("work", bytes(100_000), key="k")
        assert waiting(node) == 1


async def test_what_an_exchange_sends_to_queues_is_stored(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        logs = await node.exchange("logs", kind="fanout")
        await logs.bind(queue="work")
        await logs.bind(queue="other")
        await logs.publish("one")
        await logs.publish("two", durable=False)
        await asyncio.sleep(0)
        assert waiting(node) == 4
    async with kept(tmp_path, "a") as node:
        assert waiting(node) == 2
        assert await take(node, 1) == ["one"]


async def test_delay_and_attempts_and_time_to_live_are_kept(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        at = datetime.now(UTC) + timedelta(seconds=1.5)
        await node.push("work", "late", at=at)
        await node.push("work", "over", ttl=0.2)
        await node.push("work", "bad", max_attempts=2)
        async with node.pull("work", settle="manual") as jobs:
            bad = await asyncio.wait_for(anext(jobs), 10)
            while bad.body != "bad":
                await bad.release(delay=5)
                bad = await asyncio.wait_for(anext(jobs), 10)
            await bad.fail("no")
            again = await asyncio.wait_for(anext(jobs), 10)
            assert (again.body, again.attempt) == ("bad", 2)
            await again.release(delay=1)
    await asyncio.sleep(0.2)
    async with kept(tmp_path, "a") as node, node.pull("work", settle="manual") as jobs:
        assert waiting(node) + node.statistics().engine.jobs_out <= 2
        job = await asyncio.wait_for(anext(jobs), 10)
        assert (job.body, job.attempt) == ("bad", 2)
        await job.reject("never")
        late = await asyncio.wait_for(anext(jobs), 10)
        assert late.body == "late"
        assert datetime.now(UTC) >= at
        await late.accept()


async def test_the_receipt_tells_what_became_of_a_stored_job(tmp_path: Path) -> None:
    async with kept(tmp_path, "a") as node:
        receipt = await node.push("work", "bad")
        async with node.pull("work", settle="manual") as jobs:
            job = await asyncio.wait_for(anext(jobs), 10)
            await job.reject("no good")
            with pytest.raises(Rejected, match="no good"):
                await asyncio.wait_for(receipt, 10)
    async with kept(tmp_path, "a") as node:
        assert waiting(node) == 0
