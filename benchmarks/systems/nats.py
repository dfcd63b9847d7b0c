"""NATS: core, which acknowledges nothing, and JetStream, which keeps messages."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.jetstream import serving
from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
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
from benchmarks.servers import client
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
    go,
    leave,
    median_us,
    wait_for_end,
)

FETCH_COUNT = 256
FETCH_COUNT_SHARED = 100
FETCH_S = 0.2
UNLIMITED = 1 << 40


@asynccontextmanager
async def _connected(where: Where) -> AsyncIterator[Any]:
    connection = await client("nats", "nats-py").connect(f"nats://127.0.0.1:{where.port}")
    yield connection


# Core


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _connected(where) as connection:
            began, count = await asyncio.to_thread(go, pipe), 0
            for body in scenario.load():
                await connection.publish(where.name, body)
                count += 1
            if scenario.key != QUEUE.key:
                await connection.publish(where.name, END)
            await connection.flush(60)
            await asyncio.to_thread(leave, pipe, Sent(count, began))

    asyncio.run(main())


def _subscribe(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        tally = Tally(shared=scenario.is_shared)

        async def take(message: Any) -> None:
            tally.take(message.data)

        async with _connected(where) as connection:
            group = "workers" if scenario.key == QUEUE.key else ""
            await connection.subscribe(
                where.name, group, take,
                pending_msgs_limit=UNLIMITED, pending_bytes_limit=UNLIMITED,
            )  # fmt: skip
            await connection.flush()
            pipe.send(READY)
            await asyncio.to_thread(tally.wait)
            pipe.send(tally)

    asyncio.run(main())


def _echo(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async def answer(message: Any) -> None:
            await message.respond(message.data)

        async with _connected(where) as connection:
            await connection.subscribe(where.name, cb=answer)
            await connection.flush()
            pipe.send(READY)
            await asyncio.Event().wait()

    asyncio.run(main())


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _connected(where) as connection:
            await asyncio.to_thread(go, pipe)
            times = []
            for body in scenario.load():
                began = time.perf_counter()
                await connection.request(where.name, body, timeout=30)
                times.append(time.perf_counter() - began)
            leave(pipe, median_us(times))

    asyncio.run(main())


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _connected(where) as connection:
            began, count = await asyncio.to_thread(go, pipe), 0

            async def keep_calling() -> None:
                nonlocal count
                for body in scenario.load():
                    await connection.request(where.name, body, timeout=30)
                    count += 1

            async with asyncio.TaskGroup() as callers:
                for _ in range(CALLS_AT_ONCE):
                    callers.create_task(keep_calling())
            leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        client("nats", "nats-py")
        began = go(pipe)
        async with _connected(where) as connection:
            await connection.request(where.name, b"", timeout=30)
            leave(pipe, 1000 * (time.monotonic() - began))

    asyncio.run(main())


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        nats, address = client("nats", "nats-py"), f"nats://127.0.0.1:{where.port}"
        peers = [await nats.connect(address) for _ in range(FEW_PEERS)]
        await asyncio.to_thread(go, pipe)
        peers += [await nats.connect(address) for _ in range(MORE_PEERS)]
        pipe.send(READY)
        await asyncio.to_thread(wait_for_end, pipe)

    asyncio.run(main())


# JetStream


def _publish_acked(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        async with _connected(where) as connection:
            stream = connection.jetstream(publish_async_max_pending=WINDOW)
            began = await asyncio.to_thread(go, pipe)
            acks: list[Any] = []
            for body in scenario.load():
                subject = f"{where.name}.{KEYS[len(acks) % len(KEYS)]}"
                acks.append(await stream.publish_async(subject, body))
            await asyncio.gather(*acks)
            if not scenario.is_shared:
                await stream.publish(f"{where.name}.end", END)
            await asyncio.to_thread(leave, pipe, Sent(len(acks), began))

    asyncio.run(main())


def _fetch(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        errors = client("nats.errors", "nats-py")
        tally, seen = Tally(shared=scenario.is_shared), dict[str, int]()
        async with _connected(where) as connection:
            stream = connection.jetstream()
            storage = "file" if scenario.key == DURABLE.key else "memory"
            subjects = [f"{where.name}.*"]
            await stream.add_stream(name=where.name, subjects=subjects, storage=storage)
            pull = await stream.pull_subscribe(subjects[0], durable="one", stream=where.name)
            count = FETCH_COUNT if not scenario.is_shared else FETCH_COUNT_SHARED
            pipe.send(READY)
            while not (tally.is_over or tally.is_idle()):
                try:
                    messages = await pull.fetch(count, timeout=FETCH_S)
                except (errors.TimeoutError, TimeoutError):
                    continue
                for message in messages:
                    seen[message.subject] = seen.get(message.subject, 0) + 1
                    if message.data == END:
                        await message.ack_sync()  # answered: so those before it were taken
                    else:
                        await message.ack()
                    tally.take(message.data)
            await connection.flush()
            pipe.send(tally)

    asyncio.run(main())


@contextmanager
def _opened(place: Path) -> Iterator[Opened]:
    client("nats", "nats-py")

    async def server_version(port: int) -> str:
        nats = client("nats", "nats-py")
        connection = await nats.connect(f"nats://127.0.0.1:{port}")
        told = str(connection.connected_server_version).strip("<>").split()[-1]
        await connection.close()
        return told

    with serving(place) as (port, pid):
        versions = {
            "nats-server": asyncio.run(server_version(port)),
            "nats-py": version("nats-py"),
        }
        yield Opened(versions, port, server_pid=pid)


_CORE: Roles = {
    STREAM.key: Pair(_publish, _subscribe),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _subscribe),
    PUBLISH_64.key: Pair(_publish, _subscribe),
    QUEUE.key: Pair(_publish, _subscribe),
    LARGE.key: Pair(_publish, _subscribe),
    BULK.key: Pair(_publish, _subscribe),
    START.key: Pair(_start, _echo),
    MEMORY.key: Crowd(_peers),
}

NATS = System(
    "NATS core",
    "nats-py; the work queue is a queue group, which acknowledges nothing; a subscriber may be as "
    "far behind as it likes; memory is the server's",
    _CORE,
    _opened,
    left_out={
        key.key: "it acknowledges nothing: see JetStream" for key in (ACKED, KEYED, DURABLE)
    },
    preload=("nats",),
)

JETSTREAM = System(
    "NATS JetStream",
    "1,000 acknowledgements outstanding, consumers that fetch 256 (100 where four share the work) "
    "and acknowledge each; subjects are the keys; in memory, but for what is durable "
    "(`sync_interval: always`)",
    {each.key: Pair(_publish_acked, _fetch) for each in (ACKED, KEYED, QUEUE, DURABLE)},
    _opened,
    left_out={
        each.key: "see NATS core"
        for each in (STREAM, CALL, CALLS, PUBLISH_8, PUBLISH_64, LARGE, BULK, START, MEMORY)
    },
    preload=("nats",),
)
