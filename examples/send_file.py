"""Run `python examples/send_file.py receive DIRECTORY` once or more, then `... send FILE 2`."""

import argparse
import asyncio
from pathlib import Path

import zmesh


async def receive(directory: Path, _: int) -> None:
    """Keep what comes in a directory, until interrupted; cut off, it goes on from there later."""
    async with zmesh.Node(mesh="files", key=()) as node, node.receive_files(directory) as files:
        print("receiving", flush=True)
        async for file in files:
            print(f"{file.path.name}: {file.size} bytes, {file.digest}", flush=True)


async def send(path: Path, receivers: int) -> None:
    """Send a file to all who receive any, once so many are there, at 50 MB/s to each."""

    def progress(written: int, size: int) -> None:
        print(f"{100 * written // max(1, size)} %", end="\r", flush=True)

    async with zmesh.Node(mesh="files", key=()) as node:
        peers = await node.peers.wait_for(service="zmesh.files", count=receivers, timeout=30)
        sending = [node.send_file(peer, path, rate=50e6, progress=progress) for peer in peers]
        for sent in asyncio.as_completed(sending):
            print((await sent).digest)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["receive", "send"])
    parser.add_argument("path", type=Path, help="a directory to receive in; a file to send")
    parser.add_argument("receivers", type=int, nargs="?", default=1, help="to wait for")
    told = parser.parse_args()
    asyncio.run({"receive": receive, "send": send}[told.role](told.path, told.receivers))
