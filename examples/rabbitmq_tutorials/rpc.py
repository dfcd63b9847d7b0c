"""RabbitMQ's tutorial 6: run `python rpc.py serve` as often as you like, then `... call 30`."""

import argparse
import asyncio

import zmesh


def fib(n: int) -> int:
    """Compute a Fibonacci number the slow way."""
    return n if n < 2 else fib(n - 1) + fib(n - 2)


async def serve() -> None:
    """Answer calls until interrupted: no reply queue, no correlation id."""
    async with zmesh.Node(mesh="rpc", key=()) as node:

        @node.service("fib", concurrency=1)
        def answer(number: int) -> int:  # a plain function runs in a thread
            print(f" [.] fib({number})", flush=True)
            return fib(number)

        print(" [x] Awaiting RPC requests", flush=True)
        await asyncio.Event().wait()


async def call(number: int) -> None:
    """Ask the server that has the least to do; where it dies, another one."""
    async with zmesh.Node(mesh="rpc", key=()) as node:
        await node.peers.wait_for(service="fib", timeout=30)
        print(f" [.] Got {await node.call('fib', number, timeout=30)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "call"])
    parser.add_argument("number", type=int, nargs="?", default=30)
    told = parser.parse_args()
    asyncio.run(serve() if told.role == "serve" else call(told.number))
