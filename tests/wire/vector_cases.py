"""What the vectors in `tests/vectors/packets.json` are made from; `test_vectors` uses the file.

The file changes only on purpose, when the protocol does: `python -m tests.wire.vector_cases`.
"""

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import msgpack

from tests.wire import proof_cases
from tests.wire.proof_cases import FRESH, JOURNAL, LINK, MESH
from zmesh.ids import NO_LINK, LinkId, NodeId, SessionId
from zmesh.message import Extras, ExtraValue, Outcome, Record, Tag
from zmesh.options import WireLimits
from zmesh.security.node_key import NodeKey
from zmesh.security.signing import Addressing, Signer, signature_in
from zmesh.wire import frames as wire
from zmesh.wire.codec import encode
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    Control,
    ControlData,
    Data,
    Drain,
    Error,
    ErrorCode,
    Fenced,
    Frame,
    FrameType,
    Gap,
    Hello,
    Iam,
    Interest,
    LaneState,
    Packet,
    PeerHint,
    Ping,
    Pong,
    Refused,
    Settle,
    Welcome,
    Who,
)

INLINE_BYTES_MAX = 16
"""What the vectors are encoded with, so that bodies in parts of their own can be short."""

MAX = 2**63 - 1
ADA = NodeId(bytes.fromhex("ad" * 16))
BOB = NodeId(bytes.fromhex("b0" * 16))
CYD = NodeId(bytes.fromhex("c1" * 16))
SESSION = SessionId(bytes.fromhex("5e" * 16))
ZSTD_BODY = "28b52ffd204a8d00005881a474657874d942616263010054725e"
"""`{"text": "abc" * 22}` in msgpack."""
LZ4_BODY = "4f61626364040024506461626364"
"""`b"abcd" * 16`."""
SIGNATURE, SIGNATURE_OF_THREE = (
    signature_in(
        Signer(NodeKey.of(b"a" * 32), JOURNAL, Addressing.NAME, 4, "bob", None).sign_all(
            [(0, "", b"x")] * together, 7, 1_700_000_000_000, 1_700_000_060_000
        )[0]
    )
    for together in (1, 3)
)
"""Of DIRECT records with the body "x", for who is called bob: alone, and the first of three."""
HIGHEST_LINK = LinkId(b"\xff" * 8)


# As JSON


