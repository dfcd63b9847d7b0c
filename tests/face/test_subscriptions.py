"""Subscriptions: who gets what, and when a publication counts as accepted."""

import asyncio

import pytest

from tests.face.support import Verdicts, raw_delivery
from zmesh.errors import Closed, UsageError
from zmesh.events import Event, Subscribe, Unsubscribe
from zmesh.face.inbox import DeliveryQueue, Settle
from zmesh.face.subscriptions import Subscription, Subscriptions
from zmesh.message import Outcome

ACCEPTED, MODIFIED, RELEASED = Outcome.ACCEPTED, Outcome.MODIFIED, Outcome.RELEASED


class Bench:
    """A registry of subscriptions that notes the commands it gives."""

    def __init__(self) -> None:
        self.commands: list[Event] = []
        self.verdicts = Verdicts()
        self.registry = Subscriptions(self.commands.append, self.verdicts.settlements, 3)

    def subscription(self, pattern: str = "a.*", settle: Settle = "auto") -> Subscription:
        queue = DeliveryQueue(asyncio.get_running_loop(), self.verdicts.settlements)
        return Subscription(self.registry, queue, pattern, settle)

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
