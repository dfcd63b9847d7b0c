"""Lies told by mDNS, on a machine of their own: on loopback they would reach other tests."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from typing import Any

from tests.netns.lan import Lan
from tests.processes import ROOT
from tests.security.false_records import CALLS_MIN
from zmesh.options import NodeOptions

MIB = 1 << 20


async def told(*attack: str) -> dict[str, Any]:
    """Return what an attack came to; see `tests.security.false_records`."""
    with Lan("liar") as lan:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", lan["liar"].namespace,
            sys.executable, "-W", "error", "-m", "tests.security.false_records", *attack,
            stdout=PIPE, stderr=PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            out, errors = await asyncio.wait_for(process.communicate(), 120)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            process._transport.close()  # type: ignore[attr-defined]
    assert process.returncode == 0, errors.decode()
    facts: dict[str, Any] = json.loads(out)
    return facts


async def test_nodes_meet_and_talk_among_eight_hundred_that_are_not_there() -> None:
    facts = await told("flood", "800")
    assert facts["candidates"] <= NodeOptions().candidates_max
    assert facts["refused"] + facts["displaced"] > 0, facts
    assert facts["growth"] < 96 * MIB
    assert facts["joined"] < 30
    assert facts["calls"] >= CALLS_MIN


async def test_somebody_else_at_a_nodes_address_gets_nothing_that_is_for_it() -> None:
    facts = await told("spoof")
    assert (facts["met_before"], facts["trapped"]) == ([], 0)
    assert facts["heard"] == "to her alone"
