"""The processes of `benchmarks.scale`: one node each, or a crowd of them, at the end of a pipe.

Each says what it measured when it is asked: words come in, facts go out. `process_time` and
private memory are a process's own business, so they hold on a machine that others use as well.
"""

import asyncio
import gc
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import zmesh
from zmesh.terms import Role

OPENING_AT_ONCE: Final = 8
"""Nodes of a crowd that are opened together: each has threads and sockets to begin."""

SERVICE: Final = "scale.echo"
TOPIC: Final = "scale.news"
BODY: Final = b"m" * 100
CALLS_AT_ONCE: Final = 64
BATCH: Final = 500
PUBLISHED_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process's nodes are."""

    mesh: str
    role: Role = "hub"
    peers: tuple[str, ...] = ()
    seeds: tuple[str, ...] = ()
    mdns: bool = False
    port: int = 0

    def node(self, name: str) -> zmesh.Node:
        """Return a node as planned, without mesh key: loopback alone."""
        return zmesh.Node(
            name,
            mesh=self.mesh,
            key=(),
            role=self.role,
            peers=self.peers,
            seeds=self.seeds,
            mdns=self.mdns,
            port=self.port,
        )


@dataclass(frozen=True, slots=True)
class Use:
    """What a process had used, and what its nodes had done, at a time."""

    at_s: float
    cpu_s: float
    packets: int  # sent and received
    links: int
    dials: int
    accepted: int  # connections


def private_kib() -> int:
    """Return the memory that this process has written to, and nobody shares."""
    gc.collect()
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def use_of(nodes: Sequence[zmesh.Node]) -> Use:
    """Return what this process has used, and what its nodes did."""
    at, cpu = time.monotonic(), time.process_time()
    statistics = [node.statistics() for node in nodes]
    return Use(
        at_s=at,
        cpu_s=cpu,
        packets=sum(
            each.transport.packets_sent + each.transport.packets_received for each in statistics
        ),
        links=sum(each.engine.present for each in statistics),
        dials=sum(each.transport.dials for each in statistics),
        accepted=sum(each.transport.inbound_accepted for each in statistics),
    )


def _begin() -> None:
    logging.getLogger("zmesh").setLevel(logging.CRITICAL)  # a thousand nodes find nobody at first


def crowd(
    pipe: Connection, plan: Plan, first: int, count: int, hubs: int, within_s: float
) -> None:
    """Be `count` nodes, that each link with so many others; then do as is told."""
    _begin()
    asyncio.run(_crowd(pipe, plan, first, count, hubs, within_s))
    os._exit(0)  # nobody waits for the goodbyes of a thousand nodes


async def _crowd(
    pipe: Connection, plan: Plan, first: int, count: int, hubs: int, within_s: float
) -> None:
    async with AsyncExitStack() as stack:
        pipe.send("up")
        await _word(pipe)
        cpu = time.process_time()
        nodes: list[zmesh.Node] = []
        for begin in range(first, first + count, OPENING_AT_ONCE):
            some = range(begin, min(begin + OPENING_AT_ONCE, first + count))
            made = [plan.node(f"n{index}") for index in some]
            nodes += await asyncio.gather(*(node.open() for node in made))
        with suppress(TimeoutError):  # the row tells how many links there are
            async with asyncio.timeout(within_s):
                for node in nodes:
                    await node.peers.wait_for(count=hubs)
        pipe.send((time.monotonic(), time.process_time() - cpu))
        await _obey(pipe, nodes, stack)


async def _word(pipe: Connection) -> Any:
    """Return what the other side says next; it ends this process where that is nothing more."""
    try:
        return await asyncio.to_thread(pipe.recv)
    except (EOFError, OSError):
        os._exit(0)


async def _obey(pipe: Connection, nodes: list[zmesh.Node], stack: AsyncExitStack) -> None:
    received: list[int] = [0]
    while True:
        match await _word(pipe):
            case "use":
                pipe.send(use_of(nodes))
            case "memory":
                pipe.send(private_kib())
            case "subscribe":
                for node in nodes:
                    subscription = await stack.enter_async_context(node.subscribe(TOPIC))
                    task = asyncio.create_task(_read(subscription, received))
                    stack.callback(task.cancel)
                pipe.send("subscribed")
            case ("call", float() as seconds):
                pipe.send(await _call(nodes[0], seconds))
            case ("post", str() as to, float() as seconds):
                pipe.send(await _post(nodes[0], to, seconds))
            case _:
                return


async def _read(subscription: Any, received: list[int]) -> None:
    async for _ in subscription:
        received[0] += 1


async def _call(node: zmesh.Node, seconds: float) -> int:
    """Call for so long; return how many answers came."""
    until, answers = time.monotonic() + seconds, 0

    async def caller() -> None:
        nonlocal answers
        while time.monotonic() < until:
            await node.call(SERVICE, BODY)
            answers += 1

    await node.peers.wait_for(service=SERVICE)
    await asyncio.gather(*(caller() for _ in range(CALLS_AT_ONCE)))
    return answers


async def _post(node: zmesh.Node, to: str, seconds: float) -> int:
    """Post for so long; return how many messages were accepted."""
    until, posted = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        await node.post_many(to, [BODY] * BATCH)
        posted += BATCH
    await node.flush()
    return posted


def hub(pipe: Connection, plan: Plan, expected: int) -> None:
    """Be one node alone in its process; then do as is told."""
    _begin()
    asyncio.run(_hub(pipe, plan, expected))
    os._exit(0)


async def _hub(pipe: Connection, plan: Plan, expected: int) -> None:
    node = plan.node("hub")

    @node.service(SERVICE, concurrency=1024)
    async def echo(message: zmesh.Message) -> object:
        return message.body

    async with node, _inbox(node):
        pipe.send((node.endpoints[0], private_kib(), use_of([node])))
        while True:
            match await _word(pipe):
                case "link":
                    await node.peers.wait_for(count=expected)
                    pipe.send((time.monotonic(), time.process_time()))
                case "memory":
                    pipe.send(private_kib())
                case "use":
                    pipe.send(use_of([node]))
                case ("publish", float() as seconds):
                    await node.peers.wait_for(topic=TOPIC, count=expected)
                    before = use_of([node])
                    pipe.send((await _publish(node, seconds), before, use_of([node])))
                case _:
                    return


@asynccontextmanager
async def _inbox(node: zmesh.Node) -> AsyncIterator[None]:
    async def read() -> None:
        async for _ in node.inbox():
            pass

    task = asyncio.create_task(read())
    try:
        yield
    finally:
        task.cancel()


async def _publish(node: zmesh.Node, seconds: float) -> int:
    """Publish for so long, with some under way at a time; return the deliveries."""
    until, delivered = time.monotonic() + seconds, 0
    under_way: deque[zmesh.Receipt] = deque()
    while time.monotonic() < until:
        under_way.append(await node.publish(TOPIC, BODY))
        if len(under_way) >= PUBLISHED_AT_ONCE:
            delivered += await under_way.popleft()
    for receipt in under_way:
        delivered += await receipt
    return delivered