def to_json(value: object) -> object:
    """Dataclasses become objects with their name as "type", bytes `{"hex": ...}`."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
        return {"type": type(value).__name__, **named}
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, tuple):
        return [to_json(item) for item in value]
    return value


def from_json(value: object) -> object:
    """Undo `to_json`."""
    if isinstance(value, dict):
        if value.keys() == {"hex"}:
            return bytes.fromhex(value["hex"])
        named = {name: from_json(item) for name, item in value.items() if name != "type"}
        return getattr(wire, value["type"])(**named)
    if isinstance(value, list):
        return tuple([from_json(item) for item in value])
    return value


# Valid packets


def of(*frames: Frame) -> Packet:
    return Packet(LINK, 7, frames)


def control(*records: Control) -> Packet:
    return of(ControlData(3, records))


def data(*records: Record) -> Packet:
    return of(Data(4, 1, records))


def with_extras(*items: ExtraValue) -> Packet:
    flat: Extras = tuple([int(item) if isinstance(item, Tag) else item for item in items])
    return data((0x11, "resize", b"body", flat))


def handshake_packets() -> dict[str, Packet]:
    lanes = (
        LaneState(0, 1, 0, (), 1024, 262144),
        LaneState(4, 1001, 500, ((502, 502), (510, 600)), 1524, 400000),
        LaneState(10, 12, 11, (), 0, 0),
    )
    every_lane = tuple(LaneState(lane, MAX, MAX, (), MAX, MAX) for lane in range(11))
    endpoints = ("tcp://192.168.1.7:49152", "tcp://[fd00::7]:49152")
    known = (PeerHint(CYD, "cyd", ("tcp://192.168.1.9:5000",)), PeerHint(BOB, "", ()))
    return {
        "who": Packet(NO_LINK, 0, (Who(MESH, ADA),)),
        "iam": Packet(NO_LINK, 0, (Iam(MESH, BOB, "bob", 3, endpoints, known),)),
        "iam that knows nobody": Packet(NO_LINK, 0, (Iam(MESH, BOB, "", 0, (), ()),)),
        "hello": Packet(
            LINK, 0, (Hello(MESH, ADA, BOB, "ada", 2, JOURNAL, 1, None, FRESH, endpoints, lanes),)
        ),
        "iam of an edge": Packet(
            NO_LINK, 0, (Iam(MESH, BOB, "bob", 3, endpoints, known, is_edge=True),)
        ),
        "hello of an edge": Packet(
            LINK,
            0,
            (Hello(MESH, ADA, BOB, "ada", 2, JOURNAL, 1, None, FRESH, (), (), is_edge=True),),
        ),
        "hello that resumes": Packet(
            LINK, 0, (Hello(MESH, ADA, BOB, "ada", 2, JOURNAL, 9, SESSION, FRESH, (), lanes),)
        ),
        "hello with the highest numbers": Packet(
            HIGHEST_LINK,
            MAX,
            (Hello(MESH, ADA, BOB, "", MAX, JOURNAL, MAX, None, FRESH, (), every_lane),),
        ),
        "hello of one that decompresses": Packet(
            LINK,
            0,
            (Hello(MESH, ADA, BOB, "ada", 2, JOURNAL, 1, None, FRESH, (), lanes, (1, 2, 127)),),
        ),
        "welcome of one that decompresses": Packet(
            LINK, 0, (Welcome(BOB, "bob", 3, JOURNAL, 1, 0, FRESH, (), (), (1,)),)
        ),
        "welcome": Packet(
            LINK, 0, (Welcome(BOB, "bob", 3, JOURNAL, 9, 2, SESSION, endpoints, lanes),)
        ),
        "welcome without lanes": Packet(
            LINK, 0, (Welcome(BOB, "bob", 3, JOURNAL, 1, 0, FRESH, (), ()),)
        ),
    } | proved_packets()


def proved_packets() -> dict[str, Packet]:
    """What is said on a mesh with keys; the proofs hold, and `proofs.json` says of what."""
    iam, hello, welcome, evidence = (
        proof_cases.IAM, proof_cases.HELLO, proof_cases.WELCOME, proof_cases.EVIDENCE,
    )  # fmt: skip
    return {
        "iam with a proof": Packet(NO_LINK, 0, (iam,)),
        "iam with a proof of an edge": Packet(NO_LINK, 0, (replace(iam, is_edge=True),)),
        "hello with a proof": Packet(LINK, 0, (hello,)),
        "hello with a proof of an edge": Packet(LINK, 0, (replace(hello, is_edge=True),)),
        "hello with a proof of one that decompresses": Packet(
            LINK, 0, (replace(hello, decompresses=(1, 2)),)
        ),
        "welcome with a proof": Packet(LINK, 0, (welcome,)),
        "welcome with a proof of one that decompresses": Packet(
            LINK, 0, (replace(welcome, decompresses=(127,)),)
        ),
        "fenced with evidence": Packet(LINK, 0, (Fenced(4, evidence),)),
        "error with evidence": Packet(
            LINK, 0, (Error(ErrorCode.DUPLICATE_IDENTITY, "same", evidence),)
        ),
    }


def data_packets() -> dict[str, Packet]:
    digest = bytes(range(16))
    many = tuple((0, "", bytes([index])) for index in range(20))
    mixed: tuple[Record, ...] = tuple(
        (0, "t", b"") if index % 2 else (0, "t", b"", (int(Tag.TTL_MS), index))
        for index in range(10)
    )
    return {
        "data": data((0x10, "", b"\x81\xa3job\x07")),
        "data with an empty body": data((0, "", b"")),
        "data with the highest head": data((255, "", b"")),
        "data on the lowest and highest lane": of(
            Data(0, 1, ((0, "", b"low"),)), Data(9, 1, ((0, "", b"high"),))
        ),
        "data with the highest number": of(Data(4, MAX, ((0, "", b""),))),
        "data with many records": data(*many),
        "data with and without extras": data(*mixed),
        "publication with headers": data(
            (0x14, "sensors.kitchen.temp", b"\x15", (int(Tag.HEADERS), b"\x81\xa4unit\xa1C"))
        ),
        "a message for a group": data((0x18, "cameras", b"\x07", (int(Tag.MESSAGE_ID), 1))),
        "target of 1024 bytes": data((0, "é" * 512, b"")),
        "key": with_extras(Tag.KEY, "user-7"),
        "key and predecessors": with_extras(
            Tag.KEY, "user-7", Tag.PREDECESSORS, ((0, 3), (9, 70000))
        ),
        "time to live": with_extras(Tag.TTL_MS, 60000),
        "message id": with_extras(Tag.MESSAGE_ID, MAX),
        "attempt": with_extras(Tag.ATTEMPT, 2),
        "correlation": with_extras(Tag.CORRELATION, 0),
        "every extra but those of publications": with_extras(
            Tag.HEADERS, b"\x80", Tag.KEY, "", Tag.PREDECESSORS, ((0, 1),), Tag.TTL_MS, 0,
            Tag.MESSAGE_ID, 1, Tag.ATTEMPT, 1, Tag.CORRELATION, 1, Tag.FRAGMENTS, (2, 2, digest),
        ),
        "extras of publications": with_extras(
            Tag.TYPE, "reading", Tag.KEPT, 0, Tag.RETAINED, 3, Tag.MISSED, (3, 1, 4, 70000)
        ),
        "a job of an exchange": data(
            (0x16, "invoices", b"\x07", (int(Tag.ROUTING_KEY), "order.eu.paid"))
        ),
        "a stream is opened, written and ended": data(
            (10, "tail", b"x.log", (int(Tag.STREAM), (1, 0, 2, 1024, 1048576))),
            (9, "", b"a line", (int(Tag.STREAM), (1, 1))),
            (10, "tail", b"", (int(Tag.STREAM), (1, 1, 1280, 1049600))),
            (10, "", b"", (int(Tag.STREAM), (1, 2, 1))),
            (10, "tail", b"", (int(Tag.STREAM), (1, 4))),
        ),
        "compressed with zstd": data(
            (0x90, "", bytes.fromhex(ZSTD_BODY), (int(Tag.COMPRESSED), (1, 74)))
        ),
        "compressed with lz4": data(
            (0x84, "log", bytes.fromhex(LZ4_BODY), (int(Tag.COMPRESSED), (2, 64)))
        ),
        "signature": with_extras(Tag.SIGNATURE, SIGNATURE),
        "the signature of one of several": with_extras(Tag.SIGNATURE, SIGNATURE_OF_THREE),
        "an extra of a later version": with_extras(Tag.KEY, "k", 127, (1, 2, b"three")),
        "fragments": data(
            (0, "", b"01234567", (int(Tag.FRAGMENTS), (3, 20, digest))),
            (15, "", b"89abcdef"),
            (15, "", b"ghij"),
        ),
        "body in a part of its own": data((0, "", b"x" * 17)),
        "bodies inside and outside": of(
            Data(4, 1, ((0, "", b"x" * 17), (0, "", b"inside"), (0, "t", b"y" * 300, (4, 1)))),
            Data(5, 1, ((0, "", b"z" * 20),)),
        ),
    }  # fmt: skip


def control_packets() -> dict[str, Packet]:
    return {
        "settle": control(Settle(4, ((Outcome.ACCEPTED, 1, 500),))),
        "settle with every outcome": control(
            Settle(
                9,
                tuple((outcome, 2 * outcome + 1, 2 * outcome + 2) for outcome in Outcome),
                ((3, "no such file", 0), (7, "", 1500)),
            )
        ),
        "settle with nothing": control(Settle(0, ())),
        "settle of the highest number": control(Settle(0, ((Outcome.EXPIRED, MAX, MAX),))),
        "gap": control(Gap(4, ((10, 12, 348), (20, 20, 0)))),
        "interest": control(
            Interest((("service", "resize"), ("topic", "sensors.*.temp")), (("topic", ">"),))
        ),
        "interest that describes a node": control(
            Interest(
                (("group", "cameras"), ("attribute", 'room="küche"')), (("attribute", "floor=2"),)
            )
        ),
        "interest in nothing": control(Interest((), ())),
        "drain": control(Drain()),
        "refused": control(
            Refused(
                (("service", "resize", 'NOT-ALLOWED ["serve", "resize", "rules.toml: rule 2"]'),)
            )
        ),
        "refused nothing": control(Refused(())),
        "several control records": control(
            Settle(4, ((Outcome.ACCEPTED, 1, 1),)), Gap(4, ((2, 2, 16),)), Drain()
        ),
    }


def other_packets() -> dict[str, Packet]:
    every_lane = tuple((lane, 5, ((7, 7), (9, 12))) for lane in range(11))
    every_credit = tuple((lane, 65535, 65536) for lane in range(10))
    return {
        "ack": of(Ack(41, 1200, ((4, 500, ()),), ((4, 1524, 400000),))),
        "ack of nothing": of(Ack(0, 0, (), ())),
        "ack of every lane": of(Ack(255, 256, every_lane, every_credit)),
        "ack of the highest numbers": of(Ack(MAX, MAX, ((10, MAX, ()),), ((9, MAX, MAX),))),
        "ack of the highest range": of(Ack(1, 0, ((0, 0, ((MAX, MAX),)),), ())),
        "ping": of(Ping(1)),
        "ping with the highest nonce": of(Ping(2**64 - 1)),
        "pong": of(Pong(2**32)),
        **{f"bye {code.name.lower()}": of(Bye(code, "see you")) for code in ByeCode},
        "fenced": of(Fenced(4)),
        **{f"error {code.name.lower()}": of(Error(code, "why")) for code in ErrorCode},
        "several frames": of(
            Ack(41, 0, ((4, 12, ()),), ()), Ping(7), ControlData(1, (Drain(),)),
            Data(4, 13, ((1, "resize", b"photo", (int(Tag.CORRELATION), 99)),)),
        ),
    }  # fmt: skip


def valid() -> dict[str, Packet]:
    return handshake_packets() | data_packets() | control_packets() | other_packets()


# Bytes that are no packet

Invalid = dict[str, list[bytes]]
"""Parts, by what is wrong with them."""


def packed(wire_form: object) -> bytes:
    encoded: bytes = msgpack.packb(wire_form)
    return encoded


def head(*items: object) -> list[bytes]:
    return [packed([1, LINK, 7, *items])]


def one(*frame: object) -> list[bytes]:
    return head(frame)


def records(*items: object) -> list[bytes]:
    return one(FrameType.DATA, 4, 1, items)


def controls(*items: object) -> list[bytes]:
    return one(FrameType.DATA, 10, 1, items)


def extras(*items: object) -> list[bytes]:
    return records([0, "", b"", items])


def iam(name: object, endpoints: list[str], known: list[object]) -> list[bytes]:
    return one(FrameType.IAM, MESH, ADA, name, 1, endpoints, known)


def hello(*lanes: object, more: tuple[object, ...] = ()) -> list[bytes]:
    return one(
        FrameType.HELLO, MESH, ADA, BOB, "ada", 1, JOURNAL, 1, None, FRESH, [], lanes, *more
    )  # fmt: skip


def ack(*ranges: list[int]) -> list[bytes]:
    """One lane with 1 as its cumulative number."""
    return one(FrameType.ACK, 1, 0, [[4, 1, ranges]], [])


def of_other_versions() -> Invalid:
    return {
        "a later version": [packed([2, "whatever"])],
        "version 0": [packed([0, LINK, 7, [7, 1]])],
    }


def unknown() -> Invalid:
    return {
        "an unknown frame": one(12, "later"),
        "frame type 0": one(0),
        "an unknown control record": controls([6]),
    }


def malformed_packets() -> Invalid:
    ping = [7, 1]
    start = b"\x94\x01" + packed(LINK) + b"\x07"
    return {
        "a refused interest without a reason": controls([5, [["topic", "a"]]]),
        "no parts": [],
        "an empty head": [b""],
        "a head that is no array": [packed({1: 2})],
        "a version and nothing else": [packed([1])],
        "a version of two bytes": [b"\x94\xcc\x01" + packed([LINK, 7, ping])[1:]],
        "a version that is true": [packed([True, LINK, 7, ping])],
        "a link id of 7 bytes": [packed([1, LINK[:7], 7, ping])],
        "a link id that is a text": [packed([1, "linklink", 7, ping])],
        "a negative packet number": [packed([1, LINK, -1, ping])],
        "a packet number over 2^63-1": [packed([1, LINK, MAX + 1, ping])],
        "a packet number that is a float": [packed([1, LINK, 7.0, ping])],
        "no frames": head(),
        "a frame that is no array": head(7),
        "an empty frame": one(),
        "a frame type that is true": one(True, MESH, ADA),
        "a byte cut off": [head(ping)[0][:-1]],
        "a byte too many": [head(ping)[0] + b"\x00"],
        "a byte msgpack never uses": [start + b"\xc1"],
        "an array that claims items and has none": [start + b"\xdd\xff\xff\xff\xff"],
        "nested 2000 deep": [start + b"\x91" * 2000 + b"\x00"],
        "a map": one(FrameType.PING, {}),
        "an extension": one(FrameType.PING, msgpack.ExtType(5, b"x")),
        "a timestamp": one(FrameType.PING, msgpack.Timestamp(1)),
    }


def malformed_frames() -> Invalid:
    state = [4, 1, 0, [], 0, 0]
    bye = one(FrameType.BYE, 0, "???")[0]
    return {
        "WHO without a node": one(FrameType.WHO, MESH),
        "WHO with a mesh tag of 9 bytes": one(FrameType.WHO, MESH + b"x", ADA),
        "IAM with a name of bytes": iam(b"ada", [], []),
        "IAM with endpoints that are a text": one(
            FrameType.IAM, MESH, ADA, "ada", 1, "tcp://127.0.0.1:1", []
        ),
        "a text that is not UTF-8": [bye.replace(b"???", b"\xc3\x28?")],
        "a text with a surrogate": [bye.replace(b"???", b"\xed\xa0\x80")],
        "HELLO with a lane twice": hello(state, state),
        "HELLO with lane 11": hello([11, *state[1:]]),
        "HELLO with next number 0": hello([4, 0, 0, [], 0, 0]),
        "HELLO without lanes": one(
            FrameType.HELLO, MESH, ADA, BOB, "ada", 1, JOURNAL, 1, None, FRESH, []
        ),
        "HELLO with a field too many": hello(more=([1], [])),
        "HELLO with algorithms that descend": hello(more=([2, 1],)),
        "HELLO with algorithm 0": hello(more=([0],)),
        "HELLO with algorithm 128": hello(more=([128],)),
        "WELCOME with an algorithm that is true": one(
            FrameType.WELCOME, BOB, "bob", 1, JOURNAL, 1, 0, FRESH, [], [], [True]
        ),
        "WELCOME without a session": one(
            FrameType.WELCOME, BOB, "bob", 1, JOURNAL, 1, 0, None, [], []
        ),
        "ACK with lanes descending": one(FrameType.ACK, 1, 0, [[5, 0, []], [4, 0, []]], []),
        "ACK with a lane that is true": one(FrameType.ACK, 1, 0, [[True, 0, []]], []),
        "ACK with a negative number": one(FrameType.ACK, 1, 0, [[4, -1, []]], []),
        "ACK with ranges that touch": ack([3, 4], [5, 6]),
        "ACK with ranges that overlap": ack([3, 5], [5, 6]),
        "ACK with a range that ends before it begins": ack([4, 3]),
        "ACK with a range that touches the cumulative number": ack([2, 3]),
        "ACK with credit over 2^63-1": one(FrameType.ACK, 1, 0, [], [[4, MAX + 1, 0]]),
        "ACK with a credit that is true": one(FrameType.ACK, 1, 0, [], [[4, True, 0]]),
        "PING with a nonce that is false": one(FrameType.PING, False),
        "BYE with an unknown code": one(FrameType.BYE, 3, ""),
        **malformed_proofs(),
        "ERROR with code 0": one(FrameType.ERROR, 0, ""),
        "FENCED without an incarnation": one(FrameType.FENCED),
    }


def malformed_proofs() -> Invalid:
    key, proof = b"k" * 32, b"p" * 64
    said = [2, 4, JOURNAL, 3, key, LINK, 1, proof]

    def welcome(*more: object) -> list[bytes]:
        return one(FrameType.WELCOME, BOB, "bob", 1, JOURNAL, 1, 0, FRESH, [], [], *more)

    def iam(*more: object) -> list[bytes]:
        return one(FrameType.IAM, MESH, ADA, "ada", 1, [], [], *more)

    def fenced(*items: object) -> list[bytes]:
        return one(FrameType.FENCED, 4, items)

    return {
        "IAM with a key alone": iam(key),
        "IAM with a key of 31 bytes": iam(key[1:], proof),
        "IAM with a proof of 63 bytes": iam(key, proof[1:]),
        "IAM with a field too many": iam(key, proof, 0),
        "IAM with a key that is a text": iam("k" * 32, proof),
        "HELLO with a key in place of algorithms": hello(more=(key, proof)),
        "HELLO with a key alone": hello(more=([], key)),
        "HELLO with a key of 33 bytes": hello(more=([], key + b"k", proof)),
        "HELLO with a proof of 65 bytes": hello(more=([], key, proof + b"p")),
        "HELLO with an empty key and proof": hello(more=([], b"", b"")),
        "WELCOME with a key in place of algorithms": welcome(key, proof),
        "WELCOME with a proof of 0 bytes": welcome([], key, b""),
        "WELCOME with a field too many": welcome([], key, proof, 0),
        "FENCED with evidence that is nil": one(FrameType.FENCED, 4, None),
        "FENCED with evidence of an IAM": fenced(1, *said[1:]),
        "FENCED with evidence of nothing": fenced(4, *said[1:]),
        "FENCED with evidence without a proof": fenced(*said[:7]),
        "FENCED with evidence of a short connection": fenced(*said[:4], key[1:], *said[5:]),
        "ERROR with evidence that is a text": one(FrameType.ERROR, 8, "", "evidence"),
    }


def malformed_records() -> Invalid:
    record = [1, "", b""]
    return {
        "DATA without records": records(),
        "DATA on lane 11": one(FrameType.DATA, 11, 1, [record]),
        "DATA with number 0": one(FrameType.DATA, 4, 0, [record]),
        "DATA with numbers over 2^63-1": one(FrameType.DATA, 4, MAX, [record] * 2),
        "a record of two": records([0, ""]),
        "a record of five": records([0, "", b"", [4, 1], 0]),
        "a text for a record": records(*["abc"] * 10),
        "bytes for a record": records(*[b"abc"] * 10),
        "a number for a record, among many": records(*[record] * 10, 7),
        "records of three and of two, many": records(*[record] * 10, [1, ""]),
        "records of two, many": records(*[[1, ""]] * 10),
        "a head of 256": records([256, "", b""]),
        "a head that is true, among many": records(*[record] * 10, [True, "", b""]),
        "a target of bytes": records([0, b"", b""]),
        "a body that is a text": records([0, "", "body"]),
        "a body in part 0": records([0, "", 0]),
        "a body in a part that is not there": records([0, "", 1]),
        "a part that no record names": [*records(record), b"body"],
        "a part that two records name": [*records([0, "", 1], [0, "", 1]), b"body"],
        "a stream without what of it": extras(13, [1]),
        "a stream with a text": extras(13, [1, "1"]),
        "compressed in a way 0": extras(14, [0, 1]),
        "compressed from nothing": extras(14, [1, 0]),
        "compressed without a size": extras(14, [1]),
        "no extras": extras(),
        "an extra without a value": extras(4),
        "tags descending": extras(5, 1, 4, 1),
        "a signature that is no bytes": extras(20, "signature"),
        "a signature of too many bytes": extras(20, bytes(1025)),
        "a tag twice": extras(4, 1, 4, 1),
        "tag 0": extras(0, 1),
        "tag 128": extras(128, 1),
        "headers that are a text": extras(1, "unit"),
        "a key of bytes": extras(2, b"key"),
        "a predecessor on the control lane": extras(3, [[10, 1]]),
        "predecessors that descend": extras(3, [[4, 1], [3, 1]]),
        "a negative time to live": extras(4, -1),
        "a digest of 15 bytes": extras(8, [2, 2, bytes(15)]),
        "an unknown extra with an array in it": extras(99, [[1]]),
    }


def malformed_controls() -> Invalid:
    return {
        "an empty control record": controls([]),
        "no control records": controls(),
        "SETTLE of the control lane": controls([1, 10, [], []]),
        "SETTLE with an unknown outcome": controls([1, 4, [[6, 1, 1]], []]),
        "SETTLE of number 0": controls([1, 4, [[0, 0, 1]], []]),
        "SETTLE of a range that ends before it begins": controls([1, 4, [[0, 2, 1]], []]),
        "SETTLE with a negative delay": controls([1, 4, [[2, 1, 1]], [[1, "", -1]]]),
        "GAP without a size": controls([2, 4, [[1, 1]]]),
        "INTEREST without a kind": controls([3, [["resize"]], []]),
        "DRAIN with a field": controls([4, 0]),
    }


def oversized() -> Invalid:
    topics = [["topic", "a"]]
    apart = [[2 * number, 2 * number] for number in range(2, 35)]
    return {
        "a stream of six": extras(13, [1] * 6),
        "65 frames": head(*[[7, 1]] * 65),
        "4097 records": records(*[[0, "", b""]] * 4097),
        "13 extras": extras(*[item for tag in range(20, 33) for item in (tag, 1)]),
        "HELLO with nine algorithms": hello(more=(list(range(1, 10)),)),
        "headers of 4097 bytes": extras(1, bytes(4097)),
        "a name of 1025 bytes": iam("n" * 1025, [], []),
        "17 endpoints": iam("", ["e"] * 17, []),
        "65 known peers": iam("", [], [[ADA, "", []]] * 65),
        "33 ranges": ack(*apart),
        "33 outcomes": controls([1, 4, [[0, 1, 1]] * 33, []]),
        "33 details": controls([1, 4, [[0, 1, 99]], [[seq, "", 1] for seq in range(1, 34)]]),
        "33 gaps": controls([2, 4, [[1, 1, 0]] * 33]),
        "1025 refused interests": controls([5, [["topic", "a", ""]] * 1025]),
        "1025 interests": controls([3, topics * 1000, topics * 25]),
    }


def invalid() -> dict[str, Invalid]:
    """By the kind of the error."""
    return {
        "version": of_other_versions(),
        "unknown frame": unknown(),
        "malformed": malformed_packets()
        | malformed_frames()
        | malformed_records()
        | malformed_controls(),
        "oversized": oversized(),
    }


# The file

PATH = Path(__file__).parent.parent / "vectors" / "packets.json"

ABOUT = (
    "Packets of the zmesh link protocol, version 1 (docs/protocol.md). 'valid' pairs a packet "
    "with its ZeroMQ parts, bodies over inline_bytes_max in parts of their own: encoding gives "
    "exactly these bytes, decoding gives the packet. 'invalid' are parts that are refused, and "
    "the kind of the error. Bytes are hexadecimal."
)


def as_file() -> dict[str, object]:
    """What the codec and the cases above make of the file."""
    return {
        "about": ABOUT,
        "version": wire.VERSION,
        "inline_bytes_max": INLINE_BYTES_MAX,
        "valid": [
            {"name": name, "packet": to_json(packet), "parts": in_hex(to_parts(packet))}
            for name, packet in valid().items()
        ],
        "invalid": [
            {"name": name, "parts": in_hex(parts), "error": kind}
            for kind, cases in invalid().items()
            for name, parts in cases.items()
        ],
    }


def to_parts(packet: Packet) -> list[bytes]:
    return [bytes(part) for part in encode(packet, WireLimits(), INLINE_BYTES_MAX)]


def in_hex(parts: list[bytes]) -> list[str]:
    return [part.hex() for part in parts]


if __name__ == "__main__":
    PATH.write_text(json.dumps(as_file(), indent=1) + "\n", encoding="ascii")
    proof_cases.PATH.write_text(
        json.dumps(proof_cases.as_file(), indent=1) + "\n", encoding="ascii"
    )
