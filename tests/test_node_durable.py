"""Nodes with storage: what they accepted outlives them, in order, and is handled once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK, read
from zmesh import JournalOptions, Node, Storage
from zmesh.actions import Action
from zmesh.events import Event
from zmesh.face.posting import BATCH_MAX
from zmesh.journal.tools import status
from zmesh.options import KIB
from zmesh.patterns.boxes import WINDOW_RECORDS
from zmesh.patterns.outbox import PAGE_ROWS

SMALL = JournalOptions(
    journal_bytes_max=512 * KIB, reserve_bytes_min=256 * KIB, wal_bytes_max=128 * KIB,
    vacuum_bytes_min=16 * KIB,
)  # fmt: skip


@asynccontextmanager
async def life(
    name: str, place: Path, *known: Node, storage: Storage | None = None
) -> AsyncIterator[Node]:
    """One life of a node that keeps its journal in a place, or as a storage says."""
    peers = [endpoint for node in known for endpoint in node.endpoints]
    kept = storage or Storage(place / f"{name}.journal")
    async with Node(name, peers=peers, mdns=False, storage=kept, options=QUICK) as node:
        yield node


async def bodies(node: Node, count: int) -> list[object]:
    return [message.body for message in await asyncio.wait_for(read(node.inbox(), count), 20)]


async def test_a_node_with_storage_is_who_it_was(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        first = ada.id
    async with life("ada", tmp_path) as ada:
        assert ada.id == first


async def test_what_is_posted_to_who_was_never_seen_arrives_when_it_is_there(
    tmp_path: Path,
) -> None:
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post("bob", "early")
        assert not receipt.done
        async with life("bob", tmp_path, ada) as bob:
            assert await bodies(bob, 1) == ["early"]
            assert await asyncio.wait_for(receipt, 10) == 1


async def test_who_posted_is_counted_at_once_and_needs_no_turn_of_its_own(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        await ada.post("bob", 0)
        assert ada.statistics().engine.stored_out == 1
        turns: list[list[str]] = []
        engine = ada._at_work().engine
        handle = engine.handle

        def noted(events: list[Event], now: float) -> list[Action]:
            turns.append([type(event).__name__ for event in events])
            return handle(events, now)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "handle", noted)
            for number in range(1, 21):
                await ada.post("bob", number)
        assert turns.count(["JournalTold", "Post"]) >= 15  # a timer may have joined some
        assert ada.statistics().engine.stored_out == 21


async def test_more_than_a_window_posted_at_once_arrives_in_order(tmp_path: Path) -> None:
    count = WINDOW_RECORDS + PAGE_ROWS + 100
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob) as ada:
        receipt = await ada.post_many("bob", range(count))
        assert await bodies(bob, count) == list(range(count))
        assert await asyncio.wait_for(receipt, 20) == count


async def test_what_is_stored_together_shares_rows_and_goes_with_its_outcome(
    tmp_path: Path,
) -> None:
    async with life("ada", tmp_path) as ada:
        await ada.post_many("bob", range(300))
    with closing(sqlite3.connect(tmp_path / "ada.journal")) as database:
        spans = database.execute("SELECT span FROM messages ORDER BY place").fetchall()
    assert spans == [(128,), (128,), (44,)]
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob):
        assert await bodies(bob, 300) == list(range(300))
    # Whatever was accepted before the end is forgotten; the rest is known to who has it.
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob) as ada:
        await ada.post("bob", "next")
        assert await bodies(bob, 1) == ["next"]


async def test_message_that_is_refused_leaves_its_block_for_the_dead_letters(
    tmp_path: Path,
) -> None:
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob) as ada:
        receipt = await ada.post_many("bob", range(10))
        async with asyncio.timeout(20):
            async for message in bob.inbox():
                if message.body == 4:
                    await message.reject("not this one")
                elif message.body == 9:
                    await message.accept()
                    break
            with pytest.raises(zmesh.ZmeshError, match="not this one"):
                await receipt
    rows = status(tmp_path / "ada.journal").rows
    assert (rows.get("waiting", 0), rows["dead_letters"]) == (0, 1)


async def test_what_was_posted_in_another_life_is_delivered_in_order(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        await ada.post_many("bob", range(3000))
        await ada.post("bob", 3000, priority=2)
        await ada.post("bob", 3001, headers={"kind": "last"}, key="k")
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob):
        messages = await asyncio.wait_for(read(bob.inbox(), 3002), 20)
    assert [m.body for m in messages if m.priority == 4] == [*range(3000), 3001]
    assert [m.body for m in messages if m.priority == 2] == [3000]
    last = next(m for m in messages if m.body == 3001)
    assert (last.headers, last.key) == ({"kind": "last"}, "k")


async def test_more_than_a_link_takes_waits_on_disk_and_arrives_in_order(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post_many("bob", range(20_000))
        async with life("bob", tmp_path, ada) as bob:
            assert await bodies(bob, 20_000) == list(range(20_000))
            assert await asyncio.wait_for(receipt, 20) == 20_000


async def test_a_receiver_that_restarts_gets_the_rest_and_nothing_twice(tmp_path: Path) -> None:
    seen: list[object] = []
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post_many("bob", range(500))
        for part in (100, 150, 250):
            async with life("bob", tmp_path, ada) as bob:
                async for message in bob.inbox():
                    seen.append(message.body)
                    if len(seen) % part == 0:
                        break
                await asyncio.sleep(0.05)
        async with life("bob", tmp_path, ada) as bob:
            reading = asyncio.create_task(_read_on(bob, seen))
            assert await asyncio.wait_for(receipt, 20) == 500
            reading.cancel()
    assert sorted(set(map(int, map(str, seen)))) == list(range(500))
    assert len(seen) == 500


async def _read_on(node: Node, seen: list[object]) -> None:
    async for message in node.inbox():
        seen.append(message.body)  # noqa: PERF401  # it is looked at meanwhile


async def test_a_message_to_a_name_goes_to_who_bears_it_next(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        async with Node("bob", mdns=False, peers=ada.endpoints, options=QUICK):
            await ada.peers.wait_for(count=1, timeout=10)
        receipt = await ada.post("bob", "for whoever")
        async with Node("bob", mdns=False, peers=ada.endpoints, options=QUICK) as bob:
            assert await bodies(bob, 1) == ["for whoever"]
            assert await asyncio.wait_for(receipt, 10) == 1


async def test_to_itself_as_to_others(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post("ada", "note")
        assert await bodies(ada, 1) == ["note"]
        assert await asyncio.wait_for(receipt, 10) == 1


async def test_what_is_rejected_or_fails_too_often_is_a_failure_here_too(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        rejected = await ada.post("bob", "no")
        failing = await ada.post("bob", "fails")
        attempts: list[int] = []

        async def read_all() -> None:
            async for message in bob.inbox("manual"):
                if message.body == "no":
                    await message.reject("not wanted")
                else:
                    attempts.append(message.attempt)
                    await message.fail("cannot")

        reading = asyncio.create_task(read_all())
        with pytest.raises(zmesh.Rejected, match="not wanted"):
            await asyncio.wait_for(rejected, 10)
        with pytest.raises(zmesh.DeadLettered):
            await asyncio.wait_for(failing, 10)
        assert attempts == [1, 2, 3]
        reading.cancel()


async def test_attempts_are_counted_over_the_lives_of_the_sender(tmp_path: Path) -> None:
    async with life("bob", tmp_path) as bob:
        inbox = bob.inbox("manual")
        async with life("ada", tmp_path, bob) as ada:
            await ada.post("bob", "fails")
            first = await asyncio.wait_for(anext(inbox), 10)
            assert first.attempt == 1
            await first.fail("cannot")
            second = await asyncio.wait_for(anext(inbox), 10)
            assert second.attempt == 2
        async with life("ada", tmp_path, bob) as ada:
            await ada.peers.wait_for(count=1, timeout=10)
            await second.fail("cannot")  # it counts where the copy came before
            third = await asyncio.wait_for(anext(inbox), 10)
            assert third.attempt >= 2
            await third.accept()


async def test_what_outlives_its_time_while_nobody_is_there_expires(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post("bob", "soon over", ttl=0.1)
        with pytest.raises(zmesh.Expired):
            await asyncio.wait_for(receipt, 10)
        kept = await ada.post("bob", "for ever")
        async with life("bob", tmp_path, ada) as bob:
            assert await bodies(bob, 1) == ["for ever"]
            await asyncio.wait_for(kept, 10)


async def test_a_message_that_need_not_be_durable_is_not_stored(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        with pytest.raises(zmesh.PeerUnknown):
            await ada.post("bob", "x", durable=False)
        with pytest.raises(zmesh.PeerUnknown):
            ada.post_nowait("bob", "x")


async def test_durable_messages_need_storage() -> None:
    async with Node("ada", mdns=False) as ada:
        with pytest.raises(zmesh.UsageError, match="storage=PATH"):
            await ada.post("bob", "x", durable=True)
        with pytest.raises(zmesh.UsageError, match="storage=PATH"):
            await ada.post_many("bob", ["x"], durable=True)


async def test_a_full_journal_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    kept = Storage(tmp_path / "ada.journal", options=SMALL)
    body = bytes(16 * KIB)
    async with life("ada", tmp_path, storage=kept) as ada:
        posted = await _post_until_full(ada, body)
        assert 10 < posted < 100
        async with life("bob", tmp_path, ada) as bob:
            assert len(await bodies(bob, posted)) == posted
            await asyncio.wait_for(ada.flush(), 10)
            while True:  # room is found when the journal looks again
                try:
                    receipt = await ada.post("bob", body)
                    break
                except zmesh.JournalFull:
                    await asyncio.sleep(0.05)
            await bodies(bob, 1)
            assert await asyncio.wait_for(receipt, 10) == 1


async def _post_until_full(node: Node, body: bytes) -> int:
    for posted in range(100):
        try:
            await node.post("bob", body)
        except zmesh.JournalFull:
            return posted
    return 100


async def test_a_caller_may_wait_for_room_in_the_journal(tmp_path: Path) -> None:
    kept = Storage(tmp_path / "ada.journal", when_full="wait", options=SMALL)
    body = bytes(16 * KIB)
    async with life("ada", tmp_path, storage=kept) as ada, life("bob", tmp_path, ada) as bob:

        async def post_all() -> None:
            for number in range(100):
                await ada.post("bob", number.to_bytes(4) + body)

        posting = asyncio.create_task(post_all())
        got = await bodies(bob, 100)
        await asyncio.wait_for(posting, 20)
    assert [int.from_bytes(each[:4]) for each in got if isinstance(each, bytes)] == [*range(100)]


async def test_pieces_of_many_keep_their_order_where_the_first_waits_for_room(
    tmp_path: Path,
) -> None:
    kept = Storage(tmp_path / "ada.journal", when_full="wait", options=SMALL)
    count = BATCH_MAX + 10  # of which the second piece is small, and would fit
    async with life("ada", tmp_path, storage=kept) as ada:
        for _ in range(16):
            await ada.post("carol", bytes(16 * KIB))
        many = [number.to_bytes(4) + bytes(300) for number in range(count)]
        posting = asyncio.create_task(ada.post_many("bob", many))
        async with life("carol", tmp_path, ada) as carol:
            await bodies(carol, 16)
            receipt = await asyncio.wait_for(posting, 20)
        async with life("bob", tmp_path, ada) as bob:
            got = await bodies(bob, count)
            assert await asyncio.wait_for(receipt, 10) == count
    assert got == many


async def test_two_nodes_cannot_have_one_journal(tmp_path: Path) -> None:
    async with life("ada", tmp_path):
        with pytest.raises(zmesh.JournalLocked):
            async with life("ada", tmp_path):
                pass


async def test_what_is_no_path_is_no_storage() -> None:
    with pytest.raises(zmesh.InvalidOption, match="storage"):
        Node("ada", storage=7)  # type: ignore[arg-type]


async def test_closing_says_nothing_of_what_another_life_goes_on_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with life("ada", tmp_path) as ada:
        await ada.post("bob", "later")
    assert "message failed" not in caplog.text


async def test_who_waits_for_an_outcome_when_the_node_closes_is_told(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        receipt = await ada.post("bob", "later")
        waiting = asyncio.create_task(_outcome(receipt))
        await asyncio.sleep(0)
    with pytest.raises(zmesh.Closed):
        await waiting


async def _outcome(receipt: zmesh.Receipt) -> int:
    return await receipt


async def test_the_oldest_make_room_where_that_is_wanted_and_end_as_dropped(
    tmp_path: Path,
) -> None:
    kept = Storage(tmp_path / "ada.journal", when_full="drop_oldest", options=SMALL)
    body = bytes(16 * KIB)
    async with life("ada", tmp_path, storage=kept) as ada:
        receipts = [await ada.post("bob", number.to_bytes(4) + body) for number in range(60)]
        dropped = [number for number, receipt in enumerate(receipts) if receipt.failures]
        assert 0 < len(dropped) < 60
        assert dropped == [*range(len(dropped))], "the oldest"
        with pytest.raises(zmesh.Dropped, match="newer messages"):
            await receipts[0]
        async with life("bob", tmp_path, ada) as bob:
            got = await bodies(bob, 60 - len(dropped))
            await asyncio.wait_for(ada.flush(), 10)
        assert [int.from_bytes(each[:4]) for each in got if isinstance(each, bytes)] == [
            *range(len(dropped), 60)
        ]
        assert [receipt.accepted for receipt in receipts[len(dropped) :]] == [1] * len(got)


async def test_the_oldest_publications_make_room_where_that_is_wanted(tmp_path: Path) -> None:
    kept = Storage(tmp_path / "ada.journal", when_full="drop_oldest", options=SMALL)
    async with life("ada", tmp_path, storage=kept) as ada:
        for _ in range(60):
            await ada.publish("big", bytes(16 * KIB))
        engine = ada.statistics().engine
        assert 0 < engine.logged < 60
        assert engine.logged + engine.logged_trimmed == 60


async def test_a_report_tells_what_another_life_goes_on_with(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada:
        await ada.post_many("bob", range(3))
        report = await ada.close(drain=0.1)
    assert (report.stored, report.unsettled_out) == (3, 0)


async def test_statistics_tell_of_the_journal_where_there_is_one(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada, Node("eve", mdns=False) as eve:
        await ada.post("bob", "x")
        journal = ada.statistics().journal
        assert journal is not None
        assert (journal.commits > 0, journal.used > 0) == (True, True)
        assert eve.statistics().journal is None


async def test_a_timeout_tells_that_what_was_stored_was_received_and_not_accepted(
    tmp_path: Path,
) -> None:
    async with life("bob", tmp_path) as bob, life("ada", tmp_path, bob) as ada:
        await ada.peers.wait_for(name="bob", timeout=5)
        with pytest.raises(zmesh.DeliveryTimeout, match="received there, but nobody has") as told:
            await ada.send("bob", "unread", timeout=0.5)
        assert told.value.has_arrived
        with pytest.raises(zmesh.DeliveryTimeout, match="may still be handled") as told:
            await ada.send("eve", "nobody bears that name", timeout=0.1)
        assert not told.value.has_arrived
