"""Run `python examples/shared_state.py watch` a few times, then `... set rate 5`, `... show`."""

import argparse
import asyncio

import zmesh


async def watch() -> None:
    """Hold a replica, and print what changes."""
    async with zmesh.Node(mesh="shared-state", key=()) as node:
        config = await node.shared("config")
        print("watching", flush=True)
        async for change in config.watch():
            print(change.key, "deleted" if change.deleted else change.value, flush=True)


async def use(role: str, key: str, value: str) -> None:
    """Join those who watch, set or delete a key, and print what all of them hold."""
    async with zmesh.Node(mesh="shared-state", key=()) as node:
        await node.peers.wait_for(timeout=30)
        async with await node.shared("config") as config:
            if role != "show":
                await (config.set(key, value) if role == "set" else config.delete(key))
            print(dict(config.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["watch", "set", "delete", "show"])
    parser.add_argument("key", nargs="?", default="rate")
    parser.add_argument("value", nargs="?", default="5")
    told = parser.parse_args()
    asyncio.run(watch() if told.role == "watch" else use(told.role, told.key, told.value))
