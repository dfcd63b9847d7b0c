"""A peer whose every frame a script chooses, and who knows enough to be let in.

It fills in what cannot be guessed (tags, ids, sessions, sequence numbers) unless the script wants
something else there, so that what it says is not all refused at the door.
"""

import json
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import msgpack

from tests.fuzz.script import Script
from zmesh.ids import NO_LINK, JournalId, LinkId, MeshTag, NodeId, SessionId
from zmesh.message import (
    CONTROL_LANE,
    LANES,
    Encoding,
    Extras,
    ExtraValue,
    InterestKind,
    Kind,
    Outcome,
    Record,
    Tag,
    head,
)
from zmesh.options import WireLimits
from zmesh.patterns import job_control
from zmesh.patterns.shared_map import BUCKETS, ORIGIN_BYTES, Entry
from zmesh.patterns.state_records import Ask, Delta, Digest, Fetch, Piece
from zmesh.patterns.state_records import encode_ask as ask_body
from zmesh.patterns.state_records import encode_delta as delta_body
from zmesh.patterns.state_records import encode_digest as digest_body
from zmesh.patterns.state_records import encode_fetch as fetch_body
from zmesh.patterns.state_records import encode_piece as piece_body
from zmesh.security.node_key import NodeKey
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
    Gap,
    Hello,
    Iam,
    Interest,
    LaneState,
    Packet,
    PeerHint,
    Ping,
    Pong,
    Ranges,
    Settle,
    Welcome,
    Who,
)

MESH: Final = MeshTag(b"testmesh")
OTHER_MESH: Final = MeshTag(b"another!")
KEYS: Final = {key.id: key for key in (NodeKey.of(bytes([number]) * 32) for number in range(1, 7))}
NODES: Final = tuple(KEYS)
JOURNALS: Final = tuple(JournalId(bytes([0x10 + number]) * 16) for number in range(4))
SESSIONS: Final = tuple(SessionId(bytes([0x50 + number]) * 16) for number in range(4))
LINKS: Final = tuple(LinkId(bytes([0x80 + number]) * 8) for number in range(4))
ENDPOINTS: Final = (
    *("tcp://192.168.1.7:5555", "tcp://127.0.0.1:6666", "tcp://[fd00::7]:5555", "nonsense"),
    *("tcp://[fe80::7%eth0]:5555", "tcp://192.168.1.1:5000", "tcp://0.0.0.0:1", ""),
)
TARGETS: Final = (
    *("", "svc", "queue", "topic.a", "group", "map", "topic.>", "topic.*", "tail", "zmesh.", "*"),
    *("#", "a..b", "other", "\0", "é"),
)
ATTRIBUTES: Final = ("a=1", 'a="b"', "=", "a=", "a=[1]", "a=NaN", "b=true", "a=1e999")
KINDS: Final = (*map(str, InterestKind), "subscription", "log", "unknown", "")
FILTERS: Final = ("body", "a.b", "a[?b]", "[", "@", "length(@)", "sort(@)", "*.*.*", "nofunc(a)")

_TOPICS: Final = ("topic.>", "topic.a", ">", "", "a..b", "*", "topic.>.a")
_USUAL: Final[dict[int, tuple[str, ...]]] = {
    Kind.REQUEST: ("svc", "svc", "other", ""),
    Kind.PUBLICATION: ("topic.a", "topic.b", ""),
    Kind.JOB: ("queue", "queue", ""),
    Kind.JOB_CONTROL: ("queue", "other"),
    Kind.GROUP: ("group", "other"),
    Kind.STREAM: ("tail", ""),
    Kind.STREAM_CONTROL: ("tail", "", "other"),
    Kind.STATE: ("map", "map", "other"),
    Kind.MISSED: ("", "topic.a"),
    Kind.DURABILITY: ("known", "passed", "ended", "other"),
}
_NO_TAG: Final = max(Tag) + 1
_LANES_USED: Final = (4, 5, 9, CONTROL_LANE)
_NO_LIMITS: Final = WireLimits(part_bytes_max=2**40, head_bytes_max=2**40)
_STATE: Final = 1 << 40
"""About what stamps of shared maps are, so that deltas follow each other."""


