"""The inbox in the application's database: a handler's writes and the message's outcome as one.

Each message that was handled in a transaction leaves a row, committed with what its handler
wrote. Where the process died before the sender heard of it, the message comes again, and the row
tells.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final

from zmesh.errors import Closed, UsageError
from zmesh.events import Source
from zmesh.face.application_database import Database
from zmesh.face.databases import Connection
from zmesh.face.inbox_table import MessageIdentity, Session
from zmesh.face.one_by_one import Worker
from zmesh.message import Record, Tag, extra
from zmesh.storage_errors import AlreadyHandled, NotDurable, TransactionFailed


def identity_of(record: Record, source: Source, scope: str | None) -> MessageIdentity | None:
    """Return what a message is known by, whatever life it comes in; None where nothing does.

    Args:
        record: the message.
        source: where it came from.
        scope: the name of the subscription it is for, which is known by its place in a log.
    """
    number, position = extra(record, Tag.STORED), extra(record, Tag.POSITION)
    if isinstance(number, int):
        return (source.node, source.journal, number)
    if isinstance(position, int) and scope is not None:
        return (source.node, source.journal + scope.encode(), position)
    return None


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
                "this node has no database: give it storage, as in Node(storage=PATH), or pass "
                "a connection, as in message.transaction(connection)"
            )
        return Transaction(self.database, identity, done, self._loop)
