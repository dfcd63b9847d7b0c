"""Filters by type, headers and content: what passes, what is refused, and what they may cost."""

import json
from collections.abc import Mapping

import pytest

from zmesh.errors import InvalidOption, MissingPackage
from zmesh.message import Encoding, Kind, Record, Tag, head
from zmesh.options import NodeOptions, WireLimits
from zmesh.patterns import filters
from zmesh.patterns.filters import Allowance, Filters, Sieve, Sight, filter_of
from zmesh.patterns.wanted import sieve_of
from zmesh.terms import Filter, Match, Scalar
from zmesh.wire.bodies import HeaderValue, encode_body, encode_headers

LIMITS = WireLimits()


def record_of(
    body: object = None, kind: str | None = None, headers: Mapping[str, HeaderValue] | None = None
) -> Record:
    encoding, data = encode_body(body)
    extras: list[int | str | bytes] = []
    if headers is not None:
        extras += (int(Tag.HEADERS), encode_headers(headers))
    if kind is not None:
        extras += (int(Tag.TYPE), kind)
    plain = (head(Kind.PUBLICATION, encoding), "t", data)
    return (*plain, tuple(extras)) if extras else plain


def sieve(
    kind: str | None = None,
    where: Mapping[str, Scalar] | None = None,
    match: Match = "all",
    content: str | None = None,
) -> Sieve:
    wanted = filter_of(kind, where, match, content, LIMITS)
    assert wanted is not None
    return sieve_of(wanted)


def passes(wanted: Sieve, record: Record, options: NodeOptions | None = None) -> bool | None:
    return Filters(options or NodeOptions()).passes(wanted, Sight(record), 0.0)


# What passes


def test_type_is_compared() -> None:
    assert passes(sieve("reading"), record_of(1, "reading"))
    assert not passes(sieve("reading"), record_of(1, "alarm"))
    assert not passes(sieve("reading"), record_of(1))


@pytest.mark.parametrize(
    ("where", "match", "headers", "expected"),
    [
        ({"unit": "C"}, "all", {"unit": "C", "floor": 1}, True),
        ({"unit": "C"}, "all", {"unit": "F"}, False),
        ({"unit": "C"}, "all", {}, False),
        ({"unit": "C", "floor": 1}, "all", {"unit": "C"}, False),
        ({"unit": "C", "floor": 1}, "all", {"unit": "C", "floor": 1}, True),
        ({"unit": "C", "floor": 1}, "any", {"unit": "C"}, True),
        ({"unit": "C", "floor": 1}, "any", {"unit": "F", "floor": 2}, False),
        ({"x": 1}, "all", {"x": True}, False),
        ({"x": True}, "all", {"x": 1}, False),
        ({"x": True}, "all", {"x": True}, True),
        ({"x": 1}, "all", {"x": 1.0}, True),
        ({"x": "1"}, "all", {"x": 1}, False),
        ({"x": None}, "all", {"x": None}, True),
        ({"x": None}, "all", {}, False),
        ({"x": "b"}, "all", {"x": b"b"}, False),
    ],
)
def test_headers_are_compared(
    where: dict[str, Scalar], match: Match, headers: dict[str, HeaderValue], expected: bool
) -> None:
    assert passes(sieve(where=where, match=match), record_of(1, headers=headers)) is expected


def test_content_is_evaluated() -> None:
    warm = sieve(content="value > `20`")
    assert passes(warm, record_of({"value": 21.5}))
    assert not passes(warm, record_of({"value": 19}))


def test_all_that_is_asked_for_must_hold() -> None:
    wanted = sieve("reading", {"unit": "C"}, content="value > `20`")
    body = {"value": 21}
    assert passes(wanted, record_of(body, "reading", {"unit": "C"}))
    assert not passes(wanted, record_of(body, "alarm", {"unit": "C"}))
    assert not passes(wanted, record_of(body, "reading", {"unit": "F"}))
    assert not passes(wanted, record_of({"value": 2}, "reading", {"unit": "C"}))


def test_body_without_an_inside_has_no_content() -> None:
    anything = sieve(content="@ || `true`")
    assert passes(anything, record_of(1))
    assert not passes(anything, record_of(b"bytes"))
    assert not passes(anything, (head(Kind.PUBLICATION, Encoding.MSGPACK), "t", b"\xc1"))


def test_body_over_the_limit_has_no_content() -> None:
    options = NodeOptions(content_bytes_max=10)
    anything = sieve(content="@")
    assert passes(anything, record_of("x" * 9), options)
    assert not passes(anything, record_of("x" * 10), options)


def test_headers_that_are_not_valid_pass_no_filter() -> None:
    broken: Record = (head(Kind.PUBLICATION), "t", b"", (int(Tag.HEADERS), b"\xc1"))
    assert not passes(sieve(where={"unit": "C"}), broken)


# What it costs