class Speaker:
    """What the peer knows: who it is, whom it talks to, and where the two are."""

    def __init__(self, me: NodeId, to: NodeId) -> None:
        self.me = me
        self.to = to
        self.link = LINKS[0]
        self.number = 0  # of its last packet
        self.attempt = 0
        self.incarnation = 1
        self.heard_attempt = 1  # of the last HELLO it was sent
        self.offered = SESSIONS[0]  # in it
        self.session: SessionId | None = None  # it was welcomed in
        self.heard = 0  # the highest number of a packet it was sent
        self.next_seq = [1] * (LANES + 1)
        self.received = [0] * (LANES + 1)  # the highest number it was sent, a lane

    def hear(self, link: LinkId, number: int, frame: Frame) -> None:
        """Remember what the other side said."""
        if isinstance(frame, Hello):
            self.link, self.heard_attempt, self.offered = link, frame.attempt, frame.fresh
            self.number = 0
        elif isinstance(frame, Welcome):
            if self.session != frame.session:
                self.next_seq = [1] * (LANES + 1)
                self.received = [0] * (LANES + 1)
            self.session = frame.session
        elif isinstance(frame, Data | ControlData):
            lane = frame.lane if isinstance(frame, Data) else CONTROL_LANE
            last = frame.first_seq + len(frame.records) - 1
            self.received[lane] = max(self.received[lane], last)
        if link == self.link:
            self.heard = max(self.heard, number)

    def next_number(self, script: Script) -> int:
        """Return the number of the next packet: mostly one more than before."""
        if script.rarely():
            return script.count()
        self.number += 1
        return self.number

    # Frames

    def frame(self, script: Script) -> Frame:
        """Return what the script makes the peer say."""
        return script.choice(_FRAMES)(self, script)

    def who(self, script: Script) -> Who:
        """Ask who answers."""
        return Who(self._mesh(script), self._node(script))

    def ping(self, script: Script) -> Ping | Pong:
        """Ask for a sign of life, or give one."""
        if script.flag():
            return Pong(script.below(4))
        return Ping(min(script.number(), 2**64 - 1))

    def farewell(self, script: Script) -> Bye | Fenced | Error:
        """Say why there is no more to say."""
        match script.below(4):
            case 0:
                return Fenced(script.count())
            case 1:
                return Bye(script.choice(tuple(ByeCode)), script.text())
            case _:
                return Error(script.choice(tuple(ErrorCode)), script.text())

    def iam(self, script: Script) -> Iam:
        """Say who answers, and who else is there."""
        known = tuple(
            PeerHint(self._node(script), script.text(("b", "")), self._endpoints(script))
            for _ in range(script.below(6))
        )
        return Iam(
            mesh=self._mesh(script),
            node=self._node(script),
            name=script.text(("b", "", "a")),
            incarnation=self._incarnation(script),
            endpoints=self._endpoints(script),
            known=known,
        )

    def hello(self, script: Script) -> Hello:
        """Ask for a link, under a new id."""
        self.link = script.choice(LINKS)
        self.number = 0
        self.attempt += script.choice((1, 1, 1, 0, 2))
        resume = script.choice((self.session, self.session, None, *SESSIONS))
        return Hello(
            mesh=self._mesh(script),
            node=self._node(script),
            to=self._node(script) if script.rarely() else self.to,
            name=script.text(("b", "", "a")),
            incarnation=self._incarnation(script),
            journal=self._journal(script),
            attempt=self.attempt,
            resume=resume,
            fresh=script.choice(SESSIONS),
            endpoints=self._endpoints(script),
            lanes=self._lanes(script),
            decompresses=script.choice(((), (1,), (1, 2), (127,))),
        )

    def welcome(self, script: Script) -> Welcome:
        """Grant the link that was asked for last."""
        session = script.choice(SESSIONS) if script.rarely() else self.offered
        self.session = session
        return Welcome(
            node=self._node(script),
            name=script.text(("b", "", "a")),
            incarnation=self._incarnation(script),
            journal=self._journal(script),
            attempt=script.count() if script.rarely() else self.heard_attempt,
            calls=self.attempt,
            session=session,
            endpoints=self._endpoints(script),
            lanes=self._lanes(script),
            decompresses=script.choice(((), (1,), (1, 2), (127,))),
        )

    def data(self, script: Script) -> Data:
        """Say some records of a lane."""
        lane = script.choice(_LANES_USED[:-1])
        if script.rarely():
            records = self._in_fragments(script)
        else:
            count = script.choice((1, 1, 2, 3, 9))
            records = tuple(self._record(script) for _ in range(count))
        return Data(lane, self._first(script, lane, len(records)), records)

    def control(self, script: Script) -> ControlData:
        """Say some control records."""
        records = tuple(self._control(script) for _ in range(script.choice((1, 1, 2, 3))))
        return ControlData(self._first(script, CONTROL_LANE, len(records)), records)

    def ack(self, script: Script) -> Ack:
        """Acknowledge what was heard, or something else, and grant credit."""
        largest = script.count() if script.rarely() else self.heard
        lanes: list[tuple[int, int, Ranges]] = []
        credit: list[tuple[int, int, int]] = []
        for lane in range(LANES + 1):
            if lane not in _LANES_USED:
                continue
            match script.below(16):
                case 0 | 1 | 2 | 3 | 4 | 5:
                    lanes.append((lane, self.received[lane], ()))
                case 14:
                    lanes.append((lane, *_watermark(script)))
                case 15:
                    credit.append((lane, script.count(), script.count()))
                case 6 | 7 | 8 | 9:
                    credit.append((lane, self.received[lane] + 1024, 1 << 30))
        return Ack(largest, script.count(), tuple(lanes), tuple(credit))

    # Inside frames

    def _first(self, script: Script, lane: int, count: int) -> int:
        """Return the number of a first record: mostly the next, sometimes after a gap."""
        match script.below(16):
            case 15:
                return min(max(1, script.count()), 2**63 - count)
            case 14:
                return max(1, self.next_seq[lane] - script.below(8))
            case 13:
                return self.next_seq[lane] + script.below(8)
        first = self.next_seq[lane]
        self.next_seq[lane] += count
        return first

    def _mesh(self, script: Script) -> MeshTag:
        return OTHER_MESH if script.rarely() else MESH

    def _node(self, script: Script) -> NodeId:
        return script.choice(NODES) if script.rarely() else self.me

    def _incarnation(self, script: Script) -> int:
        if script.rarely():
            self.incarnation = script.count()
        return self.incarnation

    def _journal(self, script: Script) -> JournalId:
        return script.choice(JOURNALS) if script.rarely() else JOURNALS[0]

    def _endpoints(self, script: Script) -> tuple[str, ...]:
        return tuple(script.text(ENDPOINTS) for _ in range(script.choice((0, 1, 1, 2, 16))))

    def _lanes(self, script: Script) -> tuple[LaneState, ...]:
        states: list[LaneState] = []
        for lane in range(LANES + 1):
            match script.below(32):
                case 31:
                    pass
                case 30:
                    cum, ranges = _watermark(script)
                    next_seq = max(1, script.count())
                    credit = (script.count(), script.count())
                    states.append(LaneState(lane, next_seq, cum, ranges, *credit))
                case _:
                    state = (self.next_seq[lane], self.received[lane], ())
                    states.append(LaneState(lane, *state, 1024, 1 << 20))
        return tuple(states)

    def _control(self, script: Script) -> Control:
        match script.below(8):
            case 0 | 1 | 2:
                lane = script.choice(_LANES_USED[:-1])
                outcomes = tuple(
                    (script.choice(tuple(Outcome)), *self._span(script, lane))
                    for _ in range(script.below(4))
                )
                details = tuple(
                    (max(1, script.count()), script.text(), script.count())
                    for _ in range(script.below(3))
                )
                return Settle(lane, outcomes, details)
            case 3:
                lane = script.choice(_LANES_USED[:-1])
                gaps = tuple(
                    (*_span(script, self.next_seq[lane]), script.count())
                    for _ in range(script.below(3))
                )
                return Gap(lane, gaps)
            case 4 | 5 | 6:
                return Interest(self._entries(script), self._entries(script))
            case _:
                return Drain()

    def _span(self, script: Script, lane: int) -> tuple[int, int]:
        if script.below(4):
            last = max(1, self.received[lane])
            return max(1, last - script.below(4)), last
        return _span(script, 1)

    def _entries(self, script: Script) -> tuple[tuple[str, str], ...]:
        return tuple(self._entry(script) for _ in range(script.below(4)))

    def _entry(self, script: Script) -> tuple[str, str]:
        kind = script.choice(KINDS)
        if kind == InterestKind.ATTRIBUTE:
            return kind, script.text(ATTRIBUTES)
        if kind == InterestKind.SUBSCRIPTION:
            return kind, _subscription(script)
        if kind == InterestKind.LOG:
            return kind, _reading(script)
        return kind, script.text(TARGETS)

    def _record(self, script: Script) -> Record:
        kind = script.below(16)
        encoding: int = script.choice(tuple(Encoding))
        if kind in {Kind.STATE, Kind.DURABILITY}:
            encoding = Encoding.MSGPACK
        if script.rarely():
            encoding = script.below(16)
        target = script.text(_USUAL.get(kind, TARGETS))
        body = self._body(script, kind)
        extras = _extras(script, kind)
        if not extras:
            return (kind | encoding << 4, target, body)
        return (kind | encoding << 4, target, body, extras)

    def _in_fragments(self, script: Script) -> tuple[Record, ...]:
        """Return a record whose body is in pieces, and perhaps not all of them right."""
        pieces = [script.data() or b"piece" for _ in range(script.below(4) + 1)]
        whole = b"".join(pieces)
        size = script.count() if script.rarely() else len(whole)
        digest = blake2b(whole, digest_size=16).digest()
        kind = script.choice((Kind.DIRECT, Kind.PUBLICATION, Kind.REQUEST, Kind.STREAM))
        extras: Extras = (int(Tag.FRAGMENTS), (len(pieces), max(1, size), digest))
        first: Record = (head(kind), script.text(_USUAL.get(kind, TARGETS)), pieces[0], extras)
        return (first, *((head(Kind.FRAGMENT), "", piece) for piece in pieces[1:]))

    def _body(self, script: Script, kind: int) -> bytes:
        shape = script.below(8)
        if shape == 0:
            return script.data()
        if kind == Kind.STATE:
            return self._state(script)
        if kind == Kind.JOB_CONTROL:
            return _job_control(script)
        if kind == Kind.DURABILITY:
            numbers = [min(script.number(), 2**64 - 1) for _ in range(script.choice((2, 2, 3, 1)))]
            told: bytes = msgpack.packb(numbers)
            return told
        if shape < 4:
            return bytes([script.byte()])
        packed: bytes = msgpack.packb(script.value(TARGETS))
        return packed

    def _state(self, script: Script) -> bytes:
        rows = [(script.text(("a", "b", "")), self._value(script)) for _ in range(script.below(4))]
        digests = frozenset(min(script.number(), 2**64 - 1) for _ in range(script.below(3)))
        match script.below(5):
            case 0:
                since = script.choice((0, 0, _STATE, script.count()))
                return delta_body(Delta(self._origin(), since, since + script.count(), rows))
            case 1:
                return ask_body(Ask(script.below(4), script.take(8), script.count()))
            case 2:
                seen = {self._origin(): script.count()}
                sums = script.take(script.choice((0, 8, 8 * BUCKETS)))
                told = (script.below(4), script.flag(), script.count())
                return digest_body(Digest(*told, seen, sums))
            case 3:
                buckets = tuple(script.byte() for _ in range(script.below(4)))
                return fetch_body(Fetch(script.below(4), buckets, digests))
            case _:
                return piece_body(Piece(script.below(4), script.flag(), rows, digests))

    def _origin(self) -> bytes:
        return bytes(self.me).ljust(ORIGIN_BYTES, b"\1")

    def _value(self, script: Script) -> Entry:
        stamp = script.choice((_STATE, script.count(), 1_800_000_000_000 << 16))
        return Entry(stamp, self._origin(), script.choice((0, 1, 255)), script.data()[:64])


