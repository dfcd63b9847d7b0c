"""Networks that lose packets, some of them or all in one direction."""

import asyncio
import time

import pytest

from tests.discovery.waiting import until
from tests.netns.residents import meet, town
from tests.netns.streams import BACK, LOST, SUSPECTED, check, streams

pytestmark = pytest.mark.usefixtures("needs_firewall")


@pytest.mark.parametrize("behind", ["a", "b"])
async def test_machine_that_can_only_dial_out_is_a_full_member(behind: str) -> None:
    async with town("a", "b") as lan:
        lan[behind].firewall("INPUT -i eth0 -p tcp --syn -j DROP")
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 300, 0.001)
        await check(there, 300, b, "a")
        await check(back, 300, a, "b")


@pytest.mark.parametrize("deaf", ["a", "b"])
async def test_it_is_enough_that_one_hears_of_the_other(deaf: str) -> None:
    async with town("a", "b") as lan:
        lan[deaf].firewall("INPUT -i eth0 -p udp --dport 5353 -j DROP")
        await meet(*await lan.settle("a", "b"))


async def test_broken_connection_is_dialed_again_by_the_one_who_can() -> None:
    async with town("a", "b") as lan:
        lan["a"].firewall("INPUT -i eth0 -p tcp --syn -j DROP")
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 500, 0.005)
        broken: set[tuple[str, str]] = set()
        for _ in range(3):
            await until(lambda: bool(lan["b"].connections() - broken), BACK)
            for ours, theirs in lan["b"].connections() - broken:
                ports = f"--dport {ours} --sport {theirs}"
                lan["b"].firewall(f"INPUT -p tcp {ports} -j REJECT --reject-with tcp-reset")
                broken.add((ours, theirs))
        await check(there, 500, b, "a")
        await check(back, 500, a, "b")


async def test_silence_in_one_direction_loses_nothing() -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 800, 0.005)
        await asyncio.sleep(0.5)
        lan["a"].firewall("INPUT -i eth0 -j DROP")
        cut = time.monotonic()
        for one, other in ((a, b), (b, a)):
            assert (await one.tells("Suspected", other)).at - cut < SUSPECTED
            assert (await one.tells("Left", other)).at - cut < LOST
        healed = time.monotonic()
        lan["a"].firewall_off()
        for one, other in ((a, b), (b, a)):
            assert (await one.tells("Joined", other, after=healed)).at - healed < BACK
        await check(there, 800, b, "a")
        await check(back, 800, a, "b")


async def test_streams_survive_a_network_that_loses_one_packet_in_twenty() -> None:
    async with town("a", "b") as lan:
        for name in "ab":
            lan[name].firewall(
                "INPUT -i eth0 -m statistic --mode random --probability 0.05 -j DROP"
            )
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        there, back = streams(a, b, 1500, 0.001)
        await check(there, 1500, b, "a")
        await check(back, 1500, a, "b")
