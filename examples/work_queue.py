"""Run `python examples/work_queue.py compress TARGET` often, then `... push DIRECTORY`."""

import argparse
import asyncio
import lzma
from pathlib import Path

import zmesh


async def compress(target: Path) -> None:
    """Compress files into a directory, until interrupted; others go on with what this one had."""
    async with zmesh.Node(mesh="compress", key=()) as node, node.pull("files", prefetch=2) as jobs:
        print("ready", flush=True)
        async for job in jobs:  # asking for the next accepts this one
            packed = await asyncio.to_thread(lzma.compress, job.body["data"])
            (target / f"{job.body['name']}.xz").write_bytes(packed)  # twice does no harm
            print(job.body["name"], len(packed), flush=True)


async def push(files: list[Path]) -> None:
    """Have files compressed by whoever has time."""
    jobs = ({"name": path.name, "data": path.read_bytes()} for path in files)
    async with zmesh.Node(mesh="compress", key=()) as node:
        receipt = await node.push_many("files", jobs)
        print(f"{await receipt} files are compressed")  # or an error that says why not


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["compress", "push"])
    parser.add_argument("path", type=Path, help="a directory to write to; one to compress")
    told = parser.parse_args()
    asyncio.run(compress(told.path) if told.role == "compress" else push([*told.path.iterdir()]))
