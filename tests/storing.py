"""Nodes with a journal for tests, which may be opened again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import zmesh
from tests.nodes import QUICK
from zmesh import Node, NodeOptions, Storage
from zmesh.options import KIB, JournalOptions

SMALL = JournalOptions(reserve_bytes_min=256 * KIB, wal_bytes_max=128 * KIB)


@asynccontextmanager
async def stored(
    name: str, path: Path, *others: Node, options: NodeOptions = QUICK
) -> AsyncIterator[Node]:
    """Open a node on a journal, which knows these others."""
    known = [endpoint for other in others for endpoint in other.endpoints]
    storage = Storage(path, options=SMALL)
    async with zmesh.Node(name, peers=known, mdns=False, storage=storage, options=options) as node:
        if others:
            await node.peers.wait_for(count=len(others), timeout=10)
        yield node


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something holds that nothing tells of."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
