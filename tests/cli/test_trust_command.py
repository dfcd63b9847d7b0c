import json
from pathlib import Path

import pytest

from zmesh.cli.main import main
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.trust_files import TrustDirectory

ADA, BOB, EVE = (to_text(NodeKey.of(bytes([at]) * 32).public) for at in (1, 2, 3))


@pytest.fixture
def place(tmp_path: Path) -> str:
    assert main(["trust", "add", str(tmp_path / "trust"), "ada", ADA]) == 0
    assert main(["trust", "add", str(tmp_path / "trust"), "bob", BOB]) == 0
    return str(tmp_path / "trust")


def listed(place: str, capsys: pytest.CaptureFixture[str]) -> dict[str, bool]:
    capsys.readouterr()
    assert main(["trust", "list", place, "--json"]) == 0
    return {each["name"]: each["revoked"] for each in json.loads(capsys.readouterr().out)["keys"]}


def test_keys_are_added_listed_and_revoked(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(place, capsys) == {"ada": False, "bob": False}
    assert main(["trust", "list", place]) == 0
    assert ADA in capsys.readouterr().out
    assert main(["trust", "revoke", place, "bob"]) == 0
    trust = TrustDirectory(Path(place)).open()
    assert list(trust.keys) == ["ada"]
    assert len(trust.revoked) == 1
    assert main(["trust", "add", place, "robert", BOB]) == 2
    assert "revoked" in capsys.readouterr().err


def test_a_key_is_revoked_in_a_list_where_there_is_one(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(place) / "revoked").write_text("# gone\n")
    assert main(["trust", "revoke", place, "bob"]) == 0
    assert listed(place, capsys) == {"ada": False, "bob": True}


def test_what_cannot_be_done_is_told(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, why in (
        (["add", place, "ada", BOB], 2, "already"),
        (["add", place, "eve", ADA], 2, "already"),
        (["add", place, "eve", ADA[:-1]], 1, "mistyped"),
        (["add", place, "a*", ADA], 1, "no name of a key"),
        (["revoke", place, "nobody"], 2, "no key of nobody"),
        (["list", f"{place}/nowhere"], 1, "cannot be listed"),
        (["list", f"{place}/nowhere"], 1, "`zmesh trust add DIR NAME KEY` makes it"),
    ):
        assert main(["trust", *arguments]) == code
        assert why in capsys.readouterr().err
    (Path(place) / "ada.pub").write_text("spoiled")
    assert main(["trust", "list", place]) == 1
    assert "ada.pub: line 1" in capsys.readouterr().out


def test_rules_are_checked_and_asked(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    rules = Path(place) / "rules.toml"
    rules.write_text('[[rule]]\nname = "doors"\nwho = "ada"\ncall = "door.*"\n')
    ask = ["rules", "check", str(rules)]
    assert main(ask) == 0
    assert "1 rules for 2 keys" in capsys.readouterr().out
    about = ["--node", "ada", "--action", "call", "--name"]
    assert main([*ask, *about, "door.open"]) == 0
    assert capsys.readouterr().out == "allowed: rules.toml: rule 1 'doors'\n"
    assert main([*ask, *about, "window", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "allowed": False, "rule": "rules.toml: default deny",
    }  # fmt: skip
    assert main([*ask, "--node", "ada"]) == 2
    assert main([*ask, "--node", "eve", "--action", "call", "--name", "x"]) == 2
    rules.write_text('[[rule]]\nwho = "eve"\ncall = "x"\n')
    assert main(ask) == 1
    assert "rules.toml: rule 1: who: there is no key" in capsys.readouterr().err
    assert main(["rules", "check", f"{place}/nowhere"]) == 1


def test_a_revoked_name_is_not_added_again_until_it_is_freed(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trust", "revoke", place, "bob"]) == 0
    assert main(["trust", "add", place, "bob", EVE]) == 2
    told = capsys.readouterr().err
    assert "the name bob is revoked" in told
    assert "bob-old.pub" in told
    revoked = Path(place) / "revoked"
    (revoked / "bob.pub").rename(revoked / "bob-old.pub")
    assert main(["trust", "add", place, "bob", EVE]) == 0
    assert listed(place, capsys) == {"ada": False, "bob": False, "bob-old": True}
    assert main(["trust", "add", place, "robert", BOB]) == 2, "the old key stays revoked"


def test_the_name_of_a_key_revoked_in_a_list_is_freed_by_removing_its_file(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (Path(place) / "revoked").write_text("")
    assert main(["trust", "revoke", place, "bob"]) == 0
    assert main(["trust", "add", place, "bob", EVE]) == 2
    assert "remove that file first" in capsys.readouterr().err
    (Path(place) / "bob.pub").unlink()
    assert main(["trust", "add", place, "bob", EVE]) == 0
    assert main(["trust", "list", place]) == 0
    assert f"trusted  {'bob':20}" in capsys.readouterr().out


def test_revoking_a_name_twice_does_not_lose_the_key_that_was_revoked_first(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trust", "revoke", place, "bob"]) == 0
    (Path(place) / "bob.pub").write_text(EVE)
    assert main(["trust", "revoke", place, "bob"]) == 2
    assert "bob-old.pub" in capsys.readouterr().err
    assert len(TrustDirectory(Path(place)).open().revoked) == 2


def test_a_key_that_is_there_is_renamed_rather_than_revoked(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trust", "add", place, "eve", ADA]) == 2
    told = capsys.readouterr().err
    assert "rename" in told
    assert "revoke" not in told


def test_what_cannot_be_written_is_told_in_a_line(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for where, code, why in (
        (str(file), 2, "is no directory"),
        (f"{file}/below", 1, "cannot be written"),
        ("/proc/trust", 1, "cannot be written"),
    ):
        assert main(["trust", "add", where, "ada", ADA]) == code
        assert why in capsys.readouterr().err
    (Path(place) / "revoked").write_bytes(b"\xff")
    assert main(["trust", "revoke", place, "bob"]) == 1
    assert "no UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("in_a_list", [False, True])
def test_rules_allow_a_revoked_node_nothing(
    in_a_list: bool, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = Path(place) / "rules.toml"
    rules.write_text('[[rule]]\nwho = "*"\ncall = "door.*"\n')
    if in_a_list:
        (Path(place) / "revoked").write_text("")
    assert main(["trust", "revoke", place, "bob"]) == 0
    capsys.readouterr()
    ask = ["rules", "check", str(rules)]
    assert main([*ask, "--node", "bob", "--action", "call", "--name", "door.open"]) == 1
    assert capsys.readouterr().out == "denied: its key was revoked\n"
    assert main([*ask, "--node", "ada", "--action", "call", "--name", "door.open"]) == 0
    capsys.readouterr()
    assert main(ask) == 0
    assert "1 rules for 1 keys; 1 more are revoked" in capsys.readouterr().out
    assert main([*ask, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"rules": 1, "keys": ["ada"], "revoked": ["bob"]}
