"""A new file for a journal, built whole under another name: there is never half of one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from zmesh.journal.files import Files
from zmesh.journal.schema import CREATION_PRAGMAS, migrate
from zmesh.journal.sealing import Seal
from zmesh.journal.store import JournalStore
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Identity


def remove_leftovers(files: Files, path: Path) -> None:
    """Remove a file that was being built when its process died: nobody will go on with it.

    A conversion to no key has there in the clear what is encrypted in the journal.
    """
    for left in _files_of(path):
        if files.exists(left):
            files.remove(left)


def _files_of(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in ("", "-journal", "-wal", "-shm")]


@contextmanager
def building(files: Files, path: Path) -> Iterator[sqlite3.Connection]:
    """Give a transaction in a new file with all tables; on disk at the end, if it is committed.

    What is left of an earlier attempt is removed.
    """
    for left in _files_of(path):
        files.remove(left)
    files.create(path)
    with closing(files.connect(path)) as database:
        for pragma in CREATION_PRAGMAS:
            database.execute(pragma)
        database.execute("BEGIN IMMEDIATE")
        migrate(database, str(files.path))
        yield database
        # Here, where nobody sees a half of it; the change takes a journal of the other kind.
        database.execute("PRAGMA journal_mode = WAL")
    files.sync(path)


def create(files: Files, identity: Identity, key: StorageKey | None = None) -> None:
    """Create a journal with nothing in it, encrypted where there is a key."""
    seal = None if key is None else Seal.new(str(files.path), key)
    path = files.beside(".new")
    with building(files, path) as database:
        store = JournalStore(database, identity, seal=seal)
        store.put_seal()
        store.set_identity(identity)
        store.commit()
    files.rename(path, files.path)
    files.sync_names()
