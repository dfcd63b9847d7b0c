"""What an attack must not do: a victim, honest peers that talk to it meanwhile, and what they saw."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import zmesh
from tests.processes import Child, run
from tests.security.member import Target
from zmesh.ids import NodeId
from zmesh.security.mesh_key import MeshKey

PAUSE = 0.005
"""Seconds between the calls of an honest peer."""

CALL_WITHIN = 10.0
"""Seconds that a call may take on a machine that is busy with other tests."""


@dataclass
class Victim:
    """A node in a process of its own."""

    child: Child
    target: Target

    async def facts(self) -> dict[str, Any]:
        """Return what it counted so far; see `tests.security.victim`."""
        await self.child.tell("facts")
        facts: dict[str, Any] = json.loads(await self.child.line())
        return facts

    async def audited(self, kind: str, seconds: float = 10.0) -> int:
        """Wait until it has noticed something of a kind, and return how often."""
        async with asyncio.timeout(seconds):
            while not (count := (await self.facts())["audited"].get(kind, 0)):
                await asyncio.sleep(0.02)
        return int(count)


@asynccontextmanager
async def victim(key: MeshKey, **settings: Any) -> AsyncIterator[Victim]:
    """Start a victim, which is found by its endpoint alone unless its settings say otherwise."""
    told = json.dumps({"key": key.text, "mdns": False, **settings})
    async with run("-m", "tests.security.victim", told, reads=True) as child:
        first = json.loads(await child.line())
        node = NodeId(bytes.fromhex(first["id"]))
        yield Victim(child, Target(first["endpoint"], node, key))
        child.end_of_input()
        status, _, errors = await child.ended()
        assert status == 0, errors


@dataclass
class Honest:
    """A peer that calls the victim again and again."""

    node: zmesh.Node
    latencies: list[float] = field(default_factory=list)

    async def call(self) -> None:
        """Call once, and note how long it took."""
        body = os.urandom(64)
        began = time.perf_counter()
        assert await self.node.call("echo", body, timeout=CALL_WITHIN) == body
        self.latencies.append(time.perf_counter() - began)

    async def go_on(self) -> None:
        """Call until cancelled."""
        while True:
            await self.call()
            await asyncio.sleep(PAUSE)

    def p99(self) -> float:
        """Return the 99th percentile of the latencies since the last time, in seconds."""
        latencies, self.latencies = sorted(self.latencies), []
        return latencies[int(len(latencies) * 0.99)] if latencies else 0.0


@asynccontextmanager
async def honest(target: Target, name: str = "honest") -> AsyncIterator[Honest]:
    """Join as a member that knows the victim's endpoint, and call it all the time.

    Whatever a call raises ends the block.
    """
    address = target.endpoint.removeprefix("tcp://")
    async with zmesh.Node(
        name, key=target.key, mdns=False, peers=[address], interfaces=["127.0.0.1"]
    ) as node:
        await node.peers.wait_for(service="echo", timeout=CALL_WITHIN)
        peer = Honest(node)
        await peer.call()
        async with asyncio.TaskGroup() as group:
            calls = group.create_task(peer.go_on())
            yield peer
            calls.cancel()
        await peer.call()  # and afterwards
