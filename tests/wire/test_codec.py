import tracemalloc
from dataclasses import replace

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire import strategies
from zmesh.batches import Block
from zmesh.errors import ProtocolError
from zmesh.ids import LinkId
from zmesh.message import ExtraValue, Outcome, Record
from zmesh.options import WireLimits
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Data,
    Error,
    ErrorCode,
    Frame,
    FrameType,
    Packet,
    Ping,
    Settle,
)

LIMITS = WireLimits()
INLINE_BYTES_MAX = 48  # the strategies make bodies of up to 80 bytes
LINK = LinkId(b"linklink")
COUNT_MAX = 2**63 - 1


def one_frame(*fields: object) -> list[bytes]:
    """The parts of a packet with one frame, valid or not."""
    return [packed([1, LINK, 7, list(fields)])]


def packed(wire: object) -> bytes:
    data: bytes = msgpack.packb(wire)
    return data


def data_frame(*records: object) -> list[bytes]:
    return one_frame(FrameType.DATA, 4, 1, list(records))


def refusal(parts: list[bytes], limits: WireLimits = LIMITS) -> str:
    with pytest.raises(ProtocolError) as caught:
        decode(parts, limits)
    return caught.value.kind


def as_bytes(parts: list[bytes | memoryview]) -> list[bytes]:
    return [bytes(part) for part in parts]


def packet_of(*frames: Frame) -> Packet:
    return Packet(LINK, 7, frames)


def round_trip(frame: Frame, inline_bytes_max: int = INLINE_BYTES_MAX) -> Frame:
    parts = as_bytes(encode(packet_of(frame), LIMITS, inline_bytes_max))
    return decode(parts, LIMITS).frames[0]


# Both ways


@given(strategies.packets)
def test_decode_gives_back_what_was_encoded(packet: Packet) -> None:
    parts = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    assert decode(parts, LIMITS) == packet


@given(strategies.packets)
def test_encoding_what_was_decoded_gives_the_same_bytes(packet: Packet) -> None:
    parts = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    assert as_bytes(encode(decode(parts, LIMITS), LIMITS, INLINE_BYTES_MAX)) == parts


def test_codes_and_outcomes_come_back_as_enums() -> None:
    settle = ControlData(1, (Settle(4, ((Outcome.RELEASED, 1, 2),)),))
    decoded = round_trip(settle)
    assert isinstance(decoded, ControlData)
    assert isinstance(decoded.records[0], Settle)
    assert decoded.records[0].outcomes[0][0] is Outcome.RELEASED
    bye = round_trip(Bye(ByeCode.DRAINED, ""))
    assert isinstance(bye, Bye)
    assert bye.code is ByeCode.DRAINED
    error = round_trip(Error(ErrorCode.WRONG_MESH, ""))
    assert isinstance(error, Error)
    assert error.code is ErrorCode.WRONG_MESH


def test_integers_need_not_be_written_in_the_fewest_bytes() -> None:
    head = b"\x94\x01\xc4\x08" + LINK + b"\xcf" + bytes(7) + b"\x07" + b"\x92\xd1\x00\x07\xcc\x05"
    assert decode([head], LIMITS) == packet_of(Ping(5))


@pytest.mark.parametrize("count", [1, 7, 8, 500])
def test_records_with_and_without_extras_share_a_frame(count: int) -> None:
    records: list[Record] = [
        (0, "t", b"body", (2, "key")) if i % 3 else (1, "", b"") for i in range(count)
    ]
    frame = Data(0, 1, tuple(records))
    assert round_trip(frame) == frame


# Bodies in parts of their own


def test_bodies_over_the_inline_limit_are_parts_of_their_own_and_not_copied() -> None:
    small, large, larger = b"x" * 48, b"y" * 49, b"z" * 1000
    frame = Data(4, 1, ((0, "", large), (0, "", small), (0, "t", larger, (2, "key"))))
    parts = encode(packet_of(frame), LIMITS, INLINE_BYTES_MAX)
    assert len(parts) == 3
    assert parts[1] is large
    assert parts[2] is larger
    assert decode(as_bytes(parts), LIMITS).frames == (frame,)


