"""Attacks by mDNS, on a loopback of their own: `python -m tests.security.false_records ATTACK`.

To be run in a network namespace, since what is said reaches every ear on the loopback it is said
on. Prints a line of JSON: what the nodes that were lied to counted, and whether they met.
"""

import asyncio
import json
import os
import sys
import time
from typing import Any

from zeroconf import IPVersion
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

import zmesh
from tests.processes import say
from tests.resources import Memory
from tests.security.lures import trap
from tests.security.member import Target
from zmesh.discovery.records import SERVICE
from zmesh.ids import NodeId
from zmesh.security.mesh_key import MeshKey

FALSE = int(os.environ.get("FALSE", "10000"))


def records(tag: bytes, node: bytes, port: int) -> AsyncServiceInfo:
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


def open_node(name: str, key: MeshKey) -> zmesh.Node:
    """Return a node that is found by mDNS."""
    return zmesh.Node(name, key=key, interfaces=["127.0.0.1"])


async def flood(key: MeshKey, voice: AsyncZeroconf) -> dict[str, Any]:
    """Announce ten thousand nodes that are not there, while two that are meet and talk."""
    tag = key.tag("default")
    async with open_node("ada", key) as ada:

        @ada.service("echo")
        async def echo(message: zmesh.Message) -> object:
            return message.body

        memory = Memory()

        async def lie() -> None:
            for number in range(FALSE):
                info = records(tag, os.urandom(16), 1 + number % 1000)
                voice.zeroconf.async_send(voice.zeroconf.generate_service_broadcast(info, None))
                await asyncio.sleep(0.0005)

        lying = asyncio.create_task(lie())
        await asyncio.sleep(0.5)
        async with open_node("bob", key) as bob:
            began = time.monotonic()
            await bob.peers.wait_for(service="echo", timeout=60)
            joined = time.monotonic() - began
            calls = 0
            while not lying.done():
                await bob.call("echo", calls, timeout=10)
                calls += 1
                await asyncio.sleep(0.01)
            candidates = ada.statistics().engine.membership.candidates
            await bob.call("echo", calls, timeout=10)
            return {
                "joined": joined, "calls": calls, "candidates": candidates,
                "growth": memory.growth, "audited": ada.statistics().audited,
            }  # fmt: skip


async def spoof(key: MeshKey, voice: AsyncZeroconf) -> dict[str, Any]:
    """Announce a node's id at the endpoint of another member, and where nobody is."""
    tag = key.tag("default")
    async with open_node("ada", key) as ada:
        here = Target(ada.endpoints[0], NodeId(bytes.fromhex(ada.id)), key)
        async with trap(here) as lure:

            async def lie() -> None:
                ports = [int(lure.endpoint.rpartition(":")[2]), 9]
                while True:
                    for port in ports:
                        info = records(tag, here.node, port)
                        out = voice.zeroconf.generate_service_broadcast(info, None)
                        voice.zeroconf.async_send(out)
                    await asyncio.sleep(0.02)

            lying = asyncio.create_task(lie())
            await asyncio.sleep(0.3)
            async with open_node("bob", key) as bob:
                began = time.monotonic()
                await bob.peers.wait_for(name="ada", timeout=60)
                joined = time.monotonic() - began
                inbox = ada.inbox(settle="manual")
                receipt = await bob.post("ada", "to her alone")
                async with asyncio.timeout(20):
                    heard = await anext(inbox)
                    await heard.accept()
                    await receipt
                lying.cancel()
                return {
                    "joined": joined,
                    "heard": heard.body,
                    "trapped": sum(said.to == here.node for _, said in lure.hellos),
                }


async def main(attack: str) -> None:
    async with AsyncZeroconf(interfaces=["127.0.0.1"], ip_version=IPVersion.V4Only) as voice:
        await voice.zeroconf.async_wait_for_start()
        run = {"flood": flood, "spoof": spoof}[attack]
        say(json.dumps(await run(MeshKey(os.urandom(32)), voice)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
