"""A member that means harm: it has the mesh's key, hears every packet, and owns its connections.

It says to be others, repeats what others said, relays between two that take it for each other, and
speaks on links that are not its own. What it cannot have is another's node key or connection. That
CURVE keeps what it repeats from it is not relied upon. Whatever a node sends it in good faith is a
finding.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final

from zmesh.discovery.candidates import MDNS
from zmesh.events import CandidateFound, PathUp
from zmesh.ids import (
    CONNECTION_KEY_BYTES,
    NO_LINK,
    JournalId,
    LinkId,
    Path,
    SessionId,
    connection_of,
)
from zmesh.message import CONTROL_LANE, Kind, Outcome, head
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.proofs import hello_claim, iam_claim
from zmesh.security.node_key import NodeKey
from zmesh.testing.clock import EventQueue
from zmesh.testing.network import Network, NetworkEvent
from zmesh.testing.node_process import MESH, NodeProcess, Parts
from zmesh.wire.codec import decode, encode
from zmesh.wire.frames import (
    Ack,
    Bye,
    ByeCode,
    ControlData,
    Data,
    Error,
    ErrorCode,
    Evidence,
    Fenced,
    Frame,
    Hello,
    Iam,
    Packet,
    Settle,
    Welcome,
    Who,
)

ENDPOINT: Final = "tcp://127.0.0.1:39998"
RECORDED_MAX: Final = 16
"""Handshakes remembered of each host, of each kind, and links."""

_LIMITS: Final = WireLimits()
_INLINE: Final = LinkOptions().inline_bytes_max
_INDEX: Final = -1000  # of its first port; those of strangers are above
_LATER: Final = 1 << 40  # an incarnation nobody has reached

Wrong = Callable[[str, str], None]
"""Told of the host that believed it, and what."""


class _End:
    """One of its connections, dialed or accepted."""

    def __init__(self, adversary: "Adversary", index: int) -> None:
        self.index = index
        self.connection = adversary.random.randbytes(CONNECTION_KEY_BYTES)
        self.is_up = False
        self.waiting: list[Parts] = []
        self.on_packet: Callable[[Path, Parts], None] = adversary.on_packet
        self._adversary = adversary

    def deliver(self, event: NetworkEvent) -> None:
        """Send what waits once the connection is up."""
        if isinstance(event, PathUp):
            self.is_up = True
            waiting, self.waiting = self.waiting, []
            for packet in waiting:
                self._adversary.network.send(self, event.path, packet)

    def receive(self, path: Path, packet: Parts) -> None:
        """Read, and do what is meant for this connection."""
        self._adversary.network.consumed(self, path)
        self.on_packet(path, packet)

    def send(self, packet: Parts) -> None:
        """Send on a dialed connection, now or when it is up."""
        if self.is_up:
            self._adversary.network.send(self, 1, packet)
        else:
            self.waiting.append(packet)


@dataclass(slots=True)
class _Lured:
    """A host that dialed the adversary, and what it is told."""

    victim: NodeProcess  # who it takes it for
    plan: str
    proved: bool = False  # it was given a proof that holds, made by the victim
    far: _End | None = None  # the other leg of a relay


@dataclass(slots=True)
class _Heard:
    """What was overheard of one host."""

    frames: list[tuple[LinkId, Hello | Welcome | Iam]] = field(default_factory=list)


class Adversary:
    """See above. `members` returns the nodes that live now, by host."""

    PLANS: Final = ("relay", "forge", "replay", "itself", "clone")

    def __init__(
        self,
        queue: EventQueue,
        network: Network[Parts],
        random: Random,
        members: Callable[[], dict[int, NodeProcess]],
        wrong: Wrong,
    ) -> None:
        self.queue = queue
        self.network = network
        self.random = random
        self._members = members
        self._wrong = wrong
        self._key = NodeKey.of(random.randbytes(32))
        self._heard: dict[int, _Heard] = {}
        self._links: list[LinkId] = []
        self._lured: dict[Path, _Lured] = {}
        self._ends = 0
        self._lures: dict[int, NodeProcess] = {}  # whom a host looks for here
        self._door = self._end()
        self._door.on_packet = self._on_lured
        network.listen(self._door, ENDPOINT)

    def _end(self) -> _End:
        self._ends += 1
        return _End(self, _INDEX - self._ends)

    # What it overhears

    def on_sent(self, source: int, packet: Packet) -> None:
        """Take note of what a host says."""
        frame = packet.frames[0]
        if isinstance(frame, Hello | Welcome | Iam):
            frames = self._heard.setdefault(source, _Heard()).frames
            frames.append((packet.link, frame))
            del frames[:-RECORDED_MAX]
        if packet.link != NO_LINK and packet.link not in self._links:
            self._links.append(packet.link)
            del self._links[:-RECORDED_MAX]

    # What it does

    def attack(self, host: int, other: int) -> None:
        """Turn on a host, in the name of another."""
        members = self._members()
        prey, victim = members.get(host), members.get(other)
        if prey is None or victim is None:
            return
        self._lures[prey.index] = victim
        endpoints = (ENDPOINT, victim.endpoint)
        prey.deliver(CandidateFound(MDNS, victim.node, victim.name, endpoints))
        for packets in (self._claims(prey, victim), self._intrusions(prey)):
            end = self._end()
            for packet in packets(end):
                end.send(packet)
            self.network.dial(end, 1, prey.endpoint, end.connection)

    def on_packet(self, _: Path, parts: Parts) -> None:
        """Look at what a host sends to a connection that never was anybody's."""
        self._check(decode(parts, _LIMITS), "another")

    def _check(self, packet: Packet, whom: str) -> None:
        frame = packet.frames[0]
        if isinstance(frame, Welcome):
            self._wrong(frame.name, f"answers a HELLO that {whom} did not say")
        elif packet.number:
            self._wrong("?", f"speaks on a link with the adversary, as if it were {whom}")

    def _claims(self, prey: NodeProcess, victim: NodeProcess) -> Callable[[_End], list[Parts]]:
        """Return HELLOs in the name of the victim, as others said them and as nobody did."""

        def made(end: _End) -> list[Parts]:
            said = [
                (link, frame) for link, frame in self._of(victim.index) if isinstance(frame, Hello)
            ]
            packets = [_parts(link, frame) for link, frame in said]
            hello = said[-1][1] if said else self._hello(prey, victim)
            link = LinkId(self.random.randbytes(8))
            late = replace(
                hello,
                to=prey.node,
                incarnation=hello.incarnation + self.random.choice((0, 1, _LATER)),
                attempt=hello.attempt + 1000,
                journal=JournalId(self.random.randbytes(16)),
            )
            claim = hello_claim(late, link, end.connection, prey.incarnation)
            proof = claim.prove(self._key)
            packets += [
                _parts(link, replace(late, key=self._key.public, proof=proof)),
                _parts(link, replace(late, key=_public(victim), proof=proof)),
                _parts(link, replace(late, key=b"", proof=b"")),
            ]
            chosen = self.random.choice(packets)
            return [_parts(NO_LINK, Who(MESH, victim.node)), chosen]

        return made

    def _hello(self, prey: NodeProcess, victim: NodeProcess) -> Hello:
        return Hello(
            mesh=MESH, node=victim.node, to=prey.node, name=victim.name,
            incarnation=victim.incarnation, journal=JournalId(bytes(16)), attempt=1, resume=None,
            fresh=SessionId(self.random.randbytes(16)), endpoints=(ENDPOINT,), lanes=(),
        )  # fmt: skip

    def _intrusions(self, prey: NodeProcess) -> Callable[[_End], list[Parts]]:
        """Return frames on links of others."""

        def made(_: _End) -> list[Parts]:
            random = self.random
            links = random.sample(self._links, min(3, len(self._links)))
            frames = [frame for _, frame in self._of(prey.index)][-3:]
            packets = [_parts(NO_LINK, frame) for frame in frames]
            for link in links:
                packets += [_parts(link, frame, number) for number, frame in self._rubbish()]
            return packets

        return made

    def _rubbish(self) -> list[tuple[int, Frame]]:
        lane, many = self.random.randrange(CONTROL_LANE), 1 << 20
        everything = Settle(lane, ((Outcome.REJECTED, 1, many),))
        return [
            (many, Ack(many, 0, ((lane, many, ()),), ((lane, many, many),))),
            (many + 1, ControlData(1, (everything,))),
            (many + 2, Data(lane, 1, ((head(Kind.DIRECT), "", b"forged"),))),
            (0, Fenced(_LATER, self._evidence())),
            (0, Error(ErrorCode.DUPLICATE_IDENTITY, "", self._evidence())),
            (0, Error(ErrorCode.UNKNOWN_LINK, "")),
            (0, Bye(ByeCode.CLOSED, "")),
        ]

    def _evidence(self) -> Evidence:
        journal = JournalId(self.random.randbytes(16))
        proof = self.random.randbytes(64)
        return Evidence(2, _LATER, journal, 1, bytes(32), NO_LINK, 1, proof)

    def _of(self, index: int) -> list[tuple[LinkId, Hello | Welcome | Iam]]:
        heard = self._heard.get(index)
        return [] if heard is None else heard.frames

    # Whoever dials it

    def _on_lured(self, path: Path, parts: Parts) -> None:
        packet = decode(parts, _LIMITS)
        index = self.network.other_end(self._door, path)
        prey = None if index is None else self._members().get(index)
        victim = None if index is None else self._lures.get(index)
        if prey is None or victim is None:
            return
        lured = self._lured.get(path)
        if lured is None:
            lured = self._lured[path] = _Lured(victim, self.random.choice(self.PLANS))
            if lured.plan == "relay":
                lured.far = self._leg(path, victim)
        self._judge(prey, lured, packet)
        if lured.far is not None:
            lured.far.send(parts)
            return
        for frame in self._answers(prey, lured, path, packet):
            self.network.send(self._door, path, _parts(packet.link, frame))

    def _leg(self, path: Path, victim: NodeProcess) -> _End:
        """Return a connection to whom a relay is for; what comes on it goes to who dialed."""
        end = self._end()

        def back(_: Path, parts: Parts) -> None:
            packet = decode(parts, _LIMITS)
            self._check(packet, "the other end of a relay")
            self.network.send(self._door, path, parts)

        end.on_packet = back
        self.network.dial(end, 1, victim.endpoint, end.connection)
        return end

    def _judge(self, prey: NodeProcess, lured: _Lured, packet: Packet) -> None:
        """Note what a host says that it may say only to whom it looks for."""
        frame = packet.frames[0]
        if isinstance(frame, Hello) and not lured.proved:
            self._wrong(prey.label, f"says HELLO to who did not prove to be {lured.victim.label}")
        elif isinstance(frame, Welcome) or packet.number:
            self._wrong(prey.label, f"takes the adversary for {lured.victim.label}")

    def _answers(
        self, prey: NodeProcess, lured: _Lured, path: Path, packet: Packet
    ) -> list[Frame]:
        frame = packet.frames[0]
        if isinstance(frame, Who):
            iam = self._iam(prey, lured, path)
            return [] if iam is None else [iam]
        if isinstance(frame, Hello):
            return [self._welcome(lured, frame)]
        return []

    def _iam(self, prey: NodeProcess, lured: _Lured, path: Path) -> Iam | None:
        victim, connection = lured.victim, connection_of(path, self._door.connection)
        if lured.plan == "replay":
            said = [
                frame
                for _, frame in self._of(victim.index)
                if isinstance(frame, Iam) and frame.node == victim.node
            ]
            good = [
                iam
                for iam in said
                if iam_claim(iam, prey.node, connection).holds(iam.node, iam.key, iam.proof)
            ]
            lured.proved = bool(good)
            return self.random.choice(good or said) if said else None
        node, incarnation = victim.node, victim.incarnation
        if lured.plan == "itself":
            node = self._key.id
        elif lured.plan == "clone":
            node, incarnation = prey.node, prey.incarnation + 1
        iam = Iam(MESH, node, victim.name, incarnation, (ENDPOINT,), ())
        proof = iam_claim(iam, prey.node, connection).prove(self._key)
        key = self.random.choice((self._key.public, _public(victim)))
        if lured.plan == "itself":
            key = self._key.public
        return replace(iam, key=key, proof=proof)

    def _welcome(self, lured: _Lured, hello: Hello) -> Frame:
        """Return an answer to a HELLO that is for another."""
        victim, random = lured.victim, self.random
        said = [frame for _, frame in self._of(victim.index) if isinstance(frame, Welcome)]
        forged = Welcome(
            victim.node, victim.name, victim.incarnation, JournalId(random.randbytes(16)),
            hello.attempt, 0, hello.fresh, (), (), (), _public(victim), random.randbytes(64),
        )  # fmt: skip
        journal = said[-1].journal if said else forged.journal
        forged = replace(forged, journal=journal)
        again = [replace(each, attempt=hello.attempt, session=hello.fresh) for each in said]
        refusals: list[Frame] = [
            Fenced(_LATER, self._evidence()),
            Error(ErrorCode.DUPLICATE_IDENTITY, "", self._evidence()),
            Fenced(_LATER),
        ]
        return random.choice([forged, forged, *again[-2:], *refusals])


def _public(process: NodeProcess) -> bytes:
    return process.key.public if process.key is not None else bytes(32)


def _parts(link: LinkId, frame: Frame, number: int = 0) -> Parts:
    return [bytes(part) for part in encode(Packet(link, number, (frame,)), _LIMITS, _INLINE)]
