"""Fan-outs of a node with a journal, between processes that are killed."""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.integration.test_tickets import free_port, kill
from tests.processes import Child, run
from zmesh.journal.tools import status

SENDER = "tests/integration/programs/fan_out_sender.py"
MEMBER = "tests/integration/programs/fan_out_member.py"


class Cameras:
    """Two members with journals."""

    def __init__(self, place: Path, stack: AsyncExitStack) -> None:
        self._place = place
        self._stack = stack
        self._ports = {name: free_port() for name in ("one", "two")}
        self.journal = str(place / "office.zmesh")
        self.peers = [f"127.0.0.1:{port}" for port in self._ports.values()]

    async def start(self, name: str) -> Child:
        journal = str(self._place / f"{name}.zmesh")
        child = await self._stack.enter_async_context(
            run(MEMBER, name, journal, self._ports[name], reads=True)
        )
        assert await child.line() == "joined"
        return child

    def commits(self, name: str) -> int:
        """Return how many commits a member's journal has."""
        return status(self._place / f"{name}.zmesh").commits

    def wait_for_commit(self, name: str, before: int) -> None:
        """Wait until a member's journal has more commits than before."""
        give_up_at = time.monotonic() + 10
        while self.commits(name) == before:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)

    async def sender(self, command: str) -> Child:
        return await self._stack.enter_async_context(
            run(SENDER, self.journal, command, *self.peers)
        )


async def test_sender_killed_in_the_middle_goes_on_with_those_who_have_not_accepted(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        cameras = Cameras(tmp_path, stack)
        one, two = [await cameras.start(name) for name in ("one", "two")]
        sender = await cameras.sender("send")
        assert await sender.line() == "stored"
        assert [await each.line() for each in (one, two)] == ["got firmware"] * 2
        await one.tell("accept")
        assert await sender.line() == "one accepted"
        await kill(sender)
        sender = await cameras.sender("go-on")
        assert [await sender.line() for _ in range(2)] == ["goes on", "one accepted"]
        await two.tell("accept")
        assert await sender.line() == "two accepted"
        assert await sender.line() == "accepted by one two"
        for each in (one, two):  # neither got it twice
            with pytest.raises(TimeoutError):
                await each.line(seconds=0.2)


async def test_sender_and_a_member_killed_in_the_middle_come_to_the_end(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        cameras = Cameras(tmp_path, stack)
        one, two = [await cameras.start(name) for name in ("one", "two")]
        sender = await cameras.sender("send")
        assert await sender.line() == "stored"
        assert [await each.line() for each in (one, two)] == ["got firmware"] * 2
        await one.tell("accept")
        assert await sender.line() == "one accepted"
        await asyncio.gather(kill(sender), kill(two))
        sender = await cameras.sender("go-on")
        assert [await sender.line() for _ in range(2)] == ["goes on", "one accepted"]
        two = await cameras.start("two")
        assert await two.line() == "got firmware"  # it had accepted nothing
        await two.tell("accept")
        assert await sender.line() == "two accepted"
        assert await sender.line() == "accepted by one two"


async def test_member_killed_after_it_accepted_does_not_get_it_from_the_next_sender(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        cameras = Cameras(tmp_path, stack)
        one, two = [await cameras.start(name) for name in ("one", "two")]
        sender = await cameras.sender("send")
        assert await sender.line() == "stored"
        assert [await each.line() for each in (one, two)] == ["got firmware"] * 2
        await kill(sender)
        before = cameras.commits("one")
        await one.tell("accept")  # which the sender does not hear
        await asyncio.to_thread(cameras.wait_for_commit, "one", before)
        await kill(one)
        one = await cameras.start("one")
        sender = await cameras.sender("go-on")
        assert await sender.line() == "goes on"
        assert await sender.line() == "one accepted"
        await two.tell("accept")
        assert await sender.line() == "two accepted"
        with pytest.raises(TimeoutError):
            await one.line(seconds=0.2)
