"""What can be read of a damaged journal, in a new one; the damaged file is set aside as it is.

The new one is built whole and synced before the names change, and each step can be gone on with
after a crash. It has a new journal id, so that peers know that its memory of them is not whole.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from zmesh.ids import JournalId
from zmesh.journal import coding
from zmesh.journal.coding import Column, Table, Totals, Unsound
from zmesh.journal.creation import building
from zmesh.journal.files import Files
from zmesh.journal.pages import Image
from zmesh.journal.sealing import Seal, with_key
from zmesh.journal.store import JournalStore, Lane
from zmesh.journal.tables import MARKS, NAMES
from zmesh.security.storage_key import StorageKey
from zmesh.storage import POSITION_MAX, Identity, Rescue, Stream, StreamKind
from zmesh.storage_errors import StorageKeyMissing, StorageNotEncrypted

INCARNATION_GAP: Final = 1 << 20
"""More lives than a node has between a copy, or an old page, and now: the next one is newer."""

INSERTED_AT_ONCE: Final = 4096


class _Found:
    """The small things that were found, of each the newest; messages go straight to the new file.

    A page that nobody can tell from a forgotten one may hold what was there before.
    """

    def __init__(self, seal: Seal | None) -> None:
        self._seal = seal
        self.identity: Identity | None = None
        self.totals: Totals | None = None
        self.streams: dict[int, tuple[Stream, Lane]] = {}
        self.marks: dict[Table, set[tuple[int, int, bytes]]] = {table: set() for table in MARKS}

    def add_mark(self, columns: tuple[Column, ...]) -> None:
        for table, marks in self.marks.items():
            if coding.is_mark_sound(table, columns):
                first, last, stored = cast("tuple[int, int, bytes]", columns[:3])
                marks.add((first, last, coding.mark_of(table, first, last, stored, self._seal)))

    def add_fact(self, number: int, value: bytes) -> None:
        if number == coding.IDENTITY:
            identity = coding.identity_of(value, self._seal)
            if self.identity is None or identity.incarnation >= self.identity.incarnation:
                self.identity = identity
        elif number == coding.POSITION:
            totals = Totals.of(value)
            if self.totals is None or totals.commits >= self.totals.commits:
                self.totals = totals
        elif number >= coding.FIRST_STREAM:
            stream, following, cum, ranges = coding.stream_of(number, value, self._seal)
            known = self.streams.get(number)
            if known is None or (following, cum) >= (known[1].following, known[1].cum):
                self.streams[number] = (stream, Lane(number, following, cum, ranges))


def renewed(identity: Identity) -> Identity:
    """Return the identity of the same node with a journal that is another."""
    return replace(
        identity,
        journal=JournalId(os.urandom(16)),
        incarnation=identity.incarnation + INCARNATION_GAP,
    )


def set_aside(files: Files, fresh: Identity, detail: str, key: StorageKey | None = None) -> Rescue:
    """Put a new journal in the place of a damaged one, with what can be read of that.

    Args:
        files: of the journal, which is locked and not open.
        fresh: who is to keep the new one, where the old does not tell any more.
        detail: what is wrong with it.
        key: of what is encrypted; what does not open under it counts as damaged.

    Raises:
        StorageKeyMissing, StorageKeyWrong, StorageNotEncrypted: nothing was touched.
        OSError, sqlite3.Error: it cannot be done; the damaged file is as it was.
    """
    target = files.beside(".salvage")
    with closing(Image(files.path, files.beside("-wal"))) as image:
        seal = _seal_of(str(files.path), image, key)
        with building(files, target) as database:
            rescue = _fill(database, image, fresh, detail, _commits(files), seal)
    aside = _free_name(files)
    if files.exists(files.path):
        files.rename(files.path, aside)
    finish_setting_aside(files)
    files.remove(files.beside(".suspect"))
    return replace(rescue, set_aside=str(aside))


def finish_setting_aside(files: Files) -> None:
    """Give the files their names, where that was begun: the damaged one has its new name."""
    target = files.beside(".salvage")
    if files.exists(files.path) or not files.exists(target):
        return
    log, shared = _logs_of(files.path)
    if files.exists(log):
        aside = _free_name(files, number=-1)
        files.rename(log, aside.with_name(aside.name + "-wal"))
    files.remove(shared)
    files.sync_names()
    files.rename(target, files.path)
    files.sync_names()


def _logs_of(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")


def _free_name(files: Files, number: int = 0) -> Path:
    """Return the first name for a damaged file that is free, or the one so many before it."""
    free = 1
    while any(files.exists(files.beside(f".damaged-{free}{suffix}")) for suffix in ("", "-wal")):
        free += 1
    return files.beside(f".damaged-{max(1, free + number)}")


# What it is encrypted with


def _seal_of(path: str, image: Image, key: StorageKey | None) -> Seal | None:
    """Return what opens the values: looked for in every page, or until none is needed.

    Where both copies of what says it are lost nothing opens any more; the new file has another.
    """
    is_sealed = None
    for row_id, (_, *rest) in image.rows():
        columns = (row_id, *rest)
        if len(columns) == 3 and row_id == coding.SEAL and coding.is_fact_sound(columns):
            return with_key(path, key)(cast("bytes", rest[0]))
        if len(columns) == 9 and coding.is_message_sound(columns):
            is_sealed = coding.is_sealed(cast("bytes", rest[0]))
        elif row_id == coding.IDENTITY and len(columns) == 3 and coding.is_fact_sound(columns):
            is_sealed = coding.is_sealed(coding.identity_of(cast("bytes", rest[0])).seed)
        if is_sealed is False:
            break
    if is_sealed is False and key is not None:
        raise StorageNotEncrypted(path)
    if is_sealed and key is None:
        raise StorageKeyMissing(path, "")
    return None if key is None else Seal.new(path, key)


# Filling the new file


def _commits(files: Files) -> int:
    """Return how many commits the journal had, at least."""
    claimed = files.claimed()
    return 0 if claimed is None else claimed[1]


def _fill(  # from where to where, and what is known
    database: sqlite3.Connection,
    image: Image,
    fresh: Identity,
    detail: str,
    commits: int,
    seal: Seal | None,
) -> Rescue:
    found = _Found(seal)
    _insert_messages(database, _sort(database, image, found, seal))
    identity = renewed(found.identity or fresh)
    store = JournalStore(database, identity, seal=seal)
    store.put_seal()
    store.set_identity(identity)
    _put_streams(store, found)
    totals = store.totals
    for table in (Table.MESSAGES, Table.ENTRIES):
        totals.counts[table], totals.sums[table] = _sums(database, NAMES[table])
    totals.size, totals.records = database.execute(
        "SELECT coalesce(sum(length(record) + length(note)), 0), coalesce(sum(span), 0) "
        "FROM messages"
    ).fetchone()
    for first, last, value in sorted(found.marks.pop(Table.GONE)):
        columns = store.tables.messages(first, last, 1).fetchone()
        if columns is not None and coding.is_gone_of(columns, first, last, value):
            store.tables.remove_messages(first, last)
    for table, marks in found.marks.items():
        for value, first, last in sorted((value, low, high) for low, high, value in marks):
            store.tables.mark(table, first, last, value)
    store.commit()

    def lost(table: Table, there: int) -> int | None:
        if found.totals is None or found.totals.commits < commits:
            return None  # what told is lost itself
        were = found.totals.counts[table] if table != Table.MESSAGES else found.totals.records
        return max(0, were - there)

    rows, entries = totals.records, totals.counts[Table.ENTRIES]
    # One is who keeps it, and one how it is encrypted.
    streams = lost(Table.FACTS, len(found.streams) + 1 + (seal is not None))
    return Rescue(
        detail=detail,
        set_aside="",
        rows=rows,
        rows_lost=lost(Table.MESSAGES, rows),
        entries=entries,
        entries_lost=lost(Table.ENTRIES, entries),
        streams=len(found.streams),
        streams_lost=streams,
        is_identity_lost=found.identity is None,
    )


def _sort(
    database: sqlite3.Connection, image: Image, found: _Found, seal: Seal | None
) -> Iterator[tuple[Column, ...]]:
    """Yield the sound messages, and put everything else that is sound where it belongs."""
    for row_id, (_, *rest) in image.rows():  # the first column is the row id, and empty
        columns = (row_id, *rest)
        if len(columns) == 8:  # of version 1, and not written anew since
            columns = (*columns, 1)
        try:
            if len(columns) == 9 and coding.is_message_sound(columns):
                if seal is not None:
                    coding.opened(columns, seal)
                yield columns
            elif len(columns) == 6 and coding.is_entry_sound(rest):
                if seal is not None:
                    coding.entry_of(rest, seal)
                _insert_entry(database, columns)
            elif len(columns) == 3 and coding.is_fact_sound(columns):
                found.add_fact(row_id, cast("bytes", rest[0]))
            elif len(columns) == 4:
                found.add_mark(columns)
        except Unsound:  # its checksum is right, and somebody wrote it who had not the key
            continue


def _insert_messages(database: sqlite3.Connection, messages: Iterator[tuple[Column, ...]]) -> None:
    waiting: list[tuple[Column, ...]] = []
    for message in messages:
        waiting.append(message)
        if len(waiting) >= INSERTED_AT_ONCE:
            _insert(database, waiting)
    _insert(database, waiting)
    _remove_overlapping(database)


def _remove_overlapping(database: sqlite3.Connection) -> None:
    """Keep the first of blocks that overlap.

    One is from an old page, of a stream that was dropped: another has its number now.
    """
    end = 0
    overlapping: list[tuple[int]] = []
    for place, span in database.execute("SELECT place, span FROM messages ORDER BY place"):
        if place < end:
            overlapping.append((place,))
        else:
            end = place + span
    database.executemany("DELETE FROM messages WHERE place = ?", overlapping)


def _insert(database: sqlite3.Connection, messages: list[tuple[Column, ...]]) -> None:
    # A place is used once: another row there is the same row, on an older page.
    messages.sort()
    database.executemany(
        "INSERT OR IGNORE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", messages
    )
    messages.clear()


def _insert_entry(database: sqlite3.Connection, columns: tuple[Column, ...]) -> None:
    _, kind, name, key, value, checksum = columns
    # Whichever was written later has the higher id.
    database.execute(
        "DELETE FROM entries WHERE (kind, name, key) = (?, ?, ?) AND id < ?",
        (kind, name, key, columns[0]),
    )
    database.execute(
        "INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?, ?)",
        (columns[0], kind, name, key, value, checksum),
    )


def _put_streams(store: JournalStore, found: _Found) -> None:
    """Write the streams, those as well of which nothing is left but rows."""
    highest: Counter[int] = Counter()
    number = -1
    while True:
        row = store.database.execute(
            "SELECT min(place) FROM messages WHERE place > ?", (coding.bounds_of(number)[1],)
        ).fetchone()
        if row[0] is None:
            break
        number = row[0] >> coding.POSITION_BITS
        highest[number] = store.tables.last_place(*coding.bounds_of(number)) & POSITION_MAX
    for number in found.streams.keys() | highest.keys():
        owner = number.to_bytes(4, "big") + os.urandom(4)  # unlike what an earlier rescue found
        lost = (Stream(StreamKind.FOUND, owner), Lane(number))
        stream, lane = found.streams.get(number, lost)
        following = max(lane.following, highest[number] + 1)
        lane = lane._replace(following=following)
        store.lanes[stream] = lane
        value = coding.stream_value(number, stream, following, *lane[2:], store.seal)
        store.tables.put_fact(number, value)


def _sums(database: sqlite3.Connection, name: str) -> tuple[int, int]:
    count, sums = database.execute(
        f"SELECT count(*), coalesce(sum(checksum), 0) FROM {name}"  # noqa: S608
    ).fetchone()
    return count, sums
