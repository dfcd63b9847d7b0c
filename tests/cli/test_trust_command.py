import json
from pathlib import Path

import pytest

from zmesh.cli.main import main
from zmesh.security.node_key import NodeKey, to_text
from zmesh.security.trust_files import TrustDirectory

ADA, BOB = (to_text(NodeKey.of(bytes([at]) * 32).public) for at in (1, 2))


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
