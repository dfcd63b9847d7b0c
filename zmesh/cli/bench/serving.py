"""The other end of `zmesh bench`: takes messages, answers calls, counts the parts of streams."""

import asyncio
import sys

import zmesh
from zmesh.cli.bench.measures import CALLS_AT_ONCE, service_of


async def serve(node: zmesh.Node) -> None:
    """Serve on an open node until cancelled."""
    me = node.id

    @node.service(service_of(me, "echo"), concurrency=CALLS_AT_ONCE)
    async def echo(message: zmesh.Message) -> object:
        return message.body

    @node.service(service_of(me, "parts"))
    async def parts(message: zmesh.Message) -> int:
        count = 0
        async for _ in message.parts:
            count += 1
        return count

    async for _ in node.inbox():
        pass  # taken, and so accepted


async def beside(peer: str) -> None:
    """Be the other end on this machine, of the node at `peer`, until standard input ends."""
    async with zmesh.Node("bench", mdns=False, peers=[peer], interfaces=["127.0.0.1"]) as node:
        serving = asyncio.create_task(serve(node))
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
        await asyncio.wait([serving, ended], return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()


if __name__ == "__main__":
    asyncio.run(beside(sys.argv[1]))
