"""The tables, written so that every change shows in the totals."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from zmesh.journal import coding
from zmesh.journal.coding import Column, Table, Totals
from zmesh.storage import ROW_OVERHEAD_BYTES, Entry

NAMES: Final = {
    Table.FACTS: "facts",
    Table.MESSAGES: "messages",
    Table.ENTRIES: "entries",
    Table.ATTEMPTS: "attempts",
    Table.OUTCOMES: "outcomes",
}
_INSERT_MESSAGE: Final = "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_FACT: Final = "INSERT OR REPLACE INTO facts VALUES (?, ?, ?)"
_DROPPED_AT_ONCE: Final = 1024


class Tables:
    """A database and the totals of its tables, inside a transaction of the caller's."""

    def __init__(self, database: sqlite3.Connection, totals: Totals) -> None:
        self.database = database
        self.totals = totals
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

    def put_totals(self) -> None:
        """Write the totals themselves; nothing counts them."""
        value = self.totals.value()
        checksum = coding.fact_checksum(coding.POSITION, value)
        self.database.execute(_PUT_FACT, (coding.POSITION, value, checksum))

    # Messages

    def insert_messages(self, rows: Sequence[tuple[Column, ...]]) -> None:
        """Insert rows at places that are free."""
        self.database.executemany(_INSERT_MESSAGE, rows)
        size = sums = 0
        for row in rows:
            size += len(row[1]) + len(row[6])  # type: ignore[arg-type]
            sums += row[7]  # type: ignore[operator]
        self.totals.size += size
        self.totals.add(Table.MESSAGES, len(rows), sums)

    def remove_messages(self, low: int, high: int) -> None:
        """Remove all rows from one place to another, and what was counted of them."""
        count, sums, size = self.database.execute(
            "SELECT count(*), sum(checksum), sum(length(record) + length(note)) "
            "FROM messages WHERE place BETWEEN ? AND ?",
            (low, high),
        ).fetchone()
        if count:
            self.database.execute("DELETE FROM messages WHERE place BETWEEN ? AND ?", (low, high))
            self.totals.add(Table.MESSAGES, -count, -sums)
            self.totals.size -= size
        if self.totals.counts[Table.ATTEMPTS]:
            self.mark(Table.ATTEMPTS, low, high, None)

    def messages(self, low: int, high: int, limit: int) -> sqlite3.Cursor:
        """Return the first rows from one place to another, in order."""
        return self.database.execute(
            "SELECT * FROM messages WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
            (low, high, limit),
        )

    def last_place(self, low: int, high: int) -> int:
        """Return the highest place from one to another that has a row; 0 where none has."""
        (place,) = self.database.execute(
            "SELECT max(place) FROM messages WHERE place BETWEEN ? AND ?", (low, high)
        ).fetchone()
        return place or 0

    def oldest(self, low: int, high: int, size: int) -> Iterator[tuple[int, int]]:
        """Yield runs of places, the lowest first, whose rows take so many bytes together."""
        while size > 0:
            found = self.database.execute(
                "SELECT place, length(record) + length(note) FROM messages "
                "WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?",
                (low, high, _DROPPED_AT_ONCE),
            ).fetchall()
            if not found:
                return
            first = previous = found[0][0]
            for place, length in found:
                if size <= 0:
                    break
                if place > previous + 1:
                    yield first, previous
                    first = place
                previous = place
                size -= length + ROW_OVERHEAD_BYTES
            yield first, previous
            low = previous + 1

    # Attempts and outcomes: values that ranges of places have

    def mark(self, table: Table, low: int, high: int, value: bytes | None) -> None:
        """Give all places from one to another a value, or none, in the place of what they had."""
        name = NAMES[table]
        for first, last, old, checksum in self.marks(table, low, high):
            self.database.execute(f"DELETE FROM {name} WHERE first = ?", (first,))  # noqa: S608
            self.totals.add(table, -1, -checksum)
            if first < low:
                self._insert_mark(table, first, low - 1, old)
            if last > high:
                self._insert_mark(table, high + 1, last, old)
        if value is not None:
            self._insert_mark(table, low, high, value)

    def _insert_mark(self, table: Table, first: int, last: int, value: bytes) -> None:
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
        columns = coding.entry_columns(entry)
        self.remove_entries(columns[0], columns[1], columns[2])
        self.database.execute(
            "INSERT INTO entries (kind, name, key, value, checksum) VALUES (?, ?, ?, ?, ?)",
            columns,
        )
        self.totals.add(Table.ENTRIES, 1, columns[4])

    def remove_entries(self, kind: int, name: bytes, key: bytes | None) -> None:
        """Remove the entry of a key, or without one all of a name."""
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
