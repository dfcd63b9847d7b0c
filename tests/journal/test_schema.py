"""From any version to today's, whole or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.support import BOX, IN, OUT, Talk, row, row_of_run, run, store, talk
from zmesh.journal import opening, schema
from zmesh.journal.tools import backup, verify
from zmesh.message import Outcome
from zmesh.storage import (
    DEAD_LETTERS,
    Burial,
    EntriesRead,
    Entry,
    EntryKind,
    Forget,
    OutcomesRead,
    ReadEntries,
    ReadOutcomes,
    StoredOutcome,
)
from zmesh.storage_errors import JournalTooNew

NEXT = (
    *schema.MIGRATIONS,
    ("CREATE TABLE extra (number INTEGER)", "INSERT INTO extra VALUES (7)"),
)


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """A file of version 0: there are no tables."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as memory:
        yield memory


def tables(database: sqlite3.Connection) -> set[str]:
    found = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    return {name for (name,) in found}


def test_file_of_version_0_becomes_one_of_today(database: sqlite3.Connection) -> None:
    assert schema.version_of(database) == 0
    database.execute("BEGIN")
    schema.migrate(database, "path")
    database.execute("COMMIT")
    assert schema.version_of(database) == len(schema.MIGRATIONS) == 3
    named = {"versions", "facts", "messages", "entries", "attempts", "outcomes", "gone", "seals"}
    assert tables(database) == named
    database.execute("BEGIN")
    schema.migrate(database, "path")  # nothing is left to do
    assert database.execute("SELECT count(*) FROM versions").fetchone() == (3,)


def test_migration_that_fails_leaves_the_version_it_came_from(
    database: sqlite3.Connection,
) -> None:
    database.execute("BEGIN")
    schema.migrate(database, "path")
    database.execute("COMMIT")
    database.execute("BEGIN")
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(database, "path", (*NEXT, ("CREATE TABLE facts (number INTEGER)",)))
    database.execute("ROLLBACK")
    assert schema.version_of(database) == 3
    assert "extra" not in tables(database)


def test_journal_of_an_earlier_version_is_migrated_when_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(store(1, 10))
    monkeypatch.setattr(schema, "MIGRATIONS", NEXT)
    monkeypatch.setattr(opening, "MIGRATIONS", NEXT)
    with talk(path) as (speaking, opened):
        assert opened.rescue is None
        assert opened.identity.incarnation == 2
        assert speaking.positions() == list(range(1, 11))
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT number FROM extra").fetchall() == [(7,)]
        versions = database.execute("SELECT version FROM versions ORDER BY version").fetchall()
        assert versions == [(1,), (2,), (3,), (4,)]


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A journal of a version to come."""
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(store(1, 10, OUT))
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO versions VALUES (4, 0)")
        database.commit()
    return path


def test_journal_of_a_later_version_is_left_alone(later: Path) -> None:
    before = later.read_bytes()
    speaking = Talk(later)
    speaking.journal.open()
    error = speaking.broken().error
    assert isinstance(error, JournalTooNew)
    assert (error.version, error.known) == (4, 3)
    speaking.close()
    assert later.read_bytes() == before


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A journal as it was written when a row was a message."""
    path = tmp_path / "journal"
    with closing(sqlite3.connect(path)) as database:
        for pragma in schema.CREATION_PRAGMAS:
            database.execute(pragma)
        database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        database.executescript(Path(__file__).with_name("version_1.sql").read_text())
        database.execute("PRAGMA journal_mode = WAL")
    return path


def assert_content_of_version_1(speaking: Talk) -> None:
    assert [each.row for each in speaking.rows()] == [row(each, 20) for each in range(4, 11)]
    stored = speaking.rows(IN)
    assert [each.row for each in stored] == [row(each, 20) for each in range(1, 6)]
    assert [each.attempts for each in stored] == [0, 0, 2, 2, 0]
    (dead,) = speaking.rows(DEAD_LETTERS)
    assert dead.row.record == row(6, 20).record
    assert Burial.of(dead.row.note) == Burial("queue", "why", ((5, "once"),), attempts=1)
    outcomes = speaking.ask(ReadOutcomes(IN))
    assert isinstance(outcomes, OutcomesRead)
    assert outcomes.outcomes == [StoredOutcome(7, 8, Outcome.ACCEPTED)]
    entries = speaking.ask(ReadEntries(EntryKind.RETAINED))
    assert isinstance(entries, EntriesRead)
    assert entries.entries == [Entry(EntryKind.RETAINED, "topic", b"1", b"value")]


def test_journal_of_version_1_is_taken_over_with_all_that_is_in_it(version_1: Path) -> None:
    with talk(version_1) as (speaking, opened):
        assert opened.rescue is None
        assert opened.identity.incarnation == 2
        by_stream = {state.stream: state for state in opened.streams}
        assert (by_stream[OUT].next_position, by_stream[OUT].rows) == (11, 7)
        assert (by_stream[IN].received_cum, by_stream[IN].received_ranges) == (8, ((10, 11),))
        assert_content_of_version_1(speaking)
        speaking.write(run(1, 200), Forget(OUT, ((5, 9),)), Forget(BOX, ((2, 199),)))
    assert verify(version_1) == []
    with talk(version_1) as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == [4, 10]
        assert [each.row for each in speaking.rows(BOX)] == [row_of_run(1), row_of_run(200)]


def test_damaged_journal_of_version_1_is_rescued(version_1: Path) -> None:
    with closing(sqlite3.connect(version_1)) as database:
        database.execute("UPDATE facts SET checksum = 0 WHERE number = 17")
        database.execute("UPDATE messages SET ordinal = 9 WHERE place = (16 << 44) + 8")
        database.commit()
    with talk(version_1) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows, rescue.rows_lost, rescue.streams_lost) == (12, 1, 1)
        assert speaking.positions() == [4, 5, 6, 7, 9, 10]
    with talk(version_1) as (_, opened):
        assert opened.rescue is None


def test_copy_of_a_journal_of_version_1_is_one_of_today(version_1: Path, tmp_path: Path) -> None:
    backup(version_1, tmp_path / "copy")
    assert verify(tmp_path / "copy") == []
    with talk(tmp_path / "copy") as (speaking, opened):
        assert opened.rescue is None
        assert_content_of_version_1(speaking)
