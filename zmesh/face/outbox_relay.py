"""From the outbox in the application's database to the node, by a thread of its own."""

import asyncio
import logging
import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

from zmesh.errors import Closed
from zmesh.face import outbox_table
from zmesh.face.databases import (
    Connect,
    Connection,
    Dialect,
    begin,
    commit,
    execute,
    roll_back,
    rows_of,
)
from zmesh.face.outbox_table import TABLE, OutboxRow

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.005
"""Between two looks whether an SQLite database was written to.

A look (`PRAGMA data_version`) takes 2.3 us, but waking a thread for it takes more. Every 5 ms cost
1.5 to 2.1 % of a core here, every 2 ms 2.7 %, every 10 ms 1.0 %; a commit is noticed 2.4 ms after
it in the median.
"""

ABSENT_S: Final = 0.25
"""The same while there is no outbox in it, or no file."""

REPLACED_S: Final = 1.0
"""Between two looks whether the file is still the one that is open."""

INTERVAL_S: Final = 0.02
"""Between two queries of another database, which does not tell when it was written to."""

RETRY_MIN_S: Final = 0.05
RETRY_MAX_S: Final = 5.0
"""Before it is tried again what failed, doubling."""

BUSY_TIMEOUT_S: Final = 5.0

Take = Callable[[Sequence[OutboxRow]], Awaitable[None]]


class Source(ABC):
    """A database with an outbox, opened."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = Dialect(connection)

    @abstractmethod
    def read(self) -> list[OutboxRow]:
        """Return the oldest rows."""

    @abstractmethod
    def wait(self, stop: threading.Event) -> bool:
        """Wait until there may be more; return False where it is to be opened anew."""

    def delete(self, rows: Collection[tuple[int, str]]) -> None:
        """Delete rows, in a transaction."""
        connection, dialect = self.connection, self.dialect
        begin(connection, dialect)
        try:
            outbox_table.delete(connection, dialect, rows)
            commit(connection, dialect)
        except BaseException:
            roll_back(connection, dialect)
            raise

    def missing(self, ids: Collection[str]) -> list[str]:
        """Return which of these ids no row has."""
        found = outbox_table.missing(self.connection, self.dialect, ids)
        self.connection.rollback()
        return found

    def close(self) -> None:
        """Close the connection."""
        with suppress(self.dialect.error):
            self.connection.close()


class SqliteSource(Source):
    """A file of SQLite, which tells when another connection committed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Never makes a file: the application does, when it likes.
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S
        )
        super().__init__(connection)
        try:
            self._file = path.stat().st_ino
            # The journal forgets a message when its row is gone; a power cut must not bring that
            # back.
            execute(connection, "PRAGMA synchronous = FULL")
            self._version = self._look()
        except BaseException:
            connection.close()
            raise
        self._has_table = False
        self._checked = time.monotonic()

    def _look(self) -> int:
        version: int = rows_of(self.connection, "PRAGMA data_version")[0][0]
        return version

    def read(self) -> list[OutboxRow]:
        """Return the oldest rows; none where there is no table."""
        # Before the rows are read, so that a commit in between is seen by the next look.
        self._version = self._look()
        if not self._has_table:
            sql = f"SELECT 1 FROM sqlite_master WHERE name = '{TABLE}'"  # noqa: S608
            self._has_table = bool(rows_of(self.connection, sql))
        return outbox_table.read(self.connection, self.dialect) if self._has_table else []

    def missing(self, ids: Collection[str]) -> list[str]:
        """Return which of these ids no row has; all of them without a table."""
        self.read()
        return super().missing(ids) if self._has_table else list(ids)

    def wait(self, stop: threading.Event) -> bool:
        """Wait until another connection committed something."""
        pause = LOOK_S if self._has_table else ABSENT_S
        while not stop.wait(pause):
            if self._look() != self._version:
                return True
            now = time.monotonic()
            if now - self._checked >= REPLACED_S:
                self._checked = now
                if not self._is_same():
                    return False
        return True

    def _is_same(self) -> bool:
        try:
            return self._path.stat().st_ino == self._file
        except FileNotFoundError:
            return False


