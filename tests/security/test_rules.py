"""What rules say, and what is said of rules that cannot work."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import TrustOptions
from zmesh.security.rules import Action, Rules
from zmesh.security_errors import InvalidTrust

NAMES = ("camera-1", "camera-2", "printer", "desk")

TEXT = """
[groups]
cameras = ["camera-1", "camera-2"]

[[rule]]
name = "cameras"
who = "cameras"
publish = ["cameras.>"]
serve = "snapshot"
deny = { publish = ["cameras.private.>"] }

[[rule]]
who = ["desk", "printer"]
subscribe = ["cameras.*.picture"]
call = ">"

[[rule]]
who = "*"
join = ["everybody"]
"""


def rules(text: str = TEXT, **limits: int) -> Rules:
    return Rules.parse(text, NAMES, options=TrustOptions(**limits))


@pytest.mark.parametrize(
    ("who", "action", "name", "allowed", "rule"),
    [
        ("camera-1", "publish", "cameras.1.picture", True, "rules.toml: rule 1 'cameras'"),
        ("camera-1", "publish", "cameras.private.x", False,
         "rules.toml: rule 1 'cameras' denies it"),
        ("camera-1", "publish", "cameras", False, "rules.toml: default deny"),
        ("camera-2", "serve", "snapshot", True, "rules.toml: rule 1 'cameras'"),
        ("printer", "serve", "snapshot", False, "rules.toml: default deny"),
        ("desk", "subscribe", "cameras.*.picture", True, "rules.toml: rule 2"),
        ("desk", "subscribe", "cameras.1.picture", True, "rules.toml: rule 2"),
        ("desk", "subscribe", "cameras.>", False, "rules.toml: default deny"),
        ("desk", "call", "anything.at.all", True, "rules.toml: rule 2"),
        ("printer", "join", "everybody", True, "rules.toml: rule 3"),
        ("printer", "fan_out", "everybody", False, "rules.toml: default deny"),
    ],
)  # fmt: skip
def test_decisions_name_the_rule_that_made_them(
    who: str, action: str, name: str, allowed: bool, rule: str
) -> None:
    decision = rules().judge(who, Action(action), name)
    assert (decision.allowed, decision.rule) == (allowed, rule)


def test_everything_is_allowed_by_default_only_where_that_is_said() -> None:
    assert not rules("").judge("desk", Action.CALL, "x").allowed
    decision = rules('default = "allow"').judge("desk", Action.CALL, "x")
    assert decision.allowed
    assert decision.rule == "rules.toml: default allow"


def test_what_one_rule_denies_no_other_allows() -> None:
    made = rules(
        'default = "allow"\n[[rule]]\nwho = "*"\ncall = ">"\n'
        '[[rule]]\nwho = "desk"\ndeny = { call = "door.*" }\n'
    )
    assert not made.judge("desk", Action.CALL, "door.open").allowed
    assert made.judge("printer", Action.CALL, "door.open").allowed
    assert made.judge("desk", Action.CALL, "door").allowed


def test_a_subscription_is_denied_where_it_would_bring_what_is_denied() -> None:
    made = rules('[[rule]]\nwho = "*"\nsubscribe = ">"\ndeny = { subscribe = "a.b" }\n')
    for pattern in (">", "a.*", "*.b", "a.>", "a.b"):
        assert not made.judge("desk", Action.SUBSCRIBE, pattern).allowed
    for pattern in ("a", "a.c", "b.>", "a.b.>"):
        assert made.judge("desk", Action.SUBSCRIBE, pattern).allowed


def test_anything_of_a_pattern_is_allowed_where_something_is() -> None:
    made = rules('[[rule]]\nwho = "*"\npublish = "a.>"\ndeny = { publish = "a.b.>" }\n')
    assert made.judge_any("desk", Action.PUBLISH, "*.c").allowed
    assert not made.judge_any("desk", Action.PUBLISH, "b.>").allowed
    assert not made.judge_any("desk", Action.PUBLISH, "a.b.*").allowed


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("default = 1 2", "rules.toml", "line 1"),
        ("default = " + "9" * 5000, "rules.toml", "no TOML"),
        ("default = 0x" + "f" * 5000, "rules.toml", "write"),
        ("[[rule]]\nwho = [0x" + "f" * 5000 + ']\ncall = "x"', "rules.toml: rule 1: who", "texts"),
        ('default = "maybe"', "rules.toml", "write"),
        ("surprise = 1", "rules.toml", "surprise"),
        ("groups = 1", "rules.toml", "groups"),
        ('[groups]\ncameras = ["nobody"]', "rules.toml: group 'cameras'", "'nobody'"),
        ('[groups]\ndesk = ["printer"]', "rules.toml: group 'desk'", "as well"),
        ('[groups]\n"*" = ["desk"]', "rules.toml: group '*'", "everybody"),
        ("rule = 1", "rules.toml", "[[rule]]"),
        ("rule = [1]", "rules.toml: rule 1", "table"),
        ('[[rule]]\ncall = "x"', "rules.toml: rule 1", "who"),
        ('[[rule]]\nwho = "desk"', "rules.toml: rule 1", "allows nothing"),
        ('[[rule]]\nname = 5\nwho = "desk"', "rules.toml: rule 1", "name"),
        ('[[rule]]\nname = "x"\nwho = "ghost"\ncall = "a"', "rules.toml: rule 1 'x'", "'ghost'"),
        ('[[rule]]\nwho = "desk"\npubish = "a"', "rules.toml: rule 1", "'pubish'"),
        ('[[rule]]\nwho = "desk"\nsurvey = "a"', "rules.toml: rule 1", "`call`"),
        ('[[rule]]\nwho = "desk"\ncall = "a..b"', "rules.toml: rule 1: call", "'a..b'"),
        ('[[rule]]\nwho = "desk"\ncall = [1]', "rules.toml: rule 1: call", "texts"),
        ('[[rule]]\nwho = "desk"\ndeny = "x"', "rules.toml: rule 1", "deny"),
        ('[[rule]]\nwho = "desk"\ndeny = { pul = "x" }', "rules.toml: rule 1: deny", "'pul'"),
        ('[[rule]]\nwho = "desk"\ndeny = { pull = "x*" }', "rules.toml: rule 1: deny: pull", "x*"),
        ('[[rule]]\nwho = 5\ncall = "x"', "rules.toml: rule 1: who", "texts"),
    ],
)
def test_what_cannot_work_is_told_with_its_place(text: str, where: str, why: str) -> None:
    with pytest.raises(InvalidTrust) as caught:
        rules(text)
    assert caught.value.where == where
    assert why in caught.value.why


def test_no_more_rules_and_patterns_are_taken_than_allowed() -> None:
    one = '[[rule]]\nwho = "desk"\ncall = ["a", "b", "c"]\n'
    rules(one * 3, rules_max=3, rule_patterns_max=3)
    with pytest.raises(InvalidTrust, match="4 rules are more than 3"):
        rules(one * 4, rules_max=3)
    with pytest.raises(InvalidTrust, match="3 entries are more than 2"):
        rules(one, rule_patterns_max=2)


@given(st.text(max_size=60) | st.from_regex(r"\[\[rule\]\]\n(who|call|deny) = .{0,20}"))
def test_whatever_a_file_holds_it_is_read_or_refused(text: str) -> None:
    with suppress(InvalidTrust):
        rules(text)