_FRAMES: Final[tuple[Callable[[Speaker, Script], Frame], ...]] = (
    *(Speaker.who, Speaker.iam, Speaker.hello, Speaker.welcome, Speaker.farewell),
    *(Speaker.data,) * 7,
    *(Speaker.control,) * 4,
    *(Speaker.ack,) * 3,
    Speaker.ping,
)
"""What is said more often is here more often."""


def _subscription(script: Script) -> str:
    members: dict[str, object] = {}
    for name, choices in (
        ("full", ("block", "drop_oldest", "drop_newest", "latest", "disconnect", "no", 1)),
        ("limit", (1, 2, 0, -1, True, 1.5, 2**70)),
        ("where", ({}, {"unit": "C"}, {"a": 1}, {"a": None}, {"": []}, [], 1)),
        ("content", FILTERS),
        ("type", ("t", 1)),
        ("any", (True, False, 1)),
        ("replay", (True, False, 1)),
        ("log", (True, False)),
        ("only", (True, False)),
    ):
        if script.below(3) == 0:
            members[name] = script.choice(choices)
    return json.dumps([_subscription_number(script), script.text(_TOPICS), members])


def _reading(script: Script) -> str:
    since: object = script.choice(
        (
            *("first", "now", {"after": 0}, {"after": 1, "but": [[3, 4]]}, {"ms": 0}, {"ms": -1}),
            *(
                {"after": -1},
                {"after": 2**70},
                {"but": []},
                {"after": 1, "but": [[4, 3]]},
                0,
                None,
            ),
            *({"after": 0, "but": [[1, 2, 3]]}, {"after": 0, "but": 7}, {"after": "x"}, [], "x"),
        )
    )
    members = {"since": since, "log": True}
    return json.dumps([_subscription_number(script), script.text(_TOPICS), members])


