"""What can happen to a node: news from below, and commands from the application.

The runner hands them to `Engine.handle` in batches, in the order they happened.
"""

from dataclasses import dataclass
from enum import Enum

from zmesh.ids import NodeId, Path
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import Outcome, Record, StreamFault, Ticket, Ways
from zmesh.security.trust import Trust
from zmesh.storage import Entry, JournalEvent, Ranges
from zmesh.terms import PLAIN, Terms


class PathCause(Enum):
    """Why a path ended, or a probe failed."""

    REFUSED = "refused"  # the host answers, nobody listens: the process is gone
    UNREACHABLE = "unreachable"  # no route, or no answer in time
    CLOSED = "closed"  # the connection ended: the process died, or TCP gave up
    UNROUTABLE = "unroutable"  # ROUTER does not know the routing id any more
    WRONG_KEY = "wrong key"  # who listens there has another mesh key, or only one of us has any


# News from below


@dataclass(slots=True)
class PacketsReceived:
    """ZeroMQ messages, as `(path, parts)`, routing ids already taken off."""

    packets: list[tuple[Path, list[bytes]]]


@dataclass(frozen=True, slots=True)
class PathUp:
    """A connection we dialed is established (an inbound one shows itself by its first packet)."""

    path: Path


@dataclass(frozen=True, slots=True)
class PathDown:
    """A path carries nothing any more; what was on it may be lost."""

    path: Path
    cause: PathCause


@dataclass(frozen=True, slots=True)
class InboundClosed:
    """Some connection to our ROUTER ended; libzmq does not say whose. Inbound links are probed."""


@dataclass(frozen=True, slots=True)
class PathFull:
    """A path refused a packet (EAGAIN), which was not sent. PathWritable follows."""

    path: Path


@dataclass(frozen=True, slots=True)
class PathWritable:
    """A path that was full takes packets again."""

    path: Path


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """A fresh TCP connection to the endpoint was tried; `cause` is None where it succeeded."""

    endpoint: str
    cause: PathCause | None


@dataclass(frozen=True, slots=True)
class CandidateFound:
    """Somebody may be there. `node` is None where the source does not know (static peers)."""

    source: str
    node: NodeId | None
    name: str
    endpoints: tuple[str, ...]
    is_edge: bool = False  # it dials hubs itself, and is dialed by who has it written down alone


@dataclass(frozen=True, slots=True)
class CandidateGone:
    """The source no longer vouches for it. Never a reason to believe a live peer dead."""

    source: str
    node: NodeId


@dataclass(frozen=True, slots=True)
class EndpointsChanged:
    """This node's own reachable endpoints, at start and after the interfaces changed."""

    endpoints: tuple[str, ...]


@dataclass(slots=True)
class JournalTold:
    """What the journal has to tell, in order; see `zmesh.storage`."""

    events: list[JournalEvent]


@dataclass(frozen=True, slots=True)
class LoopLate:
    """Our own loop ran late by `lag` seconds: silence heard meanwhile is our fault."""

    lag: float


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The engine's deadline came."""


# Commands from the application


@dataclass(frozen=True, slots=True)
class Remember:
    """These messages of a node were accepted: what the application's own database says."""

    node: NodeId
    journal: bytes
    ranges: Ranges  # of their numbers in that journal
    name: str | None = None  # of the subscription that had them: these are places in the log


@dataclass(frozen=True, slots=True)
class RelayedGone:
    """These rows of the application's outbox are gone for good: see `EntryKind.RELAYED`."""

    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeepReplays:
    """Keep which signed messages were accepted; what has no value is kept no longer."""

    entries: tuple[Entry, ...]  # see `EntryKind.REPLAYS`


@dataclass(slots=True)
class Post:
    """Send records to one peer's inbox, by node id or name."""

    to: str | NodeId
    lane: int
    records: list[Record]
    ticket: Ticket
    key: str | None = None
    ttl: float | None = None  # seconds
    durable: bool = False  # stored first (`TicketsStored` tells), and sent until it is settled
    wall_ms: int = 0  # what the wall clock reads, for what is stored
    entries: tuple[Entry, ...] = ()  # stored with it


@dataclass(slots=True)
class PostEach:
    """Send records to one peer's inbox, each with a ticket of its own, and a key or none."""

    to: str | NodeId
    lane: int
    records: list[Record]
    tickets: list[Ticket]  # none was used before
    keys: list[str | None]


@dataclass(slots=True)
class RequeueLetter:
    """Send a dead letter back to where it was for; `TicketsStored` tells when it is done."""

    letter: int
    ticket: Ticket
    wall_ms: int  # what the wall clock reads, for what is stored


@dataclass(slots=True)
class PurgeLetters:
    """Forget a dead letter, or all; `TicketsStored` tells when, and the ticket how many."""

    letter: int | None
    ticket: Ticket


