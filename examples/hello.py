"""Two processes say hello: `python examples/hello.py alice`, and elsewhere `... bob alice`.

They find each other by mDNS; neither is told where the other is.
"""

import argparse
import asyncio

import zmesh


async def main(name: str, friend: str | None) -> None:
    """Greet the friend, if there is one; answer the first who greets, and end."""
    async with zmesh.Node(name, mesh="hello", key=()) as node:
        if friend is not None:
            await node.peers.wait_for(name=friend, timeout=30)
            await node.send(friend, {"text": f"hello {friend}, this is {name}"})
        async for message in node.inbox():
            print(f"{message.sender} says: {message.body['text']}", flush=True)
            if friend is None:
                await node.post(message.sender, {"text": f"hello {message.sender}"})
            break


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("friend", nargs="?")
    told = parser.parse_args()
    asyncio.run(main(told.name, told.friend))
