"""A process made of links alone: one to every other host, and just enough engine to move packets.

It dials, says HELLO on what it dialed, routes packets by their path, and performs what links ask
for. Identity, patterns and bytes are the business of `node_process`.
"""

from collections import deque
from dataclasses import dataclass
from typing import assert_never

from zmesh.events import (
    InboundClosed,
    LoopLate,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
    ProbeAnswered,
)
from zmesh.ids import JournalId, MeshTag, NodeId, Path, SessionId
from zmesh.message import Outcome, Ticket
from zmesh.options import WireLimits
from zmesh.reliable.handshake import LocalIdentity
from zmesh.reliable.link import Link
from zmesh.reliable.link_events import (
    Arrived,
    LeftBehind,
    Opened,
    PathWanted,
    ProbeWanted,
    Room,
    SessionEnded,
)
from zmesh.reliable.link_states import LinkState
from zmesh.testing.application import Application, Verdict
from zmesh.testing.clock import HostClock
from zmesh.testing.findings import Rule
from zmesh.testing.hosts import Process, Surroundings
from zmesh.testing.ledger import Message
from zmesh.testing.link_books import LinkBooks
from zmesh.testing.network import NetworkEvent
from zmesh.testing.scenario import Submission
from zmesh.wire.frames import ByeCode, Error, ErrorCode, Hello, Packet

MESH = MeshTag(b"simulate")
PROBE_TIMEOUT = 1.0
REDIAL_MIN = 0.1
REDIAL_MAX = 5.0


def node_id(index: int) -> NodeId:
    """Return the id of a host: the same in every life."""
    return NodeId(index.to_bytes(16, "big"))


def index_of(node: NodeId) -> int:
    """Return which host carries this id."""
    return int.from_bytes(node, "big")


@dataclass(slots=True)
class Job:
    """A delivery with the application, and what is needed to settle it."""

    sender: int
    session: bytes
    lane: int
    first_seq: int
    last_seq: int
    message: Message

    @property
    def number(self) -> int:
        """The number of its message."""
        return self.message.number


@dataclass(frozen=True, slots=True)
class Submit:
    """The application sends messages."""

    submission: Submission


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The application no longer waits for a ticket."""

    peer: int
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Redial:
    """Try again to reach a peer."""

    peer: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Say goodbye to everybody."""


Command = Submit | GiveUp | Redial | Leave


