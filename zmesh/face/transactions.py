"""The inbox in the application's database: a handler's writes and the message's outcome as one.

Each message that was handled in a transaction leaves a row, committed with what its handler
wrote. Where the process died before the sender heard of it, the message comes again, and the row
tells.
"""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

from zmesh.errors import (
    AlreadyHandled,
    Closed,
    NotDurable,
    StorageError,
    TransactionFailed,
    UsageError,
)
from zmesh.face import inbox_table
from zmesh.face.databases import Connect, Connection, Dialect, execute
from zmesh.face.inbox_table import Handled, MessageIdentity, Session
from zmesh.face.one_by_one import Line, Worker
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import Ranges

T = TypeVar("T")

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 5.0
"""For another process that writes: longer than its transactions should take."""

FORGET_AFTER_S: Final = 1.0
"""What is to be forgotten is gathered for so long: a commit costs a sync, however much it does."""

CLOSE_TIMEOUT_S: Final = 1.0
"""For a transaction that is open when the database closes; then it is rolled back."""

_WHAT: Final = "transaction of a message"


class Rows(list[Any]):
    """The rows of a statement, as a list of tuples, and what else it said."""

    def __init__(self, cursor: Any) -> None:
        super().__init__(cursor.fetchall() if cursor.description else ())
        self.rowcount: int = cursor.rowcount
        self.lastrowid: int | None = getattr(cursor, "lastrowid", None)


