"""From a path to a journal that can be written: created, migrated, checked, or rescued."""

import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from typing import Literal, NamedTuple

from zmesh.ids import JournalId, NodeId
from zmesh.journal.checks import check_opened, structural_problems
from zmesh.journal.coding import Unsound
from zmesh.journal.creation import create, remove_leftovers
from zmesh.journal.faults import Fault, fault_of
from zmesh.journal.files import Files
from zmesh.journal.foreign import refuse_foreign, refuse_irregular
from zmesh.journal.salvage import finish_setting_aside, set_aside
from zmesh.journal.schema import (
    APPLICATION_ID,
    FIRST_ENCRYPTED,
    MIGRATIONS,
    migrate,
    version_of,
)
from zmesh.journal.sealing import with_key
from zmesh.journal.store import JournalStore
from zmesh.options import JournalOptions
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Identity, Rescue, StreamState
from zmesh.storage_errors import JournalBroken, JournalCorrupted

Synchronous = Literal["full", "normal"]


class OpenJournal(NamedTuple):
    """A journal that can be written, and what was found in it."""

    store: JournalStore
    streams: tuple[StreamState, ...]
    is_new: bool
    rescue: Rescue | None


def new_identity(node: NodeId, seed: bytes) -> Identity:
    """Return the identity of a node without a journal so far."""
    return Identity(node, seed, JournalId(os.urandom(16)), 0)


def open_journal(
    files: Files,
    options: JournalOptions,
    fresh: Identity,
    synchronous: Synchronous,
    key: StorageKey | None = None,
) -> OpenJournal:
    """Open the journal for a new life of its node, whose incarnation is on disk on return.

    Args:
        files: of the journal; locked on return, and not where an error is raised.
        options: its bounds.
        fresh: who is to keep it, where it is new.
        synchronous: "full" syncs every commit, "normal" only checkpoints.
        key: what it is encrypted with, or is to be where it is new.

    Raises:
        StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted: nothing in it was changed.
        StorageError: of the kind that tells what to do.
        OSError, sqlite3.Error: the disk; see `faults.told`.
    """
    if not files.exists(files.beside(".lock")):  # nor shall there be one beside another's file
        refuse_foreign(files, None)
    files.lock()
    try:
        opened = _open_or_rescue(files, options, fresh, key)
        store = opened.store
        try:
            _begin_life(files, store)
            remove_leftovers(files, files.beside(".new"))
            store.database.execute(f"PRAGMA synchronous = {synchronous}")
        except BaseException:
            store.database.close()
            raise
    except BaseException:
        files.unlock()
        raise
    return opened


def _begin_life(files: Files, store: JournalStore) -> None:
    store.begin()
    identity = store.identity
    store.set_identity(replace(identity, incarnation=identity.incarnation + 1))
    store.commit()
    files.claim(identity.journal, store.totals.commits)
    files.sync_names()


def _open_or_rescue(
    files: Files, options: JournalOptions, fresh: Identity, key: StorageKey | None
) -> OpenJournal:
    refuse_irregular(files)
    finish_setting_aside(files)
    is_new = _is_new(files)
    if is_new:
        create(files, fresh, key)
    else:
        refuse_foreign(files, files.claimed())
    try:
        if files.exists(files.beside(".suspect")):
            raise Unsound("it was found damaged while it was open")
        if not files.size_of(files.path):
            # SQLite would remove the log of an empty database.
            raise Unsound("there is nothing in the file")
        store, streams = _open_sound(files, options, key)
    except (Unsound, sqlite3.Error, ValueError, TypeError, OverflowError) as error:
        if fault_of(error, files.path) is not Fault.DAMAGED:
            raise
        rescue = set_aside(files, fresh, str(error), key)
    else:
        return OpenJournal(store, streams, is_new, rescue=None)
    try:
        store, streams = _open_sound(files, options, key)
    except Unsound as error:
        raise JournalCorrupted(str(files.path), f"again after its rescue: {error}") from error
    return OpenJournal(store, streams, is_new=False, rescue=rescue)


def _is_new(files: Files) -> bool:
    """Return whether there is nothing: no file, or an empty one that was never a journal."""
    if files.exists(files.beside("-wal")):
        return False
    was_journal = files.exists(files.path) and files.claimed() is not None
    return not files.size_of(files.path) and not was_journal


def _open_sound(
    files: Files, options: JournalOptions, key: StorageKey | None
) -> tuple[JournalStore, tuple[StreamState, ...]]:
    # First on a connection that cannot write: another would, when it is closed, move as much of
    # a damaged log into the database as SQLite takes for good, and remove the rest.
    with closing(files.connect(read_only=True, cache_bytes=options.cache_bytes)) as database:
        is_of_today = _check_version(database)
        keyhole = with_key(str(files.path), key)
        if version_of(database) < FIRST_ENCRYPTED:
            keyhole(None)
        store = JournalStore.load(database, keyhole) if is_of_today else None
        states = check_opened(files, store, files.claimed()) if store is not None else ()
    database = files.connect(cache_bytes=options.cache_bytes)
    try:
        _set_up(database, files, options)
        _migrate(database, files)
        store = JournalStore.load(database, keyhole)
        if not is_of_today:
            states = check_opened(files, store, files.claimed())
    except BaseException:
        database.close()
        raise
    return store, states


def _check_version(database: sqlite3.Connection) -> bool:
    """Return whether the schema is of today; one of an earlier day has its structure checked."""
    version = version_of(database)
    if version == 0:
        raise Unsound("its tables are gone")
    (number,) = database.execute("PRAGMA application_id").fetchone()
    if number != APPLICATION_ID:
        raise Unsound("it does not say that it is a journal")
    if version < len(MIGRATIONS):
        for problem in structural_problems(database):
            raise Unsound(problem)
    return version >= len(MIGRATIONS)


def _set_up(database: sqlite3.Connection, files: Files, options: JournalOptions) -> None:
    (mode,) = database.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != b"wal":
        reason = "its file system cannot share memory between processes: use a local disk"
        raise JournalBroken(str(files.path), "be opened", reason)
    for pragma in (
        "PRAGMA synchronous = FULL",
        "PRAGMA wal_autocheckpoint = 0",  # ours tells of its errors; SQLite's would try again
        f"PRAGMA journal_size_limit = {options.wal_bytes_max}",
        "PRAGMA secure_delete = FAST",  # bodies that are gone are gone, where that costs nothing
        "PRAGMA temp_store = MEMORY",  # a full disk must not stop a delete
    ):
        database.execute(pragma)


def _migrate(database: sqlite3.Connection, files: Files) -> None:
    database.execute("BEGIN IMMEDIATE")
    try:
        migrate(database, str(files.path))
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
