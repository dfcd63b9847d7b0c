"""What a node makes of the map of declarations, and what it writes there."""

import pytest

from zmesh.errors import ExchangeConflict, ExchangeUnknown, MapFull
from zmesh.options import WireLimits
from zmesh.patterns.bindings import (
    Alternate,
    Binding,
    Declaration,
    Declared,
    Destination,
    DestinationKind,
    from_value,
    key_of,
    to_value,
)
from zmesh.patterns.declarations import Declarations
from zmesh.wire.bodies import decode_body, encode_body

LOGS = Declaration("logs", "fanout")


class Map:
    """A map that one node writes, and is told of at once."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, bytes]] = {}
        self.written = 0
        self.there = {"other", "third"}
        self.keys_max = 100
        self.declarations = Declarations(
            "me", WireLimits(), 8, self.write, self.there.__contains__
        )

    def write(self, key: str, encoding: int | None, value: bytes) -> None:
        self.written += 1
        if encoding is None:
            self.remove(key)
            return
        if len(self.entries) >= self.keys_max:
            raise MapFull("zmesh.exchanges", len(self.entries), 0)
        self.set(key, encoding, value)

    def set(self, key: str, encoding: int, value: bytes) -> None:
        self.entries[key] = encoding, value
        self.declarations.on_change(key, encoding, value)

    def remove(self, key: str) -> None:
        """Let somebody delete a key."""
        if self.entries.pop(key, None) is None:
            return
        self.declarations.on_change(key, None, b"")

    def told(self, declared: Declared) -> Declared:
        """Return what stands at the key of a declaration."""
        key = key_of(declared)
        return from_value(key, decode_body(*self.entries[key]), WireLimits())

    def tell(self, declared: Declared) -> None:
        """Let another node write."""
        encoding, value = encode_body(to_value(declared))
        self.set(key_of(declared), int(encoding), bytes(value))


def bound(name: str, owner: str = "") -> Binding:
    to = Destination(DestinationKind.SUBJECT, name)
    return Binding("logs", "fanout", to, owner=owner)


def test_what_is_known_is_not_written_again() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(LOGS, None)
    own.declare(Declaration("x", "direct"), "logs")
    own.put(bound("a"))
    assert shared.written == 4
    own.declare(LOGS, None)
    own.declare(Declaration("x", "direct"), "logs")
    own.declare(Declaration("x", "direct"), None)  # which leaves the alternate as it is
    own.put(bound("a"))
    assert shared.written == 4
    assert own.table.alternate("x") == "logs"


def test_a_conflict_is_told_before_anything_is_written() -> None:
    shared = Map()
    own = shared.declarations
    shared.tell(LOGS)
    shared.tell(Declaration("x", "direct"))
    shared.tell(Alternate("x", "logs"))
    with pytest.raises(ExchangeConflict, match="kind='fanout', not with kind='topic'"):
        own.declare(Declaration("logs", "topic"), None)
    with pytest.raises(ExchangeConflict, match="alternate='logs', not with alternate='x'"):
        own.declare(Declaration("x", "direct"), "x")
    with pytest.raises(ExchangeUnknown) as caught:
        own.declare(Declaration("new", "direct"), "nowhere")
    assert (caught.value.name, caught.value.known) == ("nowhere", ("logs", "x"))
    assert shared.written == 0


def test_the_older_claim_holds_and_whoever_knows_it_says_so() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(Declaration("x", "direct", 100), None)
    own.declare(Declaration("logs", "fanout", 100), "x")
    younger: list[Declared] = [Declaration("logs", "topic", 200), Alternate("logs", "logs", 200)]
    for claim in younger:
        shared.tell(claim)
        assert (own.table.kind("logs"), own.table.alternate("logs")) == ("fanout", "x")
    own.tend()
    assert [shared.told(claim) for claim in younger] == [
        Declaration("logs", "fanout", 100),
        Alternate("logs", "x", 100),
    ]
    own.check_agreed(Declaration("logs", "fanout", 300))
    shared.tell(Declaration("logs", "topic", 50))
    with pytest.raises(ExchangeConflict, match="kind='topic', not with kind='fanout'"):
        own.check_agreed(LOGS)
    own.tend()
    assert shared.told(LOGS) == Declaration("logs", "topic", 50)


def test_of_claims_of_one_moment_all_choose_the_same() -> None:
    claims = [Declaration("logs", "fanout", 7), Declaration("logs", "topic", 7)]
    for first, second in (claims, reversed(claims)):
        shared = Map()
        shared.tell(first)
        shared.tell(second)
        shared.declarations.tend()
        assert shared.declarations.table.kind("logs") == "fanout"
        assert shared.told(LOGS) == claims[0]


def test_the_same_claim_again_is_no_dispute_and_keeps_its_age() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(Declaration("logs", "fanout", 100), None)
    shared.tell(Declaration("logs", "fanout", 300))
    own.tend()
    assert shared.written == 1
    shared.tell(Declaration("logs", "topic", 200))
    own.tend()
    assert shared.told(LOGS) == Declaration("logs", "fanout", 100)


def test_a_handle_learns_that_its_exchange_is_gone() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(LOGS, None)
    own.check_agreed(LOGS)
    assert own.erase(key_of(LOGS))
    assert not own.erase(key_of(LOGS))
    with pytest.raises(ExchangeUnknown):
        own.check_agreed(LOGS)


def test_what_declares_nothing_is_counted_and_takes_the_place_of_what_did() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(LOGS, None)
    for encoding, value in ((1, b"\xc1"), (0, b"raw"), (9, b""), (1, b"\x90")):
        shared.set(key_of(LOGS), encoding, value)
    assert (own.refused, own.table.exchanges()) == (4, {})


def test_what_a_node_owned_goes_when_it_leaves() -> None:
    shared = Map()
    own = shared.declarations
    for declared in (LOGS, bound("a"), bound("b", "other"), bound("c", "third")):
        shared.tell(declared)
    own.on_left("other")
    own.on_left("unheard of")
    own.tend()
    assert own.table.bindings("logs") == [bound("a"), bound("c", "third")]


def test_what_is_held_is_put_again_when_somebody_takes_it_back() -> None:
    shared = Map()
    own = shared.declarations
    own.declare(LOGS, None)
    mine = {key_of(each): each for each in (bound("a", "me"), bound("b", "me"))}
    own.hold(mine)
    shared.remove(next(iter(mine)))
    own.tend()
    assert set(own.table.bindings("logs")) == set(mine.values())
    own.let_go(mine)
    assert own.table.bindings("logs") == []
    assert list(shared.entries) == [key_of(LOGS)]


def test_what_is_held_is_put_as_soon_as_there_is_room() -> None:
    shared = Map()
    own = shared.declarations
    shared.tell(LOGS)
    shared.tell(bound("other"))
    mine = bound("a", "me")
    shared.keys_max = 2
    with pytest.raises(MapFull):
        own.hold({key_of(mine): mine})
    own.tend()
    assert mine not in own.table.bindings("logs")
    shared.remove(key_of(bound("other")))
    own.tend()
    assert own.table.bindings("logs") == [mine]


def test_what_a_former_life_owned_is_taken_back() -> None:
    shared = Map()
    shared.tell(LOGS)
    shared.tell(bound("a", "me"))
    shared.declarations.tend()
    assert list(shared.entries) == [key_of(LOGS)]
    assert shared.declarations.table.bindings("logs") == []


def test_where_there_is_no_room_what_strangers_own_is_taken_back() -> None:
    shared = Map()
    own = shared.declarations
    for declared in (LOGS, bound("a", "other"), bound("b", "gone"), bound("c", "me")):
        shared.tell(declared)
    shared.keys_max = 4
    own.put(bound("d"))
    owners = ["other", "me", ""]
    assert [each.owner for each in own.table.bindings("logs")] == owners
    with pytest.raises(MapFull):
        own.put(bound("e"))
    assert [each.owner for each in own.table.bindings("logs")] == owners
