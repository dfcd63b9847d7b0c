"""The application's database as one node writes to it, and what it says of handled messages."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from zmesh.face import inbox_table
from zmesh.face.databases import Connect, Connection, Dialect, execute
from zmesh.face.inbox_table import Handled
from zmesh.face.one_by_one import Line, Worker
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import Ranges
from zmesh.storage_errors import StorageError, TransactionFailed

T = TypeVar("T")

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S: Final = 5.0
"""For another process that writes: longer than its transactions should take."""

FORGET_AFTER_S: Final = 1.0
"""What is to be forgotten is gathered for so long: a commit costs a sync, however much it does."""

CLOSE_TIMEOUT_S: Final = 1.0
"""For a transaction that is open when the database closes; then it is rolled back."""

_WHAT: Final = "transaction of a message"


class Database:
    """The application's database, as one node writes to it.

    One transaction at a time has its connection, whether in its thread or in a handler's.

    Args:
        database: path of an SQLite file, made where there is none with the first transaction; or
            what returns a new DB-API connection. It is used in several threads, one at a time:
            sqlite3 needs `check_same_thread=False` for that.
        busy_timeout: seconds a transaction waits for other processes that write; of a path.
        is_private: whether a file that is made here is for its owner alone.
    """

    def __init__(
        self,
        database: Path | str | Connect,
        *,
        busy_timeout: float = BUSY_TIMEOUT_S,
        is_private: bool = False,
    ) -> None:
        self._is_private = is_private
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
        if self._is_private:
            # SQLite gives its own files the mode of this one, and would make it by the umask.
            os.close(os.open(self._database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
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
