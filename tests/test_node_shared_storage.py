"""Shared maps of nodes with storage: over restarts, and deaths of the process."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK, nodes
from tests.processes import run
from tests.storing import stored, until
from zmesh.options import KIB, JournalOptions

FORGETFUL = replace(QUICK, shared_sync_every=0.05, shared_deleted_for=0.1)


async def test_a_node_that_restarts_alone_has_its_map(tmp_path: Path) -> None:
    async with stored("a", tmp_path / "a") as a:
        config = await a.shared("config")
        await config.set("rate", 5)
        await config.set("old", 1)
        assert await config.delete("old")
        assert await config.compare_and_set("limit", zmesh.ABSENT, [1, 2])
    async with stored("a", tmp_path / "a") as a:
        config = await a.shared("config")
        assert dict(config.items()) == {"rate": 5, "limit": [1, 2]}
        await config.set("rate", 6)
    async with stored("a", tmp_path / "a") as a:
        assert (await a.shared("config"))["rate"] == 6


async def test_what_others_wrote_is_kept_too(tmp_path: Path) -> None:
    async with nodes("b") as (b,):
        theirs = await b.shared("config")
        await theirs.set("theirs", 1)
        async with stored("a", tmp_path / "a", b) as a:
            mine = await a.shared("config")
            await theirs.set("later", 2)
            await until(lambda: len(mine) == 2)
    async with stored("a", tmp_path / "a") as a:
        assert dict((await a.shared("config")).items()) == {"theirs": 1, "later": 2}


async def test_two_that_were_both_down_come_back_with_the_latest_of_both(tmp_path: Path) -> None:
    async with stored("a", tmp_path / "a") as a, stored("b", tmp_path / "b", a) as b:
        of_a, of_b = await a.shared("config"), await b.shared("config")
        await of_a.set("both", "of a")
        await of_a.set("gone", 1)
        await until(lambda: len(of_b) == 2)
    async with stored("a", tmp_path / "a") as a:
        of_a = await a.shared("config")
        await of_a.set("of a", 1)
        await of_a.set("both", "of a again")
    async with stored("b", tmp_path / "b") as b:
        of_b = await b.shared("config")
        await of_b.set("of b", 2)
        await of_b.set("both", "of b")
        await of_b.delete("gone")
    expected = {"both": "of b", "of a": 1, "of b": 2}
    async with stored("b", tmp_path / "b") as b, stored("a", tmp_path / "a", b) as a:
        of_a, of_b = await a.shared("config"), await b.shared("config")
        await until(lambda: dict(of_a.items()) == dict(of_b.items()) == expected)


async def test_a_deletion_holds_over_a_restart_though_it_is_not_remembered(
    tmp_path: Path,
) -> None:
    async with (
        stored("a", tmp_path / "a", options=FORGETFUL) as a,
        stored("b", tmp_path / "b", a) as b,
    ):
        of_a, of_b = await a.shared("config"), await b.shared("config")
        await of_b.set("k", 1)
        await until(lambda: "k" in of_a)
    async with stored("a", tmp_path / "a", options=FORGETFUL) as a:
        of_a = await a.shared("config")
        await of_a.delete("k")
        own = a._at_work().engine.shared_state.map("config")
        assert own is not None
        await until(lambda: not own.tombstones)
        await of_a.set("after", 2)
    async with stored("a", tmp_path / "a") as a, stored("b", tmp_path / "b", a) as b:
        of_a, of_b = await a.shared("config"), await b.shared("config")
        await until(lambda: dict(of_b.items()) == {"after": 2})
        assert dict(of_a.items()) == {"after": 2}


async def test_a_map_that_is_closed_stays_until_it_is_forgotten(tmp_path: Path) -> None:
    options = replace(QUICK, shared_maps_max=1)
    async with stored("a", tmp_path / "a", options=options) as a:
        config = await a.shared("config")
        await config.set("rate", 5)
        await config.close()
        with pytest.raises(zmesh.UsageError, match="forget=True"):
            await a.shared("other")
        config = await a.shared("config")
        assert config["rate"] == 5
        await config.set("rate", 6)
        await config.close(forget=True)
        other = await a.shared("other")
        await other.set("x", 1)
    async with stored("a", tmp_path / "a", options=replace(options, shared_maps_max=2)) as a:
        assert len(await a.shared("config")) == 0
        assert (await a.shared("other"))["x"] == 1


async def test_forgetting_means_nothing_without_storage() -> None:
    async with nodes("a") as (a,):
        config = await a.shared("config")
        await config.set("rate", 5)
        await config.close(forget=True)
        assert len(await a.shared("config")) == 0


async def test_what_has_no_room_on_disk_is_not_set(tmp_path: Path) -> None:
    small = JournalOptions(journal_bytes_max=256 * KIB, reserve_bytes_min=256 * KIB)
    storage = zmesh.Storage(tmp_path / "a", options=small)
    async with zmesh.Node("a", mdns=False, storage=storage) as a:
        config = await a.shared("config")
        with pytest.raises(zmesh.JournalFull):  # noqa: PT012  # one of them has no room
            for number in range(100):
                await config.set(f"key {number}", bytes(16 * KIB))
        assert 0 < len(config) < 100
        kept = dict(config.items())
    async with zmesh.Node("a", mdns=False, storage=storage) as a:
        assert dict((await a.shared("config")).items()) == kept


async def test_exchanges_and_their_bindings_survive(tmp_path: Path) -> None:
    async with stored("a", tmp_path / "a") as a:
        events = await a.exchange("events", kind="topic")
        await events.bind(queue="work", routing_key="order.*")
    async with stored("a", tmp_path / "a") as a:
        events = await a.exchange("events", kind="topic")
        [binding] = events.bindings()
        assert (binding.destination.name, binding.routing_key) == ("work", "order.*")
        async with a.pull("work") as jobs:
            await events.publish("body", "order.new")
            assert (await asyncio.wait_for(anext(jobs), 5)).body == "body"


PROGRAM = """
import asyncio, sys
import zmesh

async def main():
    async with zmesh.Node("a", mdns=False, storage=sys.argv[1]) as node:
        config = await node.shared("config")
        print("open", flush=True)
        for number in range(1_000_000):
            await config.set(f"key {number % 50}", number)
            print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_set_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "a"
    async with AsyncExitStack() as stack:
        child = await stack.enter_async_context(run("-c", PROGRAM, str(path)))
        assert await child.line() == "open"
        told = -1
        while told < 120:
            told = int(await child.line())
        child.process.kill()
        _, rest, _ = await child.ended()
    complete = rest[: rest.rfind("\n") + 1].split()
    told = max([told, *map(int, complete)])
    async with stored("a", path) as a:
        config = await a.shared("config")
        held = sorted(config[key] for key in config)
        latest = held[-1]
        assert latest in (told, told + 1), "the last one may have died before it said so"
        assert held == list(range(latest - 49, latest + 1))
