"""Interfaces that come, go and change their addresses while nodes run."""

import asyncio
import time

import pytest

from tests.netns.residents import Resident, meet, town
from tests.netns.streams import LOST, check, streams

NOTICED = 6.0
"""Seconds; measured: 1 to 3. The interfaces are looked at every 0.5 s here, and an IPv6 address is
usable 1 to 2 s after it came."""


async def meet_again(a: Resident, b: Resident, moment: float) -> None:
    for one, other in ((a, b), (b, a)):
        told = await one.tells("Joined Recovered", other, after=moment)
        assert told.at - moment < LOST


@pytest.mark.parametrize("families", [(4, 6), (6,)], ids=["both", "IPv6"])
async def test_node_that_starts_without_a_network_joins_when_it_comes(
    families: tuple[int, ...],
) -> None:
    async with town("a", "b", families=families) as lan:
        lan["b"].ip("link del eth0")
        lan["b"].check_duplicates()
        a, b = await lan.settle("a", "b")
        await asyncio.sleep(0.5)
        plugged = time.monotonic()
        lan["b"].plug(0, *(lan["b"].addresses[family] for family in families))
        await meet(a, b)
        assert 0 < a.told[0].at - plugged < NOTICED


async def test_second_interface_brings_those_behind_it() -> None:
    async with town("a", "b", "c") as lan:
        lan["c"].ip("link del eth0")
        lan["c"].plug(1, "10.88.0.3/24")
        a, b, c = await lan.settle("a", "b", "c")
        await meet(a, b)
        plugged = time.monotonic()
        lan["a"].plug(1, "10.88.0.1/24")
        await meet(a, c)
        assert (await a.tells("Joined", c)).at - plugged < NOTICED
        assert "Left" not in {told.kind for told in a.told}
        # Nobody forwards between the two networks, and zmesh does not either.
        assert {told.name for told in c.told} == {"a"}


async def test_peers_meet_again_over_the_interface_that_remains() -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        for number, name in enumerate("ab", start=1):
            lan[name].plug(1, f"10.88.0.{number}/24")
        there, back = streams(a, b, 800, 0.005)
        await asyncio.sleep(1.5)
        lan["a"].ip("link del eth0")
        gone = time.monotonic()
        await meet_again(a, b, gone)
        await check(there, 800, b, "a")
        await check(back, 800, a, "b")


@pytest.mark.parametrize("interface", ["*", "eth0"], ids=["all", "named"])
async def test_machine_that_moves_to_another_address_is_found_there(interface: str) -> None:
    async with town("a", "b") as lan:
        a, b = await lan.settle("a", "b", interfaces=[interface])
        await meet(a, b)
        there, back = streams(a, b, 500, 0.005)
        await asyncio.sleep(0.5)
        moved = time.monotonic()
        lan["a"].ip("addr flush dev eth0", "addr add 10.77.0.101/24 dev eth0")
        # Where old connections end at once, as those of a named interface do, nobody is missed.
        await b.until(lambda: "tcp://10.77.0.101" in b.told[-1].endpoints[0])
        assert b.told[-1].at - moved < LOST
        await asyncio.gather(a.answered_by(b), b.answered_by(a))
        await check(there, 500, b, "a")
        await check(back, 500, a, "b")
        # It listens there, and not only says so: who comes now can dial it.
        [c] = await lan.settle("b", name="c", mdns=False, peers=b.told[-1].endpoints[:1])
        await meet(a, c)


@pytest.mark.parametrize("family", [4, 6], ids=["IPv4", "IPv6"])
async def test_interface_that_was_down_for_a_while_carries_again(family: int) -> None:
    async with town("a", "b", families=(family,)) as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        lan["a"].ip("link set eth0 down")
        await asyncio.sleep(1.5)
        lan["a"].ip("link set eth0 up")
        if family == 6:  # the kernel has forgotten it, as it always does
            lan["a"].ip(f"addr add {lan['a'].addresses[6]} dev eth0")
        up = time.monotonic()
        [c] = await lan.settle("b", name="c")
        # Multicast is joined anew as well: the newcomer is heard.
        await meet(a, c)
        assert (await a.tells("Joined", c)).at - max(up, c.opened_at) < NOTICED
        await asyncio.gather(a.answered_by(b), b.answered_by(a))
