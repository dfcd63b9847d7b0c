"""The relay: what is committed to an outbox reaches the node, in order, and is deleted then."""

import asyncio
import logging
import sqlite3
import statistics
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.memory import directory_in_memory
from tests.postgresql import Connect
from tests.processes import run
from zmesh import Closed, outbox
from zmesh.face.outbox_relay import OutboxRelay, SqliteSource
from zmesh.face.outbox_table import ROWS_MAX, OutboxRow

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def path() -> Iterator[Path]:
    with directory_in_memory() as directory:
        yield directory / "shop.db"


class Taker:
    """A node's journal as the relay sees it."""

    def __init__(self) -> None:
        self.calls: list[list[OutboxRow]] = []
        self.forgotten: list[str] = []
        self.failures: list[Exception] = []  # raised by the next calls
        self.gate = asyncio.Event()
        self.gate.set()
        self._changed = asyncio.Event()

    async def take(self, rows: Sequence[OutboxRow]) -> None:
        self.calls.append(list(rows))
        self._changed.set()
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)

    def forget(self, ids: Sequence[str]) -> None:
        self.forgotten += ids
        self._changed.set()

    @property
    def ids(self) -> list[str]:
        return [row.id for rows in self.calls for row in rows]

    async def until(self, condition: Callable[["Taker"], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def relaying(database: Any, taker: Taker, **options: Any) -> AsyncIterator[OutboxRelay]:
    loop = asyncio.get_running_loop()
    relay = OutboxRelay(loop, database, taker.take, taker.forget, **options)
    relay.start()
    try:
        yield relay
    finally:
        await relay.close()


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path)) as connection:
        outbox.create(connection)
        connection.commit()
        yield connection


def enqueued(connection: Any, count: int = 1) -> list[str]:
    ids = [outbox.enqueue(connection, each, to="printer") for each in range(count)]
    connection.commit()
    return ids


def rows_left(connection: Any) -> int:
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM zmesh_outbox")
    count: int = cursor.fetchone()[0]
    connection.rollback()
    return count


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in caplog.text:  # noqa: ASYNC110  # the log tells nobody
            await asyncio.sleep(0.01)


def spoil(path: Path) -> None:
    path.write_bytes(b"x" * 4096)


def open_files() -> set[str]:
    return {str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()}


async def test_what_was_there_and_what_comes_is_taken_in_order_and_deleted(path: Path) -> None:
    taker = Taker()
    with database(path) as connection:
        ids = enqueued(connection, ROWS_MAX + 10)
        async with relaying(path, taker):
            await taker.until(lambda taker: len(taker.forgotten) == len(ids))
            ids += enqueued(connection, 3)
            await taker.until(lambda taker: len(taker.forgotten) == len(ids))
        assert taker.ids == ids
        assert taker.forgotten == ids
        assert rows_left(connection) == 0
    assert [len(rows) for rows in taker.calls[:2]] == [ROWS_MAX, 10]


async def test_rows_are_deleted_only_once_they_were_taken(path: Path) -> None:
    taker = Taker()
    taker.gate.clear()
    with database(path) as connection:
        ids = enqueued(connection, 2)
        async with relaying(path, taker):
            await taker.until(lambda taker: bool(taker.calls))
            assert rows_left(connection) == 2
            assert taker.forgotten == []
            taker.gate.set()
            await taker.until(lambda taker: taker.forgotten == ids)
        assert rows_left(connection) == 0


async def test_rolled_back_message_is_never_taken(path: Path) -> None:
    taker = Taker()
    with database(path) as connection:
        async with relaying(path, taker):
            outbox.enqueue(connection, "never", to="printer")
            connection.rollback()
            ids = enqueued(connection)
            await taker.until(lambda taker: taker.forgotten == ids)
    assert taker.ids == ids


async def test_table_and_file_may_come_later(path: Path) -> None:
    taker = Taker()
    async with relaying(path, taker):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE orders (number)")
            connection.commit()
            ids = enqueued(connection)
        await taker.until(lambda taker: taker.forgotten == ids)
    assert taker.ids == ids


