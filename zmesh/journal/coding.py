"""Rows of the database to values and back: every row carries a checksum of all that is in it.

SQLite says nothing of a flipped bit in a body. The checksum covers the row's key as well, and what
table it is of, so that a row in the wrong place is as visible as one with the wrong content, and a
row found anywhere in a damaged file can be known for what it is.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from struct import Struct
from typing import Final, cast
from zlib import crc32

from msgpack import Packer, unpackb

from zmesh.message import Outcome, Record
from zmesh.storage import (
    POSITION_MAX,
    Entry,
    EntryKind,
    Identity,
    Note,
    Row,
    StoredOutcome,
    Stream,
    StreamKind,
)

POSITION_BITS: Final = 44
IDENTITY: Final = 0
POSITION: Final = 1
FIRST_STREAM: Final = 16
"""Numbers of facts: who keeps the journal, how far it has come, and from here on its streams."""

Column = bytes | int | None
Columns = Sequence[Column]

_pack = Packer().pack  # the writer's thread alone uses it, and tools that have none
_ROW = Struct(">BqqqqqI")
_KEY = Struct(">Bqq")
_ENTRY = Struct(">BqI")


class Table(IntEnum):
    """The tables whose rows are counted and summed, and their place in the checksums."""

    FACTS = 1
    MESSAGES = 2
    ENTRIES = 3
    ATTEMPTS = 4
    OUTCOMES = 5


class Unsound(Exception):
    """A row is not what was written."""


def bounds_of(number: int) -> tuple[int, int]:
    """Return the lowest and the highest place of a stream."""
    return number << POSITION_BITS, (number + 1 << POSITION_BITS) - 1


# Messages: place, record, stored, expires, due, ordinal, note, and the checksum


def message_columns(number: int, rows: Sequence[Row]) -> list[tuple[Column, ...]]:
    """Return the columns of rows in a stream."""
    base = number << POSITION_BITS
    pack, checksum, tag = _ROW.pack, crc32, int(Table.MESSAGES)
    all_columns: list[tuple[Column, ...]] = []
    for position, record, stored, expires, due, order, note in rows:
        if not 1 <= position <= POSITION_MAX:
            raise ValueError(f"there is no position {position}")
        place = base | position
        packed = _pack(record)
        notes = _pack(note) if note else b""
        head = pack(tag, place, stored, expires, due, order, len(notes))
        all_columns.append(
            (place, packed, stored, expires, due, order, notes,
             checksum(packed, checksum(notes + head)))
        )  # fmt: skip
    return all_columns


def is_message_sound(columns: Columns) -> bool:
    """Return whether a row of messages is what was written."""
    place, packed, stored, expires, due, order, notes, checksum = columns
    try:
        head = _ROW.pack(Table.MESSAGES, place, stored, expires, due, order, len(notes))  # type: ignore[arg-type]
        return crc32(packed, crc32(notes + head)) == checksum  # type: ignore[arg-type, operator]
    except (TypeError, ValueError, OverflowError, struct.error):
        return False


def row_of(columns: Columns) -> Row:
    """Return the row; Unsound where it is not what was written."""
    if not is_message_sound(columns):
        raise Unsound(f"the message at {columns[0]!r}")
    place, packed, stored, expires, due, order, notes, _ = cast(
        "tuple[int, bytes, int, int, int, int, bytes, int]", columns
    )
    return Row(
        place & POSITION_MAX,
        cast("Record", unpackb(packed, use_list=False)),
        stored,
        expires,
        due,
        order,
        cast("Note", unpackb(notes, use_list=False)) if notes else (),
    )


# Facts, attempts and outcomes: (key, value, checksum) and (first, last, value, checksum)


def fact_checksum(number: int, value: bytes) -> int:
    """Return the checksum of a fact."""
    return crc32(value, crc32(_KEY.pack(Table.FACTS, number, 0)))


def mark_checksum(table: Table, first: int, last: int, value: bytes) -> int:
    """Return the checksum of a value that a range of places has."""
    return crc32(value, crc32(_KEY.pack(table, first, last)))


def is_fact_sound(columns: Columns) -> bool:
    """Return whether a row of facts is what was written."""
    number, value, checksum = columns
    try:
        return fact_checksum(number, value) == checksum  # type: ignore[arg-type]
    except (TypeError, struct.error):
        return False


def is_mark_sound(table: Table, columns: Columns) -> bool:
    """Return whether a row of attempts or outcomes is what was written."""
    first, last, value, checksum = columns
    try:
        return mark_checksum(table, first, last, value) == checksum  # type: ignore[arg-type]
    except (TypeError, struct.error):
        return False


def identity_value(identity: Identity) -> bytes:
    """Return an identity as the value of its fact."""
    return _packed((identity.node, identity.seed, identity.journal, identity.incarnation))


def identity_of(value: bytes) -> Identity:
    """Return the identity from the value of its fact."""
    return Identity(*unpackb(value, use_list=False))


def stream_value(stream: Stream, following: int, cum: int, ranges: Sequence[object]) -> bytes:
    """Return a stream as the value of its fact."""
    return _packed((*stream, following, cum, ranges))


def stream_of(value: bytes) -> tuple[Stream, int, int, tuple[tuple[int, int], ...]]:
    """Return a stream, its next position and its watermark from the value of its fact."""
    kind, owner, lane, following, cum, ranges = unpackb(value, use_list=False)
    return Stream(StreamKind(kind), owner, lane), following, cum, ranges


def outcome_value(outcome: StoredOutcome) -> bytes:
    """Return an outcome, less its range, as the value of a mark."""
    return _packed((outcome.outcome, outcome.reason, outcome.delay_ms))


def outcome_of(first: int, last: int, value: bytes) -> StoredOutcome:
    """Return the outcome of a range of places from the value of its mark."""
    outcome, reason, delay_ms = unpackb(value)
    low, high = first & POSITION_MAX, last & POSITION_MAX
    return StoredOutcome(low, high, Outcome(outcome), reason, delay_ms)


def attempts_value(attempts: int) -> bytes:
    """Return a count of attempts as the value of a mark."""
    return _packed(attempts)


def attempts_of(value: bytes) -> int:
    """Return a count of attempts from the value of its mark."""
    return cast("int", unpackb(value))


# Entries: kind, name, key, value, and the checksum


def entry_columns(entry: Entry) -> tuple[int, bytes, bytes, bytes, int]:
    """Return the columns of an entry."""
    name = entry.name.encode()
    return entry.kind, name, entry.key, entry.value, _entry_checksum(*entry[:1], name, *entry[2:])


def _entry_checksum(kind: int, name: bytes, key: bytes, value: bytes) -> int:
    head = _ENTRY.pack(Table.ENTRIES, kind, len(name)) + name
    return crc32(value, crc32(key, crc32(head + len(key).to_bytes(4, "big"))))


def is_entry_sound(columns: Columns) -> bool:
    """Return whether a row of entries is what was written."""
    kind, name, key, value, checksum = columns
    try:
        return _entry_checksum(kind, name, key, value) == checksum  # type: ignore[arg-type]
    except (TypeError, struct.error):
        return False


def entry_of(columns: Columns) -> Entry:
    """Return the entry; Unsound where it is not what was written."""
    if not is_entry_sound(columns):
        raise Unsound("an entry")
    kind, name, key, value, _ = cast("tuple[int, bytes, bytes, bytes, int]", columns)
    return Entry(EntryKind(kind), name.decode(), key, value)


# How far the journal has come


class Totals:
    """How many rows each table has and what their checksums sum up to, as of the last commit.

    They are in every transaction. A row that vanishes without its page being broken, as in a
    file put together from pages of several times, shows in them.
    """

    __slots__ = ("commits", "counts", "size", "sums")

    def __init__(self) -> None:
        self.commits = 0
        self.size = 0  # of records and notes, in bytes
        self.counts = dict.fromkeys(Table, 0)
        self.sums = dict.fromkeys(Table, 0)

    def copy(self) -> "Totals":
        """Return a copy."""
        other = Totals()
        other.commits, other.size = self.commits, self.size
        other.counts, other.sums = self.counts.copy(), self.sums.copy()
        return other

    def add(self, table: Table, count: int, checksums: int) -> None:
        """Note rows that came, or with negative numbers that went."""
        self.counts[table] += count
        self.sums[table] += checksums

    def value(self) -> bytes:
        """Return them as the value of their fact."""
        return _packed((self.commits, self.size, *self.counts.values(), *self.sums.values()))

    @classmethod
    def of(cls, value: bytes) -> "Totals":
        """Return them from the value of their fact."""
        commits, size, *numbers = unpackb(value, use_list=False)
        totals = cls()
        totals.commits, totals.size = commits, size
        totals.counts = dict(zip(Table, numbers[: len(Table)], strict=True))
        totals.sums = dict(zip(Table, numbers[len(Table) :], strict=True))
        return totals


def _packed(value: object) -> bytes:
    return cast("bytes", _pack(value))
