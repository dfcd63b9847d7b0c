"""Nodes and their application's database: picked up once, and each effect once."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

import zmesh
from tests.nodes import QUICK
from zmesh import JournalOptions, Message, Node, Retention, Storage


@asynccontextmanager
async def life(name: str, place: Path, *known: Node) -> AsyncIterator[Node]:
    """One life of a node with a journal and a database in a place."""
    peers = [endpoint for node in known for endpoint in node.endpoints]
    storage = Storage(place / f"{name}.journal", database=place / f"{name}.db")
    async with Node(name, peers=peers, mdns=False, storage=storage, options=QUICK) as node:
        yield node


@contextmanager
def database(place: Path, name: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(place / f"{name}.db")) as connection:
        yield connection


def effects(place: Path, name: str) -> list[int]:
    with database(place, name) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM effects")]


def make_effects(place: Path, name: str) -> None:
    with database(place, name) as connection:
        connection.execute("CREATE TABLE effects (number INTEGER)")


def lose_journal(place: Path, name: str) -> None:
    for file in place.glob(f"{name}.journal*"):
        file.unlink()


async def handle(node: Node, count: int) -> None:
    """Handle so many messages, each in a transaction."""
    async for message in node.inbox():
        async with message.transaction() as db:
            await db.execute("INSERT INTO effects VALUES (?)", (message.body,))
        count -= 1
        if not count:
            return


async def test_what_is_left_in_the_outbox_is_sent_once(tmp_path: Path) -> None:
    with database(tmp_path, "ada") as connection, connection:
        zmesh.outbox.enqueue(connection, "before", to="bob", headers={"n": 1}, key="k")
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        inbox = bob.inbox()
        first = await asyncio.wait_for(anext(inbox), 10)
        assert (first.body, first.headers, first.key) == ("before", {"n": 1}, "k")
        with database(tmp_path, "ada") as connection, connection:
            zmesh.outbox.enqueue(connection, "while it runs", to="bob")
        assert (await asyncio.wait_for(anext(inbox), 10)).body == "while it runs"
        with database(tmp_path, "ada") as connection:
            connection.execute("BEGIN")
            zmesh.outbox.enqueue(connection, "never", to="bob")
            connection.rollback()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(inbox), 0.3)


async def test_rows_that_were_stored_and_not_deleted_are_not_sent_again(tmp_path: Path) -> None:
    with database(tmp_path, "ada") as connection, connection:
        zmesh.outbox.enqueue(connection, "once", to="bob")
        rows = connection.execute("SELECT * FROM zmesh_outbox").fetchall()
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        assert (await asyncio.wait_for(anext(bob.inbox()), 10)).body == "once"
        while True:
            with database(tmp_path, "ada") as connection:
                if not connection.execute("SELECT count(*) FROM zmesh_outbox").fetchone()[0]:
                    break
            await asyncio.sleep(0.01)
        # As if the deletion had been lost, and the journal's note of it not been removed yet.
        ada._assembly.application._known.add(rows[0][1])  # type: ignore[union-attr]
        marks = ", ".join("?" * len(rows[0]))
        with database(tmp_path, "ada") as connection, connection:
            connection.execute(f"INSERT INTO zmesh_outbox VALUES ({marks})", rows[0])  # noqa: S608
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(bob.inbox()), 0.3)


async def test_each_effect_is_there_once_whatever_is_lost_after_it(tmp_path: Path) -> None:
    make_effects(tmp_path, "bob")
    async with life("ada", tmp_path) as ada:
        await ada.post_many("bob", range(30))
        async with life("bob", tmp_path, ada) as bob:
            await asyncio.wait_for(handle(bob, 10), 20)
        # The journal of this life is lost: the database alone knows.
        lose_journal(tmp_path, "bob")
        async with life("bob", tmp_path, ada) as bob:
            await asyncio.wait_for(handle(bob, 20), 20)
            await asyncio.wait_for(ada.flush(), 10)
    assert effects(tmp_path, "bob") == [*range(30)]


async def test_a_handler_that_raises_leaves_nothing_and_gets_it_again(tmp_path: Path) -> None:
    make_effects(tmp_path, "bob")
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        receipt = await ada.post("bob", 1)
        inbox = bob.inbox("manual")
        first = await asyncio.wait_for(anext(inbox), 10)
        with pytest.raises(ZeroDivisionError):
            await _write_and_raise(first)
        await first.fail("it raised")
        second = await asyncio.wait_for(anext(inbox), 10)
        assert second.attempt == 2
        async with second.transaction() as db:
            await db.execute("INSERT INTO effects VALUES (?)", (second.body,))
        assert await asyncio.wait_for(receipt, 10) == 1
    assert effects(tmp_path, "bob") == [1]


async def _write_and_raise(message: Message) -> None:
    async with message.transaction() as db:
        await db.execute("INSERT INTO effects VALUES (?)", (99,))
        raise ZeroDivisionError


async def test_the_inbox_forgets_what_does_not_come_again(tmp_path: Path) -> None:
    make_effects(tmp_path, "bob")
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        await ada.post_many("bob", range(10))
        await asyncio.wait_for(handle(bob, 10), 20)
        await asyncio.wait_for(ada.flush(), 10)

        async def is_empty() -> None:
            while True:
                with database(tmp_path, "bob") as connection:
                    (left,) = connection.execute("SELECT count(*) FROM zmesh_inbox").fetchone()
                if not left:
                    return
                await asyncio.sleep(0.05)

        await asyncio.wait_for(is_empty(), 20)


async def test_a_transaction_needs_a_sender_with_storage(tmp_path: Path) -> None:
    async with life("bob", tmp_path) as bob, Node("eve", mdns=False, peers=bob.endpoints) as eve:
        await eve.peers.wait_for(count=1, timeout=10)
        await eve.post("bob", 1)
        message = await asyncio.wait_for(anext(bob.inbox("manual")), 10)
        with pytest.raises(zmesh.NotDurable):
            async with message.transaction():
                pass
        await message.accept()


async def test_a_transaction_needs_storage(tmp_path: Path) -> None:
    async with life("ada", tmp_path) as ada, Node("eve", mdns=False, peers=ada.endpoints) as eve:
        await ada.post("eve", 1)
        message = await asyncio.wait_for(anext(eve.inbox("manual")), 10)
        with pytest.raises(zmesh.UsageError, match="no database"):
            message.transaction()


@pytest.mark.parametrize(
    ("option", "storage"),
    [
        ("database", {"database": 7}),
        ("synchronous", {"synchronous": "half"}),
        ("when_full", {"when_full": "panic"}),
        ("path", {"path": ""}),
    ],
)
def test_a_storage_that_cannot_work_is_refused(option: str, storage: dict[str, object]) -> None:
    with pytest.raises(zmesh.InvalidOption, match=option):
        Node("ada", storage=Storage(**{"path": "ada.journal", **storage}))  # type: ignore[arg-type]


async def test_what_is_left_for_queues_and_topics_gets_there(tmp_path: Path) -> None:
    async with (
        life("ada", tmp_path) as ada,
        life("bob", tmp_path, ada) as bob,
        bob.pull("work") as jobs,
        bob.subscribe("news.*", since="first") as news,
    ):
        with database(tmp_path, "ada") as connection, connection:
            zmesh.outbox.enqueue(connection, "a job", queue="work", priority=7)
            zmesh.outbox.enqueue(connection, "a word", topic="news.today", type="word")
        job = await asyncio.wait_for(anext(jobs), 10)
        assert (job.body, job.priority) == ("a job", 7)
        heard = await asyncio.wait_for(anext(news), 10)
        assert (heard.topic, heard.type, heard.body) == ("news.today", "word", "a word")


async def test_publications_have_their_effect_once_for_a_subscription_with_a_name(
    tmp_path: Path,
) -> None:
    make_effects(tmp_path, "bob")
    async with life("ada", tmp_path) as ada:
        async with life("bob", tmp_path, ada) as bob:
            await _have_effects_of(bob, ada, [1, 2, 3], lost=True)
        # That they were handled is in the database alone.
        async with life("bob", tmp_path, ada) as bob:
            await _have_effects_of(bob, ada, [4], lost=False)
    assert effects(tmp_path, "bob") == [1, 2, 3, 4]


async def _have_effects_of(bob: Node, ada: Node, numbers: list[int], *, lost: bool) -> None:
    """Publish numbers, and have their effects; or lose what the journal says of them."""
    async with bob.subscribe("numbers", name="count", settle="manual") as subscription:
        for number in numbers:
            await ada.publish("numbers", number, min_receivers=1, timeout=10)
        async for message in subscription:
            async with message.transaction() as db:
                await db.execute("INSERT INTO effects VALUES (?)", (message.body,))
                if lost and message.body == numbers[-1]:
                    bob._assembly.engine._turn.positions._save = lambda _: None  # type: ignore[union-attr,method-assign]
            if message.body == numbers[-1]:
                return


async def test_a_row_that_cannot_be_sent_does_not_hold_up_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with database(tmp_path, "ada") as connection, connection:
        zmesh.outbox.enqueue(connection, "wild", topic="news.today")
        zmesh.outbox.enqueue(connection, "fine", to="bob")
        # As if somebody had written rows without `enqueue`.
        connection.execute("UPDATE zmesh_outbox SET destination = 'a..b' WHERE verb = 'publish'")
        connection.execute("UPDATE zmesh_outbox SET id = ? WHERE verb = 'send'", ("x" * 32,))
    async with life("ada", tmp_path) as ada, life("bob", tmp_path, ada) as bob:
        assert (await asyncio.wait_for(anext(bob.inbox()), 10)).body == "fine"
    assert "is left out" in caplog.text
    with database(tmp_path, "ada") as connection:
        assert connection.execute("SELECT count(*) FROM zmesh_outbox").fetchone() == (0,)


def test_a_storage_that_is_named_twice_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "ada.journal")
    with pytest.raises(zmesh.InvalidOption, match="another file"):
        Node("ada", storage=Storage(tmp_path / "link", database=tmp_path / "ada.journal"))


async def test_a_link_to_a_journal_is_no_second_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "ada.journal")
    async with life("ada", tmp_path):
        with pytest.raises(zmesh.JournalLocked):
            await Node("eve", storage=tmp_path / "link", mdns=False).open()


@pytest.mark.parametrize("path", ["", ".", "nowhere/ada.journal", "fifo", ":memory:"])
def test_a_path_that_leads_to_no_file_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    for storage in (path, Storage(path), Storage("ada.journal", database=path)):
        with pytest.raises(zmesh.InvalidOption):
            Node("ada", storage=storage)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fifo"]
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("options", lambda: Storage("j", options={})),  # type: ignore[arg-type]
        ("retention", lambda: Storage("j", retention=7)),  # type: ignore[arg-type]
        ("synchronous", lambda: Storage("j", synchronous="off")),  # type: ignore[arg-type]
        ("when_full", lambda: Storage("j", when_full=None)),  # type: ignore[arg-type]
        ("cache_bytes", lambda: JournalOptions(cache_bytes="64M")),  # type: ignore[arg-type]
        ("journal_bytes_max", lambda: JournalOptions(journal_bytes_max=-5)),
        ("retry_full", lambda: JournalOptions(retry_full=0)),
        ("count", lambda: Retention(count=1.5)),  # type: ignore[arg-type]
        ("age", lambda: Retention(age=0)),
    ],
)
def test_bounds_that_cannot_work_are_refused_by_name(
    option: str, make: Callable[[], object]
) -> None:
    with pytest.raises(zmesh.InvalidOption, match=f"^{option}="):
        make()


async def test_a_database_that_is_not_there_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with life("ada", tmp_path):
        pass
    assert "ada.db yet, so nothing is in its outbox" in caplog.text
