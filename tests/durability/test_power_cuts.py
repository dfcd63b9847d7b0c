"""The power goes at every single operation on the disk: what was acknowledged is there."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.durability.model import content_in, content_of
from tests.durability.workload import Run, batches
from tests.journal.faulty import FaultyDisk, FaultyFiles, Operation
from tests.journal.support import KEY, Talk, talk
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Command
from zmesh.testing.journal_content import JournalContent

WORK = batches(rounds=3)
PARTS = 4  # of the operations: tests that workers share, and none of which takes long


def cut_at(disk: FaultyDisk, stop: int) -> None:
    """Have the power go at an operation, counted from now."""
    stop += len(disk.operations)

    def fail(_: Operation) -> str | None:
        if len(disk.operations) > stop:
            disk.cut()
            return "cut"
        return None

    disk.fail = fail


def run_on(
    disk: FaultyDisk,
    work: Sequence[tuple[Command, ...]],
    model: JournalContent | None = None,
    key: StorageKey | None = None,
) -> Run:
    files = FaultyFiles(disk.place / "journal", disk)
    run = Run(Talk(disk.place / "journal", files, key=key), work, model)
    run.go()
    return run


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_everything_that_was_acknowledged_survives_a_power_cut_at_any_operation(
    place: Path, key: StorageKey | None, part: int
) -> None:
    chance = random.Random(7 + part)
    incarnations = set()
    stop = part - PARTS
    while True:
        stop += PARTS
        source, target = place / f"run-{stop}", place / f"after-{stop}"
        source.mkdir()
        target.mkdir()
        disk = FaultyDisk(source)
        cut_at(disk, stop)
        run = run_on(disk, WORK, key=key)
        was_cut = disk.is_cut
        disk.power_cut(chance, target)
        run.talk.close()
        disk.close()
        with talk(target / "journal", key=key) as (speaking, opened):
            assert opened.rescue is None, (stop, opened.rescue)
            run.held_by(content_of(speaking, opened))
            if run.opened is not None:
                assert opened.identity.journal == run.opened.identity.journal
                assert opened.identity.incarnation > run.opened.identity.incarnation
            incarnations.add(opened.identity.incarnation)
        if not was_cut:
            break
    assert stop > 100  # operations there were
    assert incarnations == {1, 2}


@pytest.mark.parametrize("seed", range(6))
def test_everything_survives_power_cuts_in_life_after_life(place: Path, seed: int) -> None:
    chance = random.Random(seed)
    model = JournalContent()
    source = place / "0"
    source.mkdir()
    incarnation = lives = 0
    for life in range(12):
        disk = FaultyDisk(source)
        for path in source.iterdir():
            disk.durable[str(path)] = bytearray(path.read_bytes())
        cut_at(disk, chance.randrange(5, 200))
        run = run_on(disk, batches(seed, rounds=8, start=life * 8), model)
        if run.opened is not None:
            assert run.opened.rescue is None
            assert run.opened.identity.incarnation > incarnation
            incarnation = run.opened.identity.incarnation
            lives += 1
        source = place / str(life + 1)
        source.mkdir()
        disk.power_cut(chance, source)
        run.talk.close()
        disk.close()
        with talk(source / "journal") as (speaking, opened):
            assert opened.rescue is None
            model = run.held_by(content_of(speaking, opened))
            incarnation = opened.identity.incarnation
    assert lives > 8
    assert content_in(model)["rows"]


def test_normal_synchronous_loses_the_last_commits_at_most(place: Path) -> None:
    chance = random.Random(3)
    lost = 0
    for number in range(30):
        source, target = place / f"run-{number}", place / f"after-{number}"
        source.mkdir()
        target.mkdir()
        disk = FaultyDisk(source)
        cut_at(disk, chance.randrange(200, 700))
        files = FaultyFiles(source / "journal", disk)
        speaking = Talk(source / "journal", files, synchronous="normal")
        run = Run(speaking, batches(rounds=5))
        run.go()
        disk.power_cut(chance, target)
        speaking.close()
        disk.close()
        assert run.opened is not None
        with talk(target / "journal") as (again, opened):
            assert opened.rescue is None
            assert opened.identity.journal == run.opened.identity.journal
            content = content_of(again, opened)
            possible = [content_in(model) for model in (*run.history, *run.models)]
            lost += len(run.history) - 1 > possible.index(content)
    assert lost > 3  # it is no "full"


def test_new_incarnation_is_synced_whatever_is_asked_of_commits(place: Path) -> None:
    for life in range(1, 6):
        disk = FaultyDisk(place)
        for path in place.iterdir():
            disk.durable[str(path)] = bytearray(path.read_bytes())
        files = FaultyFiles(place / "journal", disk)
        speaking = Talk(place / "journal", files, synchronous="normal")
        assert speaking.open().identity.incarnation == life
        speaking.write(batches(rounds=1)[1][1])  # a watermark: not synced
        disk.cut()
        speaking.close()
        for name, content in disk.durable.items():
            Path(name).write_bytes(content)  # nothing else came to the disk
        disk.close()
