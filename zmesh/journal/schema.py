"""The tables of a journal, and how an older file becomes one of today."""

import sqlite3
import time
from collections.abc import Sequence
from typing import Final

from zmesh.storage_errors import JournalTooNew

APPLICATION_ID: Final = 0x7A6D6A31  # "zmj1": what `file` tells of it
CREATION_PRAGMAS: Final = (
    "PRAGMA page_size = 4096",
    "PRAGMA auto_vacuum = INCREMENTAL",  # fixed with the first table
    "PRAGMA synchronous = FULL",
)

# A rowid table throughout: rows are appended in order of their places, and a damaged file can be
# read page by page. Neighbours in a stream are neighbours in the file.
_VERSION_1: Final = (
    f"PRAGMA application_id = {APPLICATION_ID}",
    """CREATE TABLE versions (
        version INTEGER PRIMARY KEY,  -- the highest is that of the file
        at_ms INTEGER NOT NULL
    )""",
    """CREATE TABLE facts (
        number INTEGER PRIMARY KEY,  -- 0 identity, 1 how far it came, 2 seal, 16 on: streams
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )""",
    """CREATE TABLE messages (
        place INTEGER PRIMARY KEY,  -- number of the stream << 44 | position in it
        record BLOB NOT NULL,
        stored INTEGER NOT NULL,
        expires INTEGER NOT NULL,
        due INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        note BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )""",
    """CREATE TABLE entries (
        id INTEGER PRIMARY KEY,
        kind INTEGER NOT NULL,
        name BLOB NOT NULL,
        key BLOB NOT NULL,
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )""",
    "CREATE UNIQUE INDEX entry_keys ON entries (kind, name, key)",
    *(
        f"""CREATE TABLE {name} (
        first INTEGER PRIMARY KEY,  -- places; ranges do not overlap
        last INTEGER NOT NULL,
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )"""
        for name in ("attempts", "outcomes")
    ),
)

# Rows of version 1 stay as they are: each is a block of one, whose checksum is without the span.
_VERSION_2: Final = (
    # How many places a row takes, from its own on: as many as `record` has, which is a list then.
    "ALTER TABLE messages ADD COLUMN span INTEGER NOT NULL DEFAULT 1",
    """CREATE TABLE gone (
        first INTEGER PRIMARY KEY,  -- places within one block, which are forgotten
        last INTEGER NOT NULL,
        value BLOB NOT NULL,  -- the checksum of the block
        checksum INTEGER NOT NULL
    )""",
)

# An encrypted file is of this version at least: an earlier zmesh would take it for a damaged one.
# On a page of its own, for without what it says nothing of the file can be read.
_VERSION_3: Final = (
    """CREATE TABLE seals (
        number INTEGER PRIMARY KEY,  -- a copy of the fact of this number
        value BLOB NOT NULL,
        checksum INTEGER NOT NULL
    )""",
)

Migration = Sequence[str]
MIGRATIONS: tuple[Migration, ...] = (_VERSION_1, _VERSION_2, _VERSION_3)
"""What makes version `n + 1` of version `n`; version 0 is a file without tables."""

FIRST_ENCRYPTED: Final = 3
"""Files of earlier versions are not."""


def version_of(database: sqlite3.Connection) -> int:
    """Return the schema version of a file; 0 where it has no tables."""
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if not tables:
        return 0
    (version,) = database.execute("SELECT max(version) FROM versions").fetchone()
    return int(version)


def migrate(
    database: sqlite3.Connection, path: str, migrations: Sequence[Migration] | None = None
) -> None:
    """Bring the schema to today's version, in the transaction that is open.

    Raises:
        JournalTooNew: a later zmesh wrote the file.
    """
    migrations = MIGRATIONS if migrations is None else migrations
    version = version_of(database)
    if version > len(migrations):
        raise JournalTooNew(path, version, len(migrations))
    for number, statements in enumerate(migrations[version:], version + 1):
        for statement in statements:
            database.execute(statement)
        at_ms = time.time_ns() // 1_000_000
        database.execute("INSERT INTO versions VALUES (?, ?)", (number, at_ms))
