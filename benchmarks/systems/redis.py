"""Redis: channels where nothing is acknowledged, streams with consumer groups where all is."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.redis_streams import serving
from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
    DURABLE,
    END,
    KEYED,
    KEYS,
    LARGE,
    MEMORY,
    PUBLISH_8,
    PUBLISH_64,
    QUEUE,
    START,
    STREAM,
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
    crowded,
    go,
    leave,
)

PIPELINE = 256
READ_COUNT = 1_000
READ_COUNT_SHARED = 100
BLOCK_MS = 200
GROUP = "group"


def _connected(where: Where) -> Any:
    return client("redis", "redis").Redis(port=where.port)


def batches(bodies: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield bodies, so many at once."""
    bodies = iter(bodies)
    while batch := list(islice(bodies, size)):
        yield batch


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    redis = _connected(where)
    size = PIPELINE if scenario.body_bytes < 10_000 else 1
    began, count = go(pipe), 0
    for batch in batches(scenario.load(), size):
        pipeline = redis.pipeline(transaction=False)
        for body in batch:
            pipeline.publish(where.name, body)
        pipeline.execute()
        count += len(batch)
    redis.publish(where.name, END)
    leave(pipe, Sent(count, began))


def _subscribe(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    subscription, tally = _connected(where).pubsub(), Tally()
    subscription.subscribe(where.name)
    subscription.get_message(timeout=5.0)  # that it subscribed
    pipe.send(READY)
    while not tally.is_over:
        message = subscription.get_message(timeout=1.0)
        if message is not None:
            tally.take(message["data"])
    pipe.send(tally)


def _add(pipe: Connection, scenario: Scenario, where: Where) -> None:
    redis, count = _connected(where), 0
    began = go(pipe)
    for batch in batches(scenario.load(), PIPELINE):
        pipeline = redis.pipeline(transaction=False)
        for body in batch:
            count += 1
            pipeline.xadd(where.name, {"key": KEYS[count % len(KEYS)], "body": body})
        pipeline.execute()
    if not scenario.is_shared:
        redis.xadd(where.name, {"key": "", "body": END})
    leave(pipe, Sent(count, began))


def _read(pipe: Connection, scenario: Scenario, where: Where) -> None:
    redis, tally, seen = _connected(where), Tally(shared=scenario.is_shared), dict[bytes, int]()
    try:
        redis.xgroup_create(where.name, GROUP, mkstream=True)
    except client("redis", "redis").ResponseError:
        pass  # another consumer did
    consumer = f"one-{time.monotonic_ns()}"
    count = READ_COUNT if not scenario.is_shared else READ_COUNT_SHARED
    pipe.send(READY)
    while not (tally.is_over or tally.is_idle()):
        answer = redis.xreadgroup(GROUP, consumer, {where.name: ">"}, count=count, block=BLOCK_MS)
        for _, entries in answer:
            for _, entry in entries:
                seen[entry[b"key"]] = seen.get(entry[b"key"], 0) + 1
            redis.xack(where.name, GROUP, *(number for number, _ in entries))
            for _, entry in entries:
                tally.take(entry[b"body"])
    pipe.send(tally)


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("redis", "redis")
    began = go(pipe)
    _connected(where).ping()
    leave(pipe, 1000 * (time.monotonic() - began))


def _nobody(pipe: Connection, _scenario: Scenario, _where: Where) -> None:
    pipe.send(READY)


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    def connected() -> Any:
        redis = _connected(where).client()
        redis.ping()
        return redis

    crowded(pipe, connected)


@contextmanager
def _opened(place: Path) -> Iterator[Opened]:
    redis = client("redis", "redis")
    with ExitStack() as stack:
        port, pid = stack.enter_context(serving(place / "memory", durable=False))
        synced, _ = stack.enter_context(serving(place / "synced", durable=True))
        with redis.Redis(port=port) as connection:
            # Else it would cut off a subscriber 32 MiB behind.
            connection.config_set("client-output-buffer-limit", "pubsub 0 0 0")
            version = str(connection.info()["redis_version"])
        versions = {"redis-server": version, "redis-py": redis.__version__}
        yield Opened(versions, port, {DURABLE.key: synced}, pid)


_ROLES: Roles = {
    STREAM.key: Pair(_publish, _subscribe),
    ACKED.key: Pair(_add, _read),
    KEYED.key: Pair(_add, _read),
    PUBLISH_8.key: Pair(_publish, _subscribe),
    PUBLISH_64.key: Pair(_publish, _subscribe),
    QUEUE.key: Pair(_add, _read),
    DURABLE.key: Pair(_add, _read),
    LARGE.key: Pair(_publish, _subscribe),
    BULK.key: Pair(_publish, _subscribe),
    START.key: Pair(_start, _nobody),
    MEMORY.key: Crowd(_peers),
}

REDIS = System(
    "Redis",
    "`PUBLISH` and `XADD` in pipelines of 256, consumer groups that read 1,000 at once (100 where "
    "four share the work) and acknowledge them in one `XACK`; in memory, but for what is durable "
    "(`appendfsync always`); memory is the server's; it starts with a connection and a `PING`",
    _ROLES,
    _opened,
    left_out={key.key: "it has no calls" for key in (CALL, CALLS)},
    preload=("redis",),
)
