"""What `zmesh bench` measures from one node to another that serves: through the public face."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import zmesh

BATCH: Final = 1_000
"""Bodies of one `post_many`."""

CALLS_AT_ONCE: Final = 64
BODY: Final = bytes(100)
LARGE: Final = bytes(1 << 20)
PART: Final = bytes(1 << 16)
MIB: Final = 1 << 20

PATIENCE_S: Final = 60.0
"""How long what was sent may take to be acknowledged, and a call to be answered."""


def service_of(node: str, what: str) -> str:
    """Return the service of one node alone, so that no other of the mesh answers."""
    return f"bench.{node}.{what}"


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing to measure.

    Attributes:
        key: what it is called on a command line and in JSON.
        title: what it is called in a table.
        unit: of its value.
        run: does it for so many seconds, and returns the value.
    """

    key: str
    title: str
    unit: str
    run: Callable[[zmesh.Node, zmesh.Peer, float], Awaitable[float]]


def _turns(seconds: float) -> Iterator[None]:
    """Yield until so many seconds are over, at least once."""
    until = time.perf_counter() + seconds
    yield
    while time.perf_counter() < until:
        yield


async def _flushed(node: zmesh.Node) -> float:
    """Wait until all is acknowledged; return when that was."""
    async with asyncio.timeout(PATIENCE_S):
        await node.flush()
    return time.perf_counter()


async def _batches(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    bodies, count, began = [BODY] * BATCH, 0, time.perf_counter()
    for _ in _turns(seconds):
        await node.post_many(to, bodies)
        count += BATCH
    return count / (await _flushed(node) - began)


async def _posts(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    for _ in _turns(seconds):
        await node.post(to, BODY)
        count += 1
    return count / (await _flushed(node) - began)


async def _large(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    count, began = 0, time.perf_counter()
    for _ in _turns(seconds):
        await node.post(to, LARGE)
        count += 1
    return count * len(LARGE) / MIB / (await _flushed(node) - began)


async def _call(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    echo, times = service_of(to.id, "echo"), []
    for _ in _turns(seconds):
        began = time.perf_counter()
        await node.call(echo, BODY, timeout=PATIENCE_S)
        times.append(time.perf_counter() - began)
    return 1e6 * sorted(times)[len(times) // 2]


async def _calls(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    echo, count, began = service_of(to.id, "echo"), 0, time.perf_counter()

    async def keep_calling() -> None:
        nonlocal count
        for _ in _turns(seconds):
            await node.call(echo, BODY, timeout=PATIENCE_S)
            count += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLS_AT_ONCE):
            callers.create_task(keep_calling())
    return count / (time.perf_counter() - began)


async def _parts(node: zmesh.Node, to: zmesh.Peer, seconds: float) -> float:
    async def parts() -> AsyncIterator[bytes]:
        for _ in _turns(seconds):
            yield PART

    began = time.perf_counter()
    async with asyncio.timeout(seconds + PATIENCE_S):
        [count] = [told async for told in node.stream(service_of(to.id, "parts"), parts())]
    return int(count) * len(PART) / MIB / (time.perf_counter() - began)


MEASURES: Final = (
    Measure("batches", f"messages, {BATCH:,} a post_many", "/s", _batches),
    Measure("posts", "messages, a post each", "/s", _posts),
    Measure("call", "call, one at a time, p50", "us", _call),
    Measure("calls", f"calls, {CALLS_AT_ONCE} at a time", "/s", _calls),
    Measure("large", "messages of 1 MiB", "MiB/s", _large),
    Measure("parts", "a stream in parts of 64 KiB", "MiB/s", _parts),
)
"""Messages are of 100 bytes where nothing else is said; each is acknowledged by its reader."""