def _subscription_number(script: Script) -> int:
    return script.count() if script.rarely() else script.below(4)


def _job_control(script: Script) -> bytes:
    counts = [min(script.number(), 2**64 - 1) for _ in range(4)]
    if script.flag():
        told = job_control.encode(job_control.Offer("", *counts))
    else:
        relation, limit = counts[:2]
        told = job_control.encode(job_control.Grant("", relation, limit, script.flag()))
    return bytes(told[2])


def _span(script: Script, low: int) -> tuple[int, int]:
    first = min(low + script.number(), 2**63 - 1)
    return first, min(first + script.number(), 2**63 - 1)


def _watermark(script: Script) -> tuple[int, Ranges]:
    cum = script.count()
    above: list[tuple[int, int]] = []
    previous = cum
    for _ in range(script.below(3)):
        first, last = _span(script, previous + 2)
        if not previous + 2 <= first <= last:
            break
        above.append((first, last))
        previous = last
    return cum, tuple(above)


def _extras(script: Script, kind: int) -> Extras:
    found: dict[int, ExtraValue] = {}
    if kind in {Kind.REQUEST, Kind.REPLY, Kind.FAILURE, Kind.CANCEL, Kind.JOB} and script.below(8):
        found[Tag.CORRELATION] = script.below(6)
    if kind in {Kind.STREAM, Kind.STREAM_CONTROL} and script.below(8):
        found[Tag.STREAM] = tuple(
            script.below(8) if script.below(4) else script.count()
            for _ in range(script.choice((2, 2, 3, 4, 5)))
        )
    for _ in range(script.choice((0, 0, 0, 1, 2, 5))):
        tag = script.below(_NO_TAG + 1)
        value = _extra(script, tag)
        if tag and value is not None:
            found.setdefault(tag, value)
    return tuple(item for tag in sorted(found) for item in (int(tag), found[tag]))