def test_each_distinct_filter_is_evaluated_once_a_publication() -> None:
    running, sight = Filters(NodeOptions()), Sight(record_of({"value": 21}))
    allowance = Allowance(1000, 0.0)
    for _ in range(500):
        assert running.passes(sieve(content="value > `20`"), sight, 0.0, allowance)
    assert allowance.is_left(0.0)
    assert len(sight.answers) == 1


def test_filters_that_differ_in_the_type_of_a_value_are_not_taken_for_one() -> None:
    running, sight = Filters(NodeOptions()), Sight(record_of(1, headers={"x": True}))
    answers = [
        running.passes(sieve(where={"x": value}), sight, 0.0) for value in (1, True, 1.0, "1")
    ]
    assert answers == [False, True, False, False]


def test_evaluation_that_fails_wants_nothing_and_is_counted() -> None:
    running = Filters(NodeOptions())
    broken = Sieve(Filter(content="a =="), "from a peer that did not look")
    for wanted in (sieve(content="length(value)"), broken):
        assert running.passes(wanted, Sight(record_of({"value": 21})), 0.0) is False
    assert running.failed == 2


def test_evaluation_with_too_many_steps_wants_nothing() -> None:
    running = Filters(NodeOptions(filter_steps_max=100))
    wanted = sieve(content="numbers[?@ > `5`]")
    assert running.passes(wanted, Sight(record_of({"numbers": [6, 7]})), 0.0) is True
    assert running.passes(wanted, Sight(record_of({"numbers": [6] * 100})), 0.0) is False
    assert running.failed == 1


def test_peer_whose_steps_are_used_up_is_not_filtered_for_until_they_are_back() -> None:
    running = Filters(NodeOptions())
    allowance = Allowance(100, 0.0)
    wanted = sieve(content="value > `20`")

    def ask(now: float) -> bool | None:
        return running.passes(wanted, Sight(record_of({"value": 1})), now, allowance)

    answers = [ask(0.0) for _ in range(20)]
    assert answers[0] is False
    assert answers[-1] is None
    assert running.passed_over == answers.count(None) > 0
    assert ask(1.0) is False


def test_type_and_headers_cost_no_steps() -> None:
    running, allowance = Filters(NodeOptions()), Allowance(1, 0.0)
    wanted = sieve("reading", {"unit": "C"}, content="@")
    for _ in range(10):
        assert running.passes(wanted, Sight(record_of(1, "alarm")), 0.0, allowance) is False


def test_without_jmespath_a_publisher_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    warm = sieve(content="value > `20`")
    monkeypatch.setattr(filters, "HAS_CONTENT", False)
    assert passes(warm, record_of({"value": 1})) is None
    assert passes(sieve("reading"), record_of(1, "alarm")) is False
    with pytest.raises(MissingPackage, match=r"jmespath.*zmesh\[content\]"):
        filter_of(None, None, "all", "value", LIMITS)


# What cannot work


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": ""}, "type"),
        ({"kind": 1}, "type"),
        ({"kind": "x" * 1025}, "type"),
        ({"where": {}}, "where"),
        ({"where": ["unit"]}, "where"),
        ({"where": {1: "C"}}, "header in where"),
        ({"where": {"unit": b"C"}}, r"where\['unit'\]"),
        ({"where": {"unit": ["C"]}}, r"where\['unit'\]"),
        ({"where": {"unit": float("nan")}}, r"where\['unit'\]"),
        ({"where": {"unit": float("inf")}}, r"where\['unit'\]"),
        ({"where": {"unit": "\ud800"}}, r"where\['unit'\]"),
        ({"where": {str(n): n for n in range(65)}}, "where"),
        ({"match": "some", "where": {"unit": "C"}}, "match"),
        ({"content": "value >"}, "content.*JMESPath"),
        ({"content": "nothing(value)"}, "content.*nothing"),
        ({"content": 1}, "content"),
        ({"content": "a" * 1025}, "content"),
    ],
)
def test_filter_that_cannot_work_is_refused_by_name(
    options: dict[str, object], named: str
) -> None:
    told: dict[str, object] = {"kind": None, "where": None, "match": "all", "content": None}
    with pytest.raises(InvalidOption, match=named):
        filter_of(**told | options, limits=LIMITS)  # type: ignore[arg-type]


def test_asking_for_nothing_special_is_no_filter() -> None:
    assert filter_of(None, None, "all", None, LIMITS) is None


def test_text_of_a_filter_is_json_and_the_same_for_equal_ones() -> None:
    one = sieve("reading", {"b": 1, "a": "x"}, "any", "value")
    other = sieve("reading", {"a": "x", "b": 1}, "any", "value")
    assert one.text == other.text
    assert json.loads(one.text) == {
        "type": "reading", "where": {"a": "x", "b": 1}, "any": True, "content": "value",
    }  # fmt: skip
