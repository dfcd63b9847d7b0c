import tracemalloc
from contextlib import suppress
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import ProtocolError
from zmesh.message import (
    Encoding,
    Extras,
    Kind,
    Record,
    Tag,
    extra,
    head,
    with_extra,
    without_extra,
)
from zmesh.options import KIB, MIB, LinkOptions
from zmesh.reliable.fragments import Assembly, split

OPTIONS = LinkOptions()
HEAD = head(Kind.DIRECT, Encoding.MSGPACK)
BODY = bytes(range(250)) * 4  # 1000 bytes
KEYED: Record = (HEAD, "t", BODY, (Tag.HEADERS, b"h", Tag.KEY, "k"))


def together(pieces: list[Record], options: LinkOptions = OPTIONS) -> Record | None:
    assembly, whole = Assembly(pieces[0], options), None
    for piece in pieces[1:]:
        assert whole is None
        whole = assembly.add(piece)
    return whole


def announce(count: int, total: int, digest: bytes = bytes(16), piece: bytes = b"12345") -> Record:
    return (HEAD, "t", piece, (Tag.FRAGMENTS, (count, total, digest)))


def test_a_small_record_stays_whole() -> None:
    record: Record = (HEAD, "t", b"12345")
    assert split(record, 5) == [record]


def test_pieces_are_views_of_equal_size_but_the_last() -> None:
    pieces = split((HEAD, "t", BODY), 300)
    assert [len(piece[2]) for piece in pieces] == [300, 300, 300, 100]
    for piece in pieces:
        assert isinstance(piece[2], memoryview)
        assert piece[2].obj is BODY
    assert [piece[:2] for piece in pieces] == [(HEAD, "t"), *[(Kind.FRAGMENT, "")] * 3]
    assert [len(piece) for piece in pieces] == [4, 3, 3, 3]


def test_first_piece_announces_the_whole_beside_its_own_extras() -> None:
    first = split(KEYED, 300)[0]
    announced = extra(first, Tag.FRAGMENTS)
    assert isinstance(announced, tuple)
    assert announced[:2] == (4, 1000)
    assert extra(first, Tag.KEY) == "k"
    assert extra(first, Tag.HEADERS) == b"h"


def test_together_again_it_is_the_same_record() -> None:
    assert together(split(KEYED, 300)) == KEYED
    assert together(split((HEAD, "t", BODY), 500)) == (HEAD, "t", BODY)


def test_progress_can_be_read() -> None:
    pieces = split(KEYED, 300)
    assembly = Assembly(pieces[0], OPTIONS)
    assert (assembly.count, assembly.total_bytes, assembly.received_bytes) == (4, 1000, 300)
    assembly.add(pieces[1])
    assert assembly.received_bytes == 600


@given(
    st.binary(min_size=1, max_size=2000),
    st.integers(1, 700),
    st.sampled_from([(), (Tag.KEY, "k"), (Tag.TTL_MS, 5, Tag.CORRELATION, 7)]),
)
def test_any_body_survives_any_size_of_piece(body: bytes, size: int, extras: Extras) -> None:
    record: Record = (HEAD, "t", body, extras) if extras else (HEAD, "t", body)
    pieces = split(record, size)
    assert b"".join(piece[2] for piece in pieces) == body
    if len(body) > size:
        assert together(pieces) == record
    else:
        assert pieces == [record]


def test_a_changed_byte_is_found() -> None:
    pieces = split(KEYED, 300)
    pieces[2] = (pieces[2][0], "", bytes(300))
    with pytest.raises(ProtocolError, match="not what was announced"):
        together(pieces)


def test_swapped_pieces_are_found() -> None:
    pieces = split(KEYED, 300)
    pieces[1], pieces[2] = pieces[2], pieces[1]
    with pytest.raises(ProtocolError, match="not what was announced"):
        together(pieces)


