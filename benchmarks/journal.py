"""`python -m benchmarks.journal`: the journal beside bare SQLite in the same run, as ratios.

Both sync every commit (WAL, `synchronous=FULL`) on the same disk, bodies of 512 bytes. Bare SQLite
inserts into one table in the thread that asks; the journal is asked from an event loop, and a
commit counts when its answer is back there. Last, a journal with a million waiting messages is
opened in a process of its own. `--encrypted`: a journal with a storage key beside one without.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.bare_sqlite import inserted
from zmesh.ids import NodeId
from zmesh.journal.journal import SqliteJournal
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    Batch,
    Command,
    JournalEvent,
    Opened,
    Row,
    Store,
    StoreRun,
    Stream,
    StreamKind,
    Written,
)

BODY = bytes(range(256)) * 2
NODE = NodeId(bytes(16))
LANE = Stream(StreamKind.LANE_OUT, b"session-session-", 4)
MESSAGES = 1_000_000
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figure:
    """One scenario: what the journal reached, what bare SQLite did, and what is asked for."""

    scenario: str
    unit: str
    journal: float
    bare: float | None
    ratio: float | None
    goal: str
    reached: bool


def rows_from(first: int, count: int) -> list[Row]:
    """Return rows of the size that is measured."""
    return [Row(first + index, (0, "target", BODY), 1_700_000_000_000) for index in range(count)]


def rows(first: int, count: int) -> Command:
    """Return the order to store so many rows, each for itself."""
    return Store(LANE, rows_from(first, count))


def run(first: int, count: int) -> Command:
    """Return the order to store as much as one run."""
    records = [(0, "target", BODY) for _ in range(count)]
    return StoreRun(LANE, first, records, 1_700_000_000_000, order=first)


class Asker:
    """A journal asked from an event loop."""

    def __init__(self, path: Path, key: StorageKey | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._tickets = 0
        self.journal = SqliteJournal(path, self._deliver, node=NODE, key=key)

    def _deliver(self, events: list[JournalEvent]) -> None:
        self._loop.call_soon_threadsafe(self._on_events, events)

    def _on_events(self, events: list[JournalEvent]) -> None:
        for event in events:
            if isinstance(event, Written):
                for ticket in event.tickets:
                    self._waiting.pop(ticket).set_result(None)
            elif isinstance(event, Opened):
                self._opened.set_result(None)

    async def open(self) -> None:
        self.journal.open()
        await self._opened

    def write(self, command: Command) -> asyncio.Future[None]:
        self._tickets += 1
        done = self._waiting[self._tickets] = self._loop.create_future()
        self.journal.write(Batch(self._tickets, (command,)))
        return done

    async def close(self) -> None:
        self.journal.close()
        await asyncio.to_thread(self.journal.join)


async def one_after_the_other(
    path: Path,
    batch: int,
    seconds: float,
    ordered: Callable[[int, int], Command],
    key: StorageKey | None = None,
) -> float:
    """Return rows per second, so many a batch, each waited for."""
    asker = Asker(path, key)
    await asker.open()
    number, began = 1, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await asker.write(ordered(number, batch))
        number += batch
    took = time.perf_counter() - began
    await asker.close()
    return (number - 1) / took


async def together(path: Path, askers: int, seconds: float) -> float:
    """Return rows per second of many who each wait for one row at a time: group commit."""
    asker = Asker(path)
    await asker.open()
    number = 0
    began = time.perf_counter()

    async def ask() -> None:
        nonlocal number
        while time.perf_counter() - began < seconds:
            number += 1
            await asker.write(rows(number, 1))

    await asyncio.gather(*(ask() for _ in range(askers)))
    took = time.perf_counter() - began
    await asker.close()
    return number / took


def throughput(place: Path, runs: int, seconds: float) -> list[Figure]:
    """Return the figures of all batch sizes."""
    figures = []
    count = 0

    def fresh() -> Path:
        nonlocal count
        count += 1
        return place / f"{count}"

    def medians(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, ...]:
        # The ratio is of neighbours in time: what else the disk does changes by the second.
        pairs = [(ours(), theirs()) for _ in range(runs)]
        ratios = [one / other for one, other in pairs]
        return tuple(map(statistics.median, (*zip(*pairs, strict=True), ratios)))

    of_rows, of_runs = (rows, "batch"), (run, "run")
    for (ordered, what), batch, goal in (
        (of_rows, 1, 0.8), (of_rows, 16, 0.0), (of_rows, 128, 0.0), (of_rows, 512, 0.0),
        (of_runs, 128, 0.0), (of_runs, 512, 0.0),
    ):  # fmt: skip
        ours, theirs, ratio = medians(
            lambda: asyncio.run(one_after_the_other(fresh(), batch, seconds, ordered)),  # noqa: B023
            lambda: inserted(fresh(), BODY, batch, seconds),  # noqa: B023
        )
        asked = f">= {goal}" if goal else "none"
        figures.append(
            Figure(f"{batch} a {what}", "msg/s", ours, theirs, ratio, asked, ratio >= goal)
        )
    ours, theirs, ratio = medians(
        lambda: asyncio.run(together(fresh(), 128, seconds)),
        lambda: inserted(fresh(), BODY, 1, seconds),
    )
    figures.append(
        Figure("128 ask, one each / bare one", "msg/s", ours, theirs, ratio, "none", reached=True)
    )
    return figures


def encrypted(place: Path, runs: int, seconds: float) -> list[Figure]:
    """Return the figures of a journal with a storage key, beside one without."""
    figures = []
    key = StorageKey(os.urandom(32))
    for ordered, what, batch in (
        (rows, "batch", 1), (rows, "batch", 128), (rows, "batch", 512), (run, "run", 128),
        (run, "run", 512),
    ):  # fmt: skip
        pairs = []
        for number in range(runs):
            with_key, without = (place / f"{what}-{batch}-{number}-{each}" for each in "ab")
            ours = asyncio.run(one_after_the_other(with_key, batch, seconds, ordered, key))
            theirs = asyncio.run(one_after_the_other(without, batch, seconds, ordered))
            pairs.append((ours, theirs))
        ratio = statistics.median(one / other for one, other in pairs)
        ours, theirs = map(statistics.median, zip(*pairs, strict=True))
        figures.append(
            Figure(f"{batch} a {what}", "msg/s", ours, theirs, ratio, "none", reached=True)
        )
    return figures


# Opening


def fill(path: Path, messages: int) -> None:
    """Make a journal with so many messages waiting."""

    async def work() -> None:
        asker = Asker(path)
        await asker.open()
        for first in range(1, messages + 1, 2000):
            await asker.write(rows(first, 2000))
        await asker.close()

    asyncio.run(work())


def open_alone(path: Path) -> None:
    """Open a journal and print seconds and peak memory in MiB: for a process of its own."""

    async def work() -> float:
        began = time.perf_counter()
        asker = Asker(path)
        await asker.open()
        took = time.perf_counter() - began
        await asker.close()
        return took

    took = asyncio.run(work())
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": took, "memory_mib": memory}))


def opening(place: Path, runs: int, messages: int) -> list[Figure]:
    """Return how long a large journal takes to open, and what memory."""
    path = place / "large"
    fill(path, messages)
    results = []
    for _ in range(runs):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.journal", "--open", str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        results.append(json.loads(done.stdout))
    seconds = statistics.median(each["seconds"] for each in results)
    memory = max(each["memory_mib"] for each in results)
    name = f"open with {messages:,} messages, {path.stat().st_size // MIB} MiB"
    return [
        Figure(name, "s", seconds, None, None, "< 2", seconds < 2),
        Figure(name, "MiB of memory", memory, None, None, "< 200", memory < 200),
    ]


def main() -> int:
    """Run all; print a table, or one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.journal", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="to be opened with")
    parser.add_argument("--place", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--encrypted", action="store_true", help="with a key beside without")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open is not None:
        open_alone(options.open)
        return 0
    with tempfile.TemporaryDirectory(dir=options.place) as name:
        if options.encrypted:
            figures = encrypted(Path(name), options.runs, options.seconds)
        else:
            figures = throughput(Path(name), options.runs, options.seconds)
            figures += opening(Path(name), options.runs, options.messages)
    where = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cores": len(os.sched_getaffinity(0)),
    }
    if options.json:
        print(json.dumps({"machine": where, "figures": [asdict(figure) for figure in figures]}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in where.items()))
    heads = ("with a key", "without") if options.encrypted else ("journal", "bare SQLite")
    print(f"| scenario | {heads[0]} | {heads[1]} | ratio | goal | reached |")
    print("| --- | --- | --- | --- | --- | --- |")
    for each in figures:
        theirs = "" if each.bare is None else f"{each.bare:,.0f} {each.unit}"
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}x"
        ours = f"{each.journal:,.2f}" if each.journal < 1000 else f"{each.journal:,.0f}"
        reached = "yes" if each.reached else "no"
        print(f"| {each.scenario} | {ours} {each.unit} | {theirs} | {ratio}", end=" ")
        print(f"| {each.goal} | {reached} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
