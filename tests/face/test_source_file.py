"""A file being sent: read in order, begun in the middle, and found out when it changes."""

import os
from hashlib import blake2b
from pathlib import Path

import pytest

import zmesh
from zmesh.face.source_file import SourceFile

DATA = bytes(range(256)) * 8


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "a"
    found.write_bytes(DATA)
    return found


def read_all(file: SourceFile) -> bytes:
    data = b""
    while pieces := file.read(100, 350):
        assert [len(piece) for piece in pieces][:3] in (
            [100] * 3,
            [len(piece) for piece in pieces],
        )
        data += b"".join(pieces)
    return data


def test_it_is_read_in_pieces_to_its_end(path: Path) -> None:
    file = SourceFile(path)
    file.open()
    assert file.size == len(DATA)
    assert file.begin(0, b"") == 0
    assert read_all(file) == DATA
    assert file.finish() == digest(DATA)
    file.close()
    file.close()


def test_it_begins_in_the_middle_where_the_rest_is_the_same(path: Path) -> None:
    file = SourceFile(path)
    file.open()
    assert file.begin(300, digest(DATA[:300])) == 300
    assert read_all(file) == DATA[300:]
    assert file.finish() == digest(DATA)
    assert file.begin(300, digest(b"another")) == 0
    assert file.begin(len(DATA) + 1, digest(DATA)) == 0
    assert file.begin(-1, digest(b"")) == 0
    assert read_all(file) == DATA
    file.close()


def test_a_change_is_found(path: Path) -> None:
    file = SourceFile(path)
    file.open()
    file.begin(0, b"")
    read_all(file)
    with path.open("ab") as more:
        more.write(b"more")
    with pytest.raises(zmesh.FileChanged):
        file.finish()
    file.close()


def test_a_file_that_was_cut_short_has_changed(path: Path) -> None:
    file = SourceFile(path)
    file.open()
    file.begin(0, b"")
    os.truncate(path, 100)
    with pytest.raises(zmesh.FileChanged):
        read_all(file)
    file.close()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        file = SourceFile(path)
        with pytest.raises(zmesh.InvalidOption, match="a regular file"):
            file.open()
        file.close()
    with pytest.raises(FileNotFoundError):
        SourceFile(tmp_path / "none").open()


def test_who_gave_up_opens_nothing(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    file = SourceFile(path)
    file.give_up()
    file.close()
    file.open()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
