"""An encrypted journal as a file: the right key, another, none, and what goes without one."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from tests.journal.support import BOX, IN, KEY, NODE, OUT, Talk, row, run, store, talk
from zmesh.cli.main import main
from zmesh.journal import coding, tools
from zmesh.journal.dead_letters import dead_letters, purge, requeue
from zmesh.journal.salvage import INCARNATION_GAP
from zmesh.message import Outcome
from zmesh.security.key_files import create_key_file
from zmesh.security.storage_key import StorageKey
from zmesh.storage import (
    DEAD_LETTERS,
    Burial,
    EntriesRead,
    Entry,
    EntryKind,
    Forget,
    Move,
    OutcomesRead,
    ReadEntries,
    ReadOutcomes,
    SetEntries,
    StoredOutcome,
    StoreOutcomes,
    StoreRun,
)
from zmesh.storage_errors import (
    StorageError,
    StorageKeyMissing,
    StorageKeyWrong,
    StorageNotEncrypted,
)

OTHER = StorageKey(b"o" * 32)
BURIAL = Burial("queue", "hidden-reason", ((5, "hidden-attempt"),), source=OUT).as_note()
OUTCOMES = (StoredOutcome(1, 9, Outcome.REJECTED, "hidden-outcome"),)
ENTRIES = (
    Entry(EntryKind.RETAINED, "hidden-topic", b"hidden-key", b"hidden-value"),
    Entry(EntryKind.SHARED, "hidden-map", b"hidden-key-too", b"hidden-value-too"),
    Entry(EntryKind.TICKET, "hidden-ticket", b"1", b"hidden-request"),
)
HIDDEN_BOX = BOX._replace(owner=b"hidden-addressee")


def fill(path: Path, key: StorageKey | None = KEY) -> None:
    with talk(path, key=key) as (speaking, opened):
        assert opened.identity.seed == b"seed"
        speaking.write(store(1, 40), run(1, 300), SetEntries(ENTRIES))
        secret = (0, "hidden-target", b"hidden-body", ((9, "hidden-header"),))
        speaking.write(StoreRun(HIDDEN_BOX, 1, [secret] * 2, note=("hidden-note",)))  # type: ignore[list-item]
        speaking.write(Move(OUT, ((1, 1),), DEAD_LETTERS, 1, BURIAL), StoreOutcomes(IN, OUTCOMES))
        speaking.write(Forget(BOX, ((5, 9),)), Forget(OUT, ((30, 40),)))


def check(path: Path, key: StorageKey | None = KEY) -> None:
    with talk(path, key=key) as (speaking, opened):
        assert opened.rescue is None
        assert opened.identity.seed == b"seed"
        assert [each.row for each in speaking.rows()] == [row(each) for each in range(2, 30)]
        assert speaking.positions(BOX) == [*range(1, 5), *range(10, 301)]
        assert [each.row.note for each in speaking.rows(HIDDEN_BOX)] == [("hidden-note",)] * 2
        assert speaking.rows(DEAD_LETTERS)[0].row.note == BURIAL
        outcomes = speaking.ask(ReadOutcomes(IN))
        assert isinstance(outcomes, OutcomesRead)
        assert tuple(outcomes.outcomes) == OUTCOMES
        for entry in ENTRIES:
            entries = speaking.ask(ReadEntries(entry.kind))
            assert isinstance(entries, EntriesRead)
            assert entries.entries == [entry]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    fill(path)
    return path


def refusal(path: Path, key: StorageKey | None) -> StorageError:
    speaking = Talk(path, key=key)
    speaking.journal.open()
    error = speaking.broken().error
    speaking.close()
    return error


def spoil(path: Path) -> None:
    """Damage two places, so that it is seen as it opens."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE facts SET checksum = 0 WHERE number = 17")
        database.execute("UPDATE messages SET ordinal = 9 WHERE place = (16 << 44) + 8")
        database.commit()


def test_what_was_stored_is_there_in_the_next_life(path: Path) -> None:
    check(path)
    check(path)
    assert tools.verify(path) == tools.verify(path, KEY) == []


def test_nothing_that_was_hidden_is_in_any_file_at_any_time(tmp_path: Path) -> None:
    def seen() -> list[str]:
        return [each.name for each in tmp_path.iterdir() if b"hidden" in each.read_bytes()]

    with talk(tmp_path / "journal", key=KEY) as (speaking, _):
        speaking.write(SetEntries(ENTRIES), StoreOutcomes(IN, OUTCOMES))
        assert seen() == []
        assert (tmp_path / "journal-wal").stat().st_size > 4096
    fill(tmp_path / "other")
    fill(tmp_path / "plain", key=None)
    assert seen() == ["plain"]


