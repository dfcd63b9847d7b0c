"""A service and its callers: run `python examples/request_reply.py serve` as often as you like.

Then run `python examples/request_reply.py call 9`: the least loaded provider answers.
"""

import asyncio
import math
import sys

import zmesh


async def serve() -> None:
    """Provide the service until somebody stops it."""
    async with zmesh.Node(mesh="request-reply") as node:

        @node.service("factorial", concurrency=4)
        def factorial(message: zmesh.Message) -> str:  # a plain function runs in a thread
            if message.body < 0:
                raise zmesh.Reject("a negative number has no factorial")
            return f"{message.body}! = {math.factorial(message.body)} (computed by {node.name})"

        print("serving", flush=True)
        await asyncio.Event().wait()


async def call(number: int) -> None:
    """Ask one provider; where it dies in the middle, another one answers."""
    async with zmesh.Node(mesh="request-reply") as node:
        await node.peers.wait_for(service="factorial", timeout=30)
        try:
            print(await node.call("factorial", number, timeout=10))
        except zmesh.Rejected as error:
            print(error)


if __name__ == "__main__":
    asyncio.run(serve() if sys.argv[1] == "serve" else call(int(sys.argv[2])))