class PolledSource(Source):
    """Any other database, which is asked again and again."""

    def __init__(self, connection: Connection, interval: float) -> None:
        super().__init__(connection)
        self._interval = interval

    def read(self) -> list[OutboxRow]:
        """Return the oldest rows."""
        rows = outbox_table.read(self.connection, self.dialect)
        self.connection.rollback()  # an open transaction would keep old rows from being removed
        return rows

    def wait(self, stop: threading.Event) -> bool:
        """Wait for the interval."""
        stop.wait(self._interval)
        return True


class OutboxRelay:
    """Hands what is in an outbox to the node, in order, and deletes it once it is kept there.

    Args:
        loop: the node's.
        database: path of an SQLite file, or what returns a new DB-API connection, in the thread.
        take: awaited in the loop with the next rows. It returns once they are in the node's
            journal, their ids in the same commit; those whose ids are there already came again
            after a crash, and are passed over. What it raises has them come again later.
        forget: called in the loop with the ids whose rows are deleted for good.
        known: ids that the journal has from its last life: those without a row are forgotten.
        interval: seconds between two queries, where `database` is no path.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        database: Path | str | Connect,
        take: Take,
        forget: Callable[[Sequence[str]], None],
        *,
        known: Collection[str] = (),
        interval: float = INTERVAL_S,
    ) -> None:
        self._loop = loop
        self._database = Path(database) if isinstance(database, str) else database
        self._take = take
        self._forget = forget
        self._known = tuple(known)
        self._interval = interval
        self._stop = threading.Event()
        self._handing: Future[None] | None = None
        self._taken: list[tuple[int, str]] = []  # kept in the journal, and not deleted
        self._told: set[str] = set()  # kinds of errors
        self._failures = 0  # in a row
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="zmesh-outbox", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    async def close(self) -> None:
        """End: what is being taken is cancelled, and comes again in the next life. Idempotent."""
        self._stop.set()
        if self._thread.ident is None:  # it was never started
            return
        if self._handing is not None:
            self._handing.cancel()
        await self._ended.wait()
        self._thread.join()  # it said so as the last thing it does

    # The thread's side

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._serve()
                except Closed:
                    break  # the node is
                except Exception as error:  # noqa: BLE001  # it is told, and tried again
                    if not self._stop.is_set():  # then it was cancelled
                        self._on_error(error)
        finally:
            self._in_loop(self._ended.set)

    def _on_error(self, error: Exception) -> None:
        kind = f"{type(error).__name__} {getattr(error, 'sqlite_errorname', '')}"
        level = logging.DEBUG if kind in self._told else logging.WARNING
        self._told.add(kind)
        logger.log(level, "the outbox cannot be served, and is tried again: %r", error)
        self._stop.wait(min(RETRY_MIN_S * 2**self._failures, RETRY_MAX_S))
        self._failures = min(self._failures + 1, 10)

    def _serve(self) -> None:
        source = self._open()
        if source is None:
            self._stop.wait(ABSENT_S)
            return
        with closing(source):
            self._delete(source)
            self._forget_lost(source)
            while not self._stop.is_set():
                rows = source.read()
                if rows:
                    self._hand_over(rows)
                    self._delete(source)
                self._failures = 0
                if not rows and not source.wait(self._stop):
                    return

    def _open(self) -> Source | None:
        """Return the database, opened; None where there is no file yet."""
        database = self._database
        if not isinstance(database, Path):
            return PolledSource(database(), self._interval)
        return SqliteSource(database) if database.exists() else None

    def _hand_over(self, rows: Sequence[OutboxRow]) -> None:
        coroutine = self._await_taking(rows)
        try:
            handing = self._handing = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise Closed from None
        if self._stop.is_set():  # `close` may have looked too early
            handing.cancel()
        handing.result()
        self._handing = None
        self._taken = [(row.sequence, row.id) for row in rows]

    async def _await_taking(self, rows: Sequence[OutboxRow]) -> None:
        await self._take(rows)

    def _delete(self, source: Source) -> None:
        if self._taken:
            source.delete(self._taken)
            ids = [id_ for _, id_ in self._taken]
            self._taken = []
            self._in_loop(lambda: self._forget(ids))

    def _forget_lost(self, source: Source) -> None:
        """Have forgotten what was deleted just before the last life ended."""
        if self._known:
            lost = source.missing(self._known)
            self._known = ()
            if lost:
                self._in_loop(lambda: self._forget(lost))

    def _in_loop(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
