"""From any version to today's, whole or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.support import OUT, Talk, store, talk
from zmesh.errors import JournalTooNew
from zmesh.journal import opening, schema

NEXT = (*schema.MIGRATIONS, ("CREATE TABLE extra (number INTEGER)", "INSERT INTO extra VALUES (7)"))


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
    assert schema.version_of(database) == len(schema.MIGRATIONS) == 2
    named = {"versions", "facts", "messages", "entries", "attempts", "outcomes", "gone"}
    assert tables(database) == named
    database.execute("BEGIN")
    schema.migrate(database, "path")  # nothing is left to do
    assert database.execute("SELECT count(*) FROM versions").fetchone() == (2,)


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
    assert schema.version_of(database) == 2
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
        assert versions == [(1,), (2,), (3,)]


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """A journal of a version to come."""
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(store(1, 10, OUT))
    with closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO versions VALUES (3, 0)")
        database.commit()
    return path


def test_journal_of_a_later_version_is_left_alone(later: Path) -> None:
    before = later.read_bytes()
    speaking = Talk(later)
    speaking.journal.open()
    error = speaking.broken().error
    assert isinstance(error, JournalTooNew)
    assert (error.version, error.known) == (3, 2)
    speaking.close()
    assert later.read_bytes() == before
