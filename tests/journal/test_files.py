"""The files beside a journal: who has it, how far it came, and what is kept for a full disk."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tests.journal.faulty import FaultyDisk, FaultyFiles
from tests.journal.support import KEY, SMALL, store, talk
from zmesh.ids import JournalId
from zmesh.journal.conversion import convert
from zmesh.journal.files import Files, Reserve, claim_of, holder_of
from zmesh.journal.tools import backup
from zmesh.options import KIB
from zmesh.storage_errors import JournalLocked

JOURNAL = JournalId(b"j" * 16)


def test_second_who_locks_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    one, other = Files(tmp_path / "journal"), Files(tmp_path / "journal")
    assert holder_of(tmp_path / "journal") == (False, None)
    one.lock()
    with pytest.raises(JournalLocked, match="in use by another process"):
        other.lock()
    one.claim(JOURNAL, 3)
    with pytest.raises(JournalLocked, match=f"in use by process {os.getpid()}"):
        other.lock()
    assert holder_of(tmp_path / "journal") == (True, os.getpid())
    one.unlock()
    one.unlock()
    other.lock()
    assert other.claimed() == (JOURNAL, 3)
    other.unlock()
    assert holder_of(tmp_path / "journal") == (False, None)


def test_claim_that_is_damaged_says_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path / "journal")
    assert claim_of(tmp_path / "journal") is None
    files.lock()
    assert files.claimed() is None
    files.claim(JOURNAL, 1 << 40)
    assert claim_of(tmp_path / "journal") == (JOURNAL, 1 << 40)
    lock = tmp_path / "journal.lock"
    whole = lock.read_bytes()
    for index in range(len(whole)):
        lock.write_bytes(whole[:index] + bytes([whole[index] ^ 4]) + whole[index + 1 :])
        assert files.claimed() is None
        lock.write_bytes(whole[:index])
        assert files.claimed() is None
    files.unlock()


def test_files_are_nobody_elses_affair(tmp_path: Path) -> None:
    files = Files(tmp_path / "journal")
    previous = os.umask(0)
    try:
        files.lock()
        files.create(files.path)
        files.allocate(files.beside(".reserve"), 4096)
    finally:
        os.umask(previous)
    files.unlock()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_lock_is_no_way_to_other_files(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    (tmp_path / "journal.lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        Files(tmp_path / "journal").lock()


def test_reserve_takes_the_space_it_tells_of(tmp_path: Path) -> None:
    reserve = Reserve(Files(tmp_path / "journal"), SMALL)
    assert not reserve.release()
    assert reserve.take()
    assert reserve.is_there
    kept = (tmp_path / "journal.reserve").stat()
    assert kept.st_size == 256 * KIB
    assert kept.st_blocks * 512 >= 256 * KIB
    assert reserve.take()
    another_life = Reserve(Files(tmp_path / "journal"), SMALL)
    assert another_life.release()
    assert not (tmp_path / "journal.reserve").exists()


def test_reserve_is_not_taken_from_a_disk_without_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FaultyDisk(tmp_path)
    files = FaultyFiles(tmp_path / "journal", disk)
    reserve = Reserve(files, SMALL)
    for number in (errno.ENOSPC, errno.EDQUOT):
        disk.fail = lambda _, number=number: number  # type: ignore[misc]
        assert not reserve.take()
    disk.fail = lambda _: errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        reserve.take()
    disk.fail = lambda _: None
    monkeypatch.setattr(files, "free_bytes", lambda: 300 * KIB)
    assert not reserve.take()
    monkeypatch.setattr(files, "free_bytes", lambda: 400 * KIB)
    assert reserve.take()
    disk.close()


@pytest.mark.parametrize("mask", [0, 0o022])
def test_files_that_come_and_go_are_for_their_owner_alone(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "journal"
    found: dict[str, int] = {}
    rename = Files.rename

    def look(files: Files, source: Path, target: Path) -> None:
        found.update(modes_in(tmp_path))
        rename(files, source, target)

    previous = os.umask(mask)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(Files, "rename", look)
            with talk(path) as (speaking, _):
                speaking.write(store(1, 20))
                speaking.journal._writer.stop_writing(is_damaged=True)
                found.update(modes_in(tmp_path))
            with talk(path) as (_, opened):
                assert opened.rescue is not None
            backup(path, tmp_path / "copy")
            convert(path, None, KEY)
            found.update(modes_in(tmp_path))
    finally:
        os.umask(previous)
    assert found.keys() >= {
        "journal", "journal-wal", "journal-shm", "journal.lock", "journal.reserve", "journal.new",
        "journal.suspect", "journal.salvage", "journal.damaged-1", "copy.part", "copy",
    }  # fmt: skip
    assert set(found.values()) == {0o600}, found


def modes_in(place: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()}
