"""Two links joined in memory, and a puppet that says to one link whatever a test wants.

Nothing here waits or is random by itself: the test moves the clock, and says what becomes of each
packet. In the spirit of h11's `ConnectionPair`.
"""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

from tests.discovery.entropy import SeededEntropy
from zmesh.events import PathCause
from zmesh.ids import JournalId, LinkId, MeshTag, NodeId, Path, SessionId
from zmesh.message import Kind, Outcome, Record, Ticket, head
from zmesh.options import LinkOptions, WireLimits
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import (
    Arrived,
    ControlArrived,
    Defect,
    LinkEvent,
    Liveness,
    LivenessChanged,
    Opened,
    PathWanted,
    ProbeWanted,
    Returned,
    SessionEnd,
    SessionEnded,
)
from zmesh.reliable.link_statistics import LinkStatistics
from zmesh.wire.frames import Ack, Control, Frame, Hello, LaneState, Packet, Ping, Welcome

OPTIONS = LinkOptions()
LIMITS = WireLimits()
MESH = MeshTag(b"testmesh")
DELAY = 0.0005
STEPS_AT_ONCE_MAX = 10_000

Weather = Callable[["End", Packet], Sequence[float]]
"""From who sent a packet: how long after the usual delay each copy of it arrives; () is lost."""


def record(body: bytes = b"", target: str = "") -> Record:
    return (head(Kind.DIRECT), target, body)


def records(*bodies: bytes) -> list[Record]:
    return [record(body) for body in bodies]


def numbered(amount: int, start: int = 0) -> list[Record]:
    return [record(b"%d" % number) for number in range(start, start + amount)]


def identity(name: str, incarnation: int = 1, life: str = "") -> LocalIdentity:
    """The lower name has the lower id. `life` tells journals of one incarnation apart."""
    journal = JournalId(f"{name}{incarnation}{life}".encode().ljust(16, b"."))
    return LocalIdentity(MESH, NodeId(name.encode().ljust(16, b".")), name, incarnation, journal)