@pytest.mark.parametrize("is_damaged", [False, True])
@pytest.mark.parametrize(
    ("key", "error"), [(None, StorageKeyMissing), (OTHER, StorageKeyWrong)], ids=["none", "wrong"]
)
def test_without_its_key_it_is_left_as_it_is(
    path: Path, key: StorageKey | None, error: type[StorageError], is_damaged: bool
) -> None:
    if is_damaged:
        spoil(path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    found = refusal(path, key)
    assert isinstance(found, error)
    assert KEY.fingerprint in str(found)
    after = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    assert after.pop("journal-wal", b"") == b""  # SQLite's, who reads makes them
    after.pop("journal-shm", None)
    assert after == before
    if not is_damaged:
        check(path)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_key_for_a_journal_without_one_is_refused(tmp_path: Path, is_damaged: bool) -> None:
    path = tmp_path / "journal"
    fill(path, key=None)
    if is_damaged:
        spoil(path)
    before = path.read_bytes()
    found = refusal(path, KEY)
    assert isinstance(found, StorageNotEncrypted)
    assert "zmesh journal encrypt" in str(found)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.damaged*"))


def test_damaged_one_is_rescued_and_stays_readable(path: Path) -> None:
    spoil(path)
    with talk(path, key=KEY) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows_lost, rescue.entries_lost, rescue.streams_lost) == (1, 0, 1)
        assert not rescue.is_identity_lost
        assert opened.identity.seed == b"seed"
        assert opened.identity.incarnation > INCARNATION_GAP
        assert speaking.positions() == [*range(2, 8), *range(9, 30)]
    with talk(path, key=KEY) as (speaking, opened):
        assert opened.rescue is None
        assert opened.identity.seed == b"seed"
    assert isinstance(refusal(path, OTHER), StorageKeyWrong)


@pytest.mark.parametrize("table", ["facts", "seals"])
def test_one_copy_of_what_says_the_key_is_enough(path: Path, table: str) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"UPDATE {table} SET value = x'00' WHERE number = 2")  # noqa: S608
        database.commit()
    assert isinstance(refusal(path, None), StorageKeyMissing)
    assert isinstance(refusal(path, OTHER), StorageKeyWrong)
    with talk(path, key=KEY) as (_, opened):
        assert opened.rescue is not None
        assert (opened.rescue.rows_lost, opened.rescue.entries_lost) == (0, 0)
    check(path)


