"""Ends in one of many ways, with messages under way: `ending.py how peer`."""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(how: str, peer: str) -> None:
    node = zmesh.Node("ending", mdns=how.endswith("mdns"), peers=[peer], mesh="ending")
    if how == "leak":
        await node.open()
        await use(node)
        say("ready")
        return
    async with node:
        await use(node)
        say("ready")
        if how == "exception":
            raise ZeroDivisionError
        if how == "interrupt":
            await asyncio.Event().wait()
        if how == "exit":
            sys.exit(3)


async def use(node: zmesh.Node) -> None:
    @node.service("work")
    def work(_: zmesh.Message) -> None: ...

    await node.peers.wait_for(name="peer", timeout=10)
    await node.call("work")
    await node.post_many("peer", [bytes(1000)] * 1000)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
