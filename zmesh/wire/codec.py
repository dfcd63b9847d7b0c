"""Packets to the parts of a ZeroMQ message, and back: `docs/protocol.md` byte for byte.

`encode` trusts its caller for what costs a look at every record (see `bodies.check_text`), and
checks the sizes that bound a packet. `decode` trusts nothing.
"""

from collections.abc import Sequence
from typing import Final, NoReturn, cast

from msgpack import Packer, unpackb

from zmesh.batches import Block, largest_of
from zmesh.errors import ProtocolError
from zmesh.ids import LINK_ID_BYTES, LinkId
from zmesh.message import CONTROL_LANE
from zmesh.options import WireLimits
from zmesh.wire.control import check_control, control_to_wire
from zmesh.wire.fields import COUNT_MAX, Fields, integer, malformed, oversized
from zmesh.wire.frames import (
    VERSION,
    Ack,
    ControlData,
    Data,
    Frame,
    FrameType,
    Packet,
)
from zmesh.wire.layouts import ALL_LANES, FROM_WIRE, TO_WIRE
from zmesh.wire.records import check_records, split_bodies
from zmesh.wire.scan import scan

_DATA: Final = int(FrameType.DATA)
_ACK: Final = int(FrameType.ACK)
_USUAL_BEGINNINGS: Final = frozenset(bytes((0x90 | length, VERSION)) for length in range(3, 16))
"""Of a head: a short array, and the version."""

_SCANNED_FROM: Final = 512
"""A head of fewer bytes is only looked over where it cannot be unpacked: what nested arrays claim
is less than a megabyte, since each has at most as many items as the head has bytes."""

# One for all: a call runs no Python code in between, so threads cannot mix their packets.
_packer: Final = Packer()
_pack: Final = _packer.pack
_DATA_HEADER: Final = bytes((0x94, _DATA))
"""How a DATA frame begins: an array of 4, and its type."""


# To the wire


def encode(packet: Packet, limits: WireLimits, inline_bytes_max: int) -> list[bytes | memoryview]:
    """Return the parts of the packet: its head, then each body over `inline_bytes_max` uncopied.

    Bodies that are memoryviews must be of bytes (format "B", one dimension).

    Raises:
        ProtocolError: "oversized" or "unencodable", where this node made a packet it must not.
    """
    parts: list[bytes | memoryview] = [b""]
    wire: list[object] = [VERSION, packet.link, packet.number]
    has_blocks = False
    if len(packet.frames) > limits.frames_max:
        raise oversized("frames", len(packet.frames), limits.frames_max)
    for frame in packet.frames:
        if type(frame) is Data:
            records = frame.records
            if len(records) == 1 and len(records[0][2]) <= inline_bytes_max:  # to or of a call
                wire.append((_DATA, frame.lane, frame.first_seq, records))
                continue
            fields = _data_fields(frame, inline_bytes_max, parts, limits)
            has_blocks = has_blocks or fields is frame
            wire.append(fields)
        elif type(frame) is Ack:
            wire.append((_ACK, frame.largest, frame.delay_us, frame.lanes, frame.credit))
        elif type(frame) is ControlData:
            _check_count(frame.records, limits)
            control = list(map(control_to_wire, frame.records))
            wire.append((_DATA, CONTROL_LANE, frame.first_seq, control))
        else:
            wire.append(TO_WIRE[type(frame)](frame))
    try:
        head = _pack_with_blocks(wire) if has_blocks else _pack(wire)
    except (TypeError, ValueError, OverflowError, BufferError) as error:
        raise ProtocolError("unencodable", str(error)) from error
    parts[0] = head
    if len(parts) > 1 or len(head) > limits.head_bytes_max:
        _check_sizes(parts, limits)
    return parts


def _data_fields(
    frame: Data, inline_bytes_max: int, parts: list[bytes | memoryview], limits: WireLimits
) -> object:
    """Return what a DATA frame is on the wire; the frame itself, where its block is shared."""
    records = frame.records
    _check_count(records, limits)
    if type(records) is Block and records.shares and largest_of(records) <= inline_bytes_max:
        return frame
    bodies = split_bodies(records, inline_bytes_max, parts)
    return (_DATA, frame.lane, frame.first_seq, bodies)


def _check_count(records: Sequence[object], limits: WireLimits) -> None:
    if len(records) > limits.records_max:
        raise oversized("records", len(records), limits.records_max)


def _pack_with_blocks(wire: list[object]) -> bytes:
    """Pack a head in which DATA frames of blocks stand as they are.

    What a block's records become was most often packed for another peer, and is put in its place.
    """
    pieces: list[bytes] = [_packer.pack_array_header(len(wire))]
    for item in wire:
        if type(item) is not Data:
            pieces.append(_pack(item))
            continue
        block = cast("Block", item.records)
        packed = block.packed or _pack(block)
        pieces += (_DATA_HEADER, _pack(item.lane), _pack(item.first_seq), packed)
        block.shares -= 1
        block.packed = packed if block.shares else None
    return b"".join(pieces)


