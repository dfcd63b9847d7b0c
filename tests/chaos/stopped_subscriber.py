"""One subscriber of twenty is stopped, as by SIGSTOP: the others must not notice.

`python tests/chaos/stopped_subscriber.py` prints a line of JSON. It fails where the others' 99th
percentile of latency moves by a tenth, where one of them misses anything, or where the publisher
grows beyond its bound. Latency counts from when a publication was due, so that a publisher that is
held up does not hide it.

Phases in which all run and phases in which one is stopped take turns. Each of the latter is
compared with the one before it, and the median of these counts: on a machine that others use as
well, phases that are alike differ by more than a tenth, and those far apart by more than those
that follow each other. The more rounds, the surer.
"""

import argparse
import asyncio
import json
import signal
import statistics
import struct
import sys
import tempfile
import time
from array import array
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import run, say
from tests.resources import Memory
from zmesh import LinkOptions, NodeOptions

MIB = 1 << 20
PROGRAM = "tests/chaos/stopped_subscriber.py"
TOPIC = "sensors.temp"
HEAD = struct.Struct("=dI")  # when it was due, and its number
QUEUED_BYTES_MAX = 2 * MIB  # for each peer: full after 10 s, by when it is known to be silent
PASSED_MAX = 4 * MIB  # by what is published in one go, as after a moment without the processor
GROWTH_MAX = 2 * QUEUED_BYTES_MAX + 8 * MIB  # of the publisher: bodies, Python, sockets
MOVED_MAX = 0.10
SETTLING = 3.0
"""Seconds at first, and after one was let go on, that count for nothing: it catches up."""

Figures = dict[str, Any]


class Failed(Exception):
    """A promise was not kept."""


# The two kinds of process


async def subscribers(name: str, known: str, count: str, place: str, when_full: str) -> None:
    """Subscribe so many nodes, and at SIGTERM write down what came: when due, number, latency."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    came = [array("d") for _ in range(int(count))]

    async def read(subscription: zmesh.Subscription, notes: "array[float]") -> None:
        async with subscription:
            async for message in subscription:
                due, number = HEAD.unpack_from(message.body)
                notes.extend((due, number, time.monotonic() - due))

    async with AsyncExitStack() as stack:
        reading = []
        for number, notes in enumerate(came):
            node = zmesh.Node(f"{name}-{number}", peers=[known], mdns=False)
            await stack.enter_async_context(node)
            subscription = node.subscribe(TOPIC, when_full=when_full)  # type: ignore[arg-type]
            reading.append(asyncio.create_task(read(subscription, notes)))
        say("reading")
        await stop.wait()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    for number, notes in enumerate(came):
        await asyncio.to_thread(Path(place, f"{name}-{number}").write_bytes, notes.tobytes())


async def publisher(receivers: str, rate: str, seconds: str, size: str) -> None:
    """Publish at an even pace to so many; tell how it grows, and what was in its queues."""
    link = LinkOptions(queued_bytes_max=QUEUED_BYTES_MAX)
    async with zmesh.Node("publisher", mdns=False, options=NodeOptions(link=link)) as node:
        say(node.endpoints[0])
        await node.peers.wait_for(topic=TOPIC, count=int(receivers), timeout=60)
        memory, queued = Memory(), 0
        padding = bytes(int(size) - HEAD.size)
        count = round(float(rate) * float(seconds))
        begin = time.monotonic() + 0.2
        say(begin)
        for number in range(count):
            # Each from the beginning: a sum of steps would drift, and end one too early or late.
            due = begin + number / float(rate)
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            await node.publish(TOPIC, HEAD.pack(due, number) + padding)
            if number % 100 == 0:
                links = node.statistics().links.values()
                queued = max(queued, *(each.queued_bytes for each in links))
        growth = memory.growth
        await node.flush()
        say(json.dumps({"published": count, "growth": growth, "queued_bytes": queued}))


# The run


async def main(
    *,
    seconds: float = 7.0,
    settling: float = SETTLING,
    rounds: int = 9,
    rate: float = 100.0,
    size: int = 2048,
    others: int = 19,
    processes: int = 3,
    when_full: str = "block",
) -> Figures:
    """Publish through all phases, of so many seconds each, and return what became of latencies."""
    total = rounds * 2 * (settling + seconds)
    shares = [others // processes + (n < others % processes) for n in range(processes)]
    async with AsyncExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="zmesh-"))
        told = [str(others + 1), str(rate), str(total), str(size)]
        publishing = await stack.enter_async_context(run(PROGRAM, "publisher", *told))
        known = await publishing.line()
        readers = [
            await stack.enter_async_context(
                run(PROGRAM, "subscribers", f"other-{n}", known, str(share), place, when_full)
            )
            for n, share in enumerate(shares)
        ]
        victim = await stack.enter_async_context(
            run(PROGRAM, "subscribers", "victim", known, "1", place, when_full)
        )
        for reader in (*readers, victim):
            if await reader.line() != "reading":
                raise Failed((await reader.ended())[2])
        moment = float(await publishing.line(60))
        running, stopped = [], []
        for _ in range(rounds):
            running.append((moment + settling, moment + settling + seconds))
            moment = running[-1][1]
            await until(moment)
            victim.process.send_signal(signal.SIGSTOP)
            stopped.append((moment, moment + settling + seconds))
            moment = stopped[-1][1]
            await until(moment)
            victim.process.send_signal(signal.SIGCONT)
        figures: Figures = json.loads(await publishing.line(60))
        for reader in (*readers, victim):
            reader.process.terminate()
            status, _, error = await reader.ended()
            if status:
                raise Failed(error)
        return {
            "program": "stopped_subscriber", "rate": rate, "seconds": seconds, "rounds": rounds,
            "when_full": when_full, "processes": processes, **figures,
            **await asyncio.to_thread(judged, Path(place), running, stopped, figures["published"]),
        }  # fmt: skip


async def until(moment: float) -> None:
    """Wait for a moment of the clock that all processes of a machine share."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


