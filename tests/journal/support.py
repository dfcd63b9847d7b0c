"""Journals for tests: opened and waited for, and small things to put into them."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from zmesh.ids import NodeId
from zmesh.journal.files import Files
from zmesh.journal.journal import SqliteJournal
from zmesh.journal.opening import Synchronous
from zmesh.message import Record
from zmesh.options import KIB, JournalOptions
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    Answer,
    Answered,
    Batch,
    Broken,
    Closed,
    Command,
    JournalEvent,
    Opened,
    Question,
    ReadRows,
    Refused,
    Row,
    RowsRead,
    Store,
    StoredRow,
    StoreRun,
    Stream,
    StreamKind,
    Written,
)

NODE = NodeId(b"n" * 16)
OUT = Stream(StreamKind.LANE_OUT, b"session-session-", 4)
IN = Stream(StreamKind.LANE_IN, b"session-session-", 4)
BOX = Stream(StreamKind.WAITING, b"somebody")
SMALL = JournalOptions(
    reserve_bytes_min=256 * KIB, wal_bytes_max=64 * KIB, vacuum_bytes_min=16 * KIB, retry_full=0.05
)
PATIENCE_S = 20.0
KEY = StorageKey(b"k" * 32)

E = TypeVar("E", bound=JournalEvent)


class Unexpected(AssertionError):
    """Another event came than the one that was waited for."""

    def __init__(self, event: JournalEvent) -> None:
        self.event = event
        super().__init__(repr(event))


class Talk:
    """A journal, and the news it has."""

    def __init__(
        self,
        path: Path,
        files: Files | None = None,
        options: JournalOptions = SMALL,
        synchronous: Synchronous = "full",
        key: StorageKey | None = None,
    ) -> None:
        self.news: queue.SimpleQueue[JournalEvent] = queue.SimpleQueue()
        self.journal = SqliteJournal(
            path, self._deliver, node=NODE, seed=b"seed", options=options, files=files,
            synchronous=synchronous, key=key,
        )  # fmt: skip
        self._tickets = 0

    def _deliver(self, events: list[JournalEvent]) -> None:
        for event in events:
            self.news.put(event)

    def next(self, kind: type[E]) -> E:
        """Return the next event, which is of this kind."""
        event = self.news.get(timeout=PATIENCE_S)
        if not isinstance(event, kind):
            raise Unexpected(event)
        return event

    def open(self) -> Opened:
        self.journal.open()
        return self.next(Opened)

    def hand_over(self, *commands: Command) -> int:
        self._tickets += 1
        self.journal.write(Batch(self._tickets, commands))
        return self._tickets

    def write(self, *commands: Command) -> Written:
        ticket = self.hand_over(*commands)
        written = self.next(Written)
        assert written.tickets == (ticket,)
        return written

    def refused(self, *commands: Command) -> Refused:
        ticket = self.hand_over(*commands)
        refused = self.next(Refused)
        assert refused.tickets == (ticket,)
        return refused

    def ask(self, question: Question) -> Answer:
        self.journal.read(7, question)
        answered = self.next(Answered)
        assert not isinstance(answered.answer, Exception), answered.answer
        return answered.answer

    def rows(self, stream: Stream = OUT) -> list[StoredRow]:
        """Return all rows of a stream, asked for page by page."""
        rows: list[StoredRow] = []
        while True:
            after = rows[-1].row.position if rows else 0
            answer = self.ask(ReadRows(stream, after, count_max=100))
            assert isinstance(answer, RowsRead)
            rows += answer.rows
            if answer.is_end:
                return rows

    def positions(self, stream: Stream = OUT) -> list[int]:
        return [stored.row.position for stored in self.rows(stream)]

    def close(self) -> None:
        """Close, whatever has happened."""
        if self.journal._thread.ident is None:
            return
        self.journal.close()
        while not isinstance(self.news.get(timeout=PATIENCE_S), Closed):
            pass
        assert self.journal.join(PATIENCE_S)

    def broken(self) -> Broken:
        return self.next(Broken)


@contextmanager
def talk(
    path: Path,
    files: Files | None = None,
    options: JournalOptions = SMALL,
    key: StorageKey | None = None,
) -> Iterator[tuple[Talk, Opened]]:
    """Open a journal, and close it at the end."""
    speaking = Talk(path, files, options, key=key)
    try:
        yield speaking, speaking.open()
    finally:
        speaking.close()


def record(number: int, size: int = 100) -> Record:
    """Return a record that tells its number."""
    return (
        0,
        "target",
        number.to_bytes(8, "big") + bytes((number + i) % 251 for i in range(size)),
    )


def row(position: int, size: int = 100) -> Row:
    return Row(position, record(position, size), stored_ms=position, order=position)


def store(first: int, last: int, stream: Stream = OUT, size: int = 100) -> Store:
    return Store(stream, [row(position, size) for position in range(first, last + 1)])


def run(first: int, last: int, stream: Stream = BOX, size: int = 100) -> StoreRun:
    """Return a run that has the records and orders of `row`."""
    records = [record(position, size) for position in range(first, last + 1)]
    return StoreRun(stream, first, records, stored_ms=7, order=first, note=(4,))


def row_of_run(position: int, size: int = 100) -> Row:
    """Return a row as `run` stores it."""
    return row(position, size)._replace(stored_ms=7, note=(4,))