@dataclass(slots=True)
class Publish:
    """Send a record to every node with a matching subscription, this one included."""

    record: Record  # target is the topic
    lane: int
    ticket: Ticket  # its one in `expected` becomes the number of receivers
    key: str | None = None
    ttl: float | None = None
    keep: int | None = None  # so many of the topic, this included, are kept; 0 ends that
    at_most_once: bool = False  # to those with room, and forgotten: the ticket expects nothing
    durable: bool = False  # into the log first, which `TicketsStored` tells
    wall_ms: int = 0  # what the wall clock reads, for what is stored
    entries: tuple[Entry, ...] = ()  # stored with it


@dataclass(slots=True)
class PublishMany:
    """Send records of one topic, in order, as `Publish` does each.

    What is kept or stored is published one by one.
    """

    records: list[Record]  # at least one
    lane: int
    tickets: list[Ticket]  # one for each, as of `Publish`; or one for all, with one for each in it
    key: str | None = None
    ttl: float | None = None
    at_most_once: bool = False


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """Drop the oldest of what is stored for the same addressee, or of the log: so many bytes.

    Whoever waits for the outcome of a message gets DROPPED.
    """

    rival: Post | Publish  # what found no room
    size: int


@dataclass(slots=True)
class Call:
    """Ask a service; answered by action `CallAnswered` with the same `call`."""

    call: int
    record: Record  # target is the service
    lane: int
    deadline: float | None  # on the node's clock
    key: str | None = None  # calls of one key go to one provider, and are handled in order
    prefer: NodeId | None = None  # who is asked first, if it provides the service
    hedge_after: float | None = None  # seconds after which a second provider is asked as well
    retries: int = 0  # how often it is asked again where the handler raised


@dataclass(slots=True)
class CallEach:
    """Ask with calls of one service that want nothing special; `CallsAnswered` answers most."""

    first: int  # number of a call; the others follow
    records: list[Record]  # target is the service
    lane: int
    deadline: float | None  # of all, on the node's clock


@dataclass(frozen=True, slots=True)
class CancelCall:
    """Nobody waits for the answer any more."""

    call: int


@dataclass(slots=True)
class CallLater:
    """Ask a service whenever it is provided; `LaterStored` and then `LaterEnded` answer."""

    ticket: str  # never used before
    record: Record  # target is the service
    lane: int
    wall_ms: int  # what the wall clock reads
    key: str | None = None
    ttl: float | None = None  # seconds
    retries: int = 0  # how often it is asked again where the handler raised


@dataclass(frozen=True, slots=True)
class ForgetTicket:
    """Forget a request whose answer may come later; answered by `LaterForgotten`."""

    ticket: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a delivery came from: what is needed to settle or answer it."""

    node: NodeId
    session: bytes  # a delivery of an ended session can no longer be settled
    lane: int
    journal: bytes = b""  # of the node, when it came


@dataclass(slots=True)
class Reply:
    """Answer a request, and settle it accepted. `record` is of kind REPLY or FAILURE."""

    source: Source
    first_seq: int
    last_seq: int
    correlation: int
    record: Record


@dataclass(slots=True)
class ReplyEach:
    """Answer requests of one source, each with one number, and settle them accepted."""

    source: Source
    numbers: list[int]
    correlations: list[int]
    records: list[Record]  # of kind REPLY or FAILURE


@dataclass(slots=True)
class SettleDeliveries:
    """The application's verdict on deliveries `first_seq..last_seq` of one source."""

    source: Source
    first_seq: int
    last_seq: int
    outcome: Outcome
    reason: str = ""
    delay: float = 0.0  # seconds, for RELEASED and MODIFIED


@dataclass(frozen=True, slots=True)
class Serve:
    """This node provides a service from now on."""

    service: str


