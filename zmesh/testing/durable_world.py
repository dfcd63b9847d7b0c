"""Runs of whole nodes most of which have a disk, and send what must not be lost.

They die at points of their work on the disk, and begin again from what is there.
"""

from functools import partial
from typing import Final
from unittest.mock import patch

from zmesh.ids import NodeId
from zmesh.message import Kind
from zmesh.patterns import boxes, outbox
from zmesh.storage import Ranges
from zmesh.testing.clock import HostClock
from zmesh.testing.durable_books import DurableBooks, Kept
from zmesh.testing.findings import Rule
from zmesh.testing.journal import Disk
from zmesh.testing.node_app import named
from zmesh.testing.node_books import index_of
from zmesh.testing.node_process import WALL_ZERO_MS, NodeProcess, Parts
from zmesh.testing.node_world import NodeWorld, decoded
from zmesh.testing.scenario import Fault, Scenario
from zmesh.testing.topic_books import Logged, Reader
from zmesh.testing.trace import Trace
from zmesh.testing.world import Report
from zmesh.wire.bodies import body_of
from zmesh.wire.frames import Data

LOOK_EVERY: Final = 0.1
"""Virtual seconds between looks at what nodes have in memory."""

POSTED_MAX: Final = 20
"""Messages that one call posts, at most."""

AGAIN_AFTER: Final = 0.05
"""Seconds until a node that died at a planned point begins its next life."""

OPERATIONS_AHEAD: Final = 8
"""A doomed process dies at one of so many of its next commits and reads."""

FILLED_SHARE: Final = 2048
"""Bytes that others leave free, at most, of a disk they fill."""

Point = tuple[int, bool]
"""An operation of a life on its disk, counted from 1, and whether the life ends after it."""


