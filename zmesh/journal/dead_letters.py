"""The dead letters of a journal, without the node that keeps it."""

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from zmesh.core.keeper import COUNTER
from zmesh.journal.files import Files
from zmesh.journal.sealing import looking
from zmesh.journal.store import JournalStore
from zmesh.journal.tools import closed, reading
from zmesh.message import Tag, extra, with_extra
from zmesh.patterns.letters import DeadLetter, letter_of
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    DEAD_LETTERS,
    Entry,
    EntryKind,
    Forget,
    ReadEntries,
    ReadRows,
    Row,
    SetEntries,
    Store,
)
from zmesh.storage_errors import CannotRequeue, NoDeadLetter, StorageKeyMissing

_PAGE: Final = 256


def dead_letters(path: Path, key: StorageKey | None = None) -> list[DeadLetter]:
    """Return all, oldest first, whether or not a node has the journal open.

    Args:
        path: of the journal.
        key: its storage key, where it is encrypted.

    Raises:
        StorageKeyMissing, StorageKeyWrong: it is encrypted with another.
        NoJournal: there is none.
        StorageError: it cannot be read.
    """
    with reading(Files(path), "be read") as database:
        database.execute("BEGIN")  # all as of one moment
        return _letters(_store(database, path, key))


def requeue(path: Path, ids: Sequence[int], key: StorageKey | None = None) -> None:
    """Send dead letters back to where they were, all or none: the node's next life sends them.

    Raises:
        NoJournal, NoDeadLetter: there is none.
        JournalLocked: a node has it open.
        CannotRequeue: it is not known where one was.
        StorageKeyMissing, StorageKeyWrong: the journal is encrypted with another.
        StorageError: it cannot be written.
    """
    files = Files(path)
    with closed(files, "take dead letters back") as database:
        store = _begin(database, path, key)
        at_ms = time.time_ns() // 1_000_000
        for letter in _found(store, ids):
            _take_back(store, letter, at_ms)
        _commit(files, store)


def purge(path: Path, ids: Sequence[int], key: StorageKey | None = None) -> None:
    """Forget dead letters, all or none of these.

    Raises:
        NoJournal, NoDeadLetter: there is none.
        JournalLocked: a node has it open.
        StorageKeyMissing, StorageKeyWrong: the journal is encrypted with another.
        StorageError: it cannot be written.
    """
    files = Files(path)
    with closed(files, "forget dead letters") as database:
        store = _begin(database, path, key)
        gone = tuple((letter.id, letter.id) for letter in _found(store, ids))
        store.apply(Forget(DEAD_LETTERS, gone))
        _commit(files, store)


def _found(store: JournalStore, ids: Sequence[int]) -> list[DeadLetter]:
    by_id = {letter.id: letter for letter in _letters(store)}
    for each in ids:
        if each not in by_id:
            raise NoDeadLetter(each)
    return [by_id[each] for each in dict.fromkeys(ids)]


def _letters(store: JournalStore) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    is_end = False
    while not is_end:
        after = letters[-1].id if letters else 0
        rows, is_end = _page(store, after)
        letters += rows
    return letters


def _page(store: JournalStore, after: int) -> tuple[list[DeadLetter], bool]:
    read = store.read_rows(ReadRows(DEAD_LETTERS, after, _PAGE))
    return [letter_of(row) for row in read.rows], read.is_end


def _take_back(store: JournalStore, letter: DeadLetter, at_ms: int) -> None:
    """Store a message anew, under another number: receivers may know what became of the old."""
    burial = letter.burial
    if burial is None or burial.source is None:
        raise CannotRequeue(letter.id, "it is not known where it was")
    lane = store.lanes.get(burial.source)
    number = _next_number(store)
    record = letter.as_new()
    if extra(record, Tag.STORED) is not None:
        record = with_extra(record, Tag.STORED, number)
    position = 1 if lane is None else lane.following
    row = Row(position, record, at_ms, order=number, note=burial.note)
    told = Entry(EntryKind.COUNTER, COUNTER, b"", (number + 1).to_bytes(8))
    store.apply(SetEntries((told,)))
    store.apply(Store(burial.source, [row]))
    store.apply(Forget(DEAD_LETTERS, ((letter.id, letter.id),)))


def _next_number(store: JournalStore) -> int:
    """Return a number that was never given out."""
    for entry in store.read_entries(ReadEntries(EntryKind.COUNTER)).entries:
        if entry.name == COUNTER:
            return int.from_bytes(entry.value)
    return 1


def _store(database: sqlite3.Connection, path: Path, key: StorageKey | None) -> JournalStore:
    store = JournalStore.load(database, looking(str(path), key))
    if store.seal is not None and not store.seal.is_open:
        raise StorageKeyMissing(str(path), store.seal.fingerprint)
    return store


def _begin(database: sqlite3.Connection, path: Path, key: StorageKey | None) -> JournalStore:
    database.execute("ROLLBACK")
    database.execute("PRAGMA synchronous = FULL")
    store = _store(database, path, key)
    store.begin()
    return store


def _commit(files: Files, store: JournalStore) -> None:
    store.commit()
    files.claim(store.identity.journal, store.totals.commits)
