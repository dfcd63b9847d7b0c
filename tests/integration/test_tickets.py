"""Requests whose answer may come later, between processes that are killed."""

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
