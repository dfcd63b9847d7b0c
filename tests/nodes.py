"""Nodes for tests: on loopback, found by address, closed whatever happens."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import zmesh
from zmesh import Node, NodeOptions

QUICK = NodeOptions(redeliver_min=0.01, redeliver_max=0.02, attempts_max=3)
"""Options of nodes whose messages are delivered again soon, and not often."""


@asynccontextmanager
async def nodes(*names: str, options: NodeOptions = QUICK) -> AsyncIterator[list[Node]]:
    """Open nodes that all know each other, without mDNS."""
    async with AsyncExitStack() as stack:
        opened: list[Node] = []
        for name in names:
            known = [endpoint for node in opened for endpoint in node.endpoints]
            node = Node(name, peers=known, mdns=False, options=options)
            opened.append(await stack.enter_async_context(node))
        if len(names) > 1:
            for node in opened:
                await node.peers.wait_for(count=len(names) - 1, timeout=10)
        yield opened


async def read(inbox: "zmesh.Inbox", count: int) -> list[zmesh.Message]:
    """Read, and accept, so many messages."""
    messages = []
    async for message in inbox:
        messages.append(message)
        if len(messages) == count:
            break
    return messages
