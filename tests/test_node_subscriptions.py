"""Subscriptions on terms between real nodes: filters, replays, drops, and receivers waited for."""

import asyncio

import pytest

import zmesh
from tests.nodes import QUICK, nodes, read
from zmesh import (
    InvalidOption,
    LinkOptions,
    MissingPackage,
    NodeOptions,
    PeersMissing,
    SlowSubscriber,
)
from zmesh.patterns import filters
from zmesh.terms import Policy


async def bodies(subscription: zmesh.Subscription, count: int) -> list[object]:
    return [each.body for each in await asyncio.wait_for(read(subscription, count), 5)]


# Filters


async def test_type_headers_and_content_choose() -> None:
    async with (
        nodes("a", "b") as (a, b),
        b.subscribe("s.*", type="reading") as by_type,
        b.subscribe("s.*", where={"unit": "C", "floor": 1}) as by_all,
        b.subscribe("s.*", where={"unit": "C", "floor": 1}, match="any") as by_any,
        b.subscribe("s.*", content="value > `20` && contains(tags, 'kitchen')") as by_content,
        b.subscribe("last"),
    ):
        await a.peers.wait_for(topic="last", timeout=5)
        published = [
            await a.publish("s.1", {"value": 21, "tags": ["kitchen"]}, type="reading",
                            headers={"unit": "C", "floor": 1}),
            await a.publish("s.2", {"value": 19, "tags": ["kitchen"]}, type="alarm",
                            headers={"unit": "C", "floor": 2}),
            await a.publish("s.3", {"value": 30, "tags": []}, type="alarm", headers={"unit": "F"}),
            await a.publish("s.4", {"value": 30, "tags": ["kitchen"]}),
        ]  # fmt: skip
        for subscription, topics in (
            (by_type, ["s.1"]), (by_all, ["s.1"]), (by_any, ["s.1", "s.2"]),
            (by_content, ["s.1", "s.4"]),
        ):  # fmt: skip
            found = await asyncio.wait_for(read(subscription, len(topics)), 5)
            assert [message.topic for message in found] == topics
            assert len(subscription) == 0
        assert [await each for each in published] == [1, 1, 0, 1]


async def test_type_is_told_to_the_receiver() -> None:
    async with nodes("a") as (a,), a.subscribe("t") as subscription:
        await a.publish("t", 1, type="reading")
        await a.publish("t", 2)
        first, second = await asyncio.wait_for(read(subscription, 2), 5)
        assert (first.type, second.type) == ("reading", None)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"type": ""}, "type"),
        ({"where": {"unit": []}}, "where"),
        ({"where": {"unit": "C"}, "match": "some"}, "match"),
        ({"content": "value >"}, "content"),
        ({"when_full": "later"}, "when_full"),
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"content": "a" * 1020}, "pattern and filter"),
    ],
)
async def test_terms_that_cannot_work_are_refused_by_name(
    options: dict[str, object], named: str
) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption, match=named):
            a.subscribe("t", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"type": 1}, "type"),
        ({"history": 0}, "history"),
        ({"history": 1001}, "history"),
        ({"min_receivers": -1}, "min_receivers"),
        ({"timeout": 1.0}, "timeout"),
        ({"timeout": "soon", "min_receivers": 1}, "timeout"),
        ({"headers": {1: "x"}}, "headers"),
        ({"guarantee": "exactly_once"}, "guarantee"),
        ({"guarantee": ["at_most_once"]}, "guarantee"),
    ],
)
async def test_publication_that_cannot_work_is_refused_by_name(
    options: dict[str, object], named: str
) -> None:
    async with nodes("a") as (a,):
        with pytest.raises(InvalidOption, match=named):
            await a.publish("t", 1, **options)  # type: ignore[arg-type]


async def test_content_without_jmespath_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filters, "HAS_CONTENT", False)
    async with nodes("a") as (a,):
        with pytest.raises(MissingPackage, match=r"zmesh\[content\]"):
            a.subscribe("t", content="value")


# What is guaranteed


@pytest.mark.parametrize("when_full", ["block", "drop_oldest"])
async def test_at_most_once_does_not_come_again_whatever_its_handling_met(
    when_full: Policy,
) -> None:
    async with nodes("a", "b") as (a, b):
        async with b.subscribe("t", settle="manual", when_full=when_full) as subscription:
            receipt = await a.publish("t", 1, guarantee="at_most_once", min_receivers=1, timeout=5)
            assert await asyncio.wait_for(asyncio.ensure_future(receipt), 1) == 0
            await (await asyncio.wait_for(anext(subscription), 5)).fail("cannot do it")
            await a.publish("t", 2)
            second = await asyncio.wait_for(anext(subscription), 5)
            assert second.body == 2
            await second.fail("cannot do it")
            again = await asyncio.wait_for(anext(subscription), 5)
            assert (again.body, again.attempt) == (2, 2)
            await again.accept()
        assert a.statistics().engine.redelivered == 1


