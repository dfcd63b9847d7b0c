"""Publishes what is numbered, and says what is on disk; killed by a test.

Usage: log_publisher.py JOURNAL ENDPOINT LIFE
"""

import asyncio
import sys
from itertools import count

from tests.processes import say
from zmesh import Node


async def main(journal: str, endpoint: str, life: int) -> None:
    async with Node("shop", mdns=False, peers=[endpoint], storage=journal) as node:
        await node.peers.wait_for(topic="orders.new", timeout=20)
        for number in count():
            await node.publish("orders.new", [life, number])
            say(number)


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
