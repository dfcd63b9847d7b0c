"""gRPC: calls, and streams that one side or both keep open."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
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
    MIB,
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
    Where,
    be_hub,
    crowded,
    go,
    leave,
    timed_calls,
)

PATIENCE_S = 30.0
OPTIONS = (
    ("grpc.max_receive_message_length", 4 * MIB),
    ("grpc.max_send_message_length", 4 * MIB),
    ("grpc.use_local_subchannel_pool", 1),  # else channels of one process share a connection
)


def _answer(body: bytes, _context: object) -> bytes:
    return body


def _acknowledge(bodies: Iterator[bytes], _context: object) -> Iterator[bytes]:
    for _ in bodies:
        yield b""


def _count(bodies: Iterator[bytes], _context: object) -> bytes:
    count = 0
    for _ in bodies:
        count += 1
    return str(count).encode()


def _server(where: Where) -> Any:
    grpc = client("grpc", "grpcio")
    server = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE), options=OPTIONS)
    handlers = {
        "answer": grpc.unary_unary_rpc_method_handler(_answer),
        "acknowledge": grpc.stream_stream_rpc_method_handler(_acknowledge),
        "count": grpc.stream_unary_rpc_method_handler(_count),
    }
    service = grpc.method_handlers_generic_handler("Bench", handlers)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{where.port}")
    server.start()
    return server


def _serve(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    server = _server(where)
    pipe.send(READY)
    server.wait_for_termination()


def _serve_on_loop(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    async def answer(body: bytes, _context: object) -> bytes:
        return body

    async def main() -> None:
        grpc = client("grpc", "grpcio")
        server = client("grpc.aio", "grpcio").server(options=OPTIONS)
        handlers = {"answer": grpc.unary_unary_rpc_method_handler(answer)}
        service = grpc.method_handlers_generic_handler("Bench", handlers)
        server.add_generic_rpc_handlers((service,))
        server.add_insecure_port(f"127.0.0.1:{where.port}")
        await server.start()
        pipe.send(READY)
        await server.wait_for_termination()

    asyncio.run(main())


def _channel(where: Where) -> Any:
    grpc = client("grpc", "grpcio")
    channel = grpc.insecure_channel(f"127.0.0.1:{where.port}", OPTIONS)
    grpc.channel_ready_future(channel).result(PATIENCE_S)
    return channel


def _send(pipe: Connection, scenario: Scenario, where: Where) -> None:
    count = _channel(where).stream_unary("/Bench/count")
    began = go(pipe)
    answer = count(scenario.load())
    leave(pipe, Sent(int(answer), began, time.monotonic()))


def _send_acked(pipe: Connection, scenario: Scenario, where: Where) -> None:
    acknowledge = _channel(where).stream_stream("/Bench/acknowledge")
    room: SimpleQueue[None] = SimpleQueue()
    for _ in range(WINDOW):
        room.put(None)

    def bodies() -> Iterator[bytes]:
        for body in scenario.load():
            room.get()
            yield body

    began, count = go(pipe), 0
    for _ in acknowledge(bodies()):
        room.put(None)
        count += 1
    leave(pipe, Sent(count, began, time.monotonic()))


def _call(pipe: Connection, scenario: Scenario, where: Where) -> None:
    answer = _channel(where).unary_unary("/Bench/answer")
    go(pipe)
    leave(pipe, timed_calls(scenario, answer))


def _call_at_once(pipe: Connection, scenario: Scenario, where: Where) -> None:
    async def main() -> None:
        aio = client("grpc.aio", "grpcio")
        channel = aio.insecure_channel(f"127.0.0.1:{where.port}", options=OPTIONS)
        await channel.channel_ready()
        answer = channel.unary_unary("/Bench/answer")
        began, count = await asyncio.to_thread(go, pipe), 0

        async def keep_calling() -> None:
            nonlocal count
            for body in scenario.load():
                await answer(body)
                count += 1

        async with asyncio.TaskGroup() as callers:
            for _ in range(CALLS_AT_ONCE):
                callers.create_task(keep_calling())
        leave(pipe, Sent(count, began, time.monotonic()))

    asyncio.run(main())


def _start(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    client("grpc", "grpcio")
    began = go(pipe)
    _channel(where).unary_unary("/Bench/answer")(b"")
    leave(pipe, 1000 * (time.monotonic() - began))


def _hub(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    server = _server(where)
    be_hub(pipe)
    server.wait_for_termination()


def _peers(pipe: Connection, _scenario: Scenario, where: Where) -> None:
    crowded(pipe, lambda: _channel(where))


@contextmanager
def _opened(_place: Path) -> Iterator[Opened]:
    yield Opened({"grpcio": client("grpc", "grpcio").__version__})


_ROLES: Roles = {
    STREAM.key: Pair(_send, _serve),
    ACKED.key: Pair(_send_acked, _serve),
    CALL.key: Pair(_call, _serve),
    CALLS.key: Pair(_call_at_once, _serve_on_loop),
    LARGE.key: Pair(_send, _serve),
    BULK.key: Pair(_send, _serve),
    START.key: Pair(_start, _serve),
    MEMORY.key: Crowd(_peers, _hub),
}

GRPC = System(
    "gRPC",
    "grpcio with bodies as they are, no protobuf; a client's stream, answered when it ends; an "
    "answer to each message of a stream, 1,000 under way; 64 calls on asyncio at both ends, else "
    "threads",
    _ROLES,
    _opened,
    left_out={
        **{key.key: "it has none" for key in (PUBLISH_8, PUBLISH_64, QUEUE)},
        KEYED.key: "it has no keys",
        DURABLE.key: "it keeps nothing",
    },
)
