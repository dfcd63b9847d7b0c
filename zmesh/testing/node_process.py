"""A process made of a whole node: the engine, with everything it sends as bytes on the network.

It does what the runner does for a real node, on virtual time: gathers what happened, hands it to
the engine, performs what the engine orders, and keeps its deadline.
"""

from collections.abc import Callable
from typing import Protocol

from zmesh.actions import Action, Dial, HangUp, Probe, SendPackets
from zmesh.core.engine import Engine
from zmesh.events import EndpointsChanged, Event, LoopLate, PacketsReceived, TimerFired
from zmesh.ids import JournalId, MeshTag, NodeId, Path
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.testing.clock import HostClock
from zmesh.testing.hosts import Process, Surroundings
from zmesh.testing.network import NetworkEvent

MESH = MeshTag(b"simulate")

Parts = list[bytes]
"""A ZeroMQ message as the simulated network carries it."""


class NodeApplication(Protocol):
    """What takes an engine's news in place of an application."""

    def perform(self, action: Action) -> None:
        """Take one action that is not for the network; answer by `NodeProcess.deliver`."""
        ...


class NodeProcess(Process[Parts, Event]):
    """One life of a host with a node on it."""

    def __init__(
        self,
        around: Surroundings[Parts],
        index: int,
        incarnation: int,
        clock: HostClock,
        *,
        node: NodeId,
        name: str,
        fresh_identity: bool,
        options: NodeOptions,
    ) -> None:
        super().__init__(around, index, incarnation, clock)
        self.node = node
        self.name = name
        journal = JournalId(self.entropy.token(16))
        # Who has no storage is somebody new with each process, and counts from 1.
        told = 1 if fresh_identity else incarnation
        local = LocalIdentity(MESH, node, name, told, journal)
        self.engine = Engine(local, options, self.entropy, clock.read())
        self.application: NodeApplication | None = None
        self.on_read: Callable[[int, Parts, float], None] | None = None

    def start(self) -> None:
        """Listen, and say where."""
        self.network.listen(self, self.endpoint)
        self.deliver(EndpointsChanged((self.endpoint,)))

    def _deadline(self) -> float | None:
        return self.engine.deadline

    def _handle(
        self,
        events: list[Event | NetworkEvent | tuple[Path, Parts]],
        now: float,
        late: LoopLate | None,
    ) -> None:
        batch: list[Event] = [] if late is None else [late]
        for event in events:
            if not isinstance(event, tuple):
                batch.append(event)
                continue
            if self.on_read is not None:
                self._show(event[0], event[1], now)
            if batch and isinstance(batch[-1], PacketsReceived):
                batch[-1].packets.append(event)
            else:
                batch.append(PacketsReceived([event]))
        deadline = self.engine.deadline
        if deadline is not None and deadline <= now:
            batch.append(TimerFired())
        for action in self.engine.handle(batch, now):
            self._perform(action)

    def _show(self, path: Path, parts: Parts, now: float) -> None:
        source = self.network.other_end(self, path)
        if source is not None and self.on_read is not None:
            self.on_read(source, parts, now)

    def _perform(self, action: Action) -> None:
        match action:
            case SendPackets(path, packets):
                for packet in packets:
                    self.network.send(self, path, [bytes(part) for part in packet])
            case Dial(path, endpoint):
                self.network.dial(self, path, endpoint)
            case HangUp(path):
                self.network.hang_up(self, path)
            case Probe(endpoint, timeout):
                self.network.probe(self, endpoint, timeout)
            case _:
                if self.application is not None:
                    self.application.perform(action)