def test_bodies_of_two_frames_follow_each_other() -> None:
    first, second = Data(4, 1, ((0, "", b"a" * 49),)), Data(5, 1, ((0, "", b"b" * 49),))
    parts = encode(packet_of(first, second), LIMITS, INLINE_BYTES_MAX)
    assert parts[1:] == [b"a" * 49, b"b" * 49]
    assert decode(as_bytes(parts), LIMITS).frames == (first, second)


@pytest.mark.parametrize("size", [10, 100])
def test_a_memoryview_is_a_body_like_bytes(size: int) -> None:
    body = b"m" * size
    parts = encode(packet_of(Data(4, 1, ((0, "", memoryview(body)),))), LIMITS, INLINE_BYTES_MAX)
    assert decode(as_bytes(parts), LIMITS).frames == (Data(4, 1, ((0, "", body),)),)


@pytest.mark.parametrize("index", [-1, 0, 2, True, 2**40])
def test_an_index_of_no_part_is_refused(index: int) -> None:
    assert refusal([*data_frame([0, "", index]), b"body"]) == "malformed"


def test_a_part_that_no_record_names_is_refused() -> None:
    assert refusal([*data_frame([0, "", b""]), b"body"]) == "malformed"
    assert refusal([*one_frame(FrameType.PING, 1), b"body"]) == "malformed"


def test_a_part_that_two_records_name_is_refused() -> None:
    assert refusal([*data_frame([0, "", 1], [0, "", 1]), b"body"]) == "malformed"
    assert refusal([*data_frame([0, "", 1], [0, "", 1]), b"body", b"other"]) == "malformed"


# What this node must not send


def test_a_packet_over_a_limit_is_not_encoded() -> None:
    big: Record = (0, "", b"x" * 100)
    packet = packet_of(Data(4, 1, (big,) * 3), *[Ping(1)] * 6)
    assert len(encode(packet, WireLimits(records_max=3, frames_max=7, parts_max=4), 50)) == 4
    for limits in (
        WireLimits(records_max=2),
        WireLimits(frames_max=6),
        WireLimits(parts_max=3),
        WireLimits(part_bytes_max=99),
        WireLimits(head_bytes_max=20),
    ):
        with pytest.raises(ProtocolError) as caught:
            encode(packet, limits, 50)
        assert caught.value.kind == "oversized"


@pytest.mark.parametrize(
    "frame",
    [
        Data(4, 1, ((0, "\ud800", b""),)),
        Data(4, 2**64, ((0, "", b""),)),
        Data(4, 1, ((0, "", memoryview(b"abcd")[::2]),)),
        Ping(-(2**63) - 1),
    ],
)
def test_what_msgpack_cannot_carry_is_not_encoded(frame: Frame) -> None:
    with pytest.raises(ProtocolError) as caught:
        encode(packet_of(frame), LIMITS, INLINE_BYTES_MAX)
    assert caught.value.kind == "unencodable"
    assert round_trip(Ping(3)) == Ping(3)  # the packer has forgotten the failure


# Arbitrary input


def decodes_cleanly(parts: list[bytes]) -> None:
    """ProtocolError, or a packet that is one: nothing else."""
    error, packet = None, None
    try:
        packet = decode(parts, LIMITS)
    except ProtocolError as caught:
        error = caught
    if packet is not None:
        again = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
        assert decode(again, LIMITS) == packet
    else:
        assert error is not None
        assert error.kind in {"version", "unknown frame", "oversized", "malformed"}
        assert len(str(error)) < 300