Phases = list[tuple[float, float]]


def judged(place: Path, running: Phases, stopped: Phases, published: int) -> Figures:
    """Return what the notes of the subscribers tell."""
    missed = victim = 0
    latencies = {phase: array("d") for phase in running + stopped}
    for path in place.iterdir():
        notes = array("d", path.read_bytes())
        if path.name.startswith("victim"):
            victim = len(set(notes[1::3]))
            continue
        missed += published - len(set(notes[1::3]))
        for due, latency in zip(notes[::3], notes[2::3], strict=True):
            for (begin, end), found in latencies.items():
                if begin <= due < end:
                    found.append(latency * 1000)
    figures: Figures = {}
    for name, phases in (("running", running), ("stopped", stopped)):
        cuts = [statistics.quantiles(latencies[phase], n=1000) for phase in phases]
        for cut, place_of in (("p50", 499), ("p99", 989), ("p99.9", 998)):
            figures[f"{name}_{cut}_ms"] = [round(each[place_of], 2) for each in cuts]
        figures[f"{name}_max_ms"] = [round(max(latencies[phase]), 2) for phase in phases]
    ratios = [
        after / before
        for before, after in zip(figures["running_p99_ms"], figures["stopped_p99_ms"], strict=True)
    ]
    moved = round(statistics.median(ratios) - 1, 3)
    return {"missed_by_others": missed, "read_by_stopped": victim, "p99_moved": moved, **figures}


def failures(figures: Figures) -> list[str]:
    """Return what was promised and is not so."""
    return [
        name
        for name, is_bad in (
            ("latency", figures["p99_moved"] >= MOVED_MAX),
            ("missed", figures["missed_by_others"] > 0),
            ("memory", figures["growth"] > GROWTH_MAX),
            ("queue", figures["queued_bytes"] > QUEUED_BYTES_MAX + PASSED_MAX),
        )
        if is_bad
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["publisher"]:
        asyncio.run(publisher(*sys.argv[2:]))
    elif sys.argv[1:2] == ["subscribers"]:
        asyncio.run(subscribers(*sys.argv[2:]))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--seconds", type=float, default=7.0, help="of each phase")
        parser.add_argument("--rounds", type=int, default=9, help="of two phases")
        parser.add_argument("--rate", type=float, default=100.0, help="publications a second")
        parser.add_argument("--size", type=int, default=2048, help="of a publication, in bytes")
        parser.add_argument("--processes", type=int, default=3, help="that the others share")
        parser.add_argument("--when-full", default="block")
        result = asyncio.run(main(**vars(parser.parse_args())))
        result["failed"] = failures(result)
        say(json.dumps({**result, "ok": not result["failed"]}))
        sys.exit(bool(result["failed"]))