class LinkProcess(Process[Packet, Command]):
    """One life of a host with a link to every other host."""

    def __init__(
        self,
        around: Surroundings[Packet],
        books: LinkBooks,
        index: int,
        incarnation: int,
        clock: HostClock,
    ) -> None:
        super().__init__(around, index, incarnation, clock)
        self._books = books
        scenario = around.scenario
        peers = [peer for peer in range(len(scenario.hosts)) if peer != index]
        journal = JournalId(self.entropy.token(16))
        local = LocalIdentity(MESH, node_id(index), self.label, incarnation, journal)
        self.links = {peer: self._make_link(local, peer) for peer in peers}
        self._touched: dict[int, None] = {}  # peers whose links have something to give
        self._heard: dict[int, None] = {}  # whose links have events alone
        self._deadlines: dict[int, float] = {}
        self._routes: dict[Path, int] = {}  # whose packets come on which path
        self._dialed: dict[int, int] = {}  # path -> peer
        self._paths = 0
        self._seeking: set[int] = set()  # peers to look for again, later
        self._tries = dict.fromkeys(peers, 0)
        self._complained: dict[Path, float] = {}
        self.application: Application[Job] = Application(
            self.queue, self.random, scenario.hosts[index].consumer, self._on_verdict
        )
        self._verdicts: deque[tuple[Job, Verdict]] = deque()
        self._sessions: dict[int, bytes] = {}
        self._parked: dict[int, deque[Submission]] = {peer: deque() for peer in peers}

    def _make_link(self, local: LocalIdentity, peer: int) -> Link:
        link = Link(
            local,
            node_id(peer),
            self.around.scenario.link,
            WireLimits(),
            self.entropy,
            self.clock.read(),
        )
        link.local_endpoints = (self.endpoint,)
        return link

    def start(self) -> None:
        """Listen, and dial everybody, each after a moment."""
        self.network.listen(self, self.endpoint)
        for peer in self.links:
            self._seeking.add(peer)
            self.queue.after(self.random.uniform(0.0, 0.05), self.deliver, Redial(peer))

    def waits(self, peer: int) -> bool:
        """Return whether messages wait for room in a link."""
        return bool(self._parked[peer])

    # A turn

    def _handle(
        self,
        events: list[Command | NetworkEvent | tuple[Path, Packet]],
        now: float,
        late: LoopLate | None,
    ) -> None:
        links, touched = self.links, self._touched
        if late is not None:
            touched.update(dict.fromkeys(links))
            for link in links.values():
                link.on_loop_late(late.lag, now)
        for event in events:
            if isinstance(event, tuple):
                self._on_packet(event[0], event[1], now)
            elif isinstance(event, Command):
                self._on_command(event, now)
            else:
                touched.update(dict.fromkeys(links))
                self._on_news(event, now)
        for peer, deadline in self._deadlines.items():
            if deadline <= now:
                touched[peer] = None
                links[peer].on_timer(now)
        for peer in touched | self._heard:
            self._digest(peer, now)
        self._heard.clear()
        self._settle(now)
        for peer in touched:
            self._write(peer, links[peer], now)
        touched.clear()

    def _write(self, peer: int, link: Link, now: float) -> None:
        """Send what a link has to send, and note when it is to be looked at again."""
        for path, packet in link.packets(now):
            self.network.send(self, path, packet)
        self._digest(peer, now)
        self._books.check_bounds(self.label, peer, link)
        deadline = link.deadline
        if deadline is None:
            self._deadlines.pop(peer, None)
        else:
            self._deadlines[peer] = deadline

    def _deadline(self) -> float | None:
        return min(self._deadlines.values(), default=None)

    def _on_command(self, command: Command, now: float) -> None:
        match command:
            case Submit(submission):
                self._touched[submission.target] = None
                self._submit(submission, now)
            case GiveUp(peer, ticket):
                self._touched[peer] = None
                self._books.ledger.withdraw(ticket)
                self.links[peer].withdraw(ticket)
            case Redial(peer):
                self._seek(peer)
            case Leave():
                self.left = True
                for peer, link in self.links.items():
                    self._touched[peer] = None
                    link.close(ByeCode.CLOSED, "done")
            case _:
                assert_never(command)

    def _on_news(self, event: NetworkEvent, now: float) -> None:
        match event:
            case PathUp():
                self._on_path_up(event, now)
            case PathDown():
                self._on_path_down(event, now)
            case InboundClosed():
                pass  # whose it was shows when something is sent
            case PathFull(path) | PathWritable(path):
                self._on_flow(path, full=isinstance(event, PathFull))
            case ProbeAnswered(endpoint, cause):
                for link in self.links.values():
                    link.on_probe(endpoint, cause, now)
            case _:
                assert_never(event)

    # Paths

    def _on_flow(self, path: Path, *, full: bool) -> None:
        for link in self.links.values():
            if full:
                link.on_path_full(path)
            else:
                link.on_path_writable(path)

    def _dial(self, peer: int) -> None:
        """Replace what was dialed before: a socket that failed is not used again."""
        for path in [path for path, to in self._dialed.items() if to == peer]:
            self.network.hang_up(self, path)
            self._forget_path(path)
        self._paths += 1
        self._dialed[self._paths] = peer
        self.network.dial(self, self._paths, self.around.endpoint(peer))

    def _on_path_up(self, event: PathUp, now: float) -> None:
        path = event.path
        if isinstance(path, int) and path in self._dialed:
            self._routes[path] = self._dialed[path]
            self.links[self._dialed[path]].hello(path, now)

    def _on_path_down(self, event: PathDown, now: float) -> None:
        path = event.path
        peer = self._routes.get(path)
        if peer is not None:
            self.links[peer].on_path_down(path, event.cause, now)
        if isinstance(path, int) and path in self._dialed:
            to = self._dialed[path]
            self._forget_path(path)
            if not self.links[to].is_open:
                self._redial(to)
        else:
            self._routes.pop(path, None)

    def _forget_path(self, path: int) -> None:
        del self._dialed[path]
        self._routes.pop(path, None)

    def _redial(self, peer: int) -> None:
        """Seek a peer after a pause that doubles with each time in vain."""
        if peer in self._seeking:
            return
        self._seeking.add(peer)
        pause = min(REDIAL_MAX, REDIAL_MIN * 2 ** self._tries[peer])
        self._tries[peer] += 1
        self.queue.after(pause * self.random.uniform(0.5, 1.0), self.deliver, Redial(peer))

    def _seek(self, peer: int) -> None:
        """Dial, unless there is a link or a handshake; and look again later."""
        self._seeking.discard(peer)
        link = self.links[peer]
        if link.is_open or self.left:
            return
        if link.state is LinkState.IDLE:
            self._dial(peer)
        self._redial(peer)

    def _on_packet(self, path: Path, packet: Packet, now: float) -> None:
        first = packet.frames[0]
        if isinstance(first, Hello):
            if first.to != node_id(self.index):
                return
            self._routes[path] = index_of(first.node)
        peer = self._routes.get(path)
        if peer is None:
            if not isinstance(first, Error) and now > self._complained.get(path, -1.0) + 1.0:
                self._complained[path] = now
                error = Packet(packet.link, 0, (Error(ErrorCode.UNKNOWN_LINK, "say HELLO"),))
                self.network.send(self, path, error)
            return
        self._books.on_read(self.label, peer, packet, now)
        is_all = self.links[peer].on_packet(path, packet, now)
        (self._heard if is_all else self._touched)[peer] = None

    # What links ask for, and tell

    def _digest(self, peer: int, now: float) -> None:
        link = self.links[peer]
        events = link.take_events()
        if not events:
            return
        self._books.review(self.label, self.index, peer, events)
        for event in events:
            match event:
                case Arrived():
                    self._take(peer, event, now)
                case Opened():
                    self._on_opened(peer, link, event.session)
                case SessionEnded():
                    self._sessions.pop(peer, None)
                case PathWanted() | LeftBehind():
                    self._redial(peer)
                case ProbeWanted(endpoints):
                    for endpoint in endpoints:
                        self.network.probe(self, endpoint, PROBE_TIMEOUT)
                case Room():
                    self._submit_parked(peer, now)
                case _:
                    pass

    def _on_opened(self, peer: int, link: Link, session: SessionId) -> None:
        self._tries[peer] = 0
        self._sessions[peer] = session
        if link.session == session:  # it may have ended in the same turn
            self._books.announce(self.label, peer, link)

    # The application

    def _submit(self, submission: Submission, now: float) -> None:
        peer = submission.target
        self._parked[peer].append(submission)
        self._submit_parked(peer, now)

    def _submit_parked(self, peer: int, now: float) -> None:
        """Submit what waits, in order, as far as the link has room for it."""
        link, parked = self.links[peer], self._parked[peer]
        while parked and not self.left and link.room_messages > 0:
            submission = parked.popleft()
            records, ticket = self._books.ledger.submit(self.label, submission, now)
            lane, key, ttl = submission.lane, submission.key, submission.ttl
            link.submit(lane, records, ticket, now, key=key, ttl=ttl)
            if submission.withdraw_after is not None:
                self.queue.after(submission.withdraw_after, self.deliver, GiveUp(peer, ticket))

    def _take(self, peer: int, event: Arrived, now: float) -> None:
        """Hand a delivery to the handlers, message by message."""
        session = self._sessions[peer]
        whole = event.last_seq - event.first_seq + 1 != len(event.records)
        if whole and len(event.records) != 1:
            text = f"{len(event.records)} records come as {event.first_seq}..{event.last_seq}"
            self.around.wrong(Rule.DAMAGED, self.label, text)
        for offset, record in enumerate(event.records):
            message = self._books.ledger.on_delivered(
                self.label, self.index, peer, event.lane, record, now
            )
            if message is None:
                continue
            first = event.first_seq + offset
            last = event.last_seq if whole else first
            self.note("delivered", message.number, event.lane, first)
            self._books.on_held(self.label, session, event.lane, message, whole=whole)
            self.application.take(Job(peer, session, event.lane, first, last, message))

    def _on_verdict(self, job: Job, verdict: Verdict) -> None:
        self._verdicts.append((job, verdict))
        self.wake_up()

    def _settle(self, now: float) -> None:
        """Pass the handlers' verdicts on, those of consecutive messages together."""
        while self._verdicts:
            jobs, verdict = self._next_verdicts()
            first, last = jobs[0], jobs[-1]
            place = (first.session, first.lane, first.first_seq, last.last_seq)
            link, is_new = self.links[first.sender], True
            if verdict.outcome is Outcome.ACCEPTED and first.message.number % 2 == 0:
                accepted = link.accept_later(*place, now)
                taken, is_new = accepted is not None, bool(accepted)
            else:
                taken = link.settle(*place, verdict.outcome, now, verdict.reason, verdict.delay)
            if is_new:
                self._touched[first.sender] = None
            self.note("settled", first.message.number, len(jobs), verdict.outcome.name, taken)
            if taken:
                messages = [job.message for job in jobs]
                whole = first.first_seq != first.last_seq
                self._books.on_settled(
                    self.label, first.session, first.lane, messages, verdict, whole=whole
                )
            elif self._sessions.get(first.sender) == first.session and not self.left:
                text = f"cannot settle {first.message} though its session goes on"
                self.around.wrong(Rule.UNTRUE, self.label, text)

    def _next_verdicts(self) -> tuple[list[Job], Verdict]:
        """Take the first verdict, and those after it that it can share a range with."""
        job, verdict = self._verdicts.popleft()
        jobs = [job]
        while self._verdicts:
            following, same = self._verdicts[0]
            last = jobs[-1]
            if (
                same != verdict
                or (following.sender, following.session, following.lane)
                != (last.sender, last.session, last.lane)
                or following.first_seq != last.last_seq + 1
                or following.first_seq != following.last_seq
                or last.first_seq != last.last_seq
            ):
                break
            jobs.append(self._verdicts.popleft()[0])
        return jobs, verdict
