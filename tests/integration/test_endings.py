"""However a program ends, it ends soon and says nothing it need not say."""

import asyncio
import signal
import time

import pytest

from tests.processes import run
from zmesh import Node

ENDING = "tests/integration/programs/ending.py"

SOON = 3.0
"""Seconds; in truth under one, but a busy machine takes its time to stop an interpreter."""

WAYS = {
    "return": (0, "message failed"),  # what the peer had not read
    "return-mdns": (0, "message failed"),
    "exception": (1, "ZeroDivisionError"),
    "interrupt": (-signal.SIGINT, "KeyboardInterrupt"),
    "exit": (3, "message failed"),
    "leak": (0, "<Node 'ending' of mesh 'ending'> was never closed: `await node.close()`"),
}


@pytest.mark.parametrize("how", WAYS)
async def test_program_ends_soon(how: str) -> None:
    status_wanted, told = WAYS[how]
    async with (
        Node("peer", mesh="ending", mdns=False) as peer,
        run(ENDING, how, *peer.endpoints, fresh=True) as program,
    ):
        assert await program.line() == "ready"
        begun = time.monotonic()
        if how == "interrupt":
            await asyncio.sleep(0.1)
            program.process.send_signal(signal.SIGINT)
        status, _, error = await program.ended()
        assert time.monotonic() - begun < SOON
        assert status == status_wanted
        assert told in error
