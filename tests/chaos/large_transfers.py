"""A large body streamed, and a large file sent, between two processes, whole and cut.

`python -m tests.chaos.large_transfers --mib 1024` prints a line of JSON, and fails where bytes are
lost or the resident memory of either side grows by 64 MiB. `--mib 64` takes seconds.

The file is sent five times: as it is; with the receiver killed by SIGKILL in its middle; told to
stop by SIGTERM; with the sender killed; and with its connections cut again and again.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Container
from hashlib import blake2b
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import Child, run, say
from tests.resources import Memory, cut_connections

MIB = 1 << 20
GROWTH_MAX = 64 * MIB
PART = 64 * 1024
SERVICE = "zmesh.files"
PROGRAM = "tests/chaos/large_transfers.py"

Figures = dict[str, Any]


class Failed(Exception):
    """A promise was not kept."""


# The two ends


async def receiver(place: str, known: str) -> None:
    """Receive files into a directory, and streams; tell the growth of memory with each."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    node = zmesh.Node("receiver", mdns=False, peers=[known] if known else [])

    @node.service("drain")
    async def drain(message: zmesh.Message) -> dict[str, Any]:
        digest, memory, size = blake2b(digest_size=32), Memory(), 0
        async for part in message.parts:
            digest.update(part)
            size += len(part)
        return {"digest": digest.hexdigest(), "size": size, "growth": memory.growth}

    @node.service("pour")
    async def pour(message: zmesh.Message) -> AsyncIterator[bytes | int]:
        memory = Memory()
        async for part in parts(message.body, blake2b()):
            yield part
        yield memory.growth

    async with node, node.receive_files(place) as files:
        memory = Memory()
        say(node.endpoints[0])

        async def tell() -> None:
            async for _ in files:
                say(memory.growth)

        telling = asyncio.create_task(tell())
        await stop.wait()
        telling.cancel()


