"""Publications and subscriptions between real nodes."""

import asyncio

import pytest

from tests.nodes import nodes, read
from zmesh import BodyNotEncodable, InvalidOption, Rejected, UsageError


async def test_publication_reaches_every_subscriber_and_its_receipt_counts_them() -> None:
    async with (
        nodes("a", "b", "c") as (a, b, c),
        b.subscribe("sensors.*.temp") as first,
        c.subscribe("sensors.>") as second,
        a.subscribe("sensors.kitchen.temp") as own,
    ):
        await a.peers.wait_for(topic="sensors.kitchen.temp", count=2, timeout=5)
        receipt = await a.publish("sensors.kitchen.temp", 21.5, headers={"unit": "C"})
        for subscription in (first, second, own):
            [message] = await asyncio.wait_for(read(subscription, 1), 5)
            assert (message.topic, message.body) == ("sensors.kitchen.temp", 21.5)
            assert (message.sender, message.headers) == ("a", {"unit": "C"})
        assert await receipt == 3


async def test_publication_nobody_wants_is_accepted_by_nobody() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("other"):
        assert await (await a.publish("topic", 1)) == 0


async def test_publications_keep_their_order() -> None:
    async with nodes("a", "b") as (a, b):
        async with b.subscribe(">") as everything:
            await a.peers.wait_for(topic="x", timeout=5)
            for number in range(500):
                await a.publish(f"topic.{number % 3}", number)
            messages = await asyncio.wait_for(read(everything, 500), 10)
            assert [message.body for message in messages] == list(range(500))
        await a.flush()


async def test_several_subscriptions_of_a_node_all_get_it_and_it_settles_once() -> None:
    async with (
        nodes("a", "b") as (a, b),
        b.subscribe("a.*") as first,
        b.subscribe("*.b") as second,
    ):
        await a.peers.wait_for(topic="a.b", timeout=5)
        receipt = await a.publish("a.b", 1)
        await asyncio.wait_for(read(first, 1), 5)
        await asyncio.sleep(0.05)
        assert not receipt.done
        await asyncio.wait_for(read(second, 1), 5)
        assert await receipt == 1


async def test_rejection_by_a_subscriber_reaches_the_publisher() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t", settle="manual") as subscription:
        await a.peers.wait_for(topic="t", timeout=5)
        receipt = await a.publish("t", 1)
        await (await asyncio.wait_for(anext(subscription), 5)).reject("not mine")
        with pytest.raises(Rejected, match="not mine"):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)


async def test_publication_given_back_comes_again() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t") as subscription:
        await a.peers.wait_for(topic="t", timeout=5)
        receipt = await a.publish("t", 1)

        async def fail() -> None:
            async for _ in subscription:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(fail(), 5)
        [message] = await asyncio.wait_for(read(subscription, 1), 5)
        assert message.attempt == 2
        assert await receipt == 1


async def test_ended_subscription_holds_up_nobody() -> None:
    async with nodes("a", "b") as (a, b):
        async with b.subscribe("t"):
            await a.peers.wait_for(topic="t", timeout=5)
            receipts = [await a.publish("t", number) for number in range(20)]
            await asyncio.sleep(0.05)
        async with asyncio.timeout(5):
            for receipt in receipts:
                await receipt


async def test_joining_and_publishing_raced_loses_nothing_that_was_counted() -> None:
    async with nodes("a", "b") as (a, b):
        for _ in range(50):
            async with b.subscribe("race") as subscription, asyncio.timeout(5):
                receipt = await a.publish("race", 1)
                await asyncio.sleep(0.001)
                while receipt.done:  # nobody: the subscription was not known yet
                    receipt = await a.publish("race", 1)
                    await asyncio.sleep(0.001)
                assert await read(subscription, 1)
                assert await receipt == 1


@pytest.mark.parametrize("topic", ["", "a..b", "a.*", "a.>", ".a", "x" * 2000])
async def test_topic_that_cannot_be_published_to_is_refused(topic: str) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption, match="topic"):
            await a.publish(topic, 1)