@given(st.lists(st.binary(max_size=200), max_size=4))
@example([])
@example([b""])
@example([b"\x93"])
@example([b"\xdc\x00"])
@example([b"\xdd\x00\x00\x00\x03\x01"])
def test_arbitrary_bytes_do_no_harm(parts: list[bytes]) -> None:
    decodes_cleanly(parts)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.integers(-2, 12)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=17)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3))
    | st.builds(msgpack.Timestamp, st.integers(0, 2**31), st.integers(0, 999_999_999))
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=20,
)


@given(st.integers(0, 13), st.lists(anything, max_size=12), st.lists(st.binary(), max_size=2))
def test_arbitrary_fields_of_a_frame_do_no_harm(
    frame_type: int, fields: list[object], parts: list[bytes]
) -> None:
    decodes_cleanly([*one_frame(frame_type, *fields), *parts])


@given(
    st.lists(anything | st.tuples(scalars, scalars, scalars, anything), max_size=12),
    st.integers(0, 10),
)
def test_arbitrary_records_do_no_harm(records: list[object], lane: int) -> None:
    decodes_cleanly(one_frame(FrameType.DATA, lane, 1, records))


@given(st.lists(scalars | st.lists(scalars, max_size=9), max_size=6))
def test_arbitrary_extras_do_no_harm(extras: list[object]) -> None:
    decodes_cleanly(data_frame([0, "", b"", extras]))


@given(strategies.packets, st.data())
def test_a_field_replaced_by_anything_does_no_harm(packet: Packet, data: st.DataObject) -> None:
    head, *bodies = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    wire = msgpack.unpackb(head)
    node = wire
    while isinstance(node, list) and node:
        index = data.draw(st.integers(0, len(node) - 1))
        if not isinstance(node[index], list) or not node[index] or data.draw(st.booleans()):
            node[index] = data.draw(anything)
            break
        node = node[index]
    decodes_cleanly([packed(wire), *bodies])


@given(strategies.packets, st.data())
def test_a_truncated_packet_is_malformed(packet: Packet, data: st.DataObject) -> None:
    head, *bodies = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    cut = data.draw(st.integers(0, len(head) - 1))
    assert refusal([head[:cut], *bodies]) == "malformed"
    if bodies:
        assert refusal([head, *bodies[:-1]]) == "malformed"


@given(strategies.packets, st.data())
def test_changed_bytes_do_no_harm(packet: Packet, data: st.DataObject) -> None:
    head, *bodies = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    changed = bytearray(head)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    decodes_cleanly([bytes(changed), *bodies])


@given(strategies.packets, st.binary(min_size=1, max_size=20))
def test_bytes_after_the_packet_are_malformed(packet: Packet, more: bytes) -> None:
    head, *bodies = as_bytes(encode(packet, LIMITS, INLINE_BYTES_MAX))
    assert refusal([head + more, *bodies]) == "malformed"


# What is answered


@pytest.mark.parametrize("version", [0, 2, 127])
def test_another_version_is_told_from_anything_else_that_is_wrong(version: int) -> None:
    assert refusal([packed([version, {"maps": "and all"}])]) == "version"
    assert refusal([packed([version] + [0] * 20)]) == "version"
    assert refusal([b"\xdd\x00\x00\x00\x02" + bytes([version])]) == "version"


@pytest.mark.parametrize("version", [-1, 128, True, None, "1", 1.0, b"\x01"])
def test_a_version_that_is_no_small_integer_is_malformed(version: object) -> None:
    assert refusal([packed([version, LINK, 7, [FrameType.PING, 1]])]) == "malformed"


@pytest.mark.parametrize("frame_type", [0, 12, 300])
def test_an_unknown_frame_is_named(frame_type: int) -> None:
    assert refusal(one_frame(frame_type)) == "unknown frame"


def test_an_unknown_control_record_is_named() -> None:
    assert refusal(one_frame(FrameType.DATA, 10, 1, [[6, "later"]])) == "unknown frame"