def test_without_either_copy_all_is_lost_and_kept_aside(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("DELETE FROM seals")
        database.execute("DELETE FROM facts WHERE number = 2")
        database.commit()
    assert isinstance(refusal(path, None), StorageKeyMissing)
    with talk(path, key=KEY) as (_, opened):
        assert opened.rescue is not None
        assert (opened.rescue.rows, opened.rescue.is_identity_lost) == (0, True)
    assert (path.parent / "journal.damaged-1").exists()
    with talk(path, key=KEY) as (_, opened):
        assert opened.rescue is None


Change = Callable[[sqlite3.Connection], None]


def _new_body(database: sqlite3.Connection) -> None:
    (columns,) = database.execute("SELECT * FROM messages WHERE place = (16 << 44) + 8")
    changed = [*columns]
    changed[1] = changed[1][:-1] + bytes([changed[1][-1] ^ 1])
    _put(database, changed)


def _swapped(database: sqlite3.Connection) -> None:
    (one,) = database.execute("SELECT * FROM messages WHERE place = (16 << 44) + 8")
    (two,) = database.execute("SELECT * FROM messages WHERE place = (16 << 44) + 9")
    _put(database, [*one[:1], *two[1:]])


def _put(database: sqlite3.Connection, columns: list[Any]) -> None:
    """Write a row as somebody would who has not the key, and knows all the rest."""
    place, record, stored, expires, due, order, notes, _, span = columns
    fields = (place, stored, expires, due, order, len(notes))
    head = coding._ROW.pack(coding.Table.MESSAGES, *fields)
    checksum = crc32(record, crc32(notes + head))
    (told,) = database.execute("SELECT value FROM facts WHERE number = 1").fetchone()
    totals = coding.Totals.of(told)
    (before,) = database.execute(
        "SELECT checksum FROM messages WHERE place = ?", (place,)
    ).fetchone()
    totals.add(coding.Table.MESSAGES, 0, checksum - before)
    database.execute(
        "REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (place, record, stored, expires, due, order, notes, checksum, span),
    )
    value = totals.value()
    database.execute(
        "UPDATE facts SET value = ?, checksum = ? WHERE number = 1",
        (value, coding.fact_checksum(1, value)),
    )
    database.commit()


@pytest.mark.parametrize("change", [_new_body, _swapped])
def test_forged_row_with_a_right_checksum_is_damage_of_that_row(
    path: Path, change: Change
) -> None:
    with closing(sqlite3.connect(path)) as database:
        change(database)
    assert tools.verify(path) == []  # nobody can tell without the key
    (problem,) = tools.verify(path, KEY)
    assert "is not what was written" in problem
    speaking = Talk(path, key=KEY)
    speaking.open()
    with pytest.raises(AssertionError, match=r"JournalCorrupted.*does not open"):
        speaking.rows()
    speaking.close()
    with talk(path, key=KEY) as (speaking, opened):
        assert opened.rescue is not None
        assert opened.rescue.rows_lost == 1
        assert speaking.positions() == [*range(2, 8), *range(9, 30)]


def test_tools_that_look_into_nothing_need_no_key(path: Path, tmp_path: Path) -> None:
    told = tools.status(path)
    assert told.key == KEY.fingerprint
    assert told.node == NODE.hex()
    assert told.rows == {"lane_out": 28, "waiting": 297, "dead_letters": 1, "lane_in": 0}
    assert told.entries == {"retained": 1, "shared": 1, "ticket": 1}
    assert (told.dead_letters, told.streams) == (1, 5)
    tools.backup(path, tmp_path / "copy")
    tools.compact(path)
    assert tools.verify(tmp_path / "copy", KEY) == []
    check(path)
    check(tmp_path / "copy")
    assert isinstance(refusal(tmp_path / "copy", OTHER), StorageKeyWrong)


def test_dead_letters_need_the_key(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for attempt in (
        lambda: dead_letters(path), lambda: requeue(path, [1]), lambda: purge(path, [1]),
    ):  # fmt: skip
        with pytest.raises(StorageKeyMissing):
            attempt()
    monkeypatch.delenv("ZMESH_STORAGE_KEY", raising=False)
    assert main(["dead-letters", "show", str(path), "1"]) != 0
    error = capsys.readouterr().err
    assert "ZMESH_STORAGE_KEY" in error
    assert f"(the one with the fingerprint {KEY.fingerprint})" in error
    monkeypatch.setenv("ZMESH_STORAGE_KEY", KEY.text)
    assert main(["dead-letters", "show", str(path), "1", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["reason"] == "hidden-reason"
    assert main(["dead-letters", "requeue", str(path), "1"]) == 0
    with talk(path, key=KEY) as (speaking, _):
        assert speaking.positions(DEAD_LETTERS) == []
        assert speaking.positions() == [*range(2, 30), 41]


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ZMESH_STORAGE_KEY", raising=False)
    create_key_file(tmp_path / "storage.key", KEY.text + "\n")
    return tmp_path / "storage.key"


def test_key_file_opens_dead_letters(
    path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["dead-letters", "list", str(path), "--key-file", str(key_file)]) == 0
    assert "hidden-reason" in capsys.readouterr().out
    assert main(["dead-letters", "purge", str(path), "1", "--key-file", str(key_file)]) == 0


def test_verify_says_whether_it_looked_into_what_is_encrypted(
    path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["journal", "verify", str(path)]) == 0
    told = capsys.readouterr().out
    assert f"the one with the fingerprint {KEY.fingerprint}" in told
    assert "was not opened" in told
    assert main(["journal", "verify", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["opened"] is False
    assert main(["journal", "verify", str(path), "--key-file", str(key_file)]) == 0
    assert capsys.readouterr().out == f"{path} is sound\n"


def test_entries_are_in_order_though_the_file_has_none(tmp_path: Path) -> None:
    def entry(number: int, value: bytes = b"") -> Entry:
        return Entry(EntryKind.FAN_OUT, f"{number // 10:03}", bytes([number % 10]), value)

    def read() -> list[Entry]:
        found: list[Entry] = []
        while True:
            after = (found[-1].name, found[-1].key) if found else None
            page = speaking.ask(ReadEntries(EntryKind.FAN_OUT, after, count_max=7))
            assert isinstance(page, EntriesRead)
            found += page.entries
            if len(found) == 7:  # in the middle of an answer
                speaking.write(SetEntries((entry(99, b"new"), entry(1, b"late"))))
            if page.is_end:
                return found

    with talk(tmp_path / "journal", key=KEY) as (speaking, _):
        speaking.write(SetEntries(tuple(map(entry, reversed(range(100))))))
        assert read() == [*map(entry, range(99)), entry(99, b"new")]
