"""Topics: validity, and a trie held against the plainest matcher there is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import InvalidOption
from zmesh.patterns.routing import TopicTable, check_pattern, check_topic, is_pattern

TOKENS = st.sampled_from(["a", "b", "c", "*"])
TOPICS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5).map(".".join)
PATTERNS = st.builds(
    lambda tokens, rest: ".".join([*tokens, ">"] if rest else tokens),
    st.lists(TOKENS, min_size=1, max_size=4),
    st.booleans(),
) | st.just(">")


def matches(pattern: str, topic: str) -> bool:
    wanted, tokens = pattern.split("."), topic.split(".")
    for index, word in enumerate(wanted):
        if word == ">":
            return len(tokens) > index
        if index >= len(tokens) or word not in ("*", tokens[index]):
            return False
    return len(tokens) == len(wanted)


@pytest.mark.parametrize("topic", ["a", "a.b", "sensors.kitchen.temp", "ä.b c.d", "a" + ".b" * 31])
def test_plain_tokens_are_a_topic_and_a_pattern(topic: str) -> None:
    check_topic(topic, 1024)
    check_pattern(topic, 1024)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "*",
        "a.>",
        "a*",
        "a.b>c",
        "x" * 1025,
        "\ud800",
        "a" + ".b" * 32,
    ],
)
def test_what_is_not_a_topic_is_refused(topic: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        check_topic(topic, 1024)
    assert caught.value.option == "topic"


@pytest.mark.parametrize("pattern", ["*", ">", "a.*", "*.b.*", "a.>", "*.>", "a.*.>"])
def test_wildcards_as_whole_tokens_are_a_pattern(pattern: str) -> None:
    check_pattern(pattern, 1024)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a..b",
        ">.a",
        "a.>.b",
        "a*",
        "*a.b",
        ">>",
        "a.b>",
        "y" * 1025,
        "\ud800",
        "*" + ".*" * 32,
    ],
)
def test_what_is_not_a_pattern_is_refused(pattern: str) -> None:
    assert not is_pattern(pattern, 1024)
    with pytest.raises(InvalidOption) as caught:
        check_pattern(pattern, 1024)
    assert caught.value.option == "pattern"


def test_star_stands_for_exactly_one_token_and_rest_for_one_or_more() -> None:
    table: TopicTable[str] = TopicTable(16)
    table.add("a.*", "star")
    table.add("a.>", "rest")
    assert table.match("a") == ()
    assert sorted(table.match("a.b")) == ["rest", "star"]
    assert table.match("a.b.c") == ("rest",)


def test_a_value_found_by_several_patterns_is_returned_once() -> None:
    table: TopicTable[int] = TopicTable(16)
    for pattern in ("a.b", "a.*", ">", "*.b"):
        table.add(pattern, 7)
    assert table.match("a.b") == (7,)


def test_a_change_is_seen_by_topics_matched_before() -> None:
    table: TopicTable[int] = TopicTable(16)
    assert table.match("a") == ()
    table.add("a", 1)
    assert table.match("a") == (1,)
    table.remove("a", 1)
    assert table.match("a") == ()


def test_removing_what_was_never_added_changes_nothing() -> None:
    table: TopicTable[int] = TopicTable(16)
    table.add("a.b", 1)
    table.remove("a.b", 2)
    table.remove("a", 1)
    table.remove("a.b.c", 1)
    assert table.match("a.b") == (1,)
    assert len(table) == 1


def test_remembered_topics_stay_within_the_cache() -> None:
    table: TopicTable[int] = TopicTable(10)
    table.add(">", 1)
    for number in range(100):
        assert table.match(f"t.{number}") == (1,)
        assert len(table._cache) <= 10


def test_a_topic_off_the_wire_with_wildcards_in_it_finds_each_value_once() -> None:
    table: TopicTable[int] = TopicTable(10)
    table.add("*", 1)
    table.add(">", 2)
    assert sorted(table.match("*")) == [1, 2]
    assert table.match(">") == (2, 1)


@given(
    st.lists(st.tuples(st.booleans(), PATTERNS, st.integers(0, 3)), max_size=30),
    st.lists(TOPICS, min_size=1, max_size=8),
)
def test_the_table_agrees_with_a_naive_matcher(
    changes: list[tuple[bool, str, int]], topics: list[str]
) -> None:
    table: TopicTable[int] = TopicTable(4)
    plain: dict[tuple[str, int], None] = {}
    for added, pattern, value in changes:
        if added:
            table.add(pattern, value)
            plain[pattern, value] = None
        else:
            table.remove(pattern, value)
            plain.pop((pattern, value), None)
        for topic in topics:
            expected = {v for p, v in plain if matches(p, topic)}
            found = table.match(topic)
            assert set(found) == expected
            assert len(found) == len(expected)
    assert len(table) == len(plain)
    for pattern, value in plain:
        table.remove(pattern, value)
    assert not table._root.branches
