"""Attacks by mDNS: `python -m tests.security.false_records flood COUNT`, or `spoof`.

To be run in a network namespace, since what is said reaches every ear on the loopback it is said
on. Prints a line of JSON: what the nodes that were lied to counted, and whether they met.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import asdict
from typing import Any

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncZeroconf

import zmesh
from tests.discovery.waiting import until
from tests.processes import say
from tests.resources import Memory
from tests.security.discoveries import PAUSE, announce
from tests.security.lures import trap
from tests.security.member import Target
from zmesh.ids import NodeId
from zmesh.security.mesh_key import MeshKey

CALLS_MIN = 10
"""While lies are told, however long the two take to meet."""


def open_node(name: str, key: MeshKey) -> zmesh.Node:
    """Return a node that is found by mDNS."""
    return zmesh.Node(name, key=key, interfaces=["127.0.0.1"])


async def flood(key: MeshKey, voice: AsyncZeroconf, count: int) -> dict[str, Any]:
    """Announce nodes that are not there, so many or more, while two that are meet and talk."""
    tag = key.tag("default")
    async with open_node("ada", key) as ada:

        @ada.service("echo")
        async def echo(message: zmesh.Message) -> object:
            return message.body

        memory = Memory()

        said = 0

        async def lie() -> None:
            nonlocal said
            while True:
                announce(voice, tag, os.urandom(16), 1 + said % 1000)
                said += 1
                await asyncio.sleep(PAUSE)

        lying = asyncio.create_task(lie())
        await asyncio.sleep(0.5)
        async with open_node("bob", key) as bob:
            began = time.monotonic()
            await bob.peers.wait_for(service="echo", timeout=60)
            joined = time.monotonic() - began
            calls = 0
            while said < count or calls < CALLS_MIN:
                await bob.call("echo", calls, timeout=10)
                calls += 1
                await asyncio.sleep(0.01)
            lying.cancel()
            table = asdict(ada.statistics().engine.membership.table)
            await bob.call("echo", calls, timeout=10)
            return {"joined": joined, "calls": calls, "growth": memory.growth, **table}


async def spoof(key: MeshKey, voice: AsyncZeroconf, _: int) -> dict[str, Any]:
    """Announce a node's id at another member's endpoint, and where nobody is, before the truth."""
    tag = key.tag("default")
    async with zmesh.Node("ada", key=key, interfaces=["127.0.0.1"], mdns=False) as ada:
        here = Target(ada.endpoints[0], NodeId(bytes.fromhex(ada.id)), key)
        async with trap(here) as lure:
            ports = [int(lure.endpoint.rpartition(":")[2]), 9]

            async def lie() -> None:
                while True:
                    for port in ports:
                        announce(voice, tag, here.node, port)
                    await asyncio.sleep(0.05)

            lying = asyncio.create_task(lie())
            async with open_node("bob", key) as bob:
                await until(lambda: bob.statistics().engine.membership.wrong_node > 0, 30)
                met_before = [peer.name for peer in bob.peers if peer.id == ada.id]
                ports.append(here.address[1])  # now the truth comes as well
                began = time.monotonic()
                await bob.peers.wait_for(name="ada", timeout=60)
                joined = time.monotonic() - began
                receipt = await bob.post("ada", "to her alone")
                async with asyncio.timeout(20):
                    heard = await anext(ada.inbox(settle="manual"))
                    await heard.accept()
                    await receipt
                lying.cancel()
                return {
                    "met_before": met_before,
                    "joined": joined,
                    "heard": heard.body,
                    "trapped": sum(said.to == here.node for _, said in lure.hellos),
                }


async def main(attack: str, count: str = "0") -> None:
    async with AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only) as voice:
        await voice.zeroconf.async_wait_for_start()
        run = {"flood": flood, "spoof": spoof}[attack]
        say(json.dumps(await run(MeshKey(os.urandom(32)), voice, int(count))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
