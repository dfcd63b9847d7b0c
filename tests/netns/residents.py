"""Nodes that live on the machines of a LAN, each in a process of its own, as a test sees them."""

import asyncio
import contextlib
import itertools
import json
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.netns.lan import Lan, Machine
from tests.processes import Forked, run

PATIENCE = 30.0
"""Seconds until a test that waits in vain fails; what is quick is checked by its times."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a node told of a peer."""

    kind: str  # Joined, Updated, Suspected, Recovered, Left
    at: float  # on the clock of all processes here, time.monotonic
    id: str
    name: str
    state: str
    endpoints: list[str]
    why: str


class Resident:
    """A node on a machine, run by `tests.netns.program`."""

    def __init__(self, name: str, process: Process | Forked) -> None:
        self.name = name
        self.process = process
        self.id = ""
        self.endpoints: list[str] = []
        self.opened_at = 0.0
        self.told: list[Told] = []
        self.log: list[tuple[str, str]] = []  # level and text
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()
        self._has_ended = False
        self._errors = ""
        self._reading = asyncio.create_task(self._read())
        self._reading_errors = asyncio.create_task(self._read_errors())

    async def ask(self, order: str, *arguments: object) -> Any:
        """Have it do something (see `program.Orders`), and return the answer."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([number, order, *arguments]).encode() + b"\n")
        return await asyncio.wait_for(answer, PATIENCE + 5)

    async def opened(self) -> None:
        await self.until(lambda: self.id != "")

    async def until(self, happened: Callable[[], bool], within: float = PATIENCE) -> None:
        """Wait until what it tells makes this true."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), self._news:
                await self._news.wait_for(lambda: happened() or self._has_ended)
        assert happened(), f"{self.name} told only {self.told}, {self.log}; {self._errors}"

    async def tells(self, kinds: str, of: "Resident", after: float = 0.0) -> Told:
        """Wait until it tells this of another resident, or one of these, later than `after`."""

        def found() -> list[Told]:
            wanted = kinds.split()
            about = [told for told in self.told if told.id == of.id and told.at > after]
            return [told for told in about if told.kind in wanted]

        await self.until(lambda: bool(found()))
        return found()[0]

    async def calls(self, other: "Resident") -> None:
        """Have it join another, and be answered by it."""
        await self.tells("Joined", other)
        await self.answered_by(other)

    async def answered_by(self, other: "Resident") -> None:
        """Call the other's own service."""
        assert await self.ask("call", f"who-{other.name}", None, 20) == other.name

    def kill(self) -> None:
        self.process.kill()

    async def close(self) -> None:
        """Have the node leave, and check that its life was without faults."""
        if self.process.returncode is None and self.process.stdin is not None:
            self.process.stdin.close()
        async with asyncio.timeout(10):
            status = await self.process.wait()
            await self._reading
            await self._reading_errors
        if status == -signal.SIGKILL:
            return
        assert (status, self._errors) == (0, ""), (
            f"{self.name}: {status} {self._errors} {self.log}"
        )
        assert [text for level, text in self.log if level in {"ERROR", "CRITICAL"}] == []

    async def release(self) -> None:
        """Listen to it no more; what still runs is killed where it was started."""
        readers = (self._reading, self._reading_errors)
        for task in readers:
            task.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._news:
                self._take(json.loads(line))
                self._news.notify_all()
        async with self._news:
            self._has_ended = True
            self._news.notify_all()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        while line := await self.process.stderr.readline():
            self._errors += line.decode()

    def _take(self, told: dict[str, Any]) -> None:
        if "event" in told:
            self.told.append(Told(told.pop("event"), **told))
        elif "log" in told:
            self.log.append(tuple(told["log"]))
        elif "node" in told:
            self.id, self.endpoints, self.opened_at = told["node"], told["endpoints"], told["at"]
        elif not (answer := self._answers.pop(told["number"])).done():  # the test waits for it
            if "error" in told:
                answer.set_exception(AssertionError(f"{self.name}: {': '.join(told['error'])}"))
            else:
                answer.set_result(told["answer"])


class Town:
    """A LAN and those who live there."""

    def __init__(self, lan: Lan, stack: AsyncExitStack) -> None:
        self.lan = lan
        self._stack = stack
        self.residents: list[Resident] = []

    def __getitem__(self, machine: str) -> Machine:
        return self.lan[machine]

    async def _start(self, machine: str, given: dict[str, Any]) -> Resident:
        settings = {"name": machine, "interfaces": ["*"], **given}
        child = await self._stack.enter_async_context(
            run(
                "-m", "tests.netns.program", json.dumps(settings),
                reads=True, namespace=self.lan[machine].namespace,
            )
        )  # fmt: skip
        resident = Resident(settings["name"], child.process)
        self._stack.push_async_callback(resident.release)
        self.residents.append(resident)
        return resident

    async def settle(self, *machines: str, **settings: Any) -> list[Resident]:
        """Start a node on each machine, at the same time, and wait until all are open.

        They are named after their machines, and listen everywhere, where not said otherwise.
        """
        residents = [await self._start(machine, settings) for machine in machines]
        for resident in residents:
            await resident.opened()
        return residents


async def meet(*residents: Resident) -> None:
    """Have each join and call each."""
    pairs = itertools.permutations(residents, 2)
    await asyncio.gather(*(one.calls(other) for one, other in pairs))


@asynccontextmanager
async def town(*machines: str, families: tuple[int, ...] = (4, 6)) -> AsyncIterator[Town]:
    """Build a LAN to live in; whoever still lives there leaves at the end, then all is deleted."""
    with Lan(*machines, families=families) as lan:
        async with AsyncExitStack() as stack:
            built = Town(lan, stack)
            yield built
            await asyncio.gather(*(resident.close() for resident in built.residents))
