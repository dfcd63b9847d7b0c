"""Opening a journal: a life begins, and what is not ours is left alone."""

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.support import NODE, Talk, store, talk
from zmesh.options import KIB, JournalOptions
from zmesh.storage_errors import JournalBroken, JournalFull, JournalLocked, StorageError


def refusal(path: Path) -> StorageError:
    """Return why a journal cannot be opened."""
    speaking = Talk(path)
    speaking.journal.open()
    error = speaking.broken().error
    with pytest.raises(type(error)):
        speaking.hand_over(store(1, 1))
    speaking.close()
    return error


def test_every_life_has_a_higher_incarnation_and_the_same_identity(tmp_path: Path) -> None:
    identities = []
    for life in range(1, 5):
        with talk(tmp_path / "journal") as (_, opened):
            assert opened.is_new == (life == 1)
            assert opened.identity.incarnation == life
            identities.append((opened.identity.node, opened.identity.journal))
            assert opened.identity.seed == b"seed"
    assert len(set(identities)) == 1
    assert identities[0][0] == NODE
    with talk(tmp_path / "other") as (_, opened):
        assert opened.identity.journal != identities[0][1]


def test_all_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    with talk(tmp_path / "journal") as (speaking, _):
        speaking.write(store(1, 10))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes.keys() >= {"journal", "journal-wal", "journal.lock", "journal.reserve"}
    assert set(modes.values()) == {0o600}


def test_second_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    with talk(tmp_path / "journal") as (speaking, _):
        assert isinstance(refusal(tmp_path / "journal"), JournalLocked)
        speaking.write(store(1, 1))
    with talk(tmp_path / "journal") as (speaking, _):
        assert speaking.positions() == [1]


def test_empty_file_that_was_never_a_journal_becomes_one(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with talk(tmp_path / "journal") as (_, opened):
        assert opened.is_new
        assert opened.rescue is None


def test_database_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "application.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE orders (number INTEGER)")
    before = path.read_bytes()
    assert "no journal of zmesh" in str(refusal(path))
    assert path.read_bytes() == before
    assert not path.with_name("application.db.lock").exists()
    path.write_text("dear diary, " * 1000)
    assert isinstance(refusal(path), JournalBroken)
    assert path.read_text().startswith("dear diary")
    assert not list(tmp_path.glob("*damaged*"))


def test_journal_of_ours_without_its_lock_file_is_known(tmp_path: Path) -> None:
    living = Talk(tmp_path / "living")
    living.open()
    living.write(store(1, 20))
    for suffix in ("", "-wal"):  # as if copied after a crash, and without the rest
        (tmp_path / f"journal{suffix}").write_bytes((tmp_path / f"living{suffix}").read_bytes())
    living.close()
    with talk(tmp_path / "journal") as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == list(range(1, 21))


def test_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none" / "journal")
    assert isinstance(error, JournalBroken)
    assert error.operation == "be opened"
    assert "No such file" in error.reason


def test_directory_in_its_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    assert isinstance(refusal(tmp_path / "journal"), JournalBroken)


def test_path_with_strange_characters_is_a_path(tmp_path: Path) -> None:
    path = tmp_path / "a b?mode=ro&c#d%20é"
    with talk(path) as (speaking, _):
        speaking.write(store(1, 1))
    assert path.exists()


def test_full_journal_tells_its_bounds(tmp_path: Path) -> None:
    options = JournalOptions(journal_bytes_max=400 * KIB, reserve_bytes_min=1, wal_bytes_max=1)
    with talk(tmp_path / "journal", options=options) as (speaking, _):
        with pytest.raises(JournalFull, match="raise journal_bytes_max") as caught:
            speaking.hand_over(store(1, 5000))
        assert caught.value.limit == 400 * KIB
        speaking.write(store(1, 10))
