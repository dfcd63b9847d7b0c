import tracemalloc
from array import array
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.errors import BodyNotEncodable, InvalidOption, ProtocolError
from zmesh.message import Encoding
from zmesh.options import WireLimits
from zmesh.wire.bodies import (
    HeaderValue,
    check_text,
    decode_body,
    decode_headers,
    encode_body,
    encode_headers,
)


def round_trip(body: object) -> object:
    return decode_body(*encode_body(body))


def refusal(body: object) -> str:
    with pytest.raises(BodyNotEncodable) as caught:
        encode_body(body)
    assert caught.value.type_name == type(body).__name__
    return str(caught.value)


def complaint(data: bytes, encoding: int = Encoding.MSGPACK) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode_body(encoding, data)
    assert caught.value.kind == "body"
    return caught.value.detail


# Raw bodies


def test_bytes_pass_untouched() -> None:
    body = b"\x80 not looked at"
    assert encode_body(body) == (Encoding.RAW, body)
    assert encode_body(body)[1] is body
    assert decode_body(Encoding.RAW, body) is body


def test_a_read_only_memoryview_is_not_copied() -> None:
    view = memoryview(b"some bytes")[5:]
    encoding, body = encode_body(view)
    assert encoding is Encoding.RAW
    assert isinstance(body, memoryview)
    assert body.obj is view.obj
    assert decode_body(encoding, body) == b"bytes"


def test_a_memoryview_may_be_released_as_soon_as_it_was_passed() -> None:
    view = memoryview(b"some bytes")
    encoding, body = encode_body(view)
    view.release()
    assert decode_body(encoding, body) == b"some bytes"


def test_a_released_memoryview_is_refused() -> None:
    view = memoryview(b"some bytes")
    view.release()
    assert "released" in refusal(view)


@pytest.mark.parametrize("wrap", [bytearray, lambda buffer: memoryview(bytearray(buffer))])
def test_what_can_change_is_copied(wrap: type[bytearray]) -> None:
    buffer = wrap(b"before")
    encoding, body = encode_body(buffer)
    buffer[:] = b"after!"
    assert decode_body(encoding, body) == b"before"


def test_a_view_of_wider_items_is_seen_as_bytes() -> None:
    view = memoryview(array("I", [1, 2])).toreadonly()
    _, body = encode_body(view)
    assert len(body) == view.nbytes
    assert bytes(body) == view.tobytes()


def test_a_view_with_gaps_is_copied() -> None:
    assert round_trip(memoryview(b"abcdef")[::2]) == b"ace"


# Encoded bodies

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
    | st.datetimes(timezones=st.just(UTC))
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars, inner, max_size=4),
    max_leaves=20,
)


@given(values.filter(lambda value: not isinstance(value, bytes)))
def test_what_msgpack_carries_comes_back(value: object) -> None:
    assert round_trip(value) == value


def test_tuples_come_back_as_lists() -> None:
    class Point(NamedTuple):
        x: int
        y: int

    assert round_trip((1, (2, 3))) == [1, [2, 3]]
    assert round_trip(Point(1, 2)) == [1, 2]


def test_keys_of_any_type_come_back() -> None:
    body = {1: "int", "1": "text", b"1": "bytes", (1, (2, "x")): "tuple", None: "none", 2.5: []}
    assert round_trip(body) == body
    assert round_trip([{(): [[1]]}]) == [{(): [[1]]}]


def test_ordered_dicts_come_back_in_order() -> None:
    assert list(round_trip(OrderedDict(b=1, a=2))) == ["b", "a"]  # type: ignore[call-overload]


def test_datetimes_come_back_in_utc() -> None:
    moment = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=timezone(timedelta(hours=2)))
    back = round_trip(moment)
    assert back == moment
    assert isinstance(back, datetime)
    assert back.tzinfo is UTC
    before_1970 = datetime(1901, 2, 3, 4, 5, 6, 7, tzinfo=UTC)
    assert round_trip(before_1970) == before_1970


def test_a_datetime_without_time_zone_is_refused() -> None:
    assert "tzinfo" in refusal(datetime(2026, 3, 1))  # noqa: DTZ001


class Custom:
    pass


@pytest.mark.parametrize(
    "body",
    [Custom(), {1, 2}, 1 + 2j, 2**64, -(2**63) - 1, "\ud800", [{"a": object()}], array("I")],
)
def test_what_msgpack_cannot_carry_is_refused(body: object) -> None:
    refusal(body)
    assert round_trip([1]) == [1]


def test_a_body_that_holds_itself_is_refused() -> None:
    body: list[object] = []
    body.append(body)
    refusal(body)


def nested(depth: int) -> object:
    body: object = []
    for _ in range(depth - 1):
        body = [body]
    return body


def test_what_is_encoded_is_never_too_deep_to_be_decoded() -> None:
    encoded = 0
    for depth in [100, 500, 511, 512, 513, *range(1020, 1030)]:
        try:
            encoding, data = encode_body(nested(depth))
        except BodyNotEncodable:
            continue
        encoded += 1
        decode_body(encoding, data)
    assert 0 < encoded < 15


