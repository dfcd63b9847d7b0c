"""A peer that talks to a victim all the time: `python -m tests.security.honest SETTINGS`.

It calls the victim again and again and reads what that publishes. For each line it reads it prints
a line of JSON: what came of it since the line before. Where a call fails, it ends and says why.
"""

import asyncio
import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import zmesh
from tests.processes import say
from tests.security.victim import TICKS

PAUSE = 0.005
"""Seconds between two calls."""

CALL_WITHIN = 30.0
"""Seconds that a call may take on a machine that is busy with other tests."""


@dataclass
class Honest:
    """What it does, and how that goes."""

    node: zmesh.Node
    calls: int = 0
    ticks: int = 0
    missed: int = 0
    suspected: int = 0
    latencies: list[float] = field(default_factory=list)  # since they were told

    async def call(self) -> None:
        """Call all the time."""
        while True:
            body = os.urandom(64)
            began = time.perf_counter()
            if await self.node.call("echo", body, timeout=CALL_WITHIN) != body:
                raise AssertionError("the answer is of another call")
            self.latencies.append(time.perf_counter() - began)
            self.calls += 1
            await asyncio.sleep(PAUSE)

    async def read(self) -> None:
        """Read what is published, and see that nothing is missing."""
        latest: int | None = None
        async with self.node.subscribe(TICKS) as ticks:
            async for message in ticks:
                number = int.from_bytes(message.body[:8], "big")
                self.missed += 0 if latest is None else number - latest - 1
                self.ticks += 1
                latest = number

    async def watch(self) -> None:
        """Note whether the victim is suspected, or seems to leave."""
        async for event in self.node.peers.watch():
            self.suspected += isinstance(event, zmesh.Suspected | zmesh.Left)

    def facts(self) -> dict[str, Any]:
        """Return how it went; latencies are of the calls since the last time, in seconds."""
        latencies, self.latencies = sorted(self.latencies), []
        return {
            "calls": self.calls, "ticks": self.ticks, "missed": self.missed,
            "suspected": self.suspected, "p50": percentile(latencies, 0.5),
            "p99": percentile(latencies, 0.99), "longest": percentile(latencies, 1.0),
            "peers": {peer.name: peer.state.value for peer in self.node.peers},
        }  # fmt: skip


async def main(settings: dict[str, Any]) -> None:
    async with zmesh.Node(mdns=False, interfaces=["127.0.0.1"], **settings) as node:
        await node.peers.wait_for(service="echo", timeout=CALL_WITHIN)
        peer = Honest(node)
        tasks = [asyncio.create_task(each()) for each in (peer.call, peer.read, peer.watch)]
        while not (peer.calls and peer.ticks):
            await asyncio.sleep(0.01)
            _raise(tasks)
        say(json.dumps(peer.facts()))
        reading = asyncio.to_thread(sys.stdin.readline)
        while await reading:
            _raise(tasks)
            say(json.dumps(peer.facts()))
            reading = asyncio.to_thread(sys.stdin.readline)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _raise(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        if task.done():
            task.result()


def percentile(latencies: list[float], share: float) -> float:
    """Return a percentile of sorted latencies; 0 where there are none."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] if latencies else 0.0


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
