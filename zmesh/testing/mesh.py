"""A mesh in one process, on virtual time: how users test their own services against faults.

The nodes are real ones without sockets: engine, links, patterns and bytes are those of
`zmesh.Node`. Handlers are plain functions. Nothing happens but in `run` and `run_until`, and the
same program with the same seed does the same every time. `docs/simulator.md` shows how.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random

from zmesh.actions import (
    Action,
    CallAnswered,
    CallFailure,
    DeliverInbox,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    PeerState,
)
from zmesh.discovery.candidates import MDNS
from zmesh.errors import ProtocolError, Reject, UsageError
from zmesh.events import (
    Call,
    CandidateFound,
    Event,
    OpenInbox,
    Post,
    Publish,
    Reply,
    Serve,
    SettleDeliveries,
    Source,
    Subscribe,
)
from zmesh.face.outgoing import Outgoing, failure_of
from zmesh.message import PRIORITY_DEFAULT, Kind, Outcome, Record, Tag, Ticket, extra
from zmesh.options import NodeOptions
from zmesh.testing.clock import EventQueue, HostClock
from zmesh.testing.findings import Findings, Violation
from zmesh.testing.hosts import Surroundings
from zmesh.testing.network import Network, Weather
from zmesh.testing.node_books import node_id
from zmesh.testing.node_process import NodeProcess, Parts
from zmesh.testing.scenario import HostPlan, Scenario
from zmesh.testing.trace import Trace
from zmesh.testing.watch import WireWatch
from zmesh.wire.bodies import body_of
from zmesh.wire.codec import decode
from zmesh.wire.frames import Packet

Handler = Callable[[object], object]
"""Takes a decoded body. What it returns is the reply to a request; `zmesh.Reject` refuses."""

NODES_MAX = 26  # a trace names each by a letter


@dataclass(slots=True, eq=False)
class SimulatedCall:
    """A call under way, or answered."""

    service: str
    answer: CallAnswered | None = None

    @property
    def done(self) -> bool:
        """Whether it was answered, or failed."""
        return self.answer is not None

    @property
    def failure(self) -> CallFailure | None:
        """Why there is no reply; None while there is none yet, or where there is a reply."""
        return None if self.answer is None else self.answer.failure

    @property
    def reply(self) -> object:
        """The reply's body.

        Raises:
            UsageError: there is none; the text says why.
        """
        answer = self.answer
        if answer is None or answer.record is None or answer.failure is not None:
            why = "it is still open" if answer is None else self._why(answer)
            raise UsageError(f"the call to {self.service!r} has no reply: {why}")
        return _body_of(answer.record)

    @staticmethod
    def _why(answer: CallAnswered) -> str:
        if answer.failure is CallFailure.REMOTE_ERROR and answer.record is not None:
            return ": ".join(failure_of(answer.record)[:2])
        return answer.reason or str(answer.failure and answer.failure.value)


@dataclass(slots=True)
class _Use:
    """A handler of a service, a subscription or the inbox, and how long it takes."""

    handler: Handler
    takes: float


@dataclass(slots=True)
class _Uses:
    """What a node's program does: the same in every life."""

    services: dict[str, _Use] = field(default_factory=dict)
    topics: dict[int, tuple[str, _Use]] = field(default_factory=dict)
    inbox: _Use | None = None


