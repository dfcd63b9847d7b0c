"""Run `python examples/request_reply.py serve` as often as you like, then `... call 9`."""

import argparse
import asyncio
import math

import zmesh


async def serve() -> None:
    """Provide the service until somebody stops it."""
    async with zmesh.Node(mesh="request-reply", key=()) as node:

        @node.service("factorial", concurrency=4)
        def factorial(message: zmesh.Message) -> str:  # a plain function runs in a thread
            if message.body < 0:
                raise zmesh.Reject("a negative number has no factorial")
            return f"{message.body}! = {math.factorial(message.body)} (computed by {node.name})"

        print("serving", flush=True)
        await asyncio.Event().wait()


async def call(number: int) -> None:
    """Ask the least loaded provider; where it dies in the middle, another one answers."""
    async with zmesh.Node(mesh="request-reply", key=()) as node:
        await node.peers.wait_for(service="factorial", timeout=30)
        try:
            print(await node.call("factorial", number, timeout=10))
        except zmesh.Rejected as error:
            print(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "call"])
    parser.add_argument("number", type=int, nargs="?", default=9)
    told = parser.parse_args()
    asyncio.run(serve() if told.role == "serve" else call(told.number))
