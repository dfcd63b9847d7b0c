"""What could not be handled: read, kept over a restart, sent back, thrown away."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK, nodes
from tests.storing import stored, until
from zmesh import DeadLetter, DeadLettered, Inbox, Node

WHY = ["no paper", "no ink", "no hope"]


async def fail_for_ever(inbox: Inbox) -> None:
    while True:
        try:
            async for _ in inbox:
                raise ZeroDivisionError("boom")
        except ZeroDivisionError:
            continue


async def fail(messages: "Inbox | zmesh.Subscription | zmesh.Jobs | zmesh.Group") -> None:
    """Fail a message as often as it may, each time for another reason."""
    for why in WHY:
        await (await anext(messages)).fail(why)


async def letters(node: Node, count: int = 1) -> list[DeadLetter]:
    """Wait until a node has so many dead letters."""
    await until(lambda: len(node.dead_letters()) == count)
    return node.dead_letters()


def reasons(letter: DeadLetter) -> list[str]:
    return [attempt.reason for attempt in letter.history]


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
        assert not letter.is_stored
        assert b.dead_letters() == []


async def test_a_letter_tells_why_and_when_each_attempt_failed() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox(settle="manual")
        await a.post("b", "page", headers={"size": 4}, key="k", priority=7)
        await fail(inbox)
        [letter] = await letters(a)
        assert reasons(letter) == WHY
        times = [attempt.at_ms for attempt in letter.history]
        assert times == sorted(times)
        assert letter.died_ms == times[-1] > times[0] > 0
        assert (letter.destination_kind, letter.destination) == ("peer", "b")
        assert (letter.key, letter.headers, letter.stored_ms) == ("k", {"size": 4}, 0)
        assert "page" not in repr(letter)


async def test_of_messages_that_are_alike_each_has_as_many_attempts_as_were_made() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox(settle="manual")
        await a.post_many("b", ["same", "same"])
        for why in (*WHY, *WHY):
            await (await anext(inbox)).fail(why)
        both = await letters(a, 2)
        assert [len(letter.history) for letter in both] == [3, 3]
        assert sorted(reasons(both[0]) + reasons(both[1])) == sorted(WHY * 2)


async def test_a_requeued_message_is_new_to_its_receiver_and_gone_from_the_letters() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox(settle="manual")
        await a.post("b", "page", key="k", priority=7)
        await fail(inbox)
        [letter] = await letters(a)
        await a.requeue(letter)
        message = await anext(inbox)
        assert (message.body, message.attempt, message.key) == ("page", 1, "k")
        assert message.priority == 7
        await message.accept()
        assert a.dead_letters() == []


@pytest.mark.parametrize("verdict", ["reject", "fail"])
async def test_a_requeued_message_that_fails_again_is_a_letter_again(verdict: str) -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox(settle="manual")
        await a.post("b", "page")
        await fail(inbox)
        [first] = await letters(a)
        await a.requeue(first.id)
        if verdict == "reject":
            await (await anext(inbox)).reject("never")
        else:
            await fail(inbox)
        [again] = await letters(a)
        assert again.id > first.id
        assert (again.reason, again.body) == ("never" if verdict == "reject" else WHY[-1], "page")


async def test_letters_of_all_patterns_go_back_to_where_they_were_for() -> None:
    async with (
        nodes("a", "b") as (a, b),
        b.pull("work", settle="manual") as jobs,
        b.join("cameras", settle="manual") as group,
        b.subscribe("news", settle="manual") as news,
    ):
        await until(lambda: bool(a.members("cameras")))
        sources = [("queue", "work", jobs), ("group", "cameras", group), ("topic", "news", news)]
        await a.push("work", "of work", max_attempts=3)
        a.fan_out("cameras", "of cameras")
        await a.publish("news", "of news")
        for _, _, messages in sources:
            await fail(messages)
        found = {letter.destination_kind: letter for letter in await letters(a, 3)}
        for kind, name, messages in sources:
            letter = found[kind]
            assert (letter.destination, reasons(letter)) == (name, WHY)
            await a.requeue(letter)
            message = await anext(messages)
            assert (message.body, message.attempt) == (f"of {name}", 1)
            await message.accept()
        assert a.dead_letters() == []


async def test_a_message_for_who_is_gone_stays_a_letter() -> None:
    async with nodes("a") as (a,):
        async with zmesh.Node("b", peers=a.endpoints, mdns=False, options=QUICK) as b:
            await a.peers.wait_for(count=1, timeout=10)
            inbox = b.inbox(settle="manual")
            await a.post("b", "page")
            await fail(inbox)
            [letter] = await letters(a)
        await until(lambda: not list(a.peers))
        with pytest.raises((zmesh.PeerLost, zmesh.PeerUnknown)):
            await a.requeue(letter)
        assert a.dead_letters() == [letter]


async def test_letters_are_purged_one_by_one_and_all() -> None:
    async with nodes("a", "b") as (a, b):
        inbox = b.inbox(settle="manual")
        for text in ("one", "two", "three"):
            await a.post("b", text)
            await fail(inbox)
        first, *_ = await letters(a, 3)
        assert await a.purge(first) == 1
        assert [letter.body for letter in a.dead_letters()] == ["two", "three"]
        assert await a.purge() == 2
        assert a.dead_letters() == []
        for command in (a.purge, a.requeue):
            with pytest.raises(zmesh.NoDeadLetter, match=f"no dead letter {first.id}"):
                await command(first)
        with pytest.raises(zmesh.InvalidOption, match="letter"):
            await a.requeue("1")  # type: ignore[arg-type]


# Stored ones


async def test_a_stored_letter_and_its_history_survive_a_restart(tmp_path: Path) -> None:
    async with nodes("b") as (b,):
        inbox = b.inbox(settle="manual")
        async with stored("a", tmp_path / "a", b) as a:
            await a.post("b", "page", headers={"size": 4}, key="k")
            await fail(inbox)
            [before] = await letters(a)
        assert before.is_stored
        async with stored("a", tmp_path / "a") as a:
            [letter] = a.dead_letters()
            assert reasons(letter) == WHY
            assert (letter.id, letter.history) == (before.id, before.history)
            assert (letter.reason, letter.attempts) == (WHY[-1], 3)
            assert (letter.body, letter.headers, letter.key) == ("page", {"size": 4}, "k")
            assert (letter.destination, letter.destination_kind) == ("b", "peer")
            assert letter.peer.hex() == b.id
            assert 0 < letter.stored_ms <= letter.history[0].at_ms <= letter.died_ms


async def test_a_restart_between_attempts_keeps_their_number(tmp_path: Path) -> None:
    async with nodes("b") as (b,):
        inbox = b.inbox(settle="manual")
        async with stored("a", tmp_path / "a", b) as a:
            await a.post("b", "page")
            await (await anext(inbox)).fail(WHY[0])
            second = await anext(inbox)
            assert second.attempt == 2
            await second.release(delay=60)
        async with stored("a", tmp_path / "a", b) as a:
            for why in WHY[1:]:
                await (await anext(inbox)).fail(why)
            [letter] = await letters(a)
            assert (letter.attempts, reasons(letter)) == (3, WHY[1:])


async def test_a_rejected_message_that_was_stored_is_a_letter(tmp_path: Path) -> None:
    async with nodes("b") as (b,), stored("a", tmp_path / "a", b) as a:
        inbox = b.inbox(settle="manual")
        receipt = await a.post("b", "page")
        await (await anext(inbox)).reject("never")
        with pytest.raises(zmesh.Rejected):
            await asyncio.wait_for(receipt, 5)
        [letter] = a.dead_letters()  # it is there when the sender hears of it
        assert (letter.reason, letter.attempts, reasons(letter)) == ("never", 1, ["never"])
        receipt = await a.post("b", "not stored", durable=False)
        await (await anext(inbox)).reject("never")
        with pytest.raises(zmesh.Rejected):
            await asyncio.wait_for(receipt, 5)
        assert [each.body for each in a.dead_letters()] == ["page"]


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_stored_letter_goes_back(tmp_path: Path, restarts: bool) -> None:
    async with nodes("b") as (b,):
        inbox = b.inbox(settle="manual")
        async with stored("a", tmp_path / "a", b) as a:
            await a.post("b", "page", key="k")
            await fail(inbox)
            [letter] = await letters(a)
            if not restarts:
                await a.requeue(letter)
                assert a.dead_letters() == []
                message = await anext(inbox)
                assert (message.body, message.attempt, message.key) == ("page", 1, "k")
                await message.accept()
        async with stored("a", tmp_path / "a", b) as a:
            if restarts:
                await a.requeue(letter.id)
                message = await anext(inbox)
                assert (message.body, message.attempt, message.key) == ("page", 1, "k")
                await message.accept()
            assert a.dead_letters() == []
        async with stored("a", tmp_path / "a", b) as a:
            await a.post("b", "after")
            assert (await anext(inbox)).body == "after", "what was accepted does not come again"
            assert a.dead_letters() == []


async def test_what_was_rejected_and_requeued_is_not_rejected_for_its_old_number(
    tmp_path: Path,
) -> None:
    async with nodes("b") as (b,), stored("a", tmp_path / "a", b) as a:
        inbox = b.inbox(settle="manual")
        await a.post("b", "page")
        await (await anext(inbox)).reject("not yet")
        [letter] = await letters(a)
        await a.requeue(letter)
        message = await asyncio.wait_for(anext(inbox), 5)
        await message.accept()
        assert message.body == "page"


async def test_a_stored_job_is_a_letter_when_its_producer_hears_of_it(tmp_path: Path) -> None:
    async with (
        nodes("b") as (b,),
        stored("a", tmp_path / "a", b) as a,
        b.pull("work", settle="manual") as jobs,
    ):
        receipt = await a.push("work", "job")
        await (await anext(jobs)).reject("not yet")
        with pytest.raises(zmesh.Rejected):
            await asyncio.wait_for(receipt, 5)
        [letter] = a.dead_letters()
        await a.requeue(letter)
        message = await asyncio.wait_for(anext(jobs), 5)
        await message.accept()
        assert (message.body, a.dead_letters()) == ("job", [])


async def test_what_is_purged_is_gone_for_good(tmp_path: Path) -> None:
    async with nodes("b") as (b,), stored("a", tmp_path / "a", b) as a:
        inbox = b.inbox(settle="manual")
        for text in ("one", "two", "three"):
            await a.post("b", text)
            await fail(inbox)
        one, *_ = await letters(a, 3)
        assert await a.purge(one) == 1
    async with stored("a", tmp_path / "a") as a:
        assert [letter.body for letter in a.dead_letters()] == ["two", "three"]
        assert await a.purge() == 2
        with pytest.raises(zmesh.NoDeadLetter):
            await a.requeue(one)
    async with stored("a", tmp_path / "a") as a:
        assert a.dead_letters() == []


async def test_letters_that_fill_their_room_stop_durable_posts_until_some_are_gone(
    tmp_path: Path,
) -> None:
    options = replace(QUICK, dead_letters_max=2)
    async with nodes("b") as (b,), stored("a", tmp_path / "a", b, options=options) as a:
        inbox = b.inbox(settle="manual")
        await a.post_many("b", ["one", "two", "three"])
        for _ in range(3):
            await (await anext(inbox)).reject("never")
        assert [letter.body for letter in await letters(a, 2)] == ["one", "two"]
        await until(lambda: a.statistics().engine.dead_lettered == 3)
        with pytest.raises(zmesh.DeadLettersFull, match="3 dead letters"):
            await a.post("b", "four")
        await a.purge(a.dead_letters()[0])
        assert [letter.body for letter in await letters(a, 2)] == ["two", "three"], "none dropped"
        with pytest.raises(zmesh.DeadLettersFull, match="2 dead letters"):
            await a.post("b", "four")
        await a.purge()
        await a.post("b", "four")
        assert (await anext(inbox)).body == "four"


async def test_a_letter_that_goes_back_when_the_node_closes_is_told_of(tmp_path: Path) -> None:
    async with nodes("b") as (b,), stored("a", tmp_path / "a", b) as a:
        inbox = b.inbox(settle="manual")
        await a.post("b", "page")
        await (await anext(inbox)).reject("never")
        [letter] = await letters(a)
        going = asyncio.ensure_future(a.requeue(letter))
        await asyncio.sleep(0)
        await a.close()
        with suppress(zmesh.Closed):
            await asyncio.wait_for(going, 5)
        with pytest.raises(zmesh.Closed):
            await a.requeue(letter)
