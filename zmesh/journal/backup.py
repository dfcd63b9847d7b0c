"""A copy of a journal while it is written: a journal of its own, under another journal id."""

import sqlite3
from contextlib import closing
from pathlib import Path

from zmesh.errors import InvalidOption
from zmesh.journal.files import Files
from zmesh.journal.salvage import renewed
from zmesh.journal.schema import migrate
from zmesh.journal.store import JournalStore


def back_up(files: Files, target: Path) -> int:
    """Copy a journal as it is at one moment to a new file, and return its size in bytes.

    A node that opens the copy is the same node with another journal: peers know that what it
    remembers of them may be old, and number their messages anew.

    Raises:
        InvalidOption: there is a file already, or no directory for one.
        OSError, sqlite3.Error: it cannot be written; nothing is left of it.
    """
    if target.exists():
        raise InvalidOption("target", str(target), "a path where there is no file yet")
    if not target.absolute().parent.is_dir():
        raise InvalidOption("target", str(target), "a path in a directory that is there")
    copy = Files(target)
    partial = copy.beside(".part")
    copy.remove(partial)
    copy.create(partial)
    try:
        with (
            closing(files.connect(read_only=True)) as source,
            closing(copy.connect(partial)) as database,
        ):
            source.backup(database)
            _renew(database, str(target))
        copy.sync(partial)
        copy.rename(partial, target)
        copy.sync_names()
    except BaseException:
        copy.remove(partial)
        raise
    return target.stat().st_size


def _renew(database: sqlite3.Connection, path: str) -> None:
    database.execute("BEGIN IMMEDIATE")
    migrate(database, path)  # a tool may copy what a node of today did not open yet
    database.execute("COMMIT")
    store = JournalStore.load(database)
    store.begin()
    store.set_identity(renewed(store.identity))
    store.commit()
