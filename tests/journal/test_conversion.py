"""A journal encrypted, decrypted, under another key: all of it, or as it was."""

import errno
import os
from contextlib import closing
from pathlib import Path

import pytest

from tests.durability.model import content_of
from tests.durability.workload import batches
from tests.journal.support import KEY, Talk, store, talk
from tests.journal.test_encrypted import OTHER, check, fill, refusal, spoil
from zmesh.cli.main import main
from zmesh.journal import tools
from zmesh.journal.conversion import convert
from zmesh.journal.files import Files
from zmesh.security.storage_key import StorageKey
from zmesh.storage_errors import (
    JournalCorrupted,
    JournalLocked,
    NoJournal,
    StorageKeyMissing,
    StorageKeyWrong,
    StorageNotEncrypted,
)


def content(path: Path, key: StorageKey | None) -> tuple[object, ...]:
    with talk(path, key=key) as (speaking, opened):
        assert opened.rescue is None
        identity = opened.identity
        return content_of(speaking, opened), identity.node, identity.journal, identity.seed


def test_content_and_identity_are_the_same_under_every_key(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        for commands in batches(3, rounds=4):
            speaking.write(*commands)
    wanted, commits = content(path, None), tools.status(path).commits
    steps: list[tuple[StorageKey | None, StorageKey | None]] = [
        (None, KEY), (KEY, OTHER), (OTHER, KEY), (KEY, None), (None, None),
    ]  # fmt: skip
    for old, new in steps:
        assert convert(path, old, new) == path.stat().st_size
        assert tools.verify(path, new) == []
        assert tools.status(path).key == (None if new is None else new.fingerprint)
        assert content(path, new) == wanted
        assert tools.status(path).commits > commits
        assert path.stat().st_mode & 0o777 == 0o600
        assert not list(tmp_path.glob("*.new"))


def test_what_is_encrypted_then_is_not_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    fill(path, key=None)
    assert b"hidden" in path.read_bytes()
    convert(path, None, KEY)
    for each in tmp_path.iterdir():
        assert b"hidden" not in each.read_bytes()
    check(path)


def test_wrong_keys_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    path, plain = tmp_path / "journal", tmp_path / "plain"
    fill(path)
    fill(plain, key=None)
    before = path.read_bytes(), plain.read_bytes()
    with pytest.raises(StorageKeyMissing):
        convert(path, None, OTHER)
    with pytest.raises(StorageKeyWrong):
        convert(path, OTHER, None)
    with pytest.raises(StorageNotEncrypted):
        convert(plain, KEY, OTHER)
    with pytest.raises(NoJournal):
        convert(tmp_path / "none", KEY, OTHER)
    with talk(path, key=KEY), pytest.raises(JournalLocked):
        convert(path, KEY, OTHER)
    spoil(plain)
    with pytest.raises(JournalCorrupted):
        convert(plain, None, KEY)
    assert before[0] != b""
    check(path)


def test_somebody_who_reads_is_not_given_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.journal.files.BUSY_TIMEOUT_S", 0.2)
    path = tmp_path / "journal"
    fill(path)
    with closing(Files(path).connect(read_only=True)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM messages").fetchone()
        with pytest.raises(JournalLocked):
            convert(path, KEY, OTHER)
        assert not (tmp_path / "journal.new").exists()
    check(path)
    convert(path, KEY, OTHER)
    check(path, OTHER)


@pytest.mark.parametrize("step", ["sync", "rename", "sync_names"])
def test_step_that_fails_leaves_one_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "journal"
    fill(path)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(Files, step, fail)
        with pytest.raises(Exception, match="could not be converted"):
            convert(path, KEY, OTHER)
    check(path, OTHER if step == "sync_names" else KEY)


def test_what_a_killed_conversion_leaves_in_the_clear_goes_with_the_next_life(
    tmp_path: Path,
) -> None:
    path = tmp_path / "journal"
    fill(path)
    for suffix in (".new", ".new-journal"):
        (tmp_path / f"journal{suffix}").write_bytes(b"hidden")
    assert isinstance(refusal(path, OTHER), StorageKeyWrong)  # which touches nothing
    assert len(list(tmp_path.glob("*.new*"))) == 2
    check(path)
    assert list(tmp_path.glob("*.new*")) == []
    for each in tmp_path.iterdir():
        assert b"hidden" not in each.read_bytes()


def test_log_of_a_writer_that_was_killed_is_part_of_it(tmp_path: Path) -> None:
    living = Talk(tmp_path / "living")
    living.open()
    living.write(store(1, 20))
    for suffix in ("", "-wal", ".lock"):
        (tmp_path / f"journal{suffix}").write_bytes((tmp_path / f"living{suffix}").read_bytes())
    living.close()
    convert(tmp_path / "journal", None, KEY)
    assert not (tmp_path / "journal-wal").exists()
    with talk(tmp_path / "journal", key=KEY) as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == list(range(1, 21))


def test_commands_take_keys_from_files_and_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = tmp_path / "journal", tmp_path / "new.key"
    fill(path, key=None)
    monkeypatch.delenv("ZMESH_STORAGE_KEY", raising=False)
    assert main(["journal", "encrypt", str(path)]) != 0
    assert "ZMESH_STORAGE_KEY" in capsys.readouterr().err
    monkeypatch.setenv("ZMESH_STORAGE_KEY", KEY.text)
    assert main(["journal", "encrypt", str(path)]) == 0
    out = capsys.readouterr().out
    assert KEY.fingerprint in out
    assert KEY.text not in out
    file.write_text(f"# the next\n{OTHER.text}\n")
    file.chmod(0o644)
    command = ["journal", "rekey", str(path), "--new-key-file", str(file), "--json"]
    assert main(command) != 0
    assert "chmod 600" in capsys.readouterr().err
    file.chmod(0o600)
    assert main(command) == 0
    assert isinstance(refusal(path, KEY), StorageKeyWrong)
    check(path, OTHER)
    monkeypatch.setenv("ZMESH_STORAGE_KEY", OTHER.text)
    assert main(["journal", "verify", str(path)]) == 0
    assert main(["journal", "decrypt", str(path)]) == 0
    check(path, None)
    assert main(["journal", "verify", str(path)]) == 0  # the key in the environment is no matter
