"""Runs in which every host is a whole node: engine, membership, patterns and bytes."""

from collections.abc import Callable
from functools import partial
from random import Random

from zmesh.discovery.candidates import MDNS, STATIC
from zmesh.errors import ProtocolError
from zmesh.events import CandidateFound, CandidateGone, PathUp
from zmesh.ids import LinkId, NodeId, Path
from zmesh.options import NodeOptions, Retention, WireLimits
from zmesh.testing.adversary import Adversary
from zmesh.testing.clock import HostClock
from zmesh.testing.findings import Rule
from zmesh.testing.journal import Disk
from zmesh.testing.link_world import describe
from zmesh.testing.network import Network, NetworkEvent
from zmesh.testing.node_app import NodeApp
from zmesh.testing.node_books import NodeBooks, node_id, node_key
from zmesh.testing.node_process import NodeProcess, Parts
from zmesh.testing.scenario import InterestChange, Scenario, Submission
from zmesh.testing.trace import Trace
from zmesh.testing.watch import WireWatch
from zmesh.testing.world import World
from zmesh.wire.codec import decode
from zmesh.wire.frames import Hello, Iam, Packet, Welcome

ECHOES_MAX = 4  # handshakes remembered for each pair of hosts
WATCHED_EVERY = 4  # of the seeds with faults, whose packets are decoded and watched
ANNOUNCE_AFTER = 0.02  # seconds until the others hear of a new process, at most
BROWSE_EVERY = 2.0  # seconds until who missed an announcement asks again
RUBBISH_PACKETS = 12
OVERHEARD_MAX = 32  # packets a stranger may have seen
GHOST_PORT = 39_999  # where nobody listens
_NUMBER_AT = 12  # of a packet's head: after version and link id, 0 outside the flow of a link
_LIMITS = WireLimits()


