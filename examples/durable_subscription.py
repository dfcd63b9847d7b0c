"""Run `python examples/durable_subscription.py publish`, and `... read` whenever you like."""

import argparse
import asyncio
from itertools import count

import zmesh


async def publish(journal: str) -> None:
    """Publish orders, two a second, whoever is there."""
    async with zmesh.Node("shop", mesh="durable-subscription", key=(), storage=journal) as node:
        for number in count(1):
            await node.publish("orders.new", number)  # on disk now
            print(f"order {number}", flush=True)
            await asyncio.sleep(0.5)


async def read(journal: str, orders: int) -> None:
    """Bill so many orders, from the first that is not billed yet."""
    node = zmesh.Node("books", mesh="durable-subscription", key=(), storage=journal)
    async with node, node.subscribe("orders.>", name="billing", since="first") as new:
        async for message in new:
            print(f"billed {message.body}", flush=True)
            orders -= 1
            if not orders:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["publish", "read"])
    parser.add_argument("--orders", type=int, default=5, help="to read")
    parser.add_argument("--journal", help="where to keep what is to be remembered")
    told = parser.parse_args()
    journal = told.journal or f"{told.role}.journal"
    asyncio.run(publish(journal) if told.role == "publish" else read(journal, told.orders))
