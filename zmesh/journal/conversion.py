"""A journal encrypted, decrypted, or under another key: written anew whole, then in its place.

The file beside it is on disk before the names change, so a crash leaves one or the other.
"""

import sqlite3
from pathlib import Path
from typing import Final

from zmesh.journal import coding
from zmesh.journal.coding import Table
from zmesh.journal.creation import building
from zmesh.journal.files import Files
from zmesh.journal.sealing import Seal, with_key
from zmesh.journal.store import JournalStore
from zmesh.journal.tables import MARKS
from zmesh.journal.tools import closed
from zmesh.security.storage_key import StorageKey

_AT_ONCE: Final = 256
_LAST_PLACE: Final = (1 << 63) - 1


def convert(path: Path, old: StorageKey | None, new: StorageKey | None) -> int:
    """Write a journal anew, and return its size in bytes. It is the same journal, by id and age.

    It needs as much space again while it runs. What was there before may be left on the medium,
    in blocks that are free now, and in copies and files that were set aside.

    Args:
        path: of the journal.
        old: its key; None where it is not encrypted.
        new: what it is to be encrypted with; None: nothing.

    Raises:
        NoJournal: there is none.
        JournalLocked: a node or a tool has it open.
        JournalCorrupted: it is damaged; a node that opens it rescues it.
        StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted: `old` is not its key.
        StorageError: it cannot be written; it is as it was.
    """
    files = Files(path)
    with closed(files, "be converted", old) as database:
        store = JournalStore.load(database, with_key(str(files.path), old))
        target = files.beside(".new")
        try:
            with building(files, target) as copy:
                _copy(store, copy, None if new is None else Seal.new(str(files.path), new))
            database.execute("ROLLBACK")
            # SQLite would take what is left of a log for one of the new file: this moves it into
            # the old one and removes it, and fails where somebody else has that open.
            database.execute("PRAGMA journal_mode = DELETE").fetchall()
            database.close()
            files.rename(target, files.path)
        except BaseException:
            files.remove(target)
            raise
        files.sync_names()
    return files.size_of(files.path)


def _copy(store: JournalStore, database: sqlite3.Connection, seal: Seal | None) -> None:
    copy = JournalStore(database, store.identity, seal=seal)
    copy.put_seal()
    copy.set_identity(store.identity)
    copy.totals.commits = store.totals.commits - 1  # committing it is one
    for stream, (number, following, cum, ranges) in store.lanes.items():
        value = coding.stream_value(number, stream, following, cum, ranges, seal)
        copy.tables.put_fact(number, value)
    _copy_messages(store, copy)
    for table in MARKS:
        for first, last, value, _ in store.tables.marks(table, 0, _LAST_PLACE):
            if table is Table.GONE:
                _copy_gone(copy, first, last)
            else:
                plain = coding.mark_of(table, first, last, value, store.seal)
                copy.tables.mark(table, first, last, plain)
    for columns in store.database.execute("SELECT kind, name, key, value, checksum FROM entries"):
        copy.tables.put_entry(coding.entry_of(columns, store.seal))
    copy.commit()


def _copy_messages(store: JournalStore, copy: JournalStore) -> None:
    rows = store.database.execute("SELECT * FROM messages ORDER BY place")
    while found := rows.fetchmany(_AT_ONCE):
        blocks = [coding.block_of(columns, store.seal) for columns in found]
        copy.tables.insert_messages([coding.block_columns(block, copy.seal) for block in blocks])


def _copy_gone(copy: JournalStore, first: int, last: int) -> None:
    """Note what is gone of a block, which has another checksum now."""
    block = copy.tables.last_block(last)
    copy.tables.mark(Table.GONE, first, last, block[2].to_bytes(4))
    copy.totals.records -= last - first + 1
