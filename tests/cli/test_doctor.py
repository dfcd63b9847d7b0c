"""`zmesh doctor`: each weakness is found, told with what to do, and gone once that is done."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.journal.support import talk
from zmesh.cli import checkup
from zmesh.cli.checkup import Finding, State
from zmesh.cli.main import main
from zmesh.face.system import SystemEntropy
from zmesh.security.key_files import create_key_file, text_of
from zmesh.security.mesh_key import MeshKey
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.storage_key import StorageKey

KEY, OTHER = (MeshKey.new(SystemEntropy()) for _ in range(2))
DAY = 86_400.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that only its owner reaches, for keys."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "zmesh"


def key_file(home: Path, name: str = "default", *keys: MeshKey) -> Path:
    path = home / f"{name}.key"
    create_key_file(path, text_of(keys or [KEY], name))
    return path


def weak(findings: list[Finding]) -> list[Finding]:
    return [each for each in findings if each.state is State.WEAK]


def looked(home: Path, *journals: Path, later: float = 0.0, **more: str) -> list[Finding]:
    told = {"XDG_CONFIG_HOME": str(home.parent), **more}
    return checkup.checkup("default", journals, told, time.time() + later)


def test_nothing_is_weak_where_there_is_nothing(home: Path) -> None:
    found = looked(home)
    assert weak(found) == []
    assert any("loopback only" in each.what for each in found)
    assert any("clocks need not agree" in each.what for each in found)


def test_key_in_a_private_file_is_well(home: Path) -> None:
    key_file(home)
    found = looked(home)
    assert weak(found) == []
    assert any(KEY.fingerprint in each.what for each in found)


def test_file_others_may_read_is_told_for_every_mesh(home: Path) -> None:
    key_file(home)
    exposed = key_file(home, "another mesh")
    exposed.chmod(0o640)
    [found] = weak(looked(home))
    assert found.check == f"key file {exposed}"
    assert "mode 0640" in found.what
    assert "chmod 600 '" in found.what
    exposed.chmod(0o600)
    assert weak(looked(home)) == []


def test_directory_others_may_write_to_is_told(home: Path) -> None:
    key_file(home)
    home.chmod(0o777)
    [found] = weak(looked(home))
    assert "may put another file in its place" in found.what
    assert found.todo == f"`chmod go-w {home}`"
    home.chmod(0o1777)
    assert weak(looked(home)) == []  # sticky: they may add files and not replace ours


def test_key_in_a_repository_is_told(home: Path) -> None:
    key_file(home)
    (home.parent / ".git").mkdir()
    [found] = weak(looked(home))
    assert "git work tree" in found.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_told(home: Path) -> None:
    os.chown(key_file(home), 12345, 0)
    [found] = weak(looked(home))
    assert "user 12345" in found.what


def test_key_in_the_environment_is_told(home: Path) -> None:
    [found] = weak(looked(home, ZMESH_KEY=KEY.text))
    assert "in the environment" in found.what
    assert KEY.text not in str(found)


def test_key_file_by_variable_is_looked_at_and_must_be_there(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.key"
    missing = weak(looked(home, ZMESH_KEY_FILE=str(path)))
    assert len(missing) == 2
    assert all("is not there" in each.what for each in missing)
    create_key_file(path, text_of([KEY], "x"))
    found = looked(home, ZMESH_KEY_FILE=str(path))
    assert weak(found) == []
    assert any(each.check == f"key file {path}" for each in found)


def test_rotation_left_half_done_is_told_after_a_day(home: Path) -> None:
    path = key_file(home, "default", KEY, OTHER)
    assert weak(looked(home)) == []
    [found] = [each for each in looked(home) if each.state is State.OPEN]
    assert "a rotation is under way" in found.what
    assert found.todo.endswith(f"`zmesh keys rotate {path} promote`")
    [found] = weak(looked(home, later=3 * DAY + 60))
    assert "half done 3 days ago" in found.what
    assert found.todo == f"`zmesh keys rotate {path} promote`"


@pytest.mark.parametrize(
    ("variable", "value", "what"),
    [
        ("ZMESH_KEYFILE", "x", "ZMESH_KEYFILE means nothing"),
        ("ZMESH_MESH", "a\nb", "no text of printable characters"),
        ("ZMESH_PEERS", "10.0.0.1", "ZMESH_PEERS"),
        ("ZMESH_SEEDS", "a:b:c", "ZMESH_SEEDS"),
    ],
)
def test_odd_variable_is_told(home: Path, variable: str, value: str, what: str) -> None:
    [found] = weak(looked(home, later=0.0, **{variable: value}))
    assert what in found.what


def test_variables_that_hide_each_other_or_are_mixed_up_are_told(
    home: Path, tmp_path: Path
) -> None:
    create_key_file(tmp_path / "a.key", text_of([KEY], "x"))
    both = weak(looked(home, ZMESH_KEY=KEY.text, ZMESH_KEY_FILE=str(tmp_path / "a.key")))
    assert any("both set" in each.what for each in both)
    mixed = weak(looked(home, ZMESH_KEY_FILE=KEY.text))
    assert any("has a key and no path" in each.what for each in mixed)


def test_journal_and_its_siblings_that_others_may_read_are_told(
    home: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "node"
    parts = [tmp_path / f"node{suffix}" for suffix in ("", "-wal", ".lock", ".damaged-1")]
    for each in parts:
        each.touch(0o600)
    (tmp_path / "nodes").touch(0o644)  # of somebody else
    found = looked(home, journal)
    assert weak(found) == []
    assert any("its 4 files" in each.what for each in found)
    for each in parts[1:3]:
        each.chmod(0o644)
    assert [each.todo for each in weak(looked(home, journal))] == [
        f"`chmod 600 {each}`" for each in sorted(parts[1:3])
    ]
    assert "is not there" in weak(looked(home, tmp_path / "none"))[0].what


@pytest.mark.parametrize("suffix", ["", ".app", ".app-wal", ".damaged-1"])
@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_no_part_of_a_journal_is_for_others(
    home: Path, tmp_path: Path, suffix: str, mode: int
) -> None:
    journal = tmp_path / "a [1]"  # which would be a pattern
    journal.touch(0o600)
    part = tmp_path / f"{journal.name}{suffix}"
    part.touch(0o600)
    assert weak(looked(home, journal)) == []
    part.chmod(mode)
    [found] = weak(looked(home, journal))
    assert found.todo == f"`chmod 600 '{part}'`"


def test_storage_keys_in_the_environment_are_told(home: Path) -> None:
    key = StorageKey.new(SystemEntropy())
    well = looked(home, ZMESH_STORAGE_KEY=key.text)
    assert weak(well) == []  # it is one of the two ways there are
    [found] = [each for each in well if each.check == "storage key"]
    assert f"the one with the fingerprint {key.fingerprint} is in the environment" in found.what
    assert key.text not in str(found)
    [found] = weak(looked(home, ZMESH_STORAGE_KEY=key.text[:-3]))
    assert "checksum is wrong" in found.what
    assert key.text[:-3] not in str(found)
    [found] = weak(looked(home, ZMESH_STORAGE_KEY_NEW=key.text))
    assert "journal rekey" in found.what
    assert weak(looked(home, ZMESH_STORAGE_KEY="", ZMESH_STORAGE_KEY_NEW="")) == []


def told(findings: list[Finding], check: Path, kind: str = "journal") -> list[str]:
    return [each.what for each in findings if each.check == f"{kind} {check}"]


def test_whether_a_journal_is_encrypted_is_told(home: Path, tmp_path: Path) -> None:
    key = StorageKey.new(SystemEntropy())
    plain, sealed, damaged = (tmp_path / name for name in ("plain", "sealed", "damaged"))
    with talk(plain):
        pass
    with talk(sealed, key=key):
        pass
    with talk(damaged):
        pass
    damaged.write_bytes(b"")
    found = looked(home, plain, sealed)
    assert weak(found) == []
    assert any("is not encrypted" in each for each in told(found, plain))
    assert any(f"fingerprint {key.fingerprint}" in each for each in told(found, sealed))
    [found_weak] = weak(looked(home, damaged))
    assert "there is nothing in the file" in found_weak.what


def test_what_is_no_journal_is_weak(home: Path, tmp_path: Path) -> None:
    assert "it is no file" in weak(looked(home, tmp_path))[0].what
    (tmp_path / "text").touch(0o600)
    found = looked(home, tmp_path / "text")
    assert weak(found) == []
    assert any("no node has opened it yet" in each for each in told(found, tmp_path / "text"))
    (tmp_path / "text").write_text("dear diary, " * 100)
    assert "no journal of zmesh" in weak(looked(home, tmp_path / "text"))[0].what


def test_directory_of_trust_is_looked_at(home: Path, tmp_path: Path) -> None:
    place = tmp_path / "trust"

    def found() -> list[Finding]:
        environment = {"XDG_CONFIG_HOME": str(home.parent)}
        return checkup.checkup("default", (), environment, trusts=[place])

    assert "it cannot be listed" in weak(found())[0].what
    public = to_text(NodeKey.of(bytes(32)).public)
    assert main(["trust", "add", str(place), "camera", public]) == 0
    assert weak(found()) == []
    assert told(found(), place, "trust") == [
        "1 keys are trusted, 0 revoked; without rules.toml they may do everything"
    ]
    (place / "rules.toml").write_text("default = 3\n")
    assert "rules.toml" in weak(found())[0].what
    (place / "rules.toml").unlink()
    (place / "door.pub").write_text("no key\n")
    assert "door.pub" in weak(found())[0].what
    (place / "door.pub").unlink()
    place.chmod(0o777)
    assert "everybody on this machine may write it" in weak(found())[0].what


def test_key_of_another_mesh_is_pointed_at(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = key_file(home, "cameras")
    assert any(f"there is {other}, for another mesh" in each.what for each in looked(home))
    assert main(["keys", "show", "--mesh", "default"]) == 1
    assert f"there is {other}, for another mesh" in capsys.readouterr().out


def test_relative_place_of_keys_is_told() -> None:
    [found] = checkup.variables({"XDG_CONFIG_HOME": "config"})
    assert found.state is State.WEAK
    assert "no absolute path" in found.what
    [found] = checkup.variables({"XDG_CONFIG_HOME": "/config"})
    assert found.state is State.WELL


def test_library_without_curve_or_of_another_age_is_told() -> None:
    assert checkup.libzmq(has_curve=True, version=(4, 3, 5)).state is State.WELL
    assert "without CURVE" in checkup.libzmq(has_curve=False, version=(4, 3, 5)).what
    assert "too old" in checkup.libzmq(has_curve=True, version=(4, 3, 4)).what


def test_low_limit_of_descriptors_is_told() -> None:
    assert checkup.descriptors(256).state is State.WEAK
    assert checkup.descriptors(checkup.DESCRIPTORS_FEW).state is State.WELL
    assert checkup.descriptors(None).state is State.WELL


def test_command_exits_with_1_where_something_is_weak(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "descriptor_limit", lambda: 4096)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("all is well\n")
    rotating = key_file(home, "default", KEY, OTHER)
    assert main(["doctor"]) == 1
    shown_open = capsys.readouterr().out
    assert "open  key file" in shown_open
    assert shown_open.endswith("are to be finished\n")
    rotating.unlink()
    path = key_file(home)
    path.chmod(0o644)
    assert main(["doctor", "--trust", str(home / "none")]) == 1
    assert "weak  trust" in capsys.readouterr().out
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "weak  mesh key: the key file" in out
    assert out.endswith("are weak\n")
    assert main(["doctor", "--json", "--journal", str(home / "none")]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["mesh"], shown["weak"]) == ("default", 3)
    assert {each["state"] for each in shown["findings"]} == {"well", "weak"}
