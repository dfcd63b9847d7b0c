"""A damaged journal: what is rescued, what is told lost, and under what name it goes on."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.support import (
    BOX,
    IN,
    NODE,
    OUT,
    Talk,
    row,
    row_of_run,
    run,
    store,
    talk,
)  # fmt: skip
from zmesh.journal import coding
from zmesh.journal.coding import Table
from zmesh.journal.salvage import INCARNATION_GAP
from zmesh.message import Outcome
from zmesh.storage import (
    Closed,
    CountAttempts,
    EntriesRead,
    Entry,
    EntryKind,
    Forget,
    OutcomesRead,
    ReadEntries,
    ReadOutcomes,
    SetEntries,
    SetWatermark,
    StoredOutcome,
    StoreOutcomes,
    StreamKind,
)
from zmesh.storage_errors import JournalCorrupted

ENTRY = Entry(EntryKind.RETAINED, "topic", b"1", b"value")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with some of everything."""
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(
            store(1, 100), store(1, 50, IN), SetWatermark(IN, 60, ((62, 63),)),
            CountAttempts(IN, ((5, 9),), 3), SetEntries((ENTRY,)),
            StoreOutcomes(IN, (StoredOutcome(51, 60, Outcome.ACCEPTED),)),
        )  # fmt: skip
        speaking.write(Forget(OUT, ((1, 10),)))
    return path


def change(path: Path, *statements: str) -> None:
    """Do behind the journal's back what a bad disk does."""
    with closing(sqlite3.connect(path)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def test_all_that_is_sound_is_rescued(path: Path) -> None:
    change(path, "UPDATE facts SET checksum = checksum + 1 WHERE number = 1")
    with talk(path) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows, rescue.rows_lost) == (140, None)  # what told how many is lost
        assert (rescue.entries, rescue.streams) == (1, 2)
        assert not rescue.is_identity_lost
        assert rescue.set_aside == str(path.with_name("journal.damaged-1"))
        assert "fact 1" in rescue.detail
        assert opened.identity.node == NODE
        assert opened.identity.incarnation == INCARNATION_GAP + 2
        by_stream = {state.stream: state for state in opened.streams}
        assert by_stream[OUT].next_position == 101
        assert (by_stream[IN].received_cum, by_stream[IN].received_ranges) == (60, ((62, 63),))
        assert [each.row for each in speaking.rows()] == [row(each) for each in range(11, 101)]
        attempts = [each.attempts for each in speaking.rows(IN)]
        assert attempts == [0] * 4 + [3] * 5 + [0] * 41
        entries = speaking.ask(ReadEntries(EntryKind.RETAINED))
        assert isinstance(entries, EntriesRead)
        assert entries.entries == [ENTRY]
        outcomes = speaking.ask(ReadOutcomes(IN))
        assert isinstance(outcomes, OutcomesRead)
        assert outcomes.outcomes == [StoredOutcome(51, 60, Outcome.ACCEPTED)]


def test_rows_of_a_stream_nobody_knows_any_more_are_found_elsewhere(path: Path) -> None:
    change(path, "UPDATE facts SET value = x'00' WHERE number = 16")
    with talk(path) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows, rescue.rows_lost, rescue.streams_lost) == (140, 0, 1)
        found = [each.stream for each in opened.streams if each.stream.kind == StreamKind.FOUND]
        assert len(found) == 1
        assert speaking.positions(found[0]) == list(range(11, 101))
        # Its number is taken, and stays so.
        speaking.write(store(1, 3))
        assert speaking.positions() == [1, 2, 3]


def test_identity_that_is_lost_is_told(path: Path) -> None:
    change(path, "DELETE FROM facts WHERE number = 0")
    with talk(path) as (_, opened):
        assert opened.rescue is not None
        assert opened.rescue.is_identity_lost
        assert opened.rescue.rows == 140


def test_lost_rows_are_counted(path: Path) -> None:
    change(
        path,
        "UPDATE messages SET record = x'77' WHERE place = (16 << 44) + 20",
        "DELETE FROM messages WHERE place = (16 << 44) + 21",
        "DELETE FROM entries",
    )
    with talk(path) as (speaking, opened):
        assert opened.rescue is not None
        assert (opened.rescue.rows_lost, opened.rescue.entries_lost) == (2, 1)
        assert speaking.positions() == [*range(11, 20), *range(22, 101)]


