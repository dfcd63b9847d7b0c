"""Run `python examples/hedged_call.py slow` and `... quick`, then `... call`."""

import argparse
import asyncio
from itertools import takewhile

import zmesh


def slow(message: zmesh.Message) -> int:  # a plain function runs in a thread
    """Count primes by trial division, as long as somebody waits for it."""
    numbers = takewhile(lambda _: not message.cancelled, range(2, message.body))
    found = sum(all(n % divisor for divisor in range(2, int(n**0.5) + 1)) for n in numbers)
    print("somebody waits for it still:", not message.cancelled, flush=True)
    return found


def quick(message: zmesh.Message) -> int:
    """Count primes by the sieve of Eratosthenes."""
    prime = bytearray([0, 0, *[1] * (message.body - 2)])
    for number in range(2, int(message.body**0.5) + 1):
        prime[number * number :: number] = bytes(len(range(number**2, len(prime), number)))
    return sum(prime)


async def main(role: str) -> None:
    """Serve until somebody stops it; or call the slow one, and soon another one as well."""
    async with zmesh.Node(role, mesh="hedged-call", key=()) as node:
        if role != "call":
            node.service("primes")(slow if role == "slow" else quick)
            await asyncio.Event().wait()
        await node.peers.wait_for(service="primes", count=2, timeout=30)
        print(await node.call("primes", 2_000_000, prefer="slow", hedge_after=0.2, timeout=20))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["slow", "quick", "call"])
    asyncio.run(main(**vars(parser.parse_args())))
