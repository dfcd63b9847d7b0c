"""Whole nodes without sockets: engines on a simulated network, in virtual time.

Each host takes a turn for whatever happened and whenever its engine's deadline comes. Its
application accepts every direct message and publication at once unless told otherwise, and
answers requests by `handlers`.
"""

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.scribe import Scribe
from zmesh.actions import (
    Action,
    CallAnswered,
    CallsAnswered,
    CancelRequest,
    DeliverGroup,
    DeliverInbox,
    DeliverJobs,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    Dial,
    Drained,
    HangUp,
    IdentityClash,
    PeerChange,
    PeerChanged,
    PeerState,
    Probe,
    ReadJournal,
    Restored,
    RoomChanged,
    SendPackets,
    ShutOut,
    TicketsDone,
    TicketsStored,
    Trace,
    WriteJournal,
)
from zmesh.core.engine import Engine
from zmesh.events import (
    Call,
    CallEach,
    CandidateFound,
    EndpointsChanged,
    Event,
    JournalTold,
    OpenInbox,
    PacketsReceived,
    Post,
    Publish,
    Pull,
    Push,
    Reply,
    ReplyEach,
    Serve,
    SettleDeliveries,
    Source,
    Subscribe,
    TimerFired,
    Unpull,
    Unsubscribe,
)
from zmesh.ids import CONNECTION_KEY_BYTES, JournalId, MeshTag, NodeId, Path
from zmesh.message import Kind, Outcome, Record, Tag, Ticket, extra, head
from zmesh.options import NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.node_key import NodeKey
from zmesh.security.trust import Trust
from zmesh.storage import JournalEvent
from zmesh.testing.call_books import answers_in
from zmesh.testing.clock import EventQueue, SeededEntropy
from zmesh.testing.drive import Drive
from zmesh.testing.journal import Disk
from zmesh.testing.network import Network

Parts = list[bytes]
WALL_MS = 1_800_000_000_000
"""What the wall clock reads when a world begins."""
Handler = Callable[[Record], Record | Outcome | None]
"""Makes of a request its reply, an outcome without one, or None: still at it."""

MESH = MeshTag(b"testmesh")


def body(record: Record) -> bytes:
    return bytes(record[2])


def direct(text: str) -> Record:
    return (head(Kind.DIRECT), "", text.encode())


def request(service: str, text: str = "") -> Record:
    return (head(Kind.REQUEST), service, text.encode())


def reply(text: str) -> Record:
    return (head(Kind.REPLY), "", text.encode())


def job(queue: str, text: str = "") -> Record:
    return (head(Kind.JOB), queue, text.encode())


def publication(topic: str, text: str = "") -> Record:
    return (head(Kind.PUBLICATION), topic, text.encode())


def echo(record: Record) -> Record:
    return reply(body(record).decode())