def test_damage_that_is_seen_late_ends_this_life_and_is_rescued_in_the_next(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        # Nothing that opening looks at: the sums are as they were.
        database.execute("UPDATE messages SET stored = 0 WHERE place = (16 << 44) + 50")
        database.commit()
    speaking = Talk(path)
    assert speaking.open().rescue is None
    ticket = 0
    with pytest.raises(AssertionError, match="Broken"):
        speaking.rows()
    with pytest.raises(JournalCorrupted):
        ticket = speaking.hand_over(store(101, 101))
    assert ticket == 0
    assert path.with_name("journal.suspect").exists()
    speaking.close()
    with talk(path) as (speaking, opened):
        assert opened.rescue is not None
        assert opened.rescue.rows_lost == 1
        assert 50 not in speaking.positions()
        assert not path.with_name("journal.suspect").exists()


@pytest.fixture
def with_runs(tmp_path: Path) -> Path:
    """A journal with blocks, of which some rows are gone."""
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(store(1, 5), run(1, 300))
        speaking.write(Forget(BOX, ((1, 3), (120, 140), (280, 280))))
    return path


LEFT = [*range(4, 120), *range(141, 280), *range(281, 301)]


def test_blocks_are_rescued_less_what_is_gone_of_them(with_runs: Path) -> None:
    change(with_runs, "UPDATE facts SET checksum = checksum + 1 WHERE number = 17")
    with talk(with_runs) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows, rescue.rows_lost) == (5 + len(LEFT), 0)
        (found,) = [each for each in opened.streams if each.stream.kind == StreamKind.FOUND]
        assert (found.rows, found.first, found.last) == (len(LEFT), 4, 300)
        assert found.next_position == 301
        assert [each.row for each in speaking.rows(found.stream)] == list(map(row_of_run, LEFT))
    with talk(with_runs) as (_, opened):
        assert opened.rescue is None


def test_damaged_block_is_lost_whole_and_counted_row_by_row(with_runs: Path) -> None:
    change(with_runs, "UPDATE messages SET ordinal = 9 WHERE place = (17 << 44) + 129",
           "DELETE FROM entries", "UPDATE facts SET checksum = 0 WHERE number = 16")  # fmt: skip
    with talk(with_runs) as (speaking, opened):
        assert opened.rescue is not None
        assert opened.rescue.rows_lost == 256 - 140
        assert speaking.positions(BOX) == [each for each in LEFT if not 129 <= each <= 256]


def test_what_is_gone_comes_back_where_that_is_what_was_damaged(with_runs: Path) -> None:
    change(with_runs, "UPDATE gone SET checksum = 0 WHERE first = (17 << 44) + 120")
    with talk(with_runs) as (speaking, opened):
        assert opened.rescue is not None
        assert opened.rescue.rows_lost == 0
        assert speaking.positions(BOX) == [*range(4, 129), *LEFT[LEFT.index(141) :]]


def test_what_was_gone_of_another_block_hides_nothing(with_runs: Path) -> None:
    first, last = (17 << 44) + 150, (17 << 44) + 160
    value = b"none"
    checksum = coding.mark_checksum(Table.GONE, first, last, value)
    change(
        with_runs,
        f"INSERT INTO gone VALUES ({first}, {last}, x'{value.hex()}', {checksum})",  # noqa: S608
    )
    with talk(with_runs) as (speaking, opened):
        assert opened.rescue is not None
        assert speaking.positions(BOX) == LEFT


def test_of_blocks_that_overlap_the_first_is_rescued(with_runs: Path) -> None:
    columns = coding.run_columns(17, run(100, 130))[0]
    with closing(sqlite3.connect(with_runs)) as database:
        database.execute("INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
        database.commit()
    with talk(with_runs) as (speaking, opened):
        assert opened.rescue is not None
        assert speaking.positions(BOX) == LEFT


def test_damaged_files_are_kept_apart(path: Path) -> None:
    for number in (1, 2, 3):
        change(path, "UPDATE facts SET value = x'00' WHERE number = 1")
        before = path.read_bytes()
        with talk(path) as (_, opened):
            assert opened.rescue is not None
            aside = Path(opened.rescue.set_aside)
        assert aside.name == f"journal.damaged-{number}"
        assert aside.read_bytes() == before
        assert aside.stat().st_mode & 0o777 == 0o600
        assert path.stat().st_mode & 0o777 == 0o600


def test_log_without_its_database_is_rescued(tmp_path: Path) -> None:
    speaking = Talk(tmp_path / "living")
    speaking.open()
    speaking.write(store(1, 30))
    (tmp_path / "journal-wal").write_bytes((tmp_path / "living-wal").read_bytes())
    speaking.close()
    with talk(tmp_path / "journal") as (again, opened):
        assert opened.rescue is not None
        assert again.positions() == list(range(1, 31))
    assert (tmp_path / "journal.damaged-1-wal").exists()


def test_what_closes_last_is_said_last(path: Path) -> None:
    speaking = Talk(path)
    speaking.open()
    speaking.journal.close()
    speaking.journal.close()
    assert isinstance(speaking.news.get(timeout=10), Closed)
    assert speaking.journal.join(10)
    assert speaking.news.empty()
    assert os.path.exists(path)  # noqa: PTH110