def _check_sizes(parts: Sequence[bytes | memoryview], limits: WireLimits) -> None:
    if len(parts) > limits.parts_max:
        raise oversized("parts", len(parts), limits.parts_max)
    if len(parts[0]) > limits.head_bytes_max:
        raise oversized("head", len(parts[0]), limits.head_bytes_max)
    for part in parts:
        if len(part) > limits.part_bytes_max:
            raise oversized("part", len(part), limits.part_bytes_max)


# From the wire


def decode(parts: Sequence[bytes], limits: WireLimits) -> Packet:
    """Return the packet in the parts of a ZeroMQ message.

    Raises:
        ProtocolError: the kind is "version" or "unknown frame", which are answered with ERROR;
            "oversized" where a limit is exceeded; "malformed" for everything else.
    """
    if not parts:
        raise malformed("a packet without parts")
    head = parts[0]
    if len(parts) > 1 or len(head) > limits.head_bytes_max:
        _check_sizes(parts, limits)
    if head[:2] not in _USUAL_BEGINNINGS:
        _check_version(head)
    if len(head) >= _SCANNED_FROM:
        scan(head)
    link, number, wire_frames = _unpack(head, limits)
    if len(wire_frames) > limits.frames_max:
        raise oversized("frames", len(wire_frames), limits.frames_max)
    if not wire_frames:
        raise malformed("a packet without frames")
    return Packet(link, number, _decode_frames(wire_frames, parts, limits))


def _check_version(head: bytes) -> None:
    """Look at the version alone: what follows it may be another version's business."""
    marker = head[0] if head else 0
    at = 1 if 0x90 <= marker <= 0x9F else 3 if marker == 0xDC else 5 if marker == 0xDD else 0
    if not at or at >= len(head) or head[at] > 0x7F:
        raise malformed("the head does not begin with an array and a version")
    if head[at] != VERSION:
        raise ProtocolError("version", f"version {head[at]}, and {VERSION} is spoken here")


def _unpack(head: bytes, limits: WireLimits) -> tuple[LinkId, int, list[object]]:
    try:
        wire = unpackb(
            head,
            use_list=False,
            timestamp=1,  # a float, which no field takes: the cheapest of what it can become
            strict_map_key=False,
            object_pairs_hook=_refuse_map,
            ext_hook=_refuse_ext,
            max_str_len=limits.text_bytes_max,
            max_array_len=min(limits.array_items_max, len(head)),  # more are cut off
        )
    except UnicodeDecodeError:
        raise malformed("a text is not UTF-8") from None
    except ValueError as error:
        scan(head)  # which leaves nothing else to find
        raise ProtocolError("oversized", str(error)) from None
    if len(wire) < 3:
        raise malformed("a packet is not [version, link, number, frame, ...]")
    _, link, number, *frames = wire
    if type(link) is not bytes or len(link) != LINK_ID_BYTES:
        raise malformed(f"the link id is not {LINK_ID_BYTES} bytes")
    if type(number) is not int or not 0 <= number <= COUNT_MAX:
        raise malformed(f"the packet number is not an integer in 0..{COUNT_MAX}")
    return LinkId(link), number, frames


def _refuse_map(_: object) -> object:
    raise malformed("a map in a packet")


def _refuse_ext(_code: int, _data: bytes) -> object:
    raise malformed("an extension in a packet")


def _decode_frames(
    wire_frames: list[object], parts: Sequence[bytes], limits: WireLimits
) -> tuple[Frame, ...]:
    taken: list[int] = []
    frames: list[Frame] = []
    for fields in wire_frames:
        if type(fields) is not tuple or not fields:
            raise malformed("a frame is not an array")
        frame_type = fields[0]
        if type(frame_type) is not int:
            raise malformed("the type of a frame is not an integer")
        if frame_type == _DATA:
            frames.append(_decode_data(fields, parts, taken, limits))
        else:
            decoder = FROM_WIRE.get(frame_type) or _unknown(frame_type)
            frames.append(decoder(fields[1:], limits))
    if len(parts) > 1 or taken:
        taken.sort()
        if taken != list(range(1, len(parts))):
            raise malformed("a part is not the body of exactly one record")
    return tuple(frames)


def _unknown(frame_type: int) -> NoReturn:
    integer(frame_type, "the type of a frame")
    raise ProtocolError("unknown frame", f"frame of type {frame_type}")


def _decode_data(
    fields: Fields, parts: Sequence[bytes], taken: list[int], limits: WireLimits
) -> Data | ControlData:
    # Written out, as ACK and SETTLE are: nearly every packet carries them.
    if len(fields) != 4:
        raise malformed("DATA is not an array of 4")
    _, lane, first_seq, records = fields
    if type(lane) is not int or not 0 <= lane < ALL_LANES:
        raise malformed("the lane of DATA is no lane")
    if type(first_seq) is not int or first_seq < 1:
        raise malformed("the first number of DATA is not an integer from 1 on")
    if lane == CONTROL_LANE:
        control = check_control(records, limits)
        if first_seq > COUNT_MAX - len(control) + 1:
            raise malformed("numbers of DATA are too high")
        return ControlData(first_seq, control)
    checked = check_records(records, parts, taken, limits)
    if first_seq > COUNT_MAX - len(checked) + 1:
        raise malformed("numbers of DATA are too high")
    return Data(lane, first_seq, checked)
