"""Whether a journal is what was written: quickly, as when it opens, or row by row."""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

from zmesh.ids import JournalId
from zmesh.journal import coding
from zmesh.journal.coding import Table, Unsound
from zmesh.journal.files import Files
from zmesh.journal.sealing import Seal, looking
from zmesh.journal.store import JournalStore
from zmesh.journal.tables import MARKS, NAMES
from zmesh.security.storage_key import StorageKey
from zmesh.storage import StreamState
from zmesh.storage_errors import JournalCorrupted

PROBLEMS_MAX = 20
"""Told of; more say no more."""


class Structure(threading.Thread):
    """Looks at the structure of every page on a connection of its own: the other half of opening.

    Both halves read the whole file, and SQLite does it without Python's lock.
    """

    def __init__(self, files: Files) -> None:
        super().__init__(name="zmesh-journal-check", daemon=True)
        self._files = files
        self._problem: str | BaseException | None = None

    def run(self) -> None:
        """Look."""
        try:
            with closing(self._files.connect(read_only=True)) as database:
                self._problem = next(iter(structural_problems(database)), None)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
            self._problem = error

    def result(self) -> None:
        """Wait; Unsound where something is wrong, and whatever went wrong itself."""
        self.join()
        if isinstance(self._problem, BaseException):
            raise self._problem
        if self._problem is not None:
            raise Unsound(self._problem)


def structural_problems(database: sqlite3.Connection) -> list[str]:
    """Return what SQLite finds wrong with pages, keys and indexes."""
    problems: list[str] = []
    # The quick check leaves indexes out, and the only one is small.
    for check in ("quick_check(10)", "integrity_check(entries)"):
        found = [_text(row[0]) for row in database.execute(f"PRAGMA {check}")]
        problems += [text for text in found if text != "ok"]
    return problems


def check_opened(
    files: Files, store: JournalStore, claimed: tuple[JournalId, int] | None
) -> tuple[StreamState, ...]:
    """Return what streams there are, having seen that nothing is missing.

    Bodies are not looked at, for that takes a second a half million: a row is checked when it is
    read, before anybody gets it.

    Raises:
        Unsound: something is not what was written.
    """
    structure = Structure(files)
    structure.start()
    try:
        if claimed is not None and claimed[0] == store.identity.journal:
            _check_claim(store, claimed[1])
        states = store.states()
        _check_facts(store)
        for table in MARKS:
            _check_sums(store, table)
            for columns in store.database.execute(f"SELECT * FROM {NAMES[table]}"):  # noqa: S608
                if not coding.is_mark_sound(table, columns):
                    raise Unsound(f"a row of {NAMES[table]}")
        _check_sums(store, Table.ENTRIES)
    finally:
        structure.join()
    structure.result()
    return states


def _check_claim(store: JournalStore, commits: int) -> None:
    if store.totals.commits < commits:
        raise Unsound(f"{store.totals.commits} commits are there, of {commits}")


def _check_facts(store: JournalStore) -> None:
    count, sums = store.database.execute(
        "SELECT count(*), sum(checksum) FROM facts WHERE number != ?", (coding.POSITION,)
    ).fetchone()
    totals = store.totals
    if (count, sums) != (totals.counts[Table.FACTS], totals.sums[Table.FACTS]):
        raise Unsound(f"{count} facts are there, of {totals.counts[Table.FACTS]}")


def _check_sums(store: JournalStore, table: Table) -> None:
    name = NAMES[table]
    count, sums = store.database.execute(
        f"SELECT count(*), coalesce(sum(checksum), 0) FROM {name}"  # noqa: S608
    ).fetchone()
    totals = store.totals
    if (count, sums) != (totals.counts[table], totals.sums[table]):
        raise Unsound(f"{count} {name} are there, of {totals.counts[table]}, or others than were")


def all_problems(
    path: Path,
    database: sqlite3.Connection,
    claimed: tuple[JournalId, int] | None,
    key: StorageKey | None = None,
) -> list[str]:
    """Return what is wrong with a journal, every row looked at; nothing where all is well.

    Whether what is encrypted opens is looked at where there is the key.

    Raises:
        StorageKeyWrong: it is another's.
    """
    problems: list[str] = []

    def note(check: Callable[[], object]) -> None:
        try:
            check()
        except Unsound as error:
            problems.append(str(error))
        except (sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
            problems.append(f"SQLite: {error}")

    try:
        database.execute("BEGIN")  # all of it as of one moment, whoever writes
        problems += structural_problems(database)
        store = JournalStore.load(database, looking(str(path), key))
    except (Unsound, sqlite3.DatabaseError, ValueError, TypeError, OverflowError) as error:
        return [*problems, str(JournalCorrupted(str(path), str(error)))]
    if claimed is not None and claimed[0] == store.identity.journal:
        note(lambda: _check_claim(store, claimed[1]))
    note(store.states)
    note(lambda: _check_facts(store))
    for table in (Table.ENTRIES, *MARKS):
        note(lambda table=table: _check_sums(store, table))  # type: ignore[misc]
    note(lambda: problems.extend(_unsound_rows(database, store.seal)))
    return problems[:PROBLEMS_MAX]


def _unsound_rows(database: sqlite3.Connection, seal: Seal | None) -> list[str]:
    seal = seal if seal is not None and seal.is_open else None

    def is_message_sound(columns: coding.Columns) -> bool:
        return coding.is_message_sound(columns) and _opens(partial(coding.block_of, columns, seal))

    def is_entry_sound(columns: coding.Columns) -> bool:
        return coding.is_entry_sound(columns) and _opens(partial(coding.entry_of, columns, seal))

    columns = "kind, name, key, value, checksum"
    bad = [
        *_bad(
            database, "SELECT * FROM messages",
            coding.is_message_sound if seal is None else is_message_sound, "a message at {0}",
        ),
        *_bad(
            database, f"SELECT {columns} FROM entries",  # noqa: S608
            coding.is_entry_sound if seal is None else is_entry_sound, "entry {1} {2}",
        ),
    ]  # fmt: skip
    for table in MARKS:
        name = NAMES[table]

        def is_sound(columns: coding.Columns, table: Table = table) -> bool:
            first, last, value = cast("tuple[int, int, bytes]", columns[:3])
            return coding.is_mark_sound(table, columns) and _opens(
                partial(coding.mark_of, table, first, last, value, seal)
            )

        bad += _bad(database, f"SELECT * FROM {name}", is_sound, name + " from {0} to {1}")  # noqa: S608
    return bad


def _opens(reading: Callable[[], object]) -> bool:
    try:
        reading()
    except Unsound:
        return False
    return True


def _bad(
    database: sqlite3.Connection, query: str, is_sound: Callable[[coding.Columns], bool], text: str
) -> list[str]:
    found = []
    for columns in database.execute(query):
        if not is_sound(columns):
            found.append(text.format(*columns) + " is not what was written")
            if len(found) == PROBLEMS_MAX:
                break
    return found


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
