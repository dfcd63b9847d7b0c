"""Engines joined in memory, with as little between them as there can be.

Nothing here is random or waits: time passes by the same steps in every run.
"""

from itertools import count

from zmesh.actions import (
    Action,
    CallAnswered,
    DeliverInbox,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    Dial,
    SendPackets,
)
from zmesh.core.engine import Engine
from zmesh.events import (
    CandidateFound,
    EndpointsChanged,
    Event,
    PacketsReceived,
    PathUp,
    Reply,
    SettleDeliveries,
    TimerFired,
)
from zmesh.ids import JournalId, MeshTag, NodeId, Path
from zmesh.message import Kind, Outcome, Tag, extra, head
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.testing.clock import SeededEntropy

MESH = MeshTag(b"counting")
LANE = 4
TURN_S = 20e-6
PAUSE_S = 1e-3
SETTLING_TURNS, SETTLING_S = 100, 20e-3
ANSWER = (head(Kind.REPLY), "", bytes(100))


class Host:
    """An engine, what is to happen to it, and an application that accepts and answers all."""

    def __init__(self, mesh: "Mesh", index: int) -> None:
        name = f"host-{index}"
        self.id = NodeId(bytes([index + 1]) * 16)
        self.name = name
        self.endpoint = f"tcp://127.0.0.1:{5000 + index}"
        self.pending: list[Event] = [EndpointsChanged((self.endpoint,))]
        self.answered = 0
        self.heard = 0
        self._mesh = mesh
        self.routes: dict[Path, tuple[Host, Path]] = {}
        local = LocalIdentity(MESH, self.id, name, 1, JournalId(self.id))
        self.engine = Engine(local, NodeOptions(), SeededEntropy(name), mesh.now)

    @property
    def is_due(self) -> bool:
        deadline = self.engine.deadline
        return bool(self.pending) or (deadline is not None and deadline <= self._mesh.now)

    def turn(self) -> None:
        events, self.pending = self.pending or [TimerFired()], []
        for action in self.engine.handle(events, self._mesh.now):
            self._perform(action)

    def _perform(self, action: Action) -> None:
        kind = type(action)
        if kind is SendPackets:
            assert isinstance(action, SendPackets)
            other, path = self.routes[action.path]
            packets = [(path, [bytes(part) for part in packet]) for packet in action.packets]
            other.pending.append(PacketsReceived(packets))
        elif kind is DeliverRequests or kind is DeliverInbox:
            assert isinstance(action, DeliverRequests | DeliverInbox)
            for delivery in action.deliveries:
                self._take(delivery)
        elif kind is DeliverPublications:
            assert isinstance(action, DeliverPublications)
            for delivery, _ in action.deliveries:
                self._take(delivery)
        elif kind is CallAnswered:
            self.answered += 1
        elif kind is Dial:
            assert isinstance(action, Dial)
            self._connect(action)

    def _connect(self, dial: Dial) -> None:
        other = self._mesh.at[dial.endpoint]
        path = b"\0" + next(self._mesh.paths).to_bytes(4, "big")
        self.routes[dial.path] = (other, path)
        other.routes[path] = (self, dial.path)
        self.pending.append(PathUp(dial.path))

    def _take(self, delivery: Delivery) -> None:
        self.heard += len(delivery.records)
        source, first, last = delivery.source, delivery.first_seq, delivery.last_seq
        number = extra(delivery.records[0], Tag.CORRELATION)
        if isinstance(number, int):
            self.pending.append(Reply(source, first, last, number, ANSWER))
        else:
            self.pending.append(SettleDeliveries(source, first, last, Outcome.ACCEPTED))


class Mesh:
    """Hosts, all linked with the first alone, and the time."""

    def __init__(self, size: int) -> None:
        self.now = 100.0
        self.paths = count(1)
        self.at: dict[str, Host] = {}
        self.hosts = [Host(self, index) for index in range(size)]
        self.at.update({host.endpoint: host for host in self.hosts})
        first = self.hosts[0]
        self.rest()
        for other in self.hosts[1:]:
            first.pending.append(CandidateFound("mdns", other.id, other.name, (other.endpoint,)))
            other.pending.append(CandidateFound("mdns", first.id, first.name, (first.endpoint,)))
        for _ in range(SETTLING_TURNS):  # until all that a new link does is done
            self.pause(SETTLING_S)
        assert len(first.engine.peers()) == size - 1

    def rest(self) -> None:
        """Let turns pass until nothing is left to do at once."""
        while due := [host for host in self.hosts if host.is_due]:
            for host in due:
                host.turn()
            self.now += TURN_S

    def pause(self, seconds: float = PAUSE_S) -> None:
        """Let a moment pass, with all that happens in it."""
        self.now += seconds
        self.rest()