# Extras of later versions


@pytest.mark.parametrize("value", [0, "text", b"bytes", (), (1, "two", b"three")])
@pytest.mark.parametrize("count", [1, 20])
def test_an_unknown_tag_is_kept_and_does_no_harm(value: ExtraValue, count: int) -> None:
    decoded = decode(data_frame(*[[0, "", b"", [2, "key", 99, value]]] * count), LIMITS)
    assert decoded.frames == (Data(4, 1, ((0, "", b"", (2, "key", 99, value)),) * count),)


@pytest.mark.parametrize("value", [None, True, 1.5, [[1]], [True], [0] * 9])
def test_the_value_of_an_unknown_tag_is_simple(value: object) -> None:
    with pytest.raises(ProtocolError):
        decode(data_frame([0, "", b"", [99, value]]), LIMITS)


# Limits


def test_parts_are_limited() -> None:
    limits = WireLimits(parts_max=2)
    parts = [*data_frame([0, "", 1], [0, "", 2]), b"one", b"two"]
    assert len(decode(parts, LIMITS).frames) == 1
    assert refusal(parts, limits) == "oversized"


def test_the_head_is_limited() -> None:
    parts = data_frame([0, "", b"x" * 100])
    limits = WireLimits(head_bytes_max=len(parts[0]))
    assert len(decode(parts, limits).frames) == 1
    assert refusal(parts, replace(limits, head_bytes_max=len(parts[0]) - 1)) == "oversized"


def test_a_part_is_limited() -> None:
    parts = [*data_frame([0, "", 1]), b"x" * 100]
    assert len(decode(parts, WireLimits(part_bytes_max=100)).frames) == 1
    assert refusal(parts, WireLimits(part_bytes_max=99)) == "oversized"


def test_frames_are_limited() -> None:
    wire = [1, LINK, 7, *[[FrameType.PING, 1]] * 7]
    assert len(decode([packed(wire)], WireLimits(frames_max=7)).frames) == 7
    assert refusal([packed(wire)], WireLimits(frames_max=6)) == "oversized"


@pytest.mark.parametrize("lane", [4, 10])
def test_records_are_limited(lane: int) -> None:
    record: list[object] = [0, "", b""] if lane == 4 else [4]
    parts = one_frame(FrameType.DATA, lane, 1, [record] * 3)
    assert len(decode(parts, WireLimits(records_max=3)).frames) == 1
    assert refusal(parts, WireLimits(records_max=2)) == "oversized"


def test_texts_are_limited_in_bytes_of_utf_8() -> None:
    parts = data_frame([0, "äöü", b""])
    assert len(decode(parts, WireLimits(text_bytes_max=6)).frames) == 1
    assert refusal(parts, WireLimits(text_bytes_max=5)) == "oversized"


def test_ranges_are_limited() -> None:
    limits = WireLimits(ranges_max=1)
    two = [[3, 3], [5, 5]]
    lanes = [[4, 1, two]]
    assert refusal(one_frame(FrameType.ACK, 1, 0, lanes, []), limits) == "oversized"
    assert (
        refusal(one_frame(FrameType.DATA, 10, 1, [[2, 4, [[1, 1, 0], [2, 2, 0]]]]), limits)
        == "oversized"
    )
    settle = [1, 4, [[0, 1, 1], [0, 2, 2]], []]
    assert refusal(one_frame(FrameType.DATA, 10, 1, [settle]), limits) == "oversized"
    detailed = [1, 4, [[0, 1, 2]], [[1, "", 0], [2, "", 0]]]
    assert refusal(one_frame(FrameType.DATA, 10, 1, [detailed]), limits) == "oversized"
    decode(one_frame(FrameType.ACK, 1, 0, lanes, []), WireLimits(ranges_max=2))


