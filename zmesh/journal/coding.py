"""Rows of the database to values and back: every row carries a checksum of all that is in it.

SQLite says nothing of a flipped bit in a body. The checksum covers the row's key as well, and what
table it is of, so that a row in the wrong place is as visible as one with the wrong content, and a
row found anywhere in a damaged file can be known for what it is.
"""

import struct
from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple, cast
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
    StoreRun,
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
_BLOCK = Struct(">BqqqqqII")
_new_row: Callable[[tuple[object, ...]], Row] = partial(
    tuple.__new__, Row
)  # twice as fast as its own
_KEY = Struct(">Bqq")
_ENTRY = Struct(">BqI")


class Table(IntEnum):
    """The tables whose rows are counted and summed, and their place in the checksums."""

    FACTS = 1
    MESSAGES = 2
    ENTRIES = 3
    ATTEMPTS = 4
    OUTCOMES = 5
    GONE = 6


class Unsound(Exception):
    """A row is not what was written."""


def bounds_of(number: int) -> tuple[int, int]:
    """Return the lowest and the highest place of a stream."""
    return number << POSITION_BITS, (number + 1 << POSITION_BITS) - 1


# Messages: place, record, stored, expires, due, ordinal, note, the checksum, and the span. A row
# is a block of as many records as its span says; a single one is itself, several are a list.


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
             checksum(packed, checksum(notes + head)), 1)
        )  # fmt: skip
    return all_columns


def run_columns(number: int, run: StoreRun) -> list[tuple[Column, ...]]:
    """Return the columns of the blocks of a run in a stream."""
    if not 1 <= run.first <= run.last <= POSITION_MAX:
        raise ValueError(f"there are no positions {run.first} to {run.last}")
    base, order = number << POSITION_BITS, run.order - run.first
    common = (run.stored_ms, run.expires_ms, run.due_ms)
    notes = _packed(run.note) if run.note else b""
    return [
        _block_columns(base | first, records, common, order + first, notes)
        for first, records in run.blocks()
    ]


def _block_columns(
    place: int, records: Sequence[Record], common: tuple[int, int, int], order: int, notes: bytes
) -> tuple[Column, ...]:
    span = len(records)
    packed = _packed(records if span > 1 else records[0])
    checksum = crc32(packed, crc32(notes + _head(place, *common, order, len(notes), span)))
    return (place, packed, *common, order, notes, checksum, span)


def _head(
    place: int, stored: int, expires: int, due: int, order: int, note_bytes: int, span: int
) -> bytes:
    fields = (Table.MESSAGES, place, stored, expires, due, order, note_bytes)
    return _ROW.pack(*fields) if span == 1 else _BLOCK.pack(*fields, span)


def is_message_sound(columns: Columns) -> bool:
    """Return whether a row of messages is what was written."""
    place, packed, stored, expires, due, order, notes, checksum, span = columns
    try:
        if span == 1:  # without a call: it is done for each message that stands alone
            head = _ROW.pack(Table.MESSAGES, place, stored, expires, due, order, len(notes))  # type: ignore[arg-type]
        else:
            head = _head(place, stored, expires, due, order, len(notes), span)  # type: ignore[arg-type]
        return crc32(packed, crc32(notes + head)) == checksum  # type: ignore[arg-type, operator]
    except (TypeError, ValueError, OverflowError, struct.error):
        return False


class Block(NamedTuple):
    """Records at consecutive places, in consecutive orders, with all else in common."""

    place: int  # of the first
    records: tuple[Record, ...]
    stored_ms: int
    expires_ms: int
    due_ms: int
    order: int  # of the first
    note: Note

    def rows(self) -> list[Row]:
        """Return them one by one."""
        first = self.place & POSITION_MAX
        count = len(self.records)
        columns = zip(
            range(first, first + count), self.records,
            repeat(self.stored_ms), repeat(self.expires_ms), repeat(self.due_ms),
            range(self.order, self.order + count), repeat(self.note),
        )  # fmt: skip
        return list(map(_new_row, columns))

    def part(self, first: int, last: int) -> "Block":
        """Return what it has from one place to another, which are within it."""
        start = first - self.place
        records = self.records[start : last - self.place + 1]
        return self._replace(place=first, records=records, order=self.order + start)

    def sizes(self) -> list[int]:
        """Return how many bytes each record takes."""
        return [len(_packed(record)) for record in self.records]


