"""RabbitMQ's tutorial 7: run `python publisher_confirms.py consume`, and `... publish`."""

import argparse
import asyncio
from time import perf_counter

import zmesh


async def publish() -> None:
    """Publish one by one, in batches, and as fast as there is room; a consumer confirms all."""
    async with zmesh.Node(mesh="confirm", key=()) as node:
        await (await node.push("sent", "is anybody there?"))
        begun = perf_counter()
        for number in range(50):  # a round trip each
            await (await node.push("sent", number))
        print(f"50 one by one: {perf_counter() - begun:.2f} s")
        begun = perf_counter()
        for start in range(0, 5000, 100):
            await (await node.push_many("sent", range(start, start + 100)))
        print(f"5000 in batches: {perf_counter() - begun:.2f} s")
        begun = perf_counter()
        receipts = [await node.push("sent", number) for number in range(5000)]
        confirmed = [await receipt for receipt in receipts]  # raises where one was refused
        print(f"{sum(confirmed)} on the way at once: {perf_counter() - begun:.2f} s")


async def consume() -> None:
    """Take everything, until interrupted."""
    async with zmesh.Node(mesh="confirm", key=()) as node, node.pull("sent", prefetch=256) as jobs:
        print("consuming", flush=True)
        async for _ in jobs:
            pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "consume"])
    asyncio.run(publish() if parser.parse_args().role == "publish" else consume())
