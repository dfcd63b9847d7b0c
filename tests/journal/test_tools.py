"""What can be done with a journal without its node, and beside it."""

import errno
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.support import IN, OUT, Unexpected, store, talk
from zmesh.cli.main import main
from zmesh.journal import tools
from zmesh.journal.faults import told
from zmesh.storage import DEAD_LETTERS, Entry, EntryKind, Forget, SetEntries
from zmesh.storage_errors import JournalCorrupted, JournalLocked, NoJournal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with something in it, and much that was."""
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        speaking.write(
            store(1, 40), store(1, 3, IN), store(1, 2, DEAD_LETTERS),
            SetEntries((Entry(EntryKind.RETAINED, "topic", b"", b"value"),)),
        )  # fmt: skip
        speaking.write(store(41, 60, size=20_000))
        speaking.write(Forget(OUT, ((31, 60),)))
    return path


def spoil(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE messages SET ordinal = 9 WHERE place = (16 << 44) + 3")
        database.commit()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["journal", *map(str, arguments)])
    out, error = capsys.readouterr()
    return code, out, error


def test_status_tells_what_is_there(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", path, "--json")
    assert code == 0
    (line,) = out.splitlines()
    told = json.loads(line)
    assert told["rows"] == {"lane_out": 30, "lane_in": 3, "dead_letters": 2}
    assert told["entries"] == {"retained": 1}
    assert (told["dead_letters"], told["streams"], told["incarnation"]) == (2, 3, 1)
    assert (told["in_use"], told["in_use_by"], told["version"]) == (False, None, 3)
    assert told["node"] == (b"n" * 16).hex()
    assert told["file_bytes"] == path.stat().st_size
    assert told["used_bytes"] + told["free_bytes"] <= told["file_bytes"]
    assert told["set_aside"] == []
    assert b"seed".hex() not in line
    code, out, _ = run(capsys, "status", path)
    assert "30 lane_out, 3 lane_in, 2 dead_letters" in out


def test_status_and_verify_and_backup_work_beside_the_node(path: Path, tmp_path: Path) -> None:
    with talk(path) as (speaking, _):
        speaking.write(store(61, 70))
        told = tools.status(path)
        assert told.in_use
        assert told.in_use_by is not None
        assert told.rows["lane_out"] == 40
        assert told.log_bytes > 0
        assert tools.verify(path) == []
        tools.backup(path, tmp_path / "copy")
        with pytest.raises(JournalLocked):
            tools.compact(path)
        speaking.write(store(71, 80))
    assert tools.status(tmp_path / "copy").rows["lane_out"] == 40


def test_verify_names_what_is_damaged(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "verify", path) == (0, f"{path} is sound\n", "")
    spoil(path)
    code, out, _ = run(capsys, "verify", path, "--json")
    assert code == 1
    told = json.loads(out)
    assert told["sound"] is False
    assert told["problems"] == [f"a message at {(16 << 44) + 3} is not what was written"]
    code, out, _ = run(capsys, "verify", path)
    assert code == 1
    assert "is not what was written" in out


def test_verify_sees_commits_that_are_gone(path: Path) -> None:
    before = path.read_bytes()
    with talk(path) as (speaking, _):
        speaking.write(store(61, 61))
    path.write_bytes(before)
    assert any("commits are there" in problem for problem in tools.verify(path))


def test_looking_changes_nothing(path: Path) -> None:
    before = path.read_bytes()
    tools.status(path)
    tools.verify(path)
    assert path.read_bytes() == before
    assert tools.status(path).incarnation == 1


def test_compact_gives_space_back(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE filler (body BLOB)")
        database.execute("INSERT INTO filler VALUES (zeroblob(1000000))")
        database.execute("DROP TABLE filler")
        database.commit()
    code, out, _ = run(capsys, "compact", path, "--json")
    assert code == 0
    told = json.loads(out)
    assert told["before"] > told["after"] + 900_000
    assert told["after"] == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    with talk(path) as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == list(range(1, 31))


def test_compact_leaves_a_damaged_one_to_be_rescued(path: Path) -> None:
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(JournalCorrupted):
        tools.compact(path)
    assert path.read_bytes() == before


def test_backup_by_command(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "backup", path, tmp_path / "copy", "--json")
    assert code == 0
    assert json.loads(out)["size"] == (tmp_path / "copy").stat().st_size
    code, _, error = run(capsys, "backup", path, tmp_path / "copy")
    assert code == 2
    assert "no file yet" in error


@pytest.mark.parametrize("verb", ["status", "verify", "compact"])
def test_what_is_no_journal_is_told(
    tmp_path: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, verb, tmp_path / "none")
    assert code == 2
    assert "there is no journal" in error
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("dear diary, " * 1000)
    for name in ("empty", "text"):
        code, out, error = run(capsys, verb, tmp_path / name)
        assert code == 1
        assert ("damaged" if name == "empty" else "no journal of zmesh") in error + out
    assert (tmp_path / "text").read_text() == "dear diary, " * 1000
    code, _, error = run(capsys, verb, tmp_path)
    assert code == 1
    assert "this is a directory" in error
    assert "writes nothing" not in error
    assert sorted(each.name for each in tmp_path.iterdir()) == ["empty", "text"]


def test_backup_needs_a_directory(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = run(capsys, "backup", path, tmp_path / "none" / "copy")
    assert code == 2
    assert "a path in a directory that is there" in error
    assert "start the node again" not in error


def test_tool_that_fails_does_not_tell_of_a_node() -> None:
    error = OSError(errno.EIO, "Input/output error")
    assert "start the node again" in str(told(error, Path("a"), "be read"))
    assert "the node" not in str(told(error, Path("a"), "be read", is_tool=True))


def test_another_file_is_refused_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "a.key").write_text("zmk1.abc\n" * 20)
    with pytest.raises(Unexpected, match="no journal of zmesh"), talk(tmp_path / "a.key"):
        pass
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_no_journal_to_be_copied(tmp_path: Path) -> None:
    with pytest.raises(NoJournal):
        tools.backup(tmp_path / "none", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
