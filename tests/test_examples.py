"""The examples do what they say, as separate processes that find each other by mDNS."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.processes import ROOT, run

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_short(path: Path) -> None:
    assert path.read_text(encoding="utf-8").count("\n") < 40


async def test_hello() -> None:
    async with (
        run("examples/hello.py", "alice") as alice,
        run("examples/hello.py", "bob", "alice") as bob,
    ):
        assert await alice.ended() == (0, "bob says: hello alice, this is bob\n", "")
        assert await bob.ended() == (0, "alice says: hello bob\n", "")


async def test_request_reply() -> None:
    async with run("examples/request_reply.py", "serve") as server:
        assert await server.line() == "serving"
        async with run("examples/request_reply.py", "call", "9") as caller:
            status, out, error = await caller.ended()
            assert (status, error) == (0, "")
            assert out.startswith("9! = 362880 (computed by ")
        async with run("examples/request_reply.py", "call", "-1") as caller:
            status, out, error = await caller.ended()
            assert (status, error) == (0, "")
            assert "rejected the message: a negative number has no factorial" in out


async def test_hedged_call() -> None:
    program = "examples/hedged_call.py"
    async with run(program, "slow") as slow, run(program, "quick"):
        async with run(program, "call") as caller:
            assert await caller.ended() == (0, "148933\n", "")
        assert await slow.line() == "somebody waits for it still: False"


async def test_publish_subscribe() -> None:
    program = "examples/publish_subscribe.py"
    told = [f"sensors.kitchen.temp {20 + n / 2} C" for n in range(1, 6)]
    for readers in (1, 3):
        async with AsyncExitStack() as stack:
            arguments = [str(readers)] if readers > 1 else []
            publisher = await stack.enter_async_context(run(program, "publish", *arguments))
            reading = [
                await stack.enter_async_context(run(program, "read")) for _ in range(readers)
            ]
            assert await publisher.ended() == (0, f"handled by {readers}\n" * 5, "")
            for reader in reading:
                status, out, error = await reader.ended()
                assert (status, out.splitlines(), error) == (0, ["reading", *told], "")


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("hedged_call.py", ["serve"]),
        ("hello.py", []),
        ("publish_subscribe.py", []),
        ("publish_subscribe.py", ["publish", "two"]),
        ("request_reply.py", []),
        ("request_reply.py", ["call", "nine"]),
    ],
)
async def test_wrong_arguments_are_answered_by_the_usage(path: str, arguments: list[str]) -> None:
    async with run(f"examples/{path}", *arguments) as program:
        status, out, error = await program.ended()
        assert (status, out) == (2, "")
        assert error.startswith(f"usage: {path} ")
        assert "Traceback" not in error
