"""The database in the hands of the journal's thread: commits, checkpoints, answers, space."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, assert_never

from zmesh.errors import ZmeshError
from zmesh.journal.backup import back_up
from zmesh.journal.coding import Unsound
from zmesh.journal.faults import Fault, fault_of, told
from zmesh.journal.files import Files, Reserve
from zmesh.journal.opening import OpenJournal, Synchronous, open_journal
from zmesh.journal.store import Dropped, JournalStore
from zmesh.options import JournalOptions
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    Answer,
    Answered,
    BackedUp,
    BackUp,
    Batch,
    Identity,
    JournalEvent,
    Opened,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
)
from zmesh.storage_errors import JournalBroken

SCARCE_STEPS: Final = 8
"""So many times smaller are the steps in which a full disk is cleared: each needs a log."""

LAID_OUT_MIN: Final = 128 * 1024
"""So long the log is made, with the first commit; then twice as long as it has become."""

MEASURED_BYTES: Final = 1024 * 1024
MEASURED: Final = 64
"""After so many bytes or commits the size is looked at: it costs as much as a row."""

Deliver = Callable[[list[JournalEvent]], None]

_abandoned: Final[list[sqlite3.Connection]] = []
"""Not closed, where closing would write to a disk that failed."""


class Writer:
    """Does one thing at a time, and raises what went wrong; what that means is decided above."""

    def __init__(
        self,
        files: Files,
        options: JournalOptions,
        reserve: Reserve,
        fresh: Identity,
        synchronous: Synchronous,
        key: StorageKey | None = None,
    ) -> None:
        self._files = files
        self._options = options
        self._reserve = reserve
        self._fresh = fresh
        self._synchronous: Synchronous = synchronous
        self._key = key
        self._store: JournalStore | None = None
        self._failed: sqlite3.Connection | None = None  # what was written with, until it failed
        self._log = files.beside("-wal")
        self._log_max = options.wal_bytes_max
        self._laid_out = 0  # how long the log was made ahead of what is in it
        self._page_bytes = 4096
        self._free_bytes = 0
        self._copying: list[threading.Thread] = []
        self.used = 0  # when it was last measured
        self.unmeasured = 0  # bytes that came since
        self.unmeasured_commits = 0
        self.commits = 0
        self.checkpoints = 0

    # Life

    def open(self) -> Opened:
        """Open the journal, on a full disk with the space that was kept for that."""
        try:
            opened = self._open()
        except (sqlite3.Error, OSError) as error:
            if fault_of(error, self._files.path) is not Fault.FULL or not self._reserve.release():
                raise
            opened = self._open()
            is_full = True
        else:
            is_full = False
        store = self._store = opened.store
        if not is_full:
            self._reserve.take()
        (self._page_bytes,) = store.database.execute("PRAGMA page_size").fetchone()
        self.measure()
        return Opened(store.identity, opened.streams, opened.is_new, opened.rescue)

    @property
    def _opened(self) -> JournalStore:
        if self._store is None:
            raise JournalBroken(str(self._files.path), "be used", "it is not open")
        return self._store

    def _open(self) -> OpenJournal:
        return open_journal(self._files, self._options, self._fresh, self._synchronous, self._key)

    def stop_writing(self, *, is_damaged: bool) -> None:
        """Go on with reading alone, on a connection that cannot write."""
        if self._store is None:
            return
        if is_damaged:
            with suppress(OSError):  # it is full or worse: then it is found again
                self._files.create(self._files.beside(".suspect"))
                self._files.sync_names()
        self._failed, store = self._store.database, self._store
        try:
            database = self._files.connect(read_only=True)
            # Where another connection has the database, the one that failed can be closed
            # without its log being moved into it.
            database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except (sqlite3.Error, OSError):
            _abandoned.append(self._failed)
            self._failed = self._store = None
            return
        self._store = JournalStore(database, store.identity, store.totals, store.seal)
        self._store.lanes = store.lanes

    def close(self) -> None:
        """Close the files."""
        for thread in self._copying:
            thread.join()
        store, self._store = self._store, None
        for database in (self._failed, None if store is None else store.database):
            if database is not None:
                with suppress(sqlite3.Error):  # all that was to be kept is on disk
                    database.close()
        self._files.unlock()

    # Writing

    def commit(self, batches: Sequence[Batch]) -> tuple[Dropped, ...]:
        """Have batches on disk, all or none; return what was dropped for them."""
        store = self._opened
        dropped: list[Dropped] = []
        try:
            store.begin()
            for batch in batches:
                for command in batch.commands:
                    dropped += store.apply(command)
            store.commit()
        except BaseException:
            with suppress(sqlite3.Error):  # the first error is the one that counts
                store.roll_back()
            raise
        self.commits += 1
        if self._synchronous == "full":
            # Before anybody hears of it: what was acknowledged is claimed.
            self._files.claim(store.identity.journal, store.totals.commits)
        self.unmeasured += sum(batch.size for batch in batches)
        self.unmeasured_commits += 1
        return tuple(dropped)

    def after_commit(self, *, is_scarce: bool) -> None:
        """Do what may be done after those who wait have their answer."""
        near = self.used + self.unmeasured > self._options.journal_bytes_max - 2 * MEASURED_BYTES
        much = self.unmeasured > MEASURED_BYTES or self.unmeasured_commits > MEASURED
        if is_scarce or near or much:
            self.measure()
        self.checkpoint_if_due(is_scarce=is_scarce)

    def measure(self) -> None:
        """Look how large the journal is."""
        database = self._opened.database
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        self.used = (pages - free) * self._page_bytes
        self._free_bytes = free * self._page_bytes
        self.unmeasured = self.unmeasured_commits = 0

    def checkpoint_if_due(self, *, is_scarce: bool = False) -> None:
        """Move the log into the database where it has grown to its limit; else make it longer.

        Where space is scarce it is moved at once, and the log's space is given back.
        """
        if is_scarce:
            self._checkpoint("TRUNCATE")
            return
        size = self._files.size_of(self._log)
        if size > self._log_max:
            self._checkpoint("PASSIVE")
        elif self._synchronous == "full" and self._reserve.is_there:
            self._lay_out(size)

    def _lay_out(self, size: int) -> None:
        """Make the log longer ahead, up to its limit: what fills it only is synced sooner."""
        limit = self._options.wal_bytes_max
        if self._laid_out < size < limit:
            self._laid_out = min(max(LAID_OUT_MIN, 2 * size), limit)
            self._files.lengthen(self._log, self._laid_out)

    def _checkpoint(self, mode: str) -> None:
        store = self._opened
        commits = store.totals.commits
        _, frames, moved = store.database.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        self.checkpoints += 1
        if mode == "TRUNCATE":
            self._laid_out = 0
        limit = self._options.wal_bytes_max
        # Somebody who copies the journal may hold it back; do not ask at each commit.
        self._log_max = limit if frames == moved else self._files.size_of(self._log) + limit
        if self._synchronous == "normal" and frames == moved:
            self._files.claim(store.identity.journal, commits)

    # Space

    @property
    def has_space_to_give(self) -> bool:
        """Whether more pages are free than are kept for what comes next."""
        return self._free_bytes > self._options.vacuum_bytes_min

    def give_space_back(self, *, is_scarce: bool = False) -> None:
        """Give some free pages back to the system; in small steps where space is scarce."""
        if not self.has_space_to_give or self._store is None:
            return
        pages = max(1, self._options.vacuum_pages // (SCARCE_STEPS if is_scarce else 1))
        # It has a row without columns for each page, and `execute` ends at the first.
        self._store.database.executescript(f"PRAGMA incremental_vacuum({pages})")
        self.measure()
        # The file becomes shorter by a checkpoint only; a log that is still in use stays.
        done = self._free_bytes <= self._options.vacuum_bytes_min
        self.checkpoint_if_due(is_scarce=is_scarce or done)

    # Reading

    def answer(self, question: ReadRows | ReadEntries | ReadOutcomes) -> Answer:
        """Answer a question."""
        store = self._opened
        match question:
            case ReadRows():
                return store.read_rows(question)
            case ReadEntries():
                return store.read_entries(question)
            case ReadOutcomes():
                return store.read_outcomes(question)
            case _:
                assert_never(question)

    def copy(self, ticket: int, question: BackUp, deliver: Deliver) -> None:
        """Copy the journal in a thread of its own: it takes as long as it takes."""

        def run() -> None:
            answer: Answer | ZmeshError
            path = Path(question.path)
            try:
                answer = BackedUp(question.path, back_up(self._files, path))
            except ZmeshError as error:
                answer = error
            except (sqlite3.Error, OSError, Unsound) as error:
                answer = told(error, path, "be copied")
            deliver([Answered(ticket, answer)])

        thread = threading.Thread(target=run, name="zmesh-journal-copy", daemon=True)
        self._copying.append(thread)
        thread.start()
