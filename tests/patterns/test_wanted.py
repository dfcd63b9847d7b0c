"""Subscriptions on terms as JSON texts: told, understood, refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer
from zmesh.errors import InvalidOption
from zmesh.ids import NodeId, SessionId
from zmesh.options import LinkOptions, NodeOptions, WireLimits
from zmesh.patterns.wanted import WantedTable, check_terms, from_text, to_text
from zmesh.terms import PLAIN, Filter, Terms, WhenFull

LIMITS = WireLimits()


def a_peer(number: int = 1) -> Peer:
    carrier = Loopback(SessionId(bytes(16)), LinkOptions())
    return Peer(NodeId(bytes([number]) * 16), "peer", carrier)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | names
finite = scalars.filter(lambda value: value not in (float("inf"), -float("inf")))
wheres = st.dictionaries(names, finite, max_size=3).map(lambda each: tuple(sorted(each.items())))
filters = st.builds(
    Filter,
    type=st.none() | names,
    where=wheres,
    match=st.sampled_from(["all", "any"]),
    content=st.none() | names,
).filter(
    lambda each: each != Filter(match=each.match) and (bool(each.where) or each.match == "all")
)
all_terms = st.builds(
    Terms,
    filter=st.none() | filters,
    when_full=st.sampled_from(WhenFull),
    limit=st.integers(1, 10**6),
    replay=st.booleans(),
)


@given(st.integers(1, 2**53), all_terms)
def test_terms_arrive_as_they_were(number: int, terms: Terms) -> None:
    wanted = from_text(a_peer(), to_text(number, "a.*", terms), LIMITS)
    assert wanted is not None
    assert (wanted.number, wanted.pattern) == (number, "a.*")
    assert repr(wanted.terms.filter) == repr(terms.filter)  # 1 is not True here
    assert wanted.terms.when_full is terms.when_full
    assert wanted.terms.replay is terms.replay
    if terms.when_full is not WhenFull.BLOCK:
        assert wanted.terms.limit == terms.limit
    assert wanted.only_replay is (terms.filter is None and terms.when_full is WhenFull.BLOCK)


def test_text_says_no_more_than_it_must() -> None:
    assert to_text(3, "a.>", Terms(replay=True)) == '[3,"a.>",{"replay":true,"only":true}]'
    terms = Terms(Filter(where=(("unit", "°C"),)), WhenFull.LATEST, 5)
    text = '[3,"a.>",{"where":{"unit":"°C"},"full":"latest","limit":5}]'
    assert to_text(3, "a.>", terms) == text


def test_members_of_a_later_version_are_ignored() -> None:
    wanted = from_text(a_peer(), '[1,"t",{"type":"x","later":[1,2]}]', LIMITS)
    assert wanted is not None
    assert wanted.terms == Terms(Filter("x"))


@pytest.mark.parametrize("text", [
    "", "t", "1", "null", "[]", '["t"]', '[1,"t"]', '[1,"t",{},1]', '{"a":1,"b":2,"c":3}', '"abc"',
    '[0,"t",{}]', '[-1,"t",{}]', '[true,"t",{}]', '[1.0,"t",{}]', '["1","t",{}]',
    '[9007199254740993,"t",{}]', '[1,"",{}]', '[1,"a..b",{}]', '[1,">.a",{}]', "[1,1,{}]",
    '[1,"\\ud800",{}]', '[1,"t",[]]', '[1,"t",null]', '[1,"t",{"type":1}]',
    '[1,"t",{"content":[]}]', '[1,"t",{"where":[]}]', '[1,"t",{"where":{"a":[]}}]',
    '[1,"t",{"where":{"a":NaN}}]', '[1,"t",{"where":{"a":Infinity}}]', '[1,"t",{"full":"later"}]',
    '[1,"t",{"full":[]}]', '[1,"t",{"full":"latest","limit":0}]', '[1,"t",{"limit":"9"}]',
    "[" * 900,
])  # fmt: skip
def test_what_is_not_valid_is_refused(text: str) -> None:
    assert from_text(a_peer(), text, LIMITS) is None


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_any_text_is_taken_or_refused(text: str) -> None:
    from_text(a_peer(), text, LIMITS)


def test_pattern_and_filter_are_limited_together() -> None:
    check_terms("a" * 900, PLAIN, LIMITS)
    with pytest.raises(InvalidOption, match="size of pattern and filter"):
        check_terms("a" * 500, Terms(Filter(content="b" * 500)), LIMITS)


def test_table_finds_those_a_topic_may_be_for() -> None:
    table, peer = WantedTable(NodeOptions()), a_peer()
    one = to_text(1, "a.*", Terms(Filter("x")))
    other = to_text(2, "a.b", Terms(replay=True))
    assert table.add(peer, one)
    assert table.add(peer, other)
    assert [wanted.number for wanted in table.match("a.b")] == [1], "one asks for a replay only"
    assert peer.selected == {"a.*": 1}
    assert [(wanted.number, begun) for wanted, begun in table.take_news()] == [
        (1, True),
        (2, True),
    ]
    table.remove(peer, one)
    table.remove(peer, other)
    assert table.match("a.b") == ()
    assert peer.selected == {}
    assert [(wanted.ended, begun) for wanted, begun in table.take_news()] == [(True, False)] * 2


def test_filters_of_one_peer_are_limited_and_others_do_not_notice() -> None:
    table, peer, other = WantedTable(NodeOptions(filters_max=2)), a_peer(1), a_peer(2)
    texts = [to_text(number, "t", Terms(Filter("x"))) for number in (1, 2, 3)]
    assert [table.add(peer, text) for text in texts] == [True, True, False]
    assert table.add(peer, to_text(4, "t", Terms(replay=True)))
    assert table.add(other, texts[0])
    table.remove(peer, texts[0])
    assert table.add(peer, texts[2])
