"""Run `python examples/work_queue.py compress TARGET` often, then `... push DIRECTORY`."""

import argparse
import asyncio
import lzma
from pathlib import Path

import zmesh


async def compress(target: Path) -> None:
    """Compress files into a directory, until interrupted; others go on with what this one had."""
    async with zmesh.Node(mesh="compress") as node, node.pull("files", prefetch=2) as jobs:
        print("ready", flush=True)
        async for job in jobs:  # asking for the next accepts this one
            packed = await asyncio.to_thread(lzma.compress, job.body["data"])
            (target / f"{job.body['name']}.xz").write_bytes(packed)  # twice does no harm
            print(job.body["name"], len(packed), flush=True)


async def push(directory: Path) -> None:
    """Have the files of a directory compressed, small ones first, by whoever has time."""
    async with zmesh.Node(mesh="compress") as node:
        receipts = []
        for path in sorted(directory.iterdir()):
            job = {"name": path.name, "data": path.read_bytes()}
            priority = 6 if len(job["data"]) < 100_000 else 3
            receipts.append(await node.push("files", job, priority=priority))
        for receipt in receipts:
            await receipt  # accepted, or an error that says why not
        print(f"{len(receipts)} files are compressed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["compress", "push"])
    parser.add_argument("path", type=Path, help="a directory to write to; one to compress")
    told = parser.parse_args()
    asyncio.run({"compress": compress, "push": push}[told.role](told.path))
