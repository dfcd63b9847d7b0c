"""The inbox: what a handler writes, and that its message is done, are one transaction."""

import asyncio
import logging
import random
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.memory import directory_in_memory
from tests.postgresql import Connect
from tests.processes import run
from zmesh import AlreadyHandled, Closed, NotDurable, StorageError, TransactionFailed, UsageError
from zmesh.face import application_database as module
from zmesh.face.application_database import Database
from zmesh.face.inbox_table import Handled, MessageIdentity
from zmesh.face.transactions import Transactions

PROGRAMS = Path(__file__).parent / "programs"
NODE, JOURNAL = b"n" * 16, b"j" * 16


def identity(number: int = 1) -> MessageIdentity:
    return (NODE, JOURNAL, number)


@pytest.fixture
def path() -> Iterator[Path]:
    with directory_in_memory() as directory:
        path = directory / "shop.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE effects (number UNIQUE)")
            connection.commit()
        yield path


class Book:
    """The messages that were accepted."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self._came = asyncio.Event()

    def of(self, number: int) -> Any:
        def done() -> None:
            asyncio.get_running_loop()  # raises outside it
            self.done.append(number)
            self._came.set()

        return done

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.done) < count:
                self._came.clear()
                await self._came.wait()


@asynccontextmanager
async def opened(path: Any, **options: Any) -> AsyncIterator[Transactions]:
    database = Database(path, **options)
    try:
        yield Transactions(database, asyncio.get_running_loop())
    finally:
        await database.close()


def effects(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM effects ORDER BY 1")]


def noted(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT number FROM zmesh_inbox ORDER BY 1")]


async def fail(
    transactions: Transactions, number: int, book: Book, sql: str, connection: Any = None
) -> None:
    async with transactions.begin(identity(number), book.of(number), connection) as database:
        await database.execute(sql)
        raise ValueError("handler")


async def handle(transactions: Transactions, number: int, book: Book) -> None:
    async with transactions.begin(identity(number), book.of(number)) as database:
        await database.execute("INSERT INTO effects VALUES (?)", (number,))


# In the loop


async def test_writes_and_row_are_there_and_the_message_is_accepted_after_the_commit(
    path: Path,
) -> None:
    book = Book()
    async with opened(path) as transactions:
        async with transactions.begin(identity(), book.of(1)) as database:
            await database.execute("INSERT INTO effects VALUES (?)", (1,))
            assert book.done == []
            assert effects(path) == []
        assert book.done == [1]
        assert effects(path) == [1]
        assert noted(path) == [1]


async def test_exception_rolls_back_and_leaves_the_message_without_outcome(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        with pytest.raises(ValueError, match="handler"):
            await fail(transactions, 1, book, "INSERT INTO effects VALUES (1)")
        assert book.done == []
        assert effects(path) == []
        await handle(transactions, 1, book)  # it comes again
        assert book.done == [1]
        assert effects(path) == [1]


async def test_message_that_was_handled_is_accepted_and_not_handled_again(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        await handle(transactions, 1, book)
        with pytest.raises(AlreadyHandled, match="continue") as told:
            await handle(transactions, 1, book)
        assert told.value.number == 1
        assert book.done == [1, 1]
        await handle(transactions, 2, book)  # the database is free again
        assert effects(path) == [1, 2]


async def test_same_number_of_another_sender_or_journal_is_another_message(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        await handle(transactions, 1, book)
        for number, other in enumerate([(b"m" * 16, JOURNAL, 1), (NODE, b"k" * 16, 1)], 2):
            async with transactions.begin(other, book.of(number)) as database:
                await database.execute("INSERT INTO effects VALUES (?)", (number,))
        assert effects(path) == [1, 2, 3]


async def test_statements_have_rows_counts_and_errors(path: Path) -> None:
    async with opened(path) as transactions:
        async with transactions.begin(identity(), lambda: None) as database:
            written = await database.executemany(
                "INSERT INTO effects VALUES (?)", [(1,), (2,), (3,)]
            )
            assert (written, written.rowcount) == ([], 3)
            one = await database.execute("INSERT INTO effects VALUES (:number)", {"number": 4})
            assert one.lastrowid == 4
            with pytest.raises(sqlite3.IntegrityError):
                await database.execute("INSERT INTO effects VALUES (1)")
            rows = await database.execute("SELECT number FROM effects ORDER BY number")
            assert rows == [(1,), (2,), (3,), (4,)]
        assert effects(path) == [1, 2, 3, 4]


async def test_statement_after_the_block_is_refused(path: Path) -> None:
    async with opened(path) as transactions:
        async with transactions.begin(identity(), lambda: None) as database:
            pass
        with pytest.raises(UsageError, match="over"):
            await database.execute("INSERT INTO effects VALUES (1)")
    assert effects(path) == []


async def test_transactions_at_once_come_one_after_the_other(path: Path) -> None:
    book = Book()
    open_now = 0

    async def one(number: int) -> None:
        nonlocal open_now
        async with transactions.begin(identity(number), book.of(number)) as database:
            open_now += 1
            assert open_now == 1
            await database.execute("INSERT INTO effects VALUES (?)", (number,))
            await asyncio.sleep(0)
            open_now -= 1

    async with opened(path) as transactions:
        await asyncio.gather(*map(one, range(20)))
    assert book.done == list(range(20))
    assert effects(path) == list(range(20))


async def test_same_message_twice_at_once_has_its_effect_once(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        results = await asyncio.gather(
            handle(transactions, 1, book), handle(transactions, 1, book), return_exceptions=True
        )
    assert results[0] is None
    assert isinstance(results[1], AlreadyHandled)
    assert effects(path) == [1]


async def test_transaction_inside_another_is_refused_and_not_waited_for(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        async with transactions.begin(identity(1), book.of(1)):
            with pytest.raises(UsageError, match="open here already"):
                await handle(transactions, 2, book)
        assert book.done == [1]


async def test_transaction_is_entered_once(path: Path) -> None:
    async with opened(path) as transactions:
        transaction = transactions.begin(identity(), lambda: None)
        async with transaction:
            pass
        with pytest.raises(UsageError, match="once"):
            async with transaction:
                pass


async def test_cancelled_handler_is_rolled_back_and_leaves_the_database_free(path: Path) -> None:
    book = Book()
    inside = asyncio.Event()

    async def stuck() -> None:
        async with transactions.begin(identity(1), book.of(1)) as database:
            await database.execute("INSERT INTO effects VALUES (1)")
            inside.set()
            await asyncio.Event().wait()

    async with opened(path) as transactions:
        task = asyncio.create_task(stuck())
        await inside.wait()
        waiting = asyncio.create_task(handle(transactions, 2, book))
        third = asyncio.create_task(handle(transactions, 3, book))
        await asyncio.sleep(0)
        waiting.cancel()  # while it waits for its turn
        task.cancel()
        await third
        with suppress(asyncio.CancelledError):
            await task
        assert book.done == [3]
        assert effects(path) == [3]


async def test_cancelling_during_the_beginning_leaves_the_database_free(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        assert isinstance(transactions.database, Database)
        hold = threading.Event()
        transactions.database.worker.call(lambda: hold.wait(10))
        task = asyncio.create_task(handle(transactions, 1, book))
        await asyncio.sleep(0)  # its beginning waits behind what holds the thread
        task.cancel()
        asyncio.get_running_loop().call_later(0.05, hold.set)
        with pytest.raises(asyncio.CancelledError):
            await task
        await handle(transactions, 1, book)
    assert book.done == [1]
    assert effects(path) == [1]


async def test_cancelling_during_the_commit_does_not_lose_the_outcome(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        ending = asyncio.Event()

        async def one() -> None:
            async with transactions.begin(identity(1), book.of(1)) as database:
                await database.execute("INSERT INTO effects VALUES (1)")
                hold = threading.Event()
                assert isinstance(transactions.database, Database)
                transactions.database.worker.call(lambda: hold.wait(10))
                asyncio.get_running_loop().call_later(0.05, hold.set)
                ending.set()

        task = asyncio.create_task(one())
        await ending.wait()
        await asyncio.sleep(0)  # the commit waits behind what holds the thread
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert book.done == [1]
        assert effects(path) == [1]


async def test_loop_goes_on_while_another_process_has_the_write_lock(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        await handle(transactions, 1, book)
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            task = asyncio.create_task(handle(transactions, 2, book))
            begun = time.monotonic()
            await asyncio.sleep(0.05)
            assert time.monotonic() - begun < 2  # SQLite would give up after 5
            assert not task.done()
            other.rollback()
            await task
    assert effects(path) == [1, 2]


async def test_database_that_stays_locked_is_an_error_and_the_message_comes_again(
    path: Path,
) -> None:
    book = Book()
    async with opened(path, busy_timeout=0.05) as transactions:
        await handle(transactions, 1, book)
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TransactionFailed, match="locked") as told:
                await handle(transactions, 2, book)
            assert told.value.operation == "begin"
        await handle(transactions, 2, book)
    assert book.done == [1, 2]


async def test_commit_that_fails_leaves_the_message_without_outcome(path: Path) -> None:
    book = Book()
    transactions = Transactions(None, asyncio.get_running_loop())
    with closing(sqlite3.connect(path, check_same_thread=False)) as mine:
        mine.execute("PRAGMA foreign_keys = ON")
        mine.execute(
            "CREATE TABLE parts (whole REFERENCES effects (number) DEFERRABLE INITIALLY DEFERRED)"
        )
        with pytest.raises(TransactionFailed, match="FOREIGN KEY") as told:
            async with transactions.begin(identity(), book.of(1), mine) as database:
                await database.execute("INSERT INTO parts VALUES (99)")
        assert told.value.operation == "commit"
        assert book.done == []
        async with transactions.begin(identity(), book.of(1), mine) as database:
            assert await database.execute("SELECT * FROM parts") == []
    assert book.done == [1]


async def test_transaction_ended_inside_its_block_is_told(path: Path) -> None:
    book = Book()
    async with opened(path) as transactions:
        with pytest.raises(UsageError, match="ended inside its block"):
            async with transactions.begin(identity(), book.of(1)) as database:
                await database.execute("COMMIT")
    assert book.done == []


async def test_sender_without_journal_is_refused(path: Path) -> None:
    async with opened(path) as transactions:
        with pytest.raises(NotDurable, match="storage"):
            async with transactions.begin(None, lambda: None):
                pass
        with pytest.raises(NotDurable), transactions.begin(None, lambda: None):
            pass


async def test_node_without_database_says_how_to_have_one() -> None:
    transactions = Transactions(None, asyncio.get_running_loop())
    with pytest.raises(UsageError, match="storage=PATH"):
        transactions.begin(identity(), lambda: None)


async def test_path_that_is_no_database_is_an_error(path: Path) -> None:
    async with opened(path.parent) as transactions:
        with pytest.raises(TransactionFailed, match="open"):
            await handle(transactions, 1, Book())
        assert isinstance(transactions.database, Database)
        with pytest.raises(StorageError):
            await transactions.database.load()


# In threads


async def test_plain_handler_has_a_real_connection_and_its_message_is_accepted(
    path: Path,
) -> None:
    book = Book()

    def handler() -> None:
        with transactions.begin(identity(), book.of(1)) as connection:
            assert isinstance(connection, sqlite3.Connection)
            connection.execute("INSERT INTO effects VALUES (1)")

    async with opened(path) as transactions:
        await asyncio.to_thread(handler)
        await book.until(1)
        assert effects(path) == [1]
        with pytest.raises(AlreadyHandled):
            await asyncio.to_thread(handler)
        await book.until(2)
    assert effects(path) == [1]


async def test_plain_handler_that_raises_is_rolled_back(path: Path) -> None:
    book = Book()

    def handler() -> None:
        with transactions.begin(identity(), book.of(1)) as connection:
            connection.execute("INSERT INTO effects VALUES (1)")
            raise ValueError("handler")

    async with opened(path) as transactions:
        with pytest.raises(ValueError, match="handler"):
            await asyncio.to_thread(handler)
        await handle(transactions, 2, book)
    assert book.done == [2]
    assert effects(path) == [2]


async def test_threads_and_coroutines_take_turns(path: Path) -> None:
    book = Book()

    def handler(number: int) -> None:
        with transactions.begin(identity(number), book.of(number)) as connection:
            connection.execute("INSERT INTO effects VALUES (?)", (number,))

    loop = asyncio.get_running_loop()
    async with opened(path) as transactions:
        with ThreadPoolExecutor(4) as pool:
            await asyncio.gather(
                *(loop.run_in_executor(pool, handler, number) for number in range(20)),
                *(handle(transactions, number, book) for number in range(20, 40)),
            )
        await book.until(40)
    assert effects(path) == list(range(40))


async def test_plain_block_in_the_loop_is_refused(path: Path) -> None:
    async with opened(path) as transactions:
        with (
            pytest.raises(UsageError, match="async with"),
            transactions.begin(identity(), lambda: None),
        ):
            pass
        await handle(transactions, 1, Book())


async def test_script_that_commits_is_told(path: Path) -> None:
    def handler() -> None:
        with transactions.begin(identity(), lambda: None) as connection:
            connection.executescript("INSERT INTO effects VALUES (1)")

    async with opened(path) as transactions:
        with pytest.raises(UsageError, match="executescript"):
            await asyncio.to_thread(handler)


# What is handled, from life to life


@pytest.mark.parametrize(
    ("moment", "expected"), [("before the commit", []), ("after the commit", [7])]
)
async def test_killed_process_leaves_both_effect_and_row_or_neither(
    path: Path, moment: str, expected: list[int]
) -> None:
    async with run(str(PROGRAMS / "inbox_killed.py"), str(path), moment) as killed:
        status, _, error = await killed.ended()
        assert status == -9, error
    assert effects(path) == expected
    book = Book()
    async with opened(path) as transactions:
        assert isinstance(transactions.database, Database)
        found = await transactions.database.load()
        assert found == [Handled(NODE, JOURNAL, ((7, 7),)) for _ in expected]
        with suppress(AlreadyHandled):
            await handle(transactions, 7, book)
    assert effects(path) == [7]
    assert book.done == [7]


async def test_process_killed_at_any_moment_has_each_effect_once(path: Path) -> None:
    count = 500
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE effects")
        connection.execute("CREATE TABLE effects (number)")  # which would take one twice
    chance = random.Random(7)
    for _ in range(5):
        async with run(str(PROGRAMS / "inbox_life.py"), str(path), str(count)) as life:
            assert await life.line() == "begins"
            await asyncio.sleep(chance.uniform(0.0, 0.05))
            life.process.kill()
            _, _, error = await life.ended()
            assert error == ""
        there = effects(path)
        assert there == list(range(len(there)))
    async with run(str(PROGRAMS / "inbox_life.py"), str(path), str(count)) as life:
        status, _, error = await life.ended()
        assert status == 0, error
    assert effects(path) == list(range(count))


async def test_what_was_handled_is_loaded_as_ranges(path: Path) -> None:
    other = b"k" * 16
    async with opened(path) as transactions:
        database = transactions.database
        assert isinstance(database, Database)
        assert await database.load() == []
        for number in (1, 2, 3, 7):
            await handle(transactions, number, Book())
        async with transactions.begin((NODE, other, 5), lambda: None):
            pass
    async with opened(path) as transactions:
        database = transactions.database
        assert isinstance(database, Database)
        assert await database.load() == [
            Handled(NODE, JOURNAL, ((1, 3), (7, 7))),
            Handled(NODE, other, ((5, 5),)),
        ]


async def test_loading_makes_no_file(path: Path) -> None:
    missing = path.with_suffix(".none")
    async with opened(missing) as transactions:
        assert isinstance(transactions.database, Database)
        assert await transactions.database.load() == []
        transactions.database.forget(NODE, JOURNAL, below=10)
    assert set(files_beside(path)) == {"shop.db"}


def files_beside(path: Path) -> list[str]:
    return [each.name for each in path.parent.iterdir()]


async def test_what_the_sender_no_longer_has_is_removed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_AFTER_S", 0.001)
    async with opened(path) as transactions:
        database = transactions.database
        assert isinstance(database, Database)
        for number in range(1, 11):
            await handle(transactions, number, Book())
        database.forget(NODE, JOURNAL, ((7, 8),), below=4)
        database.forget(NODE, b"k" * 16, below=100)
        async with asyncio.timeout(20):
            while noted(path) != [4, 5, 6, 9, 10]:  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.01)


async def test_closing_removes_what_was_to_be_removed_later(path: Path) -> None:
    async with opened(path) as transactions:
        assert isinstance(transactions.database, Database)
        await handle(transactions, 1, Book())
        await handle(transactions, 2, Book())
        transactions.database.forget(NODE, JOURNAL, below=2)
    assert noted(path) == [2]


async def test_removing_waits_for_a_transaction_that_is_open(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_AFTER_S", 0.0)
    async with opened(path) as transactions:
        database = transactions.database
        assert isinstance(database, Database)
        await handle(transactions, 1, Book())
        async with transactions.begin(identity(2), lambda: None) as inside:
            database.forget(NODE, JOURNAL, below=2)
            for _ in range(20):
                assert await inside.execute("SELECT number FROM zmesh_inbox") == [(1,), (2,)]
    assert noted(path) == [2]


async def until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(20):
        while text not in caplog.text:  # noqa: ASYNC110  # the log tells nobody
            await asyncio.sleep(0.01)


async def test_removing_is_tried_again_where_the_database_was_locked(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(module, "FORGET_AFTER_S", 0.001)
    async with opened(path, busy_timeout=0.01) as transactions:
        database = transactions.database
        assert isinstance(database, Database)
        await handle(transactions, 1, Book())
        with closing(sqlite3.connect(path)) as other:
            other.execute("BEGIN IMMEDIATE")
            database.forget(NODE, JOURNAL, below=2)
            await until_logged(caplog, "cannot forget")
            other.rollback()
        async with asyncio.timeout(20):
            while noted(path) != []:  # noqa: ASYNC110  # the database tells nobody
                await asyncio.sleep(0.01)


# The end


async def test_closing_leaves_no_thread_and_refuses_what_comes(path: Path) -> None:
    before = threading.active_count()
    async with opened(path) as transactions:
        await handle(transactions, 1, Book())
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    with pytest.raises(Closed):
        await handle(transactions, 2, Book())
    assert isinstance(transactions.database, Database)
    await transactions.database.close()


async def test_transaction_that_does_not_end_is_rolled_back_by_closing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.05)
    book = Book()
    inside, over = asyncio.Event(), asyncio.Event()

    async def stuck() -> None:
        async with transactions.begin(identity(1), book.of(1)) as database:
            await database.execute("INSERT INTO effects VALUES (1)")
            inside.set()
            await over.wait()

    async with opened(path) as transactions:
        task = asyncio.create_task(stuck())
        await inside.wait()
        waiting = asyncio.create_task(handle(transactions, 2, book))
        await asyncio.sleep(0)
    over.set()
    for each in (task, waiting):
        with pytest.raises(Closed):
            await each
    assert book.done == []
    assert effects(path) == []


# Databases that the application connects to


async def test_connection_that_the_application_opens_is_as_it_wants_it(path: Path) -> None:
    book = Book()

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False)
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    async with opened(connect) as transactions:
        async with transactions.begin(identity(1), book.of(1)) as database:
            await database.execute("CREATE TABLE parts (whole REFERENCES effects (number))")
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            await fail(transactions, 2, book, "INSERT INTO parts VALUES (99)")
        await handle(transactions, 3, book)
        assert transactions.database is not None
        assert await transactions.database.load() == [Handled(NODE, JOURNAL, ((1, 1), (3, 3)))]
        transactions.database.forget(NODE, JOURNAL, below=2)
    assert book.done == [1, 3]
    assert noted(path) == [3]


async def test_application_that_cannot_connect_is_an_error() -> None:
    def connect() -> sqlite3.Connection:
        raise OSError("no route")

    async with opened(connect) as transactions:
        with pytest.raises(TransactionFailed, match="no route"):
            await handle(transactions, 1, Book())


async def test_postgresql_as_the_database_of_the_node(postgresql: Connect) -> None:
    book = Book()
    async with opened(postgresql) as transactions:
        database = transactions.database
        assert database is not None
        database.forget(NODE, JOURNAL, below=1)
        assert await database.load() == []
        for number in (1, 2, 3, 5):
            async with transactions.begin(identity(number), book.of(number)):
                pass
        with pytest.raises(AlreadyHandled):
            await handle(transactions, 5, book)
        database.forget(NODE, JOURNAL, ((5, 9),), below=2)
    async with opened(postgresql) as transactions:
        assert transactions.database is not None
        assert await transactions.database.load() == [Handled(NODE, JOURNAL, ((2, 3),))]
    assert book.done == [1, 2, 3, 5, 5]


def end_connections(postgresql: Connect) -> None:
    with closing(postgresql()) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'inbox'"
        )


async def test_postgresql_that_was_away_is_connected_to_again(postgresql: Connect) -> None:
    psycopg = pytest.importorskip("psycopg")
    book = Book()

    async def interrupted() -> None:
        async with transactions.begin(identity(3), book.of(3)) as database:
            end_connections(postgresql)
            await database.execute("SELECT 1")

    async with opened(lambda: postgresql(application_name="inbox")) as transactions:
        async with transactions.begin(identity(1), book.of(1)):
            pass
        end_connections(postgresql)
        async with transactions.begin(identity(2), book.of(2)):
            pass
        with pytest.raises(psycopg.OperationalError):
            await interrupted()
        async with transactions.begin(identity(3), book.of(3)):
            pass
    assert book.done == [1, 2, 3]


async def test_postgresql_that_goes_away_before_the_commit_is_an_error(
    postgresql: Connect,
) -> None:
    book = Book()
    async with opened(lambda: postgresql(application_name="inbox")) as transactions:
        with pytest.raises(TransactionFailed) as told:
            async with transactions.begin(identity(), book.of(1)):
                end_connections(postgresql)
        assert told.value.operation == "commit"
        assert book.done == []
        async with transactions.begin(identity(), book.of(1)):
            pass
    assert book.done == [1]


# Other connections


async def test_plain_connection_of_the_application_is_used_and_given_back(path: Path) -> None:
    book = Book()
    transactions = Transactions(None, asyncio.get_running_loop())

    def handler(number: int) -> None:
        with closing(sqlite3.connect(path)) as mine:
            with transactions.begin(identity(number), book.of(number), mine) as connection:
                assert connection is mine
                mine.execute("INSERT INTO effects VALUES (?)", (number,))
            assert not mine.in_transaction

    await asyncio.to_thread(handler, 1)
    await book.until(1)
    with pytest.raises(AlreadyHandled):
        await asyncio.to_thread(handler, 1)
    await asyncio.to_thread(handler, 2)
    assert effects(path) == [1, 2]


async def test_connection_in_a_transaction_of_its_own_is_refused_and_left_alone(
    path: Path,
) -> None:
    transactions = Transactions(None, asyncio.get_running_loop())
    with closing(sqlite3.connect(path, check_same_thread=False)) as mine:
        mine.execute("INSERT INTO effects VALUES (1)")
        with pytest.raises(UsageError, match="in a transaction already"):
            async with transactions.begin(identity(), lambda: None, mine):
                pass
        mine.commit()
    assert effects(path) == [1]


async def test_connection_of_another_transaction_is_refused(path: Path) -> None:
    transactions = Transactions(None, asyncio.get_running_loop())
    with closing(sqlite3.connect(path, check_same_thread=False)) as mine:
        async with transactions.begin(identity(1), lambda: None, mine):
            with pytest.raises(UsageError, match="a connection of its own"):
                async with transactions.begin(identity(2), lambda: None, mine):
                    pass
        async with transactions.begin(identity(2), lambda: None, mine):
            pass
    assert noted(path) == [1, 2]


async def test_connection_for_one_thread_alone_says_so_and_is_free_again(path: Path) -> None:
    transactions = Transactions(None, asyncio.get_running_loop())
    with closing(sqlite3.connect(path)) as mine:
        for _ in range(2):
            with pytest.raises(TransactionFailed, match="thread"):
                async with transactions.begin(identity(), lambda: None, mine):
                    pass


async def test_postgresql_commits_effect_and_row_together(postgresql: Connect) -> None:
    book = Book()
    transactions = Transactions(None, asyncio.get_running_loop())
    with closing(postgresql()) as mine:
        mine.execute("CREATE TABLE effects (number INTEGER)")
        mine.commit()
        with pytest.raises(ValueError, match="handler"):
            await fail(transactions, 1, book, "INSERT INTO effects VALUES (1)", mine)
        assert book.done == []
        async with transactions.begin(identity(), book.of(1), mine) as database:
            await database.execute("INSERT INTO effects VALUES (%s)", (1,))
        with pytest.raises(AlreadyHandled):
            async with transactions.begin(identity(), book.of(1), mine):
                pass
        with transactions.begin(identity(2), book.of(2), mine) as connection:
            assert connection is mine
            connection.execute("INSERT INTO effects VALUES (2)")
        await book.until(3)
    with closing(postgresql()) as other:
        rows = other.execute("SELECT number FROM effects ORDER BY 1").fetchall()
    assert rows == [(1,), (2,)]
    assert book.done == [1, 1, 2]


async def test_postgresql_transaction_whose_error_was_swallowed_is_not_accepted(
    postgresql: Connect,
) -> None:
    psycopg = pytest.importorskip("psycopg")
    book = Book()
    transactions = Transactions(None, asyncio.get_running_loop())

    async def swallowing() -> None:
        async with transactions.begin(identity(), book.of(1), mine) as database:
            with suppress(psycopg.Error):
                await database.execute("SELECT nonsense")

    with closing(postgresql()) as mine:
        with pytest.raises(TransactionFailed, match="aborted"):
            await swallowing()
        assert book.done == []
        async with transactions.begin(identity(), book.of(1), mine):
            pass
    assert book.done == [1]


async def test_postgresql_that_commits_each_statement_is_refused(postgresql: Connect) -> None:
    transactions = Transactions(None, asyncio.get_running_loop())
    with (
        closing(postgresql(autocommit=True)) as mine,
        pytest.raises(UsageError, match="autocommit"),
    ):
        async with transactions.begin(identity(), lambda: None, mine):
            pass


async def test_postgresql_has_one_of_two_at_once_handle_the_message(postgresql: Connect) -> None:
    book = Book()
    transactions = Transactions(None, asyncio.get_running_loop())

    async def one(mine: Any) -> None:
        async with transactions.begin(identity(), book.of(1), mine) as database:
            await database.execute("INSERT INTO effects VALUES (1)")

    with closing(postgresql()) as first, closing(postgresql()) as second:
        first.execute("CREATE TABLE effects (number INTEGER)")
        first.commit()
        results = await asyncio.gather(one(first), one(second), return_exceptions=True)
        assert sorted(type(each).__name__ for each in results) == ["AlreadyHandled", "NoneType"]
        assert first.execute("SELECT count(*) FROM effects").fetchall() == [(1,)]
