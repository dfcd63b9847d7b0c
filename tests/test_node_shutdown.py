"""What docs/shutdown.md says is kept and lost when a node leaves."""

import asyncio

import pytest

from tests.nodes import nodes, read
from zmesh import Closed, Message, Node, PeerLost


class Slow:
    """A service that waits to be let go, and tells when it begins and is cancelled."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _: Message) -> str:
        self.begun.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "slow"


async def work(_: Message) -> str:
    return "other"


async def test_request_being_handled_goes_to_another_provider_when_the_node_closes() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        slow = Slow()
        b.service("work")(slow)
        await a.peers.wait_for(service="work", timeout=5)
        call = asyncio.create_task(a.call("work", timeout=10))
        await slow.begun.wait()
        c.service("work")(work)
        await a.peers.wait_for(service="work", count=2, timeout=5)
        report = await b.close()
        assert report.unsettled_in == 1
        assert slow.cancelled.is_set()
        assert await call == "other"


async def test_requests_that_wait_go_to_another_provider_when_a_drain_begins() -> None:
    async with nodes("a", "b", "c") as (a, b, c):
        slow = Slow()
        b.service("work", concurrency=1)(slow)
        await a.peers.wait_for(service="work", timeout=5)
        calls = [asyncio.create_task(a.call("work", timeout=10)) for _ in range(3)]
        await slow.begun.wait()
        await asyncio.sleep(0.05)
        c.service("work")(work)
        await a.peers.wait_for(service="work", count=2, timeout=5)
        closing = asyncio.create_task(b.close(drain=10))
        done, [handled] = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION, timeout=1)
        assert {call.result() for call in done} == {"other"}
        slow.gate.set()
        assert await handled == "slow"
        assert (await closing).unsettled_in == 0


async def test_call_of_a_node_that_closes_raises_and_its_handler_finishes() -> None:
    async with nodes("a", "b") as (a, b):
        slow = Slow()
        b.service("work")(slow)
        await a.peers.wait_for(service="work", timeout=5)
        call = asyncio.create_task(a.call("work", timeout=10))
        await slow.begun.wait()
        await a.close()
        with pytest.raises(Closed):
            await call
        await asyncio.sleep(0.1)
        slow.gate.set()
        assert (await b.close(drain=5)).unsettled_in == 0
        assert not slow.cancelled.is_set()


async def test_message_in_hand_when_a_drain_begins_is_handled_and_accepted() -> None:
    async with nodes("a", "b") as (a, b):
        receipts = [await a.post("b", number) for number in range(3)]
        taken, gate = asyncio.Event(), asyncio.Event()
        handled = []

        async def handle() -> None:
            async for message in b.inbox():
                taken.set()
                await gate.wait()
                handled.append(message.body)

        handling = asyncio.create_task(handle())
        await taken.wait()
        await asyncio.sleep(0.05)
        closing = asyncio.create_task(b.close(drain=10))
        await asyncio.sleep(0.05)
        gate.set()
        await handling
        report = await closing
        first, *others = await asyncio.gather(*receipts, return_exceptions=True)
        assert (handled, first) == ([0], 1)
        assert [type(other) for other in others] == [PeerLost, PeerLost]
        assert report.unsettled_in == 0


@pytest.mark.parametrize("drain", [None, 5.0])
async def test_senders_of_what_nobody_reads_are_told(drain: float | None) -> None:
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 1))
        await a.send("b", "read", timeout=5)
        await reading
        receipt = await a.post_many("b", range(5))
        await asyncio.sleep(0.05)
        await asyncio.wait_for(b.close(drain=drain), 4)
        with pytest.raises(PeerLost):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 10)
        assert len(receipt.failures) == 5


@pytest.mark.parametrize("drain", [None, 0.1])
async def test_sender_of_what_a_loop_has_in_hand_is_told(drain: float | None) -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", 1)
        loop = aiter(b.inbox())
        await asyncio.wait_for(anext(loop), 5)
        report = await b.close(drain=drain)
        assert report.unsettled_in == 1
        with pytest.raises(PeerLost):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 10)


async def test_single_message_needs_no_word_before_the_block_ends() -> None:
    async with nodes("a") as (a,):
        async with Node("b", peers=a.endpoints, mdns=False) as b:
            await a.peers.wait_for(name="b", timeout=5)
            receipt = await a.post("b", 1)
            message = await asyncio.wait_for(anext(b.inbox()), 5)
        assert message.body == 1
        assert await asyncio.wait_for(asyncio.ensure_future(receipt), 5) == 1
