"""Cables that are pulled while messages travel: they wait, and arrive once and in order."""

import asyncio
import time

from tests.netns.residents import meet, town
from tests.netns.streams import BACK, LOST, PAUSE, SUSPECTED, check, streams


async def test_nothing_is_lost_where_a_cable_is_pulled_until_the_peer_is_lost() -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 800, 0.005)
        await asyncio.sleep(0.5)
        lan["b"].pull_cable()
        pulled = time.monotonic()
        for one, other in ((a, b), (b, a)):
            assert PAUSE < (await one.tells("Suspected", other)).at - pulled < SUSPECTED
            assert PAUSE < (await one.tells("Left", other)).at - pulled < LOST
        lan["b"].replug_cable()
        plugged = time.monotonic()
        for one, other in ((a, b), (b, a)):
            assert (await one.tells("Joined", other, after=plugged)).at - plugged < BACK
        await check(there, 800, b, "a")
        await check(back, 800, a, "b")


async def test_suspected_peer_recovers_with_its_cable() -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 800, 0.005)
        await asyncio.sleep(0.5)
        lan["a"].pull_cable()
        pulled = time.monotonic()
        assert PAUSE < (await a.tells("Suspected", b)).at - pulled < SUSPECTED
        lan["a"].replug_cable()
        plugged = time.monotonic()
        told = await a.tells("Recovered Joined", b, after=pulled)  # lost, on a busy machine
        assert told.at - plugged < BACK
        assert told.state == "alive"
        await check(there, 800, b, "a")
        await check(back, 800, a, "b")


async def test_short_break_changes_nothing() -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 300, 0.005)
        await asyncio.sleep(0.5)
        lan["a"].pull_cable()
        await asyncio.sleep(0.7)
        lan["a"].replug_cable()
        await check(there, 300, b, "a")
        await check(back, 300, a, "b")
        assert {told.kind for told in a.told + b.told} == {"Joined", "Updated"}


async def test_machines_that_started_apart_meet_once_they_are_plugged_together() -> None:
    async with town("a", "b", families=(4,)) as lan:
        lan["b"].pull_cable()
        a, b = await lan.settle("a", "b")
        await asyncio.sleep(5.3)  # zeroconf itself asks after 5 s, and then after 14 s
        assert a.told == b.told == []
        lan["b"].replug_cable()
        plugged = time.monotonic()
        await meet(a, b)
        assert a.told[0].at - plugged < 6
