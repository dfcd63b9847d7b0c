"""A file being received: what is there is taken up, and only the right bytes get in place."""

import errno
from hashlib import blake2b
from pathlib import Path

import pytest

from zmesh.face.partial_file import Corrupted, PartialFile

DATA = bytes(range(256)) * 8


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def part_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.zmesh-part")


def receive(target: Path, data: bytes, expected: tuple[int, bytes] = (0, digest(b""))) -> None:
    file = PartialFile(target, len(data))
    assert file.take()
    try:
        assert file.look() == expected
        file.begin(expected[0])
        assert file.write([data[expected[0] :]]) == len(data)
        file.finish(digest(data))
    finally:
        file.close()
    assert target.read_bytes() == data
    assert not part_of(target).exists()


def test_a_file_gets_in_its_place_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "a"
    file = PartialFile(target, len(DATA))
    assert file.take()
    assert file.look() == (0, digest(b""))
    file.begin(0)
    assert file.write([DATA[:10], memoryview(DATA)[10:20]]) == 20
    assert not target.exists()
    assert file.write([DATA[20:]]) == len(DATA)
    file.finish(digest(DATA))
    file.close()
    assert target.read_bytes() == DATA
    assert list(tmp_path.iterdir()) == [target]


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    receive(tmp_path / "a", b"")


def test_what_came_stays_and_is_taken_up(tmp_path: Path) -> None:
    target = tmp_path / "a"
    file = PartialFile(target, len(DATA))
    assert file.take()
    file.look()
    file.begin(0)
    file.write([DATA[:100]])
    file.close()
    assert part_of(target).read_bytes() == DATA[:100]
    receive(target, DATA, (100, digest(DATA[:100])))


def test_what_is_of_no_use_is_written_over(tmp_path: Path) -> None:
    target = tmp_path / "a"
    part_of(target).write_bytes(b"something else")
    file = PartialFile(target, len(DATA))
    assert file.take()
    assert file.look() == (14, digest(b"something else"))
    file.begin(0)
    file.write([DATA])
    file.finish(digest(DATA))
    file.close()
    assert target.read_bytes() == DATA


def test_a_part_that_is_longer_than_the_file_counts_for_nothing(tmp_path: Path) -> None:
    part_of(tmp_path / "a").write_bytes(DATA + b"more")
    receive(tmp_path / "a", DATA)


def test_nothing_is_left_of_nothing(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "a", 5)
    assert file.take()
    file.close()
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_the_very_file_need_not_come_again(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(DATA)
    inode = target.stat().st_ino
    receive(target, DATA, (len(DATA), digest(DATA)))
    assert target.stat().st_ino == inode


def test_another_file_of_the_same_size_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(DATA[::-1])
    file = PartialFile(target, len(DATA))
    assert file.take()
    assert file.look() == (len(DATA), digest(DATA[::-1]))
    file.begin(0)
    assert target.read_bytes() == DATA[::-1]
    file.write([DATA])
    file.finish(digest(DATA))
    file.close()
    assert target.read_bytes() == DATA


def test_a_wrong_digest_removes_what_came(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    file = PartialFile(target, len(DATA))
    assert file.take()
    file.look()
    file.begin(0)
    file.write([DATA[:-1] + b"!"])
    with pytest.raises(Corrupted):
        file.finish(digest(DATA))
    file.close()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_less_or_more_than_announced_is_no_file(tmp_path: Path) -> None:
    for data in (DATA[:-1], DATA + b"x"):
        file = PartialFile(tmp_path / "a", len(DATA))
        assert file.take()
        file.look()
        file.begin(0)
        with pytest.raises(Corrupted):
            file.finish(digest(data) if file.write([data]) else b"")
        file.close()
        assert list(tmp_path.iterdir()) == []


def test_it_begins_where_it_ended_or_anew(tmp_path: Path) -> None:
    part_of(tmp_path / "a").write_bytes(DATA[:100])
    file = PartialFile(tmp_path / "a", len(DATA))
    assert file.take()
    file.look()
    for offset in (-1, 50, 101):
        with pytest.raises(Corrupted):
            file.begin(offset)
    file.close()


def test_one_at_a_time_has_it(tmp_path: Path) -> None:
    one, other = PartialFile(tmp_path / "a", 5), PartialFile(tmp_path / "a", 5)
    assert one.take()
    assert not other.take()
    one.look()
    one.begin(0)
    one.write([b"12345"])
    one.finish(digest(b"12345"))
    one.close()
    assert other.take()
    assert other.look() == (5, digest(b"12345"))
    other.close()


def test_a_link_in_place_of_a_part_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    part_of(tmp_path / "a").symlink_to(victim)
    with pytest.raises(OSError, match="Too many levels"):
        PartialFile(tmp_path / "a", 5).take()
    assert victim.read_bytes() == b"keep"


def test_a_link_in_place_of_the_target_is_replaced(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"keep")
    (tmp_path / "a").symlink_to(victim)
    receive(tmp_path / "a", DATA)
    assert victim.read_bytes() == b"keep"
    assert not (tmp_path / "a").is_symlink()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        PartialFile(tmp_path / "a", 5).take()


def test_no_room_is_told_before_anything_comes(tmp_path: Path) -> None:
    file = PartialFile(tmp_path / "a", 1 << 60)
    assert file.take()
    with pytest.raises(OSError, match="space") as raised:
        file.look()
    assert raised.value.errno == errno.ENOSPC
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_who_gave_up_takes_hold_of_nothing(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    file = PartialFile(tmp_path / "a", 5)
    file.give_up()
    file.close()
    assert not file.take()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