def records_bytes(columns: Columns) -> int:
    """Return how many bytes the records of a block have, less what says how many they are."""
    packed, span = cast("bytes", columns[1]), cast("int", columns[8])
    return len(packed) - (span > 1) - 2 * (span > 15)


def is_gone_of(columns: Columns, first: int, last: int, value: bytes) -> bool:
    """Return whether a mark of what is gone is of this row of messages."""
    place, *_, checksum, span = cast("tuple[int, ...]", columns)
    return place <= first and last < place + span and checksum.to_bytes(4) == value


def block_of(columns: Columns) -> Block:
    """Return what a row of messages has; Unsound where it is not what was written."""
    place, packed, stored, expires, due, order, notes, _, span = _sound(columns)
    records = unpackb(packed, use_list=False)
    records = (records,) if span == 1 else records
    found = cast("tuple[Record, ...]", records)
    note = cast("Note", unpackb(notes, use_list=False)) if notes else ()
    return Block(place, found, stored, expires, due, order, note)


def row_of(columns: Columns) -> Row:
    """Return the only row of a block, as `block_of`."""
    place, packed, stored, expires, due, order, notes, _, _ = _sound(columns)
    record = cast("Record", unpackb(packed, use_list=False))
    note = cast("Note", unpackb(notes, use_list=False)) if notes else ()
    return Row(place & POSITION_MAX, record, stored, expires, due, order, note)


def _sound(columns: Columns) -> tuple[int, bytes, int, int, int, int, bytes, int, int]:
    if not is_message_sound(columns):
        raise Unsound(f"the message at {columns[0]!r}")
    return cast("tuple[int, bytes, int, int, int, int, bytes, int, int]", columns)


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

    __slots__ = ("commits", "counts", "records", "size", "sums")

    def __init__(self) -> None:
        self.commits = 0
        self.size = 0  # of what is in rows of messages, in bytes
        self.records = 0  # in them, less those that are gone
        self.counts = dict.fromkeys(Table, 0)
        self.sums = dict.fromkeys(Table, 0)

    def copy(self) -> "Totals":
        """Return a copy."""
        other = Totals()
        other.commits, other.size, other.records = self.commits, self.size, self.records
        other.counts, other.sums = self.counts.copy(), self.sums.copy()
        return other

    def add(self, table: Table, count: int, checksums: int) -> None:
        """Note rows that came, or with negative numbers that went."""
        self.counts[table] += count
        self.sums[table] += checksums

    def value(self) -> bytes:
        """Return them as the value of their fact."""
        numbers = (*self.counts.values(), *self.sums.values(), self.records)
        return _packed((self.commits, self.size, *numbers))

    @classmethod
    def of(cls, value: bytes) -> "Totals":
        """Return them from the value of their fact, be it of version 1, where rows had one record.

        Raises:
            Unsound: it is neither.
        """
        commits, size, *numbers = unpackb(value, use_list=False)
        totals = cls()
        totals.commits, totals.size = commits, size
        tables = list(Table)
        if len(numbers) == 2 * (len(tables) - 1):
            tables.remove(Table.GONE)
            numbers.append(numbers[tables.index(Table.MESSAGES)])
        if len(numbers) != 2 * len(tables) + 1:
            raise Unsound("how far it has come is told in a way that is not known")
        totals.counts.update(zip(tables, numbers, strict=False))
        totals.sums.update(zip(tables, numbers[len(tables) :], strict=False))
        totals.records = numbers[-1]
        return totals


def _packed(value: object) -> bytes:
    return cast("bytes", _pack(value))
