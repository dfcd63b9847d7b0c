"""Direct messages between real nodes: outcomes, errors, order and room."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from tests.nodes import QUICK, nodes, read
from zmesh import (
    AmbiguousPeer,
    Backpressure,
    BodyNotEncodable,
    BodyTooLarge,
    DeadLettered,
    DeliveryTimeout,
    Expired,
    FailureKind,
    InvalidOption,
    LinkOptions,
    Message,
    Node,
    NodeOptions,
    PeerLost,
    PeerUnknown,
    Receipt,
    Rejected,
)

NARROW = NodeOptions(redeliver_min=0.01, link=LinkOptions(queued_messages_max=50))


async def test_send_returns_once_the_application_accepted() -> None:
    async with nodes("a", "b") as (a, b):
        task = asyncio.create_task(a.send("b", {"job": 7}))
        loop = aiter(b.inbox())
        message = await anext(loop)
        assert (message.body, message.sender, message.sender_id) == ({"job": 7}, "a", a.id)
        await asyncio.sleep(0.05)
        assert not task.done()
        asking = asyncio.ensure_future(anext(loop))
        await asyncio.wait_for(task, 5)
        asking.cancel()


async def test_peer_is_addressed_by_name_id_or_itself() -> None:
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 3))
        [peer] = a.peers
        for to in ("b", b.id, peer):
            await a.send(to, None, timeout=5)
        await reading


async def test_node_sends_to_itself() -> None:
    async with nodes("a") as (a,):
        reading = asyncio.create_task(read(a.inbox(), 1))
        await a.send("a", "to me", timeout=5)
        assert (await reading)[0].body == "to me"


async def test_options_arrive() -> None:
    async with nodes("a", "b") as (a, b):
        await a.post("b", b"raw", headers={"unit": "C"}, priority=9, key="k", ttl=60)
        [message] = await read(b.inbox(), 1)
        assert message.body == b"raw"
        assert message.headers == {"unit": "C"}
        assert (message.priority, message.key, message.attempt) == (9, "k", 1)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
async def test_body_of_any_size_arrives_whole(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + bytes(size % 256)
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 1))
        await a.send("b", body, timeout=20)
        assert (await reading)[0].body == body


async def test_many_arrive_in_order_under_one_receipt() -> None:
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 5000))
        receipt = await a.post_many("b", range(5000))
        assert await receipt == 5000
        assert [message.body for message in await reading] == list(range(5000))


async def test_posts_of_one_priority_keep_their_order() -> None:
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 1000))
        for number in range(500):
            a.post_nowait("b", number)
            await a.post("b", number + 0.5)
        await a.flush()
        assert [message.body for message in await reading] == [n / 2 for n in range(1000)]


async def test_messages_wait_until_the_inbox_is_read() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post_many("b", [1, 2, 3])
        await asyncio.sleep(0.05)
        assert not receipt.done
        assert [message.body for message in await read(b.inbox(), 3)] == [1, 2, 3]
        assert await receipt == 3


# Outcomes


async def test_rejection_reaches_the_sender_with_its_reason() -> None:
    async with nodes("a", "b") as (a, b):

        async def refuse() -> None:
            async for message in b.inbox("manual"):
                await message.reject("no paper")

        task = asyncio.create_task(refuse())
        with pytest.raises(Rejected, match="b rejected the message: no paper"):
            await a.send("b", 1, timeout=5)
        task.cancel()


async def test_message_given_back_comes_again_with_one_attempt_more() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", "work")

        async def fail() -> int:
            async for message in b.inbox():
                if message.attempt < 3:
                    raise ZeroDivisionError
                return message.attempt
            return 0

        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                await asyncio.wait_for(fail(), 5)
        assert await asyncio.wait_for(fail(), 5) == 3
        assert await receipt == 1


async def test_released_message_comes_again_and_counts_no_attempt() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", "work")
        inbox = aiter(b.inbox("manual"))
        await (await anext(inbox)).release()
        message = await asyncio.wait_for(anext(inbox), 5)
        assert message.attempt == 1
        await message.accept()
        assert await asyncio.wait_for(asyncio.ensure_future(receipt), 5) == 1


async def test_handling_that_fails_again_and_again_ends_as_dead_letter() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", "poison")

        async def fail() -> None:
            async for _ in b.inbox():
                raise ZeroDivisionError

        async def try_for_ever() -> None:
            while True:
                with pytest.raises(ZeroDivisionError):
                    await fail()

        task = asyncio.create_task(try_for_ever())
        with pytest.raises(DeadLettered) as caught:
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)
        assert caught.value.attempts == QUICK.attempts_max
        task.cancel()


async def test_message_that_outlives_its_ttl_expires_unhandled() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", "stale", ttl=0.05)
        await asyncio.sleep(0.1)
        await a.post("b", "fresh")
        assert [message.body for message in await read(b.inbox(), 1)] == ["fresh"]
        with pytest.raises(Expired):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)


async def test_message_that_expires_in_a_full_inbox_is_not_handled() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = aiter(b.inbox())
        await a.post("b", "first")
        receipt = await a.post("b", "stale", ttl=0.05)
        await asyncio.wait_for(anext(inbox), 5)
        await asyncio.sleep(0.1)
        await a.post("b", "fresh")
        assert (await asyncio.wait_for(anext(inbox), 5)).body == "fresh"
        with pytest.raises(Expired):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)


async def test_send_in_vain_times_out() -> None:
    async with nodes("a", "b") as (a, _):
        with pytest.raises(DeliveryTimeout, match=r"the message to b had no outcome within 0\.05"):
            await a.send("b", 1, timeout=0.05)


async def test_peer_that_leaves_takes_its_messages_with_it() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post_many("b", range(10))
        await asyncio.sleep(0.02)
        await b.close()
        with pytest.raises(PeerLost):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 10)
        assert len(receipt.failures) == 10
        assert {failure.kind for failure in receipt.failures} == {FailureKind.PEER_LOST}
        with pytest.raises(PeerUnknown):
            await a.send("b", 1)


# What cannot be sent


async def test_ambiguous_name_is_refused_with_the_ids() -> None:
    async with nodes("a", "twin", "twin") as (a, first, second):
        with pytest.raises(AmbiguousPeer) as caught:
            await a.send("twin", 1)
        assert set(caught.value.ids) == {first.id, second.id}
        with pytest.raises(AmbiguousPeer):
            a.peers.get("twin")
        reading = asyncio.create_task(read(second.inbox(), 1))
        await a.send(second.id, 1, timeout=5)
        await reading


async def test_body_that_cannot_be_sent_is_refused() -> None:
    options = NodeOptions(link=LinkOptions(body_bytes_max=100))
    async with nodes("a", "b", options=options) as (a, _):
        with pytest.raises(BodyNotEncodable):
            await a.send("b", object())
        with pytest.raises(BodyTooLarge):
            await a.post("b", bytes(101))
        with pytest.raises(BodyTooLarge):
            await a.post_many("b", [bytes(100), bytes(101)])
        with pytest.raises(BodyTooLarge):
            a.post_nowait("b", "x" * 101)


@pytest.mark.parametrize(
    "options",
    [{"priority": 10}, {"priority": -1}, {"ttl": 0}, {"ttl": float("nan")}, {"key": "k" * 2000},
     {"headers": {"a": [1]}}],
)  # fmt: skip
async def test_option_that_cannot_work_is_named(options: dict[str, object]) -> None:
    async with Node("a", mdns=False) as a:
        with pytest.raises(InvalidOption, match=next(iter(options))):
            await a.post("a", 1, **options)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption):
            a.inbox("sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "use",
    [
        lambda node: node.post("b", 1, ttl=1e300),
        lambda node: node.post("b", 1, priority=True),
        lambda node: node.post("b", 1, priority=4.5),
        lambda node: node.post("b", 1, key=7),
        lambda node: node.post(7, 1),
        lambda node: node.send("b", 1, timeout=math.nan),
        lambda node: node.call("echo", timeout=math.inf),
        lambda node: node.call("echo", timeout=math.nan),
        lambda node: node.call(["echo"]),
        lambda node: node.publish(7, 1),
        lambda node: node.subscribe(7).__aenter__(),
        lambda node: node.peers.wait_for(timeout=math.nan),
    ],
)
async def test_mistake_of_a_caller_is_refused_and_harms_nobody(
    use: Callable[[Node], Awaitable[object]],
) -> None:
    async with nodes("a", "b") as (a, b):

        @b.service("echo")
        async def echo(message: Message) -> object:
            return message.body

        await a.peers.wait_for(service="echo", timeout=5)
        with pytest.raises(InvalidOption):
            await use(a)
        assert await a.call("echo", 1, timeout=5) == 1
        assert a.statistics().engine.defects == b.statistics().engine.defects == {}


async def test_reason_of_any_kind_reaches_the_sender() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox("manual")
        for reason, told in ((KeyError("paper"), "'paper'"), ("\udc80.txt", "?.txt"), (5, "5")):
            receipt = await a.post("b", 1)
            message = await asyncio.wait_for(anext(inbox), 5)
            await message.reject(reason)  # type: ignore[arg-type]
            with pytest.raises(Rejected) as caught:
                await asyncio.wait_for(asyncio.ensure_future(receipt), 5)
            assert caught.value.reason == told


async def test_delay_that_cannot_work_is_refused_and_the_message_stays_open() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", 1)
        message = await asyncio.wait_for(anext(b.inbox("manual")), 5)
        for delay in (-1, math.nan, math.inf, 1e300, "5"):
            with pytest.raises(InvalidOption, match="delay"):
                await message.release(delay)  # type: ignore[arg-type]
        await message.accept()
        assert await asyncio.wait_for(asyncio.ensure_future(receipt), 5) == 1


# Room


async def test_post_waits_for_room_and_post_nowait_does_not() -> None:
    async with nodes("a", "b", options=NARROW) as (a, b):
        numbers = count()

        async def fill() -> None:
            for number in numbers:
                a.post_nowait("b", number)
                await asyncio.sleep(0)

        with pytest.raises(Backpressure):
            await fill()
        number = next(numbers) - 1
        assert 45 <= number <= 52
        waiting = asyncio.create_task(a.post("b", number))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        read_all = asyncio.create_task(read(b.inbox(), number + 1))
        await asyncio.wait_for(waiting, 5)
        assert [message.body for message in await read_all] == list(range(number + 1))


async def test_many_more_than_there_is_room_for_arrive_in_order() -> None:
    async with nodes("a", "b", options=NARROW) as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 2000))
        receipt = await asyncio.wait_for(a.post_many("b", range(2000)), 20)
        assert await receipt == 2000
        assert [message.body for message in await reading] == list(range(2000))


@pytest.mark.parametrize("is_many", [True, False])
async def test_large_bodies_do_not_pass_the_bytes_there_is_room_for(is_many: bool) -> None:
    options = NodeOptions(link=LinkOptions(queued_bytes_max=2_000_000))
    async with nodes("a", "b", options=options) as (a, b):
        most, body = 0, bytes(300_000)

        async def post() -> None:
            if is_many:
                await a.post_many("b", [body] * 40)
            else:
                for _ in range(40):
                    await a.post("b", body)

        posting = asyncio.create_task(post())
        await asyncio.sleep(0.05)
        reading = asyncio.create_task(read(b.inbox(), 40))
        while not reading.done():
            most = max(most, a.statistics().engine.queued_bytes)
            await asyncio.sleep(0)
        await posting
        assert 2_000_000 <= most < 2_000_000 + 2 * 300_000


async def test_those_who_wait_for_a_peer_that_leaves_are_told() -> None:
    async with nodes("a", "b", options=NARROW) as (a, b):
        many = asyncio.create_task(a.post_many("b", range(1000)))
        one = asyncio.create_task(a.post("b", 1))
        await asyncio.sleep(0.05)
        assert not many.done()
        await b.close()
        results = await asyncio.wait_for(asyncio.gather(many, one, return_exceptions=True), 10)
        assert [type(result) for result in results] == [PeerUnknown, PeerUnknown]


async def test_forgotten_receipts_do_not_pile_up() -> None:
    async with nodes("a", "b") as (a, b):
        reading = asyncio.create_task(read(b.inbox(), 300))
        for number in range(300):
            await a.post("b", number)
        await a.flush()
        await reading
        assert a._assembly is not None
        assert len(a._assembly.posting) == 0


# Loops


async def test_single_message_is_taken_for_good() -> None:
    async with nodes("a", "b") as (a, b):
        for body in range(3):
            sending = asyncio.create_task(a.send("b", body, timeout=5))
            message = await asyncio.wait_for(anext(b.inbox()), 5)
            await sending  # accepted, though the message is held
            assert (message.body, message.attempt) == (body, 1)
        receipt = await a.post("b", "last")
        message = await asyncio.wait_for(anext(b.inbox("manual")), 5)
        await message.reject("no paper")
        with pytest.raises(Rejected, match="no paper"):
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)
        assert len(b.inbox()) == 0


async def test_tasks_that_share_an_inbox_settle_their_own_messages() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox("manual")
        receipts = [await a.post("b", number) for number in range(10)]

        async def judge(is_even: bool) -> None:
            while True:
                message = await anext(inbox)
                await asyncio.sleep(0.001)
                await (message.accept() if is_even else message.reject(str(message.body)))

        tasks = [asyncio.create_task(judge(is_even)) for is_even in (True, False)]
        outcomes = await asyncio.gather(*receipts, return_exceptions=True)
        assert [isinstance(outcome, Rejected) for outcome in outcomes] == [False, True] * 5
        for task in tasks:
            task.cancel()


async def test_hundred_thousand_waits_that_end_too_soon_lose_nothing() -> None:
    async with nodes("a", "b") as (a, b):
        inbox, waits = b.inbox(), 0
        bodies: list[object] = []
        receipt: Receipt | None = None
        while len(bodies) < 2000:
            if waits % 500 == 0 and waits < 5000:
                receipt = await a.post_many(
                    "b", range(waits // 500 * 200, waits // 500 * 200 + 200)
                )
            waits += 1
            try:
                async with asyncio.timeout(0 if waits % 2 else 0.00001):
                    bodies.append((await anext(inbox)).body)
            except TimeoutError:
                continue
        assert bodies == list(range(2000))
        assert receipt is not None


async def test_several_loops_share_the_messages() -> None:
    async with nodes("a", "b") as (a, b):
        counts = [0, 0]

        async def work(index: int) -> None:
            async for _ in b.inbox():
                counts[index] += 1
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(work(index)) for index in range(2)]
        assert await (await a.post_many("b", range(100))) == 100
        assert sum(counts) == 100
        assert min(counts) > 10
        for task in tasks:
            task.cancel()


async def test_handler_of_a_message_can_take_its_time() -> None:
    async with nodes("a", "b") as (a, b):
        handled: list[Message] = []

        async def work() -> None:
            async for message in b.inbox():
                handled.append(message)
                await asyncio.sleep(1.0)

        task = asyncio.create_task(work())
        await a.send("b", 1, timeout=10)
        assert len(handled) == 1
        task.cancel()
