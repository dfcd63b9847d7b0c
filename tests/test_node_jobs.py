"""Work queues of real nodes on loopback: push and pull, outcomes, batches, bounds, leaving."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

import zmesh
from tests.nodes import QUICK, nodes
from zmesh import Jobs, Message, Node


async def take(jobs: Jobs, count: int) -> list[Message]:
    """Take, and accept, so many jobs."""
    taken = []
    async for job in jobs:
        taken.append(job)
        if len(taken) == count:
            break
    return taken


async def test_a_pushed_job_is_pulled_and_its_receipt_tells() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        receipt = await a.push("work", {"n": 1}, headers={"h": "x"}, key="k", priority=7)
        [job] = await take(jobs, 1)
        assert (job.body, dict(job.headers), job.key, job.priority) == (
            {"n": 1},
            {"h": "x"},
            "k",
            7,
        )
        assert (job.topic, job.sender, job.attempt) == ("work", "a", 1)
        assert await asyncio.wait_for(receipt, 5) == 1


async def test_many_jobs_have_one_receipt() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        seen: list[int] = []

        async def work(node: Node) -> None:
            async with node.pull("work", prefetch=8) as jobs:
                async for job in jobs:
                    seen.append(job.body)  # noqa: PERF401  # told while it works

        workers = [asyncio.create_task(work(node)) for node in (a, b, c)]
        receipt = await a.push_many("work", range(1000))
        assert await asyncio.wait_for(receipt, 20) == 1000
        assert sorted(seen) == list(range(1000))
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def test_a_job_waits_for_somebody_to_pull() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push("work", "early")
        await asyncio.sleep(0.05)
        assert not receipt.done
        async with b.pull("work") as jobs:
            assert [job.body for job in await take(jobs, 1)] == ["early"]
            await asyncio.wait_for(receipt, 5)


async def test_a_rejected_job_raises_at_its_producer_and_is_kept() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work", settle="manual") as jobs:
        receipt = await a.push("work", "bad")
        job = await anext(jobs)
        await job.reject("no good")
        with pytest.raises(zmesh.Rejected, match="b rejected the message: no good"):
            await asyncio.wait_for(receipt, 5)
        [letter] = a.dead_letters()
        assert (letter.topic, letter.body) == ("work", "bad")


async def test_a_loop_that_raises_gives_the_job_back_until_it_is_a_dead_letter() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push("work", "bad")
        attempts = []
        for _ in range(3):
            with suppress(RuntimeError):
                async with b.pull("work") as jobs:
                    async for job in jobs:
                        attempts.append(job.attempt)
                        raise RuntimeError
        with pytest.raises(zmesh.DeadLettered):
            await asyncio.wait_for(receipt, 5)
        assert attempts == [1, 2, 3]


async def test_a_job_that_failed_comes_again_to_the_same_loop() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        receipt = await a.push("work", "hard", max_attempts=9)
        attempts = []
        async for job in jobs:
            attempts.append(job.attempt)
            if job.attempt == 3:
                break
            await job.fail("not yet")
        assert attempts == [1, 2, 3]
        assert await asyncio.wait_for(receipt, 5) == 1


async def test_a_released_job_comes_again_later_as_it_was() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work", settle="manual") as jobs:
        await a.push("work", "later")
        loop = asyncio.get_running_loop()
        await (await anext(jobs)).release(delay=0.2)
        start = loop.time()
        job = await anext(jobs)
        assert (job.body, job.attempt) == ("later", 1)
        assert loop.time() - start >= 0.15
        await job.accept()


async def test_leaving_the_block_gives_back_what_has_no_outcome() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push_many("work", range(10))
        async with b.pull("work", prefetch=5, settle="manual") as jobs:
            first, second = await anext(jobs), await anext(jobs)
            await first.accept()
        with pytest.raises(zmesh.AlreadySettled):
            await second.accept()
        async with b.pull("work") as jobs:
            again = await take(jobs, 9)
        assert sorted(job.body for job in again) == list(range(1, 10))
        assert all(job.attempt == 1 for job in again)
        assert await asyncio.wait_for(receipt, 5) == 10


async def test_leaving_the_loop_and_the_block_accepts_the_job_in_hand() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push("work", "one")
        async with b.pull("work") as jobs:
            async for _ in jobs:
                break
        assert await asyncio.wait_for(receipt, 5) == 1


async def test_batches_are_accepted_by_asking_for_the_next_and_by_leaving() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push_many("work", range(25))
        sizes: list[int] = []
        async with b.pull("work", prefetch=20) as jobs:
            while sum(sizes) < 25:
                batch = await jobs.batch(max_count=10, max_wait=0.2)
                assert [job.body for job in batch] == list(
                    range(sum(sizes), sum(sizes) + len(batch))
                )
                sizes.append(len(batch))
            assert receipt.accepted < 25
        assert sizes[:2] == [10, 10]
        assert await asyncio.wait_for(receipt, 5) == 25


async def test_a_batch_is_what_came_in_time() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        asking = asyncio.create_task(jobs.batch(max_count=10, max_wait=0.1))
        await asyncio.sleep(0.2)
        assert not asking.done()  # it waits for the first as long as that takes
        await a.push_many("work", range(3))
        batch = await asyncio.wait_for(asking, 5)
        assert [job.body for job in batch] == [0, 1, 2]


async def test_an_exception_gives_a_batch_back_but_for_what_was_settled() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push_many("work", range(3))
        with suppress(RuntimeError):
            async with b.pull("work") as jobs:
                batch = await jobs.batch(max_count=3, max_wait=1)
                await batch[1].accept()
                raise RuntimeError
        async with b.pull("work") as jobs:
            again = await take(jobs, 2)
        assert sorted((job.body, job.attempt) for job in again) == [(0, 2), (2, 2)]
        assert await asyncio.wait_for(receipt, 5) == 3


async def test_a_cancelled_batch_takes_nothing() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        asking = asyncio.create_task(jobs.batch(max_count=10, max_wait=10))
        receipt = await a.push_many("work", range(3))
        await asyncio.sleep(0.2)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [job.body for job in await take(jobs, 3)] == [0, 1, 2]
        assert await asyncio.wait_for(receipt, 5) == 3


async def test_a_loop_over_batches_that_raises_gives_the_batch_back() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        receipt = await a.push_many("work", range(40))
        attempts: dict[int, int] = {}
        failed: list[int] = []

        async def work(*, fails: bool) -> None:
            async for batch in jobs.batches(10):
                attempts.update({job.body: job.attempt for job in batch})
                if fails:
                    failed.extend(job.body for job in batch)
                    raise ValueError("no")
                if len(attempts) == 40 and all(attempts[body] == 2 for body in failed):
                    break

        with pytest.raises(ValueError, match="no"):
            await work(fails=True)
        assert 1 <= len(failed) <= 10
        await work(fails=False)
        assert await asyncio.wait_for(receipt, 5) == 40


async def test_several_tasks_read_batches_only_where_they_settle_themselves() -> None:
    async with nodes("a", "b") as (a, b):
        async with b.pull("work") as jobs:
            await a.push_many("work", range(2))
            await jobs.batch(max_count=1)
            with pytest.raises(zmesh.UsageError, match="another task takes jobs"):
                await asyncio.create_task(jobs.batch(max_count=1))
        async with b.pull("work", settle="manual") as jobs:
            await a.push_many("work", range(2))
            await jobs.batch(max_count=1)
            await asyncio.create_task(jobs.batch(max_count=1))


async def test_a_job_taken_alone_is_accepted_by_asking_for_the_next_and_by_leaving() -> None:
    async with nodes("a", "b") as (a, b):
        receipts = [await a.push("work", number) for number in range(2)]
        async with b.pull("work") as jobs:
            for receipt in receipts:  # each time another task asks, which ends with it
                await asyncio.wait_for(anext(jobs), 5)
                assert not receipt.done
            assert await asyncio.wait_for(receipts[0], 5) == 1
        assert await asyncio.wait_for(receipts[1], 5) == 1


async def test_a_job_taken_alone_may_fail_and_an_exception_gives_it_back() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.push("work", "one")
        with suppress(RuntimeError):
            async with b.pull("work") as jobs:
                await (await anext(jobs)).fail("not yet")
                assert (await anext(jobs)).attempt == 2
                raise RuntimeError
        async with b.pull("work") as jobs:
            assert (await anext(jobs)).attempt == 3
        assert await asyncio.wait_for(receipt, 5) == 1


@pytest.mark.parametrize("way", ["anext", "batch"])
@pytest.mark.parametrize("ending", ["fails", "is cancelled"])
async def test_what_a_task_took_that_failed_goes_back(way: str, ending: str) -> None:
    async def work(jobs: zmesh.Jobs) -> None:
        await (anext(jobs) if way == "anext" else jobs.batch(max_count=1))
        if ending == "fails":
            raise RuntimeError("not handled")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    async with nodes("a", "b") as (a, b):
        receipt = await a.push("work", "one")
        async with b.pull("work") as jobs:
            with suppress(RuntimeError, asyncio.CancelledError):
                await asyncio.create_task(work(jobs))
            again = await asyncio.wait_for(anext(jobs), 5)
            assert (again.body, again.attempt) == ("one", 2)
            await again.release()
            with suppress(RuntimeError, asyncio.CancelledError):
                await asyncio.create_task(work(jobs))
        async with b.pull("work") as jobs:
            assert (await asyncio.wait_for(anext(jobs), 5)).attempt == 3
            assert not receipt.done
        assert await asyncio.wait_for(receipt, 5) == 1


async def test_delay_and_at_say_when_a_job_may_begin() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await a.push("work", "third", at=datetime.now(UTC) + timedelta(seconds=0.4))
        await a.push("work", "second", delay=0.2)
        await a.push("work", "first", at=datetime.now(UTC) - timedelta(days=1))
        assert [job.body for job in await take(jobs, 3)] == ["first", "second", "third"]
        assert loop.time() - start >= 0.35


async def test_a_job_nobody_takes_in_time_expires() -> None:
    async with nodes("a") as (a,):
        receipt = await a.push("work", "old", ttl=0.05)
        with pytest.raises(zmesh.Expired):
            await asyncio.wait_for(receipt, 5)


async def test_a_full_queue_makes_producers_wait() -> None:
    options = replace(QUICK, queued_jobs_max=10)
    async with nodes("a", "b", options=options) as (a, b):
        many = asyncio.create_task(a.push_many("work", range(50)))
        await asyncio.sleep(0.1)
        assert not many.done()
        assert a.statistics().engine.jobs_waiting == 10
        one = asyncio.create_task(a.push("work", "one"))
        await asyncio.sleep(0.05)
        assert not one.done()
        with pytest.raises(
            zmesh.Backpressure, match=r"10 messages .* wait for queue 'work'.*`push`"
        ):
            a.push_nowait("work", "now")
        await a.push("other", "has room")
        async with b.pull("work") as jobs:
            taken = await take(jobs, 51)
            assert sorted(str(job.body) for job in taken) == sorted([*map(str, range(50)), "one"])
            assert await asyncio.wait_for(await many, 5) == 50
            assert await asyncio.wait_for(await one, 5) == 1


async def test_flush_waits_for_jobs() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work") as jobs:
        await a.push_many("work", range(20))
        reading = asyncio.create_task(take(jobs, 20))
        await asyncio.wait_for(a.flush(), 5)
        assert len(await reading) == 20
        assert a.statistics().engine.jobs_waiting == 0


async def test_close_tells_how_many_jobs_waited() -> None:
    async with nodes("a") as (a,):
        receipt = await a.push_many("work", range(3))
        report = await a.close(drain=10)
        assert report == zmesh.DrainReport(unsettled_out=3, unsettled_in=0, jobs_waiting=3)
        assert len(receipt.failures) == 3
        with pytest.raises(zmesh.Closed):
            await receipt
        with pytest.raises(zmesh.Closed):
            await a.push("work", "late")


async def test_a_drain_finishes_the_job_in_hand_and_gives_back_the_others() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        begun = asyncio.Event()
        done: list[int] = []

        async def work() -> None:
            async with b.pull("work", prefetch=4) as jobs:
                async for job in jobs:
                    begun.set()
                    await asyncio.sleep(0.2)
                    done.append(job.body)

        working = asyncio.create_task(work())
        receipt = await a.push_many("work", range(4))
        await begun.wait()
        report = await b.close(drain=10)
        assert report == zmesh.DrainReport(0, 0)
        await working
        assert done == [0]
        async with c.pull("work") as jobs:
            assert [job.body for job in await take(jobs, 3)] == [1, 2, 3]
            assert await asyncio.wait_for(receipt, 5) == 4


async def test_a_drain_finishes_jobs_that_others_do() -> None:
    async with nodes("a", "b") as (a, b), b.pull("work", prefetch=2) as jobs:
        receipt = await a.push_many("work", range(50))
        await take(jobs, 1)  # it knows who pulls
        reading = asyncio.create_task(take(jobs, 49))
        report = await a.close(drain=10)
        assert report == zmesh.DrainReport(0, 0)
        assert receipt.accepted == 50
        await reading


async def test_a_cancelled_push_pushes_nothing_and_lets_the_next_go() -> None:
    options = replace(QUICK, queued_jobs_max=1)
    async with nodes("a", "b", options=options) as (a, b):
        await a.push("work", 1)
        waiting = asyncio.create_task(a.push("work", 2))
        following = asyncio.create_task(a.push("work", 3))
        await asyncio.sleep(0.05)
        waiting.cancel()
        async with b.pull("work") as jobs:
            assert [job.body for job in await take(jobs, 2)] == [1, 3]
            await (await following)
        assert waiting.cancelled()


async def test_jobs_end_with_the_node() -> None:
    async with nodes("a", "b") as (_, b), b.pull("work") as jobs:
        reading = asyncio.create_task(take(jobs, 1))
        batching = asyncio.create_task(jobs.batch())
        await asyncio.sleep(0)
        await b.close()
        assert await asyncio.wait_for(reading, 5) == []
        assert await asyncio.wait_for(batching, 5) == []


async def test_what_cannot_work_is_refused_at_once() -> None:
    options = replace(QUICK, pulls_max=1, queues_max=1)
    async with nodes("a", options=options) as (a,):
        for queue in ("", 7, "x" * 2000):
            with pytest.raises(zmesh.InvalidOption, match="queue="):
                await a.push(queue, 1)  # type: ignore[arg-type]
            with pytest.raises(zmesh.InvalidOption, match="queue="):
                a.pull(queue)  # type: ignore[arg-type]
        for name, value in {
            "key": 3, "priority": 10, "ttl": 0, "delay": -1, "max_attempts": 0,
            "at": datetime(2030, 1, 1),  # noqa: DTZ001
        }.items():  # fmt: skip
            with pytest.raises(zmesh.InvalidOption, match=f"{name}="):
                await a.push("work", 1, **{name: value})  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match="at="):
            await a.push("work", 1, delay=1, at=datetime.now(UTC))
        with pytest.raises(zmesh.InvalidOption, match=r"ttl=1.* more than the 2 s"):
            await a.push("work", 1, ttl=1, delay=2)
        for body in (object(), {"x": object()}):
            with pytest.raises(zmesh.BodyNotEncodable):
                await a.push("work", body)
        for prefetch in (0, True, 1.5):
            with pytest.raises(zmesh.InvalidOption, match="prefetch="):
                a.pull("work", prefetch=prefetch)  # type: ignore[arg-type]
        with pytest.raises(zmesh.InvalidOption, match="settle="):
            a.pull("work", settle="never")  # type: ignore[arg-type]
        await a.push("work", 1)
        with pytest.raises(zmesh.UsageError, match="jobs wait in 1 queues already"):
            await a.push("other", 1)
        jobs = a.pull("work", prefetch=4)
        with pytest.raises(zmesh.UsageError, match="pulling begins with `async with`"):
            await jobs.batch()
        with pytest.raises(zmesh.UsageError, match="pulling begins with `async with`"):
            await anext(jobs)
        async with jobs:
            with pytest.raises(zmesh.InvalidOption, match="max_count=0"):
                await jobs.batch(max_count=0)
            with pytest.raises(zmesh.InvalidOption, match="max_count="):
                jobs.batches("all")  # type: ignore[arg-type]
            with pytest.raises(zmesh.InvalidOption, match="max_wait="):
                await jobs.batch(max_count=1, max_wait=-1)
            with pytest.raises(zmesh.UsageError, match="this node has 1 pulls already"):
                async with a.pull("work"):
                    pass
        with pytest.raises(zmesh.UsageError, match="were pulled before"):
            async with jobs:
                pass


async def test_an_error_in_the_middle_of_many_pushes_none_of_its_piece() -> None:
    async with nodes("a", "b") as (a, b):
        with pytest.raises(zmesh.BodyNotEncodable):
            await a.push_many("work", [1, 2, object(), 4])
        await a.push("work", "next")
        async with b.pull("work") as jobs:
            assert [job.body for job in await take(jobs, 1)] == ["next"]
