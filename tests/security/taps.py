"""Ways to a node that an attacker makes: they see bytes, hold them back, or put in their own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.security.member import Target

CHUNK = 65_536


@dataclass
class Tap:
    """A TCP relay to a target. `reads_answers` and `passes_on` say in which directions it does."""

    target: Target
    endpoint: str = ""
    reads_answers: asyncio.Event = field(default_factory=asyncio.Event)
    passes_on: asyncio.Event = field(default_factory=asyncio.Event)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)  # the target ended one
    _inward: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.reads_answers.set()
        self.passes_on.set()

    async def on_connection(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Relay a connection."""
        there, towards = await self.target.dial()
        self._inward.append(towards)
        ways = ((reader, towards, self.passes_on), (there, writer, self.reads_answers))
        for source, sink, gate in ways:
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
                sink.write(chunk)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            if gate is self.reads_answers:
                self.is_over.set()
            sink.close()

    async def inject(self, data: bytes) -> None:
        """Put bytes into every connection to the target."""
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
async def tap(target: Target) -> AsyncIterator[Tap]:
    """Relay to a target, from another endpoint."""
    relay = Tap(target)
    server = await asyncio.start_server(relay.on_connection, "127.0.0.1", 0, limit=CHUNK)
    relay.endpoint = f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