def _extra(script: Script, tag: int) -> ExtraValue | None:
    make = _EXTRAS.get(tag)
    if make is not None:
        return make(script)
    return script.data()[:64] if tag == _NO_TAG else script.count()


def _headers(script: Script) -> bytes:
    packed: bytes = msgpack.packb(script.value(("unit", "C", "")))
    return packed[:4096]


def _key(script: Script) -> str:
    return script.text(("k", "topic.a", ""))


def _predecessors(script: Script) -> ExtraValue:
    lanes = sorted({script.below(LANES) for _ in range(script.below(3))})
    return tuple((lane, max(1, script.count())) for lane in lanes)


def _missed(script: Script) -> ExtraValue:
    return tuple(max(1, script.count()) for _ in range(2 * (1 + script.below(2))))


def _stream(script: Script) -> ExtraValue:
    return tuple(script.count() for _ in range(2 + script.below(4)))


def _fragments(script: Script) -> ExtraValue:
    count = script.below(4) + 1 if script.flag() else max(1, script.count())
    return (count, max(1, script.count()), b"d" * 16)


def _compressed(script: Script) -> ExtraValue:
    return (1 + script.below(3), max(1, script.count()))


_EXTRAS: Final[dict[int, Callable[[Script], ExtraValue]]] = {
    Tag.HEADERS: _headers,
    Tag.KEY: _key,
    Tag.TYPE: _key,
    Tag.ROUTING_KEY: _key,
    Tag.PREDECESSORS: _predecessors,
    Tag.FRAGMENTS: _fragments,
    Tag.MISSED: _missed,
    Tag.STREAM: _stream,
    Tag.COMPRESSED: _compressed,
}
"""The extras that are not numbers."""


def parts_of(packet: Packet, inline_bytes_max: int) -> list[bytes]:
    """Return the packet as it travels, even where it is larger than any that is taken."""
    return [bytes(part) for part in encode(packet, _NO_LIMITS, inline_bytes_max)]


def link_of(frame: Frame, link: LinkId) -> LinkId:
    """Return under which link a frame is said."""
    return NO_LINK if isinstance(frame, Who | Iam) else link
