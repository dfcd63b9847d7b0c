"""Ways to a node that an attacker makes: they see bytes, hold them back, or put in their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

CHUNK = 65_536


@dataclass
class Tap:
    """A TCP relay to one endpoint. `seen` is what went through, both ways, up to `seen_max`."""

    host: str
    port: int
    seen_max: int = 1 << 20
    endpoint: str = ""
    seen: bytearray = field(default_factory=bytearray)
    reads_answers: asyncio.Event = field(default_factory=asyncio.Event)
    _inward: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def _on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        there, towards = await asyncio.open_connection(self.host, self.port)
        self._inward.append(towards)
        always = asyncio.Event()
        always.set()
        for source, sink, gate in ((reader, towards, always), (there, writer, self.reads_answers)):
            task = asyncio.create_task(self._pump(source, sink, gate))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        try:
            while True:
                await gate.wait()
                chunk = await source.read(CHUNK)
                if not chunk:
                    break
                self.seen += chunk[: self.seen_max - len(self.seen)]
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def inject(self, data: bytes) -> None:
        """Put bytes into every connection to the endpoint."""
        for towards in self._inward:
            towards.write(data)
            await towards.drain()

    async def close(self) -> None:
        """End all connections."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for towards in self._inward:
            towards.close()


@asynccontextmanager
async def tap(endpoint: str) -> AsyncIterator[Tap]:
    """Relay to an endpoint, from another one."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    relay = Tap(host, int(port))
    relay.reads_answers.set()
    server = await asyncio.start_server(relay._on_connection, "127.0.0.1", 0)  # noqa: SLF001
    relay.endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
