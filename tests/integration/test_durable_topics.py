"""Publishers and subscribers that are killed: nothing is lost, and nothing settled comes again."""

import asyncio
from collections import defaultdict
from pathlib import Path

from tests.processes import run
from zmesh import Message, Node, Subscription

PUBLISHER = "tests/integration/programs/log_publisher.py"
READER = "tests/integration/programs/log_reader.py"
LIVES = 4


async def test_a_killed_subscriber_goes_on_where_it_had_settled(tmp_path: Path) -> None:
    count, following = 3000, 0
    async with Node("shop", mdns=False, storage=tmp_path / "shop.journal") as shop:
        [endpoint] = shop.endpoints
        publishing = asyncio.create_task(_publish(shop, count))
        while following < count:
            async with run(READER, str(tmp_path / "till.journal"), endpoint) as reader:
                first = int(await reader.line())
                assert first <= following, "what was not settled is lost"
                numbers = [first]
                while numbers[-1] < count - 1 and len(numbers) <= count // LIVES:
                    numbers.append(int(await reader.line()))
                reader.process.kill()
                _, rest, _ = await reader.ended()
                numbers += map(int, rest.split())
                assert numbers == list(range(first, first + len(numbers)))
                assert numbers[-1] >= following, "it gets no further"
                following = numbers[-1] + 1
        await publishing


async def _publish(node: Node, count: int) -> None:
    for number in range(count):
        await node.publish("orders.new", number)


async def test_what_a_killed_publisher_had_stored_comes_once_and_in_order(
    tmp_path: Path,
) -> None:
    stored: dict[int, int] = {}
    async with (
        Node("till", mdns=False, storage=tmp_path / "till.journal") as till,
        till.subscribe("orders.>", name="billing") as named,
        till.subscribe("orders.>") as plain,
    ):
        [endpoint] = till.endpoints
        found: list[list[Message]] = [[], []]
        reading = [
            asyncio.create_task(_read(subscription, messages))
            for subscription, messages in zip((named, plain), found, strict=True)
        ]
        for life in range(LIVES):
            journal = str(tmp_path / "shop.journal")
            async with run(PUBLISHER, journal, endpoint, str(life)) as publisher:
                for number in range(200):
                    assert int(await publisher.line()) == number
                publisher.process.kill()
                _, rest, _ = await publisher.ended()
                lines = [line for line in rest.split("\n")[:-1] if line]
                stored[life] = int(lines[-1]) if lines else 199
        async with run(PUBLISHER, str(tmp_path / "shop.journal"), endpoint, str(LIVES)):
            async with asyncio.timeout(20):
                await asyncio.gather(*reading)
    for messages in found:
        positions = [message.position for message in messages]
        assert len(set(positions)) == len(positions), "something came twice"
        numbers: dict[int, list[int]] = defaultdict(list)
        for message in messages:
            life, number = message.body
            numbers[life].append(number)
        for life, last in stored.items():
            assert numbers[life][: last + 1] == list(range(last + 1))
            assert len(numbers[life]) <= last + 2, "one at most was stored and not told"
    assert [message.position for message in found[0]] == sorted(
        message.position or 0 for message in found[0]
    )


async def _read(subscription: Subscription, messages: list[Message]) -> None:
    async for message in subscription:
        messages.append(message)
        if message.body[0] == LIVES:
            return
