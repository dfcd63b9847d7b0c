"""Nodes on different machines find each other by mDNS, and nobody else."""

import asyncio

import pytest

from tests.netns.residents import meet, town
from zmesh import MeshKey
from zmesh.face.system import SystemEntropy


@pytest.mark.parametrize("families", [(4, 6), (4,), (6,)], ids=["both", "IPv4", "IPv6"])
async def test_two_machines_find_and_call_each_other(families: tuple[int, ...]) -> None:
    async with town("a", "b", families=families) as lan:
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        expected = lan["b"].addresses[families[0]].partition("/")[0]
        assert expected in a.told[0].endpoints[0]
        for each in (a, b):
            assert any("without encryption" in text for _, text in each.log)


async def test_machines_with_one_key_need_no_more_to_find_and_call_each_other() -> None:
    key, other = (MeshKey.new(SystemEntropy()).text for _ in range(2))
    async with town("a", "b", "c") as lan:
        a, b = await lan.settle("a", "b", interfaces=None, key=key)
        [c] = await lan.settle("c", interfaces=None, key=other)
        await meet(a, b)
        assert a.told[0].name == b.name  # which mDNS did not tell
        assert lan["b"].addresses[4].partition("/")[0] in str(b.endpoints)
        await asyncio.sleep(1.0)
        assert [each for one in (a, b) for each in one.told if each.id == c.id] == []
        assert not any("without encryption" in text for one in (a, b, c) for _, text in one.log)


async def test_link_local_addresses_are_enough() -> None:
    async with town("a", "b", families=(6,)) as lan:
        for name in "ab":
            lan[name].ip(f"addr del {lan[name].addresses[6]} dev eth0")
        a, b = await lan.settle("a", "b")
        await meet(a, b)
        assert all("127.0.0.1" in each or "::1]" in each or "fe80" in each for each in a.endpoints)


async def test_three_machines_find_and_call_each_other() -> None:
    async with town("a", "b", "c") as lan:
        await meet(*await lan.settle("a", "b", "c", interfaces=["eth0"]))


async def test_latecomer_is_seen_at_once() -> None:
    async with town("a", "b") as lan:
        [a] = await lan.settle("a")
        [b] = await lan.settle("b")
        await meet(a, b)
        assert a.told[0].at - b.opened_at < 3  # measured: less than 0.1 s


async def test_meshes_of_different_names_stay_apart() -> None:
    async with town("a", "b") as lan:
        ours = await lan.settle("a", "b", mesh="ours")
        theirs = await lan.settle("a", "b", mesh="theirs")
        await asyncio.gather(meet(*ours), meet(*theirs))
        await asyncio.sleep(1.0)
        for one, other in (ours, ours[::-1], theirs, theirs[::-1]):
            assert {told.id for told in one.told} == {other.id}
