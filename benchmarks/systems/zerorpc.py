"""zerorpc: calls on gevent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.scenario import (
    ACKED,
    BULK,
    CALL,
    CALLS,
    CALLS_AT_ONCE,
    DURABLE,
    KEYED,
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
    Opened,
    Pair,
    Roles,
    Sent,
    System,
    Where,
    go,
    leave,
    timed_calls,
)

PATIENCE_S = 30


class _Echo:
    def echo(self, body: bytes) -> bytes:
        return body


def _serve(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    server = client("zerorpc", "zerorpc").Server(_Echo(), pool_size=CALLS_AT_ONCE)
    server.bind(f"tcp://127.0.0.1:{where.port}")
    pipe.send(READY)
    server.run()


def _connected(where: Where) -> Any:
    caller = client("zerorpc", "zerorpc").Client(timeout=PATIENCE_S, heartbeat=None)
    caller.connect(f"tcp://127.0.0.1:{where.port}")
    caller.echo(b"hello")
    return caller


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    caller = _connected(where)
    go(pipe)
    leave(pipe, timed_calls(scenario, caller.echo))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    gevent, caller = client("gevent", "gevent"), _connected(where)
    began, count = go(pipe), 0

    def keep_calling() -> None:
        nonlocal count
        for body in scenario.load():
            caller.echo(body)
            count += 1

    gevent.joinall([gevent.spawn(keep_calling) for _ in range(CALLS_AT_ONCE)])
    leave(pipe, Sent(count, began, time.monotonic()))


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("zerorpc", "zerorpc")
    began = go(pipe)
    _connected(where)
    leave(pipe, 1000 * (time.monotonic() - began))


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    client("zerorpc", "zerorpc")
    yield Opened({"zerorpc": version("zerorpc"), "gevent": version("gevent")})


_ROLES: Roles = {
    CALL.key: Pair(_call, _serve),
    CALLS.key: Pair(_call_at_once, _serve),
    START.key: Pair(_start, _serve),
}

ZERORPC = System(
    "zerorpc",
    "without heartbeats; 64 greenlets call at once",
    _ROLES,
    _opened,
    left_out={
        **{
            each.key: "it has calls alone"
            for each in (STREAM, ACKED, KEYED, PUBLISH_8, PUBLISH_64, QUEUE, DURABLE, LARGE, BULK)
        },
        MEMORY.key: "its clients keep no connection that shows",
    },
)
