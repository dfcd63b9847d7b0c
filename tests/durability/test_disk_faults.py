"""A disk that says no, at every operation in turn, and goes on working for others."""

import errno
import random
from pathlib import Path

import pytest

from tests.durability.model import content_of
from tests.durability.workload import Run, batches
from tests.journal.faulty import FSYNC, FULL, WRITE, FaultyDisk, FaultyFiles, Operation
from tests.journal.support import OUT, Talk, store, talk
from zmesh.storage import Broken, Forget, Opened, Room, Written
from zmesh.storage_errors import JournalBroken, JournalFull

WORK = batches(2, rounds=1)
OURS = ("create", "rename", "unlink", "fsync", "allocate", "lengthen", "claim")


def failing(disk: FaultyDisk, at: int, how: int | str, *whats: str) -> list[Operation]:
    """Have one operation of some kinds fail, counted from now; return a list it will be in."""
    failed: list[Operation] = []
    seen = 0

    def fail(operation: Operation) -> int | str | None:
        nonlocal seen
        if operation[0] not in whats:
            return None
        seen += 1
        if seen - 1 != at:
            return None
        failed.append(operation)
        return how

    disk.fail = fail
    return failed


def each_operation(
    place: Path, how: int | str, *whats: str
) -> list[tuple[FaultyDisk, Run, Operation, Path]]:
    """Run once for each operation of some kinds, that one failing."""
    runs: list[tuple[FaultyDisk, Run, Operation, Path]] = []
    while True:
        at = len(runs)
        source = place / f"run-{at}"
        source.mkdir()
        disk = FaultyDisk(source)
        failed = failing(disk, at, how, *whats)
        run = Run(Talk(source / "journal", FaultyFiles(source / "journal", disk)), WORK)
        run.go()
        if not failed:
            run.talk.close()
            disk.close()
            return runs
        runs.append((disk, run, failed[0], source))


@pytest.mark.parametrize(
    ("how", "what"), [(WRITE, "write"), ("short", "write"), (FSYNC, "sync")],
    ids=["EIO", "short write", "failed fsync"],
)  # fmt: skip
def test_failure_is_final_and_what_was_acknowledged_stays(
    place: Path, how: int | str, what: str
) -> None:
    runs = each_operation(place, how, what)
    assert len(runs) > 12
    broken = 0
    for number, (disk, run, operation, source) in enumerate(runs):
        target = place / f"after-{number}"
        target.mkdir()
        if run.opened is not None and run.refusal is not None:
            assert isinstance(run.refusal, JournalBroken), (operation, run.refusal)
            with pytest.raises(JournalBroken):
                run.talk.hand_over(store(9000, 9001))
            broken += 1
        operations = len(disk.operations)
        run.talk.close()
        if run.refusal is not None:
            later = disk.operations[operations:]
            assert not [each for each in later if each[0] in {"write", "sync", "truncate"}], later
        disk.power_cut(random.Random(number), target)
        disk.close()
        for path in (source, target):
            with talk(path / "journal") as (speaking, opened):
                assert opened.rescue is None, operation
                run.held_by(content_of(speaking, opened))
    assert broken > 8


def test_own_files_that_fail_break_the_journal_with_a_word(place: Path) -> None:
    runs = each_operation(place, errno.EIO, *OURS)
    seen = set()
    for disk, run, operation, source in runs:
        seen.add(operation[0])
        assert run.opened is None or run.refusal is not None or operation[0] == "claim"
        run.talk.close()
        disk.close()
        with talk(source / "journal") as (speaking, opened):
            assert opened.rescue is None
            run.held_by(content_of(speaking, opened))
    assert seen == set(OURS)


def test_full_disk_at_any_write_refuses_that_batch_alone_and_goes_on(place: Path) -> None:
    refused = 0
    for number, (disk, run, _, source) in enumerate(each_operation(place, FULL, "write")):
        if run.opened is not None and isinstance(run.refusal, JournalFull):
            refused += 1
            assert run.refusal.limit == 0
            assert isinstance(run.talk.news.get(timeout=5), Room)  # as the reserve fits again
            run.talk.write(store(9000, 9010))
            run.models[0].apply(store(9000, 9010))
        run.talk.close()
        disk.close()
        with talk(source / "journal") as (speaking, opened):
            assert opened.rescue is None, number
            run.held_by(content_of(speaking, opened))
    assert refused > 8


def test_failed_checkpoint_is_final_too(place: Path) -> None:
    """SQLite's own checkpoints keep such an error to themselves, and try again."""
    disk = FaultyDisk(place)
    speaking = Talk(place / "journal", FaultyFiles(place / "journal", disk))
    speaking.open()
    disk.fail = lambda operation: FSYNC if operation == ("sync", "journal") else None
    speaking.hand_over(store(1, 200, size=500))
    assert speaking.next(Written)
    error = speaking.next(Broken).error
    assert isinstance(error, JournalBroken)
    assert "FSYNC" in error.reason
    assert speaking.positions() == list(range(1, 201))  # reading goes on
    disk.fail = lambda _: None
    speaking.close()
    disk.close()
    with talk(place / "journal") as (again, _):
        assert again.positions() == list(range(1, 201))


def test_deletes_go_on_with_the_reserve_while_the_disk_is_full(place: Path) -> None:
    disk = FaultyDisk(place)
    files = FaultyFiles(place / "journal", disk)
    is_full = False

    def fail(operation: Operation) -> int | None:
        if not is_full:
            return None
        if operation[0] == "allocate":
            return errno.ENOSPC
        # What is released makes room.
        return FULL if operation[0] == "write" and files.beside(".reserve").exists() else None

    disk.fail = fail
    speaking = Talk(place / "journal", files)
    speaking.open()
    speaking.write(store(1, 100))
    is_full = True
    assert isinstance(speaking.refused(store(101, 200)).error, JournalFull)
    with pytest.raises(JournalFull):
        speaking.hand_over(store(101, 101))
    speaking.write(Forget(OUT, ((1, 50),)))
    assert not speaking.journal.statistics().has_reserve
    assert speaking.journal.room_bytes == 0
    is_full = False
    speaking.next(Room)
    speaking.write(store(101, 110))
    assert speaking.positions() == list(range(51, 111))
    assert speaking.journal.statistics().has_reserve
    speaking.close()
    disk.close()


def test_journal_that_breaks_while_much_is_handed_over_answers_all_of_it(place: Path) -> None:
    disk = FaultyDisk(place)
    speaking = Talk(place / "journal", FaultyFiles(place / "journal", disk))
    assert isinstance(speaking.open(), Opened)
    failing(disk, 3, FSYNC, "sync")
    handed_over = []
    for number in range(400):
        try:
            handed_over.append(speaking.hand_over(store(number + 1, number + 1)))
        except JournalBroken:
            break
    answered: list[int] = []
    while True:
        event = speaking.news.get(timeout=10)
        if isinstance(event, Broken):
            break
        answered += event.tickets  # type: ignore[union-attr]
    while len(answered) < len(handed_over):
        answered += speaking.news.get(timeout=10).tickets  # type: ignore[union-attr]
    assert answered == handed_over
    speaking.close()
    disk.close()
