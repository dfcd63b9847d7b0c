"""A disk that is full indeed: a small file system in memory, made and removed by the test."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journal.support import OUT, Talk, store, talk
from zmesh.journal.tools import verify
from zmesh.options import KIB, MIB, JournalOptions
from zmesh.storage import Forget, Refused, Room, Written
from zmesh.storage_errors import JournalFull

OPTIONS = JournalOptions(
    reserve_bytes_min=1 * MIB, wal_bytes_max=256 * KIB, vacuum_bytes_min=64 * KIB, retry_full=0.05
)
DISK_BYTES = 8 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["/usr/bin/env", "mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["/usr/bin/env", "umount", str(place)], check=True)


def fill_up(place: Path) -> Path:
    """Leave no space on the disk."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        piece = 64 * KIB
        while piece:
            try:
                file.write(bytes(piece))
            except OSError:
                piece = piece // 2 if piece > 1 else 0
    return filler


def write_until_full(speaking: Talk, first: int) -> int:
    """Write 20 rows a batch until that is refused; return the number of the next row."""
    while True:
        try:
            speaking.hand_over(store(first, first + 19, size=1000))
        except JournalFull:
            return first
        event = speaking.news.get(timeout=10)
        if isinstance(event, Refused):
            assert isinstance(event.error, JournalFull)
            return first
        assert isinstance(event, Written)
        first += 20


def test_full_disk_refuses_loses_nothing_and_goes_on_when_there_is_space(disk: Path) -> None:
    path = disk / "journal"
    with talk(path, options=OPTIONS) as (speaking, _):
        speaking.write(store(1, 500))
        filler = fill_up(disk)
        following = write_until_full(speaking, 501)
        assert following < 1000  # what the log had of the disk may be good for some
        with pytest.raises(JournalFull, match=r"disk of the journal .* is full"):
            speaking.hand_over(store(following, following))
        assert speaking.positions() == list(range(1, following))
        # Deleting works, and so do its checkpoints, on space that was kept for them.
        speaking.write(Forget(OUT, ((1, following // 2),)))
        assert not (disk / "journal.reserve").exists()
        filler.unlink()
        speaking.next(Room)
        assert (disk / "journal.reserve").stat().st_size == 1 * MIB
        speaking.write(store(following, following + 99))
        expected = list(range(following // 2 + 1, following + 100))
        assert speaking.positions() == expected
    assert verify(path) == []
    with talk(path, options=OPTIONS) as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == expected


def test_journal_that_fills_its_disk_gets_out_by_what_it_forgets(disk: Path) -> None:
    path = disk / "journal"
    with talk(path, options=OPTIONS) as (speaking, _):
        following = write_until_full(speaking, 1)
        assert following > 4000
        for first in range(1, following, 200):
            speaking.hand_over(Forget(OUT, ((first, first + 199),)))
        assert isinstance(speaking.news.get(timeout=10), Written)
        while not isinstance(speaking.news.get(timeout=10), Room):
            pass  # as the file gets shorter
        assert speaking.write(store(following, following + 9))
        assert speaking.positions()[-1] == following + 9
    assert verify(path) == []


def test_journal_opens_on_a_full_disk_with_the_space_it_kept(disk: Path) -> None:
    path = disk / "journal"
    with talk(path, options=OPTIONS) as (speaking, _):
        speaking.write(store(1, 100))
    filler = fill_up(disk)
    with talk(path, options=OPTIONS) as (speaking, opened):
        assert opened.identity.incarnation == 2
        assert speaking.positions() == list(range(1, 101))
        speaking.write(Forget(OUT, ((1, 50),)))
        following = write_until_full(speaking, 101)
        filler.unlink()
        speaking.next(Room)
        assert speaking.write(store(following, following))
    assert verify(path) == []
