"""The tables, written so that every change shows in the totals."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from zmesh.journal import coding
from zmesh.journal.coding import Column, Table, Totals
from zmesh.journal.sealing import Seal
from zmesh.storage import POSITION_MAX, ROW_OVERHEAD_BYTES, Entry

NAMES: Final = {
    Table.FACTS: "facts",
    Table.MESSAGES: "messages",
    Table.ENTRIES: "entries",
    Table.ATTEMPTS: "attempts",
    Table.OUTCOMES: "outcomes",
    Table.GONE: "gone",
}
MARKS: Final = (Table.ATTEMPTS, Table.OUTCOMES, Table.GONE)
"""Those whose rows are values that ranges of places have."""

_INSERT_MESSAGE: Final = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_FACT: Final = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)"
_DROPPED_AT_ONCE: Final = 1024


class _Sums(NamedTuple):
    """What blocks are together."""

    blocks: int
    checksums: int
    size: int
    records: int  # also those that are gone
    first: int  # place, 0 where there is none
    end: int  # the first place after them


class Tables:
    """A database and the totals of its tables, inside a transaction of the caller's."""

    def __init__(
        self, database: sqlite3.Connection, totals: Totals, seal: Seal | None = None
    ) -> None:
        self.database = database
        self.totals = totals
        self.seal = seal
        self.facts: dict[int, int] = {}  # their checksums, but for that of the totals

    # Facts

    def put_fact(self, number: int, value: bytes) -> None:
        """Put a fact in the place of the one before."""
        checksum = coding.fact_checksum(number, value)
        self.database.execute(_PUT_FACT, (number, value, checksum))
        before = self.facts.get(number)
        self.totals.add(Table.FACTS, before is None, checksum - (before or 0))
        self.facts[number] = checksum

    def remove_fact(self, number: int) -> None:
        """Remove a fact."""
        self.database.execute("DELETE FROM facts WHERE number = ?", (number,))
        self.totals.add(Table.FACTS, -1, -self.facts.pop(number))

    def put_seal(self, value: bytes) -> None:
        """Write twice how the file is encrypted: without that nothing of it can be read."""
        self.put_fact(coding.SEAL, value)
        checksum = coding.fact_checksum(coding.SEAL, value)
        self.database.execute(
            "INSERT OR REPLACE INTO seals VALUES (?, ?, ?)", (coding.SEAL, value, checksum)
        )

    def put_totals(self) -> None:
        """Write the totals themselves; nothing counts them."""
        value = self.totals.value()
        checksum = coding.fact_checksum(coding.POSITION, value)
        self.database.execute(_PUT_FACT, (coding.POSITION, value, checksum))

    # Messages: blocks of one record or more, and ranges of places that are gone of them

    def insert_messages(self, blocks: Sequence[tuple[Column, ...]]) -> None:
        """Insert blocks at places that are free."""
        self.database.executemany(_INSERT_MESSAGE, blocks)
        size = sums = records = 0
        for block in blocks:
            size += len(block[1]) + len(block[6])  # type: ignore[arg-type]
            sums += block[7]  # type: ignore[operator]
            records += block[8]  # type: ignore[operator]
        self.totals.size += size
        self.totals.records += records
        self.totals.add(Table.MESSAGES, len(blocks), sums)

    def check_free(self, low: int, high: int) -> None:
        """Raise ValueError where a block has one of these places, be it gone."""
        place, span, _ = self.last_block(high)
        if place + span > low:
            raise ValueError(f"position {max(low, place) & POSITION_MAX} is taken")

    def last_block(self, high: int) -> tuple[int, int, int]:
        """Return place, span and checksum of the last block that begins up to a place."""
        found: tuple[int, int, int] | None = self.database.execute(
            "SELECT place, span, checksum FROM messages WHERE place <= ? "
            "ORDER BY place DESC LIMIT 1",
            (high,),
        ).fetchone()
        return found or (-1, 0, 0)

    def remove_messages(self, low: int, high: int) -> None:
        """Remove all records from one place to another, and what was counted of them."""
        found = self._sums(low, high)
        if found.first != low:
            block = self.last_block(low - 1)
            if block[0] + block[1] > low:
                self._remove_part(block, low, min(high, block[0] + block[1] - 1))
        if found.end > high + 1:
            block = self.last_block(high)
            found = self._sums(low, block[0] - 1)
            self._remove_part(block, block[0], high)
        if found.blocks:
            self._remove_whole(found)
        if self.totals.counts[Table.ATTEMPTS]:
            self.mark(Table.ATTEMPTS, low, high, None)

    def _sums(self, low: int, high: int) -> _Sums:
        """Return what blocks that begin from one place to another are together."""
        found = self.database.execute(
            "SELECT count(*), sum(checksum), sum(length(record) + length(note)), sum(span), "
            "min(place), max(place + span) FROM messages WHERE place BETWEEN ? AND ?",
            (low, high),
        ).fetchone()
        return _Sums(*(each or 0 for each in found))

    def _remove_whole(self, sums: _Sums) -> None:
        """Remove the blocks that are together these, and follow one another."""
        low, high = sums.first, sums.end - 1
        self.database.execute("DELETE FROM messages WHERE place BETWEEN ? AND ?", (low, high))
        self.totals.add(Table.MESSAGES, -sums.blocks, -sums.checksums)
        self.totals.size -= sums.size
        self.totals.records -= sums.records
        if self.totals.counts[Table.GONE]:
            self.totals.records += _length(self.marks(Table.GONE, low, high))
            self.mark(Table.GONE, low, high, None)

    def _remove_part(self, block: tuple[int, int, int], low: int, high: int) -> None:
        """Remove records of one block, which goes when no other is left."""
        place, span, checksum = block
        end = place + span - 1
        gone = self.marks(Table.GONE, max(place, low - 1), min(end, high + 1))
        first = min([low, *(mark[0] for mark in gone)])
        last = max([high, *(mark[1] for mark in gone)])
        if (first, last) == (place, end):
            self._remove_whole(self._sums(place, place))
        else:
            self.totals.records -= last - first + 1 - _length(gone)
            # Which block it is of: a place may have another when streams come and go.
            self.mark(Table.GONE, first, last, checksum.to_bytes(4))

    def messages(self, low: int, high: int, limit: int) -> sqlite3.Cursor:
        """Return the first blocks that have something from one place to another, in order."""
        return self.database.execute(
            # As blocks do not overlap, only the last that begins before can reach into these.
            "SELECT * FROM messages WHERE place <= :high AND place + span > :low AND place >= "
            "coalesce((SELECT max(place) FROM messages WHERE place < :low), :low) "
            "ORDER BY place LIMIT :limit",
            {"low": low, "high": high, "limit": limit},
        )

    def left(self, place: int, span: int, low: int, high: int) -> list[tuple[int, int]]:
        """Return what is left of a block from one place to another: ranges, in order."""
        low, high = max(low, place), min(high, place + span - 1)
        if span == 1 or not self.totals.counts[Table.GONE]:
            return [(low, high)]
        ranges = []
        for first, last, *_ in self.marks(Table.GONE, low, high):
            if first > low:
                ranges.append((low, first - 1))
            low = last + 1
        return [*ranges, (low, high)] if low <= high else ranges

    def last_place(self, low: int, high: int) -> int:
        """Return the highest place from one to another that a block has; 0 where none has."""
        place, span, _ = self.last_block(high)
        return place + span - 1 if place >= low else 0

    def oldest(self, low: int, high: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield runs of places, the lowest first, whose blocks take so many bytes together."""
        run: tuple[int, int] | None = None
        while size > 0:
            found = self.database.execute(
                "SELECT place, span, length(record) + length(note) FROM messages "
                "WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
                (low, high, _DROPPED_AT_ONCE),
            ).fetchall()
            for place, span, length in found:
                if size <= 0:
                    break
                for first, last in self.left(place, span, place, high):
                    if run is not None and first > run[1] + 1:
                        yield run
                        run = None
                    run = (first if run is None else run[0], last)
                size -= length + ROW_OVERHEAD_BYTES
                low = place + span
            if not found:
                break
        if run is not None:
            yield run

    # Attempts, outcomes, and what is gone: values that ranges of places have

    def mark(self, table: Table, low: int, high: int, value: bytes | None) -> None:
        """Give all places from one to another a value, or none, in the place of what they had."""
        name = NAMES[table]
        for first, last, old, checksum in self.marks(table, low, high):
            self.database.execute(f"DELETE FROM {name} WHERE first = ?", (first,))  # noqa: S608
            self.totals.add(table, -1, -checksum)
            if first >= low and last <= high:
                continue
            rest = coding.mark_of(table, first, last, old, self.seal)
            if first < low:
                self._insert_mark(table, first, low - 1, rest)
            if last > high:
                self._insert_mark(table, high + 1, last, rest)
        if value is not None:
            self._insert_mark(table, low, high, value)

    def _insert_mark(self, table: Table, first: int, last: int, value: bytes) -> None:
        value = coding.mark_value(table, first, last, value, self.seal)
        checksum = coding.mark_checksum(table, first, last, value)
        self.database.execute(
            f"INSERT INTO {NAMES[table]} VALUES (?, ?, ?, ?)",  # noqa: S608
            (first, last, value, checksum),
        )
        self.totals.add(table, 1, checksum)

    def marks(
        self, table: Table, low: int, high: int, limit: int = -1
    ) -> list[tuple[int, int, bytes, int]]:
        """Return what there is of values from one place to another, in order."""
        name = NAMES[table]
        return self.database.execute(
            # As ranges do not overlap, only the last that begins before can reach into these.
            f"SELECT * FROM {name} WHERE first <= :high AND last >= :low AND first >= "  # noqa: S608
            f"coalesce((SELECT max(first) FROM {name} WHERE first < :low), :low) "
            "ORDER BY first LIMIT :limit",
            {"low": low, "high": high, "limit": limit},
        ).fetchall()

    # Entries

    def put_entry(self, entry: Entry) -> None:
        """Put an entry in the place of the one before."""
        columns = coding.entry_columns(entry, self.seal)
        self._remove_entries(columns[0], columns[1], columns[2])
        self.database.execute(
            "INSERT INTO entries (kind, name, key, value, checksum) VALUES (?, ?, ?, ?, ?)",
            columns,
        )
        self.totals.add(Table.ENTRIES, 1, columns[4])

    def remove_entries(self, kind: int, name: bytes, key: bytes | None) -> None:
        """Remove the entry of a key, or without one all of a name."""
        if self.seal is not None:
            key = None if key is None else coding.blind_key(kind, name, key, self.seal)
            name = coding.blind_name(kind, name, self.seal)
        self._remove_entries(kind, name, key)

    def _remove_entries(self, kind: int, name: bytes, key: bytes | None) -> None:
        where = "kind = ? AND name = ?" + ("" if key is None else " AND key = ?")
        for (checksum,) in self.database.execute(
            f"DELETE FROM entries WHERE {where} RETURNING checksum",  # noqa: S608
            (kind, name) if key is None else (kind, name, key),
        ).fetchall():
            self.totals.add(Table.ENTRIES, -1, -checksum)

    def entries(self, kind: int, after: tuple[bytes, bytes] | None, limit: int) -> sqlite3.Cursor:
        """Return the first entries of a kind, or those above a name and key, in order."""
        above = "" if after is None else "AND (name, key) > (?, ?)"
        return self.database.execute(
            "SELECT kind, name, key, value, checksum FROM entries "  # noqa: S608
            f"WHERE kind = ? {above} ORDER BY name, key LIMIT ?",
            (kind, *(after or ()), limit),
        )


def _length(marks: Sequence[tuple[int, int, bytes, int]]) -> int:
    """Return how many places marks have together."""
    return sum(last - first + 1 for first, last, *_ in marks)
