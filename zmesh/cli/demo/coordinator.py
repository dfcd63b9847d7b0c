"""The coordinator of the demonstration: hands out files, kills a worker, checks every result."""

import asyncio
import json
import secrets
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

import zmesh
from zmesh.cli.demo.report import Screen, Silent, Summary, View, print_summary
from zmesh.cli.demo.work import analyse, files_below

WORKERS = 3
CONCURRENT_CALLS = 24
JOIN_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 120.0
EXIT_TIMEOUT_S = 10.0


@dataclass
class Tally:
    """What the run has brought so far."""

    files: int
    results: dict[Path, object] = field(default_factory=dict)
    joined_at: dict[str, float] = field(default_factory=dict)
    started_at: dict[str, float] = field(default_factory=dict)
    third_done: asyncio.Event = field(default_factory=asyncio.Event)
    killed_at: float | None = None
    first_failover_at: float | None = None
    redelivered: int = 0

    def on_reply(self, path: Path, reply: dict[str, Any], now: float) -> None:
        """Take the answer for one file; a second attempt means that its worker was lost."""
        self.results[path] = reply["analysis"]
        self.started_at[reply["worker"]] = reply["started_at"]
        if len(self.results) >= self.files // 3:
            self.third_done.set()
        if reply["attempt"] > 1:
            self.redelivered += 1
            self.first_failover_at = self.first_failover_at or now

    def discovery_ms(self) -> float:
        """Return the median of the times from a worker's start until it was linked here."""
        took = [self.joined_at[name] - started for name, started in self.started_at.items()]
        return round(1000 * statistics.median(took), 1)

    def failover_ms(self) -> float:
        """Return the time from the kill until another answered a call that was the victim's."""
        if self.killed_at is None or self.first_failover_at is None:
            return 0.0
        return round(1000 * (self.first_failover_at - self.killed_at), 1)


class Workers:
    """The worker processes, each ended when its standard input is closed."""

    def __init__(self, mesh: str) -> None:
        self._mesh = mesh
        self._processes: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        """Start a worker process."""
        self._processes[name] = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "zmesh.cli.demo.worker", name, self._mesh,
            stdin=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def kill(self, name: str) -> None:
        """End a worker as a crash does, by SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        await process.wait()

    async def stop(self) -> None:
        """Let all workers end by themselves; kill those that do not."""
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self._processes.values():
            try:
                await asyncio.wait_for(process.wait(), EXIT_TIMEOUT_S)
            except TimeoutError:
                process.kill()
                await process.wait()


def run(tree: Path | None, *, as_json: bool) -> int:
    """Run the demonstration; return 0 where nothing was lost or wrong, else 1."""
    paths = files_below(tree)
    if as_json:
        summary = asyncio.run(demonstrate(paths, Silent()))
        print(json.dumps(summary.as_dict()))
    else:
        console = Console()
        with Screen(console, len(paths)) as screen:
            summary = asyncio.run(demonstrate(paths, screen))
        print_summary(console, summary)
    return 0 if summary.is_good else 1


async def demonstrate(paths: list[Path], view: View) -> Summary:
    """Analyse the files on a mesh of workers and once more here; compare."""
    mesh = f"demo-{secrets.token_hex(4)}"
    tally = Tally(len(paths))
    workers = Workers(mesh)
    started = time.monotonic()
    try:
        async with zmesh.Node("coordinator", mesh=mesh, key=()) as node:
            greeter = asyncio.create_task(_greet(node, tally, view))
            for number in range(1, WORKERS + 1):
                await workers.start(f"worker-{number}")
            await node.peers.wait_for(service="analyse", count=WORKERS, timeout=JOIN_TIMEOUT_S)
            handing_out = time.monotonic()
            trouble = asyncio.create_task(_trouble(node, workers, tally, view))
            try:
                await _hand_out(node, paths, tally, view)
                await trouble
            finally:
                trouble.cancel()
                greeter.cancel()
            seconds = time.monotonic() - handing_out
    finally:
        await workers.stop()
    view.say("Now the same in this one process, to compare ...")
    lost, wrong = await asyncio.to_thread(_compare, paths, tally)
    return Summary(
        files=len(paths),
        bytes=sum(path.stat().st_size for path in paths),
        workers=WORKERS,
        killed=int(tally.killed_at is not None),
        joined_late=len(tally.joined_at) - WORKERS,
        discovery_ms=tally.discovery_ms(),
        failover_ms=tally.failover_ms(),
        redelivered=tally.redelivered,
        lost=lost,
        wrong=wrong,
        files_per_s=round(len(paths) / seconds, 1),
        seconds=round(time.monotonic() - started, 2),
    )


async def _greet(node: zmesh.Node, tally: Tally, view: View) -> None:
    """Tell who comes and goes."""
    async for event in node.peers.watch():
        match event:
            case zmesh.Joined(peer):
                tally.joined_at[peer.name] = time.monotonic()
                view.say(f"{peer.name} joined")
            case zmesh.Left(peer, reason):
                view.say(f"{peer.name} is gone: {reason}")


async def _hand_out(node: zmesh.Node, paths: list[Path], tally: Tally, view: View) -> None:
    """Call the workers for every file, so many at a time."""
    waiting = iter(paths)

    async def keep_calling() -> None:
        for path in waiting:
            content = await asyncio.to_thread(path.read_bytes)
            reply = await node.call("analyse", content, timeout=CALL_TIMEOUT_S)
            tally.on_reply(path, reply, time.monotonic())
            view.done(reply["worker"])

    async with asyncio.TaskGroup() as callers:
        for _ in range(CONCURRENT_CALLS):
            callers.create_task(keep_calling())


async def _trouble(node: zmesh.Node, workers: Workers, tally: Tally, view: View) -> None:
    """Kill one worker when a third of the files is done, then start another."""
    await tally.third_done.wait()
    view.say("killing worker-1 with SIGKILL")
    tally.killed_at = time.monotonic()
    await workers.kill("worker-1")
    late = f"worker-{WORKERS + 1}"
    await workers.start(late)
    await node.peers.wait_for(name=late, service="analyse", timeout=JOIN_TIMEOUT_S)


def _compare(paths: list[Path], tally: Tally) -> tuple[int, int]:
    """Return how many files have no result, and how many another than a serial computation."""
    lost = sum(path not in tally.results for path in paths)
    wrong = sum(
        tally.results[path] != analyse(path.read_bytes())
        for path in paths
        if path in tally.results
    )
    return lost, wrong
