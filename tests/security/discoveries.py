"""An attack by mDNS. Only for a network namespace: it reaches every ear on the loopback."""

import asyncio
import os
from functools import partial

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from tests.security.attack import Attack
from tests.security.member import Target
from zmesh.discovery.records import SERVICE

PAUSE = 0.0005
"""Seconds between two records."""


def record(tag: bytes, node: bytes, port: int) -> AsyncServiceInfo:
    """Return what announces a node at a port of loopback."""
    entries = {"txtvers": "1", "v": "1", "id": node.hex(), "mesh": tag.hex()}
    return AsyncServiceInfo(
        SERVICE,
        f"{node.hex()}.{SERVICE}",
        port=port,
        properties=entries,
        server=f"{node.hex()}.local.",
        parsed_addresses=["127.0.0.1"],
    )


def announce(voice: AsyncZeroconf, tag: bytes, node: bytes, port: int) -> None:
    """Say once that a node is at a port of loopback."""
    out = voice.zeroconf.generate_service_broadcast(record(tag, node, port), None)
    voice.zeroconf.async_send(out)


async def announce_who_is_not_there(count: int, target: Target) -> None:
    """Announce so many nodes of the mesh that do not exist."""
    tag = target.key.tag("default")
    async with AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only) as voice:
        await voice.zeroconf.async_wait_for_start()
        for number in range(count):
            announce(voice, tag, os.urandom(16), 1 + number % 1000)
            await asyncio.sleep(PAUSE)


DISCOVERIES = (Attack(partial(announce_who_is_not_there, 10_000), {"table.turned_away": 1}),)
