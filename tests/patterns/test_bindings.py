"""What is declared of exchanges: what an application may say, and what is believed of peers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import InvalidOption, ProtocolError
from zmesh.options import WireLimits
from zmesh.patterns.bindings import (
    KINDS,
    Alternate,
    Binding,
    Declaration,
    Declared,
    Destination,
    DestinationKind,
    binding_of,
    check_exchange,
    check_kind,
    destination_of,
    from_value,
    key_of,
    to_value,
)
from zmesh.terms import Filter
from zmesh.wire.bodies import decode_body, encode_body

LIMITS = WireLimits()
QUEUE = Destination(DestinationKind.QUEUE, "work")
TEXTS = st.text("ab.é", max_size=8)
NAMES = st.text("abé", min_size=1, max_size=4)
VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from([0.5, "x", ""])
DESTINATIONS = st.builds(Destination, st.sampled_from(DestinationKind), NAMES)


def bindings() -> st.SearchStrategy[Binding]:
    keyed = st.builds(
        lambda name, kind, to, key, owner: Binding(name, kind, to, key, None, owner),
        NAMES, st.sampled_from(["direct", "topic"]), DESTINATIONS, TEXTS, TEXTS,
    )  # fmt: skip
    fanout = st.builds(lambda name, to: Binding(name, "fanout", to), NAMES, DESTINATIONS)
    headers = st.builds(
        lambda name, to, where, match: Binding(
            name, "headers", to, "", Filter(None, tuple(sorted(where.items())), match)
        ),
        NAMES, DESTINATIONS, st.dictionaries(NAMES, VALUES, min_size=1, max_size=3),
        st.sampled_from(["all", "any"]),
    )  # fmt: skip
    return keyed | fanout | headers


DECLARED = (
    st.builds(Declaration, NAMES, st.sampled_from(KINDS), st.integers(0, 2**50))
    | st.builds(Alternate, NAMES, NAMES, st.integers(0, 2**50))
    | bindings()
)


def travelled(declared: Declared) -> Declared:
    value = decode_body(*encode_body(to_value(declared)))
    return from_value(key_of(declared), value, LIMITS)


@given(DECLARED)
def test_a_declaration_comes_out_of_the_map_as_it_went_in(declared: Declared) -> None:
    assert travelled(declared) == declared


def test_what_is_declared_again_stands_at_the_same_key() -> None:
    assert key_of(Declaration("a", "topic")) == key_of(Declaration("a", "direct", 7))
    assert key_of(Alternate("a", "b")) == key_of(Alternate("a", "c"))
    plain = Binding("a", "direct", QUEUE, "k")
    assert key_of(plain) == key_of(Binding("a", "direct", QUEUE, "k"))
    different: list[Declared] = [
        plain,
        Declaration("a", "direct"),
        Alternate("a", "b"),
        Binding("b", "direct", QUEUE, "k"),
        Binding("a", "topic", QUEUE, "k"),
        Binding("a", "direct", Destination(DestinationKind.SUBJECT, "work"), "k"),
        Binding("a", "direct", QUEUE, "l"),
        Binding("a", "direct", QUEUE, "k", None, "ab" * 16),
        Binding("a", "headers", QUEUE, "", Filter(None, (("h", 1),))),
        Binding("a", "headers", QUEUE, "", Filter(None, (("h", True),))),
        Binding("a", "headers", QUEUE, "", Filter(None, (("h", 1),), "any")),
    ]
    assert len({key_of(each) for each in different}) == len(different)


# What an application may say


@pytest.mark.parametrize("kind", ["", "Topic", "x-delayed-message", None, 7, ["topic"]])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(InvalidOption, match='one of "direct", "topic", "fanout", "headers"'):
        check_kind(kind)


@pytest.mark.parametrize("name", ["", None, 7, "x" * 1025, "\ud800"])
def test_what_cannot_be_the_name_of_an_exchange_is_refused(name: object) -> None:
    with pytest.raises(InvalidOption, match="exchange"):
        check_exchange(name, LIMITS)


def test_there_is_one_destination() -> None:
    assert destination_of("work", None, None, LIMITS) == QUEUE
    assert destination_of(None, "a.b", None, LIMITS).kind is DestinationKind.SUBJECT
    assert destination_of(None, None, "other", LIMITS).kind is DestinationKind.EXCHANGE
    for named in [(None, None, None), ("a", "b", None), ("a", "b", "c")]:
        with pytest.raises(InvalidOption, match="one of queue=, subject= and exchange="):
            destination_of(*named, LIMITS)


@pytest.mark.parametrize(
    ("queue", "subject", "exchange", "option"),
    [
        ("", None, None, "queue"),
        (7, None, None, "queue"),
        ("x" * 1025, None, None, "size of queue"),
        (None, "", None, "subject"),
        (None, "a.*", None, "topic"),
        (None, "a.>", None, "topic"),
        (None, "a..b", None, "topic"),
        (None, None, "", "exchange"),
    ],
)
def test_what_cannot_be_a_destination_is_refused(
    queue: object, subject: object, exchange: object, option: str
) -> None:
    with pytest.raises(InvalidOption) as caught:
        destination_of(queue, subject, exchange, LIMITS)
    assert caught.value.option == option


@pytest.mark.parametrize(
    ("kind", "routing_key", "where", "match", "option"),
    [
        ("direct", None, None, "all", "routing_key"),
        ("direct", 7, None, "all", "routing_key"),
        ("direct", "x" * 1025, None, "all", "size of routing_key"),
        ("direct", "k", {"h": 1}, "all", "where"),
        ("direct", "k", None, "any", "where"),
        ("topic", None, None, "all", "routing_key"),
        ("topic", "a.b*", None, "all", "routing_key"),
        ("topic", "a.#b", None, "all", "routing_key"),
        ("topic", "a.>", None, "all", "routing_key"),
        ("topic", "#" + ".#" * 32, None, "all", "routing_key"),
        ("topic", "\ud800", None, "all", "routing_key"),
        ("topic", "#", {"h": 1}, "all", "where"),
        ("fanout", "k", None, "all", "routing_key"),
        ("fanout", "", None, "all", "routing_key"),
        ("fanout", None, {"h": 1}, "all", "where"),
        ("headers", "k", {"h": 1}, "all", "routing_key"),
        ("headers", None, None, "all", "where"),
        ("headers", None, {}, "all", "where"),
        ("headers", None, {"h": [1]}, "all", "where['h']"),
        ("headers", None, {"h": float("nan")}, "all", "where['h']"),
        ("headers", None, {7: 1}, "all", "header in where"),
        ("headers", None, {"h": 1}, "some", "match"),
    ],
)
def test_what_a_kind_cannot_look_for_is_refused(
    kind: str, routing_key: object, where: object, match: str, option: str
) -> None:
    declared = Declaration("x", check_kind(kind))
    with pytest.raises(InvalidOption) as caught:
        binding_of(declared, QUEUE, routing_key, where, match, LIMITS)  # type: ignore[arg-type]
    assert caught.value.option == option


# What a peer may have written

BINDING: list[object] = ["binding", "x", "direct", "queue", "q", "k", ""]


@pytest.mark.parametrize(
    "value",
    [
        None,
        "exchange",
        b"raw",
        [],
        ["exchange"],
        ["exchange", "x"],
        ["exchange", "", "topic", 7],
        ["exchange", "x", "odd", 7],
        ["exchange", "x", ["topic"], 7],
        ["exchange", "x", "topic"],
        ["exchange", "x", "topic", "now"],
        ["exchange", "x", "topic", 7, 8],
        ["alternate", "x", 7, 7],
        ["alternate", "x", "y", None],
        ["policy", "x", "y", 7],
        [*BINDING[:2], "odd", *BINDING[3:]],
        [*BINDING[:3], "stream", *BINDING[4:]],
        [*BINDING[:3], "subject", "a.*", "k", ""],
        [*BINDING[:5], 7, ""],
        [*BINDING[:6], None],
        [*BINDING, "all"],
        [*BINDING, "all", {"h": 1}],
        [*BINDING, "all", {"h": 1}, 2],
        ["binding", "x", "fanout", "queue", "q", "k", ""],
        ["binding", "x", "headers", "queue", "q", "", ""],
        ["binding", "x", "headers", "queue", "q", "", "", "all", {}],
        ["binding", "x", "headers", "queue", "q", "", "", ["all"], {"h": 1}],
        ["binding", "x", "headers", "queue", "q", "", "", "all", {"h": b"raw"}],
        ["binding", "x", "headers", "queue", "q", "", "", "all", {b"h": 1}],
        ["binding", "x", "topic", "queue", "q", "a*", ""],
    ],
)
def test_a_value_that_declares_nothing_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:
        from_value("key", value, LIMITS)
    assert caught.value.kind == "exchange"


def test_a_declaration_at_the_key_of_another_one_is_refused() -> None:
    first, second = Declaration("a", "topic"), Declaration("b", "topic")
    with pytest.raises(ProtocolError, match="another one"):
        from_value(key_of(first), to_value(second), LIMITS)


@given(
    st.recursive(
        VALUES | st.binary(max_size=2) | st.sampled_from([*BINDING, "all", "headers"]),
        lambda inner: st.lists(inner, max_size=9) | st.dictionaries(NAMES, inner, max_size=2),
        max_leaves=12,
    )
)
def test_whatever_a_peer_writes_is_a_declaration_or_refused(value: object) -> None:
    with pytest.raises(ProtocolError) as caught:  # nothing has this key
        from_value("key", value, LIMITS)
    assert caught.value.kind == "exchange"
