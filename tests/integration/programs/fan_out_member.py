"""A member for tests, to be killed: `fan_out_member.py NAME JOURNAL PORT`.

It prints each message, and accepts it when it reads a line.
"""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(name: str, journal: str, port: str) -> None:
    async with (
        zmesh.Node(name, mdns=False, storage=journal, port=int(port)) as node,
        node.join("cameras", settle="manual") as group,
    ):
        say("joined")
        async for message in group:
            say("got", message.body)
            await asyncio.to_thread(sys.stdin.readline)
            await message.accept()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
