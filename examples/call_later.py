"""`... call_later.py ask FILE 9` now, `... serve` some day, `... fetch FILE` whenever you like."""

import argparse
import asyncio
import math

import zmesh


async def serve() -> None:
    """Provide the service until somebody stops it."""
    async with zmesh.Node(mesh="call-later", key=()) as node:

        @node.service("factorial")
        def factorial(message: zmesh.Message) -> str:
            return f"{message.body}! = {math.factorial(message.body)}"

        print("serving", flush=True)
        await asyncio.Event().wait()


async def ask(journal: str, numbers: list[int]) -> None:
    """Leave requests in the journal; without any, fetch the answers to those that were left."""
    async with zmesh.Node(mesh="call-later", key=(), storage=journal) as node:
        for number in numbers:
            print((await node.call_later("factorial", number)).state)
        for ticket in [] if numbers else node.tickets():
            print(await ticket.reply())
            await ticket.forget()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "ask", "fetch"])
    parser.add_argument("journal", nargs="?")
    parser.add_argument("numbers", type=int, nargs="*")
    told = parser.parse_args()
    asyncio.run(serve() if told.role == "serve" else ask(told.journal, told.numbers))
