"""Edges of a mesh, several in one process: `edges.py count mdns|peer...`. Each calls `who`.

Says "linked" with the names that each sees, and what each call to `who` answered, when it is told
to; then waits for the next word.
"""

import asyncio
import sys
from contextlib import AsyncExitStack

import zmesh
from tests.processes import say


async def main(prefix: str, count: str, mesh: str, *peers: str) -> None:
    async with AsyncExitStack() as stack:
        edges = []
        for number in range(int(count)):
            name = f"{prefix}{number}"
            mdns = not peers
            edge = zmesh.Node(name, mesh=mesh, key=(), mdns=mdns, peers=peers, role="edge")
            edges.append(await stack.enter_async_context(edge))
        loop = asyncio.get_running_loop()
        while word := (await loop.run_in_executor(None, sys.stdin.readline)).split():
            hubs = int(word[0])
            for edge in edges:
                await edge.peers.wait_for(service="who", count=hubs, timeout=60)
                seen = sorted(peer.name for peer in edge.peers)
                say(edge.name, *seen, await edge.call("who", timeout=60))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