@pytest.mark.parametrize("size", [0, 299, 301, 1000])
def test_a_middle_piece_of_another_size_is_refused(size: int) -> None:
    assembly = Assembly(split(KEYED, 300)[0], OPTIONS)
    with pytest.raises(ProtocolError, match=f"{size} bytes instead of 300"):
        assembly.add((Kind.FRAGMENT, "", bytes(size)))
    assert assembly.received_bytes == 300


@pytest.mark.parametrize("size", [0, 99, 101, 300])
def test_a_last_piece_of_another_size_is_refused(size: int) -> None:
    pieces = split(KEYED, 300)
    pieces[3] = (Kind.FRAGMENT, "", bytes(size))
    with pytest.raises(ProtocolError, match=f"{size} bytes instead of 100"):
        together(pieces)


@pytest.mark.parametrize("other", [(HEAD, "t", b"x" * 300), (Kind.FRAGMENT, "t", b"x" * 300)])
def test_another_record_among_the_pieces_is_refused(other: Record) -> None:
    assembly = Assembly(split(KEYED, 300)[0], OPTIONS)
    with pytest.raises(ProtocolError, match="3 pieces are missing"):
        assembly.add(other)


@pytest.mark.parametrize(
    "first",
    [
        (HEAD, "t", b"12345"),
        with_extra((HEAD, "t", b"12345"), Tag.FRAGMENTS, ((2, 10),)),
        with_extra((HEAD, "t", b"12345"), Tag.FRAGMENTS, "2"),
        announce(2, 10, digest=bytes(15)),
        announce(1, 5),
        announce(0, 0),
        announce(-1, -3),
        announce(2, 5),
        announce(2, 11),
        announce(3, 10),
        announce(2, 10, piece=b""),
        announce(2**40, 5 * 2**40),
    ],
)
def test_an_announcement_that_cannot_be_true_is_refused(first: Record) -> None:
    with pytest.raises(ProtocolError):
        Assembly(first, OPTIONS)


def test_a_body_above_the_limit_is_refused_at_its_first_piece() -> None:
    pieces = split(KEYED, 300)
    assert together(pieces, LinkOptions(body_bytes_max=1000)) == KEYED
    with pytest.raises(ProtocolError, match="1000 bytes are over 999"):
        Assembly(pieces[0], LinkOptions(body_bytes_max=999))


def test_announced_size_is_not_allocated() -> None:
    tracemalloc.start()
    try:
        Assembly(announce(1024, 64 * MIB, piece=bytes(64 * KIB)), OPTIONS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MIB


def test_body_is_held_once_while_it_is_put_together() -> None:
    pieces = split((HEAD, "t", bytes(8 * MIB)), 64 * KIB)
    tracemalloc.start()
    try:
        whole = together(pieces)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert whole is not None
    assert peak < 1.5 * 8 * MIB


@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just(Tag.FRAGMENTS), st.tuples(st.integers(), st.integers(), st.binary())
            ),
            st.tuples(st.just(Tag.KEY), st.text()),
        ),
        max_size=3,
    ),
    st.lists(st.tuples(st.sampled_from([0, 15, 31]), st.just(""), st.binary()), min_size=1),
)
def test_arbitrary_pieces_raise_nothing_but_protocol_errors(
    extras: list[tuple[Tag, str | tuple[int, int, bytes]]],
    pieces: list[tuple[int, str, bytes]],
) -> None:
    first: Record = (*pieces[0], tuple(chain.from_iterable(extras)))
    with suppress(ProtocolError):
        together([first, *pieces[1:]])


def test_an_extra_can_be_taken_off_again() -> None:
    assert without_extra(KEYED, Tag.HEADERS) == (HEAD, "t", BODY, (Tag.KEY, "k"))
    assert without_extra(KEYED, Tag.TTL_MS) == KEYED
    one: Record = (HEAD, "t", BODY, (Tag.KEY, "k"))
    assert without_extra(one, Tag.KEY) == (HEAD, "t", BODY)
    assert without_extra((HEAD, "t", BODY), Tag.KEY) == (HEAD, "t", BODY)