def test_interest_is_limited_in_all() -> None:
    record = [3, [["topic", "a"], ["topic", "b"]], [["topic", "c"]]]
    parts = one_frame(FrameType.DATA, 10, 1, [record])
    assert len(decode(parts, WireLimits(interest_max=3)).frames) == 1
    assert refusal(parts, WireLimits(interest_max=2)) == "oversized"


def test_endpoints_and_known_peers_are_limited() -> None:
    node = bytes(16)
    parts = one_frame(FrameType.IAM, bytes(8), node, "n", 1, ["a", "b"], [[node, "", []]] * 2)
    exact = WireLimits(endpoints_max=2, known_max=2)
    assert len(decode(parts, exact).frames) == 1
    assert refusal(parts, replace(exact, endpoints_max=1)) == "oversized"
    assert refusal(parts, replace(exact, known_max=1)) == "oversized"


def test_extras_are_limited() -> None:
    parts = data_frame([0, "", b"", [4, 1, 5, 1]])
    assert len(decode(parts, WireLimits(extras_max=4)).frames) == 1
    assert refusal(parts, WireLimits(extras_max=3)) == "oversized"


@pytest.mark.parametrize("extra", [
    [9, 1], [9, b"t"], [10, -1], [10, "1"], [11, None], [12, []], [12, [1]], [12, [0, 1]],
    [12, [1, "1"]], [12, 1],
])  # fmt: skip
def test_extras_of_publications_are_checked(extra: list[object]) -> None:
    assert refusal(data_frame([4, "t", b"", extra])) == "malformed"
    assert refusal(data_frame([12, "", b"", [12, [1] * 10]])) == "oversized"


def test_headers_are_limited() -> None:
    parts = data_frame([0, "", b"", [1, b"x" * 10]])
    assert len(decode(parts, WireLimits(headers_bytes_max=10)).frames) == 1
    assert refusal(parts, WireLimits(headers_bytes_max=9)) == "oversized"


def test_items_of_any_array_are_limited() -> None:
    parts = one_frame(FrameType.PING, *range(20))
    assert refusal(parts, WireLimits(array_items_max=20)) == "oversized"
    assert refusal(parts, WireLimits(array_items_max=21)) == "malformed"


# Memory


