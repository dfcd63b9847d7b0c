"""The hot paths whose instructions are counted: what each does once, and what comes before it.

A case prepares once; each `next` of what it returns does what is not counted, and gives what is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.engines import LANE, PAUSE_S, SETTLING_S, SETTLING_TURNS, TURN_S, Mesh
from zmesh.events import Call, OpenInbox, Publish, Serve, Subscribe
from zmesh.ids import JournalId, LinkId, MeshTag, NodeId, SessionId
from zmesh.message import Kind, Outcome, Record, Ticket, head
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import Arrived, Opened
from zmesh.testing.clock import SeededEntropy
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import Data, Packet

BATCH = 512
BODY = bytes(100)
MESSAGE: Record = (head(Kind.DIRECT), "", BODY)
LIMITS = WireLimits()
OPTIONS = LinkOptions()

Steps = Iterator[Callable[[], object]]


@dataclass(frozen=True, slots=True)
class Case:
    """A hot path.

    Attributes:
        key: what it is called on a command line and in JSON.
        title: what is done once.
        steps: prepares, and yields what is counted, each once.
    """

    key: str
    title: str
    steps: Callable[[], Steps]


# Codec


def _batch() -> Packet:
    return Packet(LinkId(bytes(range(8))), 7, (Data(LANE, 1_000, (MESSAGE,) * BATCH),))


def _encode() -> Steps:
    packet = _batch()
    while True:
        yield lambda: encode(packet, LIMITS, OPTIONS.inline_bytes_max)


def _decode() -> Steps:
    parts = [bytes(part) for part in encode(_batch(), LIMITS, OPTIONS.inline_bytes_max)]
    while True:
        yield lambda: decode(parts, LIMITS)


# Links


class _End:
    """A link, and an application that accepts all."""

    def __init__(self, name: str, peer: str, now: float) -> None:
        local = LocalIdentity(MeshTag(b"counting"), _id(name), name, 1, JournalId(_id(name)))
        self.link = Link(local, _id(peer), OPTIONS, LIMITS, SeededEntropy(name), now)
        self.link.local_endpoints = (f"tcp://{name}",)
        self.session = SessionId(b"")
        self.taken = 0

    def digest(self, now: float) -> None:
        for event in self.link.take_events():
            if isinstance(event, Arrived):
                self.taken += len(event.records)
                self.link.settle(
                    self.session,
                    event.lane,
                    event.first_seq,
                    event.last_seq,
                    Outcome.ACCEPTED,
                    now,
                )
            elif isinstance(event, Opened):
                self.session = event.session


def _id(name: str) -> NodeId:
    return NodeId(name.encode().ljust(16, b"."))


class _Pair:
    """Two links, and the packets between them as they are."""

    def __init__(self) -> None:
        self.now = 100.0
        self.a, self.b = _End("a", "b", self.now), _End("b", "a", self.now)
        self.a.link.hello(1, self.now)
        for _ in range(SETTLING_TURNS):  # until all that a new link does is done
            self.pause(SETTLING_S)
        assert self.a.link.is_open
        assert self.b.link.is_open

    def carry(self, source: _End, target: _End) -> int:
        """Bring what one has for the other; return how many packets that was."""
        packets = source.link.packets(self.now)
        self.give(target, [packet for _, packet in packets])
        return len(packets)

    def give(self, target: _End, packets: Sequence[Packet]) -> None:
        path = b"inbound" if target is self.b else 1
        for packet in packets:
            target.link.on_packet(path, packet, self.now)
        target.digest(self.now)

    def rest(self) -> None:
        while self.carry(self.a, self.b) + self.carry(self.b, self.a):
            self.now += TURN_S

    def pause(self, seconds: float = PAUSE_S) -> None:
        self.now += seconds
        for end in (self.a, self.b):
            deadline = end.link.deadline
            if deadline is not None and deadline <= self.now:
                end.link.on_timer(self.now)
                end.digest(self.now)
        self.rest()


def _there_and_back() -> Steps:
    pair = _Pair()

    def once() -> None:
        pair.a.link.submit(LANE, [MESSAGE], Ticket(), pair.now)
        pair.carry(pair.a, pair.b)
        pair.b.link.submit(LANE, [MESSAGE], Ticket(), pair.now)
        pair.carry(pair.b, pair.a)
        pair.pause()

    while True:
        yield once


def _acknowledged() -> Steps:
    pair = _Pair()
    while True:
        ticket = Ticket(BATCH)
        pair.a.link.submit(LANE, [MESSAGE] * BATCH, ticket, pair.now)
        pair.carry(pair.a, pair.b)
        pair.now += TURN_S
        answers = [packet for _, packet in pair.b.link.packets(pair.now)]
        assert answers
        yield lambda answers=answers: pair.give(pair.a, answers)  # type: ignore[misc]
        pair.pause()
        assert ticket.done


# Engines


def _called() -> Steps:
    mesh = Mesh(2)
    caller, server = mesh.hosts
    server.pending.append(Serve("echo"))
    mesh.pause()
    record = (head(Kind.REQUEST), "echo", BODY)
    calls = 0

    def once() -> None:
        nonlocal calls
        calls += 1
        caller.pending.append(Call(calls, record, LANE, mesh.now + 10.0))
        mesh.pause()

    while True:
        yield once
        assert caller.answered == calls


def _published() -> Steps:
    mesh = Mesh(9)
    publisher, *readers = mesh.hosts
    for reader in readers:
        reader.pending.append(Subscribe(1, "bench"))
    publisher.pending.append(OpenInbox())
    mesh.pause()
    record = (head(Kind.PUBLICATION), "bench", BODY)
    published = 0

    def once() -> None:
        nonlocal published
        published += 1
        publisher.pending.append(Publish(record, LANE, Ticket()))
        mesh.pause()

    while True:
        yield once
        assert [reader.heard for reader in readers] == [published] * len(readers)


CASES = (
    Case("encode", f"encode {BATCH} messages", _encode),
    Case("decode", f"decode {BATCH} messages", _decode),
    Case("link", "a message there and one back, two links", _there_and_back),
    Case("ack", f"take in what acknowledges {BATCH} messages", _acknowledged),
    Case("call", "a call and its answer, two engines", _called),
    Case("publish-8", "publish to 8, nine engines", _published),
)
