"""Hold the codec to `tests/vectors/packets.json`, which a second implementation can use as well.

The file is written by `python -m tests.wire.vector_cases`, on purpose and never by a test.
"""

import json
from typing import TypedDict

import pytest

from tests.wire import vector_cases as cases
from zmesh.errors import ProtocolError
from zmesh.options import WireLimits
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Control, ControlData, Frame, Packet

LIMITS = WireLimits()
VECTORS = json.loads(cases.PATH.read_text(encoding="ascii"))

of_each_valid = pytest.mark.parametrize(
    "vector", VECTORS["valid"], ids=lambda vector: vector["name"]
)
of_each_invalid = pytest.mark.parametrize(
    "vector", VECTORS["invalid"], ids=lambda vector: vector["name"]
)


class Valid(TypedDict):
    name: str
    packet: object
    parts: list[str]


class Invalid(TypedDict):
    name: str
    parts: list[str]
    error: str


def parts_of(vector: Valid | Invalid) -> list[bytes]:
    return [bytes.fromhex(part) for part in vector["parts"]]


def packet_of(vector: Valid) -> Packet:
    packet = cases.from_json(vector["packet"])
    assert isinstance(packet, Packet)
    return packet


@of_each_valid
def test_vector_decodes_to_its_packet(vector: Valid) -> None:
    assert decode(parts_of(vector), LIMITS) == packet_of(vector)


@of_each_valid
def test_packet_encodes_to_its_vector(vector: Valid) -> None:
    parts = encode(packet_of(vector), LIMITS, VECTORS["inline_bytes_max"])
    assert [bytes(part) for part in parts] == parts_of(vector)


@of_each_invalid
def test_invalid_vector_is_refused(vector: Invalid) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(parts_of(vector), LIMITS)
    assert caught.value.kind == vector["error"]


def test_vectors_cover_every_frame_and_control_record() -> None:
    frames = [frame for vector in VECTORS["valid"] for frame in packet_of(vector).frames]
    assert {type(frame) for frame in frames} == set(Frame.__args__)
    records = [
        record for frame in frames if isinstance(frame, ControlData) for record in frame.records
    ]
    assert {type(record) for record in records} == set(Control.__args__)


def test_file_is_what_the_cases_make() -> None:
    assert json.loads(json.dumps(cases.as_file())) == VECTORS