def test_relay_makes_no_file(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        SqliteSource(path)
    assert not path.exists()


@pytest.mark.parametrize("mode", ["wal", "delete"])
async def test_commit_of_another_process_is_noticed_soon(path: Path, mode: str) -> None:
    taker = Taker()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
    delays = []
    async with (
        run(str(PROGRAMS / "outbox_writer.py"), str(path), reads=True) as writer,
        relaying(path, taker),
    ):
        assert await writer.line() == "ready"
        for count in range(1, 21):
            await writer.tell(str(count))
            committed = float(await writer.line())
            await taker.until(lambda taker, count=count: len(taker.calls) == count)  # type: ignore[misc]
            delays.append(time.time() - committed)
            await taker.until(lambda taker, count=count: len(taker.forgotten) == count)  # type: ignore[misc]
    assert statistics.median(delays) < 1


async def test_rows_taken_by_a_process_that_was_killed_come_again(path: Path) -> None:
    with database(path) as connection:
        ids = enqueued(connection, 5)
        async with run(str(PROGRAMS / "outbox_killed.py"), str(path)) as killed:
            assert (await killed.line()).split() == ids
            status, _, _ = await killed.ended()
            assert status == -9
        assert rows_left(connection) == 5
        taker = Taker()
        async with relaying(path, taker):
            await taker.until(lambda taker: taker.forgotten == ids)
        assert taker.ids == ids


async def test_rows_being_taken_when_the_relay_closes_stay(path: Path) -> None:
    taker = Taker()
    taker.gate.clear()
    with database(path) as connection:
        ids = enqueued(connection)
        async with relaying(path, taker):
            await taker.until(lambda taker: bool(taker.calls))
        assert rows_left(connection) == 1
        assert taker.forgotten == []
        taker.gate.set()
        async with relaying(path, taker):
            await taker.until(lambda taker: taker.forgotten == ids)
    assert taker.ids == ids * 2


async def test_ids_known_from_the_last_life_whose_rows_are_gone_are_forgotten(path: Path) -> None:
    taker = Taker()
    taker.gate.clear()
    with database(path) as connection:
        [still_there] = enqueued(connection)
        gone = "f" * 32
        async with relaying(path, taker, known=[gone, still_there]):
            await taker.until(lambda taker: taker.forgotten == [gone])
            taker.gate.set()
            await taker.until(lambda taker: taker.forgotten == [gone, still_there])


async def test_failure_to_take_has_the_rows_come_again_and_is_told_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker()
    taker.failures = [ValueError("no room"), ValueError("no room")]
    with database(path) as connection, caplog.at_level(logging.WARNING):
        ids = enqueued(connection, 2)
        async with relaying(path, taker):
            await taker.until(lambda taker: taker.forgotten == ids)
    assert taker.ids == ids * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no room" in caplog.text


async def test_database_that_stays_locked_holds_up_deleting_and_nothing_else(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.face.outbox_relay.BUSY_TIMEOUT_S", 0.05)
    taker = Taker()
    with database(path) as connection, closing(sqlite3.connect(path)) as other:
        connection.execute("PRAGMA journal_mode = WAL")
        ids = enqueued(connection, 2)
        other.execute("BEGIN IMMEDIATE")
        with caplog.at_level(logging.WARNING):
            async with relaying(path, taker):
                await taker.until(lambda taker: bool(taker.calls))
                await until_logged(caplog, "locked")
                assert taker.forgotten == []
                other.rollback()
                await taker.until(lambda taker: taker.forgotten == ids)
        assert rows_left(connection) == 0
    assert taker.ids == ids  # and not taken twice
    assert len(caplog.records) == 1


async def test_file_that_is_replaced_is_opened_anew(path: Path) -> None:
    taker = Taker()
    with database(path) as connection:
        ids = enqueued(connection)
        async with relaying(path, taker):
            await taker.until(lambda taker: taker.forgotten == ids)
            other = path.with_suffix(".new")
            with database(other) as replacement:
                ids += enqueued(replacement)
            other.replace(path)
            await taker.until(lambda taker: taker.forgotten == ids)


async def test_file_that_is_no_database_is_told_and_waited_for(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker()
    spoil(path)
    with caplog.at_level(logging.WARNING):
        async with relaying(path, taker):
            await until_logged(caplog, "not a database")
            other = path.with_suffix(".new")
            with database(other) as replacement:
                ids = enqueued(replacement)
            other.replace(path)
            await taker.until(lambda taker: taker.forgotten == ids)


async def test_loop_goes_on_while_the_database_is_held(path: Path) -> None:
    with database(path) as connection, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        taker = Taker()
        async with relaying(path, taker):
            longest, last = 0.0, time.monotonic()
            for _ in range(20):
                await asyncio.sleep(0.01)
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
            other.rollback()
            ids = enqueued(connection)
            await taker.until(lambda taker: taker.forgotten == ids)
    assert longest < 2  # it would be 5 s, until SQLite gives up


async def test_relay_ends_when_the_node_is_closed(path: Path) -> None:
    taker = Taker()
    taker.failures = [Closed()]
    with database(path) as connection:
        enqueued(connection)
        async with relaying(path, taker) as relay:
            await taker.until(lambda taker: bool(taker.calls))
            async with asyncio.timeout(20):
                await relay._ended.wait()
        assert rows_left(connection) == 1


async def test_closing_leaves_no_thread_and_no_file_open(path: Path) -> None:
    before = threading.active_count()
    with database(path):
        async with relaying(path, Taker()) as relay:
            assert threading.active_count() == before + 1
        await relay.close()
        assert threading.active_count() == before
    assert not any(str(path) in name for name in open_files())


async def test_relay_that_never_started_closes() -> None:
    taker = Taker()
    await OutboxRelay(asyncio.get_running_loop(), "x", taker.take, taker.forget).close()


# Other databases


async def test_sqlite_connection_given_as_any_other_works(path: Path) -> None:
    taker = Taker()
    with database(path) as connection:
        async with relaying(lambda: sqlite3.connect(path), taker, interval=0.005):
            ids = enqueued(connection, 3)
            await taker.until(lambda taker: taker.forgotten == ids)
        assert rows_left(connection) == 0


async def test_postgresql_is_relayed_in_order(postgresql: Connect) -> None:
    taker = Taker()
    with closing(postgresql()) as connection:
        outbox.create(connection)
        connection.commit()
        ids = enqueued(connection, ROWS_MAX + 1)
        async with relaying(postgresql, taker):
            await taker.until(lambda taker: len(taker.forgotten) == len(ids))
            ids += enqueued(connection)
            await taker.until(lambda taker: len(taker.forgotten) == len(ids))
        assert taker.ids == ids
        assert rows_left(connection) == 0


async def test_postgresql_transaction_that_commits_late_is_taken_late(
    postgresql: Connect,
) -> None:
    taker = Taker()
    with closing(postgresql()) as slow, closing(postgresql()) as fast:
        outbox.create(fast)
        fast.commit()
        late = outbox.enqueue(slow, 1, to="printer")  # its sequence is the lower one
        async with relaying(postgresql, taker):
            [early] = enqueued(fast)
            await taker.until(lambda taker: taker.forgotten == [early])
            slow.commit()
            await taker.until(lambda taker: taker.forgotten == [early, late])


async def test_postgresql_connection_that_breaks_is_made_anew(
    postgresql: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker()
    with closing(postgresql()) as connection, caplog.at_level(logging.WARNING):
        outbox.create(connection)
        connection.commit()
        async with relaying(lambda: postgresql(application_name="relay"), taker):
            ids = enqueued(connection)
            await taker.until(lambda taker: taker.forgotten == ids)
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'relay'"
            )
            ids += enqueued(connection)
            await taker.until(lambda taker: taker.forgotten == ids)
    assert len(caplog.records) == 1
