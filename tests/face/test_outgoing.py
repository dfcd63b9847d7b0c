"""Bodies and options made into records."""

from collections.abc import Iterator
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sizes import total_size
from zmesh.errors import BodyNotEncodable, BodyTooLarge
from zmesh.face.outgoing import Outgoing, RemoteFailure, failure_of
from zmesh.face.signing import LIFE_BITS, Signing
from zmesh.ids import JournalId
from zmesh.message import Encoding, Kind, Tag, extra, head, size_of
from zmesh.options import LinkOptions, NodeOptions
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Roots, Signature
from zmesh.wire.bodies import decode_body, decode_headers

OUTGOING = Outgoing(NodeOptions(link=LinkOptions(body_bytes_max=100)))


def test_record_carries_kind_target_and_body() -> None:
    assert OUTGOING.record(Kind.PUBLICATION, "a.b", b"raw") == (
        head(Kind.PUBLICATION, Encoding.RAW), "a.b", b"raw",
    )  # fmt: skip
    record = OUTGOING.record(Kind.DIRECT, "", {"a": 1})
    assert decode_body(record[0] >> 4, record[2]) == {"a": 1}


def test_headers_are_an_extra() -> None:
    record = OUTGOING.record(Kind.DIRECT, "", b"", {"unit": "C"})
    headers = extra(record, Tag.HEADERS)
    assert isinstance(headers, bytes)
    assert decode_headers(headers) == {"unit": "C"}
    assert len(OUTGOING.record(Kind.DIRECT, "", b"", {})) == 3


@pytest.mark.parametrize("bodies", [[b"a", b"b"], [b"a", "b", 3], []])
@pytest.mark.parametrize("headers", [None, {"h": 1}])
def test_many_records_are_as_many_single_ones(
    bodies: list[object], headers: dict[str, int] | None
) -> None:
    single = [OUTGOING.record(Kind.DIRECT, "", body, headers) for body in bodies]
    batch = OUTGOING.batch(bodies, headers)
    assert batch.is_exhausted == (not bodies)
    if bodies:
        assert batch.take(10, 10**6) == single
        assert batch.is_exhausted


def test_batch_is_taken_by_number_and_knows_its_end() -> None:
    batch = OUTGOING.batch(range(5), None)
    sizes = []
    while not batch.is_exhausted:
        sizes.append(len(batch.take(2, 10**6)))
    assert sizes == [2, 2, 1]
    batch = OUTGOING.batch(range(4), None)
    assert [len(batch.take(2, 10**6)), batch.is_exhausted] == [2, False]
    assert [len(batch.take(2, 10**6)), batch.is_exhausted] == [2, True]


@given(st.lists(st.binary(max_size=90)), st.integers(1, 5), st.integers(-5, 200))
def test_batch_is_taken_by_bytes_with_one_message_beyond_at_most(
    bodies: list[bytes], messages_max: int, bytes_max: int
) -> None:
    batch, taken = OUTGOING.batch(iter(bodies), None), []
    while not batch.is_exhausted:
        records = batch.take(messages_max, bytes_max)
        assert 1 <= len(records) <= messages_max
        assert total_size(records[:-1]) < max(1, bytes_max)
        taken += [record[2] for record in records]
    assert taken == bodies


@given(
    st.lists(st.binary(max_size=100) | st.integers(0, 9) | st.binary(max_size=9).map(bytearray)),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 200)), min_size=1, max_size=9),
)
def test_a_list_is_taken_in_the_pieces_that_an_iterator_is(
    bodies: list[object], has_headers: bool, pieces: list[tuple[int, int]]
) -> None:
    headers = {"unit": "C"} if has_headers else None
    one, other = (OUTGOING.batch(each, headers, target="t") for each in (bodies, iter(bodies)))
    for piece in cycle(pieces):
        assert one.is_exhausted is other.is_exhausted
        if one.is_exhausted:
            break
        assert one.take(*piece) == other.take(*piece)


def test_bodies_are_asked_for_one_ahead_at_most() -> None:
    asked = 0

    def bodies() -> Iterator[object]:
        nonlocal asked
        for _ in range(10):
            asked += 1
            yield "x" * 50

    batch = OUTGOING.batch(bodies(), None)
    assert asked == 1
    assert len(batch.take(10, 100)) == 2
    assert asked == 3


