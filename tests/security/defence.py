"""Who an attack is to hurt: a victim, and honest peers that talk to it; and what they saw."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.processes import Child, run
from tests.security.member import Target
from zmesh.ids import NodeId
from zmesh.security.mesh_key import MeshKey

Facts = dict[str, Any]

STARTS_WITHIN = 60.0
"""Seconds until a process has joined, on such a machine: see the next."""

NOTICED_WITHIN = 20.0
"""Seconds until what was not noticed never will be, on a machine that is busy with other tests."""


@dataclass
class Told:
    """A program that answers each line with a line of JSON."""

    child: Child

    async def ask(self, line: str) -> Facts:
        """Return what it says to a line."""
        await self.child.tell(line)
        answer = await self.child.line(30)
        assert answer, (await self.child.ended())[2]
        facts: Facts = json.loads(answer)
        return facts

    async def end(self) -> None:
        """Let it end, and see that it does so without faults."""
        self.child.end_of_input()
        status, _, errors = await self.child.ended()
        assert status == 0, errors


@dataclass
class Honest(Told):
    """A peer in a process of its own; see `tests.security.honest`."""

    async def goes_on(self) -> Facts:
        """Wait until a call that begins now is answered, and something published now has come."""
        before = await self.ask("facts")
        async with asyncio.timeout(NOTICED_WITHIN):
            while True:
                after = await self.ask("facts")
                # One call may have been under way, and one publication.
                if all(after[name] > before[name] + 1 for name in ("calls", "ticks")):
                    return after
                await asyncio.sleep(0.01)


@dataclass
class Victim(Told):
    """A node in a process of its own; see `tests.security.victim`."""

    target: Target

    async def begin(self) -> Facts:
        """Return what it counted so far, and have its memory measured from now on."""
        return await self.ask("begin")

    async def facts(self) -> Facts:
        """Return what it counted so far."""
        return await self.ask("facts")

    async def noticed(self, before: Facts, wanted: Mapping[str, int], who: str = "") -> Facts:
        """Wait until it has counted so much more than before; return what it counted.

        Of what `happened` to peers counts what happened to `who`.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + NOTICED_WITHIN
        while lacking := missing(before, facts := await self.facts(), wanted, who):
            assert loop.time() < until, (lacking, facts)
            await asyncio.sleep(0.05)
        return facts


def missing(before: Facts, after: Facts, wanted: Mapping[str, int], who: str) -> dict[str, int]:
    """Return how often what was wanted was counted, where that is less; {} where all was."""
    counted = {name: more(before, after, name, who) for name in wanted}
    return {name: counted[name] for name, times in wanted.items() if counted[name] < times}


def more(before: Facts, after: Facts, name: str, who: str) -> int:
    """Return how much more was counted of `where.name`, or how much ever of `ever.where.name`.

    `where.name|where.other` is both together.
    """
    if "|" in name:
        return sum(more(before, after, each, who) for each in name.split("|"))
    where, _, kind = name.partition(".")
    if where == "ever":
        return int(after["counts"].get(kind, 0))
    if where == "happened":
        return int(after[where].count([kind, who]))  # since it was asked to begin
    return int(after["counts"].get(name, 0) - before["counts"].get(name, 0))


@asynccontextmanager
async def victim(key: MeshKey, **settings: Any) -> AsyncIterator[Victim]:
    """Start a victim, which is found by its endpoint alone unless its settings say otherwise."""
    told = json.dumps({"key": key.text, "mdns": False, **settings})
    async with run("-m", "tests.security.victim", told, reads=True) as child:
        first = json.loads(await child.line(STARTS_WITHIN))
        node = NodeId(bytes.fromhex(first["id"]))
        started = Victim(child, Target(first["endpoint"], node, key))
        yield started
        await started.end()


@asynccontextmanager
async def honest(target: Target, name: str = "honest") -> AsyncIterator[Honest]:
    """Start a peer that calls the victim all the time; see `tests.security.honest`."""
    address = target.endpoint.removeprefix("tcp://")
    told = json.dumps({"key": target.key.text, "name": name, "peers": [address]})
    async with run("-m", "tests.security.honest", told, reads=True) as child:
        assert await child.line(STARTS_WITHIN), (await child.ended())[2]
        started = Honest(child)
        yield started
        await started.end()