async def parts(mib: int, digest: Any) -> AsyncIterator[bytes]:
    """Yield so many MiB that differ all the way, and digest them."""
    block = bytearray(os.urandom(PART))
    for number in range(mib * MIB // PART):
        block[:8] = number.to_bytes(8)
        part = bytes(block)
        digest.update(part)
        yield part


async def sender(task: str, known: str, argument: str, rate: str = "") -> None:
    """Send a file, or stream so many MiB, and tell what came of it; SIGUSR1 cuts connections."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: say("cut", cut_connections()))
    tasks = {"file": send, "body": stream_body, "answer": stream_answer}
    async with zmesh.Node("sender", mdns=False, peers=[known]) as node:
        await node.peers.wait_for(service=SERVICE, timeout=20)
        say("ready", node.endpoints[0])
        memory, begun = Memory(), time.monotonic()
        figures = await tasks[task](node, argument, float(rate) if rate else None)
        seconds = time.monotonic() - begun
        say("done", json.dumps({**figures, "sender_growth": memory.growth, "seconds": seconds}))


async def send(node: zmesh.Node, path: str, rate: float | None) -> Figures:
    """Send a file."""
    sent = await node.send_file("receiver", path, rate=rate)
    return {"digest": sent.digest, "skipped": sent.skipped, "size": sent.size}


async def stream_body(node: zmesh.Node, mib: str, _: float | None) -> Figures:
    """Stream a request."""
    digest = blake2b(digest_size=32)
    drained = await node.call("drain", parts(int(mib), digest), timeout=None)
    if drained["digest"] != digest.hexdigest():
        raise Failed("the streamed body is another")
    return {"size": drained["size"], "receiver_growth": drained["growth"]}


async def stream_answer(node: zmesh.Node, mib: str, _: float | None) -> Figures:
    """Stream a reply."""
    size, last = 0, 0
    async for part in node.stream("pour", int(mib), timeout=60):
        if isinstance(part, int):
            return {"size": size, "receiver_growth": part}
        if int.from_bytes(part[:8]) != last:
            raise Failed("a part of the answer is missing")
        last += 1
        size += len(part)
    raise Failed("the answer has no end")


# The runs


class Transfer:
    """A directory with a file to be sent, and one to receive it in."""

    def __init__(self, place: Path, mib: int) -> None:
        self.mib = mib
        # There must be time to end one of them in the middle.
        self.rate = [str(mib * MIB)] if mib < 256 else []
        self.source = place / "source.bin"
        self.incoming = place / "incoming"
        self.incoming.mkdir()
        digest = blake2b(digest_size=32)
        with self.source.open("wb") as file:
            for _ in range(mib):
                block = os.urandom(MIB)
                digest.update(block)
                file.write(block)
        self.digest = digest.hexdigest()
        self.target = self.incoming / self.source.name
        self.partial = self.incoming / f".{self.source.name}.zmesh-part"

    def receive(self, known: str = "") -> "contextlib.AbstractAsyncContextManager[Child]":
        """Start a receiver."""
        return run(PROGRAM, "receiver", str(self.incoming), known)

    def send(self, known: str) -> "contextlib.AbstractAsyncContextManager[Child]":
        """Start a sender."""
        return run(PROGRAM, "file", known, str(self.source), *self.rate)

    async def reached(self, share: float, sending: Child) -> None:
        """Wait until so much of the file has come."""
        async with asyncio.timeout(120):
            while await asyncio.to_thread(self._came) < share * self.mib * MIB:
                if sending.process.returncode is not None:
                    raise Failed((await sending.ended())[2])
                await asyncio.sleep(0.005)

    def _came(self) -> int:
        try:
            return self.partial.stat().st_size
        except FileNotFoundError:
            return 0

    def check(self, figures: Figures) -> None:
        """Check that the file is there, as it was; and make room for the next."""
        digest = blake2b(digest_size=32)
        with self.target.open("rb") as file:
            while block := file.read(MIB):
                digest.update(block)
        if not (digest.hexdigest() == figures["digest"] == self.digest):
            raise Failed("the file that came is another")
        if os.listdir(self.incoming) != [self.target.name]:  # noqa: PTH208
            raise Failed("something was left beside it")
        self.target.unlink()


async def done(child: Child) -> Figures:
    """Wait until a sender has sent, and return what it tells."""
    while (line := await child.line(300)) and not line.startswith("done "):
        if not line.startswith(("ready", "cut")):
            raise Failed(line)
    if not line:
        raise Failed((await child.ended())[2])
    figures: Figures = json.loads(line.removeprefix("done "))
    return figures


async def streamed(way: str, transfer: Transfer) -> Figures:
    """Stream a body, or an answer."""
    async with (
        transfer.receive() as receiving,
        run(PROGRAM, way, await receiving.line(), str(transfer.mib)) as sending,
    ):
        figures = await done(sending)
    if figures["size"] != transfer.mib * MIB:
        raise Failed(f"{figures['size']} bytes came")
    return figures


async def whole(transfer: Transfer) -> Figures:
    """Send the file as it is."""
    async with (
        transfer.receive() as receiving,
        transfer.send(await receiving.line()) as sending,
    ):
        figures = await done(sending)
        figures["receiver_growth"] = int(await receiving.line())
    return figures


async def receiver_ended(transfer: Transfer, how: signal.Signals) -> Figures:
    """End the receiver in the middle, and start another."""
    async with transfer.receive() as first:
        known = await first.line()
        async with transfer.send(known) as sending:
            back = (await sending.line()).removeprefix("ready ")
            await transfer.reached(0.5, sending)
            first.process.send_signal(how)
            await first.process.wait()
            async with transfer.receive(back) as second:
                await second.line()
                figures = await done(sending)
                figures["receiver_growth"] = int(await second.line())
    if figures["skipped"] < 0.4 * figures["size"]:
        raise Failed(f"only {figures['skipped']} bytes were taken up")
    return figures


async def sender_killed(transfer: Transfer) -> Figures:
    """Kill the sender in the middle, and start another."""
    async with transfer.receive() as receiving:
        known = await receiving.line()
        async with transfer.send(known) as sending:
            await transfer.reached(0.5, sending)
            sending.process.kill()
            await sending.process.wait()
        async with transfer.send(known) as sending:
            figures = await done(sending)
            figures["receiver_growth"] = int(await receiving.line())
    if figures["skipped"] < 0.4 * figures["size"]:
        raise Failed(f"only {figures['skipped']} bytes were taken up")
    return figures


async def connections_cut(transfer: Transfer) -> Figures:
    """Cut the connections of the sender, again and again."""
    cuts = 0
    async with (
        transfer.receive() as receiving,
        transfer.send(await receiving.line()) as sending,
    ):
        for share in (0.2, 0.4, 0.6, 0.8):
            await transfer.reached(share, sending)
            sending.process.send_signal(signal.SIGUSR1)
            while not (line := await sending.line()).startswith("cut"):
                pass
            cuts += int(line.split()[1])
        figures = await done(sending)
        figures["receiver_growth"] = int(await receiving.line())
    if cuts < 3:
        raise Failed("no connection was cut")
    return {**figures, "cuts": cuts}


RUNS = {
    "stream_body": lambda transfer: streamed("body", transfer),
    "stream_answer": lambda transfer: streamed("answer", transfer),
    "file": whole,
    "receiver_killed": lambda transfer: receiver_ended(transfer, signal.SIGKILL),
    "receiver_stopped": lambda transfer: receiver_ended(transfer, signal.SIGTERM),
    "sender_killed": sender_killed,
    "connections_cut": connections_cut,
}


async def main(mib: int, only: Container[str] = RUNS) -> Figures:
    """Do these runs, and return their figures."""
    figures: Figures = {"program": "large_transfers", "mib": mib, "ok": True}
    place = Path(tempfile.mkdtemp(prefix="zmesh-"))
    try:
        transfer = await asyncio.to_thread(Transfer, place, mib)
        for name, each in RUNS.items():
            if name in only:
                figures[name] = await measured(each(transfer))
                if not name.startswith("stream"):
                    await asyncio.to_thread(transfer.check, figures[name])
                figures["ok"] &= figures[name]["ok"]
    finally:
        await asyncio.to_thread(shutil.rmtree, place)
    return figures


async def measured(running: Awaitable[Figures]) -> Figures:
    """Return the figures of a run, with units people read."""
    figures = await running
    growth = max(figures["sender_growth"], figures["receiver_growth"])
    for side in ("sender", "receiver"):
        figures[f"{side}_growth_mib"] = round(figures.pop(f"{side}_growth") / MIB, 1)
    figures["seconds"] = round(figures["seconds"], 2)
    size = figures.pop("size")
    if "cuts" not in figures and not figures.get("skipped"):
        figures["megabytes_a_second"] = round(size / 1e6 / figures["seconds"])
    figures["ok"] = growth < GROWTH_MAX
    return figures


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        role, *rest = sys.argv[1:]
        asyncio.run(receiver(*rest) if role == "receiver" else sender(role, *rest))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument(
            "--mib", type=int, default=1024, help="how large the body and the file are"
        )
        parser.add_argument("--only", nargs="+", choices=RUNS, default=RUNS)
        told = parser.parse_args()
        result = asyncio.run(main(told.mib, told.only))
        say(json.dumps(result))
        sys.exit(not result["ok"])
