"""A transport under test, with its news in a list that can be waited for."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from zmesh.actions import Audited, Trace
from zmesh.events import Event, PacketsReceived, PathCause, PathDown, PathUp
from zmesh.ids import Path
from zmesh.options import TransportOptions, WireLimits
from zmesh.security.mesh_key import CurvePair
from zmesh.transport.curve import CurveKeys
from zmesh.transport.zeromq import ZmqTransport

PATIENCE = 10.0
"""Seconds a test waits for what must come. Nothing in here takes long when all is well."""

E = TypeVar("E", bound=Event)


class Peer:
    """A `ZmqTransport` and all it has told and not yet been asked for."""

    def __init__(self, **options: Any) -> None:
        self.events: list[Event] = []
        self.traces: list[Trace] = []
        self.audited: list[Audited] = []
        self.packets_left: list[tuple[Path, list[bytes]]] = []
        self.is_called = False  # while one of the transport's methods runs
        self._news = asyncio.Event()
        loop = options.pop("loop", None) or asyncio.get_running_loop()
        limits = options.pop("limits", WireLimits())
        self.transport = ZmqTransport(
            loop,
            limits,
            on_events=self._on_events,
            on_trace=self.traces.append,
            on_audit=self.audited.append,
            **options,
        )

    def open(self) -> "Peer":
        self.endpoints = self.transport.open()
        self.endpoint = self.endpoints[0]
        return self

    def _on_events(self, events: list[Event]) -> None:
        assert not self.is_called, "news from inside a call"
        assert events, "news without any"
        self.events += events
        self._news.set()

    def send(self, path: Path, *packets: Sequence[bytes | memoryview]) -> None:
        self._call(lambda: self.transport.send(path, packets))

    def dial(self, path: int, endpoint: str) -> None:
        self._call(lambda: self.transport.dial(path, endpoint))

    def hang_up(self, path: int) -> None:
        self._call(lambda: self.transport.hang_up(path))

    def shut_out(self, path: bytes, seconds: float) -> None:
        self._call(lambda: self.transport.shut_out(path, seconds))

    def probe(self, endpoint: str, timeout: float) -> None:
        self._call(lambda: self.transport.probe(endpoint, timeout))

    def _call(self, call: Callable[[], None]) -> None:
        self.is_called = True
        try:
            call()
        finally:
            self.is_called = False

    async def next_of(self, *kinds: type[E]) -> E:
        """Wait for the next event of some kinds, and take it out."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for index, event in enumerate(self.events):
                    if isinstance(event, kinds):
                        del self.events[index]
                        return event
                self._news.clear()
                await self._news.wait()

    async def next(self, kind: type[E]) -> E:
        """Wait for the next event of a kind, and take it out."""
        return await self.next_of(kind)

    async def packets(self, count: int) -> list[tuple[Path, list[bytes]]]:
        """Wait for the next `count` packets, and take them out."""
        while len(self.packets_left) < count:
            self.packets_left += (await self.next(PacketsReceived)).packets
        taken, self.packets_left = self.packets_left[:count], self.packets_left[count:]
        return taken

    async def down(self, path: Path) -> PathCause:
        """Wait for the end of a path; return why."""
        event = await self.next(PathDown)
        assert event.path == path
        return event.cause

    async def linked(self, other: "Peer", path: int = 1) -> Path:
        """Dial another, and return the path by which it knows us."""
        self.dial(path, other.endpoint)
        assert (await self.next(PathUp)).path == path
        self.send(path, [b"hello"])
        [(inbound, parts)] = await other.packets(1)
        assert parts == [b"hello"]
        return inbound

    async def idle(self, seconds: float = 0.2) -> list[Event]:
        """Give what must not happen the time to happen; return what did."""
        await asyncio.sleep(seconds)
        return self.events


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # nothing tells
            await asyncio.sleep(0.01)


def server_pair(seed: int) -> CurvePair:
    """The pair that the listeners of a mesh share."""
    return CurvePair.of(bytes([seed] * 32))


def curve_keys(*seeds: int, connection: CurvePair | None = None) -> CurveKeys:
    """The keys of a node: it listens with the first, and dials with all of them."""
    pairs = [server_pair(seed) for seed in seeds or (1,)]
    own = connection or CurvePair.of(os.urandom(32))
    return CurveKeys(pairs[0], tuple(pair.public for pair in pairs), own)


def options(**changes: Any) -> TransportOptions:
    return TransportOptions(**changes)


def unused_endpoint() -> str:
    """An endpoint of this machine where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"tcp://127.0.0.1:{server.getsockname()[1]}"


def endpoint_of(server: socket.socket) -> str:
    return f"tcp://127.0.0.1:{server.getsockname()[1]}"
