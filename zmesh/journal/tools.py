"""What can be done with a journal without the node that keeps it."""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from zmesh.journal.backup import back_up
from zmesh.journal.checks import all_problems
from zmesh.journal.coding import Unsound
from zmesh.journal.faults import told
from zmesh.journal.files import Files, claim_of, holder_of
from zmesh.journal.foreign import refuse_foreign, refuse_irregular
from zmesh.journal.schema import MIGRATIONS, version_of
from zmesh.journal.sealing import with_key
from zmesh.journal.store import JournalStore
from zmesh.security.storage_key import StorageKey
from zmesh.storage import EntryKind, Identity, StreamKind
from zmesh.storage_errors import JournalCorrupted, JournalTooNew, NoJournal


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """What is in a journal. Sizes in bytes."""

    path: str
    in_use: bool
    in_use_by: int | None  # the process, where that is known
    version: int  # of the schema
    key: str | None  # fingerprint of the storage key it is encrypted with; None: it is not
    node: str
    journal: str
    incarnation: int
    commits: int
    file_bytes: int
    log_bytes: int
    used_bytes: int
    free_bytes: int  # in the file, for what comes next
    reserve_bytes: int
    rows: dict[str, int]  # by kind of stream
    entries: dict[str, int]  # by kind
    streams: int
    dead_letters: int
    set_aside: list[str]  # damaged files of earlier times


def status(path: Path) -> JournalStatus:
    """Return what is in a journal, whether or not a node has it open.

    Raises:
        NoJournal: there is none.
        StorageError: it cannot be read.
    """
    files = Files(path)
    with reading(files, "be read") as database:
        database.execute("BEGIN")  # all as of one moment
        store = JournalStore.load(database)
        states = store.states()
        rows: Counter[str] = Counter()
        for state in states:
            rows[state.stream.kind.name.lower()] += state.rows
        entries = {
            EntryKind(kind).name.lower(): count
            for kind, count in database.execute("SELECT kind, count(*) FROM entries GROUP BY kind")
        }
        (page_bytes,) = database.execute("PRAGMA page_size").fetchone()
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        (free,) = database.execute("PRAGMA freelist_count").fetchone()
        version = version_of(database)
    in_use, pid = holder_of(path)
    dead = [state.rows for state in states if state.stream.kind is StreamKind.DEAD_LETTERS]
    return JournalStatus(
        path=str(path),
        in_use=in_use,
        in_use_by=pid,
        version=version,
        key=None if store.seal is None else store.seal.fingerprint,
        node=store.identity.node.hex(),
        journal=store.identity.journal.hex(),
        incarnation=store.identity.incarnation,
        commits=store.totals.commits,
        file_bytes=files.size_of(path),
        log_bytes=files.size_of(files.beside("-wal")),
        used_bytes=(pages - free) * page_bytes,
        free_bytes=free * page_bytes,
        reserve_bytes=files.size_of(files.beside(".reserve")),
        rows=dict(rows),
        entries=entries,
        streams=len(states),
        dead_letters=sum(dead),
        set_aside=sorted(map(str, path.absolute().parent.glob(path.name + ".damaged-*[0-9]"))),
    )


def identity(path: Path, key: StorageKey | None = None) -> Identity:
    """Return who keeps a journal, its node's secret seed included, whether or not it is open.

    Raises:
        NoJournal: there is none.
        StorageError: it cannot be read; `StorageKeyMissing` and `StorageKeyWrong` where it is
            encrypted, and not with the key.
    """
    with reading(Files(path), "be read") as database:
        return JournalStore.load(database, with_key(str(path), key)).identity


def encrypted_with(path: Path) -> str | None:
    """Return the fingerprint of the storage key that a journal takes; None where it has none.

    Raises:
        NoJournal: there is none.
        StorageError: it cannot be read.
    """
    with reading(Files(path), "be read") as database:
        seal = JournalStore.load(database).seal
    return None if seal is None else seal.fingerprint


def verify(path: Path, key: StorageKey | None = None) -> list[str]:
    """Return what is wrong with a journal, every row looked at: nothing where all is well.

    With the key of one that is encrypted it is seen as well whether what is in the rows opens.

    Raises:
        StorageKeyWrong: it is encrypted with another key.
        NoJournal: there is none.
        StorageError: it cannot be read at all.
    """
    claimed = claim_of(path)  # before the rest: a node may commit meanwhile
    with reading(Files(path), "be read") as database:
        return all_problems(path, database, claimed, key)


def backup(path: Path, target: Path) -> int:
    """Copy a journal, whether or not a node has it open; return the size of the copy in bytes.

    Raises:
        NoJournal: there is none.
        InvalidOption: there is something at the target, or no directory for it.
        StorageError: it cannot be read, or the copy not be written.
    """
    _check_there(files := Files(path))
    try:
        return back_up(files, target)
    except (sqlite3.Error, OSError, Unsound) as error:
        raise told(error, path, "be copied", is_tool=True) from error


def compact(path: Path) -> tuple[int, int]:
    """Give all free space of a journal back; return its size before and after, in bytes.

    It needs as much space again while it runs.

    Raises:
        NoJournal: there is none.
        JournalLocked: a node has it open.
        JournalCorrupted: it is damaged, and this would make that worse.
        StorageError: it cannot be written.
    """
    files = Files(path)
    with closed(files, "be compacted") as database:
        database.execute("ROLLBACK")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        before = files.size_of(path)
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        after = files.size_of(path)
    return before, after


@contextmanager
def closed(
    files: Files, operation: str, key: StorageKey | None = None
) -> Iterator[sqlite3.Connection]:
    """Have the database of a node that does not run, sound and in a transaction.

    Raises:
        NoJournal: there is none.
        JournalLocked: a node has it open.
        JournalCorrupted: it is damaged, and this would make that worse.
        StorageError: it cannot be written.
    """
    path = files.path
    _check_there(files)
    files.lock()
    try:
        with closing(files.connect()) as database:
            _check_version(database, path)
            problems = all_problems(path, database, files.claimed(), key)
            if problems:
                raise JournalCorrupted(str(path), problems[0])
            yield database
    except (sqlite3.Error, OSError, Unsound) as error:
        raise told(error, path, operation, is_tool=True) from error
    finally:
        files.unlock()


@contextmanager
def reading(files: Files, operation: str) -> Iterator[sqlite3.Connection]:
    """Have the database, beside a node or not, for an operation that errors name.

    Raises:
        NoJournal: there is none.
        StorageError: it cannot be read.
    """
    _check_there(files)
    try:
        with closing(files.connect(read_only=True)) as database:
            _check_version(database, files.path)
            yield database
    except (sqlite3.Error, OSError, Unsound, ValueError, TypeError, OverflowError) as error:
        raise told(error, files.path, operation, is_tool=True) from error


def _check_there(files: Files) -> None:
    if not files.exists(files.path):
        raise NoJournal(str(files.path))
    refuse_irregular(files)
    if not files.size_of(files.path):  # SQLite would remove the log of an empty database
        raise JournalCorrupted(str(files.path), "there is nothing in the file")
    try:
        refuse_foreign(files, claim_of(files.path))
    except (sqlite3.Error, OSError) as error:
        raise told(error, files.path, "be read", is_tool=True) from error


def _check_version(database: sqlite3.Connection, path: Path) -> None:
    version = version_of(database)
    if version > len(MIGRATIONS):
        raise JournalTooNew(str(path), version, len(MIGRATIONS))
    if version < len(MIGRATIONS):
        raise JournalCorrupted(str(path), f"its schema is of version {version}: open it once")