class Host:
    """One life of a node: its engine, its application, and everything its engine ordered."""

    in_runs = False
    """Whether calls, and answers, that follow each other in a turn are given together."""

    def __init__(
        self,
        world: "World",
        index: int,
        name: str,
        incarnation: int,
        options: NodeOptions,
        decompresses: tuple[int, ...] = (),
        disk: Disk | None = None,
        *,
        is_edge: bool = False,
    ) -> None:
        self.is_edge = is_edge
        self.world = world
        self._index = index
        self.name = name
        self.key = NodeKey.of(bytes([index + 1]) * 32) if world.secured else None
        self.id = NodeId(bytes([index + 1]) * 16) if self.key is None else self.key.id
        self.endpoint = f"tcp://127.0.0.1:{5000 + index}"
        self.alive = True
        entropy = SeededEntropy(f"{name} {incarnation}")
        journal = JournalId(entropy.token(16))
        self._scribe = None if disk is None else Scribe(disk, self.id)
        opened = None if self._scribe is None else self._scribe.opened
        if opened is not None:
            incarnation, journal = opened.identity.incarnation, opened.identity.journal
        # Another with each process, as connections are.
        self.connection = entropy.token(CONNECTION_KEY_BYTES) if world.secured else b""
        local = LocalIdentity(
            MESH, self.id, name, incarnation, journal, decompresses, self.key, self.connection,
            is_edge,
        )  # fmt: skip
        self.engine = Engine(
            local, options, entropy, world.queue.now, opened=opened, wall_ms=world.wall_ms,
            trust=world.trusts.get(name),
        )  # fmt: skip
        self.is_stuck = False  # nothing is written or read
        self._drive: Drive | None = None
        self.stored: dict[
            Ticket, Exception | None
        ] = {}  # told of the disk, or why it is not there
        self.actions: list[Action] = []
        self.inbox: list[str] = []
        self.heard: list[tuple[str, str]] = []  # (topic, body) of publications
        self.grouped: list[tuple[str, str]] = []  # (group, body) of what was fanned out
        self.group_verdict = Outcome.ACCEPTED
        self.handled: list[str] = []  # bodies of requests
        self.places: list[tuple[Source, int, int, Record]] = []  # requests, to be answered by hand
        self.jobs: list[tuple[str, int]] = []  # (body, attempt) of every job taken
        self.open_jobs: list[tuple[str, Source, int, int]] = []  # those without outcome
        self.job_outcome: Outcome | None = None  # what each job gets at once, if anything
        self.answers: dict[int, CallAnswered] = {}
        self.changes: list[tuple[PeerChange, str]] = []
        self.handlers: dict[str, Handler] = {}
        self.listeners: list[
            Callable[[Action], None]
        ] = []  # told of peers, and of what nothing here takes
        self.accepts = True
        self.strangers: set[Path] = set()  # paths of the test's own: nothing is sent there
        self.calls = 0
        self._pending: list[Event] = []
        self._wake_at: float | None = None

    @property
    def index(self) -> int:
        return self._index

    @property
    def disk(self) -> Disk:
        return self.scribe.disk

    @property
    def scribe(self) -> Scribe:
        assert self._scribe is not None, "it has a disk"
        return self._scribe

    @property
    def drive(self) -> Drive:
        assert self._drive is not None, "its disk takes time"
        return self._drive

    def read_journal(self, *, takes_time: bool) -> None:
        """Read what is there at once; from then on the disk takes its time, or none."""
        self.do(TimerFired())
        self.world.run(0.0)
        [restored] = [each for each in self.actions if isinstance(each, Restored)]
        assert restored.error is None
        if takes_time:
            life = self.scribe.opened.identity.incarnation
            entropy = SeededEntropy(f"disk of {self.name} {life}")
            journal = self.scribe.journal
            self._drive = Drive(self.world.queue, entropy, journal, self._on_told, self.kill)

    # Driving

    def do(self, *events: Event) -> None:
        """Queue events for the host's next turn, which comes at once."""
        if not self._pending:
            self.world.queue.after(0.0, self._turn)
        self._pending += events

    def deliver(self, event: Event) -> None:
        self.do(event)

    def receive(self, path: Path, packet: Parts) -> None:
        self.do(PacketsReceived([(path, packet)]))

    def _turn(self) -> None:
        events, self._pending = self._pending, []
        if not self.alive:
            return
        self._perform(self.engine.handle(events, self.world.queue.now))
        for event in events:
            if isinstance(event, PacketsReceived):
                for path, _ in event.packets:
                    self.world.network.consumed(self, path)
        self._plan()

    def _plan(self) -> None:
        deadline = self.engine.deadline
        if deadline is not None and (self._wake_at is None or deadline < self._wake_at):
            self._wake_at = deadline
            self.world.queue.at(deadline, self._wake, deadline)

    def _wake(self, planned: float) -> None:
        if planned == self._wake_at:
            self._wake_at = None
            self.do(TimerFired())

    def _perform(self, actions: list[Action]) -> None:
        self.actions += actions
        network = self.world.network
        for action in actions:
            match action:
                case SendPackets(path) if path in self.strangers:
                    pass
                case SendPackets(path, packets):
                    for packet in packets:
                        network.send(self, path, [bytes(part) for part in packet])
                case Dial(path, endpoint):
                    network.dial(self, path, endpoint, self.connection)
                case HangUp(path):
                    network.hang_up(self, path)
                case ShutOut():
                    pass  # the engine drops what still comes
                case Probe(endpoint, timeout):
                    network.probe(self, endpoint, timeout)
                case WriteJournal() | ReadJournal():
                    self._keep(action)
                case _:
                    self._inform(action)

    def _keep(self, order: WriteJournal | ReadJournal) -> None:
        if self._drive is not None:
            self._drive.perform(order)
            return
        self.scribe.take([order])
        if not self.is_stuck:
            self.write()

    def write(self) -> None:
        """Let all that was ordered be done, and be told of it."""
        self._on_told(self.scribe.work())

    def _on_told(self, news: list[JournalEvent]) -> None:
        self.do(JournalTold(news))

    def _inform(self, action: Action) -> None:
        match action:
            case DeliverInbox() | DeliverGroup():
                self._read(action)
            case DeliverPublications(pairs):
                for delivery, tokens in pairs:
                    assert len(tokens) == len(delivery.records)
                    self.heard += [
                        (r[1], body(r).decode(errors="replace")) for r in delivery.records
                    ]
                    self._accept(delivery)
            case DeliverJobs(pairs):
                self._take_jobs(pairs)
            case DeliverRequests(deliveries):
                for delivery in deliveries:
                    self._handle(delivery)
            case CallAnswered() | CallsAnswered():
                self._note_answers(action)
            case TicketsStored(tickets, error):
                self.stored |= dict.fromkeys(tickets, error)
                self._tell(action)
            case PeerChanged(change, peer, _):
                self.changes.append((change, peer.name))
                self._tell(action)
            case _:
                self._tell(action)

    def _note_answers(self, action: CallAnswered | CallsAnswered) -> None:
        for answer in answers_in(action):
            assert answer.call not in self.answers, "a call has one answer"
            self.answers[answer.call] = answer

    def _tell(self, action: Action) -> None:
        for listener in self.listeners:
            listener(action)

    def _read(self, action: DeliverInbox | DeliverGroup) -> None:
        for delivery in action.deliveries:
            texts = [body(record).decode(errors="replace") for record in delivery.records]
            if isinstance(action, DeliverInbox):
                self.inbox += texts
                self._accept(delivery)
            else:
                self.grouped += [(delivery.records[0][1], text) for text in texts]
                self._settle(delivery, self.group_verdict)

    def _accept(self, delivery: Delivery) -> None:
        self._settle(delivery, Outcome.ACCEPTED)

    def _settle(self, delivery: Delivery, verdict: Outcome) -> None:
        if self.accepts:
            first, last = delivery.first_seq, delivery.last_seq
            self.do(SettleDeliveries(delivery.source, first, last, verdict))

    def _handle(self, delivery: Delivery) -> None:
        single = len(delivery.records) == 1
        for seq, record in enumerate(delivery.records, delivery.first_seq):
            self.handled.append(body(record).decode())
            last = delivery.last_seq if single else seq
            handler = self.handlers[record[1]]
            answer = handler(record)
            if answer is None:
                self.places.append((delivery.source, seq, last, record))
            elif isinstance(answer, Outcome):
                self.do(SettleDeliveries(delivery.source, seq, last, answer, "handler said so"))
            else:
                self._reply(delivery.source, seq, last, correlation(record), answer)

    def _reply(self, source: Source, first: int, last: int, call: int, answer: Record) -> None:
        """Answer, in a run with what was answered just before where `in_runs` says so."""
        before = self._pending[-1] if self._pending else None
        if not self.in_runs or first != last:
            self.do(Reply(source, first, last, call, answer))
        elif isinstance(before, ReplyEach) and before.source == source:
            before.numbers.append(first)
            before.correlations.append(call)
            before.records.append(answer)
        else:
            self.do(ReplyEach(source, [first], [call], [answer]))

    def _take_jobs(self, deliveries: list[tuple[Delivery, int]]) -> None:
        for delivery, _ in deliveries:
            single = len(delivery.records) == 1
            for seq, record in enumerate(delivery.records, delivery.first_seq):
                text = body(record).decode(errors="replace")
                attempt = extra(record, Tag.ATTEMPT)
                self.jobs.append((text, attempt if isinstance(attempt, int) else 1))
                last = delivery.last_seq if single else seq
                self.open_jobs.append((text, delivery.source, seq, last))
                if self.job_outcome is not None:
                    self.settle_job(self.job_outcome)

    # Commands

    def push(self, queue: str, *texts: str, lane: int = 4, **options: object) -> Ticket:
        ticket = Ticket(len(texts))
        event = Push([job(queue, text) for text in texts], lane, ticket)
        self.do(replace(event, **options))  # type: ignore[arg-type]
        return ticket

    def store(self, queue: str, *texts: str, lane: int = 4, **options: object) -> Ticket:
        """Push durable jobs."""
        wall_ms = self.world.wall_ms
        return self.push(queue, *texts, lane=lane, durable=True, wall_ms=wall_ms, **options)

    def pull(self, queue: str, prefetch: int = 1, token: int = 1) -> None:
        self.do(Pull(token, queue, prefetch))

    def unpull(self, token: int = 1) -> None:
        self.open_jobs.clear()
        self.do(Unpull(token))

    def settle_job(
        self, outcome: Outcome = Outcome.ACCEPTED, delay: float = 0.0, at: int = 0
    ) -> str:
        """Give a job its outcome, the oldest one or another; return what it was."""
        text, source, first, last = self.open_jobs.pop(at)
        self.do(SettleDeliveries(source, first, last, outcome, "handler said so", delay))
        return text

    def post(self, to: "str | Host", *texts: str, lane: int = 4, **options: object) -> Ticket:
        ticket = Ticket(len(texts))
        target = to if isinstance(to, str) else to.id
        event = Post(target, lane, [direct(text) for text in texts], ticket)
        self.do(replace(event, **options))  # type: ignore[arg-type]
        return ticket

    def publish(self, topic: str, text: str = "", **options: object) -> Ticket:
        ticket = Ticket()
        self.do(replace(Publish(publication(topic, text), 4, ticket), **options))  # type: ignore[arg-type]
        return ticket

    def call(
        self, service: str, text: str = "", timeout: float | None = 10.0, **options: object
    ) -> int:
        self.calls += 1
        deadline = None if timeout is None else self.world.queue.now + timeout
        record, before = request(service, text), self._pending[-1] if self._pending else None
        if not self.in_runs or options:
            self.do(replace(Call(self.calls, record, 4, deadline), **options))  # type: ignore[arg-type]
        elif (
            isinstance(before, CallEach)
            and before.first + len(before.records) == self.calls
            and (before.records[0][1], before.deadline) == (service, deadline)
        ):
            before.records.append(record)
        else:
            self.do(CallEach(self.calls, [record], 4, deadline))
        return self.calls

    def answer(self, text: str) -> None:
        """Answer the oldest request that waits for it."""
        source, first, last, record = self.places.pop(0)
        self._reply(source, first, last, correlation(record), reply(text))

    def serve(self, service: str, handler: Handler = echo) -> None:
        self.handlers[service] = handler
        self.do(Serve(service))

    def subscribe(self, token: int, pattern: str) -> None:
        self.do(Subscribe(token, pattern))

    def unsubscribe(self, token: int) -> None:
        self.do(Unsubscribe(token))

    def kill(self) -> None:
        """End the process: its connections close; some of what was to be written is on disk."""
        if not self.alive:
            return
        self.alive = False
        self.world.network.kill(self)
        if self._drive is not None:
            self._drive.stop()

    # What it ordered

    def ordered(self, kind: type) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kind)]

    def finished(self, ticket: Ticket) -> bool:
        """Whether the application was told that the ticket is done, exactly once."""
        told = [t for a in self.actions if isinstance(a, TicketsDone) for t in a.tickets]
        assert told.count(ticket) <= 1
        return ticket in told

    def traces(self, name: str) -> list[Trace]:
        return [a for a in self.actions if isinstance(a, Trace) and a.name == name]

    def sees(self, other: "Host") -> PeerState | None:
        return next((v.state for v in self.engine.peers() if v.id == other.id), None)