@dataclass(frozen=True, slots=True)
class Withdraw:
    """This node no longer provides the service."""

    service: str


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Deliver publications matching `pattern` to the subscription `token`."""

    token: int
    pattern: str
    terms: Terms = PLAIN


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """End a subscription."""

    token: int


@dataclass(frozen=True, slots=True)
class JoinGroup:
    """This node is a member of the group from now on."""

    group: str


@dataclass(frozen=True, slots=True)
class LeaveGroup:
    """This node is no longer a member of the group."""

    group: str


@dataclass(slots=True)
class StartFanOut:
    """Send a record to every member of a group; `FanOutChanged` and `FanOutEnded` tell of it."""

    fan_out: int
    record: Record  # target is the group
    lane: int
    deadline: float  # on the node's clock
    include_late: bool = False  # members that join before the deadline as well
    ttl: float | None = None
    durable: bool = False  # stored first, which `FanOutStored` tells
    wall_ms: int = 0  # what the wall clock reads, for what is stored


@dataclass(frozen=True, slots=True)
class CancelFanOut:
    """Nobody waits for the report any more."""

    fan_out: int


@dataclass(slots=True)
class Push:
    """Put jobs into a queue of this node, for whoever pulls it."""

    records: list[Record]  # target is the queue
    lane: int
    ticket: Ticket
    key: str | None = None
    ttl: float | None = None  # seconds
    delay: float = 0.0  # seconds before they may leave
    attempts_max: int | None = None  # None: as the node's options say
    durable: bool = False  # stored first, which `TicketsStored` tells, and kept until it is done
    wall_ms: int = 0  # what the wall clock reads, for what is stored
    entries: tuple[Entry, ...] = ()  # stored with them


@dataclass(frozen=True, slots=True)
class Pull:
    """Take jobs of a queue, at most `prefetch` without outcome at a time, as the pull `token`."""

    token: int  # 1 or more
    queue: str
    prefetch: int


@dataclass(frozen=True, slots=True)
class Unpull:
    """End a pull; its jobs without outcome go back."""

    token: int
    drains: bool = False  # not yet: no more are taken, and another Unpull follows


@dataclass(slots=True)
class StartSurvey:
    """Ask every provider of a service; `SurveyAnswered` and `SurveyEnded` tell of it."""

    survey: int
    record: Record  # target is the service
    lane: int
    deadline: float  # on the node's clock
    group: str | None = None  # only its members are asked
    count: int | None = None  # replies that are enough
    quorum: float | None = None  # share of those asked; replies of more than that are enough


@dataclass(frozen=True, slots=True)
class CancelSurvey:
    """Nobody waits for further replies."""

    survey: int


@dataclass(frozen=True, slots=True)
class Describe:
    """Tell peers these attributes, in the text of `wire.attributes`; None: no longer."""

    attributes: dict[str, str | None]  # by key


GatheringCommand = (
    JoinGroup | LeaveGroup | StartFanOut | CancelFanOut | StartSurvey | CancelSurvey | Describe
)
"""Commands of the patterns about many peers."""


@dataclass(frozen=True, slots=True)
class OpenInbox:
    """The application reads its inbox now (DIRECT records were held until then)."""


# Streams. Those opened here have odd numbers, those opened by peers even ones.


@dataclass(slots=True)
class OpenStream:
    """Ask a service for a stream; `PartsArrived`, `PartsEnded` and `StreamRoom` answer."""

    stream: int
    record: Record  # target is the service
    lane: int
    ways: Ways
    deadline: float | None = None  # on the node's clock, of all of it
    provider: NodeId | None = None  # nobody else is asked


@dataclass(frozen=True, slots=True)
class CancelStream:
    """Nobody reads or writes a stream opened here any more."""

    stream: int


@dataclass(frozen=True, slots=True)
class BeginStream:
    """The handler of a stream that a peer opened begins."""

    stream: int


@dataclass(frozen=True, slots=True)
class RefuseStream:
    """A stream that a peer opened is not begun: RELEASED or REJECTED."""

    stream: int
    outcome: Outcome
    reason: str = ""


@dataclass(slots=True)
class WritePart:
    """Send a part, of kind STREAM. A writer asks `Engine.stream_room` first."""

    stream: int
    record: Record


@dataclass(frozen=True, slots=True)
class TakeParts:
    """The application took so many parts and bytes: as much more may come.

    Of a body in parts none comes before the first of these, which may be of nothing.
    """

    stream: int
    parts: int
    size: int


@dataclass(frozen=True, slots=True)
class EndParts:
    """All parts were written. A stream that a peer opened is over with it.

    With a fault, and the record that tells of it, that is why there are no more.
    """

    stream: int
    fault: StreamFault | None = None
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class DrainNode:
    """Take no new work, finish what runs; answered by action `Drained`, at `deadline` at last."""

    deadline: float


@dataclass(frozen=True, slots=True)
class TrustChanged:
    """Trust these from now on: others lose their links, and all are judged anew."""

    trust: Trust


@dataclass(frozen=True, slots=True)
class CloseNode:
    """Say BYE to everybody and stop; what is open ends as CLOSED."""


StreamCommand = (
    OpenStream | CancelStream | BeginStream | RefuseStream | WritePart | TakeParts | EndParts
)

Event = (
    PacketsReceived | PathUp | PathDown | InboundClosed | PathFull | PathWritable | ProbeAnswered
    | CandidateFound | CandidateGone | EndpointsChanged | LoopLate | TimerFired | JournalTold
    | Post | PostEach | Publish | PublishMany
    | Call | CallEach | CancelCall | CallLater | ForgetTicket | Reply | ReplyEach
    | SettleDeliveries
    | GatheringCommand | TrustChanged
    | OpenState | CloseState | WriteState | WallClockRead
    | Push | Pull | Unpull
    | RequeueLetter | PurgeLetters
    | Serve | Withdraw | Subscribe | Unsubscribe | OpenInbox | DrainNode | CloseNode
    | StreamCommand | MakeRoom | Remember | RelayedGone | KeepReplays
)  # fmt: skip
