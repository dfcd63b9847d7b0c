"""A copy while the journal is written: as of one moment, and a journal of its own."""

from pathlib import Path

import pytest

from tests.journal.faulty import FULL, FaultyDisk, FaultyFiles
from tests.journal.support import NODE, OUT, Talk, store, talk
from zmesh.errors import InvalidOption
from zmesh.journal.salvage import INCARNATION_GAP
from zmesh.journal.tools import verify
from zmesh.storage import Answered, BackedUp, BackUp, Opened, Written
from zmesh.storage_errors import JournalFull


def test_copy_made_while_writing_is_a_journal_as_of_one_moment(tmp_path: Path) -> None:
    speaking = Talk(tmp_path / "journal")
    opened = speaking.open()
    speaking.write(store(1, 2000, size=500))
    speaking.journal.read(1, BackUp(str(tmp_path / "copy")))
    number, copied = 2000, None
    while copied is None:
        number += 1
        speaking.hand_over(store(number, number))
        while not isinstance(event := speaking.news.get(timeout=20), Written):
            assert isinstance(event, Answered)
            copied = event.answer
    assert isinstance(copied, BackedUp)
    assert copied.size == (tmp_path / "copy").stat().st_size
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    speaking.close()
    assert verify(tmp_path / "copy") == []
    with talk(tmp_path / "copy") as (copy, again):
        assert again.rescue is None
        assert again.identity.node == NODE
        assert again.identity.journal != opened.identity.journal
        assert again.identity.incarnation == INCARNATION_GAP + 2
        found = copy.positions()
        assert found == list(range(1, len(found) + 1))
        assert 2000 <= len(found) <= number
    with talk(tmp_path / "journal") as (_, same):
        assert same.identity.journal == opened.identity.journal


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "copy").write_bytes(b"precious")
    speaking = Talk(tmp_path / "journal")
    assert isinstance(speaking.open(), Opened)
    speaking.journal.read(1, BackUp(str(tmp_path / "copy")))
    assert isinstance(speaking.next(Answered).answer, InvalidOption)
    speaking.close()
    assert (tmp_path / "copy").read_bytes() == b"precious"


def test_copy_that_fails_leaves_nothing_and_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with talk(tmp_path / "journal") as (speaking, _):
        speaking.write(store(1, 100))
        disk = FaultyDisk(tmp_path)
        disk.fail = lambda operation: FULL if operation[0] == "write" else None
        monkeypatch.setattr("zmesh.journal.backup.Files", lambda path: FaultyFiles(path, disk))
        speaking.journal.read(1, BackUp(str(tmp_path / "copy")))
        assert isinstance(speaking.next(Answered).answer, JournalFull)
        assert not list(tmp_path.glob("copy*"))
        speaking.write(store(101, 101))
        assert speaking.positions(OUT) == list(range(1, 102))
        disk.close()
