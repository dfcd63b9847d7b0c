"""Simulated disks for tests: who writes on one when a test lets it, and what is there."""

from collections.abc import Iterable

from zmesh.actions import Action, ReadJournal, WriteJournal
from zmesh.ids import JournalId, NodeId
from zmesh.storage import (
    Command,
    EntriesRead,
    Entry,
    EntryKind,
    Identity,
    JournalEvent,
    OutcomesRead,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    Refused,
    Row,
    RowsRead,
    StoredOutcome,
    StoredRow,
    Stream,
    StreamKind,
)
from zmesh.storage_errors import JournalFull, StorageError
from zmesh.testing.journal import Disk, MemoryJournal

COUNT_MAX = 100_000


class Scribe:
    """Works on a disk for one life of a node, in no time, and when it is told to.

    Args:
        disk: which may be that of an earlier life.
        node: whose it is, where it is blank.
    """

    def __init__(self, disk: Disk, node: NodeId) -> None:
        self.disk = disk
        fresh = Identity(node, b"", JournalId(bytes(node)[::-1]), 0)
        self.journal = MemoryJournal(disk, fresh)
        self.opened = self.journal.open()
        self.error: StorageError | None = None  # what batches get; a full disk takes small ones
        self.batches: list[tuple[Command, ...]] = []  # that are on the disk, of this life
        self.waiting: list[WriteJournal | ReadJournal] = []

    def take(self, actions: Iterable[Action]) -> None:
        """Take what was ordered; `work` does it."""
        self.waiting += [each for each in actions if isinstance(each, WriteJournal | ReadJournal)]

    def work(self) -> list[JournalEvent]:
        """Do all that was ordered, and return what is told of it."""
        orders, self.waiting = self.waiting, []
        return [event for order in orders for event in self._do(order)]

    def _do(self, order: WriteJournal | ReadJournal) -> list[JournalEvent]:
        if isinstance(order, ReadJournal):
            self.journal.read(order.ticket, order.question)
        else:
            batch = order.batch
            if self.error is not None and (batch.size or not isinstance(self.error, JournalFull)):
                return [Refused((batch.ticket,), self.error)]
            self.journal.write(batch)
            self.batches.append(batch.commands)
        self.journal.step()
        return self.journal.take_news()


def stored_in(disk: Disk, stream: Stream) -> list[StoredRow]:
    """Return what is in one stream, with the attempts that count."""
    answer = disk.content.answer(ReadRows(stream, count_max=COUNT_MAX))
    assert isinstance(answer, RowsRead)
    return answer.rows


def rows_of(disk: Disk, kind: StreamKind = StreamKind.QUEUE) -> list[Row]:
    """Return what is on a disk of one kind of stream."""
    streams = [state.stream for state in disk.content.states() if state.stream.kind is kind]
    return [stored.row for stream in streams for stored in stored_in(disk, stream)]


def entries_of(disk: Disk, kind: EntryKind) -> list[Entry]:
    """Return the entries of one kind, by name and key."""
    answer = disk.content.answer(ReadEntries(kind, count_max=COUNT_MAX))
    assert isinstance(answer, EntriesRead)
    return answer.entries


def outcomes_on(disk: Disk) -> list[StoredOutcome]:
    """Return what is kept on a disk of messages of others."""
    outcomes: list[StoredOutcome] = []
    for state in disk.content.states():
        answer = disk.content.answer(ReadOutcomes(state.stream, count_max=COUNT_MAX))
        assert isinstance(answer, OutcomesRead)
        outcomes += answer.outcomes
    return outcomes
