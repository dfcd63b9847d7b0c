"""The same scenarios through zmesh's public face, producer and consumer as separate processes."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zmesh
from benchmarks.processes import expect, role

BATCH = 1_000


def stream(count: int, body: bytes) -> float:
    """Return messages per second: acked, ordered, at least once, until all are accepted."""

    async def produce(node: zmesh.Node) -> float:
        await node.peers.wait_for(name="consumer", timeout=10)
        await node.send("consumer", body)
        began = time.perf_counter()
        for _ in range(count // BATCH):
            await node.post_many("consumer", [body] * BATCH)
        await node.flush()
        return count / (time.perf_counter() - began)

    return float(beside(produce, consume))


def stream_one_by_one(count: int, body: bytes) -> float:
    """Return the same with one `post` per message."""

    async def produce(node: zmesh.Node) -> float:
        await node.peers.wait_for(name="consumer", timeout=10)
        await node.send("consumer", body)
        began = time.perf_counter()
        for _ in range(count):
            await node.post("consumer", body)
        await node.flush()
        return count / (time.perf_counter() - began)

    return float(beside(produce, consume))


def request_reply(count: int, body: bytes) -> list[float]:
    """Return the sorted times of calls one at a time, in seconds."""

    async def produce(node: zmesh.Node) -> list[float]:
        await node.peers.wait_for(service="echo", timeout=10)
        times = []
        for _ in range(count):
            began = time.perf_counter()
            await node.call("echo", body, timeout=5)
            times.append(time.perf_counter() - began)
        return sorted(times)

    return list(beside(produce, _serve))


def request_reply_concurrent(count: int, body: bytes, concurrency: int) -> float:
    """Return calls per second with so many under way."""

    async def produce(node: zmesh.Node) -> float:
        await node.peers.wait_for(service="echo", timeout=10)
        began = time.perf_counter()

        async def keep_calling() -> None:
            for _ in range(count // concurrency):
                await node.call("echo", body, timeout=30)

        async with asyncio.TaskGroup() as callers:
            for _ in range(concurrency):
                callers.create_task(keep_calling())
        return count / (time.perf_counter() - began)

    return float(beside(produce, _serve))


def first_call(runs: int) -> list[float]:
    """Return the sorted times from a node's start to its first answered call, in seconds."""

    async def measure(mesh: str) -> float:
        began = time.perf_counter()
        async with zmesh.Node(mesh=mesh, key=()) as node:
            await node.peers.wait_for(service="echo", timeout=10)
            await node.call("echo", b"", timeout=5)
            return time.perf_counter() - began

    mesh = _mesh_name()
    with role(_run, _serve, mesh) as (pipe, _):
        expect(pipe)
        return sorted(asyncio.run(measure(mesh)) for _ in range(runs))


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
        mesh = _mesh_name()
        with role(_run, _serve, mesh) as (left, victim), role(_run, _serve, mesh) as (right, _):
            expect(left)
            expect(right)
            async with zmesh.Node(mesh=mesh, key=()) as node:
                await node.peers.wait_for(service="slow", count=2, timeout=10)
                return await measure(node, victim.pid)

    return sorted(asyncio.run(once()) for _ in range(runs))


def idle(peers: int, seconds: float) -> tuple[float, float]:
    """Return the share of a core and the MiB that an idle node with so many peers uses."""
    mesh = _mesh_name()
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


def _mesh_name() -> str:
    return f"bench-{os.urandom(6).hex()}"


def beside(
    produce: Callable[[zmesh.Node], Awaitable[Any]],
    serve: Callable[[zmesh.Node], Awaitable[None]],
    place: Path | None = None,
) -> Any:
    """Run `serve` on a node in another process, and `produce` on one in this.

    Both are durable where there is a `place` for their journals.
    """
    mesh = _mesh_name()

    async def run() -> Any:
        async with _node("producer", mesh, place) as node:
            return await produce(node)

    with role(_run, serve, mesh, place) as (pipe, _):
        expect(pipe)
        return asyncio.run(run())


def _node(name: str, mesh: str, place: Path | None) -> zmesh.Node:
    if place is None:
        return zmesh.Node(name, mesh=mesh, key=())
    return zmesh.Node(name, mesh=mesh, key=(), storage=place / name)


def _run(
    pipe: Connection,
    serve: Callable[[zmesh.Node], Awaitable[None]],
    mesh: str,
    place: Path | None = None,
) -> None:
    async def main() -> None:
        async with _node("consumer", mesh, place) as node:
            serving = asyncio.create_task(_as_coroutine(serve(node)))
            pipe.send("ready")
            await asyncio.to_thread(_wait_for_end, pipe)
            serving.cancel()

    asyncio.run(main())


def _run_many(pipe: Connection, mesh: str, count: int) -> None:
    async def main() -> None:
        nodes = [zmesh.Node(f"peer-{number}", mesh=mesh, key=()) for number in range(count)]
        for node in nodes:
            await node.__aenter__()
        pipe.send("ready")
        await asyncio.to_thread(_wait_for_end, pipe)
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


async def _as_coroutine(awaitable: Awaitable[None]) -> None:
    await awaitable


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return


async def consume(node: zmesh.Node) -> None:
    async for _ in node.inbox():
        pass


async def _serve(node: zmesh.Node) -> None:
    @node.service("echo", concurrency=64)
    async def echo(message: zmesh.Message) -> object:
        return message.body

    @node.service("slow", concurrency=64)
    async def slow(message: zmesh.Message) -> object:
        await asyncio.sleep(0.2)
        return message.body

    await asyncio.Event().wait()
