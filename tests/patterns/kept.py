"""Nodes with a journal on the simulated network of `tests.engines`: they die, and come back."""

from dataclasses import replace

from tests.engines import MESH, Host, World, job
from zmesh.actions import Action, ReadJournal, Restored, TicketsStored, WriteJournal
from zmesh.core.engine import Engine
from zmesh.events import EndpointsChanged, JournalTold, OpenInbox, Push, TimerFired
from zmesh.ids import JournalId
from zmesh.message import Ticket
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.storage import (
    Identity,
    JournalEvent,
    OutcomesRead,
    ReadOutcomes,
    ReadRows,
    Row,
    RowsRead,
    StoredOutcome,
    StreamKind,
)
from zmesh.testing.clock import SeededEntropy
from zmesh.testing.drive import Drive
from zmesh.testing.journal import Disk, MemoryJournal

WALL_ZERO_MS = 1_750_000_000_000


class KeptHost(Host):
    """One life of a node with a journal; what that kept has been read when it is made."""

    def __init__(
        self, world: World, index: int, name: str, life: int, options: NodeOptions, disk: Disk
    ) -> None:
        super().__init__(world, index, name, life, options)
        entropy = SeededEntropy(f"kept {name} {life}")
        self.kept_on = disk
        self.stored: dict[Ticket, Exception | None] = {}
        journal = MemoryJournal(disk, Identity(self.id, b"", JournalId(entropy.token(16)), 0))
        opened = journal.open()
        who = opened.identity
        local = LocalIdentity(MESH, who.node, name, who.incarnation, who.journal)
        now = world.queue.now
        self.engine = Engine(local, options, entropy, now, opened=opened, wall_ms=self.wall_ms)
        self._read_everything(journal)
        self.drive = Drive(world.queue, entropy, journal, self._on_told, self.kill)

    def _read_everything(self, journal: MemoryJournal) -> None:
        now = self.world.queue.now
        actions = self.engine.handle([TimerFired()], now)
        while not any(isinstance(action, Restored) for action in actions):
            self._order(journal, actions)
            actions = self.engine.handle([JournalTold(journal.take_news())], now)
        [restored] = [action for action in actions if isinstance(action, Restored)]
        assert restored.error is None
        self._order(journal, actions)
        self.do(JournalTold(journal.take_news()))

    @staticmethod
    def _order(journal: MemoryJournal, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, WriteJournal):
                journal.write(action.batch)
            elif isinstance(action, ReadJournal):
                journal.read(action.ticket, action.question)
        while journal.waiting:
            journal.step()

    @property
    def wall_ms(self) -> int:
        return WALL_ZERO_MS + round(self.world.queue.now * 1000)

    def _on_told(self, news: list[JournalEvent]) -> None:
        self.do(JournalTold(news))

    def _inform(self, action: Action) -> None:
        match action:
            case TicketsStored(tickets, error):
                self.stored |= dict.fromkeys(tickets, error)
            case _:
                super()._inform(action)

    def _keep(self, order: WriteJournal | ReadJournal) -> None:
        self.drive.perform(order)

    def kill(self) -> None:
        """End the process; some of what was on its way to the disk is there."""
        if self.alive:
            super().kill()
            self.drive.stop()

    def store(self, queue: str, *texts: str, lane: int = 4, **options: object) -> Ticket:
        """Push durable jobs."""
        ticket = Ticket(len(texts))
        push = Push([job(queue, text) for text in texts], lane, ticket, durable=True)
        self.do(replace(push, wall_ms=self.wall_ms, **options))  # type: ignore[arg-type]
        return ticket


class KeptWorld(World):
    """A world whose hosts have disks."""

    def __init__(self, options: NodeOptions | None = None) -> None:
        super().__init__(options)
        self.disks: dict[str, Disk] = {}

    def keep(
        self, name: str, *, options: NodeOptions | None = None, disk: Disk | None = None
    ) -> KeptHost:
        """Start a host with its disk, or start it again."""
        disk = self.disks.setdefault(name, disk or Disk())
        life = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        index = list(self._incarnations).index(name)
        host = KeptHost(self, index, name, life, options or self.options, disk)
        self.hosts[name] = host
        self.network.listen(host, host.endpoint)
        host.do(EndpointsChanged((host.endpoint,)), OpenInbox())
        return host


def rows_of(disk: Disk, kind: StreamKind = StreamKind.QUEUE) -> list[Row]:
    """Return what is on a disk of one kind of stream."""
    rows: list[Row] = []
    for state in disk.content.states():
        if state.stream.kind is kind:
            answer = disk.content.answer(ReadRows(state.stream, count_max=100_000))
            assert isinstance(answer, RowsRead)
            rows += [stored.row for stored in answer.rows]
    return rows


def outcomes_on(disk: Disk) -> list[StoredOutcome]:
    """Return what is kept on a disk of messages of others."""
    outcomes: list[StoredOutcome] = []
    for state in disk.content.states():
        answer = disk.content.answer(ReadOutcomes(state.stream, count_max=100_000))
        assert isinstance(answer, OutcomesRead)
        outcomes += answer.outcomes
    return outcomes
