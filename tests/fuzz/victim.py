"""A whole node without sockets, for scripts to do to it what they like: and what it must keep."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from tests.fuzz.script import Script
from tests.fuzz.speaker import KEYS, MESH, NODES
from tests.scribe import Scribe
from zmesh.actions import (
    Action,
    DeliverGroup,
    DeliverInbox,
    DeliverJobs,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    Dial,
    HangUp,
    PartsArrived,
    ReadJournal,
    SendPackets,
    ShutOut,
    StreamOffered,
    WriteJournal,
)
from zmesh.core.engine import Engine
from zmesh.errors import ProtocolError
from zmesh.events import (
    BeginStream,
    EndParts,
    Event,
    JournalTold,
    PacketsReceived,
    RefuseStream,
    Reply,
    SettleDeliveries,
    TakeParts,
    TimerFired,
    WritePart,
)
from zmesh.ids import CONNECTION_KEY_BYTES, JournalId, Path
from zmesh.message import Kind, Outcome, Record, Tag, extra, head
from zmesh.options import KIB, LinkOptions, NodeOptions
from zmesh.reliable.handshake import LocalIdentity
from zmesh.security.trust import Trust
from zmesh.testing.clock import SeededEntropy
from zmesh.testing.journal import Disk
from zmesh.wire.bodies import body_of, decode_headers
from zmesh.wire.codec import decode
from zmesh.wire.frames import Packet

OPTIONS: Final = NodeOptions(
    link=LinkOptions(
        window_messages=64, window_messages_max=256, window_bytes_max=512 * KIB,
        peer_bytes_max=1024 * KIB, ranges_max=129, transfer_bytes_max=1024 * KIB,
        body_bytes_max=512 * KIB, queued_messages_max=64, control_window=64,
    ),
    peers_max=6, candidates_max=8, node_bytes_max=2048 * KIB, interest_max=32, filters_max=4,
    history_max=4, retained_max=8, backlog_max=8, strangers_max=8, defects_traced_max=8,
    seen_messages_max=16, replies_kept_max=4, answers_max=4, stale_deliveries_max=16,
    shared_maps_max=2, shared_keys_max=8, shared_origins_max=4, dead_letters_max=4,
    log_readers_max=4, topics_cached_max=4, latencies_max=4, filter_steps_max=500, dials_max=4,
    path_proofs_burst=32,
)  # fmt: skip
"""Small, so that scripts reach them."""

CONNECTION: Final = b"connection" + bytes(CONNECTION_KEY_BYTES - 10)
"""The public key of the connections it dials, where it proves who it is."""

WALL_MS: Final = 1_800_000_000_000
TURNS_MAX: Final = 200
"""At one time, before it is said that time stands still."""

ACTIONS_MAX: Final = 4000
"""Of one turn: nobody may make a node do more than in proportion."""

DELIVERIES_MAX: Final = 256
"""Open ones that are remembered, to be settled by the script."""


@dataclass(slots=True)
class Incoming:
    """A stream that somebody opened here."""

    begun: bool = False
    parts: list[int] = field(default_factory=list)  # sizes of those that came and were not taken


class Victim:
    """One node: its engine, and an application that looks at all it gets."""

    def __init__(
        self, *, durable: bool, secured: bool = False, trust: Trust | None = None
    ) -> None:
        self.id = NODES[0]
        self.now = 100.0
        journal, incarnation = JournalId(b"journal of victim"[:16]), 1
        self._scribe = Scribe(Disk(), self.id) if durable else None
        opened = None if self._scribe is None else self._scribe.opened
        if opened is not None:
            journal, incarnation = opened.identity.journal, opened.identity.incarnation
        self.local = LocalIdentity(MESH, self.id, "a", incarnation, journal, (1, 2))
        if secured:
            key = KEYS[self.id]
            self.local = replace(
                self.local, key=key, connection=b"connection key of the victim"[:32]
            )
        self.engine = Engine(
            self.local, OPTIONS, SeededEntropy("victim"), self.now, opened=opened,
            wall_ms=WALL_MS, trust=trust,
        )  # fmt: skip
        self.dials: dict[int, str] = {}
        self.sent: list[tuple[Path, Packet]] = []  # since the last `take_sent`
        self.maps: set[str] = set()  # that the application holds
        self.open: list[Delivery] = []
        self.streams: dict[int, Incoming] = {}  # that were opened by others, and are not over
        self.handle(TimerFired())

    @property
    def is_durable(self) -> bool:
        """Whether it has a journal."""
        return self._scribe is not None

    # Driving

    def handle(self, *events: Event) -> None:
        """Take a turn, and all that is due at once."""
        self._perform(self.engine.handle(events, self.now))
        for _ in range(TURNS_MAX):
            deadline = self.engine.deadline
            if deadline is None or deadline > self.now:
                return
            self._perform(self.engine.handle([TimerFired()], self.now))
        raise AssertionError(f"time stands still at {self.now}")

    def receive(self, path: Path, *packets: list[bytes]) -> None:
        """Take in ZeroMQ messages that came by one path."""
        self.handle(PacketsReceived([(path, list(parts)) for parts in packets]))

    def wait(self, seconds: float) -> None:
        """Let time pass, with all that is due in it."""
        until = self.now + seconds
        for _ in range(TURNS_MAX):
            deadline = self.engine.deadline
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.handle(TimerFired())
        self.now = until
        self.handle(TimerFired())

    def take_sent(self) -> list[tuple[Path, Packet]]:
        """Return what was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    def _perform(self, actions: list[Action]) -> None:
        assert len(actions) <= ACTIONS_MAX, f"{len(actions)} actions of one turn"
        orders: list[WriteJournal | ReadJournal] = []
        for action in actions:
            match action:
                case SendPackets(path, packets):
                    # It must keep to the protocol whatever it is told: others hang up otherwise.
                    for parts in packets:
                        heard = decode([bytes(part) for part in parts], OPTIONS.wire)
                        self.sent.append((path, heard))
                case Dial(path, endpoint):
                    self.dials[path] = endpoint
                case HangUp(path):
                    self.dials.pop(path, None)
                case ShutOut():
                    pass  # the engine drops what still comes
                case WriteJournal() | ReadJournal():
                    orders.append(action)
                case _:
                    self._take(action)
        if orders and self._scribe is not None:
            self._scribe.take(orders)
            told = self._scribe.work()
            self._perform(self.engine.handle([JournalTold(told)], self.now))

    def _take(self, action: Action) -> None:
        match action:
            case DeliverInbox() | DeliverRequests() | DeliverGroup():
                self._remember(action.deliveries)
            case DeliverPublications() | DeliverJobs():
                self._remember([delivery for delivery, _ in action.deliveries])
            case StreamOffered(stream, _, delivery):
                self.streams[stream] = Incoming()
                _read_all(delivery.records)
            case PartsArrived(stream, records):
                _read_all(records)
                if stream in self.streams:
                    self.streams[stream].parts += [len(record[2]) for record in records]

    def _remember(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            assert delivery.first_seq <= delivery.last_seq
            _read_all(delivery.records)
        self.open = (self.open + deliveries)[-DELIVERIES_MAX:]

    # What the application does with what it got

    def settle(self, script: Script) -> None:
        """Give a verdict on something that was delivered, or answer it."""
        if self.streams and script.flag():
            event = self._on_stream(script)
            if event is not None:
                self.handle(event)
        elif self.open:
            self.handle(_verdict(script, self.open.pop(script.below(len(self.open)))))

    def _on_stream(self, script: Script) -> Event | None:
        stream, state = script.choice(list(self.streams.items()))
        if not state.begun:
            if script.flag():
                state.begun = True
                return BeginStream(stream)
            del self.streams[stream]
            return RefuseStream(stream, Outcome.REJECTED, "no")
        match script.below(3):
            case 0 if state.parts:
                return TakeParts(stream, 1, state.parts.pop(0))
            case 1 if self.engine.stream_room(stream)[0] > 0:
                return WritePart(stream, (head(Kind.STREAM), "", b"part"))
            case 2:
                del self.streams[stream]
                return EndParts(stream)
        return None

    # What must hold

    def check(self) -> None:
        """Assert that nothing is larger than it may be."""
        options, held = OPTIONS, self.engine.statistics()
        assert held.peers <= options.peers_max
        assert held.membership.table.candidates <= options.candidates_max + options.peers_max + 4
        assert held.retained <= options.retained_max
        assert held.replies_kept <= options.replies_kept_max * (options.peers_max + 1)
        assert held.shared_maps <= options.shared_maps_max
        limit = options.link
        for link in held.links.values():
            assert link.held_bytes <= limit.peer_bytes_max + limit.transfer_bytes_max
            assert link.held_messages <= 11 * limit.window_messages_max
        for count in held.defects.values():
            assert count >= 0


def _read_all(records: Sequence[Record]) -> None:
    """Look at records as an application does: what it gets is what it expects, or refused."""
    for record in islice(records, 64):
        headers = extra(record, Tag.HEADERS)
        try:
            if isinstance(headers, bytes):
                decode_headers(headers)
            body_of(record, OPTIONS.wire)
        except ProtocolError:
            pass


def _verdict(script: Script, delivery: Delivery) -> Event:
    first, last = delivery.first_seq, delivery.last_seq
    record = delivery.records[0]
    if record[0] & 15 == Kind.REQUEST and script.flag():
        correlation = extra(record, Tag.CORRELATION)
        number = correlation if isinstance(correlation, int) else 0
        answer: Record = (head(Kind.REPLY), "", b"answer")
        return Reply(delivery.source, first, first, number, answer)
    outcome = script.choice((Outcome.ACCEPTED, Outcome.ACCEPTED, *Outcome))
    delay = float(script.below(3))
    return SettleDeliveries(delivery.source, first, last, outcome, script.text(), delay)