def test_changed_buffer_does_not_change_the_record() -> None:
    body = bytearray(b"before")
    [record] = OUTGOING.batch([body], None).take(1, 1)
    body[:] = b"after!"
    assert record[2] == b"before"


def test_body_over_the_limit_is_refused() -> None:
    OUTGOING.record(Kind.DIRECT, "", bytes(100))
    for make in (
        lambda: OUTGOING.record(Kind.DIRECT, "", bytes(101)),
        lambda: OUTGOING.batch([b"", bytes(101)], None).take(9, 999),
        lambda: OUTGOING.batch([1, bytes(101)], None).take(9, 999),
        lambda: OUTGOING.reply("x" * 101),
    ):
        with pytest.raises(BodyTooLarge):
            make()
    with pytest.raises(BodyNotEncodable):
        OUTGOING.reply(object())


def test_failure_tells_type_and_text() -> None:
    record = Outgoing(NodeOptions()).failure(KeyError("paper"))
    assert failure_of(record) == RemoteFailure("KeyError", "'paper'", None)


def test_failure_tells_the_end_of_the_traceback_where_the_node_allows() -> None:
    def fail(depth: int) -> None:
        if depth == 0:
            raise ValueError("\ud800 at the bottom" + "y" * 9000)
        try:
            fail(depth - 1)
        except ValueError as error:
            raise ValueError("x" * 900) from error

    outgoing = Outgoing(NodeOptions(tracebacks_to_callers=True))
    try:
        fail(30)
    except ValueError as error:
        told = failure_of(outgoing.failure(error))
    assert told.traceback is not None
    assert len(told.traceback) == 16_384
    assert told.traceback.endswith("x" * 900 + "\n")
    try:
        fail(0)
    except ValueError as error:
        told = failure_of(outgoing.failure(error))
    assert told.traceback is not None
    assert told.traceback.startswith("Traceback (most recent call last):")
    assert "? at the bottom" in told.traceback
    assert ", in fail" in told.traceback


def test_failure_with_a_text_nobody_can_send_is_still_told() -> None:
    outgoing = Outgoing(NodeOptions())
    type_name, text, traceback = failure_of(outgoing.failure(ValueError("\ud800" + "x" * 10_000)))
    assert (type_name, traceback) == ("ValueError", None)
    assert text.startswith("?xxx")
    assert len(text) == 4096


def test_failure_of_a_type_with_a_long_name_is_told_in_short() -> None:
    odd = type("X" * 10_000, (Exception,), {})
    type_name, text, _ = failure_of(Outgoing(NodeOptions()).failure(odd("why")))
    assert (type_name, text) == ("X" * 4096, "why")


def test_failure_whose_text_cannot_be_told_is_still_told() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise KeyError

    _, text, _ = failure_of(Outgoing(NodeOptions()).failure(MuteError()))
    assert text == "its text cannot be told: __str__ raised KeyError"


@given(
    bodies=st.lists(st.binary(max_size=90) | st.text(max_size=9), min_size=1, max_size=90),
    messages_max=st.integers(1, 50),
    bytes_max=st.integers(-5, 5000),
    is_list=st.booleans(),
    is_compressed=st.booleans(),
)
def test_signed_ones_are_counted_for_and_numbered_in_order(
    bodies: list[bytes | str],
    messages_max: int,
    bytes_max: int,
    is_list: bool,  # drawn
    is_compressed: bool,
) -> None:
    signing = Signing(
        NodeKey.of(b"k" * 32), JournalId(b"j" * 16), 1, NodeOptions(), is_default=True,
        wall_ms=lambda: 1000,
    )  # fmt: skip
    sign = signing.for_target(None, 4)
    compressor = OUTGOING.compressing.compressor("zstd") if is_compressed else None
    given_bodies = bodies if is_list else iter(bodies)
    batch = OUTGOING.batch(given_bodies, None, Kind.JOB, "jobs", compressor, sign)
    roots, counters = Roots(256), []
    while not batch.is_exhausted:
        taken = batch.take(messages_max, bytes_max)
        assert 1 <= len(taken) <= messages_max
        assert len(taken) == 1 or sum(map(size_of, taken[:-1])) < bytes_max
        for record in taken:
            signature = Signature.of(extra(record, Tag.SIGNATURE))
            assert signature is not None
            assert signature.holds(record, "jobs", record[2], roots)
            counters.append(signature.counter)
    first = (1 << LIFE_BITS) + 1
    assert counters == list(range(first, first + len(bodies)))
    assert signing.signed == len(bodies)
