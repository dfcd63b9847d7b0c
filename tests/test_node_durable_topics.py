"""Publications that are kept: subscriptions go on where they were, in whatever life of either."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.discovery.waiting import until
from tests.nodes import QUICK, read
from tests.test_node_durable import SMALL
from zmesh import (
    InvalidOption,
    JournalFull,
    Message,
    Node,
    Retention,
    Storage,
    Subscription,
    UsageError,
)


@asynccontextmanager
async def life(
    name: str, place: Path | None, *known: Node, retention: Retention | None = None
) -> AsyncIterator[Node]:
    """One life of a node, with a journal where it has a place for one."""
    storage = None
    if place is not None:
        storage = Storage(place / f"{name}.journal", retention=retention or Retention())
    peers = [endpoint for node in known for endpoint in node.endpoints]
    async with Node(name, peers=peers, mdns=False, storage=storage, options=QUICK) as node:
        if known:
            await node.peers.wait_for(count=len(known), timeout=10)
        yield node


@asynccontextmanager
async def reading(
    shop: Node, place: Path | None, pattern: str, **options: Any
) -> AsyncIterator[Subscription]:
    """A subscription in one life of another node."""
    async with (
        life("till", place, shop) as till,
        till.subscribe(pattern, **options) as subscription,
    ):
        yield subscription


async def bodies(subscription: Subscription, count: int) -> list[Any]:
    async with asyncio.timeout(20):
        return [message.body for message in await read(subscription, count)]


async def nothing_comes(subscription: Subscription) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(subscription), 0.3)


async def publish(node: Node, *numbers: int, topic: str = "orders.new") -> None:
    for number in numbers:
        await node.publish(topic, number)


# What is retained


async def test_what_is_retained_outlives_its_publisher(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        for number in range(5):
            await shop.publish("history", number, history=3, headers={"n": number}, key="k")
        await shop.publish("b", "last", retain=True, type="price")
        await shop.publish("b", "now", retain=True, durable=False)
        await shop.publish("gone", 1, retain=True)
        await shop.publish("gone", None, retain=True)
        await shop.publish("brief", 1, retain=True, ttl=0.01)
        await shop.publish("a", 7, retain=True, priority=9)
    await asyncio.sleep(0.02)
    async with (
        life("shop", tmp_path) as shop,
        life("till", None, shop) as till,
        till.subscribe(">") as everything,
    ):
        messages = await asyncio.wait_for(read(everything, 4), 10)
        await nothing_comes(everything)
    assert [(m.topic, m.body) for m in sorted(messages, key=lambda m: m.topic)] == [
        ("a", 7), ("history", 2), ("history", 3), ("history", 4),
    ]  # fmt: skip
    assert all(message.retained for message in messages)
    assert {m.priority for m in messages if m.topic == "a"} == {9}
    assert [(m.headers["n"], m.key) for m in messages if m.topic == "history"] == [
        (2, "k"), (3, "k"), (4, "k"),
    ]  # fmt: skip


async def test_what_replaces_it_after_a_restart_is_what_the_next_life_has(tmp_path: Path) -> None:
    for number in range(3):
        async with life("shop", tmp_path) as shop:
            await shop.publish("price", number, history=2)
    async with life("shop", tmp_path) as shop, shop.subscribe("price") as prices:
        assert await bodies(prices, 2) == [1, 2]
        await nothing_comes(prices)


# Subscriptions with a name


async def test_a_named_subscription_goes_on_where_it_was(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        await publish(shop, -1)  # before there is a subscription
        async with life("till", tmp_path, shop) as till:
            async with till.subscribe("orders.>", name="billing") as orders:
                await shop.peers.wait_for(topic="orders.new", timeout=10)
                await publish(shop, 0, 1, 2)
                assert await bodies(orders, 2) == [0, 1]
            await publish(shop, 3)
            async with till.subscribe("orders.>", name="billing") as again:
                assert await bodies(again, 2) == [2, 3]
        await publish(shop, 4, topic="other")
        await publish(shop, 5, 6)
        async with reading(shop, tmp_path, "orders.>", name="billing") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await publish(shop, 7)
            assert await bodies(orders, 3) == [5, 6, 7]
            await nothing_comes(orders)


async def test_it_remembers_where_it_began_though_nothing_came(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        await publish(shop, 0)
        async with reading(shop, tmp_path, "orders.>", name="billing") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await nothing_comes(orders)
        await publish(shop, 1)
        async with reading(shop, tmp_path, "orders.>", name="billing") as orders:
            assert await bodies(orders, 1) == [1]


async def test_both_sides_come_and_go_and_everything_comes_once_in_order(tmp_path: Path) -> None:
    seen: list[int] = []
    next_number = 0
    async with (
        life("shop", tmp_path) as shop,
        life("till", tmp_path, shop) as till,
        till.subscribe(">", name="all"),
    ):
        await shop.peers.wait_for(topic="orders.new", timeout=10)
    for turn in range(4):
        async with life("shop", tmp_path) as shop:
            await publish(shop, *range(next_number, next_number + 300))
            next_number += 300
            async with reading(shop, tmp_path, ">", name="all") as everything:
                seen += await bodies(everything, 150 + 50 * turn)
    async with (
        life("shop", tmp_path) as shop,
        life("till", tmp_path, shop) as till,
        till.subscribe(">", name="all") as everything,
    ):
        seen += await bodies(everything, next_number - len(seen))
        await nothing_comes(everything)
    assert seen == list(range(next_number))


async def test_it_stays_while_its_publisher_dies_and_returns(tmp_path: Path) -> None:
    async with (
        life("till", tmp_path) as till,
        till.subscribe("orders.>", name="billing") as orders,
    ):
        for first in (0, 10, 20):
            async with life("shop", tmp_path, till) as shop:
                await publish(shop, *range(first, first + 10))
                assert await bodies(orders, 7) == list(range(first * 7 // 10, first * 7 // 10 + 7))
        async with life("shop", tmp_path, till):
            assert await bodies(orders, 9) == list(range(21, 30))
            await nothing_comes(orders)


async def test_what_was_handled_out_of_order_is_not_handled_again(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        async with reading(shop, tmp_path, ">", name="all", settle="manual") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            receipts = [await shop.publish("orders.new", number) for number in range(6)]
            messages = await asyncio.wait_for(read(orders, 6), 10)
            for number in (1, 3, 4):
                await messages[number].accept()
                assert await asyncio.wait_for(receipts[number], 10) == 1
        async with reading(shop, tmp_path, ">", name="all") as orders:
            assert await bodies(orders, 3) == [0, 2, 5]
            await nothing_comes(orders)


async def test_what_fails_too_often_does_not_hold_it_up(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        attempts = []
        async with reading(shop, tmp_path, ">", name="all", settle="manual") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await publish(shop, 0, 1, 2)
            async with asyncio.timeout(10):
                async for message in orders:
                    if message.body == 1:
                        attempts.append(message.attempt)
                        await message.fail("cannot")
                    else:
                        await message.accept()
                    if attempts == [1, 2, 3]:
                        break
            await publish(shop, 3)
            async with asyncio.timeout(10):
                last = await anext(orders)
                assert last.body == 3
                await last.accept()
            await asyncio.sleep(0.2)
        async with reading(shop, tmp_path, ">", name="all") as orders:
            await nothing_comes(orders)


async def test_a_publisher_that_lost_its_journal_begins_anew(tmp_path: Path) -> None:
    async with (
        life("till", tmp_path) as till,
        till.subscribe("orders.>", name="billing", since="first") as orders,
    ):
        async with life("shop", tmp_path, till) as shop:
            await publish(shop, 0, 1)
            assert await bodies(orders, 2) == [0, 1]
        for path in list(tmp_path.glob("shop.journal*")):  # noqa: ASYNC240
            path.unlink()
        async with life("shop", tmp_path, till) as shop:
            await publish(shop, 2)
            assert await bodies(orders, 1) == [2]


async def test_filters_and_wildcards_apply_to_the_log(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        for number in range(6):
            topic = f"orders.{'new' if number % 2 else 'old'}"
            await shop.publish(topic, number, headers={"n": number % 3}, type="order")
        await shop.publish("orders.new", 9, type="other")
        async with (
            life("till", None, shop) as till,
            till.subscribe("orders.*", since="first", where={"n": 0}) as zero,
            till.subscribe("orders.new", since="first", type="order") as new,
        ):
            assert await bodies(zero, 2) == [0, 3]
            assert await bodies(new, 3) == [1, 3, 5]
            await nothing_comes(zero)
            await nothing_comes(new)


async def test_priorities_do_not_matter_to_who_follows(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        for number in range(20):
            await shop.publish("orders.new", number, priority=number % 10)
        async with shop.subscribe(">", since="first") as orders:
            assert await bodies(orders, 20) == list(range(20))


async def test_what_has_outlived_its_time_to_live_is_left_out(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        await shop.publish("orders.new", 0, ttl=0.01)
        await shop.publish("orders.new", 1, ttl=60)
        await asyncio.sleep(0.02)
        async with shop.subscribe(">", since="first") as orders:
            assert await bodies(orders, 1) == [1]


async def test_what_is_not_durable_comes_to_it_while_it_is_there(tmp_path: Path) -> None:
    async with life("shop", None) as shop, life("till", tmp_path, shop) as till:
        async with till.subscribe(">", name="all") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            receipt = await shop.publish("orders.new", 1)
            [message] = await asyncio.wait_for(read(orders, 1), 10)
            assert (message.body, message.position, message.published) == (1, None, None)
        assert await asyncio.wait_for(receipt, 10) == 1


# Receipts


async def test_a_receipt_counts_who_was_live(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop, life("till", tmp_path, shop) as till:
        async with till.subscribe("orders.>") as plain, till.subscribe(">", name="all") as named:
            await shop.peers.wait_for(topic="told.last", timeout=10)
            receipt = await shop.publish("orders.new", 1)
            assert not receipt.done
            assert await bodies(named, 1) == [1]
            assert await bodies(plain, 1) == [1]
            assert await asyncio.wait_for(receipt, 10) == 2
        # It hears a moment later who ended.
        await until(lambda: not shop.peers.select(topic="orders.new"))
        assert await asyncio.wait_for(await shop.publish("orders.new", 2), 10) == 0


async def test_a_slow_named_subscription_slows_nobody(tmp_path: Path) -> None:
    async with (
        life("shop", tmp_path) as shop,
        life("till", tmp_path, shop) as till,
        till.subscribe("orders.>") as plain,
        till.subscribe(">", name="slow") as slow,
    ):
        await shop.peers.wait_for(topic="told.last", timeout=10)
        reading = asyncio.create_task(bodies(plain, 3000))
        async with asyncio.timeout(30):
            for first in range(0, 3000, 100):
                await asyncio.gather(
                    *(shop.publish("orders.new", first + at) for at in range(100))
                )
        assert await reading == list(range(3000))
        assert len(slow) <= QUICK.log_reader_messages
        assert await bodies(slow, 3000) == list(range(3000))


# Where to begin


async def test_since_says_where_to_begin(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        await publish(shop, 0, 1)
        await asyncio.sleep(0.1)
        between = datetime.now(UTC)
        await asyncio.sleep(0.1)
        await publish(shop, 2, 3)
        async with life("till", None, shop) as till:
            messages = await _from_first(till)
            assert [message.body for message in messages] == [0, 1, 2, 3]
            positions = [message.position or 0 for message in messages]
            assert 0 < positions[0] < positions[1] < positions[2] < positions[3]
            times = [message.published for message in messages]
            assert times[1] is not None
            assert times[2] is not None
            assert times[1] < between < times[2]
            seconds = (datetime.now(UTC) - between).total_seconds()
            for since, wanted in (
                (between, [2, 3]), (seconds, [2, 3]), (3600, [0, 1, 2, 3]),
                ({shop.id: positions[2]}, [3]), ({"0" * 32: 7}, [0, 1, 2, 3]),
                (between - timedelta(days=1), [0, 1, 2, 3]),
            ):  # fmt: skip
                async with till.subscribe(">", since=since) as orders:
                    assert await bodies(orders, len(wanted)) == wanted


async def _from_first(till: Node) -> list[Message]:
    async with till.subscribe(">", since="first") as orders:
        return await asyncio.wait_for(read(orders, 4), 10)


async def test_who_began_in_the_past_goes_on_live(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop:
        await publish(shop, 0)
        async with reading(shop, None, ">", since="first") as orders:
            assert await bodies(orders, 1) == [0]
            for number in range(1, 4):
                receipt = await shop.publish("orders.new", number)
                assert await bodies(orders, 1) == [number]
                assert await asyncio.wait_for(receipt, 10) == 1


@pytest.mark.parametrize(
    "since",
    ["last", datetime(2026, 1, 1), -1, float("nan"), {"shop": 1}, {"0" * 32: -1}, True],  # noqa: DTZ001
)
async def test_since_that_says_nothing_is_refused(tmp_path: Path, since: Any) -> None:
    async with life("shop", tmp_path) as shop:
        with pytest.raises(InvalidOption):
            shop.subscribe(">", since=since)


@pytest.mark.parametrize("bounds", [{"count": 0}, {"age": -1}, {"size": float("nan")}])
def test_a_retention_that_keeps_nothing_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption):
        Retention(**bounds)


async def test_a_full_journal_refuses_a_publication_without_a_trace(tmp_path: Path) -> None:
    storage = Storage(tmp_path / "shop.journal", options=SMALL)
    async with (
        Node("shop", mdns=False, storage=storage, options=QUICK) as shop,
        shop.subscribe(">") as plain,
        shop.subscribe(">", since="first") as follower,
    ):
        stored = 0
        with pytest.raises(JournalFull):  # noqa: PT012  # how many there is room for is its own affair
            for stored in range(1000):
                await shop.publish("orders.new", bytes(20_000), headers={"n": stored}, retain=True)
        for subscription in (plain, follower):
            messages = await asyncio.wait_for(read(subscription, stored), 20)
            assert [message.headers["n"] for message in messages] == list(range(stored))
            await nothing_comes(subscription)
        assert shop.statistics().engine.logged == stored
    async with (
        Node("shop", mdns=False, storage=storage, options=QUICK) as shop,
        shop.subscribe(">") as prices,
    ):
        [message] = await asyncio.wait_for(read(prices, 1), 10)
        assert (message.headers["n"], message.retained) == (stored - 1, True)


async def test_many_are_on_disk_before_they_are_published(tmp_path: Path) -> None:
    async with life("shop", tmp_path) as shop, shop.subscribe(">") as plain:
        receipt = await shop.publish_many("orders.new", range(300))
        assert shop.statistics().engine.logged == 300
        assert await bodies(plain, 300) == list(range(300))
        assert await asyncio.wait_for(receipt, 20) == 300
    async with (
        life("shop", tmp_path) as shop,
        reading(shop, tmp_path, ">", since="first") as follower,
    ):
        assert await bodies(follower, 300) == list(range(300))


@pytest.mark.parametrize(
    "many",
    [[bytes(20_000)] * 100, [*[bytes(1000)] * 520, *[b""] * 80]],  # the last ones would fit
    ids=["large", "large and small"],
)
async def test_of_many_that_find_no_room_on_disk_nothing_is_published(
    tmp_path: Path, many: list[bytes]
) -> None:
    storage = Storage(tmp_path / "shop.journal", options=SMALL)
    async with (
        Node("shop", mdns=False, storage=storage, options=QUICK) as shop,
        shop.subscribe(">") as plain,
    ):
        with pytest.raises(JournalFull):
            await shop.publish_many("orders.new", many)
        assert shop.statistics().engine.logged == 0
        assert await asyncio.wait_for(read_one(shop, plain), 20) == "small"
        await asyncio.wait_for(shop.flush(), 20)


async def read_one(shop: Node, plain: Subscription) -> Any:
    await shop.publish("orders.new", "small")
    [message] = await read(plain, 1)
    return message.body


async def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    async with life("shop", None) as shop:
        with pytest.raises(UsageError):
            shop.subscribe(">", name="all")
        with pytest.raises(UsageError):
            await shop.publish("orders.new", 1, durable=True)
    async with life("shop", tmp_path) as shop:
        with pytest.raises(InvalidOption):
            shop.subscribe(">", name="all", when_full="latest")
        with pytest.raises(InvalidOption):
            shop.subscribe(">", name="")
        with pytest.raises(UsageError):
            await shop.publish("orders.new", 1, durable=True, guarantee="at_most_once")
        async with shop.subscribe(">", name="all"):
            with pytest.raises(UsageError):
                await shop.subscribe(">", name="all").__aenter__()


# Subscriptions without a name


async def test_a_plain_subscription_gets_what_it_missed_of_a_publisher_that_returns(
    tmp_path: Path,
) -> None:
    async with life("till", None) as till, till.subscribe("orders.>", settle="manual") as orders:
        async with life("shop", tmp_path, till) as shop:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await publish(shop, 0, 1, 2)
            messages = await asyncio.wait_for(read(orders, 3), 10)
            await messages[0].accept()
            await asyncio.sleep(0.1)
        async with life("shop", tmp_path) as shop:
            await publish(shop, 3)  # while nobody is there
        async with (
            till.subscribe("orders.>") as later,
            life("shop", tmp_path, till) as shop,
        ):
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await messages[1].accept()
            await messages[2].accept()
            for number in (3, 4):
                if number == 4:
                    await publish(shop, 4)
                [message] = await asyncio.wait_for(read(orders, 1), 10)
                assert message.body == number
                await message.accept()
            await nothing_comes(orders)
            assert await bodies(later, 1) == [4]


# Retention


async def kept(node: Node) -> list[Any]:
    """Return what is in the log."""
    found: list[Any] = []
    async with node.subscribe("orders.>", since="first") as orders:
        try:
            while True:
                found.append((await asyncio.wait_for(anext(orders), 0.2)).body)
        except TimeoutError:
            return found


async def kept_until(node: Node, is_right: Callable[[list[Any]], bool]) -> list[Any]:
    """Return what is in the log, once it is so."""
    async with asyncio.timeout(20):
        while not is_right(found := await kept(node)):
            pass
    return found


async def test_no_more_are_kept_than_the_count(tmp_path: Path) -> None:
    async with life("shop", tmp_path, retention=Retention(count=100)) as shop:
        await publish(shop, *range(400))
        found = await kept_until(shop, lambda bodies: len(bodies) <= 101)
        assert len(found) >= 100
        assert found == list(range(400 - len(found), 400))
    async with life("shop", tmp_path, retention=Retention(count=10)) as shop:
        await publish(shop, 400)
        await kept_until(shop, lambda bodies: bodies == list(range(391, 401)))


async def test_no_more_are_kept_than_the_size(tmp_path: Path) -> None:
    retention = Retention(size=100_000)
    async with life("shop", tmp_path, retention=retention) as shop:
        for _ in range(100):
            await shop.publish("orders.new", bytes(5000))
        found = await kept_until(shop, lambda bodies: len(bodies) <= 21)
        assert len(found) >= 19


async def test_none_are_kept_beyond_their_age(tmp_path: Path) -> None:
    async with life("shop", tmp_path, retention=Retention(age=1.0)) as shop:
        await publish(shop, 0, 1)
        await kept_until(shop, lambda bodies: not bodies)
        await publish(shop, 2)
        assert await kept(shop) == [2]


async def test_who_comes_too_late_is_told_how_many_are_gone(tmp_path: Path) -> None:
    async with life("shop", tmp_path, retention=Retention(count=100)) as shop:
        async with reading(shop, tmp_path, ">", name="all") as orders:
            await shop.peers.wait_for(topic="orders.new", timeout=10)
            await publish(shop, 0)
            assert await bodies(orders, 1) == [0]
        await publish(shop, *range(1, 400))
        left = len(await kept_until(shop, lambda bodies: len(bodies) <= 101))
        async with reading(shop, tmp_path, ">", name="all") as orders:
            messages = await asyncio.wait_for(read(orders, left), 10)
            assert [message.body for message in messages] == list(range(400 - left, 400))
            assert [message.gap for message in messages] == [399 - left] + [0] * (left - 1)
            assert orders.dropped == 399 - left


# All kinds of subscriptions side by side


async def test_each_subscription_of_a_node_gets_everything_once(tmp_path: Path) -> None:
    async with (
        life("shop", tmp_path) as shop,
        life("till", tmp_path, shop) as till,
        till.subscribe("orders.*", when_full="drop_oldest") as lossy,
        till.subscribe("orders.>", name="billing", since="first") as named,
    ):
        # Each is told in turn, so that the first is known when the second is.
        await shop.peers.wait_for(topic="orders.new", timeout=10)
        await publish(shop, *range(20))
        assert await bodies(named, 20) == list(range(20))
        assert await bodies(lossy, 20) == list(range(20))
        async with till.subscribe("orders.new") as plain, till.subscribe("plain.new"):
            await shop.peers.wait_for(topic="plain.new", timeout=10)
            await publish(shop, *range(20, 40))
            assert await bodies(named, 20) == list(range(20, 40))
            assert await bodies(lossy, 20) == list(range(20, 40))
            assert await bodies(plain, 20) == list(range(20, 40))
            for subscription in (named, lossy, plain):
                await nothing_comes(subscription)


async def test_who_joins_late_gets_what_is_retained_though_the_node_is_further(
    tmp_path: Path,
) -> None:
    async with (
        life("shop", tmp_path) as shop,
        life("till", None, shop) as till,
        till.subscribe("other") as other,
    ):
        await shop.peers.wait_for(topic="other", timeout=10)
        await shop.publish("price", 5, retain=True)
        await publish(shop, 1, 2, topic="other")
        assert await bodies(other, 2) == [1, 2]
        async with till.subscribe("price") as prices:
            assert await bodies(prices, 1) == [5]


async def test_many_keep_their_order_where_some_wait_for_room_in_the_journal(
    tmp_path: Path,
) -> None:
    storage = Storage(
        tmp_path / "shop.journal",
        when_full="wait",
        options=SMALL,
        retention=Retention(size=100_000),
    )
    # More than one turn takes; the last ones are small, and would fit.
    many = [number.to_bytes(4) + bytes(1000 if number < 520 else 0) for number in range(600)]
    async with (
        Node("shop", mdns=False, storage=storage, options=QUICK) as shop,
        reading(shop, None, "orders.*", since="first") as subscription,
    ):
        await shop.peers.wait_for(topic="orders.new", timeout=10)
        publishing = asyncio.create_task(shop.publish_many("orders.new", many))
        assert await bodies(subscription, len(many)) == many
        receipt = await asyncio.wait_for(publishing, 20)
        await asyncio.wait_for(receipt.outcome(), 10)
        assert receipt.accepted == len(many)
