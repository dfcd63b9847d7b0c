"""Expressions from anybody: what they find, and what they may cost."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmesh.patterns.content import DEPTH_MAX, ContentError, Expression

STEPS_MAX = 10_000
BODY = {"unit": "C", "value": 21.5, "tags": ["indoor", "kitchen"], "parts": [{"n": 1}, {"n": 2}]}


def holds(text: str, body: object = BODY) -> bool:
    return Expression(text).holds(body, STEPS_MAX)[0]


@pytest.mark.parametrize("text", [
    "value > `20`", "unit == 'C' && value > `20`", "contains(tags, 'kitchen')", "unit",
    "parts[?n == `2`]", "length(parts) == `2`", "!missing", "starts_with(unit, 'C')",
    "sort_by(parts, &n)[0].n == `1`", "parts[].n | [0] == `1`", "tags[::-1] | [0] == 'kitchen'",
    "max_by(parts, &n).n > `1`", "values(@)[0] == 'C'", "parts == parts", "{a: unit}.a == 'C'",
])  # fmt: skip
def test_expression_holds(text: str) -> None:
    assert holds(text)


@pytest.mark.parametrize("text", [
    "value > `22`", "unit == 'F'", "missing", "contains(tags, 'bath')", "parts[?n == `3`]",
    "!unit",
    "value == '21.5'", "`[]`", "`{}`", "''", "`false`", "`null`",
])  # fmt: skip
def test_expression_does_not_hold(text: str) -> None:
    assert not holds(text)


@pytest.mark.parametrize("body", [None, 1, "text", [1, 2], {}, {1: 2}, b"bytes"])
def test_bodies_of_any_kind_are_looked_into(body: object) -> None:
    assert not holds("value > `20`", body)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a ==", "Incomplete"),
        ("a b", "b"),
        ("'open", "Unclosed"),
        ("nothing(a)", "there is no function nothing"),
        ("a[?nothing(b)]", "there is no function nothing"),
        ("!" * 900 + "a", "nested too deep"),
        (
            ".".join("a" * 1) + "".join(f" | [{'a'}]" for _ in range(60)),
            "nested more than 32 deep",
        ),
        ("", "empty"),
    ],
)
def test_what_does_not_parse_says_why(text: str, why: str) -> None:
    with pytest.raises(ContentError, match=why):
        Expression(text)


def test_depth_is_bounded_by_its_limit() -> None:
    Expression("!" * (DEPTH_MAX - 1) + "a")
    with pytest.raises(ContentError, match="nested more than"):
        Expression("!" * DEPTH_MAX + "a")


@pytest.mark.parametrize("text", [
    "length(value)", "sum(tags)", "join(',', parts)", "sort_by(parts, &missing)", "abs(unit)",
    "unit > `1`",
])  # fmt: skip
def test_evaluation_that_fails_is_a_content_error(text: str) -> None:
    with pytest.raises(ContentError):
        holds(text)


DOUBLED = "[@,@]" + "|[@,@]" * 14


@pytest.mark.parametrize("text", [
    DOUBLED + "|to_string(@)=='x'",
    DOUBLED + "|@==@",
    DOUBLED + "|contains(@,`1`)",
    DOUBLED + "|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]|[]",
    '`"\\"\\""`' + "|to_string([@])" * 20,
    "[numbers,numbers,numbers,numbers]|[]|map(&numbers,[@,@])|[@,@,@,@]",
    "numbers[?@>`-1`]|[?@>`-1`]|[?@>`-1`]",
    "numbers[::]|[::]|[::]|[::]|[::]|[::]|[::]|[::]|[::]|[::]|[::]|[::]",
    "numbers[].[numbers]|[]|[]",
])  # fmt: skip
def test_expression_that_grows_what_it_has_takes_too_many_steps(text: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ContentError, match="too many steps"):
        Expression(text).holds({"numbers": list(range(3000))}, 5_000)
    assert time.perf_counter() - began < 2.0


def test_steps_taken_are_told() -> None:
    _, few = Expression("value").holds(BODY, STEPS_MAX)
    _, more = Expression("value > `20`").holds(BODY, STEPS_MAX)
    assert 0 < few < more < 20
    _, large = Expression("numbers == `1`").holds({"numbers": list(range(1000))}, STEPS_MAX)
    assert large > 1000


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=12,
)
pieces = st.sampled_from([
    "a", "b", "@", ".", "|", "[]", "[*]", "*", "[0]", "[::2]", "[?", "]", "&&", "||", "!", "==",
    "<", "`1`", '`"x"`', "'x'", "(", ")", ",", "&", "length(", "sort(", "to_string(", "map(&a,",
    "sum(", "{a:", "}", "[", "join(", "merge(", "keys(", "reverse(", "max(", "to_number(", "`",
])  # fmt: skip


@given(st.lists(pieces, max_size=14).map("".join) | st.text(max_size=20), values)
@settings(max_examples=300, deadline=None)
def test_anything_gives_an_answer_or_a_content_error(text: str, body: object) -> None:
    try:
        expression = Expression(text)
    except ContentError:
        return
    try:
        answer, steps = expression.holds(body, 1000)
    except ContentError:
        return
    assert isinstance(answer, bool)
    assert 0 < steps <= 1000
