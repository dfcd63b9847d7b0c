"""The routing table, held against the plainest router there is, and RabbitMQ's own examples."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    key_of,
)
from zmesh.patterns.exchanges import RoutingTable
from zmesh.terms import ExchangeKind, Match, Scalar
from zmesh.wire.bodies import HeaderValue

LIMITS = WireLimits()


def queue(name: str) -> Destination:
    return Destination(DestinationKind.QUEUE, name)


def subject(name: str) -> Destination:
    return Destination(DestinationKind.SUBJECT, name)


def exchange(name: str) -> Destination:
    return Destination(DestinationKind.EXCHANGE, name)


class Table:
    """A routing table, declared as an application does it."""

    def __init__(self) -> None:
        self.table = RoutingTable(cache_max=8)
        self.heard: set[str] = set()

    def put(self, declared: Declared) -> None:
        self.table.put(key_of(declared), declared)

    def remove(self, declared: Declared) -> None:
        self.table.remove(key_of(declared))

    def declare(self, name: str, kind: ExchangeKind, alternate: str | None = None) -> None:
        self.put(Declaration(name, kind))
        if alternate is not None:
            self.put(Alternate(name, alternate))

    def bind(
        self,
        name: str,
        to: Destination,
        routing_key: str | None = None,
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
        owner: str = "",
    ) -> Binding:
        kind = self.table.kind(name)
        assert kind is not None
        binding = binding_of(Declaration(name, kind), to, routing_key, where, match, LIMITS, owner)
        self.put(binding)
        return binding

    def route(
        self, name: str, routing_key: str = "", headers: Mapping[str, HeaderValue] | None = None
    ) -> list[str]:
        found = self.table.route(name, routing_key, headers or {}, self.heard.__contains__)
        return sorted(destination.name for destination in found)


# Kinds


def test_a_direct_exchange_sends_by_the_very_key() -> None:
    table = Table()
    table.declare("logs", "direct")
    table.bind("logs", queue("all"), "info")
    table.bind("logs", queue("all"), "error")
    table.bind("logs", queue("disk"), "error")
    assert table.route("logs", "info") == ["all"]
    assert table.route("logs", "error") == ["all", "disk"]
    assert table.route("logs", "error.disk") == table.route("logs") == []


def test_a_topic_exchange_sends_as_the_tutorial_of_rabbitmq_says() -> None:
    table = Table()
    table.declare("animals", "topic")
    table.bind("animals", queue("Q1"), "*.orange.*")
    table.bind("animals", queue("Q2"), "*.*.rabbit")
    table.bind("animals", queue("Q2"), "lazy.#")
    assert table.route("animals", "quick.orange.rabbit") == ["Q1", "Q2"]
    assert table.route("animals", "lazy.orange.elephant") == ["Q1", "Q2"]
    assert table.route("animals", "quick.orange.fox") == ["Q1"]
    assert table.route("animals", "lazy.brown.fox") == ["Q2"]
    assert table.route("animals", "lazy.pink.rabbit") == ["Q2"]  # once
    assert table.route("animals", "quick.brown.fox") == []
    assert table.route("animals", "orange") == []
    assert table.route("animals", "quick.orange.new.rabbit") == []
    assert table.route("animals", "lazy.orange.new.rabbit") == ["Q2"]
    assert table.route("animals", "lazy") == ["Q2"]


def test_a_fanout_exchange_sends_to_all() -> None:
    table = Table()
    table.declare("logs", "fanout")
    for name in ("a", "b"):
        table.bind("logs", queue(name))
    assert table.route("logs", "whatever") == ["a", "b"]


def test_a_headers_exchange_sends_by_all_or_any_of_the_headers() -> None:
    table = Table()
    table.declare("docs", "headers")
    table.bind("docs", queue("all"), where={"format": "pdf", "type": "report"})
    table.bind("docs", queue("any"), where={"format": "pdf", "type": "report"}, match="any")
    both: dict[str, HeaderValue] = {"format": "pdf", "type": "report", "pages": 7}
    assert table.route("docs", "", both) == ["all", "any"]
    assert table.route("docs", "", {"format": "pdf"}) == ["any"]
    assert table.route("docs", "", {"format": "zip"}) == table.route("docs") == []


def test_headers_that_python_takes_for_equal_are_two_bindings() -> None:
    table = Table()
    table.declare("x", "headers")
    one = table.bind("x", queue("q"), where={"h": 1})
    true = table.bind("x", queue("q"), where={"h": True})
    assert one == true
    table.remove(true)
    assert (table.route("x", "", {"h": 1}), table.route("x", "", {"h": True})) == (["q"], [])
    table.remove(one)
    assert table.route("x", "", {"h": 1}) == []


# Destinations


def test_a_message_goes_to_a_destination_once_however_many_ways_lead_there() -> None:
    table = Table()
    table.declare("a", "topic")
    table.declare("b", "fanout")
    table.declare("c", "direct")
    for key in ("#", "x.#", "*.y"):
        table.bind("a", queue("q"), key)
        table.bind("a", exchange("b"), key)
    table.bind("a", exchange("c"), "#")
    table.bind("b", queue("q"))
    table.bind("c", queue("q"), "x.y")
    assert table.route("a", "x.y") == ["q"]


def test_a_queue_and_a_subject_of_one_name_are_two() -> None:
    table = Table()
    table.heard.add("q")
    table.declare("x", "fanout")
    table.bind("x", queue("q"))
    table.bind("x", subject("q"))
    assert table.route("x") == ["q", "q"]


def test_a_subject_counts_while_somebody_subscribes() -> None:
    table = Table()
    table.declare("x", "fanout", alternate="rest")
    table.declare("rest", "fanout")
    table.bind("rest", queue("unheard"))
    table.bind("x", subject("news"))
    assert table.route("x") == ["unheard"]
    table.heard.add("news")
    assert table.route("x") == ["news"]


def test_exchanges_bound_in_a_circle_end() -> None:
    table = Table()
    names = ["a", "b", "c", "a"]
    for name in names[:3]:
        table.declare(name, "fanout")
        table.bind(name, queue(f"of {name}"))
    for one, other in pairwise(names):
        table.bind(one, exchange(other))
    table.bind("a", exchange("a"))
    for name in names[:3]:
        assert table.route(name) == ["of a", "of b", "of c"]


def test_the_key_and_headers_stay_with_the_message_from_exchange_to_exchange() -> None:
    table = Table()
    table.declare("first", "fanout")
    table.declare("keys", "topic")
    table.declare("heads", "headers")
    table.bind("first", exchange("keys"))
    table.bind("first", exchange("heads"))
    table.bind("keys", queue("by key"), "a.*")
    table.bind("heads", queue("by header"), where={"h": 1})
    assert table.route("first", "a.b", {"h": 1}) == ["by header", "by key"]
    assert table.route("first", "b", {"h": 2}) == []


# Alternates


def test_what_matches_no_binding_goes_to_the_alternate() -> None:
    table = Table()
    table.declare("x", "direct", alternate="rest")
    table.declare("rest", "fanout")
    table.bind("x", queue("wanted"), "k")
    table.bind("rest", queue("lost"))
    assert table.route("x", "k") == ["wanted"]
    assert table.route("x", "other") == ["lost"]


def test_an_alternate_has_one_in_its_turn_and_a_circle_of_them_ends() -> None:
    table = Table()
    table.declare("a", "direct", alternate="b")
    table.declare("b", "direct", alternate="c")
    table.declare("c", "direct", alternate="a")
    assert table.route("a", "k") == []
    table.bind("c", queue("last"), "k")
    assert table.route("a", "k") == ["last"]


def test_an_exchange_that_is_bound_counts_as_wanting_what_matches() -> None:
    """As in RabbitMQ: the alternate is for what matches no binding, not for what ends nowhere."""
    table = Table()
    table.declare("a", "fanout", alternate="rest")
    table.declare("rest", "fanout")
    table.declare("b", "direct")
    table.bind("rest", queue("lost"))
    table.bind("a", exchange("b"))
    assert table.route("a", "k") == []
    table.put(Alternate("b", "rest"))
    assert table.route("a", "k") == ["lost"]


def test_an_alternate_or_destination_that_is_not_declared_leads_nowhere() -> None:
    table = Table()
    table.declare("x", "direct", alternate="nowhere")
    table.bind("x", exchange("neither"), "k")
    assert table.route("x", "k") == table.route("x", "other") == table.route("nothing") == []


# What comes in any order


def test_a_binding_counts_once_its_exchange_is_declared_and_of_its_kind() -> None:
    table = Table()
    table.put(Alternate("x", "rest"))
    table.put(Binding("x", "direct", queue("q"), "k"))
    table.declare("rest", "fanout")
    table.bind("rest", queue("lost"))
    assert table.route("x", "k") == []
    assert table.table.kind("x") is None
    table.declare("x", "topic")
    assert (table.route("x", "k"), table.table.bindings("x")) == (["lost"], [])
    table.declare("x", "direct")
    assert table.route("x", "k") == ["q"]
    assert table.table.exchanges() == {"rest": "fanout", "x": "direct"}
    assert table.table.alternate("x") == "rest"


def test_what_is_forgotten_leaves_nothing() -> None:
    table = Table()
    table.declare("x", "topic", alternate="y")
    bound = table.bind("x", queue("q"), "a.#", owner="ab")
    assert table.table.owned("ab") == [key_of(bound)]
    assert key_of(bound) in table.table
    assert table.table.get(key_of(bound)) == bound
    for declared in (Declaration("x", "topic"), Alternate("x", "y"), bound, bound):
        table.remove(declared)
    assert (table.table._exchanges, table.table._declared, table.table._owned) == ({}, {}, {})


# Against the plainest router

NAMES = ["a", "b", "c"]
WORDS = st.lists(st.sampled_from(["x", "y"]), max_size=3).map(".".join)
PATTERNS = st.lists(st.sampled_from(["x", "y", "*", "#"]), max_size=4).map(".".join)
WHERES: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(
    st.sampled_from("hi"), st.sampled_from([1, True, "1"]), min_size=1
)
TARGETS = st.sampled_from(
    [*map(queue, "qr"), *map(subject, ["heard", "unheard"]), *map(exchange, NAMES)]
)


@st.composite
def declarations(draw: st.DrawFn) -> Declared:
    name = draw(st.sampled_from(NAMES))
    kind = draw(st.sampled_from(KINDS))
    choice = draw(st.integers(0, 5))
    if choice == 0:
        return Declaration(name, kind)
    if choice == 1:
        return Alternate(name, draw(st.sampled_from(NAMES)))
    key = draw(PATTERNS if kind == "topic" else WORDS) if kind in ("direct", "topic") else None
    where = draw(WHERES) if kind == "headers" else None
    match: Match = "any" if kind == "headers" and draw(st.booleans()) else "all"
    return binding_of(Declaration(name, kind), draw(TARGETS), key, where, match, LIMITS)


def pattern_matches(pattern: str, key: str) -> bool:
    """Match as regular expressions do: each word with the dot after it."""
    words = "".join(
        {"*": r"[^.]*\.", "#": r"([^.]*\.)*"}.get(word, re.escape(word) + r"\.")
        for word in (pattern.split(".") if pattern else ())
    )
    return re.fullmatch(words, key + "." if key else "") is not None


def wants(binding: Binding, key: str, headers: Mapping[str, HeaderValue]) -> bool:
    match binding.kind:
        case "direct":
            return binding.routing_key == key
        case "topic":
            return pattern_matches(binding.routing_key, key)
        case "fanout":
            return True
        case _:
            assert binding.headers is not None
            same = [
                n in headers and headers[n] == v and type(headers[n]) is type(v)
                for n, v in binding.headers.where
            ]
            return all(same) if binding.headers.match == "all" else any(same)


def plain_route(
    declared: Mapping[str, Declared],
    name: str,
    key: str,
    headers: Mapping[str, HeaderValue],
    is_heard: Callable[[str], bool],
) -> set[Destination]:
    kinds = {d.name: d.kind for d in declared.values() if isinstance(d, Declaration)}
    reached, found = [name], set[Destination]()
    for each in reached:  # which grows meanwhile
        kind = kinds.get(each)
        if kind is None:
            continue
        to = {
            d.destination
            for d in declared.values()
            if isinstance(d, Binding) and (d.exchange, d.kind) == (each, kind)
            if wants(d, key, headers)
            if d.destination.kind is not DestinationKind.SUBJECT or is_heard(d.destination.name)
        }
        to = to or {
            exchange(d.name)
            for d in declared.values()
            if isinstance(d, Alternate) and d.exchange == each
        }
        found |= {d for d in to if d.kind is not DestinationKind.EXCHANGE}
        reached += sorted(
            d.name for d in to if d.kind is DestinationKind.EXCHANGE and d.name not in reached
        )
    return found


@given(
    st.lists(st.tuples(st.booleans() | st.just(value=True), declarations()), max_size=25),
    st.sampled_from(NAMES),
    WORDS,
    st.dictionaries(st.sampled_from("hij"), st.sampled_from([1, True, "1"])),
)
def test_the_table_agrees_with_a_plain_router(
    changes: list[tuple[bool, Declared]],
    name: str,
    key: str,
    headers: dict[str, HeaderValue],
) -> None:
    table, plain = Table(), dict[str, Declared]()
    table.heard.add("heard")
    for is_added, declared in changes:
        if is_added:
            table.put(declared)
            plain[key_of(declared)] = declared
        else:
            table.remove(declared)
            plain.pop(key_of(declared), None)
        found = table.table.route(name, key, headers, table.heard.__contains__)
        assert len(set(found)) == len(found)
        wanted = plain_route(plain, name, key, headers, table.heard.__contains__)
        assert set(found) == wanted
    for each in plain.values():
        table.remove(each)
    assert (table.table._exchanges, table.table._declared) == ({}, {})


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("#", "", True),
        ("", "", True),
        ("*", "", False),
        ("*", "a", True),
        ("#", "a.b.c", True),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#.a", "a", True),
        ("#.a", "b.c.a", True),
        ("a.#.b", "a.b", True),
        ("a.#.b", "a.x.y.b", True),
        ("a.#.b", "a.x.y", False),
        ("#.#", "", True),
        ("#.*", "", False),
        ("#.*", "a", True),
        ("*.#.*", "a", False),
        ("*.#.*", "a.b", True),
        ("a..b", "a..b", True),
        ("a.*.b", "a..b", True),
        ("a.", "a.", True),
        ("a", "a.", False),
        ("a.*", "a.", True),
        ("a.*", "a", False),
    ],
)
def test_keys_match_as_in_rabbitmq(pattern: str, key: str, expected: bool) -> None:
    table = Table()
    table.declare("x", "topic")
    table.bind("x", queue("q"), pattern)
    assert bool(table.route("x", key)) is expected
    assert pattern_matches(pattern, key) is expected
