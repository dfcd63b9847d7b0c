"""Reading what could not be handled."""

import asyncio

import pytest

from tests.nodes import QUICK, nodes
from zmesh import DeadLettered, Inbox


async def fail_for_ever(inbox: Inbox) -> None:
    while True:
        try:
            async for _ in inbox:
                raise ZeroDivisionError("boom")
        except ZeroDivisionError:
            continue


async def test_a_dead_letter_can_be_read_by_the_application_that_sent_it() -> None:
    async with nodes("a", "b") as (a, b):
        receipt = await a.post("b", {"job": 7})
        reading = asyncio.create_task(fail_for_ever(b.inbox()))
        with pytest.raises(DeadLettered) as caught:
            await asyncio.wait_for(asyncio.ensure_future(receipt), 5)
        reading.cancel()
        [letter] = a.dead_letters()
        assert (letter.body, letter.topic, letter.peer.hex()) == ({"job": 7}, "", b.id)
        assert (letter.reason, letter.attempts) == (caught.value.reason, QUICK.attempts_max)
        assert b.dead_letters() == []