class End:
    """One of the two nodes: its link, what it told, and an application that accepts all."""

    def __init__(
        self,
        name: str,
        peer: str,
        options: LinkOptions,
        incarnation: int = 1,
        pool: CreditPool | None = None,
        now: float = 0.0,
        life: str = "",
    ) -> None:
        local = identity(name, incarnation, life)
        entropy = SeededEntropy(hash_of(f"{name}{incarnation}{life}"))
        other = identity(peer).node
        self.link = Link(local, other, options, LIMITS, entropy, now, pool)
        self.link.local_endpoints = (f"tcp://{name}",)
        self.accepts = True
        self.probe_answer: PathCause | None = PathCause.UNREACHABLE  # what probing this end tells
        self.answers_probes = True
        self.events: list[LinkEvent] = []
        self.session: SessionId | None = None  # of what arrives: the link's may have ended since
        self.sent: list[Packet] = []
        self.frozen_at: float | None = None
        self.unread: list[tuple[Path, Packet]] = []

    def post(
        self,
        batch: Sequence[Record],
        now: float,
        lane: int = 4,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Ticket:
        ticket = Ticket(len(batch))
        self.link.submit(lane, batch, ticket, now, key=key, ttl=ttl)
        return ticket

    def digest(self, now: float) -> list[LinkEvent]:
        """Take the events; let the application do its work on what arrived."""
        events = self.link.take_events()
        self.events += events
        for event in events:
            if isinstance(event, Opened):
                self.session = event.session
            elif isinstance(event, Arrived) and self.accepts:
                self.settle(event, now)
        return events

    def settle(
        self,
        event: Arrived,
        now: float,
        outcome: Outcome = Outcome.ACCEPTED,
        reason: str = "",
        delay: float = 0.0,
    ) -> bool:
        assert self.session is not None
        return self.link.settle(
            self.session, event.lane, event.first_seq, event.last_seq, outcome, now, reason,
            delay,
        )  # fmt: skip

    @property
    def arrived(self) -> list[Arrived]:
        return [event for event in self.events if isinstance(event, Arrived)]

    @property
    def bodies(self) -> list[bytes]:
        """Of what arrived, in order."""
        return [bytes(item[2]) for event in self.arrived for item in event.records]

    @property
    def controls(self) -> list[Control]:
        return [
            item
            for event in self.events
            if isinstance(event, ControlArrived)
            for item in event.records
        ]

    @property
    def returned(self) -> list[Returned]:
        return [event for event in self.events if isinstance(event, Returned)]

    @property
    def verdicts(self) -> list[Liveness]:
        """What the peer was taken for, in order."""
        return [event.new for event in self.events if isinstance(event, LivenessChanged)]

    @property
    def ended(self) -> list[SessionEnd]:
        return [event.reason for event in self.events if isinstance(event, SessionEnded)]

    @property
    def defects(self) -> list[str]:
        return [event.kind for event in self.events if isinstance(event, Defect)]

    @property
    def statistics(self) -> LinkStatistics:
        return self.link.statistics()


def hash_of(text: str) -> int:
    """A seed that is the same in every process."""
    return int.from_bytes(text.encode())


class Pair:
    """Two ends, the connections between them, and the time."""

    def __init__(
        self,
        options: LinkOptions = OPTIONS,
        other: LinkOptions | None = None,
        delay: float = DELAY,
        pool: CreditPool | None = None,
    ) -> None:
        self.now = 100.0
        self.options = options
        self.delay = delay
        self.a = End("a", "b", options, now=self.now, pool=pool)
        self.b = End("b", "a", other or options, now=self.now)
        self.weather: Weather = clear
        self.redial_after: float | None = 0.1
        self._due: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._paths = count(1)
        self._routes: dict[tuple[int, Path], tuple[End, Path]] = {}

    @property
    def ends(self) -> tuple[End, End]:
        return self.a, self.b

    def other(self, end: End) -> End:
        return self.b if end is self.a else self.a

    # Connections

    def dial(self, caller: End) -> Path:
        """Make a connection and return the caller's path."""
        number = next(self._paths)
        answerer, path = self.other(caller), b"inbound %d" % number
        self._routes[id(caller), number] = (answerer, path)
        self._routes[id(answerer), path] = (caller, number)
        return number

    def connect(self, caller: End | None = None) -> None:
        """Dial and say HELLO; `run` brings the answer."""
        caller = caller or self.a
        caller.link.hello(self.dial(caller), self.now)
        self.turn(caller)

    def opened(self) -> "Pair":
        """Connect, and let the link open."""
        self.connect()
        self.run(0.1)
        assert self.a.link.is_open
        assert self.b.link.is_open
        return self

    def cut(self, cause: PathCause = PathCause.CLOSED) -> None:
        """End every connection: what is on the way is lost."""
        self._routes.clear()
        for end in self.ends:
            if end.link.path is not None:
                end.link.on_path_down(end.link.path, cause, self.now)
                self.turn(end)

    def restart(self, end: End, incarnation: int = 2, life: str = "") -> End:
        """Replace the end by a new process that knows nothing; its connections end."""
        name = end.link.local.name
        other = self.other(end)
        fresh = End(name, other.link.local.name, self.options, incarnation, None, self.now, life)
        if end is self.a:
            self.a = fresh
        else:
            self.b = fresh
        self._routes.clear()
        if other.link.path is not None:
            other.link.on_path_down(other.link.path, PathCause.CLOSED, self.now)
            self.turn(other)
        return fresh

    def freeze(self, end: End) -> None:
        """Let the process stand still, as in a handler that blocks; its connections stay up."""
        end.frozen_at = self.now

    def thaw(self, end: End) -> None:
        """Let it go on: it finds that it is late, and reads what came meanwhile."""
        assert end.frozen_at is not None
        lag, end.frozen_at = self.now - end.frozen_at, None
        end.link.on_loop_late(lag, self.now)
        unread, end.unread = end.unread, []
        for path, packet in unread:
            end.link.on_packet(path, packet, self.now)
        self.turn(end)

    # Time

    def run(self, seconds: float) -> None:
        """Let `seconds` pass, with all that happens in them."""
        until = self.now + seconds
        steps = 0
        while (when := self._next()) is not None and when <= until:
            steps = steps + 1 if when <= self.now else 0
            assert steps < STEPS_AT_ONCE_MAX, f"time stands still at {self.now}"
            self.now = max(self.now, when)
            while self._due and self._due[0][0] <= self.now:
                _, _, action, arguments = heappop(self._due)
                action(*arguments)
            for end in self.ends:
                deadline = end.link.deadline
                if deadline is not None and deadline <= self.now:
                    self.turn(end)
        self.now = until

    def _next(self) -> float | None:
        due = [end.link.deadline for end in self.ends if end.frozen_at is None]
        if self._due:
            due.append(self._due[0][0])
        return min((when for when in due if when is not None), default=None)

    def at(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Have `action(*arguments)` happen so many seconds from now."""
        heappush(self._due, (self.now + seconds, next(self._order), action, arguments))

    def turn(self, end: End) -> None:
        """Do what a runner does at the end of a turn."""
        if end.frozen_at is not None:
            return
        deadline = end.link.deadline
        if deadline is not None and deadline <= self.now:
            end.link.on_timer(self.now)
        self._perform(end)
        for path, packet in end.link.packets(self.now):
            end.sent.append(packet)
            self._carry(end, path, packet)
        self._perform(end)

    def _perform(self, end: End) -> None:
        for event in end.digest(self.now):
            if isinstance(event, PathWanted) and self.redial_after is not None:
                self.at(self.redial_after, self._redial, end)
            elif isinstance(event, ProbeWanted):
                self._probe(end, event)

    def _redial(self, end: End) -> None:
        if end in self.ends and end.link.path is None:
            self.connect(end)

    def _probe(self, end: End, event: ProbeWanted) -> None:
        other = self.other(end)
        if not other.answers_probes:
            return
        for endpoint in event.endpoints:
            self.at(self.delay, self._on_probe, end, endpoint, other.probe_answer)

    def _on_probe(self, end: End, endpoint: str, answer: PathCause | None) -> None:
        end.link.on_probe(endpoint, answer, self.now)
        self.turn(end)

    def _carry(self, source: End, path: Path, packet: Packet) -> None:
        for extra in self.weather(source, packet):
            self.at(self.delay + extra, self.deliver, source, path, packet)

    def deliver(self, source: End, path: Path, packet: Packet) -> None:
        route = self._routes.get((id(source), path))
        if route is None:
            return
        target, target_path = route
        if target.frozen_at is not None:
            target.unread.append((target_path, packet))
        else:
            target.link.on_packet(target_path, packet, self.now)
            self.turn(target)


def clear(_source: End, _packet: Packet) -> Sequence[float]:
    return (0.0,)


def storm(seed: int, loss: float, duplication: float, reordering: float) -> Weather:
    """Weather that strikes each packet by chance, repeatably."""
    random = Random(seed)

    def strike(_source: End, _packet: Packet) -> Sequence[float]:
        copies = 2 if random.random() < duplication else 1
        return [
            random.uniform(0.0, 0.05) if random.random() < reordering else 0.0
            for _ in range(copies)
            if random.random() >= loss
        ]

    return strike


class Puppet:
    """A peer of one link whose every frame the test writes, and every number it chooses."""

    path: Path = b"puppet"
    link_id = LinkId(b"puppet's")

    def __init__(
        self,
        options: LinkOptions = OPTIONS,
        now: float = 100.0,
        pool: CreditPool | None = None,
        name: str = "b",
    ) -> None:
        self.end = End("a", name, options, now=now, pool=pool)
        self.link = self.end.link
        self.me = identity(name)
        self.fresh = SessionId(b"session of puppet"[:16])
        self.attempt = 0
        self._numbers = count(1)

    def hello(self, lanes: tuple[LaneState, ...] = (), resume: SessionId | None = None) -> Hello:
        """The next HELLO; every lane not given has the usual credit."""
        given = {state.lane for state in lanes}
        usual = [
            LaneState(n, 1, 0, (), OPTIONS.window_messages, OPTIONS.window_bytes)
            for n in range(10)
            if n not in given
        ]
        self.attempt += 1
        return Hello(
            mesh=self.me.mesh,
            node=self.me.node,
            to=self.link.local.node,
            name=self.me.name,
            incarnation=self.me.incarnation,
            journal=self.me.journal,
            attempt=self.attempt,
            resume=resume,
            fresh=self.fresh,
            endpoints=("tcp://puppet",),
            lanes=tuple(sorted([*lanes, *usual], key=lambda state: state.lane)),
        )

    def open(self, now: float, hello: Hello | None = None) -> "Puppet":
        """Say HELLO, take the WELCOME, and confirm it."""
        self.give(Packet(self.link_id, 0, (hello or self.hello(),)), now)
        assert any(isinstance(frame, Welcome) for frame in self.hear(now))
        self._numbers = count(1)
        self.say(now, Ping(1))
        assert self.link.is_open
        self.hear(now)
        return self

    def give(self, packet: Packet, now: float) -> None:
        self.link.on_packet(self.path, packet, now)
        self.end.digest(now)

    def say(self, now: float, *frames: Frame) -> None:
        self.give(Packet(self.link_id, next(self._numbers), frames), now)

    def hear_packets(self, now: float) -> list[Packet]:
        packets = [packet for _, packet in self.link.packets(now)]
        self.end.digest(now)
        return packets

    def hear(self, now: float) -> list[Frame]:
        """Everything the link says now."""
        return [frame for packet in self.hear_packets(now) for frame in packet.frames]

    def credit(self, now: float) -> dict[int, tuple[int, int]]:
        """What the link grants each lane, as it tells one who asks by PING."""
        self.say(now, Ping(7))
        (ack,) = [frame for frame in self.hear(now) if isinstance(frame, Ack)]
        return {lane: (seq_limit, size) for lane, seq_limit, size in ack.credit}
