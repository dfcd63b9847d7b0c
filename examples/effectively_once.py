"""Run `python examples/effectively_once.py order`, then `shop` and `books` in other terminals."""

import argparse
import asyncio
import sqlite3
from contextlib import closing

import zmesh

MESH = "effectively-once"


def order(database: str, numbers: range) -> None:
    """Take orders: each is in the shop's own table, and on its way, or neither."""
    with closing(sqlite3.connect(database)) as shop:
        shop.execute("CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY)")
        for number in numbers:
            with shop:
                shop.execute("INSERT INTO orders VALUES (?)", (number,))
                zmesh.outbox.enqueue(shop, {"order": number}, to="books")


async def books(storage: zmesh.Storage, count: int) -> None:
    """Bill each order once: the bill, and that it was written, are one commit."""
    async with zmesh.Node("books", mesh=MESH, storage=storage) as node:
        async for message in node.inbox():
            async with message.transaction() as db:
                await db.execute("CREATE TABLE IF NOT EXISTS bills (number INTEGER)")
                await db.execute("INSERT INTO bills VALUES (?)", (message.body["order"],))
            print(f"billed order {message.body['order']}", flush=True)
            count -= 1
            if not count:
                break


async def shop(storage: zmesh.Storage) -> None:
    """Send what is in the outbox, for as long as it runs."""
    async with zmesh.Node("shop", mesh=MESH, storage=storage):
        print("sending", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["order", "shop", "books"])
    parser.add_argument("--from", type=int, default=1, dest="first", help="first order to take")
    parser.add_argument("--count", type=int, default=3, help="orders to take, or to bill")
    parser.add_argument("--place", default=".", help="directory of databases and journals")
    told = parser.parse_args()
    database = f"{told.place}/{'shop' if told.role == 'order' else told.role}.db"
    kept = zmesh.Storage(f"{told.place}/{told.role}.journal", database=database)
    if told.role == "order":
        order(database, range(told.first, told.first + told.count))
    else:
        asyncio.run(shop(kept) if told.role == "shop" else books(kept, told.count))
