"""NATS JetStream: file storage, synced with every message."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.processes import expect, role
from benchmarks.servers import client, free_port, program, running
from benchmarks.turns import END, Measure, Rates, best_of, for_seconds, fresh_name

ONE = "JetStream: publish, one at a time"
WINDOW = "JetStream: publish, a window of acks"
END_TO_END = "JetStream: a window of acks, fetch, ack"

WINDOWS = (16, 64, 256, 1024)
FETCH_COUNT = 256
SEARCH_S = 0.2
CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{place}", sync_interval: always }}
"""


@contextmanager
def serving(place: Path) -> Iterator[tuple[int, int]]:
    """Run a server, whose files are synced with every message; yield port and pid."""
    server, port = program("nats-server"), free_port()
    place.mkdir(parents=True, exist_ok=True)
    config = place / "nats.conf"
    config.write_text(CONFIG.format(port=port, place=place))
    with running([server, "-c", str(config)], place, port) as pid:
        yield port, pid


@contextmanager
def measures(place: Path, notes: list[str]) -> Iterator[list[Measure]]:
    """Run a server, and give what is measured on it."""
    client("nats", "nats-py")
    with serving(place) as (port, _):
        streams = _Streams(port, notes)
        notes.append(f"{asyncio.run(streams.version())}, nats-py {version('nats-py')}")
        yield [streams.one_by_one, streams.windowed, streams.end_to_end]


class _Streams:
    def __init__(self, port: int, notes: list[str]) -> None:
        self._port = port
        self._notes = notes
        self._best: dict[int, int] = {}  # by length of body

    async def version(self) -> str:
        async with _connected(self._port) as connection:
            return str(connection.connected_server_version)

    def one_by_one(self, body: bytes, seconds: float) -> Rates:
        async def work() -> float:
            async with _stream(self._port, fresh_name()) as (stream, name):
                count, began = 0, time.perf_counter()
                for _ in for_seconds(seconds):
                    await stream.publish(name, body)
                    count += 1
                return count / (time.perf_counter() - began)

        return {ONE: asyncio.run(work())}

    def windowed(self, body: bytes, seconds: float) -> Rates:
        return {WINDOW: asyncio.run(self._windowed(body, seconds, self._window(body)))}

    def end_to_end(self, body: bytes, seconds: float) -> Rates:
        window = self._window(body)

        async def work() -> float:
            async with _stream(self._port, fresh_name(), window) as (stream, name):
                with role(_consume, self._port, name) as (pipe, _):
                    await asyncio.to_thread(expect, pipe)
                    began = time.perf_counter()
                    count = await _publish_for(stream, name, body, seconds)
                    await stream.publish(name, END)
                    await asyncio.to_thread(expect, pipe)
                    return count / (time.perf_counter() - began)

        return {END_TO_END: asyncio.run(work())}

    async def _windowed(self, body: bytes, seconds: float, window: int) -> float:
        async with _stream(self._port, fresh_name(), window) as (stream, name):
            began = time.perf_counter()
            count = await _publish_for(stream, name, body, seconds)
            return count / (time.perf_counter() - began)

    def _window(self, body: bytes) -> int:
        """Return how many outstanding acks are the fastest here, looked for once."""

        def measure(window: int) -> float:
            return asyncio.run(self._windowed(body, SEARCH_S, window))

        if len(body) not in self._best:
            window = self._best[len(body)] = best_of(WINDOWS, measure)
            self._notes.append(f"JetStream: windows of {window} for {len(body)} bytes")
        return self._best[len(body)]


async def _publish_for(stream: Any, name: str, body: bytes, seconds: float) -> int:
    """Publish with as many acks outstanding as `stream` allows, and wait for all of them."""
    acks = [await stream.publish_async(name, body) for _ in for_seconds(seconds)]
    await asyncio.gather(*acks)
    return len(acks)


@asynccontextmanager
async def _connected(port: int) -> AsyncIterator[Any]:
    connection = await client("nats", "nats-py").connect(f"nats://127.0.0.1:{port}")
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _stream(port: int, name: str, window: int = 1) -> AsyncIterator[tuple[Any, str]]:
    async with _connected(port) as connection:
        stream = connection.jetstream(publish_async_max_pending=window)
        await stream.add_stream(name=name, subjects=[name], storage="file")
        yield stream, name
        await stream.delete_stream(name)


def _consume(pipe: Connection, port: int, name: str) -> None:
    async def work() -> None:
        async with _connected(port) as connection:
            pull = await connection.jetstream().pull_subscribe(name, durable="one", stream=name)
            pipe.send("ready")
            while True:
                for message in await pull.fetch(FETCH_COUNT, timeout=5):
                    if message.data == END:
                        await message.ack_sync()  # answered: so those before it were taken
                        pipe.send("done")
                        return
                    await message.ack()

    asyncio.run(work())
