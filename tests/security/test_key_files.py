"""Key files: what is read, what is refused and why, and what is never half written."""

import os
import stat
from pathlib import Path

import pytest

from zmesh.face.system import SystemEntropy
from zmesh.security.key_files import (
    FILE_BYTES_MAX,
    KEYS_MAX,
    check_place,
    create_key_file,
    default_key_file,
    read_key_file,
    replace_key_file,
    stamp_of,
    text_of,
)
from zmesh.security.mesh_key import MeshKey
from zmesh.security_errors import InvalidKey, KeyFileError, KeyFileExposed, NoKeyFile

FIRST, SECOND = (MeshKey.new(SystemEntropy()) for _ in range(2))


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_what_is_created_is_for_its_owner_alone_and_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.key"
    create_key_file(path, text_of([FIRST, SECOND], "the mesh a"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert read_key_file(path).keys == (FIRST, SECOND)


def test_key_file_is_created_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "a.key", text_of([FIRST], "x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600


def test_comments_empty_lines_spaces_and_repetitions_mean_nothing(tmp_path: Path) -> None:
    text = f"# cameras\n\n  {FIRST.text}  # since March\n{SECOND.text}\r\n{FIRST.text}\n"
    assert read_key_file(written(tmp_path / "a.key", text)).keys == (FIRST, SECOND)


def test_file_that_only_its_owner_reads_is_taken(tmp_path: Path) -> None:
    assert read_key_file(written(tmp_path / "a.key", FIRST.text, 0o400)).keys == (FIRST,)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o660])
def test_file_that_others_get_at_is_refused_with_what_to_run(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "a.key", FIRST.text, mode)
    with pytest.raises(
        KeyFileExposed, match=rf"mode 0{mode:o}\): run `chmod 600 .*a\.key`"
    ) as told:
        read_key_file(path)
    assert (told.value.path, told.value.mode) == (str(path), mode)
    assert FIRST.text not in str(told.value)


def test_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(NoKeyFile, match=r"none\.key is not there.*zmesh keys new"):
        read_key_file(tmp_path / "none.key")


def test_directory_pipe_and_link_to_nowhere_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="is a directory and no file"):
        read_key_file(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="is a device or pipe and no file"):
        read_key_file(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(NoKeyFile):
        read_key_file(tmp_path / "link")
    with pytest.raises(KeyFileError, match="cannot be read: Not a directory"):
        read_key_file(written(tmp_path / "file", "x") / "a.key")
    with pytest.raises(KeyFileError, match=r"cannot be read: .*null"):
        read_key_file(tmp_path / "a\x00b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_file_without_permission_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="cannot be read: Permission denied"):
        read_key_file(written(tmp_path / "a.key", FIRST.text, 0o000))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but words\n"])
def test_file_without_a_key_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(KeyFileError, match=r"a\.key holds no key"):
        read_key_file(written(tmp_path / "a.key", text))


def test_line_that_is_no_key_is_named_and_not_repeated(tmp_path: Path) -> None:
    mistyped = FIRST.text[:-1] + ("A" if FIRST.text[-1] != "A" else "B")
    path = written(tmp_path / "a.key", f"# words\n{SECOND.text}\n{mistyped}\n")
    with pytest.raises(InvalidKey, match=r"a\.key line 3 is no valid key.*checksum") as told:
        read_key_file(path)
    assert mistyped not in str(told.value)


def test_what_is_no_text_or_too_large_is_no_key_file(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.touch(0o600)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeyFileError, match="is no text"):
        read_key_file(path)
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(KeyFileError, match="over 65,536 bytes"):
        read_key_file(path)


def test_more_keys_than_a_dial_tries_are_refused(tmp_path: Path) -> None:
    keys = [MeshKey.new(SystemEntropy()) for _ in range(KEYS_MAX + 1)]
    path = written(tmp_path / "a.key", text_of(keys[:-1], "many"))
    assert len(read_key_file(path).keys) == KEYS_MAX
    with pytest.raises(KeyFileError, match="holds 9 keys, and at most 8 may be"):
        read_key_file(written(path, text_of(keys, "too many")))


def test_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    path = written(tmp_path / "a.key", FIRST.text)
    with pytest.raises(KeyFileError, match="is there already"):
        create_key_file(path, SECOND.text)
    assert path.read_text() == FIRST.text


def test_directories_that_are_made_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_key_file(tmp_path / "config" / "zmesh" / "a.key", FIRST.text)
    finally:
        os.umask(before)
    for each in (tmp_path / "config", tmp_path / "config" / "zmesh"):
        assert stat.S_IMODE(each.stat().st_mode) == 0o700


def test_file_has_its_name_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"
    synced = []

    def sync(_: int) -> None:
        synced.append(path.exists())

    monkeypatch.setattr(os, "fsync", sync)
    create_key_file(path, FIRST.text)
    assert synced == [False, True]  # what is in it, and then its name
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_file_whose_name_is_not_on_disk_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.key"

    def fail_second(_: int) -> None:
        if path.exists():
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_second)
    with pytest.raises(KeyFileError, match="Input/output error"):
        create_key_file(path, FIRST.text)
    assert list(tmp_path.iterdir()) == []


def test_file_system_without_links_has_key_files_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.key"
    create_key_file(path, FIRST.text)
    assert read_key_file(path).keys == (FIRST,)
    with pytest.raises(KeyFileError, match="is there already"):
        create_key_file(path, SECOND.text)
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]