class NodeWorld(World[Parts]):
    """Hosts with a node each, that find each other by announcements or by their addresses."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        super().__init__(scenario, trace)
        self._options = NodeOptions(link=scenario.link, attempts_max=scenario.attempts_max)
        count = scenario.log_count
        self._retention = Retention() if count is None else Retention(count=count)
        self._ids = self.random.sample(range(256), len(scenario.hosts))
        self.books = NodeBooks(scenario, self.around.wrong, self.may_be_lost, self._node_of)
        self.disks: dict[int, Disk] = {}  # of the hosts whose nodes keep a journal
        self._nodes: list[NodeProcess | None] = [None] * len(scenario.hosts)
        self._apps: dict[str, NodeApp] = {}
        self._echoes: dict[tuple[int, int], list[Parts]] = {}
        self._overheard: list[Parts] = []  # what a stranger may repeat
        self._ghosts = 0
        self._strangers = 0
        self._adversary: Adversary | None = None
        self._called: dict[LinkId, set[str]] = {}  # lives that a HELLO was for
        self._met: set[tuple[str, int]] = set()  # lives and whom they said IAM to
        self._watch: WireWatch | None = None
        if scenario.calm or scenario.seed % WATCHED_EVERY == 0:
            self._watch = WireWatch(scenario.link, self.findings, None, calm=scenario.calm)

        if scenario.is_attacked:
            self._adversary = Adversary(
                self.queue,
                self.network,
                Random(f"adversary {scenario.seed}"),  # noqa: S311
                self._members,
                lambda host, text: self.around.wrong(Rule.IDENTITY, host, text),
            )

    def _schedule(self) -> None:
        super()._schedule()
        for change in self.scenario.changes:
            self.queue.at(change.at, self._change, change)

    # Lives

    def make_process(self, index: int, incarnation: int, clock: HostClock) -> NodeProcess:
        """Make a life of a host."""
        plan = self.scenario.hosts[index]
        identity = incarnation if plan.fresh_identity else 0
        named = index, identity, self._ids[index]
        key = node_key(*named) if self.scenario.secured else None
        process = NodeProcess(
            self.around,
            index,
            incarnation,
            clock,
            node=node_id(*named) if key is None else key.id,
            name=self.books.name_of(index),
            fresh_identity=plan.fresh_identity,
            options=self._options,
            disk=self.disks.get(index),
            retention=self._retention,
            key=key,
        )
        process.kill = partial(self.kill, index)
        app = NodeApp(process, self.books, plan)
        process.application = app
        if self._watch is not None:
            process.on_read = self._reader(process, self._watch)
        self._nodes[index] = process
        self._apps[process.label] = app
        return process

    def boot(self, index: int) -> None:
        """Begin the next life of a host, and let the others hear of it."""
        super().boot(index)
        process = self._nodes[index]
        if process is None:
            return
        self._apps[process.label].start()
        for other in range(len(self._nodes)):
            if other != index:
                self._announce(index, other, process)
                self._announce(other, index, self._nodes[other])

    def _announce(self, index: int, to: int, process: NodeProcess | None) -> None:
        """Let a host hear of another by discovery, now or when they can hear each other."""
        delay = ANNOUNCE_AFTER * self.random.random()
        self.queue.after(delay, self._hear, index, to, process)

    def _hear(self, index: int, to: int, process: NodeProcess | None) -> None:
        hearer = self._alive(to)
        static = self.scenario.discovery == "static"
        if hearer is None or (process is None and not static):
            return
        if static:
            endpoint = self.around.endpoint(index)
            hearer.deliver(CandidateFound(STATIC, None, endpoint, (endpoint,)))
        elif process is not None and process.alive:
            if self.network.is_cut(index, to) or self.network.is_cut(to, index):
                self.queue.after(BROWSE_EVERY, self._hear, index, to, process)
            else:
                hearer.deliver(
                    CandidateFound(MDNS, process.node, process.name, (process.endpoint,))
                )

    def _alive(self, index: int) -> NodeProcess | None:
        process = self._nodes[index]
        return process if process is not None and process.alive and not process.left else None

    def _app(self, index: int) -> NodeApp | None:
        process = self._alive(index)
        return None if process is None else self._apps[process.label]

    def _node_of(self, index: int) -> NodeId | None:
        process = self._alive(index)
        return None if process is None else process.node

    # What happens

    def submit(self, submission: Submission) -> None:
        """Let the application of the submission's source send it, if it lives."""
        app = self._app(submission.source)
        process = self._nodes[submission.target]
        if app is not None and process is not None:
            app.submit(submission, process.node)

    def _change(self, change: InterestChange) -> None:
        app = self._app(change.host)
        if app is not None:
            app.change(change)

    def leave(self, host: int) -> float:
        """Let a host say goodbye; return how long that takes."""
        app, process = self._app(host), self._nodes[host]
        if app is None or process is None:
            return 0.0
        self.lives[host].left = True
        drain = self.random.random() < 0.5
        app.leave(drain=drain)
        if self.scenario.discovery == "mdns":
            for other in range(len(self._nodes)):
                hearer = self._alive(other)
                if hearer is not None and other != host:
                    hearer.deliver(CandidateGone(MDNS, process.node))
        return 1.2 if drain else 0.05

    def slow(self, host: int, seconds: float, each: float) -> None:
        """Let the handlers of a host take `each` seconds, for a while."""
        app = self._app(host)
        if app is not None:
            app.handlers.slow_down(self.queue.now + seconds, each)

    def on_death(self, label: str) -> None:
        """Note that a process died; one that closed its node has been told everything."""
        process = next(p for p in self._nodes if p is not None and p.label == label)
        if process.left and process.has_handled_all:
            self.books.ledger.check_closed(label)
        self.books.ledger.on_death(label)

    # Packets

    def on_sent(self, source: int, target: int, packet: Parts) -> None:
        """Look at a packet as it leaves a host."""
        process = self._nodes[source] if source >= 0 else None
        if process is None:
            return
        self.note(process.label, "sends", target, len(packet))
        for part in packet:
            self.trace.absorb(part)
        seen: Packet | None = None
        if self._watch is not None or self.trace.readable:
            seen = decoded(packet)
        if seen is not None and self._watch is not None and target >= 0:
            now = process.clock.read()
            self._watch.on_sent(process.label, target, seen, now, self.queue.now)
        if self.scenario.secured and packet[0][_NUMBER_AT] == 0:
            self._on_handshake(process, target, seen or decode(packet, _LIMITS))
        if seen is not None and self.trace.readable:
            self.trace.explain(self.queue.now, process.label, "", describe(seen))
        self._remember(source, target, packet)

    def _on_handshake(self, process: NodeProcess, target: int, packet: Packet) -> None:
        """Hold a node to answering HELLOs that were for this life of it; let others overhear."""
        frame = packet.frames[0]
        if isinstance(frame, Hello) and target >= 0:
            called = self._nodes[target]
            lives = self._called.setdefault(packet.link, set())
            lives.add("" if called is None else called.label)
        elif isinstance(frame, Welcome) and process.label not in self._called.get(packet.link, ()):
            text = "answers a HELLO that was not for it, or for an earlier life of it"
            self.around.wrong(Rule.IDENTITY, process.label, text)
        if self._adversary is None:
            return
        self._adversary.on_sent(process.index, packet)
        if target < 0 or not isinstance(frame, Iam) or self.scenario.calm:
            return
        meeting = (process.label, target)
        if process.incarnation > 1 and meeting not in self._met:
            self._met.add(meeting)
            self.echo(target, process.index)  # before whom it answers says HELLO to this life

    def attack(self, host: int, other: int) -> None:
        """Let a member turn on a host in the name of another."""
        if self._adversary is None:
            return
        self._adversary.attack(host, other)
        if not self.scenario.calm:
            self.echo(other, host)

    def _members(self) -> dict[int, NodeProcess]:
        nodes = {index: self._alive(index) for index in range(len(self._nodes))}
        return {index: process for index, process in nodes.items() if process is not None}

    def _remember(self, source: int, target: int, packet: Parts) -> None:
        """Keep handshakes for echoes, and some of the rest for strangers."""
        if packet[0][_NUMBER_AT] == 0 and _is_hello(packet):
            echoes = self._echoes.setdefault((source, target), [])
            echoes.append(packet)
            del echoes[:-ECHOES_MAX]
        elif len(self._overheard) < OVERHEARD_MAX:
            self._overheard.append(packet)

    def _reader(
        self, process: NodeProcess, watch: WireWatch
    ) -> Callable[[int, Parts, float], None]:
        def on_read(source: int, parts: Parts, now: float) -> None:
            packet = decoded(parts)
            if packet is not None and source >= 0:
                watch.on_read(process.label, source, packet, now, self.queue.now)

        return on_read

    def echo(self, host: int, other: int) -> None:
        """Let a copy of an old handshake of `host` reach `other` now."""
        echoes = self._echoes.get((host, other))
        if echoes:
            self.network.inject(host, other, self.random.choice(echoes))

    def corrupted(self, source: int, target: int, packet: Parts, random: Random) -> Parts:  # noqa: ARG002
        """Return the packet as it is: what damages bytes is caught below ZeroMQ, by TCP."""
        return packet

    def haunt(self, host: int, severity: float) -> None:
        """Let a host hear of a node that is not there."""
        hearer = self._alive(host)
        if hearer is None:
            return
        self._ghosts += 1
        ghost = node_id(255, self._ghosts, self.random.randrange(256))
        others = [f"tcp://127.0.0.1:{GHOST_PORT}", hearer.endpoint, self.around.endpoint(0)]
        endpoint = others[int(severity * len(others))]
        hearer.deliver(CandidateFound(MDNS, ghost, "ghost", (endpoint,)))

    def intrude(self, host: int) -> None:
        """Let a stranger connect to a host, and send rubbish and what it overheard."""
        if self._alive(host) is None:
            return
        packets = [self._rubbish() for _ in range(RUBBISH_PACKETS)]
        self._strangers += 1
        Stranger(-self._strangers, self.network, self.around.endpoint(host), packets)

    def _rubbish(self) -> Parts:
        random = self.random
        if not self._overheard or random.random() < 0.3:
            return [random.randbytes(random.randrange(1, 64)) for _ in range(random.randint(1, 3))]
        packet = list(random.choice(self._overheard))
        where = random.randrange(len(packet[0]))
        if random.random() < 0.5:
            packet[0] = packet[0][:where]
        elif random.random() < 0.5:
            damaged = bytearray(packet[0])
            damaged[where] ^= 1 << random.randrange(8)
            packet[0] = bytes(damaged)
        return packet

    # The end

    def _living(self) -> list[tuple[NodeProcess, NodeApp]]:
        alive = [process for process in self._nodes if process is not None and process.alive]
        return [(process, self._apps[process.label]) for process in alive]

    def busy(self) -> bool:
        """Whether handlers still run, or messages wait for their next attempt."""
        return any(
            not app.handlers.idle or process.engine.statistics().retries
            for process, app in self._living()
        )

    def settled(self) -> bool:
        """Whether everything sent has its end, and all live hosts see each other."""
        if not self.books.ledger.settled or self.network.black_holes or self.busy():
            return False
        return not any(app.waits for _, app in self._living()) and not self._disagreements()

    def _disagreements(self) -> list[tuple[str, str]]:
        """Return who does not see the others as they are, of those who live."""
        found = []
        living = self._living()
        for one, _ in living:
            seen = {view.id for view in one.engine.peers()}
            told = set(self.books.views(one))
            there = {other.node for other, _ in living if other is not one}
            if seen != told:
                found.append((one.label, "its application was told of other peers"))
            if told - there:
                found.append((one.label, "sees a peer that is not there"))
            for other, app in living:
                if other is not one:
                    topics = {*app.topics, *self.scenario.hosts[other.index].followed}
                    why = self.books.disagreement(one, other, app.services, topics)
                    if why:
                        found.append((one.label, f"does not see {other.label} as it is: {why}"))
        return found

    def finish(self, *, settled: bool) -> None:
        """Check what must hold in the end."""
        self.books.finish()
        for label, text in self._disagreements():
            self.around.wrong(Rule.LIVENESS, label, text)
        for process, app in self._living():
            if app.waits:
                self.around.wrong(Rule.LIVENESS, process.label, "waits for room for ever")
            if settled:
                self.books.check_rest(process)

    def messages(self) -> int:
        """Return how many messages were sent."""
        return len(self.books.ledger.messages)


class Stranger:
    """Somebody who is no node: connects, sends, and never answers."""

    def __init__(
        self, index: int, network: Network[Parts], endpoint: str, packets: list[Parts]
    ) -> None:
        self.index = index
        self._network = network
        self._packets = packets
        network.dial(self, 1, endpoint)

    def deliver(self, event: NetworkEvent) -> None:
        """Send everything once connected."""
        if isinstance(event, PathUp):
            for packet in self._packets:
                self._network.send(self, event.path, packet)

    def receive(self, path: Path, packet: Parts) -> None:  # noqa: ARG002
        """Read what the node answers, and do nothing about it."""
        self._network.consumed(self, path)


def decoded(parts: Parts) -> Packet | None:
    """Return a packet as its receiver understands it; None where it is rubbish."""
    try:
        return decode(parts, _LIMITS)
    except ProtocolError:
        return None


def _is_hello(parts: Parts) -> bool:
    packet = decoded(parts)
    return packet is not None and isinstance(packet.frames[0], Hello)
