"""Shared maps of real nodes: as an application uses them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import zmesh
from tests.nodes import nodes
from zmesh import ABSENT, Change, InvalidOption, MapFull, MapWatcher, Node, NodeOptions, SharedMap

SMALL = NodeOptions(shared_keys_max=3, shared_value_bytes_max=1000, shared_maps_max=2)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # of whatever kind
            await asyncio.sleep(0.005)


@asynccontextmanager
async def shared(*names: str) -> AsyncIterator[list[SharedMap]]:
    """Replicas of one map, each on a node of its own."""
    async with nodes(*names) as opened:
        yield [await node.shared("config") for node in opened]


async def take(watcher: MapWatcher, count: int) -> list[Change]:
    async with asyncio.timeout(5):
        return [await anext(watcher) for _ in range(count)]


async def test_a_map_reads_as_a_mapping_and_shows_what_was_just_written() -> None:
    async with shared("a") as (config,):
        await config.set("rate", 5)
        await config.set("limits", {"low": 1, "high": [2, 3]})
        assert config["rate"] == config.get("rate") == 5
        assert ("rate" in config, "other" in config, len(config)) == (True, False, 2)
        assert list(config) == config.keys() == ["rate", "limits"]
        assert dict(config.items()) == {"rate": 5, "limits": {"low": 1, "high": [2, 3]}}
        assert config.get("other") is None
        assert config.get("other", 7) == 7
        with pytest.raises(KeyError, match="other"):
            config["other"]
        assert await config.delete("rate")
        assert not await config.delete("rate")
        assert "rate" not in config
        assert repr(config) == "<SharedMap 'config'>"


async def test_changing_a_value_that_was_read_changes_no_replica() -> None:
    async with shared("a") as (config,):
        await config.set("list", [1])
        config["list"].append(2)
        assert config["list"] == [1]


async def test_what_one_writes_all_read() -> None:
    async with shared("a", "b", "c") as (a, b, c):
        await a.set("rate", 5)
        await b.set("raw", b"\0\xff")
        await until(lambda: all(len(each) == 2 for each in (a, b, c)))
        assert c["rate"] == 5
        assert c["raw"] == b"\0\xff"
        await c.delete("rate")
        await until(lambda: "rate" not in a and "rate" not in b)


async def test_a_latecomer_has_the_snapshot_when_it_is_opened() -> None:
    async with nodes("a", "b") as (a, b):
        first = await a.shared("config")
        for number in range(200):
            await first.set(f"key-{number}", "x" * 1000)
        second = await b.shared("config")
        assert second.is_complete
        assert dict(second.items()) == dict(first.items())


async def test_opening_does_not_wait_for_ever_for_a_snapshot() -> None:
    async with nodes("a", "b") as (a, b):
        await a.shared("config")
        async with asyncio.timeout(2):
            config = await b.shared("config", timeout=0)
        await config.set("k", 1)
        await until(lambda: config.is_complete)
        assert config["k"] == 1


async def test_a_watcher_is_told_what_is_there_and_what_changes() -> None:
    async with nodes("a", "b") as (a, b):
        one, other = await a.shared("config"), await b.shared("config")
        await one.set("rate", 5)
        await one.set("other", 1)
        await until(lambda: len(other) == 2)
        watcher = other.watch("ra")
        fresh = other.watch(initial=False)
        [change] = await take(watcher, 1)
        assert (change.key, change.value, change.deleted, change.by) == ("rate", 5, False, a.id)
        await one.set("rate", 6)
        await take(watcher, 1)
        await one.delete("rate")
        [change] = await take(watcher, 1)
        assert (change.key, change.value, change.deleted, change.by) == ("rate", None, True, a.id)
        assert [each.key for each in await take(fresh, 1)] == ["rate"]


async def test_own_changes_are_watched_too() -> None:
    async with nodes("a") as (a,):
        config = await a.shared("config")
        watcher = config.watch()
        await config.set("k", 1)
        [change] = await take(watcher, 1)
        assert (change.key, change.value, change.by) == ("k", 1, a.id)


async def test_a_watcher_that_lags_is_told_the_latest_and_nothing_of_what_came_and_went() -> None:
    async with shared("a") as (config,):
        await config.set("deleted", 1)
        watcher = config.watch()
        await take(watcher, 1)
        for number in range(100):
            await config.set("k", number)
            await config.set(f"passing-{number}", number)
            await config.delete(f"passing-{number}")
        await config.delete("deleted")
        changes = await take(watcher, 2)
        assert [(each.key, each.value) for each in changes] == [("k", 99), ("deleted", None)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(watcher), 0.02)


async def test_a_watch_ends_with_the_map_after_what_happened_was_read() -> None:
    async with shared("a") as (config,):
        watcher = config.watch()
        await config.set("k", 1)
        await config.close()
        assert [change.key async for change in watcher] == ["k"]


async def test_two_tasks_cannot_read_one_watch() -> None:
    async with shared("a") as (config,):
        watcher = config.watch()
        reading = asyncio.ensure_future(anext(watcher))
        await asyncio.sleep(0)
        with pytest.raises(zmesh.UsageError, match="another task"):
            await anext(watcher)
        await config.set("k", 1)
        assert (await reading).key == "k"


async def test_compare_and_set_looks_at_what_is_here() -> None:
    async with shared("a") as (config,):
        assert await config.compare_and_set("k", ABSENT, 1)
        assert not await config.compare_and_set("k", ABSENT, 2)
        assert not await config.compare_and_set("k", 2, 3)
        assert not await config.compare_and_set("other", None, 3)
        assert await config.compare_and_set("k", 1, (1, 2))
        assert await config.compare_and_set("k", (1, 2), {"x": 1})
        assert config["k"] == {"x": 1}
        await config.set("none", None)
        assert await config.compare_and_set("none", None, 0)


async def test_of_two_who_compare_and_set_at_once_both_are_told_yes_and_one_wins() -> None:
    async with shared("a", "b") as (a, b):
        won = await asyncio.gather(
            a.compare_and_set("leader", ABSENT, "a"), b.compare_and_set("leader", ABSENT, "b")
        )
        assert all(won)
        await until(lambda: a.get("leader") == b.get("leader"))


async def test_two_handles_of_a_map_are_one_replica_until_the_last_is_closed() -> None:
    async with nodes("a") as (a,):
        async with await a.shared("config") as one:
            other = await a.shared("config")
            await one.set("k", 1)
            assert other["k"] == 1
        assert other["k"] == 1
        with pytest.raises(zmesh.Closed):
            one.get("k")
        await one.close()
        await other.close()
        with pytest.raises(zmesh.Closed):
            await other.set("k", 2)
        assert len(await a.shared("config")) == 0


async def test_what_cannot_be_written_is_told_at_once() -> None:
    async with nodes("a", options=SMALL) as (a,):
        config = await a.shared("config")
        for key in ("", 7, "x" * 257, "\ud800"):
            with pytest.raises(InvalidOption):
                await config.set(key, 1)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption):
                await config.delete(key)  # type: ignore[arg-type]
            with pytest.raises(InvalidOption):
                await config.compare_and_set(key, 1, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="size of value"):
            await config.set("k", "x" * 1000)
        with pytest.raises(zmesh.BodyNotEncodable):
            await config.set("k", object())
        with pytest.raises(InvalidOption):
            config.watch(7)  # type: ignore[arg-type]
        for number in range(3):
            await config.set(f"key-{number}", number)
        with pytest.raises(MapFull, match="3 keys"):
            await config.set("another", 1)
        await config.delete("key-0")
        await config.set("another", 1)
        assert len(config) == 3


async def test_what_cannot_be_opened_is_told_at_once() -> None:
    async with nodes("a", options=SMALL) as (a,):
        for name in ("", 7, "x" * 2000):
            with pytest.raises(InvalidOption):
                await a.shared(name)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="timeout"):
            await a.shared("config", timeout="soon")  # type: ignore[arg-type]
        await a.shared("one")
        await a.shared("two")
        with pytest.raises(zmesh.UsageError, match="shares 2 maps"):
            await a.shared("three")
        await a.shared("one")


async def test_a_closed_node_ends_watches_and_refuses_its_maps() -> None:
    async with nodes("a") as (a,):
        config = await a.shared("config")
        watcher = config.watch()
        await a.close()
        assert [change async for change in watcher] == []
        for use in (config.keys, lambda: config.get("k"), config.watch):
            with pytest.raises(zmesh.Closed):
                use()
        with pytest.raises(zmesh.Closed):
            await config.set("k", 1)


async def test_opening_ends_when_the_node_closes_or_the_caller_gives_up() -> None:
    async with nodes("a", "b") as (a, b):
        await a.shared("config")
        opening = asyncio.create_task(b.shared("config", timeout=None))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        assert b.statistics().engine.shared_maps == 0
        opening = asyncio.create_task(b.shared("config", timeout=None))
        await asyncio.sleep(0)
        await b.close()
        with pytest.raises(zmesh.Closed):
            await opening


async def test_what_was_set_just_before_the_node_closes_is_told() -> None:
    async with nodes("a") as (a,):
        kept = await a.shared("config")
        async with Node("b", peers=a.endpoints, mdns=False) as b:
            await b.peers.wait_for(count=1, timeout=5)
            config = await b.shared("config")
            await config.set("k", 1)
        assert kept["k"] == 1


async def test_many_writes_let_other_tasks_run() -> None:
    async with shared("a") as (config,):
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        for number in range(100):
            await config.set("k", number)
        counting.cancel()
        assert turns > 50
