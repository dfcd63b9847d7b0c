"""A whole node among peers that say whatever a script makes them say, before and after HELLO.

Whatever comes, it raises nothing, keeps to its bounds and to the protocol, and still takes a new
peer in that behaves.
"""

from typing import Final

from tests.fuzz.application import Application
from tests.fuzz.prover import HONEST, proved, trust_of, with_evidence
from tests.fuzz.script import Script
from tests.fuzz.speaker import ENDPOINTS, MESH, NODES, Speaker, link_of, parts_of
from tests.fuzz.victim import OPTIONS, Victim
from zmesh.events import (
    CandidateFound,
    CandidateGone,
    Event,
    InboundClosed,
    LoopLate,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
    ProbeAnswered,
    TrustChanged,
)
from zmesh.ids import CONNECTION_KEY_BYTES, JournalId, LinkId, Path, SessionId
from zmesh.message import LANES
from zmesh.wire.frames import (
    Error,
    Fenced,
    Frame,
    Hello,
    LaneState,
    Packet,
    Ping,
    Pong,
    Welcome,
)

STEPS_MAX: Final = 400
CHECK_EVERY: Final = 8
INBOUND: Final = tuple(b"\0in" + bytes([number]) * CONNECTION_KEY_BYTES for number in range(3))
"""Each ends with the public key of its connection, as all do where there are any."""


def run(data: bytes) -> None:
    """Do to a node what the script says, and look at what it holds in between."""
    script = Script(data)
    scene = _Scene(script.byte(), script)
    for step in script.turns(STEPS_MAX):
        scene.step()
        if step % CHECK_EVERY == 0:
            scene.victim.check()
    scene.victim.wait(30.0)
    scene.victim.check()
    scene.meet_an_honest_peer()


def of_parts(parts: list[bytes]) -> bytes:
    """Return the bytes that are read as a node that is told these parts by a stranger."""
    told = b"".join(b"\xff" + len(part).to_bytes(2, "big") + part for part in parts)
    return bytes([0b110, 0, len(parts)]) + told