class DurableWorld(NodeWorld):
    """Hosts of which the scenario says which have a disk.

    Args:
        scenario: of the run.
        trace: of it.
        deaths: where lives end, by host and life, beside what the scenario says.
    """

    def __init__(
        self,
        scenario: Scenario,
        trace: Trace,
        deaths: dict[tuple[int, int], Point] | None = None,
    ) -> None:
        super().__init__(scenario, trace)
        self._deaths = deaths or {}
        self.operations: dict[tuple[int, int], int] = {}  # of each life that is over
        self.durable = DurableBooks(
            self.around.wrong,
            lambda: WALL_ZERO_MS + round(self.queue.now * 1000),
            self.disks.__contains__,
            lambda node: index_of(NodeId(node)),
            lambda index: self.lives[index].current,
            scenario.attempts_max,
            [
                Reader(index, name, pattern)
                for index, plan in enumerate(scenario.hosts)
                for name, pattern in named(plan)
            ],
            scenario.log_count,
        )
        self.books.ledger.durable = self.durable
        for index, plan in enumerate(scenario.hosts):
            if plan.has_disk:
                on_command = partial(self.durable.on_command, index)
                self.disks[index] = Disk(plan.disk_bytes, on_command=on_command)

    def run(self) -> Report:
        """Live through the scenario, with windows as small as it says."""
        window = self.scenario.box_window
        if window is None:
            return super().run()
        with (
            patch("zmesh.patterns.boxes.WINDOW_RECORDS", window),
            patch.multiple("zmesh.patterns.outbox", WINDOW_RECORDS=window, PAGE_ROWS=window),
        ):
            return super().run()

    # Lives

    def make_process(self, index: int, incarnation: int, clock: HostClock) -> NodeProcess:
        """Make a life of a host, that ends where it is planned."""
        process = super().make_process(index, incarnation, clock)
        point = self._deaths.get((index, incarnation))
        if point is not None and process.drive is not None:
            process.drive.die_at(point[0], after=point[1])
            process.kill = partial(self._die, index, AGAIN_AFTER)
        return process

    def _die(self, index: int, seconds: float) -> None:
        for other in range(len(self.lives)):
            self.sever(index, other)
        self.kill(index)
        self.queue.after(seconds, self.boot, index)

    def doom(self, fault: Fault) -> None:
        """Let a host die at one of its next operations on its disk, if they come soon."""
        process = self._alive(fault.host)
        if process is None or process.drive is None:
            return
        ahead = 1 + int(fault.severity * OPERATIONS_AHEAD)
        is_after = int(fault.severity * OPERATIONS_AHEAD * 2) % 2 == 1
        process.drive.die_at(process.drive.operations + ahead, after=is_after)
        process.kill = partial(self._die, fault.host, fault.seconds / 2)
        self.queue.after(fault.seconds / 2, partial(process.drive.die_at, 0, after=False))

    def fill(self, fault: Fault) -> None:
        """Leave little of a host's disk free, for a while."""
        disk = self.disks.get(fault.host)
        if disk is not None:
            size = self.scenario.hosts[fault.host].disk_bytes
            disk.bytes_max = disk.content.used + int(fault.severity * FILLED_SHARE)
            self.queue.after(fault.seconds, setattr, disk, "bytes_max", size)

    def _schedule(self) -> None:
        super()._schedule()
        self.queue.at(0.0, self._look_at_memory)

    def _look_at_memory(self) -> None:
        """Hold what nodes have in memory against their windows, and what is under way."""
        for process, _ in self._living():
            statistics = process.engine.statistics()
            bound = boxes.WINDOW_RECORDS + max(outbox.PAGE_ROWS, POSTED_MAX)
            if statistics.stored_in_memory > bound:
                text = f"{statistics.stored_in_memory} messages of one box are in memory"
                self.around.wrong(Rule.MEMORY, process.label, text)
            if process.index not in self.disks:
                continue
            known = self.durable.outcomes_under_way(process.index, process.label)
            if statistics.outcomes_kept > known:
                text = f"{statistics.outcomes_kept} outcomes are kept, {known} are under way"
                self.around.wrong(Rule.MEMORY, process.label, text)
        if self.queue.now < self.scenario.quiet_from:
            self.queue.after(LOOK_EVERY, self._look_at_memory)

    def on_death(self, label: str) -> None:
        """Note that a process died: nobody waits for what it was to be told."""
        for process in self._nodes:
            if process is not None and process.label == label and process.drive is not None:
                self.operations[process.index, process.incarnation] = process.drive.operations
        super().on_death(label)
        self.durable.on_death(label)

    # Packets

    def on_sent(self, source: int, target: int, packet: Parts) -> None:
        """Look at what a node tells of what it has forgotten."""
        super().on_sent(source, target, packet)
        if source >= 0 and any(b"known" in part for part in packet):
            seen = decoded(packet)
            for frame in () if seen is None else seen.frames:
                if isinstance(frame, Data):
                    for record in frame.records:
                        if record[0] & 15 == Kind.DURABILITY and record[1] == "known":
                            self._on_known(source, body_of(record))

    def _on_known(self, source: int, told: object) -> None:
        assert isinstance(told, list)  # noqa: S101  nodes of one version understand each other
        floor, *flat = told
        ranges: Ranges = tuple(zip(flat[::2], flat[1::2], strict=True))
        self.durable.on_known(source, floor, ranges)

    # The end

    def _is_reachable(self, kept: Kept) -> bool:
        """Whether somebody is there whom a message is for, and nobody else is called the same."""
        to = kept.stream.owner.decode()
        return sum(to in (process.name, process.node.hex()) for process, _ in self._living()) == 1

    def _stuck(self) -> list[Kept]:
        return [
            kept
            for process, _ in self._living()
            for kept in self.durable.waiting(process.index)
            if self._is_reachable(kept)
        ]

    def _remembered(self) -> list[tuple[int, int, int]]:
        """Return the outcomes that hosts keep of senders that have nothing left."""
        living = [process.index for process, _ in self._living() if process.index in self.disks]
        kept = [
            (host, sender, self.durable.outcomes_remembered(host, sender))
            for sender in living
            if not self.durable.waiting(sender)
            for host in living
        ]
        return [each for each in kept if each[2]]

    def _kept_for_nothing(self) -> list[tuple[str, int]]:
        """Return nodes with outcomes in memory, once no sender has anything left."""
        living = [process for process, _ in self._living()]
        if any(self.durable.waiting(process.index) for process in living):
            return []
        kept = [(each.label, each.engine.statistics().outcomes_kept) for each in living]
        return [each for each in kept if each[1]]

    def _behind(self) -> list[tuple[Reader, Logged]]:
        """Return what named subscriptions have not handled, though its publisher is there."""
        return self.durable.topics.behind({process.index for process, _ in self._living()})

    def settled(self) -> bool:
        """Whether no message waits that could be handled, and no outcome is kept for nothing."""
        return (
            super().settled()
            and not self.durable.untold()
            and not self._stuck()
            and not self._behind()
            and not self._remembered()
            and not self._kept_for_nothing()
        )

    def finish(self, *, settled: bool) -> None:
        """Check what must hold in the end."""
        super().finish(settled=settled)
        self.durable.finish()
        for process, _ in self._living():
            if process.drive is not None:
                self.operations[process.index, process.incarnation] = process.drive.operations
        for kept in self._stuck():
            text = f"{kept} waits, and {kept.stream.owner.decode()} is there"
            self.around.wrong(Rule.LIVENESS, kept.message.sender, text)
        for reader, logged in self._behind():
            text = f"{reader} has not handled {logged}, whose publisher is there"
            self.around.wrong(Rule.LOST, logged.message.sender, text)
        for host, sender, count in self._remembered():
            text = f"{count} outcomes of host {sender} are kept, which has nothing left"
            self.around.wrong(Rule.MEMORY, str(host), text)
        for label, count in self._kept_for_nothing():
            text = f"{count} outcomes are kept in memory, and nobody has anything left"
            self.around.wrong(Rule.MEMORY, label, text)