class SimulatedNode:
    """One node of a `SimulatedMesh`. It keeps its handlers over crashes, and nothing else."""

    def __init__(self, mesh: "SimulatedMesh", index: int, name: str, options: NodeOptions) -> None:
        self.name = name
        self.index = index
        self._mesh = mesh
        self._outgoing = Outgoing(options)
        self._uses = _Uses()
        self._calls: dict[int, SimulatedCall] = {}
        self._numbers = 0
        self.process: NodeProcess | None = None

    # What it offers and wants

    def service(self, name: str, *, takes: float = 0.0) -> Callable[[Handler], Handler]:
        """Provide a service: decorates its handler, which takes so many virtual seconds."""

        def register(handler: Handler) -> Handler:
            self._uses.services[name] = _Use(handler, takes)
            self._tell(Serve(name))
            return handler

        return register

    def subscription(self, pattern: str, *, takes: float = 0.0) -> Callable[[Handler], Handler]:
        """Subscribe to topics: decorates the handler of what is published on them."""

        def register(handler: Handler) -> Handler:
            token = len(self._uses.topics) + 1
            self._uses.topics[token] = (pattern, _Use(handler, takes))
            self._tell(Subscribe(token, pattern))
            return handler

        return register

    def inbox(self, *, takes: float = 0.0) -> Callable[[Handler], Handler]:
        """Read direct messages: decorates their handler."""

        def register(handler: Handler) -> Handler:
            self._uses.inbox = _Use(handler, takes)
            self._tell(OpenInbox())
            return handler

        return register

    # What it does

    def call(self, service: str, body: object, *, timeout: float | None = None) -> SimulatedCall:
        """Ask a service; look at the call again after `run`."""
        process = self._living()
        self._numbers += 1
        call = self._calls[self._numbers] = SimulatedCall(service)
        deadline = None if timeout is None else process.clock.read() + timeout
        record = self._outgoing.record(Kind.REQUEST, service, body)
        process.deliver(Call(self._numbers, record, PRIORITY_DEFAULT, deadline))
        return call

    def send(
        self, to: str, body: object, *, key: str | None = None, ttl: float | None = None
    ) -> Ticket:
        """Send a direct message; the ticket tells by `done`, `accepted` and `failures`."""
        ticket = Ticket()
        record = self._outgoing.record(Kind.DIRECT, "", body)
        self._living().deliver(Post(to, PRIORITY_DEFAULT, [record], ticket, key, ttl))
        return ticket

    def publish(self, topic: str, body: object) -> Ticket:
        """Publish; the ticket counts one outcome for each subscribing node known by then."""
        ticket = Ticket()
        record = self._outgoing.record(Kind.PUBLICATION, topic, body)
        self._living().deliver(Publish(record, PRIORITY_DEFAULT, ticket))
        return ticket

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process is not None

    @property
    def peers(self) -> dict[str, PeerState]:
        """The peers it sees, by name."""
        return {view.name: view.state for view in self._living().engine.peers()}

    # Its faults

    def crash(self, *, restart_after: float | None = None) -> None:
        """Kill its process, memory and all; start another after so many seconds, or never."""
        self._mesh.kill(self)
        if restart_after is not None:
            self._mesh.queue.after(restart_after, self._mesh.boot, self)

    def stall(self, seconds: float) -> None:
        """Block its event loop, as a handler does that never awaits."""
        self._living().stall(seconds)

    def suspend(self, seconds: float) -> None:
        """Put its host to sleep, and its clock with it."""
        self._living().suspend(seconds)

    # Within

    def begin(self, process: NodeProcess) -> None:
        """Take a new process: tell it what the one before was told."""
        self.process = process
        for service in self._uses.services:
            process.deliver(Serve(service))
        for token, (pattern, _) in self._uses.topics.items():
            process.deliver(Subscribe(token, pattern))
        if self._uses.inbox is not None:
            process.deliver(OpenInbox())

    def end(self) -> None:
        """Take note that the process is dead: nobody waits for its calls."""
        self.process = None
        self._calls.clear()

    def _living(self) -> NodeProcess:
        if self.process is None:
            raise UsageError(f"the process of {self.name!r} is dead: restart it first")
        return self.process

    def _tell(self, event: Event) -> None:
        if self.process is not None:
            self.process.deliver(event)

    def perform(self, action: Action) -> None:
        """Take what the engine tells its application."""
        match action:
            case DeliverInbox(deliveries) if self._uses.inbox is not None:
                for delivery in deliveries:
                    self._take(delivery, [self._uses.inbox] * len(delivery.records))
            case DeliverRequests(deliveries):
                for delivery in deliveries:
                    services = self._uses.services
                    self._take(delivery, [services[record[1]] for record in delivery.records])
            case DeliverPublications(pairs):
                for delivery, tokens in pairs:
                    self._take(delivery, [self._uses.topics[each[0]][1] for each in tokens])
            case CallAnswered(number):
                call = self._calls.pop(number, None)
                if call is not None:
                    call.answer = action
            case _:
                pass

    def _take(self, delivery: Delivery, uses: list[_Use]) -> None:
        whole = delivery.last_seq - delivery.first_seq + 1 != len(delivery.records)
        for offset, (record, use) in enumerate(zip(delivery.records, uses, strict=True)):
            first = delivery.first_seq + offset
            last = delivery.last_seq if whole else first
            self._mesh.queue.after(
                use.takes, self._handle, self.process, use, delivery.source, first, last, record
            )

    def _handle(
        self,
        process: NodeProcess,
        use: _Use,
        source: Source,
        first: int,
        last: int,
        record: Record,
    ) -> None:
        """Run a handler as a node does: what it returns replies, what it raises decides."""
        if process is not self.process:
            return
        is_request = record[0] & 15 == Kind.REQUEST
        try:
            result = use.handler(_body_of(record))
        except Reject as error:
            process.deliver(SettleDeliveries(source, first, last, Outcome.REJECTED, error.reason))
            return
        except Exception as error:  # noqa: BLE001  a handler may raise anything
            if not is_request:
                process.deliver(
                    SettleDeliveries(source, first, last, Outcome.MODIFIED, str(error))
                )
                return
            reply = self._outgoing.failure(error)
        else:
            if not is_request:
                process.deliver(SettleDeliveries(source, first, last, Outcome.ACCEPTED))
                return
            reply = self._outgoing.reply(result)
        correlation = extra(record, Tag.CORRELATION)
        if isinstance(correlation, int):
            process.deliver(Reply(source, first, last, correlation, reply))


