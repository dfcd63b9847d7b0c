"""The reader of pages finds what SQLite finds, and more where that is broken."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from struct import pack_into

import pytest

from tests.fuzz import bounded
from zmesh.journal.pages import FRAME_HEADER_BYTES, TABLE_LEAF, WAL_HEADER_BYTES, Image

FRAME = FRAME_HEADER_BYTES + 4096
VALUES = [
    (b"", 0), (b"x" * 10, 1), (b"y" * 4000, -1), (b"z" * 4061, 127), (b"w" * 4062, 128),
    (b"v" * 5000, -32768), (b"u" * 100_000, 1 << 40), (b"t" * 9000, -(1 << 63)),
    (None, (1 << 63) - 1),
]  # fmt: skip


@pytest.fixture
def open_database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as database:
        database.execute("PRAGMA page_size = 4096")
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA wal_autocheckpoint = 0")
        database.execute("PRAGMA secure_delete = OFF")
        database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a BLOB, b INTEGER)")
        yield database


def insert(database: sqlite3.Connection, first: int, count: int, size: int = 100) -> None:
    database.executemany(
        "INSERT INTO t VALUES (?, ?, ?)",
        [(first + n, bytes([(first + n) % 251]) * size, first + n) for n in range(count)],
    )


def found(path: Path) -> dict[int, tuple[object, ...]]:
    with closing(Image(path / "db", path / "db-wal")) as image:
        return {row_id: columns[1:] for row_id, columns in image.rows() if len(columns) == 3}


def wanted(database: sqlite3.Connection) -> dict[int, tuple[object, ...]]:
    return {row[0]: row[1:] for row in database.execute("SELECT * FROM t")}


def copied(tmp_path: Path) -> Path:
    target = tmp_path / "copy"
    target.mkdir(exist_ok=True)
    for name in ("db", "db-wal"):
        shutil.copy(tmp_path / name, target / name)
    return target


def test_rows_of_every_size_are_found_in_log_and_file(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    open_database.executemany("INSERT INTO t (a, b) VALUES (?, ?)", VALUES)
    open_database.executemany(
        "INSERT INTO t VALUES (?, ?, ?)", [(-5, b"low", 1), (1 << 62, b"high", 1)]
    )
    insert(open_database, 1000, 3000)
    rows = wanted(open_database)
    assert found(tmp_path) == rows  # all in the log
    open_database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert found(tmp_path) == rows  # all in the file
    open_database.execute("UPDATE t SET b = -b WHERE id % 3 = 0")
    assert found(tmp_path) == wanted(open_database) != rows  # in both


def test_what_was_deleted_is_not_found(tmp_path: Path, open_database: sqlite3.Connection) -> None:
    insert(open_database, 1, 4000)
    open_database.execute("DELETE FROM t WHERE id BETWEEN 100 AND 3900")
    assert open_database.execute("PRAGMA freelist_count").fetchone()[0] > 50
    assert found(tmp_path) == wanted(open_database)
    open_database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert found(tmp_path) == wanted(open_database)


def test_older_frames_of_the_log_are_not_found(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    insert(open_database, 1, 500)
    open_database.execute("PRAGMA wal_checkpoint(RESTART)")
    open_database.execute("UPDATE t SET b = 0 WHERE id = 1")  # the log begins anew
    open_database.execute("DELETE FROM t WHERE id > 400")
    assert found(tmp_path) == wanted(open_database)


def test_what_is_not_committed_is_not_found(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    insert(open_database, 1, 10)
    rows = wanted(open_database)
    open_database.execute("PRAGMA cache_size = 5")
    open_database.execute("BEGIN")
    insert(open_database, 11, 2000)  # more than fits: it is in the log already
    assert (tmp_path / "db-wal").stat().st_size > 50 * FRAME
    assert found(tmp_path) == rows
    open_database.execute("ROLLBACK")


def test_broken_frame_costs_what_was_on_its_page_alone(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    for first in range(1, 1000, 100):
        insert(open_database, first, 100)
    rows = wanted(open_database)
    target = copied(tmp_path)
    log = bytearray((target / "db-wal").read_bytes())
    frames = (len(log) - WAL_HEADER_BYTES) // FRAME
    assert frames > 20
    for frame in range(0, frames, frames // 8):
        broken = log.copy()
        broken[WAL_HEADER_BYTES + frame * FRAME + FRAME_HEADER_BYTES + 4000] ^= 1
        (target / "db-wal").write_bytes(broken)
        got = found(target)
        assert len(got) >= 999, frame  # the row of the flipped bit is the caller's to know
        assert sum(got.get(key) == row for key, row in rows.items()) >= 999, frame
    with closing(sqlite3.connect(target / "db")) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone()[0] < 1000  # SQLite gives up


@pytest.mark.parametrize("at", [0, 3, 9, 11, 14, 17, 22, 25, 31])
def test_broken_head_of_the_log_costs_nothing(
    tmp_path: Path, open_database: sqlite3.Connection, at: int
) -> None:
    insert(open_database, 1, 300)
    insert(open_database, 301, 300)
    rows = wanted(open_database)
    target = copied(tmp_path)
    log = bytearray((target / "db-wal").read_bytes())
    log[at] ^= 1
    (target / "db-wal").write_bytes(log)
    assert found(target) == rows


def test_log_without_its_database_is_read(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    insert(open_database, 1, 300)
    target = copied(tmp_path)
    (target / "db").unlink()
    assert found(target) == wanted(open_database)


def test_chains_and_lists_that_run_in_circles_end(
    tmp_path: Path, open_database: sqlite3.Connection
) -> None:
    insert(open_database, 1, 20, size=20_000)
    insert(open_database, 21, 1000)
    open_database.execute("DELETE FROM t WHERE id > 500")
    open_database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray((tmp_path / "db").read_bytes())
    for page in range(2, len(data) // 4096):  # every page goes on at itself
        pack_into(">I", data, page * 4096, page + 1)
    target = copied(tmp_path)
    (target / "db").write_bytes(data)
    found(target)
    (target / "db").write_bytes(data[:100])
    assert found(target) == {}
    (target / "db").write_bytes(b"")
    assert found(target) == {}


def test_a_row_that_goes_on_in_circles_is_none_and_takes_no_memory(tmp_path: Path) -> None:
    page, size, here = 512, 1 << 22, 256  # so many of these bytes are on the row's own page
    data = bytearray(3 * page)
    pack_into(">H", data, 16, page)
    pack_into(">BHHHBH", data, page, TABLE_LEAF, 0, 1, 0, 0, 100)
    data[page + 100 : page + 105] = b"\x82\x80\x80\0\1"  # that size, and row 1
    pack_into(">I", data, page + 105 + here, 3)
    pack_into(">I", data, 2 * page, 3)  # where the third page says to go on
    (tmp_path / "db").write_bytes(data)
    with bounded.memory(size // 4, "looking for rows"):
        assert found(tmp_path) == {}
