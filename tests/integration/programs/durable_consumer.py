"""Does durable jobs, and tells of each: `durable_consumer.py journal peer`."""

import asyncio
import sys

import zmesh
from tests.processes import say


async def main(journal: str, peer: str) -> None:
    async with (
        zmesh.Node("worker", mdns=False, peers=[peer], storage=journal) as node,
        node.pull("work", prefetch=4) as jobs,
    ):
        async for job in jobs:
            say(job.body)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
