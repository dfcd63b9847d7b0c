"""Pushes durable jobs and tells of each that is on disk: `durable_producer.py journal peer what`.

What is "numbers FIRST", which never ends, "one", "delayed SECONDS", or "nothing".
"""

import asyncio
import sys
from itertools import count

import zmesh
from tests.processes import say


async def main(journal: str, peer: str, what: str, argument: str = "0") -> None:
    options = zmesh.NodeOptions(queued_jobs_max=200, redeliver_min=0.01, redeliver_max=0.02)
    async with zmesh.Node(
        "shop", mdns=False, peers=[peer], storage=journal, options=options
    ) as shop:
        say("open", shop.statistics().engine.jobs_waiting)
        if what == "numbers":
            for number in count(int(argument)):
                key = f"k{number % 3}" if number % 2 else None
                await shop.push("work", number, key=key, priority=number % 10)
                say(number)
        if what == "one":
            await shop.push("work", "one")
            say("stored")
        if what == "delayed":
            await shop.push("work", "late", delay=float(argument))
            say("stored")
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
