"""Rows of the database to values and back: every row carries a checksum of all that is in it.

SQLite says nothing of a flipped bit in a body. The checksum covers the row's key as well, and what
table it is of, so that a row in the wrong place is as visible as one with the wrong content, and a
row found anywhere in a damaged file can be known for what it is.
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import IntEnum
from functools import partial
from itertools import repeat
from struct import Struct
from typing import Final, NamedTuple, cast
from zlib import crc32

from msgpack import Packer, unpackb

from zmesh.journal.sealing import OVERHEAD_BYTES, SEALED, Forged, Seal
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
SEAL: Final = 2
FIRST_STREAM: Final = 16
"""Numbers of facts: who keeps the journal, how far it has come, how it is encrypted where it is
(the table `seals` has the same once more), and from here on its streams."""

Column = bytes | int | None
Columns = Sequence[Column]

# The writer's thread alone uses it, and tools that have none.
_packed = cast("Callable[[object], bytes]", Packer().pack)
_ROW = Struct(">BqqqqqI")
_BLOCK = Struct(">BqqqqqII")
_new_row: Callable[[tuple[object, ...]], Row] = partial(
    tuple.__new__, Row
)  # twice as fast as its own
_RECORDS: Final = 0
_NOTE: Final = 1  # in the place of how long a note is: which of the two is sealed
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


def message_columns(
    number: int, rows: Sequence[Row], seal: Seal | None = None
) -> list[tuple[Column, ...]]:
    """Return the columns of rows in a stream, sealed where there is a seal."""
    base = number << POSITION_BITS
    pack, checksum, tag = _ROW.pack, crc32, int(Table.MESSAGES)
    all_columns: list[tuple[Column, ...]] = []
    for position, record, stored, expires, due, order, note in rows:
        if not 1 <= position <= POSITION_MAX:
            raise ValueError(f"there is no position {position}")
        place = base | position
        packed = _packed(record)
        notes = _packed(note) if note else b""
        if seal is not None:
            packed, notes = _sealed(
                seal, packed, notes, (place, stored, expires, due, order), span=1
            )
        head = pack(tag, place, stored, expires, due, order, len(notes))
        all_columns.append(
            (place, packed, stored, expires, due, order, notes,
             checksum(packed, checksum(notes + head)), 1)
        )  # fmt: skip
    return all_columns


def run_columns(number: int, run: StoreRun, seal: Seal | None = None) -> list[tuple[Column, ...]]:
    """Return the columns of the blocks of a run in a stream, sealed where there is a seal."""
    if not 1 <= run.first <= run.last <= POSITION_MAX:
        raise ValueError(f"there are no positions {run.first} to {run.last}")
    base, order = number << POSITION_BITS, run.order - run.first
    common = (run.stored_ms, run.expires_ms, run.due_ms)
    notes = _packed(run.note) if run.note else b""
    return [
        _block_columns(base | first, records, common, order + first, notes, seal)
        for first, records in run.blocks()
    ]


def _block_columns(  # what a block is of
    place: int,
    records: Sequence[Record],
    common: tuple[int, int, int],
    order: int,
    notes: bytes,
    seal: Seal | None,
) -> tuple[Column, ...]:
    span = len(records)
    packed = _packed(records if span > 1 else records[0])
    if seal is not None:
        packed, notes = _sealed(seal, packed, notes, (place, *common, order), span)
    checksum = crc32(packed, crc32(notes + _head(place, *common, order, len(notes), span)))
    return (place, packed, *common, order, notes, checksum, span)


def _head(
    place: int, stored: int, expires: int, due: int, order: int, note_bytes: int, span: int
) -> bytes:
    fields = (Table.MESSAGES, place, stored, expires, due, order, note_bytes)
    return _ROW.pack(*fields) if span == 1 else _BLOCK.pack(*fields, span)


def block_columns(block: "Block", seal: Seal | None) -> tuple[Column, ...]:
    """Return the columns of a block as it is, sealed where there is a seal."""
    common = (block.stored_ms, block.expires_ms, block.due_ms)
    notes = _packed(block.note) if block.note else b""
    return _block_columns(block.place, block.records, common, block.order, notes, seal)


def _sealed(
    seal: Seal, packed: bytes, notes: bytes, at: tuple[int, int, int, int, int], span: int
) -> tuple[bytes, bytes]:
    """Return records and note as they are stored; `at` is all that a row says of them."""
    packed = seal.seal(packed, _head(*at, _RECORDS, span))
    return packed, seal.seal(notes, _head(*at, _NOTE, span)) if notes else b""


def opened(columns: Columns, seal: Seal) -> Columns:
    """Return the columns of a row of messages as they are without a seal, but for its checksum.

    Raises:
        Unsound: it is not what was sealed here.
        StorageKeyMissing: there is no key.
    """
    place, packed, stored, expires, due, order, notes, checksum, span = cast(
        "tuple[int, bytes, int, int, int, int, bytes, int, int]", columns
    )
    at = (place, stored, expires, due, order)
    try:
        packed = seal.open(packed, _head(*at, _RECORDS, span))
        notes = seal.open(notes, _head(*at, _NOTE, span)) if notes else b""
    except Forged:
        raise Unsound(f"the message at {place}, which does not open") from None
    return place, packed, stored, expires, due, order, notes, checksum, span


def sealed_bytes(columns: Columns, seal: Seal | None) -> tuple[int, int]:
    """Return by how much records and note are longer than they are without a seal."""
    return (0, 0) if seal is None else (OVERHEAD_BYTES, OVERHEAD_BYTES if columns[6] else 0)


def is_sealed(value: bytes) -> bool:
    """Return whether a value that is a record, a block or a seed is sealed."""
    return len(value) >= OVERHEAD_BYTES and value[0] == SEALED


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


def records_bytes(columns: Columns, seal: Seal | None = None) -> int:
    """Return how many bytes the records of a block have, less what says how many they are."""
    packed, span = cast("bytes", columns[1]), cast("int", columns[8])
    return len(packed) - (span > 1) - 2 * (span > 15) - sealed_bytes(columns, seal)[0]


def is_gone_of(columns: Columns, first: int, last: int, value: bytes) -> bool:
    """Return whether a mark of what is gone is of this row of messages."""
    place, *_, checksum, span = cast("tuple[int, ...]", columns)
    return place <= first and last < place + span and checksum == int.from_bytes(value)


def block_of(columns: Columns, seal: Seal | None = None) -> Block:
    """Return what a row of messages has; Unsound where it is not what was written."""
    place, packed, stored, expires, due, order, notes, _, span = _sound(columns, seal)
    records = unpackb(packed, use_list=False)
    records = (records,) if span == 1 else records
    found = cast("tuple[Record, ...]", records)
    note = cast("Note", unpackb(notes, use_list=False)) if notes else ()
    return Block(place, found, stored, expires, due, order, note)


def row_of(columns: Columns, seal: Seal | None = None) -> Row:
    """Return the only row of a block, as `block_of`."""
    place, packed, stored, expires, due, order, notes, _, _ = _sound(columns, seal)
    record = cast("Record", unpackb(packed, use_list=False))
    note = cast("Note", unpackb(notes, use_list=False)) if notes else ()
    return Row(place & POSITION_MAX, record, stored, expires, due, order, note)


def _sound(
    columns: Columns, seal: Seal | None
) -> tuple[int, bytes, int, int, int, int, bytes, int, int]:
    if not is_message_sound(columns):
        raise Unsound(f"the message at {columns[0]!r}")
    if seal is not None:
        columns = opened(columns, seal)
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


# Of facts the seed, and whom a stream is of, are sealed; of marks the outcomes. Without the key
# both stay as they are stored: nobody who has none asks what they say.


def identity_value(identity: Identity, seal: Seal | None = None) -> bytes:
    """Return an identity as the value of its fact."""
    seed = identity.seed
    if seal is not None and seal.is_open:
        seed = seal.seal(seed, _seed_place(identity.node))
    return _packed((identity.node, seed, identity.journal, identity.incarnation))


def identity_of(value: bytes, seal: Seal | None = None) -> Identity:
    """Return the identity from the value of its fact; Unsound where its seed does not open."""
    identity = Identity(*unpackb(value, use_list=False))
    if seal is None or not seal.is_open:
        return identity
    seed = _unsealed(seal, identity.seed, _seed_place(identity.node), "the seed of the node's key")
    return replace(identity, seed=seed)


def _seed_place(node: bytes) -> bytes:
    return _KEY.pack(Table.FACTS, IDENTITY, 0) + node


def stream_value(  # all there is of a stream
    number: int,
    stream: Stream,
    following: int,
    cum: int,
    ranges: Sequence[object],
    seal: Seal | None = None,
) -> bytes:
    """Return a stream as the value of its fact."""
    kind, owner, lane = stream
    if seal is not None and seal.is_open:
        place = _stream_place(number, kind, following, cum, ranges)
        owner, lane = seal.seal(_packed((owner, lane)), place), 0
    return _packed((kind, owner, lane, following, cum, ranges))


def stream_of(
    number: int, value: bytes, seal: Seal | None = None
) -> tuple[Stream, int, int, tuple[tuple[int, int], ...]]:
    """Return a stream, its next position and its watermark from the value of its fact.

    Raises:
        Unsound: whom it is of does not open, as where one of the others was changed.
    """
    kind, owner, lane, following, cum, ranges = unpackb(value, use_list=False)
    if seal is not None and seal.is_open:
        place = _stream_place(number, kind, following, cum, ranges)
        owner, lane = unpackb(_unsealed(seal, owner, place, f"stream {number}"), use_list=False)
    return Stream(StreamKind(kind), owner, lane), following, cum, ranges


def _stream_place(
    number: int, kind: int, following: int, cum: int, ranges: Sequence[object]
) -> bytes:
    # A watermark that somebody moves back has messages handled again, one moved on loses some.
    return _KEY.pack(Table.FACTS, number, kind) + _packed((following, cum, ranges))


def _unsealed(seal: Seal, data: bytes, place: bytes, what: str) -> bytes:
    try:
        return seal.open(data, place)
    except Forged:
        raise Unsound(f"{what}, which does not open") from None


def mark_value(table: Table, first: int, last: int, value: bytes, seal: Seal | None) -> bytes:
    """Return the value of a mark as it is stored: outcomes are sealed, numbers are not."""
    if seal is None or table is not Table.OUTCOMES:
        return value
    return seal.seal(value, _KEY.pack(table, first, last))


def mark_of(table: Table, first: int, last: int, stored: bytes, seal: Seal | None) -> bytes:
    """Return the value of a mark from what is stored; Unsound where it does not open."""
    if seal is None or table is not Table.OUTCOMES:
        return stored
    return _unsealed(seal, stored, _KEY.pack(table, first, last), "an outcome")


def outcome_value(outcome: StoredOutcome) -> bytes:
    """Return an outcome, less its range, as the value of a mark."""
    return _packed((outcome.outcome, outcome.reason, outcome.delay_ms))


def outcome_of(first: int, last: int, value: bytes, seal: Seal | None = None) -> StoredOutcome:
    """Return the outcome of a range of places from the value of its mark."""
    outcome, reason, delay_ms = unpackb(mark_of(Table.OUTCOMES, first, last, value, seal))
    low, high = first & POSITION_MAX, last & POSITION_MAX
    return StoredOutcome(low, high, Outcome(outcome), reason, delay_ms)


def attempts_value(attempts: int) -> bytes:
    """Return a count of attempts as the value of a mark."""
    return _packed(attempts)


def attempts_of(value: bytes) -> int:
    """Return a count of attempts from the value of its mark."""
    return cast("int", unpackb(value))


# Entries: kind, name, key, value, and the checksum. Sealed ones have all three in the value, and
# in the place of name and key what stands for them.


def entry_columns(entry: Entry, seal: Seal | None = None) -> tuple[int, bytes, bytes, bytes, int]:
    """Return the columns of an entry."""
    kind, name, key, value = entry.kind, entry.name.encode(), entry.key, entry.value
    if seal is not None:
        plain = _packed((name, key, value))
        name, key = blind_name(kind, name, seal), blind_key(kind, name, key, seal)
        value = seal.seal(plain, _entry_place(kind, name, key))
    return kind, name, key, value, _entry_checksum(kind, name, key, value)


def blind_name(kind: int, name: bytes, seal: Seal) -> bytes:
    """Return what stands for a name in the column."""
    return seal.blind(bytes([kind]), name)


def blind_key(kind: int, name: bytes, key: bytes, seal: Seal) -> bytes:
    """Return what stands for the key of a name in the column."""
    return seal.blind(bytes([kind]), name, key)


def _entry_place(kind: int, name: bytes, key: bytes) -> bytes:
    return _ENTRY.pack(Table.ENTRIES, kind, len(name)) + name + key


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


def entry_of(columns: Columns, seal: Seal | None = None) -> Entry:
    """Return the entry; Unsound where it is not what was written."""
    if not is_entry_sound(columns):
        raise Unsound("an entry")
    kind, name, key, value, _ = cast("tuple[int, bytes, bytes, bytes, int]", columns)
    if seal is not None:
        plain = _unsealed(seal, value, _entry_place(kind, name, key), "an entry")
        name, key, value = unpackb(plain)
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
        other = Totals.__new__(Totals)  # an empty one takes longer to make than all the rest
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
