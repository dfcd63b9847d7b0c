"""Transports that are closed whatever a test does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from tests.transport.peer import Peer
from tests.transport.zmtp import RawPeer

MakePeer = Callable[..., Peer]
DialRaw = Callable[..., Awaitable[RawPeer]]


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[MakePeer]:
    """Make open transports; keywords go to `ZmqTransport`."""
    made: list[Peer] = []

    def make(**options: Any) -> Peer:
        made.append(Peer(**options))
        return made[-1].open()

    yield make
    for each in made:
        each.transport.close()


@pytest_asyncio.fixture
async def dial_raw() -> AsyncIterator[DialRaw]:
    """Dial an endpoint as a peer that need not keep the rules; see `RawPeer.dial`."""
    made: list[RawPeer] = []

    async def dial(endpoint: str, routing_id: bytes = b"") -> RawPeer:
        made.append(await asyncio.to_thread(RawPeer.dial, endpoint, routing_id))
        return made[-1]

    yield dial
    for each in made:
        each.close()
