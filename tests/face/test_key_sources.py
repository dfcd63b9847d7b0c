"""Which key a node takes, and from where."""

from collections.abc import Callable
from pathlib import Path

import pytest

from zmesh.errors import InvalidOption
from zmesh.face.key_sources import NO_KEYS, key_sources
from zmesh.face.system import SystemEntropy
from zmesh.security.key_files import KEYS_MAX, create_key_file, replace_key_file, text_of
from zmesh.security.mesh_key import MeshKey
from zmesh.security_errors import InvalidKey, KeyFileExposed, NoKeyFile

ARGUMENT, VARIABLE, FILE, DEFAULT = (MeshKey.new(SystemEntropy()) for _ in range(4))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    create_key_file(tmp_path / "file.key", text_of([FILE], "by variable"))
    create_key_file(tmp_path / "zmesh" / "home.key", text_of([DEFAULT], "by default"))
    return {
        "XDG_CONFIG_HOME": str(tmp_path),
        "ZMESH_KEY": VARIABLE.text,
        "ZMESH_KEY_FILE": str(tmp_path / "file.key"),
    }


def test_sources_count_in_order(environment: dict[str, str]) -> None:
    def found(key: MeshKey | None) -> tuple[MeshKey, ...]:
        return key_sources(key, "home", environment).read().keys

    assert found(ARGUMENT) == (ARGUMENT,)
    assert found(None) == (VARIABLE,)
    environment["ZMESH_KEY"] = "  "
    assert found(None) == (FILE,)
    del environment["ZMESH_KEY_FILE"]
    assert found(None) == (DEFAULT,)


def test_default_file_is_of_one_mesh(environment: dict[str, str]) -> None:
    only = {"XDG_CONFIG_HOME": environment["XDG_CONFIG_HOME"]}
    assert key_sources(None, "elsewhere", only) is NO_KEYS
    create_key_file(Path(only["XDG_CONFIG_HOME"]) / "zmesh/elsewhere.key", ARGUMENT.text)
    assert key_sources(None, "elsewhere", only).read().keys == (ARGUMENT,)
    assert key_sources(None, "home", only).read().keys == (DEFAULT,)


def test_empty_list_is_no_key_whatever_there_is(environment: dict[str, str]) -> None:
    assert key_sources((), "home", environment).read().keys == ()


@pytest.mark.parametrize("given", [str, Path, MeshKey])
def test_argument_may_be_text_path_or_key(given: type, tmp_path: Path) -> None:
    create_key_file(tmp_path / "a.key", text_of([ARGUMENT], "a"))
    forms: dict[type, str | Path | MeshKey] = {
        str: ARGUMENT.text, Path: tmp_path / "a.key", MeshKey: ARGUMENT,
    }  # fmt: skip
    assert key_sources(forms[given], "m", {}).read().keys == (ARGUMENT,)


def test_several_keys_are_taken_in_order_and_once(tmp_path: Path) -> None:
    create_key_file(tmp_path / "a.key", text_of([FILE, ARGUMENT], "a"))
    sources = key_sources([ARGUMENT, tmp_path / "a.key", VARIABLE.text], "m", {})
    read = sources.read()
    assert read.keys == (ARGUMENT, FILE, VARIABLE)
    assert sources.files == (tmp_path / "a.key",)
    assert read.stamps == sources.stamps()


def test_environment_may_hold_several_keys_for_a_rotation() -> None:
    environment = {"ZMESH_KEY": f"{ARGUMENT.text} {VARIABLE.text}\n"}
    assert key_sources(None, "m", environment).read().keys == (ARGUMENT, VARIABLE)


def test_file_is_read_anew_and_its_change_is_seen_from_outside(tmp_path: Path) -> None:
    create_key_file(tmp_path / "a.key", text_of([FILE], "a"))
    sources = key_sources(tmp_path / "a.key", "m", {})
    before = sources.read()
    assert sources.stamps() == before.stamps
    replace_key_file(tmp_path / "a.key", text_of([ARGUMENT, FILE], "a"))
    assert sources.stamps() != before.stamps
    assert sources.read().keys == (ARGUMENT, FILE)
    (tmp_path / "a.key").unlink()
    assert sources.stamps() == (None,)


def test_too_many_keys_are_refused() -> None:
    keys = [MeshKey.new(SystemEntropy()) for _ in range(KEYS_MAX + 1)]
    assert len(key_sources(keys[1:], "m", {}).read().keys) == KEYS_MAX
    with pytest.raises(InvalidOption, match=r"key=.*at most 8"):
        key_sources(keys, "m", {}).read()


def test_what_is_no_key_is_refused_by_name_and_not_repeated() -> None:
    with pytest.raises(InvalidOption, match="MeshKey, or a list") as told:
        key_sources([b"secret"], "m", {})  # type: ignore[list-item]
    assert "secret" not in str(told.value)
    for nothing in (5, b"secret", b"", object(), {}, {ARGUMENT.text: 1}, set(), iter(())):
        with pytest.raises(InvalidOption, match="MeshKey, or a list") as refused_type:
            key_sources(nothing, "m", {})  # type: ignore[arg-type]
        assert f"key={type(nothing)} cannot work" in str(refused_type.value)
        assert "secret" not in str(refused_type.value)
    with pytest.raises(InvalidKey, match=r"key= is .* begins with 'zmk1\.'; .* pathlib\.Path"):
        key_sources("/etc/mesh.key", "m", {})
    with pytest.raises(InvalidKey, match="ZMESH_KEY is no valid key") as refused:
        key_sources(None, "m", {"ZMESH_KEY": "hunter2"})
    assert "hunter2" not in str(refused.value)


def _exposed(path: Path) -> None:
    create_key_file(path, text_of([FILE], "a"))
    path.chmod(0o644)


@pytest.mark.parametrize(
    ("prepare", "error"), [(_exposed, KeyFileExposed), (lambda _: None, NoKeyFile)]
)
def test_file_that_was_named_must_be_there_and_private(
    prepare: Callable[[Path], None], error: type[Exception], tmp_path: Path
) -> None:
    prepare(tmp_path / "a.key")
    with pytest.raises(error):
        key_sources(None, "m", {"ZMESH_KEY_FILE": str(tmp_path / "a.key")}).read()


def test_default_file_that_others_may_read_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    _exposed(tmp_path / "zmesh" / "m.key")
    with pytest.raises(KeyFileExposed):
        key_sources(None, "m", {"XDG_CONFIG_HOME": str(tmp_path)}).read()
