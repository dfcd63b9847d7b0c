"""Bits flip and files lose their ends: it is seen, or does no harm, and the rest is rescued."""

from pathlib import Path

import pytest

from tests.durability.damage import Bases, Verdicts, judge
from tests.durability.model import content_of
from tests.journal.faulty import FaultyDisk, FaultyFiles
from tests.journal.support import BOX, KEY, OUT, Talk, record, run, store, talk
from zmesh.security.storage_key import StorageKey
from zmesh.storage import Forget, ReadRows, RowsRead


@pytest.fixture
def bases(place: Path) -> Bases:
    built = Bases(place / "bases")
    built.build()
    return built


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_no_damage_goes_unnoticed(place: Path, key: StorageKey | None) -> None:
    bases = Bases(place / "bases", key=key)
    bases.build()
    verdicts = Verdicts()
    for number in range(200):
        judge(bases, number, verdicts, place)
    assert not verdicts.silent, "\n".join(verdicts.silent)
    assert verdicts.counts["harmless"] > 20
    assert verdicts.counts["rescued"] > 40
    assert verdicts.counts["late, rescued"] > 40
    assert sum(verdicts.counts.values()) == 200
    assert verdicts.rescued > 0.8 * verdicts.rows


def test_a_flipped_bit_in_a_body_costs_that_row_alone(bases: Bases) -> None:
    path = bases.place / "closed" / "journal"
    data = bytearray(path.read_bytes())
    kept = bases.model.answer(ReadRows(OUT, count_max=10_000))
    assert isinstance(kept, RowsRead)
    wanted = {each.row.position: each.row for each in kept.rows}
    body = wanted[1015].record[2]
    data[data.index(body) + 5] ^= 1
    path.write_bytes(data)
    speaking = Talk(path)
    speaking.open()
    with pytest.raises(AssertionError, match="is damaged"):
        speaking.rows(OUT)
    speaking.close()
    with talk(path) as (speaking, opened):
        rescue = opened.rescue
        assert rescue is not None
        assert (rescue.rows_lost, rescue.entries_lost, rescue.streams_lost) == (1, 0, 0)
        assert not rescue.is_identity_lost
        assert opened.identity.node == b"n" * 16
        assert opened.identity.incarnation > 1 << 20
        found = {each.row.position: each.row for each in speaking.rows(OUT)}
        assert found == {each: row for each, row in wanted.items() if each != 1015}
    with talk(path) as (_, opened):
        assert opened.rescue is None  # it was told once


def test_a_flipped_bit_in_a_block_costs_that_block_alone(place: Path) -> None:
    with talk(place / "journal") as (speaking, _):
        speaking.write(store(1, 3), run(1, 300), Forget(BOX, ((10, 19),)))
    path = place / "journal"
    data = bytearray(path.read_bytes())
    data[data.index(record(200)[2]) + 5] ^= 1
    path.write_bytes(data)
    speaking = Talk(path)
    speaking.open()
    with pytest.raises(AssertionError, match="is damaged"):
        speaking.rows(BOX)
    speaking.close()
    with talk(path) as (speaking, opened):
        assert opened.rescue is not None
        assert (opened.rescue.rows, opened.rescue.rows_lost) == (3 + 162, 128)
        assert speaking.positions(BOX) == [*range(1, 10), *range(20, 129), *range(257, 301)]


@pytest.mark.parametrize("what", ["cut", "fault"])
def test_rescue_that_is_interrupted_is_done_again(place: Path, what: str) -> None:
    bases = Bases(place / "bases", rounds=1)
    bases.build()
    source = bases.place / "killed"
    data = bytearray((source / "journal").read_bytes())
    data[4096 * 3 + 100 : 4096 * 6] = bytes(4096 * 3 - 100)
    (source / "journal").write_bytes(data)
    with talk(source / "journal") as (speaking, opened):
        assert opened.rescue is not None
        wanted = content_of(speaking, opened)
    aside = source / "journal.damaged-1"
    stop, opens = -1, 0
    while opens < 2:
        stop += 1
        target = place / f"{what}-{stop}"
        target.mkdir()
        (target / "journal").write_bytes(data)
        (target / "journal-wal").write_bytes(aside.with_name(aside.name + "-wal").read_bytes())
        (target / "journal.lock").write_bytes((source / "journal.lock").read_bytes())
        disk = FaultyDisk(target)

        def fail(_: object, disk: FaultyDisk = disk, stop: int = stop) -> str | None:
            if len(disk.operations) == stop + 1:
                disk.is_cut = what == "cut"
                return "cut"
            return None

        disk.fail = fail
        speaking = Talk(target / "journal", FaultyFiles(target / "journal", disk))
        speaking.journal.open()
        was_rescued = getattr(speaking.news.get(timeout=20), "rescue", None) is not None
        opens += was_rescued and len(disk.operations) <= stop
        speaking.close()
        disk.close()
        with talk(target / "journal") as (speaking, opened):
            assert was_rescued or opened.rescue is not None or _has_aside(target), stop
            assert content_of(speaking, opened) == wanted, stop
        # Whole, wherever it stopped.
        assert (target / "journal.damaged-1").read_bytes() == bytes(data)
        assert (target / "journal.damaged-1-wal").exists()
    assert stop > 20


def _has_aside(target: Path) -> bool:
    return (target / "journal.damaged-1").exists()