class _Scene:
    def __init__(self, manner: int, script: Script) -> None:
        trust = trust_of(script) if manner & 96 == 96 else None
        self.victim = Victim(durable=bool(manner & 1), secured=bool(manner & 32), trust=trust)
        self._script = script
        self._speakers: dict[Path, Speaker] = {}
        self._application = Application(self.victim, script)
        if manner & 2:
            self._application.settle_in()
        if manner & 4:
            self._link(INBOUND[0])
        if manner & 8:
            self._link(INBOUND[1])

    def step(self) -> None:
        """Do one thing."""
        script, victim = self._script, self.victim
        match script.below(24):
            case 0:
                count = script.below(4)
                parts = [script.take(_size(script)) for _ in range(count)]
                victim.receive(INBOUND[0], parts)
            case 1:
                self._say_anything(self._path())
            case 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11:
                path = self._path()
                self._say(path, *self._frames(path))
            case 12:
                self._link(self._path())
            case 13 | 14:
                victim.wait(script.choice((0.001, 0.03, 0.3, 1.0, 5.0, 20.0, 120.0)))
            case 15:
                victim.handle(self._on_path())
            case 16 if victim.local.wants_proofs and script.rarely():
                victim.handle(TrustChanged(trust_of(script)))
            case 16:
                victim.handle(self._found())
            case 17 | 18 | 19:
                victim.settle(script)
            case _:
                self._application.command()
        self._listen()

    # Peers

    def _path(self) -> Path:
        """Return a way by which somebody talks to the node."""
        paths: list[Path] = [*INBOUND, *self.victim.dials]
        return self._script.choice(paths)

    def _speaker(self, path: Path) -> Speaker:
        speaker = self._speakers.get(path)
        if speaker is None:
            place = INBOUND.index(path) if isinstance(path, bytes) else path % 3
            speaker = self._speakers[path] = Speaker(NODES[1 + place], self.victim.id)
        return speaker

    def _frames(self, path: Path) -> list[Frame]:
        speaker, script = self._speaker(path), self._script
        return [speaker.frame(script) for _ in range(script.choice((1, 1, 1, 2, 4)))]

    def _say(self, path: Path, *frames: Frame) -> None:
        speaker = self._speaker(path)
        number = speaker.next_number(self._script)
        link = link_of(frames[0], speaker.link)
        packet = Packet(link, number, self._proved(path, link, frames))
        self.victim.receive(path, parts_of(packet, 1024))

    def _proved(self, path: Path, link: LinkId, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        """Return what is said, mostly with the proofs that go with it, where any are wanted."""
        victim, script = self.victim, self._script
        if not victim.local.wants_proofs or script.rarely():
            return frames
        return tuple(
            with_evidence(victim, script, frame)
            if isinstance(frame, Fenced | Error) and script.flag()
            else proved(victim, frame, link, path)
            for frame in frames
        )

    def _say_anything(self, path: Path) -> None:
        """Say frames that are written as they should be, and then are changed in one place."""
        speaker, script = self._speaker(path), self._script
        packet = Packet(speaker.link, speaker.next_number(script), tuple(self._frames(path)))
        parts = [bytearray(part) for part in parts_of(packet, 64)]
        changed = script.choice(parts)
        if changed:
            changed[(script.byte() << 8 | script.byte()) % len(changed)] = script.byte()
        self.victim.receive(path, [bytes(part) for part in parts])

    def _listen(self) -> None:
        """Let the peers hear what they were sent."""
        for path, packet in self.victim.take_sent():
            speaker = self._speaker(path)
            for frame in packet.frames:
                speaker.hear(packet.link, packet.number, frame)

    def _link(self, path: Path) -> None:
        """Have a link with a peer, as if it were honest."""
        speaker = self._speaker(path)
        nothing = Script(b"")
        if isinstance(path, int):
            self.victim.handle(PathUp(path))
            self._say(path, speaker.iam(nothing))
            self._listen()
            self._say(path, speaker.welcome(nothing))
        else:
            self._say(path, speaker.hello(nothing))
            self._listen()
            self._say(path, Ping(1))
        self._listen()

    def meet_an_honest_peer(self) -> None:
        """Assert that a newcomer gets its link, and an answer, whatever went before."""
        victim = self.victim
        if victim.engine.statistics().peers >= OPTIONS.peers_max:
            return
        link, path = LinkId(b"honestly"), b"\0" + HONEST.public
        lanes = tuple(LaneState(lane, 1, 0, (), 64, 1 << 18) for lane in range(LANES + 1))
        hello = Hello(
            mesh=MESH, node=HONEST.id, to=victim.id, name="honest",
            incarnation=1, journal=JournalId(b"j" * 16), attempt=1, resume=None,
            fresh=SessionId(b"s" * 16), endpoints=(), lanes=lanes,
        )  # fmt: skip
        answers = self._ask(path, link, 0, hello)
        assert any(isinstance(frame, Welcome) for frame in answers), answers
        answers = self._ask(path, link, 1, Ping(7))
        assert Pong(7) in answers, answers

    def _ask(self, path: Path, link: LinkId, number: int, frame: Frame) -> list[Frame]:
        packet = Packet(link, number, (proved(self.victim, frame, link, path),))
        self.victim.take_sent()
        self.victim.receive(path, parts_of(packet, 1024))
        return [
            frame for to, heard in self.victim.take_sent() if to == path for frame in heard.frames
        ]

    # News from below

    def _on_path(self) -> Event:
        script, path = self._script, self._path()
        cause = script.choice(tuple(PathCause))
        match script.below(7):
            case 0:
                return PathUp(path) if isinstance(path, int) else InboundClosed()
            case 1 | 2:
                if isinstance(path, int):
                    self.victim.dials.pop(path, None)
                    self._speakers.pop(path, None)
                return PathDown(path, cause)
            case 3:
                return PathFull(path)
            case 4:
                return PathWritable(path)
            case 5:
                return ProbeAnswered(script.text(ENDPOINTS), script.choice((cause, None)))
            case _:
                return LoopLate(script.choice((0.01, 1.0, 60.0)))

    def _found(self) -> Event:
        script = self._script
        node = script.choice((*NODES, None))
        endpoints = tuple(script.text(ENDPOINTS) for _ in range(script.below(5)))
        if node is None:
            # What the operator wrote down is right, or `static` would not have passed it on.
            return CandidateFound("static", None, "b", ENDPOINTS[: script.below(3)])
        if script.below(4) == 0:
            return CandidateGone("mdns", node)
        return CandidateFound(script.choice(("mdns", "peer", "itself")), node, "b", endpoints)


def _size(script: Script) -> int:
    size = script.byte()
    return size if size < 255 else script.byte() << 8 | script.byte()
