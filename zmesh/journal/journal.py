"""The journal as the runner has it: what is handed over is on disk when `Written` says so.

One thread has the database. Whatever was handed over while a commit ran shares the next one and
its fsync; where nothing runs, the next begins at once.
"""

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from zmesh.errors import Closed as ClosedError
from zmesh.ids import NodeId
from zmesh.journal.coding import Unsound
from zmesh.journal.faults import Fault, fault_of, told
from zmesh.journal.files import Files, Reserve
from zmesh.journal.opening import Synchronous, new_identity
from zmesh.journal.writing import Writer
from zmesh.options import JournalOptions
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    Answered,
    BackUp,
    Batch,
    Broken,
    Closed,
    JournalEvent,
    JournalStatistics,
    Question,
    Refused,
    Room,
    Written,
)
from zmesh.storage_errors import JournalBroken, JournalCorrupted, JournalFull, StorageError

IDLE_S = 0.05
"""Without anything to do for so long, it is time to give space back."""

Asked = tuple[int, Question]


class SqliteJournal:
    """A journal in a file. All calls return at once; none is for two threads at a time.

    Args:
        path: of the file, which is created where there is none.
        deliver: called in threads of the journal's with what happened, in order; it hands on with
            `loop.call_soon_threadsafe` and must neither wait nor raise.
        node: who is to keep the journal where it is new; one that is there knows.
        seed: of that node's key.
        options: bounds.
        synchronous: "full" syncs each commit. "normal" syncs checkpoints only, so that a power
            cut may take the last commits with it; the end of the process takes nothing.
        key: with which the values in it are encrypted; None: they are not.
        files: the file layer, for tests.
    """

    def __init__(
        self,
        path: Path,
        deliver: Callable[[list[JournalEvent]], None],
        *,
        node: NodeId,
        seed: bytes = b"",
        options: JournalOptions | None = None,
        synchronous: Synchronous = "full",
        key: StorageKey | None = None,
        files: Files | None = None,
    ) -> None:
        self._path = path
        self._deliver = deliver
        self._options = options or JournalOptions()
        files = files or Files(path)
        self._reserve = Reserve(files, self._options)
        fresh = new_identity(node, seed)
        self._writer = Writer(files, self._options, self._reserve, fresh, synchronous, key)
        self._changed = threading.Condition()
        self._waiting: deque[Batch | Asked] = deque()
        self._pending_bytes = 0  # of batches without answer
        self._pending = 0
        self._is_thread_waiting = False
        self._is_closing = False
        self._is_full = False  # the disk is
        self._wants_room = 0  # what the last batch that was refused for it takes
        self._error: StorageError | None = None
        self._batches = self._bytes = 0
        self._thread = threading.Thread(target=self._run, name="zmesh-journal", daemon=True)

    # The loop's side

    def open(self) -> None:
        """Begin to open the journal; `Opened` or `Broken` follows."""
        self._thread.start()

    @property
    def room_bytes(self) -> int:
        """How large a batch may be now; 0 or less where the journal is full."""
        if self._is_full:
            return 0
        writer = self._writer
        taken = writer.used + writer.unmeasured + self._pending_bytes
        return self._options.journal_bytes_max - taken

    def write(self, batch: Batch) -> None:
        """Hand over a batch; `Written` or `Refused` answers. What needs no room always has some.

        Raises:
            JournalFull: there is no room for it; `Room` tells when to try again.
            JournalBroken, JournalCorrupted: the disk failed before; nothing is written any more.
            Closed: the journal was closed.
        """
        size = batch.size
        with self._changed:
            self._check_open()
            if size and size > self.room_bytes:
                self._wants_room = size
                limit = 0 if self._is_full else self._options.journal_bytes_max
                raise JournalFull(str(self._path), self._writer.used, limit)
            self._pending_bytes += size
            self._pending += 1
            self._batches += 1
            self._bytes += size
            self._hand_over(batch)

    def read(self, ticket: int, question: Question) -> None:
        """Ask; `Answered` follows, after everything handed over before was written.

        Raises:
            Closed: the journal was closed.
        """
        with self._changed:
            if self._is_closing:
                raise ClosedError("journal")
            self._hand_over((ticket, question))

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._is_closing:
            raise ClosedError("journal")

    def _hand_over(self, item: Batch | Asked) -> None:
        self._waiting.append(item)
        if self._is_thread_waiting:
            self._is_thread_waiting = False
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more; when all is written, the files are closed and `Closed` comes."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for the end, in a thread that may; return whether it has come."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def statistics(self) -> JournalStatistics:
        """Return the counters."""
        writer = self._writer
        return JournalStatistics(
            batches=self._batches,
            commits=writer.commits,
            bytes_handed_over=self._bytes,
            pending=self._pending,
            used=writer.used,
            limit=self._options.journal_bytes_max,
            is_full=self._is_full,
            has_reserve=self._reserve.is_there,
            checkpoints=writer.checkpoints,
        )

    # The thread's side

    def _run(self) -> None:
        try:
            opened = self._writer.open()
        except Exception as error:  # noqa: BLE001  # it is told
            self._break(told(error, self._path, "be opened"), [])
        else:
            self._is_full = not self._reserve.is_there
            self._deliver([opened])
        while self._turn():
            pass
        self._writer.close()
        self._deliver([Closed()])

    def _turn(self) -> bool:
        """Do what waits next; return False when all is done and the journal is to close."""
        group, asked = self._take()
        if group:
            self._write(group)
        elif asked is not None:
            self._reply(*asked)
        elif self._is_closing:
            return False
        elif self._error is None:
            self._tidy_up()
        return True

    def _take(self) -> tuple[list[Batch], Asked | None]:
        """Return what shares the next commit, or a question; neither where it is time to tidy."""
        options = self._options
        with self._changed:
            if not self._waiting and not self._is_closing:
                self._is_thread_waiting = True
                self._changed.wait(self._pause())
                self._is_thread_waiting = False
            group: list[Batch] = []
            size = 0
            # On a full disk a commit must fit into what was kept for it.
            batches_max = 1 if self._is_full else options.group_batches_max
            while self._waiting:
                item = self._waiting[0]
                if not isinstance(item, Batch):
                    if not group:
                        self._waiting.popleft()
                        return [], item
                    break
                if len(group) >= batches_max or size >= options.group_bytes_max:
                    break
                group.append(item)
                size += item.size
                self._waiting.popleft()
            return group, None

    def _pause(self) -> float | None:
        if self._error is not None:
            return None
        if self._is_full:
            return self._options.retry_full
        writer = self._writer
        return IDLE_S if writer.has_space_to_give or writer.unmeasured_commits else None

    def _write(self, group: list[Batch]) -> None:
        if self._error is not None:  # it came while these were on their way
            self._answer(group, Refused(_tickets(group), self._error))
            return
        try:
            dropped = self._writer.commit(group)
        except Exception as error:  # noqa: BLE001  # it is told
            self._on_failure(error, group)
            return
        self._answer(group, Written(_tickets(group), dropped))
        try:
            self._writer.after_commit(is_scarce=self._is_full)
            self._tell_of_room()
        except Exception as error:  # noqa: BLE001  # it is told
            self._on_failure(error, [])

    def _answer(self, group: Sequence[Batch], event: JournalEvent) -> None:
        with self._changed:
            self._pending -= len(group)
            self._pending_bytes -= sum(batch.size for batch in group)
        self._deliver([event])

    def _tell_of_room(self) -> None:
        if not self._wants_room or self._error is not None:
            return
        if self._writer.unmeasured_commits:
            self._writer.measure()
        with self._changed:
            has_room = 0 < self._wants_room <= self.room_bytes
            if has_room:
                self._wants_room = 0
        if has_room:
            self._deliver([Room()])

    def _on_failure(self, error: Exception, group: list[Batch]) -> None:
        if not isinstance(error, StorageError | sqlite3.Error | OSError | Unsound):
            error = JournalBroken(str(self._path), "be written", repr(error))
        if fault_of(error, self._path) is Fault.FULL:
            self._on_full(error, group)
        else:
            self._break(told(error, self._path, "be written"), group)

    def _reply(self, ticket: int, question: Question) -> None:
        if isinstance(question, BackUp):
            self._writer.copy(ticket, question, self._deliver)
            return
        try:
            answer = Answered(ticket, self._writer.answer(question))
        except (StorageError, sqlite3.Error, OSError, Unsound, ValueError) as error:
            failure = told(error, self._path, "be read")
            answer = Answered(ticket, failure)
            if isinstance(failure, JournalCorrupted) and self._error is None:
                self._break(failure, [])
        self._deliver([answer])

    # A full disk

    def _on_full(self, error: Exception, group: list[Batch]) -> None:
        """Refuse what needs room; with the space that was kept for this, do what needs none."""
        refused: list[Batch] = []
        with self._changed:
            self._is_full = True
            self._wants_room = 0
            kept: deque[Batch | Asked] = deque()
            for item in (*group, *self._waiting):
                if isinstance(item, Batch) and item.size:
                    refused.append(item)
                else:
                    kept.append(item)
            self._waiting = kept
        full = told(error, self._path, "be written", self._writer.used)
        if refused:
            self._answer(refused, Refused(_tickets(refused), full))
        if not self._reserve.release():
            self._wait_for_space(full)
            return
        try:
            self._writer.checkpoint_if_due(is_scarce=True)
        except Exception as failure:  # noqa: BLE001  # it is told
            self._on_failure(failure, [])

    def _wait_for_space(self, full: StorageError) -> None:
        """Pause, as there is nothing left to be freed here; at the end there is no waiting."""
        with self._changed:
            if not self._is_closing:
                self._changed.wait(self._options.retry_full)
                return
            batches = [each for each in self._waiting if isinstance(each, Batch)]
            self._waiting = deque(each for each in self._waiting if not isinstance(each, Batch))
        self._answer(batches, Refused(_tickets(batches), full))

    def _tidy_up(self) -> None:
        """Do what is to be done when there is nothing else."""
        try:
            if self._is_full and self._reserve.take():
                with self._changed:
                    self._is_full = False
                    self._wants_room = 0
                self._deliver([Room()])
            if self._writer.unmeasured_commits:
                self._writer.measure()
            self._tell_of_room()
            self._writer.give_space_back(is_scarce=self._is_full)
        except Exception as error:  # noqa: BLE001  # it is told
            self._on_failure(error, [])

    # The end

    def _break(self, error: StorageError, group: list[Batch]) -> None:
        """Write nothing any more: what a failed sync left behind cannot be known."""
        with self._changed:
            self._error = error
            batches = [*group, *(each for each in self._waiting if isinstance(each, Batch))]
            self._waiting = deque(each for each in self._waiting if not isinstance(each, Batch))
        self._writer.stop_writing(is_damaged=isinstance(error, JournalCorrupted))
        if batches:
            self._answer(batches, Refused(_tickets(batches), error))
        self._deliver([Broken(error)])


def _tickets(batches: Sequence[Batch]) -> tuple[int, ...]:
    return tuple(batch.ticket for batch in batches)
