"""A directory of trust, read again while people edit it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from zmesh.options import TrustOptions
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.rules import Action
from zmesh.security.trust_files import TrustDirectory, read_key
from zmesh.security_errors import InvalidTrust

KEYS = {name: NodeKey.of(bytes([at]) * 32) for at, name in enumerate(("ada", "bob", "eve"))}
RULES = '[[rule]]\nwho = ["ada", "bob"]\ncall = "x"\n'


def text_of(name: str) -> str:
    return to_text(KEYS[name].public)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    for name in ("ada", "bob"):
        (tmp_path / f"{name}.pub").write_text(f"# {name}\n{text_of(name)} the laptop\n")
    return tmp_path


def trusted(directory: TrustDirectory) -> list[str]:
    trust = directory.read().trust
    return [name for name, key in KEYS.items() if trust.admits(key.id)]


def test_keys_are_named_for_their_files(place: Path) -> None:
    trust = TrustDirectory(place).open()
    assert trust.name_of(KEYS["ada"].id) == "ada"
    assert trust.name_of(KEYS["eve"].id) is None
    assert trust.rules is None
    assert read_key(place / "ada.pub") == KEYS["ada"].public


def test_what_is_added_and_removed_counts_at_the_next_look(place: Path) -> None:
    directory = TrustDirectory(place)
    directory.open()
    assert not directory.read().has_changed
    (place / "eve.pub").write_text(text_of("eve"))
    (place / "bob.pub").unlink()
    assert directory.read().has_changed
    assert trusted(directory) == ["ada", "eve"]
    assert not directory.read().has_changed


def test_a_file_that_is_written_anew_within_its_time_is_read_anew(place: Path) -> None:
    directory = TrustDirectory(place)
    directory.open()
    path = place / "bob.pub"
    before = path.stat()
    path.write_text(path.read_text().replace(text_of("bob"), text_of("eve")))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert trusted(directory) == ["ada", "eve"]


@pytest.mark.parametrize("how", ["directory", "by name", "list"])
def test_who_is_revoked_is_not_trusted(place: Path, how: str) -> None:
    directory = TrustDirectory(place)
    directory.open()
    if how == "list":
        (place / "revoked").write_text(f"# gone\n{text_of('bob')}\n\n")
    else:
        (place / "revoked").mkdir()
        text = text_of("bob") if how == "directory" else ""
        name = "robert" if how == "directory" else "bob"
        (place / "revoked" / f"{name}.pub").write_text(text)
    assert trusted(directory) == ["ada"]
    assert directory.read().trust.is_revoked(KEYS["bob"].id)


def test_a_list_of_revoked_keys_that_is_spoiled_keeps_all_that_were_and_adds_what_it_can(
    place: Path,
) -> None:
    (place / "revoked").write_text(text_of("bob"))
    directory = TrustDirectory(place)
    directory.open()
    (place / "revoked").write_text(f"{text_of('ada')}\nzmn1.spoiled\n")
    for _ in range(3):
        read = directory.read()
        assert [problem.where for problem in read.problems] == [f"{place / 'revoked'}: line 2"]
        assert trusted(directory) == []
    (place / "revoked").unlink()
    assert trusted(directory) == []
    (place / "revoked").write_text("")
    assert trusted(directory) == ["ada", "bob"]


def test_a_directory_of_revoked_keys_does_not_vanish_unnoticed(place: Path) -> None:
    (place / "revoked").mkdir()
    (place / "revoked" / "bob.pub").write_text(text_of("bob"))
    directory = TrustDirectory(place)
    directory.open()
    (place / "revoked" / "bob.pub").rename(place / "moved")
    (place / "revoked").rmdir()
    read = directory.read()
    assert "is gone" in read.problems[0].why
    assert trusted(directory) == ["ada"]


@pytest.mark.parametrize(
    ("spoiled", "where", "why"),
    [
        ("", "", "no key"), ("# nothing\n", "", "no key"), ("zmn1.short", ": line 1", "checksum"),
        ("\n\nhello", ": line 3", "zmn1."), (b"\xff\n", ": line 1", "UTF-8"),
        (f"{text_of('bob')}\n{text_of('bob')}", ": line 2", "one key a file"),
        ("x" * 2000, "", "over 1000 bytes"), ("zmk1.secret", ": line 1", "secret"),
    ],
)  # fmt: skip
def test_a_key_file_that_is_spoiled_keeps_what_it_held_and_is_told_with_its_line(
    place: Path, spoiled: str | bytes, where: str, why: str
) -> None:
    options = TrustOptions(file_bytes_max=1000)
    directory = TrustDirectory(place, options)
    directory.open()
    path = place / "bob.pub"
    path.write_bytes(spoiled.encode() if isinstance(spoiled, str) else spoiled)
    (place / "eve.pub").write_text(text_of("eve"))
    for _ in range(2):
        [problem] = directory.read().problems
        assert problem.where == f"{path}{where}"
        assert why in problem.why
        assert "zmk1.secret" not in str(problem)
    assert trusted(directory) == ["ada", "bob", "eve"]
    with pytest.raises(InvalidTrust) as caught:
        TrustDirectory(place, options).open()
    assert caught.value.where == problem.where


def test_a_new_file_that_is_spoiled_lets_nobody_in(place: Path) -> None:
    directory = TrustDirectory(place)
    directory.open()
    (place / "eve.pub").write_text(text_of("eve")[:-3])
    assert directory.read().problems
    assert trusted(directory) == ["ada", "bob"]


def test_rules_that_are_spoiled_or_gone_stay_in_force_while_keys_go(place: Path) -> None:
    (place / "rules.toml").write_text(RULES)
    directory = TrustDirectory(place)
    directory.open()

    def may(name: str, service: str = "x") -> bool:
        return directory.read().trust.judge(KEYS[name].id, Action.CALL, service).allowed

    assert may("bob")
    assert not may("bob", "y")
    (place / "rules.toml").write_text("default = 1")
    [problem] = directory.read().problems
    assert problem.where == "rules.toml"
    assert may("bob")
    assert not may("bob", "y")
    (place / "rules.toml").unlink()
    assert directory.read().problems
    assert not may("bob", "y")
    (place / "bob.pub").unlink()
    assert trusted(directory) == ["ada"]
    (place / "rules.toml").write_text('default = "allow"')
    assert not directory.read().problems
    assert may("ada", "y")
    assert not may("bob", "y")


def test_a_key_that_rules_name_is_removed_all_the_same(place: Path) -> None:
    (place / "rules.toml").write_text(RULES)
    directory = TrustDirectory(place)
    directory.open()
    (place / "bob.pub").unlink()
    read = directory.read()
    assert "'bob'" in read.problems[0].why
    assert trusted(directory) == ["ada"]
    (place / "revoked").mkdir()
    (place / "revoked" / "bob.pub").write_text(text_of("bob"))
    assert not directory.read().problems


def test_rules_that_come_later_count(place: Path) -> None:
    directory = TrustDirectory(place)
    assert directory.open().judge(KEYS["ada"].id, Action.CALL, "y").allowed
    (place / "rules.toml").write_text(RULES)
    assert not directory.read().trust.judge(KEYS["ada"].id, Action.CALL, "y").allowed


def test_a_directory_that_is_not_there_is_told_and_one_that_vanishes_keeps_all(
    place: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidTrust, match="cannot be listed"):
        TrustDirectory(tmp_path / "nowhere").open()
    inner = place / "inner"
    inner.mkdir(mode=0o700)
    (inner / "ada.pub").write_text(text_of("ada"))
    directory = TrustDirectory(inner)
    directory.open()
    inner.rename(place / "elsewhere")
    assert directory.read().problems
    assert trusted(directory) == ["ada"]


def test_what_everybody_may_write_is_refused(place: Path) -> None:
    (place / "bob.pub").chmod(0o666)
    with pytest.raises(InvalidTrust, match=r"chmod o-w") as caught:
        TrustDirectory(place).open()
    assert caught.value.where == str(place / "bob.pub")
    (place / "bob.pub").chmod(0o644)
    place.chmod(0o777)
    with pytest.raises(InvalidTrust, match=r"chmod o-w") as caught:
        TrustDirectory(place).open()
    assert caught.value.where == str(place)


def test_a_pipe_in_place_of_a_key_holds_nobody_up(place: Path) -> None:
    os.mkfifo(place / "eve.pub", 0o600)
    with pytest.raises(InvalidTrust, match="it is no file"):
        TrustDirectory(place).open()


def test_no_more_keys_are_read_than_allowed(place: Path) -> None:
    with pytest.raises(InvalidTrust, match="2 keys are more than 1"):
        TrustDirectory(place, TrustOptions(trusted_keys_max=1)).open()


def test_two_files_of_one_key_are_told(place: Path) -> None:
    (place / "zoe.pub").write_text(text_of("ada"))
    with pytest.raises(InvalidTrust, match="'ada' and 'zoe' are the same key"):
        TrustDirectory(place).open()


def copy_a_key(place: Path) -> None:
    (place / "zoe.pub").write_text(text_of("ada"))


def list_too_many(place: Path) -> None:
    for number in range(3):
        (place / f"extra{number}.pub").write_text("none")


@pytest.mark.parametrize("spoil", [copy_a_key, list_too_many])
@pytest.mark.parametrize("how", ["directory", "list"])
def test_no_mistake_in_the_keys_holds_a_revocation_up(
    place: Path, spoil: Callable[[Path], None], how: str
) -> None:
    directory = TrustDirectory(place, TrustOptions(trusted_keys_max=4))
    directory.open()
    spoil(place)
    assert trusted(directory) == ["ada", "bob"]
    if how == "directory":
        (place / "revoked").mkdir()
        (place / "revoked" / "ada.pub").touch()
    else:
        (place / "revoked").write_text(text_of("ada"))
    read = directory.read()
    assert read.has_changed
    assert read.trust.is_revoked(KEYS["ada"].id)
    assert trusted(directory) == ["bob"]
    assert read.problems


def test_nobody_is_revoked_where_everybody_may_write(place: Path) -> None:
    directory = TrustDirectory(place)
    directory.open()
    place.chmod(0o777)
    (place / "revoked").write_text(text_of("ada"))
    assert directory.read().problems
    assert trusted(directory) == ["ada", "bob"]


def test_a_place_that_cannot_even_be_looked_at_is_told_and_keeps_all(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = TrustDirectory(place)
    directory.open()

    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_dir", forbidden)  # as where the right to search it is lacking
        read = directory.read()
        assert "Permission denied" in read.problems[0].why
        assert not read.has_changed
        with pytest.raises(InvalidTrust, match="Permission denied"):
            TrustDirectory(place).open()
    assert trusted(directory) == ["ada", "bob"]
