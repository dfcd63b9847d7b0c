"""Jobs with keys for four consumers, of which one is killed and replaced each second.

`python -m tests.chaos.work_queue --jobs 100000 --kills 10` prints a line of JSON, and fails where
a job is lost, begins before the one of its key that was pushed before, or is done twice without a
consumer having died with it. `--jobs 5000 --kills 3` takes seconds.

A consumer does a job by writing a line to a file of its own, and accepts it then: what is there
twice was done twice. Of jobs that were done and whose consumer was killed before the producer
heard of it, nobody can know that; the producer counts all that may be among them.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import Child, run, say

PROGRAM = "tests/chaos/work_queue.py"
QUEUE = "work"
CONSUMERS = 4
KEYS = 1000
PREFETCH = 64
PATIENCE_S = 120.0

Figures = dict[str, Any]


# A consumer


async def consume(name: str, known: str, place: str) -> None:
    """Do jobs until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    done = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with zmesh.Node(name, mdns=False, peers=[known]) as node:

        async def work() -> None:
            async with node.pull(QUEUE, prefetch=PREFETCH, settle="manual") as jobs:
                say("pulling")
                async for job in jobs:
                    digest = sha256(job.body["data"]).hexdigest()[:8]
                    line = f"{time.monotonic_ns()} {job.body['number']} {job.attempt} {digest}\n"
                    os.write(done, line.encode())
                    await job.accept()

        working = asyncio.create_task(work())
        await stop.wait()
        await node.close(drain=5)
        await working
    os.close(done)


# The producer, which kills them


@dataclass(frozen=True)
class Done:
    """That a job was done."""

    at_ns: int
    number: int
    attempt: int
    life: str


class Consumers:
    """The consumers that live, and what all there ever were have done."""

    def __init__(self, stack: AsyncExitStack, known: str, place: Path) -> None:
        self._stack = stack
        self._known = known
        self._place = place
        self._lives = 0
        self._living: dict[str, Child] = {}  # by file
        self._pulling: set[str] = set()
        self.killed_ns: dict[str, int] = {}

    async def start(self) -> None:
        """Start one more."""
        self._lives += 1
        life = f"life-{self._lives}"
        arguments = (f"consumer-{self._lives}", self._known, str(self._place / life))
        child = await self._stack.enter_async_context(run(PROGRAM, "consume", *arguments))
        self._living[life] = child

    async def ready(self) -> None:
        """Wait until all pull."""
        for life, child in self._living.items():
            if life not in self._pulling:
                assert await child.line() == "pulling"
                self._pulling.add(life)

    async def kill(self) -> None:
        """Kill one, each in its turn, and start another."""
        life = next(iter(self._living))  # the oldest, so that each has done some
        child = self._living.pop(life)
        self.killed_ns[life] = time.monotonic_ns()
        child.process.kill()
        await self.start()
        await child.process.wait()

    async def stop(self) -> None:
        """Let all end well."""
        await self.ready()
        for child in self._living.values():
            child.process.terminate()
        for child in self._living.values():
            status, _, error = await child.ended()
            assert (status, error) == (0, ""), error

    def done(self) -> list[Done]:
        """Return all that was done, in that order."""
        found = []
        for path in self._place.iterdir():
            for line in path.read_text().splitlines():
                at, number, attempt, _ = line.split()
                found.append(Done(int(at), int(number), int(attempt), path.name))
        return sorted(found, key=lambda each: each.at_ns)


async def main(jobs: int, kills: int) -> Figures:
    """Push so many jobs, an equal share each second; kill a consumer amid each share."""
    place = Path(tempfile.mkdtemp(prefix="zmesh-"))
    try:
        async with AsyncExitStack() as stack:
            node = await stack.enter_async_context(zmesh.Node("producer", mdns=False))
            consumers = Consumers(stack, node.endpoints[0], place)
            for _ in range(CONSUMERS):
                await consumers.start()
            await consumers.ready()
            return await push_and_kill(node, consumers, jobs, kills)
    finally:
        await asyncio.to_thread(shutil.rmtree, place)


async def push_and_kill(node: zmesh.Node, consumers: Consumers, jobs: int, kills: int) -> Figures:
    """Do what there is to do, and return how it went."""
    begun = time.monotonic()
    receipts: list[zmesh.Receipt] = []
    for share in range(kills):
        numbers = range(share * jobs // kills, (share + 1) * jobs // kills)
        for number in numbers:
            body = {"number": number, "data": number.to_bytes(4) * 25}
            receipts.append(await node.push(QUEUE, body, key=f"key-{number % KEYS}"))
        await settled(node, len(receipts), numbers.start + len(numbers) // 3)
        await consumers.kill()
        await asyncio.sleep(max(0.0, begun + share + 1 - time.monotonic()))
    await settled(node, len(receipts), jobs)
    seconds = time.monotonic() - begun
    engine = node.statistics().engine
    await consumers.stop()
    done = await asyncio.to_thread(consumers.done)
    return {
        "program": "work_queue",
        "jobs": jobs,
        "accepted": sum(receipt.accepted for receipt in receipts),
        "failed": sum(len(receipt.failures) for receipt in receipts),
        **judge(done, consumers.killed_ns, jobs),
        "uncertain": engine.jobs_uncertain,
        "kills": len(consumers.killed_ns),
        "seconds": round(seconds, 1),
        "jobs_a_second": round(jobs / seconds),
    }


async def settled(node: zmesh.Node, pushed: int, count: int) -> None:
    """Wait until so many jobs have their outcome."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            engine = node.statistics().engine
            if pushed - engine.jobs_waiting - engine.jobs_out >= count:
                return
            await asyncio.sleep(0.02)


def judge(done: list[Done], killed_ns: dict[str, int], jobs: int) -> Figures:
    """Return what there is to say of what was done."""
    lives: dict[int, list[str]] = defaultdict(list)  # in which each job was done
    last: dict[int, int] = {}  # job begun of each key
    overtaken = 0
    for each in done:
        if each.number not in lives:
            key = each.number % KEYS
            overtaken += each.number < last.get(key, -1)
            last[key] = each.number
        lives[each.number].append(each.life)
    again = [life for all_lives in lives.values() for life in all_lives[:-1]]
    took_ms = []
    for at_ns in killed_ns.values():
        moved = [each.at_ns for each in done if each.attempt > 1 and each.at_ns > at_ns]
        took_ms += [(moved[0] - at_ns) / 1e6] if moved else []
    return {
        "lost": jobs - len(lives),
        "overtaken": overtaken,
        "done_again": len(again),
        "done_again_though_nobody_died": sum(life not in killed_ns for life in again),
        "moved_after_ms": round(statistics.median(took_ms)) if took_ms else None,
    }


def ok(figures: Figures) -> bool:
    """Return whether every promise was kept."""
    return (
        figures["accepted"] == figures["jobs"]
        and not figures["lost"]
        and not figures["overtaken"]
        and not figures["done_again_though_nobody_died"]
        and figures["done_again"] <= figures["uncertain"]
    )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "consume":
        asyncio.run(consume(*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--jobs", type=int, default=100_000)
        parser.add_argument("--kills", type=int, default=10, help="one each second")
        told = parser.parse_args()
        result = asyncio.run(main(told.jobs, told.kills))
        result["ok"] = ok(result)
        say(json.dumps(result))
        sys.exit(not result["ok"])
