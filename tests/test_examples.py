"""The examples do what they say, as separate processes that find each other by mDNS."""

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


async def test_publish_subscribe() -> None:
    async with run("examples/publish_subscribe.py", "sensors.*.temp") as reader:
        assert await reader.line() == "reading"
        async with run("examples/publish_subscribe.py") as thermometer:
            assert await thermometer.ended() == (0, "handled by 1\n" * 5, "")
        status, out, error = await reader.ended()
        assert (status, error) == (0, "")
        assert out.splitlines() == [f"sensors.kitchen.temp {20 + n / 2} C" for n in range(1, 6)]