@pytest.mark.parametrize("pattern", ["", "a..b", "a*", ">.a", "a.>b"])
async def test_pattern_that_cannot_be_subscribed_to_is_refused(pattern: str) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption, match="pattern"):
            a.subscribe(pattern)


async def test_subscription_is_read_inside_its_block() -> None:
    async with nodes("a") as (a,):
        subscription = a.subscribe("t")
        with pytest.raises(UsageError):
            await anext(subscription)
        with pytest.raises(UsageError):
            async for _ in subscription:
                pass
        async with subscription:
            await a.publish("t", 1)
            assert [message.body for message in await read(subscription, 1)] == [1]
        assert [message async for message in subscription] == []


# Many at once


async def test_many_are_published_to_every_subscriber_in_order_under_one_receipt() -> None:
    async with (
        nodes("a", "b", "c") as (a, b, c),
        b.subscribe("t.*") as first,
        c.subscribe("t.x") as second,
        a.subscribe("t.x") as own,
    ):
        await a.peers.wait_for(topic="t.x", count=2, timeout=5)
        headers = {"unit": "C"}
        receipt = await a.publish_many("t.x", range(3000), headers=headers, type="reading")
        single = await a.publish("t.x", "after them")
        for subscription in (first, second, own):
            messages = await asyncio.wait_for(read(subscription, 3001), 20)
            assert [message.body for message in messages] == [*range(3000), "after them"]
            assert (messages[7].headers, messages[7].type, messages[7].topic) == (
                headers, "reading", "t.x",
            )  # fmt: skip
        assert await receipt == 9000
        assert await single == 3


async def test_many_of_nothing_and_many_for_nobody_are_accepted_by_nobody() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("other"):
        assert await (await a.publish_many("t", [])) == 0
        assert await (await a.publish_many("t", [b"x"] * 100)) == 0


async def test_many_at_most_once_come_and_nobody_counts_them() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t") as subscription:
        await a.peers.wait_for(topic="t", timeout=5)
        receipt = await a.publish_many("t", [b"x"] * 100, guarantee="at_most_once")
        assert await receipt == 0
        assert len(await asyncio.wait_for(read(subscription, 100), 5)) == 100


async def test_one_of_many_that_cannot_be_published_is_told() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t"):
        with pytest.raises(InvalidOption):
            await a.publish_many("t", b"one body")
        with pytest.raises(InvalidOption):
            await a.publish_many("a..b", [1])
        with pytest.raises(InvalidOption):
            await a.publish_many("t", [1], guarantee="perhaps")  # type: ignore[arg-type]
        with pytest.raises(BodyNotEncodable):
            await a.publish_many("t", [1, object()])


async def test_rejection_of_one_of_many_is_told_by_their_receipt() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t", settle="manual") as subscription:
        await a.peers.wait_for(topic="t", timeout=5)
        receipt = await a.publish_many("t", range(20))
        for number in range(20):
            message = await asyncio.wait_for(anext(subscription), 5)
            await (message.reject("not mine") if number == 7 else message.accept())
        with pytest.raises(Rejected, match="not mine"):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)
        assert (receipt.accepted, len(receipt.failures)) == (19, 1)


async def test_publications_of_one_turn_each_have_their_own_outcome() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t", settle="manual") as subscription:
        await a.peers.wait_for(topic="t", timeout=5)
        receipts = [await a.publish("t", number) for number in range(40)]
        for number in range(40):
            message = await asyncio.wait_for(anext(subscription), 5)
            await (message.reject("odd") if number % 2 else message.accept())
        for number, receipt in enumerate(receipts):
            outcome = asyncio.ensure_future(receipt)
            if number % 2:
                with pytest.raises(Rejected, match="odd"):
                    await asyncio.wait_for(outcome, 5)
            else:
                assert await asyncio.wait_for(outcome, 5) == 1