async def test_at_most_once_waits_for_no_room_and_counts_what_found_none() -> None:
    options = NodeOptions(link=LinkOptions(queued_messages_max=10))
    async with (
        nodes("a", "b", options=options) as (a, b),
        b.subscribe("t", settle="manual") as subscription,
    ):
        await a.publish("t", 0, min_receivers=1, timeout=5)
        async with asyncio.timeout(1):
            for number in range(1, 100):
                await a.publish("t", number, guarantee="at_most_once")
        came = [await asyncio.wait_for(anext(subscription), 5) for _ in range(10)]
        assert [message.body for message in came] == list(range(10))
        assert a.statistics().engine.missed == 90
        for message in came:
            await message.accept()
        await a.publish("t", "next")  # there is room again
        assert (await asyncio.wait_for(anext(subscription), 5)).body == "next"


# What is kept


async def test_late_joiner_gets_the_last_value_marked_and_then_what_follows() -> None:
    async with nodes("a", "b") as (a, b):
        for value in (20.0, 20.5, 21.0):
            await a.publish("s.kitchen", value, retain=True)
        async with b.subscribe("s.*") as subscription:
            [first] = await asyncio.wait_for(read(subscription, 1), 5)
            assert (first.body, first.retained, first.gap) == (21.0, True, 0)
            await a.publish("s.kitchen", 21.5, retain=True)
            [second] = await asyncio.wait_for(read(subscription, 1), 5)
            assert (second.body, second.retained) == (21.5, False)
        async with b.subscribe("s.*", replay=False) as subscription:
            await a.publish("s.kitchen", 22.0, min_receivers=1, timeout=5)
            assert await bodies(subscription, 1) == [22.0]


async def test_history_is_replayed_and_cleared_by_none() -> None:
    async with nodes("a", "b") as (a, b):
        for value in range(5):
            await a.publish("t", value, history=3)
        async with b.subscribe("t") as subscription:
            assert await bodies(subscription, 3) == [2, 3, 4]
            await a.publish("t", None, retain=True)
            assert await bodies(subscription, 1) == [None]
        assert a.statistics().engine.retained == 0
        async with b.subscribe("t") as subscription:
            await a.publish("t", "after", min_receivers=1, timeout=5)
            assert await bodies(subscription, 1) == ["after"]


async def test_what_is_larger_than_all_that_may_be_kept_is_refused() -> None:
    async with nodes("a", options=NodeOptions(retained_bytes_max=100)) as (a,):
        with pytest.raises(zmesh.BodyTooLarge):
            await a.publish("t", b"x" * 100, retain=True)
        await a.publish("t", b"x" * 100)


# Slow subscribers


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "latest"])
async def test_slow_reader_misses_some_and_is_told(when_full: Policy) -> None:
    published = 3000
    async with (
        nodes("a", "b") as (a, b),
        b.subscribe("t", when_full=when_full, limit=10) as subscription,
    ):
        await a.publish("t", "first", min_receivers=1, timeout=5)
        for number in range(1, published):
            await a.publish("t", number)
        async with asyncio.timeout(10):
            while len(subscription) + subscription.dropped < published:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        messages = await asyncio.wait_for(read(subscription, len(subscription)), 5)
        assert len(messages) + subscription.dropped == published
        told = sum(message.gap for message in messages)
        if when_full == "drop_newest":
            assert [message.body for message in messages[:2]] == ["first", 1]
        else:
            assert messages[-1].body == published - 1
            assert told == subscription.dropped


async def test_too_slow_to_stay_connected() -> None:
    async with (
        nodes("a", "b") as (a, b),
        b.subscribe("t", when_full="disconnect", limit=5) as subscription,
    ):
        await a.publish("t", 0, min_receivers=1, timeout=5)
        for number in range(20):
            await a.publish("t", number)

        async def read_on() -> None:
            async for _ in subscription:
                await asyncio.sleep(0.05)

        with pytest.raises(SlowSubscriber):
            await asyncio.wait_for(read_on(), 5)
        async for event in a.peers.watch():
            if isinstance(event, zmesh.Joined | zmesh.Updated) and not event.peer.topics:
                break


# Receivers that are waited for


async def test_publication_waits_for_its_receivers() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        publishing = asyncio.create_task(a.publish("t", 1, min_receivers=2, timeout=10))
        async with b.subscribe("t") as one:
            await asyncio.sleep(0.05)
            assert not publishing.done()
            async with c.subscribe("t", type="other"):
                await asyncio.sleep(0.05)
                assert not publishing.done(), "a filter that holds it back is no receiver"
            async with a.subscribe("t", when_full="latest") as own:
                assert await bodies(one, 1) == await bodies(own, 1) == [1]
                assert (await publishing).expected == 2


async def test_too_few_receivers_are_an_error_that_names_them() -> None:
    async with nodes("a", "b") as (a, b), b.subscribe("t") as subscription:
        await a.publish("t", 1, min_receivers=1, timeout=5)
        with pytest.raises(PeersMissing, match=r"2 receivers of 't'.*in sight: b"):
            await a.publish("t", 2, min_receivers=2, timeout=0.05)
        assert await bodies(subscription, 1) == [1]
        assert len(subscription) == 0


async def test_waiting_for_receivers_can_be_cancelled() -> None:
    async with nodes("a", options=QUICK) as (a,):
        publishing = asyncio.create_task(a.publish("t", 1, min_receivers=1))
        await asyncio.sleep(0.01)
        publishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await publishing
        async with a.subscribe("t") as subscription:
            await asyncio.sleep(0.01)
            assert len(subscription) == 0
