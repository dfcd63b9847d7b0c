"""Patterns against names and patterns, held to brute force over all names of few words."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.patterns.routing import TopicTable, is_pattern
from zmesh.patterns.routing import matches as topic_matches
from zmesh.security.coverage import covers, flaw_in, matches, overlaps, tokens_of

WORDS = ("a", "b", "c")
LENGTH = 5
"""One more than any pattern below has: `>` stands for more than is spelled."""

NAMES = [name for length in range(1, LENGTH + 1) for name in product(WORDS, repeat=length)]


@st.composite
def patterns(draw: st.DrawFn) -> tuple[str, ...]:
    # `c` is in no pattern, so it stands for every word that patterns do not spell.
    words = draw(st.lists(st.sampled_from(("a", "b", "*")), max_size=LENGTH - 1))
    if len(words) < LENGTH - 1 and draw(st.booleans()):
        words.append(">")
    return tuple(words or ("*",))


def all_of(pattern: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {name for name in NAMES if matches(pattern, name)}


@given(patterns(), st.sampled_from(NAMES))
def test_a_pattern_matches_what_it_matches_as_a_topic(
    pattern: tuple[str, ...], name: tuple[str, ...]
) -> None:
    table: TopicTable[int] = TopicTable(10)
    table.add(".".join(pattern), 1)
    found = table.match(".".join(name)) == (1,)
    assert matches(pattern, name) is found is topic_matches(pattern, ".".join(name))


@given(patterns(), patterns())
def test_one_pattern_covers_another_where_it_matches_all_that_that_matches(
    wide: tuple[str, ...], narrow: tuple[str, ...]
) -> None:
    assert covers(wide, narrow) is (all_of(narrow) <= all_of(wide))


@given(patterns(), patterns())
def test_two_patterns_overlap_where_some_name_matches_both(
    one: tuple[str, ...], other: tuple[str, ...]
) -> None:
    assert overlaps(one, other) is bool(all_of(one) & all_of(other))
    assert overlaps(one, other) is overlaps(other, one)


@given(st.text("ab.*>", max_size=8))
def test_what_is_a_pattern_of_rules_is_one_of_topics(text: str) -> None:
    assert (flaw_in(text) == "") is is_pattern(text, 1000)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "empty"), ("a..b", "empty"), ("a.>.b", "last"), ("a.b>", "last"), ("a*", "whole"),
        (".".join("a" * 33), "32"),
    ],
)  # fmt: skip
def test_flaws_are_told(pattern: str, why: str) -> None:
    assert why in flaw_in(pattern)


def test_names_from_the_wire_may_be_anything() -> None:
    assert matches(tokens_of("*"), tokens_of(""))
    assert matches(tokens_of(">"), tokens_of("..>.*"))
    assert not matches(tokens_of("a.b"), tokens_of("a.*"))
    assert matches(tokens_of("a.*"), tokens_of("a.>"))
