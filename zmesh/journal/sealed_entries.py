"""Entries of an encrypted journal in the order of their names, which the database cannot know."""

import sqlite3
from bisect import bisect_right
from typing import Final

from zmesh.journal import coding
from zmesh.journal.sealing import Seal
from zmesh.storage import Entry, EntryKind

_COLUMNS: Final = "kind, name, key, value, checksum"

_Place = tuple[bytes, bytes, int]  # name, key, and the id of the row


class EntryOrder:
    """The entries of one kind, sorted once for all pages of an answer.

    Names and keys are in memory from the first page to the last; `forget` after every change.
    """

    def __init__(self, database: sqlite3.Connection, seal: Seal) -> None:
        self._database = database
        self._seal = seal
        self._kind: EntryKind | None = None
        self._places: list[_Place] = []

    def forget(self) -> None:
        """Entries have changed, or nobody reads on."""
        self._kind = None
        self._places = []

    def entries(
        self, kind: EntryKind, after: tuple[bytes, bytes] | None, limit: int
    ) -> list[Entry]:
        """Return the first entries of a kind, or those above a name and key, in order.

        Raises:
            Unsound: one is not what was written.
        """
        if self._kind is not kind:
            self._sort(kind)
        begin = 0 if after is None else bisect_right(self._places, (*after, 1 << 63))
        found = [self._entry(row_id) for *_, row_id in self._places[begin : begin + limit]]
        if len(found) < limit:
            self.forget()
        return found

    def _sort(self, kind: EntryKind) -> None:
        rows = self._database.execute(
            f"SELECT id, {_COLUMNS} FROM entries WHERE kind = ?",  # noqa: S608
            (kind,),
        )
        places: list[_Place] = []
        for row_id, *columns in rows:
            entry = coding.entry_of(columns, self._seal)
            places.append((entry.name.encode(), entry.key, row_id))
        places.sort()
        self._kind, self._places = kind, places

    def _entry(self, row_id: int) -> Entry:
        columns = self._database.execute(
            f"SELECT {_COLUMNS} FROM entries WHERE id = ?",  # noqa: S608
            (row_id,),
        ).fetchone()
        return coding.entry_of(columns, self._seal)
