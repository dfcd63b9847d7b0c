"""Requests whose answer may come later, between processes that are killed."""

import asyncio
import socket
from pathlib import Path

from tests.processes import Child, run

CALLER = "tests/integration/programs/later_caller.py"
PROVIDER = "tests/integration/programs/later_provider.py"


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


async def begin(provider: Child, how: str) -> None:
    await provider.tell(how)
    assert (await provider.line()).startswith("tcp://127.0.0.1:")


async def kill(child: Child) -> None:
    if child.process.returncode is None:
        child.process.kill()
    await child.process.wait()


async def test_caller_killed_before_anybody_provides_the_service_has_its_answer_later(
    tmp_path: Path,
) -> None:
    journal, port = str(tmp_path / "caller.zmesh"), free_port()
    async with run(CALLER, journal, "-", "ask", "work", "one") as caller:
        ticket = await caller.line()
        await kill(caller)
    peer = f"127.0.0.1:{port}"
    async with run(PROVIDER, port, reads=True) as provider:
        await begin(provider, "answer")
        async with run(CALLER, journal, peer, "wait", ticket) as caller:
            assert await caller.line() == "waiting"
            assert await caller.line() == "one done"
            assert await provider.line() == "asked one"
            await kill(caller)
        async with run(CALLER, journal, "-", "wait", ticket) as caller:
            assert [await caller.line() for _ in range(2)] == ["answered", "one done"]


async def test_caller_killed_in_the_middle_asks_again(tmp_path: Path) -> None:
    journal, port = str(tmp_path / "caller.zmesh"), free_port()
    peer = f"127.0.0.1:{port}"
    async with run(PROVIDER, port, reads=True) as provider:
        await begin(provider, "hang")
        async with run(CALLER, journal, peer, "ask", "work", "one") as caller:
            ticket = await caller.line()
            assert await provider.line() == "asked one"
            await kill(caller)
        async with run(CALLER, journal, peer, "wait", ticket) as caller:
            assert await caller.line() == "waiting"
            assert await provider.line() == "asked one"


async def test_provider_killed_in_the_middle_is_asked_again_in_its_next_life(
    tmp_path: Path,
) -> None:
    journal, port = str(tmp_path / "caller.zmesh"), free_port()
    peer = f"127.0.0.1:{port}"
    async with run(PROVIDER, port, reads=True) as provider:
        await begin(provider, "hang")
        async with run(CALLER, journal, peer, "ask", "work", "one") as caller:
            await caller.line()
            assert await provider.line() == "asked one"
            await kill(provider)
            async with run(PROVIDER, port, reads=True) as again:
                await begin(again, "answer")
                assert await caller.line() == "one done"
                assert await again.line() == "asked one"


async def test_both_killed_in_the_middle_go_on_in_their_next_lives(tmp_path: Path) -> None:
    journal, port = str(tmp_path / "caller.zmesh"), free_port()
    peer = f"127.0.0.1:{port}"
    async with run(PROVIDER, port, reads=True) as provider:
        await begin(provider, "hang")
        async with run(CALLER, journal, peer, "ask", "work", "one") as caller:
            ticket = await caller.line()
            assert await provider.line() == "asked one"
            await kill(provider)
            await kill(caller)
    async with run(CALLER, journal, peer, "wait", ticket) as caller:
        assert await caller.line() == "waiting"
        async with run(PROVIDER, port, reads=True) as provider:
            await begin(provider, "answer")
            assert await caller.line() == "one done"
            assert await provider.line() == "asked one"


async def test_every_ticket_that_was_returned_is_answered_however_often_both_are_killed(
    tmp_path: Path,
) -> None:
    journal, port = str(tmp_path / "caller.zmesh"), free_port()
    peer = f"127.0.0.1:{port}"
    returned: dict[str, str] = {}
    for number in range(3):
        async with run(PROVIDER, port, reads=True) as provider:
            await begin(provider, "answer")
            async with run(CALLER, journal, peer, "many", "work") as caller:
                for _ in range(25 * number + 1):
                    ticket, body = (await caller.line()).split()
                    returned[ticket] = body
                await kill(provider if number % 2 else caller)
                await kill(caller)
                rest = await caller.rest()
                returned |= dict(line.split() for line in rest)
    async with run(PROVIDER, port, reads=True) as provider:
        await begin(provider, "answer")
        reading = asyncio.create_task(provider.rest())
        async with run(CALLER, journal, peer, "all") as caller:
            answers: dict[str, str] = {}
            while (line := await caller.line()) != "all":
                ticket, answer, done = line.split()
                assert done == "done"
                answers[ticket] = answer
        await kill(provider)
        await reading
    assert len(returned) > 75
    assert returned.items() <= answers.items()
    assert len(answers) - len(returned) <= 3, "each life may have stored one it could not tell of"
