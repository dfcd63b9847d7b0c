"""A journal that answers at once: the real tables, without a thread."""

from collections.abc import Sequence
from pathlib import Path

from zmesh.actions import Action, ReadJournal, WriteJournal
from zmesh.ids import NodeId
from zmesh.journal.files import Files
from zmesh.journal.opening import new_identity, open_journal
from zmesh.options import KIB, JournalOptions
from zmesh.storage import (
    Answered,
    BackUp,
    Command,
    JournalEvent,
    Opened,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    Refused,
    RowsRead,
    Stream,
    Written,
)
from zmesh.storage_errors import StorageError

SMALL = JournalOptions(reserve_bytes_min=256 * KIB, wal_bytes_max=128 * KIB)


class StandIn:
    """One life of a journal. What it refuses is to be set before it is told."""

    def __init__(self, path: Path) -> None:
        self._files = Files(path)
        fresh = new_identity(NodeId(b"n" * 16), b"")
        found = open_journal(self._files, SMALL, fresh, "normal")
        self.store = found.store
        self.opened = Opened(self.store.identity, found.streams, found.is_new, found.rescue)
        self.error: StorageError | None = None  # for every batch
        self.batches: list[tuple[Command, ...]] = []

    def answer(self, actions: Sequence[Action]) -> list[JournalEvent]:
        """Do what was ordered, and return what the journal tells of it."""
        events: list[JournalEvent] = []
        for action in actions:
            if isinstance(action, WriteJournal):
                events.append(self._write(action))
            elif isinstance(action, ReadJournal):
                events.append(self._read(action))
        return events

    def _write(self, order: WriteJournal) -> JournalEvent:
        if self.error is not None:
            return Refused((order.batch.ticket,), self.error)
        self.batches.append(order.batch.commands)
        self.store.begin()
        for command in order.batch.commands:
            self.store.apply(command)
        self.store.commit()
        return Written((order.batch.ticket,))

    def _read(self, order: ReadJournal) -> JournalEvent:
        match order.question:
            case ReadRows() as question:
                return Answered(order.ticket, self.store.read_rows(question))
            case ReadEntries() as question:
                return Answered(order.ticket, self.store.read_entries(question))
            case ReadOutcomes() as question:
                return Answered(order.ticket, self.store.read_outcomes(question))
            case BackUp():
                raise AssertionError("nothing here asks for copies")

    def rows(self, stream: Stream) -> RowsRead:
        """Return what is in a stream."""
        return self.store.read_rows(ReadRows(stream))

    def close(self) -> None:
        """End this life, as a process that dies does."""
        self.store.database.close()
        self._files.unlock()
