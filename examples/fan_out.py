"""Run `python examples/fan_out.py member DIRECTORY` once or more, then `... send FILE 2`."""

import argparse
import asyncio
from hashlib import blake2b
from pathlib import Path

import zmesh


async def member(directory: Path, _: int) -> None:
    """Keep the file that comes in a directory; refuse it where it is not whole."""
    async with zmesh.Node(mesh="fan-out", key=()) as node, node.join("cameras") as group:
        print("joined", flush=True)
        async for message in group:
            if blake2b(message.body).hexdigest() == message.headers["digest"]:
                (directory / "firmware.bin").write_bytes(message.body)
                break  # which accepts it
            await message.reject("its digest is wrong")


async def send(path: Path, members: int) -> None:
    """Send a file to all, once so many are there, and print what becomes of it at each."""
    firmware = await asyncio.to_thread(path.read_bytes)
    async with zmesh.Node("office", mesh="fan-out", key=()) as node:
        await node.peers.wait_for(group="cameras", count=members, timeout=30)
        headers = {"digest": blake2b(firmware).hexdigest()}
        async for outcome in (fan_out := node.fan_out("cameras", firmware, headers=headers)):
            print(outcome.state.value, outcome.reason, flush=True)
        print(f"{len((await fan_out).accepted)} have it", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["member", "send"])
    parser.add_argument("path", type=Path, help="a directory to keep the file in; a file to send")
    parser.add_argument("members", type=int, nargs="?", default=1, help="to wait for")
    told = parser.parse_args()
    asyncio.run({"member": member, "send": send}[told.role](told.path, told.members))
