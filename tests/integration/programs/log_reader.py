"""Reads a durable subscription, and says what it reads: killed by a test.

Usage: log_reader.py JOURNAL ENDPOINT
"""

import asyncio
import sys

from tests.processes import say
from zmesh import Node


async def main(journal: str, endpoint: str) -> None:
    node = Node("till", mdns=False, peers=[endpoint], storage=journal)
    async with node, node.subscribe("orders.>", name="billing", since="first") as orders:
        async for message in orders:
            say(message.body)


asyncio.run(main(*sys.argv[1:]))