def test_place_where_nothing_can_be_kept_is_told_before(tmp_path: Path) -> None:
    check_place(tmp_path / "new" / "a.key")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "there").symlink_to("nowhere")
    with pytest.raises(KeyFileError, match="is there already"):
        check_place(tmp_path / "there")
    for place in (written(tmp_path / "file", "x") / "a.key", tmp_path / ("a" * 256)):
        with pytest.raises(KeyFileError, match="cannot be written"):
            check_place(place)


def test_replaced_file_keeps_its_words_its_mode_and_the_link_to_it(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    create_key_file(path, f"# old\n{FIRST.text}\n# end\n")
    link = tmp_path / "link"
    link.symlink_to(path)
    before = read_key_file(link)
    replace_key_file(link, before.with_keys([SECOND, FIRST]))
    assert path.read_text() == f"# old\n{SECOND.text}\n# end\n{FIRST.text}\n"
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stamp_of(path) != before.stamp
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.key", "link"]
    replace_key_file(path, read_key_file(path).with_keys([FIRST]))
    assert path.read_text() == f"# old\n{FIRST.text}\n# end\n"


def test_file_that_cannot_be_replaced_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.key", FIRST.text)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KeyFileError, match="cannot be written: No space left on device"):
        replace_key_file(path, SECOND.text)
    assert path.read_text() == FIRST.text
    assert [each.name for each in tmp_path.iterdir()] == ["a.key"]
    with pytest.raises(KeyFileError, match="No space left"):
        create_key_file(tmp_path / "b.key", SECOND.text)
    assert not (tmp_path / "b.key").exists()


@pytest.mark.parametrize(
    ("mesh", "name"),
    [("default", "default.key"), ("a/b", "a%2Fb.key"), ("..", "...key"), ("50%", "50%25.key")],
)
def test_each_mesh_has_a_file_of_its_own_in_one_directory(mesh: str, name: str) -> None:
    told = {"XDG_CONFIG_HOME": "/etc/xdg", "HOME": "/home/ada"}
    assert default_key_file(mesh, told) == Path("/etc/xdg/zmesh") / name


@pytest.mark.parametrize("told", ["", "relative/path"])
def test_configuration_is_in_the_home_directory_by_default(told: str) -> None:
    environment = {"XDG_CONFIG_HOME": told, "HOME": "/home/ada"}
    assert default_key_file("m", environment) == Path("/home/ada/.config/zmesh/m.key")


def test_nothing_is_looked_for_where_no_home_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", homeless)
    assert default_key_file("m", {}) is None


def test_stamp_of_what_cannot_be_looked_at_is_none(tmp_path: Path) -> None:
    assert stamp_of(tmp_path / "none") is None