class SimulatedMesh:
    """Nodes, the network between them, and its faults.

    Args:
        names: the nodes; they find each other by themselves.
        seed: of all randomness.
        options: of every node.
        delay: between any two nodes, seconds.
        edges: which of the nodes have `role="edge"`: links with the others alone.
    """

    def __init__(
        self,
        *names: str,
        seed: int = 0,
        options: NodeOptions | None = None,
        delay: float = 0.000_2,
        edges: Iterable[str] = (),
    ) -> None:
        if not 1 <= len(names) <= NODES_MAX or len(set(names)) != len(names):
            raise UsageError(f"a mesh has 1 to {NODES_MAX} nodes with different names: {names}")
        self._edges = frozenset(edges)
        if not self._edges <= set(names):
            raise UsageError(f"edges that are no nodes: {sorted(self._edges - set(names))}")
        self._options = options or NodeOptions()
        scenario = Scenario(
            seed=seed, level="node", hosts=(HostPlan(),) * len(names), link=self._options.link
        )
        self.queue = EventQueue()
        self._random = Random(f"mesh {seed}")  # noqa: S311  repeatable is the point
        self.network: Network[Parts] = Network(
            self.queue,
            Random(f"network {seed}"),  # noqa: S311
            corrupt=lambda _source, _target, packet, _random: packet,
        )
        self.network.calm = Weather(delay=delay, jitter=delay)
        self.network.on_sent = self._on_sent
        findings = Findings()
        self._around = Surroundings(scenario, self.queue, self.network, Trace(), findings)
        self._watch = WireWatch(self._options.link, findings, None, calm=False)
        self._lives: dict[str, int] = {}
        self.nodes = {
            name: SimulatedNode(self, index, name, self._options)
            for index, name in enumerate(names)
        }
        self._by_index = list(self.nodes.values())
        for node in self._by_index:
            self.boot(node)

    def __getitem__(self, name: str) -> SimulatedNode:
        return self.nodes[name]

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return self.queue.now

    @property
    def violations(self) -> list[Violation]:
        """Broken promises that were seen on the wire; there should be none, whatever fails."""
        return list(self._around.findings.first)

    # Time

    def run(self, seconds: float) -> None:
        """Let so many virtual seconds pass."""
        end = self.queue.now + seconds
        while self.queue.next_at is not None and self.queue.next_at <= end:
            self.queue.step()
        self.queue.now = end

    def run_until(self, condition: Callable[[], bool], *, within: float = 60.0) -> None:
        """Let time pass until the condition holds.

        Raises:
            TimeoutError: it did not within so many virtual seconds.
        """
        end = self.queue.now + within
        while not condition():
            if self.queue.next_at is None or self.queue.next_at > end:
                raise TimeoutError(f"the condition did not hold within {within:g} virtual seconds")
            self.queue.step()

    def run_until_joined(self, *, within: float = 60.0) -> None:
        """Let time pass until all living nodes see each other alive; see `run_until`.

        Of two edges neither sees the other.
        """

        def joined() -> bool:
            living = [node for node in self.nodes.values() if node.alive]
            return all(
                node.peers.get(other.name) is PeerState.ALIVE
                for node in living
                for other in living
                if other is not node and not {node.name, other.name} <= self._edges
            )

        self.run_until(joined, within=within)

    # Faults between nodes

    def partition(self, one: str, other: str, *, seconds: float) -> None:
        """Let nothing pass between two nodes for a while."""
        self.cut(one, other, seconds=seconds)
        self.cut(other, one, seconds=seconds)

    def cut(self, source: str, target: str, *, seconds: float) -> None:
        """Let nothing pass from one node to another for a while."""
        pair = self[source].index, self[target].index
        self.network.cut(*pair)
        self.queue.after(seconds, self.network.heal, *pair)

    def reset(self, one: str, other: str) -> None:
        """End the connections between two nodes; both hear of it."""
        self.network.reset(self[one].index, self[other].index)

    def black_hole(self, one: str, other: str) -> None:
        """Swallow what the connections between two nodes carry, and tell nobody."""
        self.network.black_hole(self[one].index, self[other].index)

    def weather(self, source: str, target: str, weather: Weather | None) -> None:
        """Let loss, duplication, reordering or delay befall packets; None ends it."""
        self.network.set_weather(self[source].index, self[target].index, weather)

    # Lives

    def boot(self, node: SimulatedNode) -> None:
        """Start the process of a node, unless it runs."""
        if node.alive:
            return
        life = self._lives[node.name] = self._lives.get(node.name, 0) + 1
        process = NodeProcess(
            self._around,
            node.index,
            life,
            HostClock(self.queue),
            node=node_id(node.index, 0, node.index),
            name=node.name,
            fresh_identity=False,
            options=self._options,
            is_edge=node.name in self._edges,
        )
        process.application = node
        process.on_read = lambda source, parts, now: self._on_read(process, source, parts, now)
        process.start()
        node.begin(process)
        for other in self.nodes.values():
            if other is not node and other.process is not None:
                self._introduce(process, other.process)
                self._introduce(other.process, process)

    def kill(self, node: SimulatedNode) -> None:
        """End the process of a node at once, if it runs."""
        if node.process is not None:
            node.process.die()
            node.end()

    def _introduce(self, one: NodeProcess, to: NodeProcess) -> None:
        found = CandidateFound(MDNS, one.node, one.name, (one.endpoint,), one.is_edge)
        self.queue.after(0.01 * self._random.random(), to.deliver, found)

    # The wire

    def _on_sent(self, source: int, target: int, parts: Parts) -> None:
        process = self._by_index[source].process
        packet = _decoded(parts)
        if process is not None and packet is not None:
            now = process.clock.read()
            self._watch.on_sent(process.label, target, packet, now, self.queue.now)

    def _on_read(self, process: NodeProcess, source: int, parts: Parts, now: float) -> None:
        packet = _decoded(parts)
        if packet is not None:
            self._watch.on_read(process.label, source, packet, now, self.queue.now)


def _body_of(record: Record) -> object:
    return body_of(record)


def _decoded(parts: Parts) -> Packet | None:
    try:
        return decode(parts, NodeOptions().wire)
    except ProtocolError:
        return None
