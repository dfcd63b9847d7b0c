"""A process made of a whole node: the engine, with everything it sends as bytes on the network.

It does what the runner does for a real node, on virtual time: gathers what happened, hands it to
the engine, performs what the engine orders, and keeps its deadline. With a disk it keeps a journal
there, and meets nobody before that was read.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from zmesh.actions import (
    Action,
    Dial,
    HangUp,
    Probe,
    ReadJournal,
    Restored,
    SendPackets,
    ShutOut,
    TicketsStored,
    WriteJournal,
)
from zmesh.core.engine import Engine
from zmesh.events import (
    EndpointsChanged,
    Event,
    JournalTold,
    LoopLate,
    PacketsReceived,
    TimerFired,
)
from zmesh.ids import CONNECTION_KEY_BYTES, JournalId, MeshTag, NodeId, Path
from zmesh.options import NodeOptions, Retention
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.node_key import NodeKey
from zmesh.storage import Identity, JournalEvent, Opened, Written
from zmesh.testing.clock import HostClock
from zmesh.testing.drive import Drive
from zmesh.testing.hosts import Process, Surroundings
from zmesh.testing.journal import Disk, MemoryJournal
from zmesh.testing.network import NetworkEvent

MESH = MeshTag(b"simulate")

WALL_ZERO_MS = 1_750_000_000_000
"""What the wall clock reads when a run begins."""

Parts = list[bytes]
"""A ZeroMQ message as the simulated network carries it."""


class NodeApplication(Protocol):
    """What takes an engine's news in place of an application."""

    def perform(self, action: Action) -> None:
        """Take one action that is not for the network; answer by `NodeProcess.deliver`."""
        ...


class NodeProcess(Process[Parts, Event]):
    """One life of a host with a node on it.

    Args:
        around: what the processes of the run share.
        index: of the host.
        incarnation: which life of the host it is.
        clock: of the host.
        node: its id; a journal that is on the disk knows better.
        name: of the node.
        fresh_identity: whether this is another node with each life.
        options: of the node.
        disk: what outlives the process; None for a node that keeps nothing.
        retention: how long publications stay on it.
        key: of the node, on a mesh where who says something proves who it is; None elsewhere.
        is_edge: whether it has links with hubs alone.
    """

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
        disk: Disk | None = None,
        retention: Retention = Retention(),  # noqa: B008  # frozen
        key: NodeKey | None = None,
        is_edge: bool = False,
    ) -> None:
        super().__init__(around, index, incarnation, clock)
        self.name = name
        self.key = key
        self.is_edge = is_edge
        # Of its connections: another with each process.
        self.connection = b"" if key is None else self.entropy.token(CONNECTION_KEY_BYTES)
        # Who has no storage is somebody new with each process, and counts from 1.
        told = 1 if fresh_identity else incarnation
        identity = Identity(node, b"", JournalId(self.entropy.token(16)), told)
        self.drive: Drive | None = None
        self.kill: Callable[[], None] = self.die  # for who has to do more when it dies by itself
        opened = None if disk is None else self._open(disk, identity)
        if opened is not None:
            identity = opened.identity
        self.node = identity.node
        local = LocalIdentity(
            MESH,
            self.node,
            name,
            identity.incarnation,
            identity.journal,
            key=key,
            connection=self.connection,
            is_edge=is_edge,
        )
        self.engine = Engine(
            local,
            options,
            self.entropy,
            clock.read(),
            opened=opened,
            wall_ms=0 if opened is None else self.wall_ms,
            retention=retention,
        )
        self.application: NodeApplication | None = None
        self.on_read: Callable[[int, Parts, float], None] | None = None
        self._early: list[Event | NetworkEvent] = []  # for when the journal was read
        self._is_restored = opened is None

    def _open(self, disk: Disk, fresh: Identity) -> Opened:
        journal = MemoryJournal(disk, replace(fresh, incarnation=0))
        opened = journal.open()
        self.drive = Drive(self.queue, self.entropy, journal, self._on_journal, self._end)
        return opened

    @property
    def wall_ms(self) -> int:
        """What the wall clock reads, in milliseconds since 1970."""
        return WALL_ZERO_MS + round(self.queue.now * 1000)

    def start(self) -> None:
        """Listen, and say where; with a disk, when what is on it was read."""
        if self._is_restored:
            self.network.listen(self, self.endpoint)
            self.deliver(EndpointsChanged((self.endpoint,)))
        else:
            self.wake_up()

    def deliver(self, event: Event | NetworkEvent) -> None:
        """Queue an event for the next turn, or for when the journal was read."""
        if self._is_restored or isinstance(event, JournalTold):
            super().deliver(event)
        else:
            self._early.append(event)

    def die(self, *, dark: bool = False) -> None:
        """End at once, with everything in memory; some of what was on its way to the disk is."""
        super().die(dark=dark)
        if self.drive is not None:
            self.drive.stop()

    def _end(self) -> None:
        self.kill()  # as it is by then

    def _on_journal(self, events: list[JournalEvent]) -> None:
        self.note("keeps", *(type(event).__name__ for event in events))
        written = [
            each for event in events if isinstance(event, Written) for each in event.tickets
        ]
        stored = self.engine.take_stored(written)
        if stored and self.application is not None:
            self.application.perform(TicketsStored(stored))
        self.deliver(JournalTold(events))

    def _on_restored(self, restored: Restored) -> None:
        if restored.error is not None:
            raise restored.error
        self._is_restored = True
        self.start()
        early, self._early = self._early, []
        for event in early:
            self.deliver(event)
        if self.application is not None:
            self.application.perform(restored)

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
                self.network.dial(self, path, endpoint, self.connection)
            case HangUp(path):
                self.network.hang_up(self, path)
            case ShutOut():
                pass  # the engine drops what still comes
            case Probe(endpoint, timeout):
                self.network.probe(self, endpoint, timeout)
            case WriteJournal() | ReadJournal() if self.drive is not None:
                self.drive.perform(action)
            case Restored():
                self._on_restored(action)
            case _:
                if self.application is not None:
                    self.application.perform(action)
