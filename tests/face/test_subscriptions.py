"""Subscriptions: who gets what, and when a publication counts as accepted."""

import asyncio

import pytest

from tests.face.support import Verdicts, raw_delivery
from zmesh.errors import Closed, SlowSubscriber, UsageError
from zmesh.events import Event, Subscribe, Unsubscribe
from zmesh.face.inbox import DeliveryQueue, Settle
from zmesh.face.lossy import LossyQueue
from zmesh.face.subscriptions import Subscription, Subscriptions
from zmesh.message import Outcome
from zmesh.terms import Terms, WhenFull

ACCEPTED, MODIFIED, RELEASED = Outcome.ACCEPTED, Outcome.MODIFIED, Outcome.RELEASED


class Bench:
    """A registry of subscriptions that notes the commands it gives."""

    def __init__(self) -> None:
        self.commands: list[Event] = []
        self.verdicts = Verdicts()
        self.changes = 0
        self.registry = Subscriptions(
            self.commands.append, self.verdicts.settlements, 3, self._on_changed
        )

    def _on_changed(self) -> None:
        self.changes += 1

    def subscription(self, pattern: str = "a.*", settle: Settle = "auto") -> Subscription:
        queue = DeliveryQueue(asyncio.get_running_loop(), self.verdicts.settlements)
        return Subscription(self.registry, queue, pattern, settle)

    def lossy(self, when_full: str, limit: int = 2) -> Subscription:
        terms = Terms(when_full=WhenFull(when_full), limit=limit)
        queue = LossyQueue(
            asyncio.get_running_loop(), self.verdicts.settlements, "a.*", terms.when_full, limit
        )
        return Subscription(self.registry, queue, "a.*", "auto", terms)

    def deliver(self, first_seq: int, tokens: list[tuple[int, ...]]) -> None:
        self.registry.deliver([(raw_delivery(first_seq, len(tokens)), tokens)])


async def read(subscription: Subscription, count: int) -> list[int]:
    indexes = []
    async for message in subscription:
        indexes.append(message.index)
        if len(indexes) == count:
            break
    return indexes


async def test_block_subscribes_and_unsubscribes() -> None:
    bench = Bench()
    async with bench.subscription("sensors.>"):
        assert bench.commands == [Subscribe(1, "sensors.>")]
    assert bench.commands[1:] == [Unsubscribe(1)]
    assert len(bench.registry) == 0


async def test_subscription_is_entered_once() -> None:
    bench = Bench()
    subscription = bench.subscription()
    async with subscription:
        pass
    with pytest.raises(UsageError):
        await subscription.__aenter__()


async def test_publications_go_to_the_subscriptions_of_their_tokens() -> None:
    bench = Bench()
    async with bench.subscription() as first, bench.subscription() as second:
        bench.deliver(1, [(1,), (1,), (2,), (1,)])
        assert await read(first, 3) == [0, 1, 3]
        assert await read(second, 1) == [2]
    settled = sorted(bench.verdicts.take())
    assert settled[0][0] == 1
    assert sum(last - first + 1 for first, last, _ in settled) == 4
    assert {outcome for _, _, outcome in settled} == {ACCEPTED}


async def test_publication_for_several_is_accepted_when_all_have() -> None:
    bench = Bench()
    async with bench.subscription() as first, bench.subscription() as second:
        bench.deliver(1, [(1, 2)] * 3)
        await read(first, 3)
        assert bench.verdicts.take() == []
        await read(second, 2)
        assert bench.verdicts.take() == [(1, 2, ACCEPTED)]
        await read(second, 1)
        assert bench.verdicts.take() == [(3, 3, ACCEPTED)]


async def test_gravest_verdict_of_several_counts() -> None:
    bench = Bench()
    async with bench.subscription() as first, bench.subscription(settle="manual") as second:
        bench.deliver(1, [(1, 2)])

        async def fail() -> None:
            async for _ in first:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        async for message in second:
            await message.accept()
            break
    assert bench.verdicts.take() == [(1, 1, MODIFIED)]