# Hostile bodies


def test_an_unknown_encoding_is_refused() -> None:
    assert "encoding 7" in complaint(b"", 7)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x01\x02",
        b"\x92\x01",
        b"\xa2\xff\xff",
        b"\x81\x81\x01\x02\x03",  # a map as a key
        b"\x81\x91\x81\x01\x02\x03",  # a map in an array as a key
        b"\xc7\x0c\xff\x00\x00\x00\x00\x7f" + b"\xff" * 7,  # a year beyond all calendars
        b"\xd7\xff" + b"\xff" * 8,  # more nanoseconds than a second has
        b"\xc7\x00\xff",  # a timestamp of no bytes
        b"\x91" * 2000 + b"\xc0",
        b"\x81" + b"\x91" * 1020 + b"\xc0\x00",  # a key nested too deep to be hashed
    ],
)
def test_a_hostile_body_is_a_protocol_error(data: bytes) -> None:
    complaint(data)


@given(st.binary(max_size=60), st.integers(0, 15))
def test_arbitrary_bytes_decode_or_raise_protocol_error(data: bytes, encoding: int) -> None:
    try:
        decode_body(encoding, data)
    except ProtocolError as error:
        assert error.kind == "body"  # noqa: PT017  # most bytes raise, some do not


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\x00\x01\x00\x00" * 1000 + bytes(70_000),
        b"\xdf\x00\x01\x00\x00" * 1000 + bytes(70_000),
        b"\xdd\x00\x01\x00\x00" + b"\x80" * 65536,
        b"\xdd\x00\x00\x80\x00" + b"\x91\xc0" * 32768,
    ],
)
def test_memory_stays_within_a_factor_of_the_body(data: bytes) -> None:
    tracemalloc.start()
    try:
        kept = None
        try:
            kept = decode_body(Encoding.MSGPACK, data)
        except ProtocolError:
            assert kept is None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 75 * len(data) + 64 * 1024


# Headers

header_values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=10)
    | st.binary(max_size=10)
)


@given(st.dictionaries(st.text(max_size=10), header_values, max_size=10))
def test_headers_come_back(headers: dict[str, HeaderValue]) -> None:
    assert decode_headers(encode_headers(headers)) == headers


@pytest.mark.parametrize(
    "headers",
    [{1: "x"}, {"a": [1]}, {"a": {"b": 1}}, {"a": 2**64}, {"\ud800": 1}, {"a": "\ud800"}],
)
def test_headers_that_are_not_texts_and_scalars_are_refused(
    headers: dict[str, HeaderValue],
) -> None:
    with pytest.raises(InvalidOption):
        encode_headers(headers)


def test_headers_are_limited_in_number() -> None:
    limits = WireLimits(headers_max=2)
    two: dict[str, HeaderValue] = {"a": 1, "b": 2}
    data = encode_headers(two, limits)
    assert decode_headers(data, limits) == two
    with pytest.raises(InvalidOption):
        encode_headers({**two, "c": 3}, limits)
    with pytest.raises(ProtocolError):
        decode_headers(encode_headers({**two, "c": 3}), limits)


def test_headers_are_limited_in_size() -> None:
    headers: dict[str, HeaderValue] = {"a": "x" * 20}
    size = len(encode_headers(headers))
    fitting, small = WireLimits(headers_bytes_max=size), WireLimits(headers_bytes_max=size - 1)
    assert decode_headers(encode_headers(headers, fitting), fitting) == headers
    with pytest.raises(InvalidOption):
        encode_headers(headers, small)
    with pytest.raises(ProtocolError):
        decode_headers(encode_headers(headers), small)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x90",
        msgpack.packb([["a", 1]]),
        msgpack.packb({"a": [1]}),
        msgpack.packb({"a": {}}),
        msgpack.packb({"a": msgpack.Timestamp(1)}),
        msgpack.packb({b"a": 1}),
        msgpack.packb({1: 1}),
        b"\x82\xa1a\x01\xa1a\x02",
        b"\x81\xa1\xff\x01",
        b"\x81\x90\x01",
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_hostile_headers_are_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_headers(data)
    assert caught.value.kind == "headers"


@given(st.binary(max_size=40))
def test_arbitrary_headers_decode_or_raise_protocol_error(data: bytes) -> None:
    try:
        decode_headers(data)
    except ProtocolError as error:
        assert error.kind == "headers"  # noqa: PT017  # most bytes raise, some do not


# Texts


def test_texts_are_measured_in_bytes() -> None:
    limits = WireLimits(text_bytes_max=4)
    check_text("topic", "", limits)
    check_text("topic", "abcd", limits)
    check_text("topic", "öä", limits)
    with pytest.raises(InvalidOption, match="size of topic=5"):
        check_text("topic", "öä!", limits)


def test_surrogates_cannot_travel() -> None:
    with pytest.raises(InvalidOption, match="topic"):
        check_text("topic", "\ud800")
