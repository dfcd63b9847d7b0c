from pathlib import Path
from typing import Any

import pytest

from zmesh.options import TrustOptions
from zmesh.security.node_key import NodeKey, from_text, to_text
from zmesh.security.rules import Action
from zmesh.security.trust import Trust
from zmesh.security_errors import InvalidKey, InvalidTrust

KEYS = [NodeKey.of(bytes([number]) * 32) for number in range(4)]
TEXTS = [to_text(key.public) for key in KEYS]


def test_a_public_key_is_read_as_it_was_written() -> None:
    assert [from_text(f" {text}\n") for text in TEXTS] == [key.public for key in KEYS]
    assert all(text.startswith("zmn1.") and len(text) == 53 for text in TEXTS)


@pytest.mark.parametrize("text", ["", "zmn1.", TEXTS[0][:-1], TEXTS[0][:-2] + "AA", "zmn1.\u00e9"])
def test_a_mistyped_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey, match="the place"):
        from_text(text, "the place")


def test_a_mesh_key_in_its_place_is_named_and_not_shown() -> None:
    with pytest.raises(InvalidKey, match="secret") as caught:
        from_text("zmk1.VerySecret")
    assert "VerySecret" not in str(caught.value)


def test_whoever_is_listed_is_trusted_and_does_everything_without_rules() -> None:
    trust = Trust({"one": TEXTS[0], "two": TEXTS[1]})
    assert [trust.admits(key.id) for key in KEYS] == [True, True, False, False]
    assert trust.name_of(KEYS[1].id) == "two"
    assert trust.judge(KEYS[0].id, Action.CALL, "x").allowed
    assert not trust.judge(KEYS[2].id, Action.CALL, "x").allowed
    assert not trust.judge_any(KEYS[2].id, Action.PUBLISH, ">").allowed


@pytest.mark.parametrize("revoked", ["two", TEXTS[1]])
def test_whoever_is_revoked_is_not_trusted_by_name_or_by_key(revoked: str) -> None:
    trust = Trust({"one": TEXTS[0], "two": TEXTS[1]}, revoked=[revoked])
    assert [trust.admits(key.id) for key in KEYS[:2]] == [True, False]
    assert trust.is_revoked(KEYS[1].id)
    assert len(trust) == 1


def test_rules_may_name_who_is_revoked() -> None:
    rules = '[[rule]]\nwho = ["one", "two"]\ncall = "x"\n'
    trust = Trust({"one": TEXTS[0], "two": TEXTS[1]}, revoked=["two"], rules=rules)
    assert trust.judge(KEYS[0].id, Action.CALL, "x").allowed
    assert not trust.judge(KEYS[1].id, Action.CALL, "x").allowed


def test_one_key_has_one_name() -> None:
    with pytest.raises(InvalidTrust, match="'one' and 'two' are the same key"):
        Trust({"one": TEXTS[0], "two": TEXTS[0]})


@pytest.mark.parametrize("name", ["", "a..b", "*", "a.>", "a/b", "a\nb", "x" * 256])
def test_a_name_is_such_that_rules_can_name_it(name: str) -> None:
    with pytest.raises(InvalidTrust, match="is no name of a key"):
        Trust({name: TEXTS[0]})


def test_no_more_keys_are_taken_than_allowed() -> None:
    keys = dict(zip("abcd", TEXTS, strict=True))
    Trust(keys, options=TrustOptions(trusted_keys_max=4))
    with pytest.raises(InvalidTrust, match="4 keys are more than 3"):
        Trust(keys, options=TrustOptions(trusted_keys_max=3))
    with pytest.raises(InvalidTrust, match="4 keys are more than 3"):
        Trust({}, revoked=TEXTS, options=TrustOptions(trusted_keys_max=3))


def test_a_name_to_revoke_that_nobody_has_is_a_mistake() -> None:
    with pytest.raises(InvalidTrust, match="there is no key 'adda'"):
        Trust({"ada": TEXTS[0]}, revoked=["adda"])


@pytest.mark.parametrize(
    ("keys", "options", "where"),
    [
        (5, {}, "keys"), (["one"], {}, "keys"), ({5: TEXTS[0]}, {}, "keys"),
        ({}, {"rules": 5}, "rules"), ({}, {"rules": Path("rules.toml")}, "rules"),
        ({}, {"revoked": 3}, "revoked"), ({}, {"revoked": [3]}, "revoked"),
        ({"one": TEXTS[0]}, {"revoked": "one"}, "revoked"),
    ],
)  # fmt: skip
def test_what_is_of_another_type_is_told_by_its_place(
    keys: Any, options: dict[str, Any], where: str
) -> None:
    with pytest.raises(InvalidTrust) as caught:
        Trust(keys, **options)
    assert caught.value.where == where


def test_a_key_that_is_no_text_is_told_by_its_name() -> None:
    with pytest.raises(InvalidKey, match="key 'one' is no valid key: a text is needed"):
        Trust({"one": 5})  # type: ignore[dict-item]
