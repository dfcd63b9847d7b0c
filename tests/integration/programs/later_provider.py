"""A provider for tests, to be killed: `later_provider.py PORT`.

`quick` answers, `hang` says that it was asked and never answers, or answers where it is told to
by a line that it reads at its start.
"""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(port: str) -> None:
    hangs = (await asyncio.to_thread(sys.stdin.readline)).strip() == "hang"
    node = zmesh.Node("provider", mdns=False, port=int(port))

    @node.service("work")
    async def work(message: zmesh.Message) -> str:
        say("asked", message.body)
        if hangs:
            await asyncio.Event().wait()
        return f"{message.body} done"

    async with node:
        say(node.endpoints[0])
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
