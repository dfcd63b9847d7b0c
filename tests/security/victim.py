"""A node that is attacked: `python -m tests.security.victim SETTINGS`, the settings as JSON.

It answers calls of `echo`, reads its inbox, and publishes numbered `ticks`. It prints a line of
JSON with its id and endpoint, and one more for each line it reads: what it counted, and, since it
read `begin`, what it told and how much memory it took. It closes and ends when its standard input
does.
"""

import asyncio
import itertools
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import zmesh
from tests.processes import say
from tests.resources import STATUS

TICKS = "ticks"
TICK_BYTES = 2048
TICK_PAUSE = 0.02
"""Seconds between two publications, 100 KiB a second."""


@dataclass
class Victim:
    """What there is to tell of it."""

    node: zmesh.Node
    bodies: dict[str, int] = field(default_factory=lambda: {"heard": 0, "refused": 0})
    told: list[list[str]] = field(default_factory=list)  # of the audit log
    happened: list[list[str]] = field(default_factory=list)  # to peers

    async def echo(self, message: zmesh.Message) -> Any:
        """Answer with what came."""
        return message.body

    async def listen(self) -> None:
        """Read what comes, as far as it can be read."""
        async for message in self.node.inbox():
            try:
                len(message.body)
            except zmesh.ProtocolError:
                self.bodies["refused"] += 1
            else:
                self.bodies["heard"] += 1

    async def publish(self) -> None:
        """Publish all the time, whoever reads it."""
        for number in itertools.count():
            await self.node.publish(TICKS, number.to_bytes(8, "big") + bytes(TICK_BYTES - 8))
            await asyncio.sleep(TICK_PAUSE)

    async def watch_audit(self) -> None:
        """Note what the audit log is told."""
        async for event in self.node.audit():
            self.told.append([event.kind.value, event.peer, event.endpoint, event.detail])

    async def watch_peers(self) -> None:
        """Note who joins, is suspected, leaves."""
        async for event in self.node.peers.watch():
            if not isinstance(event, zmesh.Overrun):
                self.happened.append([type(event).__name__, event.peer.name])

    def facts(self) -> dict[str, Any]:
        """Return what it counted since it opened, and its memory."""
        statistics = self.node.statistics()
        table = statistics.engine.membership.table
        counts = {
            "audited": statistics.audited,
            "defects": statistics.engine.defects,
            "transport": asdict(statistics.transport),
            "engine": {"packets_unknown": statistics.engine.packets_unknown},
            "table": {"turned_away": table.refused + table.displaced},
            "bodies": self.bodies,
        }
        engine = self.node._assembly.engine  # type: ignore[union-attr]
        paths = {peer.name: peer.link.path for peer in engine._peers}
        return {
            "counts": {f"{where}.{name}": n for where, all_ in counts.items()
                       for name, n in all_.items()},
            "memory": _bytes_of("VmRSS"),
            "peak": _bytes_of("VmHWM"),
            "told": self.told,
            "happened": self.happened,
            "peers": {peer.name: peer.state.value for peer in self.node.peers},
            "paths": {name: path.hex() for name, path in paths.items() if isinstance(path, bytes)},
        }  # fmt: skip


def _bytes_of(name: str) -> int:
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def forget_peak() -> None:
    """Have the kernel count the peak anew."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


async def main(settings: dict[str, Any]) -> None:
    async with zmesh.Node("victim", interfaces=["127.0.0.1"], **settings) as node:
        victim = Victim(node)
        node.service("echo")(victim.echo)
        work = (victim.listen, victim.publish, victim.watch_audit, victim.watch_peers)
        tasks = [asyncio.create_task(each()) for each in work]
        say(json.dumps({"id": node.id, "endpoint": node.endpoints[0]}))
        while line := await asyncio.to_thread(sys.stdin.readline):
            if line.strip() == "begin":
                victim.told, victim.happened = [], []
                await asyncio.to_thread(forget_peak)
            say(json.dumps(victim.facts()))
            for task in tasks:
                if task.done():
                    task.result()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
