"""A journal whose file a disk has damaged: what is found in it was written, and costs no more.

The file is small and made anew by the journal's own coding; a script says where it is changed.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Final, NamedTuple
from unittest.mock import patch

from tests.fuzz import bounded
from tests.fuzz.places import place
from tests.fuzz.script import Script
from zmesh.ids import JournalId, NodeId
from zmesh.journal import coding, sealing
from zmesh.journal.coding import Columns, Table, Totals
from zmesh.journal.pages import Image
from zmesh.journal.sealing import Seal
from zmesh.message import Kind, Outcome, Record, Tag, head
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    Entry,
    EntryKind,
    Identity,
    Row,
    StoredOutcome,
    StoreRun,
    Stream,
    StreamKind,
)

PAGE_BYTES: Final = 512
CHANGES_MAX: Final = 12
MEMORY_MAX: Final = 1024 * 1024
KEY: Final = StorageKey(b"k" * 32)
QUEUE: Final = Stream(StreamKind.QUEUE, b"jobs")
NUMBER: Final = coding.FIRST_STREAM
_TABLES: Final = (
    "facts (number INTEGER PRIMARY KEY, value, checksum)",
    "messages (place INTEGER PRIMARY KEY, record, at1, at2, at3, ordinal, note, checksum, span)",
    "entries (id INTEGER PRIMARY KEY, kind, name, key, value, checksum)",
    "outcomes (first INTEGER PRIMARY KEY, last, value, checksum)",
)


class _Written(NamedTuple):
    """A journal as it was before it was damaged."""

    file: bytes
    log: bytes
    rows: frozenset[Columns]
    seal: Seal | None


def run(data: bytes) -> None:
    """Damage a journal as the script says, and read what is left."""
    script = Script(data)
    written = _written(is_sealed=script.flag())
    file, log = bytearray(written.file), bytearray(written.log)
    for _ in range(CHANGES_MAX):
        if not script.more:
            break
        _change(script, log if script.flag() and log else file)
    with place() as directory:
        path = Path(directory, "journal")
        path.write_bytes(file)
        beside = Path(directory, "journal-wal")
        beside.write_bytes(log)
        with (
            bounded.memory(MEMORY_MAX, f"reading {len(file) + len(log)} bytes"),
            closing(Image(path, beside)) as image,
        ):
            for columns in _sound(image):
                assert columns in written.rows, "a row that nobody wrote"
                _read(columns, written.seal)


def of_changes(*changes: tuple[int, bytes], is_sealed: bool = False) -> bytes:
    """Return the bytes that are read as a journal whose file has other bytes at some places."""
    told = bytearray([is_sealed])
    for at, data in changes:
        told += bytes([0, 0]) + at.to_bytes(2, "big") + bytes([len(data) - 1]) + data
    return bytes(told)


def of_endless_row() -> bytes:
    """Return the bytes that are read as a journal with a row of 4 MB, one page over and over."""
    size, least = 4_064_509, 39  # with so many bytes that only the least are on its own page
    row = 2 * PAGE_BYTES + 427  # the first of the leaf that is the third page
    varint = bytes(
        [0x80 | size >> 21, 0x80 | size >> 14 & 0x7F, 0x80 | size >> 7 & 0x7F, size & 0x7F]
    )
    next_page = bytes([0, 0, 0, 8])
    return of_changes(
        (row, varint + b"\1"), (row + 5 + least, next_page), (7 * PAGE_BYTES, next_page)
    )


def _change(script: Script, image: bytearray) -> None:
    kind = script.below(6)
    at = int.from_bytes(script.take(2), "big") % max(1, len(image))
    first = at // PAGE_BYTES * PAGE_BYTES
    match kind:
        case 0 | 1 | 2:
            told = script.take(script.byte() % 16 + 1)
            image[at : at + len(told)] = told
        case 3:
            other = script.byte() * PAGE_BYTES % max(1, len(image))
            image[first : first + PAGE_BYTES] = image[other : other + PAGE_BYTES]
        case 4:
            image[first : first + PAGE_BYTES] = bytes(PAGE_BYTES)
        case _:
            del image[at:]


def _sound(image: Image) -> Iterator[Columns]:
    """Yield the rows whose checksums are right, as a rescue takes them."""
    for row_id, (_, *rest) in image.rows():
        columns = (row_id, *rest)
        match len(columns):
            case 9 if coding.is_message_sound(columns):
                yield columns
            case 6 if coding.is_entry_sound(rest):
                yield tuple(rest)
            case 3 if coding.is_fact_sound(columns):
                yield columns
            case 4 if coding.is_mark_sound(Table.OUTCOMES, columns):
                yield columns
            case _:
                pass


def _read(columns: Columns, seal: Seal | None) -> None:
    first, value = columns[0], columns[-2]
    match len(columns):
        case 9:
            for row in coding.block_of(columns, seal).rows():
                assert row.position > 0
        case 5:
            assert coding.entry_of(columns, seal).kind in EntryKind
        case 3:
            assert isinstance(value, bytes)
            _read_fact(first, value, seal)
        case _:
            assert isinstance(first, int)
            assert isinstance(columns[1], int)
            assert isinstance(value, bytes)
            coding.outcome_of(first, columns[1], value, seal)


def _read_fact(number: object, value: bytes, seal: Seal | None) -> None:
    if number == coding.IDENTITY:
        assert coding.identity_of(value, seal) == _IDENTITY
    elif number == coding.POSITION:
        assert Totals.of(value).commits == 0
    else:
        assert coding.stream_of(NUMBER, value, seal)[0] == QUEUE


# What is damaged

_IDENTITY: Final = Identity(NodeId(b"n" * 16), b"s" * 32, JournalId(b"j" * 16), 3)


@lru_cache
def _written(*, is_sealed: bool) -> _Written:
    """Return a journal with something of everything, half of it in its log."""
    seal = Seal("journal", b"salt" * 4, KEY, (b"", "")) if is_sealed else None
    # The nonces are the same each time, so that a script finds again what it found.
    with place() as directory, patch.object(sealing, "os", SimpleNamespace(urandom=bytes)):
        path = Path(directory, "journal")
        with closing(sqlite3.connect(path, isolation_level=None)) as database:
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute("PRAGMA auto_vacuum = INCREMENTAL")
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA wal_autocheckpoint = 0")
            for table in _TABLES:
                database.execute(f"CREATE TABLE {table}")
            messages = list(_messages(seal))
            rows = [*_insert(database, messages[::2], "messages")]
            rows += _insert(database, _facts(seal), "facts")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            rows += _insert(database, messages[1::2], "messages")
            rows += _insert(database, _outcomes(seal), "outcomes")
            entries = [coding.entry_columns(each, seal) for each in _entries()]
            _insert(database, [(at, *each) for at, each in enumerate(entries, 1)], "entries")
            log = path.with_name("journal-wal").read_bytes()
            file = path.read_bytes()
    return _Written(file, log, frozenset((*rows, *entries)), seal)


def _insert(
    database: sqlite3.Connection, rows: list[tuple[coding.Column, ...]], table: str
) -> list[tuple[coding.Column, ...]]:
    marks = ", ".join("?" * len(rows[0]))
    database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  # ours
    return rows


def _messages(seal: Seal | None) -> Iterator[tuple[coding.Column, ...]]:
    job: Record = (head(Kind.JOB), "jobs", b"body", (int(Tag.STORED), 1))
    large: Record = (head(Kind.JOB), "jobs", b"large" * 300)
    rows = [Row(at, job if at % 3 else large, 10, 0, at, at, ("note", at)) for at in range(1, 9)]
    yield from coding.message_columns(NUMBER, rows, seal)
    yield from coding.run_columns(NUMBER, StoreRun(QUEUE, 20, (job,) * 6, 10, 0, 0, 20), seal)


def _facts(seal: Seal | None) -> list[tuple[coding.Column, ...]]:
    values = {
        coding.IDENTITY: coding.identity_value(_IDENTITY, seal),
        coding.POSITION: Totals().value(),
        NUMBER: coding.stream_value(NUMBER, QUEUE, 30, 2, ((5, 6),), seal),
    }
    return [
        (number, value, coding.fact_checksum(number, value)) for number, value in values.items()
    ]


def _outcomes(seal: Seal | None) -> list[tuple[coding.Column, ...]]:
    low = coding.bounds_of(NUMBER)[0]
    told = coding.outcome_value(StoredOutcome(1, 2, Outcome.REJECTED, "why", 5))
    value = coding.mark_value(Table.OUTCOMES, low + 1, low + 2, told, seal)
    checksum = coding.mark_checksum(Table.OUTCOMES, low + 1, low + 2, value)
    return [(low + 1, low + 2, value, checksum)]


def _entries() -> list[Entry]:
    return [
        Entry(EntryKind.RETAINED, "topic", b"1", b"value"),
        Entry(EntryKind.REPLAYS, "queue:jobs", b"k" * 40, b"v" * 64),
    ]
