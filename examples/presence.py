"""Run `python examples/presence.py announce ROOM` as often as you like, and `... watch ROOM`."""

import argparse
import asyncio
import os
import sys

import zmesh


async def announce(room: str) -> None:
    """Tell where this machine is, and what is typed as its status; leave at the end of input."""
    async with zmesh.Node(mesh="presence", key=()) as node:
        node.describe(room=room, cores=os.cpu_count(), system=sys.platform)
        print("announced", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            node.describe(status=line.strip() or None)  # None takes it back


async def watch(room: str) -> None:
    """Print what becomes of the machines in a room; those elsewhere do not matter."""
    async with zmesh.Node(mesh="presence", key=()) as node:
        async for event in node.peers.watch(where={"room": room}):
            if isinstance(event, zmesh.Overrun):
                continue  # we print too slowly: look at node.peers.select(...) for who is there
            told = event.peer.attributes
            print(type(event).__name__, told["cores"], "cores", told.get("status"), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["announce", "watch"])
    parser.add_argument("room")
    told = parser.parse_args()
    asyncio.run({"announce": announce, "watch": watch}[told.role](told.room))
