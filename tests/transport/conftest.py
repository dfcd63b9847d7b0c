"""Transports that are closed whatever a test does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from tests.transport.lab import Lab
from tests.transport.peer import Peer, curve_keys
from tests.transport.zmtp import RawPeer

MakePeer = Callable[..., Peer]
DialRaw = Callable[..., Awaitable[RawPeer]]


plain_and_curve = pytest.mark.parametrize("peer", ["plain", "curve"], indirect=True)
"""A test that is run both ways."""


@pytest_asyncio.fixture
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[MakePeer]:
    """Make open transports; keywords go to `ZmqTransport`.

    With the parameter "curve" (see `plain_and_curve`) they have the keys of one mesh.
    """
    made: list[Peer] = []
    is_guarded = getattr(request, "param", "plain") == "curve"

    def make(**options: Any) -> Peer:
        if is_guarded:
            options.setdefault("curve", curve_keys())
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


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()
