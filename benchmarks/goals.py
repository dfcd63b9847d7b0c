"""`python -m benchmarks.goals`: what is asked of zmesh itself, whatever others reach."""

import asyncio
import os
import signal
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import zmesh
from benchmarks.nodes import beside, consume, serve_in
from benchmarks.processes import expect, role
from benchmarks.system import wait_for_end
from benchmarks.turns import fresh_name

BATCH = 1_000
RUNS = 5
LIMIT_MS = 500.0


def main() -> int:
    """Measure and print a table; return 0 where all goals are reached."""
    failover_ms = 1000 * statistics.median(failover(RUNS))
    cpu, resident_mib = idle(peers=10, seconds=20.0)
    retransmitted = healthy(1_000_000, bytes(100))
    rows = [
        ("kill -9 of a provider to its calls answered (200 ms of it the handler)",
         f"{failover_ms:.0f} ms", "at most 500 ms", failover_ms <= LIMIT_MS),
        ("idle with 10 peers", f"{100 * cpu:.1f} % of a core", "under 1 %", cpu < 0.01),
        ("idle with 10 peers", f"{resident_mib:.0f} MiB", "under 60 MiB", resident_mib < 60),
        ("retransmitted of a million on a healthy link", str(retransmitted), "0",
         retransmitted == 0),
    ]  # fmt: skip
    print("| what | zmesh | goal | reached |\n| --- | --- | --- | --- |")
    for what, reached, goal, is_reached in rows:
        print(f"| {what} | {reached} | {goal} | {'yes' if is_reached else 'no'} |")
    return 0 if all(is_reached for *_, is_reached in rows) else 1


def failover(runs: int) -> list[float]:
    """Return the sorted times from `kill -9` of a provider until another has answered its call."""

    async def measure(node: zmesh.Node, pid: int) -> float:
        calls = [asyncio.create_task(node.call("slow", b"", timeout=10)) for _ in range(8)]
        await asyncio.sleep(0.05)
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await asyncio.gather(*calls)
        return time.perf_counter() - began

    async def once() -> float:
        mesh = fresh_name()
        with (
            role(serve_in, _serve, mesh) as (left, victim),
            role(serve_in, _serve, mesh) as (right, _),
        ):
            expect(left)
            expect(right)
            async with zmesh.Node(mesh=mesh, key=()) as node:
                await node.peers.wait_for(service="slow", count=2, timeout=10)
                return await measure(node, victim.pid)

    return sorted(asyncio.run(once()) for _ in range(runs))


def idle(peers: int, seconds: float) -> tuple[float, float]:
    """Return the share of a core and the MiB that an idle node with so many peers uses."""
    mesh = fresh_name()
    with (
        role(_run_many, mesh, peers) as (others, _),
        role(_idle, mesh, peers, seconds) as (one, _),
    ):
        expect(others)
        cpu, resident = expect(one)
        return cpu / seconds, resident


def healthy(count: int, body: bytes) -> int:
    """Return how many records a stream of `count` over a healthy link retransmits."""

    async def produce(node: zmesh.Node) -> int:
        await node.peers.wait_for(name="consumer", timeout=10)
        for _ in range(count // BATCH):
            await node.post_many("consumer", [body] * BATCH)
        await node.flush()
        return sum(link.retransmitted for link in node.statistics().links.values())

    return int(beside(produce, consume))


def _run_many(pipe: Connection, mesh: str, count: int) -> None:
    async def main() -> None:
        nodes = [zmesh.Node(f"peer-{number}", mesh=mesh, key=()) for number in range(count)]
        for node in nodes:
            await node.__aenter__()
        pipe.send("ready")
        await asyncio.to_thread(wait_for_end, pipe)
        for node in nodes:
            await node.close()

    asyncio.run(main())


def _idle(pipe: Connection, mesh: str, peers: int, seconds: float) -> None:
    async def main() -> None:
        async with zmesh.Node(mesh=mesh, key=()) as node:
            await node.peers.wait_for(count=peers, timeout=20)
            await asyncio.sleep(2.0)  # joining is over
            before = time.process_time()
            await asyncio.sleep(seconds)
            cpu = time.process_time() - before
            pipe.send((cpu, _resident_mib()))

    asyncio.run(main())


def _resident_mib() -> float:
    """Return the most memory this program had resident.

    Not `ru_maxrss`, which a new process takes over from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


async def _serve(node: zmesh.Node) -> None:
    @node.service("slow", concurrency=64)
    async def slow(message: zmesh.Message) -> object:
        await asyncio.sleep(0.2)
        return message.body

    await asyncio.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