class AsyncDatabase:
    """The database within one transaction; statements run in its thread, in order."""

    def __init__(self, connection: Connection, worker: Worker) -> None:
        self._connection = connection
        self._worker = worker
        self._is_over = False

    async def execute(self, sql: str, parameters: Any = ()) -> Rows:
        """Execute a statement, and return its rows, with `rowcount` and `lastrowid`.

        Raises:
            UsageError: the block of the transaction is over.
            What the database raises: the application's own affair.
        """
        return await self._run(lambda cursor: cursor.execute(sql, parameters or ()))

    async def executemany(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Execute a statement once for each of `parameters`; otherwise as `execute`."""
        return await self._run(lambda cursor: cursor.executemany(sql, parameters))

    async def _run(self, order: Callable[[Any], object]) -> Rows:
        if self._is_over:
            raise UsageError("this transaction is over: use it inside its `async with` block")

        def job() -> Rows:
            cursor = self._connection.cursor()
            try:
                order(cursor)
                return Rows(cursor)
            finally:
                cursor.close()

        return await self._worker.run(job)

    def end(self) -> None:
        """Take no more statements."""
        self._is_over = True


class Database:
    """The application's database, as one node writes to it.

    One transaction at a time has its connection, whether in its thread or in a handler's.

    Args:
        database: path of an SQLite file, made where there is none with the first transaction; or
            what returns a new DB-API connection. It is used in several threads, one at a time:
            sqlite3 needs `check_same_thread=False` for that.
        busy_timeout: seconds a transaction waits for other processes that write; of a path.
    """

    def __init__(
        self, database: Path | str | Connect, *, busy_timeout: float = BUSY_TIMEOUT_S
    ) -> None:
        self._database = Path(database) if isinstance(database, str) else database
        self._busy_timeout = busy_timeout
        self._connection: Connection | None = None
        self.line = Line(_WHAT)
        self.worker = Worker("zmesh-database")
        self._forgotten: dict[tuple[bytes, bytes], RangeSet] = {}
        self._forgetting: asyncio.Task[None] | None = None
        self._is_closing = False

    def connect(self) -> Connection:
        """Return the connection, opened; for whoever has the turn, in a thread.

        Raises:
            TransactionFailed: it cannot be opened.
        """
        if self.is_gone:
            self.disconnect()
        if self._connection is None:
            try:
                self._connection = self._open()
            except Exception as error:  # whatever the application's own code raises
                raise TransactionFailed("open", str(error)) from error
        return self._connection

    def _open(self) -> Connection:
        if not isinstance(self._database, Path):
            return self._database()
        connection = sqlite3.connect(
            self._database,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            execute(connection, "PRAGMA journal_mode = WAL")
            # The sender forgets the message once it is told: a power cut must not take the row.
            execute(connection, "PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    @property
    def is_gone(self) -> bool:
        """Whether the server at the other end is gone, as far as the connection tells."""
        return bool(getattr(self._connection, "closed", False))

    def disconnect(self) -> None:
        """Close the connection, which is of no use any more; for whoever has the turn."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Dialect(connection).error):
                connection.close()

    @property
    def _is_absent(self) -> bool:
        return isinstance(self._database, Path) and not self._database.exists()

    async def load(self) -> list[Handled]:
        """Return which messages were handled: at the start of the node.

        Raises:
            StorageError: the database cannot be read.
        """
        await self.line.take()
        try:
            return await self.worker.run(self._load)
        finally:
            self.line.leave()

    def _load(self) -> list[Handled]:
        if self._is_absent:
            return []
        try:
            return self._using(inbox_table.handled)
        except TransactionFailed as error:
            raise StorageError(
                f"which messages were handled cannot be read ({error.reason}): look at the "
                "database, then start the node again"
            ) from error

    def _using(self, function: Callable[[Connection], T]) -> T:
        """Return what a function of the connection returns; TransactionFailed where it fails."""
        connection = self.connect()
        try:
            return function(connection)
        except Dialect(connection).error as error:
            self.disconnect()
            raise TransactionFailed("look into", str(error)) from error

    def forget(self, node: bytes, journal: bytes, ranges: Ranges = (), below: int = 0) -> None:
        """Forget messages that their sender no longer has, soon.

        Args:
            node: the sender.
            journal: its journal.
            ranges: of numbers, inclusive.
            below: all numbers under this too.
        """
        numbers = self._forgotten.setdefault((node, journal), RangeSet())
        numbers.add(0, below - 1)
        for first, last in ranges:
            numbers.add(first, last)
        if self._forgetting is None and not self._is_closing:
            self._forgetting = asyncio.get_running_loop().create_task(self._forget_soon())

    async def _forget_soon(self) -> None:
        try:
            while self._forgotten:
                await asyncio.sleep(FORGET_AFTER_S)
                await self._forget_now()
        finally:
            self._forgetting = None

    async def _forget_now(self) -> None:
        await self.line.take()
        try:
            await self._try_to_remove()
        finally:
            self.line.leave()

    async def _try_to_remove(self) -> None:
        forgotten, self._forgotten = self._forgotten, {}
        try:
            await self.worker.run(lambda: self._remove(forgotten))
        except TransactionFailed as error:
            logger.debug("cannot forget handled messages yet: %s", error.reason)
            for (node, journal), numbers in forgotten.items():
                self.forget(node, journal, numbers.as_tuple())

    def _remove(self, forgotten: dict[tuple[bytes, bytes], RangeSet]) -> None:
        if not self._is_absent:
            self._using(lambda connection: inbox_table.forget(connection, forgotten))

    async def close(self) -> None:
        """Forget what is to be forgotten, and close; an open transaction has a second to end."""
        if self._is_closing:
            return
        self._is_closing = True
        if self._forgetting is not None:
            self._forgetting.cancel()
            with suppress(asyncio.CancelledError):
                await self._forgetting
        turn = asyncio.wrap_future(self.line.close())
        await asyncio.wait([turn], timeout=CLOSE_TIMEOUT_S)
        if turn.done() and self._forgotten:
            await self._try_to_remove()
        await self.worker.run(self.disconnect)
        self.worker.close()
        self.worker.join(CLOSE_TIMEOUT_S)  # it has nothing left to do


class _Lent:
    """A connection of the application's own, for one transaction at a time."""

    _in_use: Final[set[int]] = set()
    _lock: Final = threading.Lock()

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.worker = Worker("zmesh-database")
        self.is_gone = False  # there is no other

    def connect(self) -> Connection:
        """Return it."""
        return self._connection

    def disconnect(self) -> None:
        """Leave it as it is: it is the application's."""

    def take(self) -> None:
        """Have it alone.

        Raises:
            UsageError: another transaction has it.
        """
        with self._lock:
            if id(self._connection) in self._in_use:
                raise UsageError(
                    "this connection is in the transaction of another message: give each handler "
                    "that runs at the same time a connection of its own"
                )
            self._in_use.add(id(self._connection))

    def leave(self) -> None:
        """Leave it to others."""
        self.worker.close()
        with self._lock:
            self._in_use.discard(id(self._connection))


class Transaction:
    """The transaction of one message; as `async with`, or as `with` in a handler's thread.

    `async with` has an `AsyncDatabase`, `with` the connection itself. The end of the block
    commits, and accepts the message; an exception rolls back, and leaves it without outcome.
    """

    def __init__(
        self,
        place: Database | Connection,
        identity: MessageIdentity | None,
        done: Callable[[], object],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._place = place if isinstance(place, Database) else _Lent(place)
        self._identity = identity
        self._done = done
        self._loop = loop
        self._session: Session | None = None
        self._database: AsyncDatabase | None = None
        self._was_entered = False

    def _enter(self) -> MessageIdentity:
        if self._identity is None:
            raise NotDurable("message.transaction()")
        if self._was_entered:
            raise UsageError("a transaction is entered once: call message.transaction() again")
        self._was_entered = True
        return self._identity

    def _begin(self, identity: MessageIdentity) -> Session:
        try:
            return self._begin_once(identity)
        except TransactionFailed:
            if not self._place.is_gone:
                self._place.disconnect()
                raise
        # A server that was restarted since: nothing was done yet, so try another connection.
        return self._begin_once(identity)

    def _begin_once(self, identity: MessageIdentity) -> Session:
        session = self._session = Session(self._place.connect(), identity)
        session.begin()
        return session

    def _end(self, session: Session, *, is_clean: bool) -> None:
        if not is_clean:
            session.rollback()
            return
        try:
            session.commit()
        except TransactionFailed:
            self._place.disconnect()
            raise

    # In the loop

    async def __aenter__(self) -> AsyncDatabase:
        identity = self._enter()
        place = self._place
        if isinstance(place, Database):
            await place.line.take()
        else:
            place.take()
        try:
            session = await place.worker.run(lambda: self._begin(identity))
        except BaseException as error:
            await self._abandon()
            if isinstance(error, AlreadyHandled):
                self._done()
            raise
        self._database = AsyncDatabase(session.connection, place.worker)
        return self._database

    async def _abandon(self) -> None:
        session = self._session
        try:
            if session is not None and session.is_open:
                await self._place.worker.run(session.rollback)
        finally:
            self._leave()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session, database = self._session, self._database
        assert session is not None  # noqa: S101  # it was entered
        assert database is not None  # noqa: S101
        database.end()
        try:
            await self._place.worker.run(lambda: self._end(session, is_clean=error is None))
        except Closed:
            # With the database everything open was rolled back; an error goes on by itself.
            if error is None:
                raise
        finally:
            self._leave()
            if session.is_committed:
                self._done()

    def _leave(self) -> None:
        if isinstance(self._place, Database):
            self._place.line.leave()
        else:
            self._place.leave()

    # In a thread

    def __enter__(self) -> Any:
        identity = self._enter()
        place = self._place
        if isinstance(place, Database):
            _check_may_block()
            place.line.take_in_thread()
        else:
            place.take()
        try:
            return self._begin(identity).connection
        except BaseException as error:
            if self._session is not None:
                self._session.rollback()
            self._leave()
            if isinstance(error, AlreadyHandled):
                self._tell_done()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        session = self._session
        assert session is not None  # noqa: S101  # it was entered
        try:
            self._end(session, is_clean=error is None)
        finally:
            self._leave()
        if session.is_committed:
            self._tell_done()

    def _tell_done(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._done)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            # The node is gone; its next life finds the row.


def _check_may_block() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise UsageError(
        "`with message.transaction()` would hold up the event loop: use `async with` here, or a "
        "plain function as the handler, which runs in a thread"
    )


class Transactions:
    """Makes the transactions of one node's messages.

    Args:
        database: the node's own, if it was given one.
        loop: that `done` is called in.
    """

    def __init__(self, database: Database | None, loop: asyncio.AbstractEventLoop) -> None:
        self.database = database
        self._loop = loop

    def begin(
        self,
        identity: MessageIdentity | None,
        done: Callable[[], object],
        connection: Connection | None = None,
    ) -> Transaction:
        """Return the transaction of a message; entering it begins.

        Args:
            identity: of the message: origin, its journal and the number in it; None where the
                sender keeps no journal, which entering refuses.
            done: accepts the message; called in the loop, once the transaction is committed.
            connection: of another database than the node's own.

        Raises:
            UsageError: there is no database.
        """
        if connection is not None:
            return Transaction(connection, identity, done, self._loop)
        if self.database is None:
            raise UsageError(
                "this node has no database: give it one with zmesh.Node(..., database=PATH), or "
                "pass a connection, as in message.transaction(connection)"
            )
        return Transaction(self.database, identity, done, self._loop)