class World:
    """Hosts on one network. Time passes only in `run`."""

    def __init__(self, options: NodeOptions | None = None, *, secured: bool = False) -> None:
        self.secured = secured  # a CURVE mesh, on which who says something proves who it is
        self.queue = EventQueue()
        self.random = Random(1)
        self.network: Network[Parts] = Network(self.queue, self.random, corrupt=_corrupt)
        self.options = options or NodeOptions()
        self.hosts: dict[str, Host] = {}
        self.disks: dict[str, Disk] = {}  # of those that `keep` starts
        self.trusts: dict[str, Trust] = {}  # of hosts to start, by name
        self._incarnations: dict[str, int] = {}

    @property
    def wall_ms(self) -> int:
        """What the wall clock reads."""
        return WALL_MS + round(self.queue.now * 1000)

    def host(
        self,
        name: str,
        *,
        options: NodeOptions | None = None,
        inbox: bool = True,
        known_as: str | None = None,
        decompresses: tuple[int, ...] = (),
        disk: Disk | None = None,
        takes_time: bool = False,
        is_edge: bool = False,
    ) -> Host:
        """Start a host, or start it again; it may be known by another name than its own.

        What it orders from its disk is done at once, or takes its time.
        """
        index = list(self._incarnations).index(name) if name in self._incarnations else None
        if index is None:
            index = len(self._incarnations)
        incarnation = self._incarnations[name] = self._incarnations.get(name, 0) + 1
        host = Host(
            self, index, known_as or name, incarnation, options or self.options, decompresses,
            disk, is_edge=is_edge,
        )  # fmt: skip
        self.hosts[name] = host
        self.network.listen(host, host.endpoint)
        if disk is not None:
            host.read_journal(takes_time=takes_time)  # nobody is met before
        host.do(EndpointsChanged((host.endpoint,)))
        if inbox:
            host.do(OpenInbox())
        return host

    def keep(self, name: str) -> Host:
        """Start a host with a disk that takes its time, or start it again on the one it had."""
        return self.host(name, disk=self.disks.setdefault(name, Disk()), takes_time=True)

    def introduce(self, one: Host, other: Host) -> None:
        """Let each know where the other is."""
        for here, there in ((one, other), (other, one)):
            endpoints = (there.endpoint,)
            here.do(CandidateFound("mdns", there.id, there.name, endpoints, there.is_edge))

    def mesh(self, *names: str) -> list[Host]:
        """Start hosts that all know of each other, and let them join."""
        hosts = [self.host(name) for name in names]
        for number, host in enumerate(hosts):
            for other in hosts[:number]:
                self.introduce(other, host)
        self.run(3.0)
        for host in hosts:
            assert len(host.engine.peers()) == len(hosts) - 1, host.name
        return hosts

    def part(self, one: Host, other: Host) -> None:
        """Let nothing pass between two hosts until they `join`."""
        self.network.cut(one.index, other.index)
        self.network.cut(other.index, one.index)

    def join(self, one: Host, other: Host) -> None:
        """Undo one `part`."""
        self.network.heal(one.index, other.index)
        self.network.heal(other.index, one.index)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        until = self.queue.now + seconds
        while (at := self.queue.next_at) is not None and at <= until:
            self.queue.step()
        self.queue.now = until

    def run_until(self, condition: Callable[[], bool], seconds: float = 30.0) -> float:
        """Let time pass until something holds; return how long that took."""
        start = self.queue.now
        while not condition():
            at = self.queue.next_at
            assert at is not None, "nothing will ever happen again"
            assert at <= start + seconds, f"not within {seconds} s"
            self.queue.step()
        return self.queue.now - start


def correlation(record: Record) -> int:
    number = extra(record, Tag.CORRELATION)
    assert isinstance(number, int)
    return number


def _corrupt(_source: int, _target: int, packet: Parts, random: Random) -> Parts:
    return [random.randbytes(len(packet[0])), *packet[1:]]


__all__ = [
    "CancelRequest", "Drained", "Host", "IdentityClash", "RoomChanged", "World", "body",
    "correlation", "direct", "echo", "job", "publication", "reply", "request",
]  # fmt: skip
