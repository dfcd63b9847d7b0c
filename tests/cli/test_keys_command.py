"""`zmesh keys`, as an operator runs it."""

import io
import json
import stat
from pathlib import Path

import pytest

from zmesh import Node
from zmesh.cli.main import main
from zmesh.face.storage_keys import key_in_file
from zmesh.face.system import SystemEntropy
from zmesh.ids import NodeId
from zmesh.journal.creation import create
from zmesh.journal.files import Files
from zmesh.journal.opening import new_identity
from zmesh.security.key_files import create_key_file, read_key_file, text_of
from zmesh.security.mesh_key import PREFIX, MeshKey
from zmesh.security.node_key import from_text, node_id_of
from zmesh.security.storage_key import STORAGE_PREFIX, StorageKey

OLD, NEW = (MeshKey.new(SystemEntropy()) for _ in range(2))


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "zmesh"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "a.key", text_of([OLD], "cameras"))
    return tmp_path / "a.key"


def run(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    assert main(["keys", *map(str, arguments)]) == code
    out, error = capsys.readouterr()
    return out if code != 2 else error


def test_new_key_is_where_nodes_of_its_mesh_look(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "new", "--mesh", "cameras")
    file = config / "cameras.key"
    [key] = read_key_file(file).keys
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"{file}: a new key, {key.fingerprint}" in told
    assert PREFIX not in told
    assert Node(mesh="cameras")._settings.keys == (key,)
    assert Node(mesh="printers")._settings.keys == ()


def test_key_that_is_there_is_never_overwritten(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "new")
    before = (config / "default.key").read_text()
    run(capsys, "new", code=1)
    assert (config / "default.key").read_text() == before


def test_new_key_goes_where_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.loads(run(capsys, "new", "--file", tmp_path / "my.key", "--json"))
    [key] = read_key_file(tmp_path / "my.key").keys
    assert told == {
        "mesh": "default", "path": str(tmp_path / "my.key"), "fingerprint": key.fingerprint,
    }  # fmt: skip
    text = run(capsys, "new", "--stdout").strip()
    assert MeshKey.parse(text) != key
    shown = json.loads(run(capsys, "new", "--stdout", "--json"))
    assert MeshKey.parse(shown["key"]).fingerprint == shown["fingerprint"]
    assert "--stdout writes no file" in run(
        capsys, "new", "--stdout", "--file", tmp_path / "x", code=2
    )


def test_new_storage_key_goes_to_a_private_file_or_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "storage key"
    told = run(capsys, "new", "--storage", "--file", file)
    key = key_in_file(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert f"{file}: a new storage key, {key.fingerprint}" in told
    assert f"--key-file '{file}'" in told
    assert STORAGE_PREFIX not in told
    run(capsys, "new", "--storage", "--file", file, code=1)
    assert key_in_file(file) == key
    told = json.loads(run(capsys, "new", "--storage", "--file", tmp_path / "b", "--json"))
    fingerprint = key_in_file(tmp_path / "b").fingerprint
    assert told == {"path": str(tmp_path / "b"), "fingerprint": fingerprint}
    assert StorageKey.parse(run(capsys, "new", "--storage", "--stdout")) != key
    shown = json.loads(run(capsys, "new", "--storage", "--stdout", "--json"))
    assert StorageKey.parse(shown["key"]).fingerprint == shown["fingerprint"]
    for arguments in ((), ("--file", "x", "--stdout"), ("--mesh", "a", "--stdout")):
        run(capsys, "new", "--storage", *arguments, code=2)


def test_key_without_a_home_needs_a_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zmesh.cli.keys.default_key_file", lambda *_: None)
    assert "give --file or --stdout" in run(capsys, "new", code=2)


def test_keys_are_shown_by_fingerprint_unless_they_are_to_be_revealed(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = run(capsys, "show", "--file", path)
    assert OLD.fingerprint in told
    assert str(path) in told
    assert PREFIX not in told
    assert OLD.text in run(capsys, "show", "--file", path, "--reveal")
    shown = json.loads(run(capsys, "show", "--file", path, "--json", "--mesh", "m"))
    assert shown == {
        "mesh": "m",
        "from": [str(path)],
        "keys": [{"fingerprint": OLD.fingerprint, "primary": True, "mdns": OLD.tag("m").hex()}],
    }
    revealed = json.loads(run(capsys, "show", "--file", path, "--json", "--reveal"))
    assert revealed["keys"][0]["key"] == OLD.text


def test_keys_are_shown_as_a_node_would_take_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no key here" in run(capsys, "show", code=1)
    assert json.loads(run(capsys, "show", "--json", code=1))["keys"] == []
    monkeypatch.setenv("ZMESH_KEY", f"{NEW.text} {OLD.text}")
    told = run(capsys, "show").splitlines()
    assert told == [
        "mesh 'default', from ZMESH_KEY:",
        f"{NEW.fingerprint} used",
        f"{OLD.fingerprint} accepted",
    ]


def test_rotation_goes_step_by_step_and_says_what_is_next(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "promote the new key" in run(capsys, "rotate", path, "add")
    old, new = read_key_file(path).keys
    assert old == OLD
    assert "drop the old key" in run(capsys, "rotate", path, "promote")
    assert read_key_file(path).keys == (new, OLD)
    assert f"only {OLD.fingerprint} is out" in run(capsys, "rotate", path, "drop")
    assert read_key_file(path).keys == (new,)
    assert path.read_text() == f"# cameras\n{new.text}\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation_for_machines(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = [json.loads(run(capsys, "rotate", path, step, "--json")) for step in
             ("add", "promote", "drop")]  # fmt: skip
    new = steps[2]["keys"][0]
    assert [each["keys"] for each in steps] == [
        [OLD.fingerprint, new], [new, OLD.fingerprint], [new],
    ]  # fmt: skip
    assert [each["next"] for each in steps] == ["promote", "drop", None]


def test_key_made_elsewhere_can_be_added(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(NEW.text + "\n"))
    run(capsys, "rotate", path, "add", "--stdin")
    assert read_key_file(path).keys == (OLD, NEW)
    assert "use it with add" in run(capsys, "rotate", path, "promote", "--stdin", code=2)


def test_steps_out_of_turn_change_nothing(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in ("promote", "drop"):
        assert "begin with add" in run(capsys, "rotate", path, step, code=2)
    monkeypatch.setattr("sys.stdin", io.StringIO(OLD.text))
    assert "this key already" in run(capsys, "rotate", path, "add", "--stdin", code=2)
    assert read_key_file(path).keys == (OLD,)
    run(capsys, "rotate", path, "add")
    before = path.read_text()
    assert "a rotation is under way" in run(capsys, "rotate", path, "add", code=2)
    assert "the new key may be one of those" in run(capsys, "rotate", path, "drop", code=2)
    assert path.read_text() == before
    run(capsys, "rotate", path, "promote")
    assert "drop is next" in run(capsys, "rotate", path, "promote", code=2)


def test_keys_put_in_order_by_hand_are_dropped_by_force_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand = tmp_path / "hand.key"
    create_key_file(hand, text_of([NEW, OLD], "by hand"))
    run(capsys, "rotate", hand, "drop", code=2)
    run(capsys, "rotate", hand, "drop", "--force")
    assert read_key_file(hand).keys == (NEW,)


def test_file_that_others_may_read_is_not_worked_on(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.chmod(0o644)
    assert main(["keys", "rotate", str(path), "add"]) == 1
    assert "chmod 600" in capsys.readouterr().err
    assert read_lines(path) == ["# cameras", OLD.text]


def read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


async def test_key_of_a_node_is_told_by_its_journal_and_never_its_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    async with Node("ada", mdns=False, storage=journal) as node:
        told = json.loads(run(capsys, "node", journal, "--json"))  # beside the node, too
        assert told["node"] == node.id
    assert node_id_of(from_text(told["key"])).hex() == told["node"]
    text = run(capsys, "node", journal)
    assert text.splitlines() == [f"node {told['node']}", f"key  {told['key']}"]
    async with Node("ada", mdns=False, storage=journal) as node:
        assert node.id == told["node"]


def test_journal_without_a_node_key_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = tmp_path / "journal"
    create(Files(journal), new_identity(NodeId(b"n" * 16), b""))
    assert "before nodes had keys" in run(capsys, "node", journal, code=1)
    run(capsys, "node", tmp_path / "none", code=2)


def test_a_key_in_a_file_of_its_own_is_of_no_mesh_in_particular(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = run(capsys, "new", "--file", tmp_path / "k1.key")
    assert "the other machines of one mesh, whatever its name," in text
    assert "default" not in text + (tmp_path / "k1.key").read_text()
    text = run(capsys, "new", "--mesh", "lab", "--file", tmp_path / "k2.key")
    assert "the other machines of mesh 'lab' as it is" in text
