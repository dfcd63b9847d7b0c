"""Run `python examples/stream.py serve DIRECTORY`, then `... find WORD` as often as you like."""

import argparse
import asyncio
from collections.abc import Iterator
from pathlib import Path

import zmesh


async def serve(directory: str) -> None:
    """Search the text files of a directory for those who ask, until interrupted."""
    async with zmesh.Node(mesh="stream", key=()) as node:

        @node.service("find")
        def find(message: zmesh.Message) -> Iterator[str]:  # runs in a thread, and may block
            for path in sorted(Path(directory).rglob("*.txt")):
                with path.open(encoding="utf-8", errors="replace") as file:
                    yield from (line.rstrip() for line in file if message.body in line)

        print("serving", flush=True)
        await asyncio.Event().wait()


async def find(word: str) -> None:
    """Print what is found as it comes; who stops reading stops the search."""
    async with zmesh.Node(mesh="stream", key=()) as node:
        await node.peers.wait_for(service="find", timeout=30)
        async for line in node.stream("find", word, timeout=30):
            print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["serve", "find"])
    parser.add_argument("what", help="a directory to search; a word to find")
    told = parser.parse_args()
    asyncio.run({"serve": serve, "find": find}[told.role](told.what))
