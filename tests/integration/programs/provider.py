"""A provider for tests: `provider.py name mesh [peers...]`; it prints where it listens.

Services: `who` answers its name, `hang` never answers (and prints when asked), `block` stalls the
event loop for so many seconds, `slow` answers after so many. SIGTERM closes it with a drain.
"""

import asyncio
import signal
import sys
import time

import zmesh
from tests.processes import say


async def main(name: str, mesh: str, *peers: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    node = zmesh.Node(name, mesh=mesh, peers=peers, mdns=not peers)

    @node.service("who")
    async def who(_: zmesh.Message) -> str:
        return name

    @node.service("hang", concurrency=100)
    async def hang(message: zmesh.Message) -> str:
        say("asked", message.body)
        if message.body != name:
            return name
        await asyncio.Event().wait()
        return ""

    @node.service("block")
    async def block(message: zmesh.Message) -> str:
        time.sleep(message.body)  # noqa: ASYNC251  # the very mistake under test
        return name

    @node.service("slow", concurrency=100)
    async def slow(message: zmesh.Message) -> str:
        await asyncio.sleep(message.body)
        return name

    await node.open()
    say(node.endpoints[0])
    reading = asyncio.create_task(_read(node))
    await stop.wait()
    report = await node.close(drain=5)
    await reading
    say(report.unsettled_out, report.unsettled_in)


async def _read(node: zmesh.Node) -> None:
    async for _ in node.inbox():
        pass


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
