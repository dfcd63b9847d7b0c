"""A simulated node with a disk: it is somebody again, and may die at every point of its work."""

from random import Random

from zmesh.actions import Action, Restored, TicketsStored
from zmesh.events import Post
from zmesh.ids import NodeId
from zmesh.message import Encoding, Kind, Ticket, head
from zmesh.options import LinkOptions, NodeOptions
from zmesh.storage import ReadRows, RowsRead
from zmesh.testing.clock import EventQueue, HostClock
from zmesh.testing.findings import Findings
from zmesh.testing.generator import generate
from zmesh.testing.hosts import Surroundings
from zmesh.testing.journal import Disk
from zmesh.testing.network import Network
from zmesh.testing.node_process import NodeProcess, Parts
from zmesh.testing.node_world import NodeWorld
from zmesh.testing.scenario import HostPlan, Scenario
from zmesh.testing.trace import Trace

NODE, PEER = NodeId(b"n" * 16), NodeId(b"p" * 16)
BODIES = [bytes([number]) for number in range(4)]


class Application:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.actions: list[Action] = []

    def perform(self, action: Action) -> None:
        self.actions.append(action)


class Life:
    """One life of a node alone in its world, that posts durably to a peer that is not there."""

    def __init__(self, disk: Disk | None, incarnation: int = 1, node: NodeId = NODE) -> None:
        self.queue = EventQueue()
        network: Network[Parts] = Network(
            self.queue, Random(1), corrupt=lambda _a, _b, packet, _r: packet
        )
        network.power(0)
        scenario = Scenario(seed=1, level="node", hosts=(HostPlan(),), link=LinkOptions())
        self.trace = Trace()
        around = Surroundings(scenario, self.queue, network, self.trace, Findings())
        self.process = NodeProcess(
            around, 0, incarnation, HostClock(self.queue),
            node=node, name="one", fresh_identity=False, options=NodeOptions(), disk=disk,
        )  # fmt: skip
        self.application = self.process.application = Application()
        self.tickets: dict[Ticket, bytes] = {}

    def begin(self) -> "Life":
        self.process.start()
        return self

    def post(self) -> "Life":
        """Post all, some time apart."""
        for number, body in enumerate(BODIES):
            self.queue.at(0.1 + number * 0.02, self._post, body)
        return self

    def _post(self, body: bytes) -> None:
        ticket = Ticket()
        self.tickets[ticket] = body
        record = (head(Kind.DIRECT, Encoding.RAW), "", body)
        wall_ms = self.process.wall_ms
        self.process.deliver(Post(PEER, 4, [record], ticket, durable=True, wall_ms=wall_ms))

    def run(self, until: float = 2.0) -> "Life":
        while self.queue.next_at is not None and self.queue.next_at <= until:
            self.queue.step()
        return self

    @property
    def stored(self) -> list[bytes]:
        """What the application was told is on disk."""
        told = [each for each in self.application.actions if isinstance(each, TicketsStored)]
        assert all(each.error is None for each in told)
        return [self.tickets[ticket] for each in told for ticket in each.tickets]


def bodies_on(disk: Disk) -> list[bytes]:
    found = []
    for state in disk.content.states():
        answer = disk.content.answer(ReadRows(state.stream))
        assert isinstance(answer, RowsRead)
        found += [bytes(stored.row.record[2]) for stored in answer.rows]
    return found


def test_a_node_is_the_one_on_its_disk_and_counts_its_lives() -> None:
    disk = Disk()
    first, second = Life(disk).begin().run(), Life(disk, 7, node=PEER).begin().run()
    assert first.process.node == second.process.node == NODE
    assert disk.identity is not None
    assert disk.identity.incarnation == 2


def test_what_comes_before_the_journal_was_read_waits_for_it() -> None:
    life = Life(Disk()).begin()
    life._post(b"early")
    life.run(0.000_2)
    assert life.application.actions == []
    life.run()
    kinds = [type(action) for action in life.application.actions]
    assert kinds.index(Restored) < kinds.index(TicketsStored)
    assert life.stored == [b"early"]


def test_what_is_told_to_be_stored_is_on_the_disk_and_in_the_next_life() -> None:
    disk = Disk()
    life = Life(disk).begin().post().run()
    assert life.stored == BODIES == bodies_on(disk)
    life.process.die()
    Life(disk).begin().run()
    assert bodies_on(disk) == BODIES


def test_a_node_may_die_at_every_operation_on_its_disk() -> None:
    disk = Disk()
    whole = Life(disk).begin().post().run()
    assert whole.process.drive is not None
    operations = whole.process.drive.operations
    assert operations > len(BODIES)
    kept_untold = 0
    for operation in range(1, operations + 1):
        for after in (False, True):
            disk = Disk()
            life = Life(disk)
            assert life.process.drive is not None
            life.process.drive.die_at(operation, after=after)
            life.begin().post().run()
            assert not life.process.alive
            assert life.process.drive.operations == operation
            kept = bodies_on(disk)
            assert kept[: len(life.stored)] == life.stored
            assert kept == BODIES[: len(kept)]
            kept_untold += len(kept) - len(life.stored)
            again = Life(disk, 2).begin().run()
            assert again.process.alive
            assert bodies_on(disk) == kept
    assert kept_untold >= len(BODIES)


def test_the_same_seed_gives_the_same_trace_with_a_disk() -> None:
    one, other = (Life(Disk()).begin().post().run().trace.digest() for _ in range(2))
    assert one == other != Life(None).begin().run().trace.digest()


def test_who_has_to_do_more_when_a_node_dies_by_itself_is_asked() -> None:
    asked: list[str] = []
    life = Life(Disk())
    assert life.process.drive is not None
    life.process.drive.die_at(1, after=True)
    life.process.kill = lambda: asked.append("world")
    life.begin().run()
    assert asked == ["world"]


def test_hosts_with_disks_keep_every_promise_that_those_without_keep() -> None:
    lives = 0
    for seed in range(12):
        scenario = generate(seed, "node")
        world = NodeWorld(scenario, Trace())
        world.disks |= {index: Disk() for index in range(len(scenario.hosts))}
        report = world.run()
        assert not report.violations, (seed, report.first)
        incarnations = [
            disk.identity.incarnation for disk in world.disks.values() if disk.identity
        ]
        assert incarnations == [life.current for life in world.lives]
        lives += sum(incarnations) - len(incarnations)
    assert lives > 3  # some began again
