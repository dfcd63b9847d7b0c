"""Run `python examples/effectively_once.py order`, then `shop` and `books`; kill and start any."""

import argparse
import asyncio
import sqlite3

import zmesh


def order(number: int) -> None:
    """Take an order: it is in the shop's own table and on its way, or neither."""
    with sqlite3.connect("shop.db") as database:
        database.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO orders VALUES (?)", (number,))
        zmesh.outbox.enqueue(database, {"order": number}, to="books")


async def run(name: str) -> None:
    """Send what is in the outbox, and bill each order that comes once."""
    storage = zmesh.Storage(f"{name}.journal", database=f"{name}.db")
    async with zmesh.Node(name, mesh="effectively-once", key=(), storage=storage) as node:
        async for message in node.inbox():
            async with message.transaction() as db:
                await db.execute("CREATE TABLE IF NOT EXISTS bills (number INTEGER)")
                await db.execute("INSERT INTO bills VALUES (?)", (message.body["order"],))
            print(f"billed order {message.body['order']}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["order", "shop", "books"])
    parser.add_argument("--number", type=int, default=1, help="of the order")
    told = parser.parse_args()
    if told.role == "order":
        order(told.number)
    else:
        asyncio.run(run(told.role))