async def test_closed_subscription_leaves_the_verdict_to_the_others() -> None:
    bench = Bench()
    async with bench.subscription() as staying:
        async with bench.subscription():
            bench.deliver(1, [(1, 2)])
        assert bench.verdicts.take() == []
        await read(staying, 1)
    assert bench.verdicts.take() == [(1, 1, ACCEPTED)]


async def test_what_was_not_read_is_given_back() -> None:
    bench = Bench()
    async with bench.subscription() as subscription:
        bench.deliver(1, [(1,)] * 5)
        await read(subscription, 2)
    assert bench.verdicts.take() == [(1, 2, ACCEPTED), (3, 5, RELEASED)]


async def test_what_comes_after_the_end_is_given_back() -> None:
    bench = Bench()
    async with bench.subscription():
        pass
    bench.deliver(1, [(1,), (1,)])
    assert bench.verdicts.take() == [(1, 2, RELEASED)]


async def test_single_message_is_accepted_as_it_is_taken_however_the_block_ends() -> None:
    bench = Bench()

    async def fail() -> None:
        async with bench.subscription() as subscription:
            bench.deliver(1, [(1,), (1,)])
            await anext(subscription)
            assert bench.verdicts.take() == [(1, 1, ACCEPTED)]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert bench.verdicts.take() == [(2, 2, RELEASED)]


async def test_block_entered_after_the_node_closed_is_refused() -> None:
    bench = Bench()
    subscription = bench.subscription()
    bench.registry.close()
    with pytest.raises(Closed):
        await subscription.__aenter__()
    assert bench.commands == []


async def test_one_block_too_many_is_refused() -> None:
    bench = Bench()
    subscriptions = [bench.subscription() for _ in range(4)]
    for subscription in subscriptions[:3]:
        await subscription.__aenter__()
    with pytest.raises(UsageError, match="3 subscriptions already"):
        await subscriptions[3].__aenter__()
    await subscriptions[0].__aexit__(None, None, None)
    async with bench.subscription():
        assert len(bench.registry) == 3


async def test_failure_ends_all_loops_with_closed() -> None:
    bench = Bench()
    async with bench.subscription() as subscription:
        task = asyncio.create_task(read(subscription, 1))
        await asyncio.sleep(0)
        bench.registry.close("node")
        with pytest.raises(Closed):
            await task


async def test_dropped_by_one_it_is_for_the_other_to_decide() -> None:
    bench = Bench()
    async with bench.lossy("drop_oldest") as dropping, bench.subscription() as all_of_it:
        bench.deliver(1, [(1, 2)] * 5)
        assert (len(dropping), dropping.dropped) == (2, 3)
        assert bench.verdicts.take() == []
        await read(all_of_it, 5)
        assert bench.verdicts.take() == [(1, 3, ACCEPTED)]
        await read(dropping, 2)
    assert all_of_it.dropped == 0


async def test_subscriptions_are_told_what_their_publishers_dropped() -> None:
    bench = Bench()
    async with bench.lossy("latest") as one, bench.subscription() as other:
        bench.registry.missed([(1, 3), (2, 4), (7, 5)])
        assert (one.dropped, other.dropped) == (3, 0)


async def test_read_too_slowly_it_ends_and_asks_for_nothing_more() -> None:
    bench = Bench()
    async with bench.lossy("disconnect") as subscription:
        bench.deliver(1, [(1,)] * 3)
        assert Unsubscribe(1) in bench.commands
        assert len(bench.registry) == 0
        with pytest.raises(SlowSubscriber):
            await anext(subscription)
    assert bench.commands.count(Unsubscribe(1)) == 1


async def test_one_that_begins_is_told_to_those_who_wait_for_receivers() -> None:
    bench = Bench()
    async with bench.subscription():
        assert bench.changes == 1