def filled(item: bytes) -> bytes:
    """A head as large as allowed, of frames with 4,096 times the item."""
    frame = b"\xdc\x10\x00" + item * 4096
    count = min(60, (LIMITS.head_bytes_max - 16) // len(frame))
    return b"\xdc\x00" + bytes([count + 3]) + b"\x01\xc4\x08" + LINK + b"\x00" + frame * count


def hostile_heads() -> dict[str, bytes]:
    begin = b"\x94\x01\xc4\x08" + LINK + b"\x00"
    every_byte_a_record = [[5, 4, 1, [[i % 256, "", b""] for i in range(4096)]]] * 10
    return {
        "arrays of 16 bits that claim items": begin + b"\xdc\x10\x00" * 1000,
        "arrays of 32 bits that claim items": begin + b"\xdd\x00\x00\x10\x00" * 1000,
        "small arrays that claim items": begin + b"\x9f" * 1000,
        "empty maps": filled(b"\x80"),
        "maps": filled(b"\x81\x00\x00"),
        "empty arrays": filled(b"\x90"),
        "arrays of one": filled(b"\x91\xc0"),
        "arrays in arrays": filled(b"\x91" * 12 + b"\xc0"),
        "timestamps": filled(b"\xd6\xff\x00\x00\x00\x01"),
        "floats": filled(b"\xca\x00\x00\x00\x01"),
        "integers": filled(b"\xcd\xff\xff"),
        "texts": filled(b"\xa2\xc3\xa4"),
        "records": packed([1, LINK, 7, *every_byte_a_record]),
        "bytes in place of records": packed([1, LINK, 7, [5, 4, 1, [bytes(30_000)] * 8]]),
        "texts in place of records": packed([1, LINK, 7, [5, 4, 1, ["x" * 1024] * 200]]),
    }


@pytest.mark.parametrize("name", hostile_heads())
def test_memory_stays_within_a_factor_of_the_input(name: str) -> None:
    head = hostile_heads()[name]
    assert len(head) <= LIMITS.head_bytes_max
    tracemalloc.start()
    try:
        decodes_cleanly([head])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # One-item arrays in one another are the worst; 64 KiB are msgpack's own.
    assert peak <= 50 * len(head) + 64 * 1024


@pytest.mark.parametrize("claim", [b"\xdc\x01\xff", b"\xdd\x00\x00\x01\xff", b"\x9f"])
def test_a_head_too_short_to_be_scanned_claims_less_than_a_megabyte(claim: bytes) -> None:
    begin = b"\x94\x01\xc4\x08" + LINK + b"\x00"
    head = begin + claim * ((511 - len(begin)) // len(claim))
    tracemalloc.start()
    try:
        assert refusal([head]) == "malformed"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("size", [0, 1000])
def test_what_is_wrong_with_a_head_is_the_same_whether_it_is_short_or_long(size: int) -> None:
    (head,) = data_frame((0, "", bytes(size)))
    assert refusal([head[:-1]]) == "malformed"  # cut off
    assert refusal([head + b"\xc0"]) == "malformed"  # more after it
    assert refusal([head.replace(LINK + b"\x07", LINK + b"\xc1")]) == "malformed"  # not msgpack
    assert refusal(data_frame((0, b"\xff", bytes(size)))) == "malformed"
    assert refusal(data_frame((0, "x" * 1025, bytes(size)))) == "oversized"
    assert refusal(data_frame([0, "", bytes(size)] * 2)) == "malformed"
    few = replace(LIMITS, array_items_max=16)
    assert refusal(data_frame(*[(0, "", b"")] * 17, (0, "", bytes(size))), few) == "oversized"


# Blocks


def test_a_block_that_is_shared_becomes_the_same_bytes_for_every_peer() -> None:
    records: list[Record] = [(4, "topic", bytes([number])) for number in range(20)]
    ack, ping = Ack(3, 0, (), ()), Ping(5)
    plain = packet_of(ack, Data(4, 300, tuple(records)), ping)
    block = Block(records)
    block.shares = 2
    shared = packet_of(ack, Data(4, 300, block), ping)
    expected = encode(plain, LIMITS, INLINE_BYTES_MAX)
    kept = []
    for _ in range(3):
        assert encode(shared, LIMITS, INLINE_BYTES_MAX) == expected
        kept.append(block.packed is not None)
    assert kept == [True, False, False]  # then nobody else is to be sent it


def test_a_shared_block_with_a_body_of_its_own_part_is_packed_as_ever() -> None:
    block = Block([(4, "topic", bytes(INLINE_BYTES_MAX + 1))] * 9)
    block.shares = 2
    parts = encode(packet_of(Data(4, 1, block)), LIMITS, INLINE_BYTES_MAX)
    assert len(parts) == 10
    assert block.packed is None
    assert decode(as_bytes(parts), LIMITS) == packet_of(Data(4, 1, tuple(block)))


def test_what_cannot_be_packed_of_a_shared_block_is_told() -> None:
    block = Block([(4, "\ud800", b"")] * 9)
    block.shares = 2
    with pytest.raises(ProtocolError, match="unencodable"):
        encode(packet_of(Data(4, 1, block)), LIMITS, INLINE_BYTES_MAX)


def test_many_records_come_as_a_block() -> None:
    records: list[Record] = [(4, f"topic.{number % 2}", b"x") for number in range(9)]
    (frame,) = decode(data_frame(*records), LIMITS).frames
    assert isinstance(frame, Data)
    block = frame.records
    assert isinstance(block, Block)
    assert (block.heads, block.targets, block.is_bare) == ({4}, {"topic.0", "topic.1"}, True)
