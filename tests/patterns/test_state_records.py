"""What replicas tell each other survives the wire; what no replica tells is refused."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgpack import packb

from tests.patterns.maps import entry, origin, tombstone
from zmesh.errors import ProtocolError
from zmesh.patterns.state_records import (
    Ask,
    Delta,
    Digest,
    Fetch,
    Piece,
    decode,
    encode_ask,
    encode_delta,
    encode_digest,
    encode_fetch,
    encode_piece,
)

MAX = 10_000


def test_every_record_comes_back_as_it_was() -> None:
    delta = Delta(origin("a"), 3, 9, [("k", entry(4)), ("ü", tombstone(9))])
    ask = Ask(7, b"12345678", 1000)
    digest = Digest(7, True, 1000, {origin("a"): 9, origin("b"): 0}, bytes(2048))
    fetch = Fetch(7, (0, 255), frozenset({1, 2**64 - 1}))
    piece = Piece(7, False, [("k", entry(4, "b")), ("l", tombstone(5))], frozenset({3}))
    assert decode(encode_delta(delta), MAX) == delta
    assert decode(encode_ask(ask), MAX) == ask
    assert decode(encode_digest(digest), MAX) == digest
    assert decode(encode_fetch(fetch), MAX) == fetch
    assert decode(encode_piece(piece), MAX) == piece


ORIGIN = origin("a")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        ["0"],
        [True, 1, b"12345678", 0],
        [99],
        [0, ORIGIN, 0, 1],
        [0, ORIGIN[1:], 0, 1, []],
        [0, ORIGIN, 2, 1, []],
        [0, ORIGIN, -1, 1, []],
        [0, ORIGIN, 0, 2**63, []],
        [0, ORIGIN, 0, 5, [["k", 6, 0, b""]]],  # beyond the end
        [0, ORIGIN, 3, 5, [["k", 3, 0, b""]]],  # before the beginning
        [0, ORIGIN, 0, 5, [["k", 4, 0, b""], ["l", 4, 0, b""]]],  # not ascending
        [0, ORIGIN, 0, 5, [["", 4, 0, b""]]],
        [0, ORIGIN, 0, 5, [[b"k", 4, 0, b""]]],
        [0, ORIGIN, 0, 5, [["k", 4, 256, b""]]],
        [0, ORIGIN, 0, 5, [["k", 4, 0, "v"]]],
        [0, ORIGIN, 0, 5, [["k", 4, 255, b"v"]]],  # deleted, and yet a value
        [1, 7, b"1234567", 0],
        [1, -1, b"12345678", 0],
        [1, 7, b"12345678", -1],
        [2, 7, 1, 0, [], b""],
        [2, 7, True, 0, [[ORIGIN]], b""],
        [2, 7, True, None, [], b""],
        [2, 7, True, 0, [], bytes(2047)],
        [2, 7, True, 0, {}, b""],
        [3, 7, b"\1\1", b""],
        [3, 7, [1], b""],
        [3, 7, b"\1", bytes(7)],
        [4, 7, None, [], b""],
        [4, 7, False, [["k", 0, ORIGIN, 0, b""]], b""],
        [4, 7, False, [["k", 1, ORIGIN, 0]], b""],
        [4, 7, False, [], bytes(9)],
    ],
)
def test_what_no_replica_tells_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode(packb(value), MAX)


def test_a_record_over_the_limit_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(ProtocolError, match="oversized"):
        decode(b"\xc1" * 101, 100)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_protocol_errors(body: bytes) -> None:
    with suppress(ProtocolError):
        decode(body, MAX)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**63) | st.binary(max_size=30) | st.text(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=50)
@given(st.integers(0, 4), st.lists(VALUES, min_size=2, max_size=4))
def test_random_fields_raise_nothing_but_protocol_errors(kind: int, fields: list[object]) -> None:
    with suppress(ProtocolError):
        decode(packb([kind, *fields]), MAX)
