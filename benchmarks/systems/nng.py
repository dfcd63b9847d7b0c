"""nng by pynng: push to pull, publish to subscribe, request to reply."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
    END,
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
    Crowd,
    Opened,
    Pair,
    Roles,
    Sent,
    System,
    Tally,
    Where,
    be_hub,
    crowded,
    go,
    leave,
    timed_calls,
)

BUFFER = 8_192
"""Messages: the most it allows."""

SETTLED_S = 0.3
WORKERS = 64


def _socket(kind: str, where: Where, *, listens: bool) -> Any:
    """Return a socket; one that dials is connected."""
    socket = getattr(client("pynng", "pynng"), kind)()
    socket.recv_max_size = 0
    if kind not in ("Req0", "Rep0"):
        if kind not in ("Pull0", "Sub0"):
            socket.send_buffer_size = BUFFER
        else:
            socket.recv_buffer_size = BUFFER
    if kind == "Sub0":
        socket.subscribe(b"")
    address = f"tcp://127.0.0.1:{where.port}"
    if listens:
        socket.listen(address)
    else:
        socket.dial(address, block=True)
    return socket


def _push(pipe: Connection, scenario: Scenario, where: Where) -> None:
    _produce(pipe, scenario, _socket("Push0", where, listens=True))


def _publish(pipe: Connection, scenario: Scenario, where: Where) -> None:
    _produce(pipe, scenario, _socket("Pub0", where, listens=True))


def _produce(pipe: Connection, scenario: Scenario, socket: Any) -> None:
    pipe.send(READY)  # it listens
    time.sleep(SETTLED_S)  # it is not told who connects
    began, count = go(pipe), 0
    for body in scenario.load():
        socket.send(body)
        count += 1
    if not scenario.is_shared:
        socket.send(END)
    leave(pipe, Sent(count, began))


def _pull(pipe: Connection, scenario: Scenario, where: Where) -> None:
    _consume(pipe, scenario, _socket("Pull0", where, listens=False))


def _subscribe(pipe: Connection, scenario: Scenario, where: Where) -> None:
    _consume(pipe, scenario, _socket("Sub0", where, listens=False))


def _consume(pipe: Connection, scenario: Scenario, socket: Any) -> None:
    timeout = client("pynng", "pynng").Timeout
    tally = Tally(shared=scenario.is_shared)
    socket.recv_timeout = 200
    pipe.send(READY)
    while not tally.is_over:
        try:
            tally.take(socket.recv())
        except timeout:
            if tally.is_idle():
                break
    pipe.send(tally)


def _echo(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def answer(context: Any) -> None:
        while True:
            await context.asend(await context.arecv())

    async def main() -> None:
        socket = _socket("Rep0", where, listens=True)
        pipe.send(READY)
        count = WORKERS if scenario.key == CALLS.key else 1
        await asyncio.gather(*(answer(socket.new_context()) for _ in range(count)))

    if scenario.key == CALLS.key:
        asyncio.run(main())
    socket = _socket("Rep0", where, listens=True)
    pipe.send(READY)
    while True:
        socket.send(socket.recv())


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    socket = _socket("Req0", where, listens=False)

    def call(body: bytes) -> None:
        socket.send(body)
        socket.recv()

    go(pipe)
    leave(pipe, timed_calls(scenario, call))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        socket = _socket("Req0", where, listens=False)
        began, count = await asyncio.to_thread(go, pipe), 0

        async def keep_calling() -> None:
            nonlocal count
            with socket.new_context() as context:
                for body in scenario.load():
                    await context.asend(body)
                    await context.arecv()
                    count += 1

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLS_AT_ONCE):
                callers.create_task(keep_calling())
        leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("pynng", "pynng")
    began = go(pipe)
    socket = _socket("Req0", where, listens=False)
    socket.send(b"hello")
    socket.recv()
    leave(pipe, 1000 * (time.monotonic() - began))


def _hub(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    socket = _socket("Rep0", where, listens=True)
    be_hub(pipe)
    while True:
        socket.send(socket.recv())


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    def connected() -> Any:
        socket = _socket("Req0", where, listens=False)
        socket.send(b"hello")
        socket.recv()
        return socket

    crowded(pipe, connected)


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    pynng = client("pynng", "pynng")
    yield Opened({"pynng": pynng.__version__})


_ROLES: Roles = {
    STREAM.key: Pair(_push, _pull, sender_first=True),
    CALL.key: Pair(_call, _echo),
    CALLS.key: Pair(_call_at_once, _echo),
    PUBLISH_8.key: Pair(_publish, _subscribe, sender_first=True),
    PUBLISH_64.key: Pair(_publish, _subscribe, sender_first=True),
    QUEUE.key: Pair(_push, _pull, sender_first=True),
    LARGE.key: Pair(_push, _pull, sender_first=True),
    BULK.key: Pair(_push, _pull, sender_first=True),
    START.key: Pair(_start, _echo),
    MEMORY.key: Crowd(_peers, _hub),
}

NNG = System(
    "nng",
    "pynng; push to pull, also for the work queue, which acknowledges nothing; publish drops what "
    "a subscriber has no room for (8,192 messages); 64 calls are contexts on asyncio",
    _ROLES,
    _opened,
    left_out={
        **{key.key: "it acknowledges nothing" for key in (ACKED, KEYED)},
        DURABLE.key: "it keeps nothing",
    },
    preload=("pynng",),
)
