"""zmesh through its public face."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import zmesh
from benchmarks.scenario import (
    ACKED,
    ACKED_1K,
    ACKED_ONE_WAY,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
    ENCRYPTED,
    END,
    FEW_PEERS,
    KEYED,
    KEYS,
    LARGE,
    MEMORY,
    MORE_PEERS,
    PUBLISH_8,
    PUBLISH_64,
    QUEUE,
    START,
    STREAM,
    WINDOW,
    Scenario,
)
from benchmarks.system import (
    READY,
    Crowd,
    Opened,
    Pair,
    Roles,
    Sent,
    System,
    Tally,
    Where,
    be_hub,
    go,
    leave,
    median_us,
    wait_for_end,
)

PATIENCE_S = 30.0
JOBS_EACH = 100

Produce = Callable[[zmesh.Node, Scenario], Awaitable[int]]


def _node(where: Where, name: str | None = None, *, durable: bool = False) -> zmesh.Node:
    key = where.secret[0].decode() if where.secret else ()
    storage = where.place / "journal" if durable else None
    return zmesh.Node(name, mesh=where.name, key=key, interfaces=["lo"], storage=storage)


async def _forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError


# Streams


async def _post_many(node: zmesh.Node, scenario: Scenario) -> int:
    count = 0
    for body in scenario.load():
        await node.post_many("consumer", [body] * WINDOW)
        count += WINDOW
    return count


async def _post_keyed(node: zmesh.Node, scenario: Scenario) -> int:
    count = 0
    for body in scenario.load():
        await node.post("consumer", body, key=KEYS[count % len(KEYS)])
        count += 1
    return count


async def _post(node: zmesh.Node, scenario: Scenario) -> int:
    count = 0
    for body in scenario.load():
        await node.post("consumer", body)
        count += 1
    return count


async def _send(
    pipe: Connection, scenario: Scenario, where: Where, produce: Produce, *, durable: bool
) -> None:
    async with _node(where, "producer", durable=durable) as node:
        await node.peers.wait_for(name="consumer", timeout=PATIENCE_S)
        await node.send("consumer", b"hello")
        began = await asyncio.to_thread(go, pipe)
        count = await produce(node, scenario)
        await node.flush()
        leave(pipe, Sent(count, began, time.monotonic()))


def _send_acked(pipe: Connection, scenario: Scenario, where: Where) -> None:
    asyncio.run(_send(pipe, scenario, where, _post_many, durable=False))


def _send_keyed(pipe: Connection, scenario: Scenario, where: Where) -> None:
    asyncio.run(_send(pipe, scenario, where, _post_keyed, durable=False))


def _send_durable(pipe: Connection, scenario: Scenario, where: Where) -> None:
    asyncio.run(_send(pipe, scenario, where, _post_many, durable=True))


def _send_large(pipe: Connection, scenario: Scenario, where: Where) -> None:
    asyncio.run(_send(pipe, scenario, where, _post, durable=False))


async def _consume(pipe: Connection, where: Where, *, durable: bool = False) -> None:
    async with _node(where, "consumer", durable=durable) as node:
        pipe.send(READY)
        async for _ in node.inbox().batches():
            pass


def _read(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    asyncio.run(_consume(pipe, where))


def _read_durable(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    asyncio.run(_consume(pipe, where, durable=True))


def _handle(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        seen: dict[str | None, int] = {}

        def handle(message: zmesh.Message) -> None:
            seen[message.key] = seen.get(message.key, 0) + 1

        async with _node(where, "consumer") as node:
            pipe.send(READY)
            async for batch in node.inbox().batches():
                for message in batch:
                    handle(message)

    asyncio.run(main())


def _send_in_parts(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for body in scenario.load():
            yield body

    async def main() -> None:
        async with _node(where) as node:
            await node.peers.wait_for(service="take", timeout=PATIENCE_S)
            began = await asyncio.to_thread(go, pipe)
            async for count in node.stream("take", parts()):
                leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _take_parts(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:

            @node.service("take")
            async def take(message: zmesh.Message) -> int:
                count = 0
                async for _ in message.parts:
                    count += 1
                return count

            pipe.send(READY)
            await _forever()

    asyncio.run(main())


# Calls


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:
            await node.peers.wait_for(service="echo", timeout=PATIENCE_S)
            await asyncio.to_thread(go, pipe)
            times = []
            for body in scenario.load():
                began = time.perf_counter()
                await node.call("echo", body)
                times.append(time.perf_counter() - began)
            leave(pipe, median_us(times))

    asyncio.run(main())


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:
            await node.peers.wait_for(service="echo", timeout=PATIENCE_S)
            began, count = await asyncio.to_thread(go, pipe), 0

            async def keep_calling() -> None:
                nonlocal count
                for body in scenario.load():
                    await node.call("echo", body)
                    count += 1

            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLS_AT_ONCE):
                    callers.create_task(keep_calling())
            leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _echo(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:

            @node.service("echo", concurrency=CALLS_AT_ONCE)
            async def echo(message: zmesh.Message) -> object:
                return message.body

            pipe.send(READY)
            await _forever()

    asyncio.run(main())


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        began = go(pipe)
        async with _node(where) as node:
            await node.peers.wait_for(service="echo", timeout=PATIENCE_S)
            await node.call("echo", b"")
            leave(pipe, 1000 * (time.monotonic() - began))

    asyncio.run(main())


# Publishing, and the work queue


def _publish_unacked(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:
            await node.peers.wait_for(topic="bench", timeout=PATIENCE_S)
            began, count = await asyncio.to_thread(go, pipe), 0
            for body in scenario.load():
                await node.publish("bench", body, guarantee="at_most_once")
                count += 1
            await node.publish("bench", END)
            await asyncio.to_thread(leave, pipe, Sent(count, began))

    asyncio.run(main())


def _tell_what_came(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        tally = Tally()
        async with _node(where) as node, node.subscribe("bench") as messages:
            pipe.send(READY)
            async for message in messages:
                tally.take(message.body)
                if tally.is_over:
                    pipe.send(tally)

    asyncio.run(main())


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _static(where, port=where.port) as node:
            pipe.send(READY)
            everybody = scenario.receivers
            await node.peers.wait_for(topic="bench", count=everybody, timeout=PATIENCE_S)
            began, count = await asyncio.to_thread(go, pipe), 0
            for body in scenario.load():
                await node.publish_many("bench", [body] * WINDOW)
                count += WINDOW
            await node.flush()
            leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _subscribe(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with (
            _static(where, peers=(f"127.0.0.1:{where.port}",)) as node,
            node.subscribe("bench") as messages,
        ):
            pipe.send(READY)
            async for _ in messages.batches():
                pass

    asyncio.run(main())


def _push(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node:
            await node.peers.wait_for(count=scenario.receivers, timeout=PATIENCE_S)
            await (await node.push_many("bench", [b"warm"] * scenario.receivers * JOBS_EACH))
            began, count = await asyncio.to_thread(go, pipe), 0
            for body in scenario.load():
                await node.push_many("bench", [body] * WINDOW)
                count += WINDOW
            await node.flush()
            leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _pull(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _node(where) as node, node.pull("bench", prefetch=JOBS_EACH) as jobs:
            pipe.send(READY)
            async for _ in jobs.batches():
                pass

    asyncio.run(main())


# Memory


def _static(where: Where, *, port: int = 0, peers: tuple[str, ...] = ()) -> zmesh.Node:
    """Return a node that meets those alone whose addresses it has, and tells them of nobody.

    Else 65 processes on two cores are busy for a minute with 2,080 links nobody measures.
    """
    key = where.secret[0].decode() if where.secret else ()
    return zmesh.Node(
        mesh=where.name,
        key=key,
        interfaces=["lo"],
        mdns=False,
        port=port,
        peers=peers,
        options=zmesh.NodeOptions(wire=zmesh.WireLimits(known_max=0)),
    )


def _hub(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _static(where, port=where.port):
            be_hub(pipe)
            await _forever()

    asyncio.run(main())


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def open_some(count: int) -> list[zmesh.Node]:
        nodes = []
        for _ in range(count):
            node = await _static(where, peers=(f"127.0.0.1:{where.port}",)).open()
            await node.peers.wait_for(timeout=PATIENCE_S)
            nodes.append(node)
        return nodes

    async def main() -> None:
        nodes = await open_some(FEW_PEERS)
        await asyncio.to_thread(go, pipe)
        nodes += await open_some(MORE_PEERS)
        pipe.send(READY)
        await asyncio.to_thread(wait_for_end, pipe)

    asyncio.run(main())


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    yield Opened({"zmesh": zmesh.__version__})


@contextmanager
def _opened_with_key(_place: Path) -> Iterator[Opened]:
    key = zmesh.MeshKey(os.urandom(32)).text
    yield Opened({"zmesh": zmesh.__version__}, secret=(key.encode(),))


_ROLES: Roles = {
    STREAM.key: Pair(_publish_unacked, _tell_what_came),
    ACKED.key: Pair(_send_acked, _read),
    ACKED_ONE_WAY.key: Pair(_send_acked, _read),
    ACKED_1K.key: Pair(_send_acked, _read),
    KEYED.key: Pair(_send_keyed, _handle),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _subscribe, sender_first=True),
    PUBLISH_64.key: Pair(_publish, _subscribe, sender_first=True),
    QUEUE.key: Pair(_push, _pull),
    DURABLE.key: Pair(_send_durable, _read_durable),
    LARGE.key: Pair(_send_large, _read),
    BULK.key: Pair(_send_in_parts, _take_parts),
    START.key: Pair(_start, _echo),
    MEMORY.key: Crowd(_peers, _hub),
}

ZMESH = System(
    "zmesh",
    "`post_many` by the thousand to a node that reads its inbox in batches, `push_many` by the "
    "thousand to four that pull with `prefetch=100` and read in batches; `post` with a key each; "
    "`publish` one at a time, at most once, in the one-way stream, and else `publish_many` by the "
    "thousand, acknowledged, to subscribers that read in batches and know the publisher alone "
    "(`known_max=0`), as do idle peers; 100 MiB as a stream in parts of 64 KiB; journals at both "
    "ends where it is durable; it starts by finding a service with mDNS and calling it",
    _ROLES,
    _opened,
    preload=("zmesh",),
)

ZMESH_KEY = System(
    "zmesh, mesh key",
    "the same with a mesh key: CURVE and proofs",
    {scenario.key: _ROLES[scenario.key] for scenario in ENCRYPTED},
    _opened_with_key,
    yardstick="bare pyzmq, CURVE",
)
