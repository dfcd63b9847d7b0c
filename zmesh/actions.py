"""What the engine orders: the runner performs them in order, and never re-enters the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from zmesh.errors import ZmeshError
from zmesh.events import Source
from zmesh.ids import NodeId, Path
from zmesh.message import FailureKind, Record, Ticket, Ways
from zmesh.storage import Batch, Question, Ranges
from zmesh.storage_errors import StorageError


class PeerState(Enum):
    """The liveness verdict on a peer (DESIGN: failure detection)."""

    JOINING = "joining"
    ALIVE = "alive"
    BUSY = "busy"  # the connection lives, the application is silent
    SUSPECT = "suspect"
    LOST = "lost"
    LEFT = "left"


# Orders to the transport


@dataclass(slots=True)
class SendPackets:
    """Send these packets on this path, each a list of ZeroMQ parts."""

    path: Path
    packets: list[list[bytes | memoryview]]


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect to an endpoint; news of it comes as PathUp and PathDown with this path."""

    path: int
    endpoint: str


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close a path we dialed."""

    path: int


@dataclass(frozen=True, slots=True)
class ShutOut:
    """End the connection of a path that dialed us, and take nothing from it for so long.

    Nor is its key let in meanwhile. No PathDown comes.
    """

    path: bytes
    seconds: float


@dataclass(frozen=True, slots=True)
class Probe:
    """Try a fresh TCP connection; answered by ProbeAnswered."""

    endpoint: str
    timeout: float


# Orders to the journal


@dataclass(frozen=True, slots=True)
class WriteJournal:
    """Write a batch; `JournalTold` answers with `Written` or `Refused`."""

    batch: Batch


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Ask the journal; `JournalTold` answers with `Answered`."""

    ticket: int
    question: Question


# News for the application


@dataclass(slots=True)
class Delivery:
    """Records `first_seq, ...` in order, for one consumer: one object for a whole batch.

    `attempt` and such are in the records' extras. A record of a fragmented body has been put
    together and spans several numbers, so it is alone in its delivery, `last_seq` telling its end.
    """

    source: Source
    sender_name: str
    first_seq: int
    last_seq: int
    records: Sequence[Record]
    signed: dict[int, object] | None = field(default=None, repr=False, compare=False)
    """What was found of signatures, by the index of the record; kept by who verifies them."""


@dataclass(slots=True)
class DeliverInbox:
    """For `node.inbox()`."""

    deliveries: list[Delivery]


@dataclass(slots=True)
class DeliverRequests:
    """For the handler of each record's target."""

    deliveries: list[Delivery]


@dataclass(slots=True)
class DeliverPublications:
    """For subscriptions: each record goes to every token; settled when all have accepted."""

    deliveries: list[tuple[Delivery, list[tuple[int, ...]]]]  # tokens per record


@dataclass(slots=True)
class DeliverGroup:
    """For the readers of a group: the target of all records of a delivery."""

    deliveries: list[Delivery]


@dataclass(slots=True)
class DeliverJobs:
    """For the pulls of the tokens."""

    deliveries: list[tuple[Delivery, int]]


@dataclass(frozen=True, slots=True)
class GiveBackJobs:
    """Give back the jobs of a producer that are not begun: it takes us for lost, or soon will."""

    node: NodeId


@dataclass(frozen=True, slots=True)
class QueueRoomChanged:
    """A queue of jobs that was full has room again."""

    queue: str


@dataclass(slots=True)
class PublicationsMissed:
    """Publishers did not send so many to these subscriptions, which may miss some."""

    counts: list[tuple[int, int]]  # token and count; what it missed came before what is next


@dataclass(slots=True)
class TicketsDone:
    """Every record of these tickets has its outcome."""

    tickets: list[Ticket]


@dataclass(slots=True)
class TicketsStored:
    """What was given with these tickets is on disk, or why it is not: then it is not sent."""

    tickets: list[Ticket]
    error: ZmeshError | None = None


@dataclass(frozen=True, slots=True)
class SenderForgot:
    """These messages of a node do not come again: it has none of them, or its log was read on."""

    node: NodeId
    journal: bytes
    name: str | None  # of the subscription that read it
    below: int  # all numbers below
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Restored:
    """What the journal keeps was read: the node may meet others now, as the one it was."""

    error: ZmeshError | None = None  # why it cannot


@dataclass(slots=True)
class RoomChanged:
    """A peer whose queue was full has room again."""

    node: NodeId


class CallFailure(Enum):
    """Why a call has no reply."""

    NO_PROVIDER = "no_provider"
    REMOTE_ERROR = "remote_error"
    REJECTED = "rejected"
    PEER_LOST = "peer_lost"
    EXHAUSTED = "exhausted"
    DEADLINE = "deadline"
    CLOSED = "closed"
    BROKEN = "broken"  # a stream, in its middle


@dataclass(slots=True)
class CallAnswered:
    """The reply to a call, or why there is none."""

    call: int
    record: Record | None
    failure: CallFailure | None = None
    peer: str = ""
    reason: str = ""


@dataclass(slots=True)
class CallsAnswered:
    """The replies to calls, by one peer."""

    calls: list[int]
    records: list[Record]
    peer: str


class TicketState(StrEnum):
    """How a request stands whose answer may come later."""

    WAITING = "waiting"
    ANSWERED = "answered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LaterStored:
    """A request whose answer may come later is on disk, or why it is not: then it is not made."""

    ticket: str
    error: ZmeshError | None = None


@dataclass(frozen=True, slots=True)
class LaterEnded:
    """Such a request has its answer, which is on disk; or it cannot be kept, in this life."""

    ticket: str
    error: StorageError | None = None


@dataclass(frozen=True, slots=True)
class LaterForgotten:
    """Such a request, and its answer, are gone from the disk, or why they are not."""

    ticket: str
    error: StorageError | None = None


LaterAction = LaterStored | LaterEnded | LaterForgotten


class MemberState(Enum):
    """How a member of a group stands with what is fanned out."""

    PENDING = "pending"  # no outcome yet; in a final report: there was none in time
    ACCEPTED = "accepted"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MemberStanding:
    """A member of a group, and how it stands; never changes, a new one is made."""

    place: int  # in the fan-out: who comes back under another id keeps it
    node: NodeId
    name: str
    state: MemberState
    reason: str  # why it is pending or failed
    failure: FailureKind | None  # of one that failed
    attempts: int


@dataclass(slots=True)
class FanOutChanged:
    """Members joined a fan-out, or stand otherwise than before."""

    fan_out: int
    members: list[MemberStanding]


@dataclass(frozen=True, slots=True)
class FanOutStored:
    """A durable fan-out is on disk, and begins; or why it is not, and does not."""

    fan_out: int
    error: StorageError | None = None


@dataclass(frozen=True, slots=True)
class FanOutRestored:
    """A fan-out of an earlier life goes on; `FanOutChanged` tells how its members stand."""

    fan_out: int
    record: Record


@dataclass(frozen=True, slots=True)
class FanOutEnded:
    """A fan-out is over: all members have their outcome, its deadline came, or the node closed."""

    fan_out: int
    is_closed: bool = False


FanOutAction = FanOutStored | FanOutRestored | FanOutChanged | FanOutEnded


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key of a shared map has another value now, or none."""

    key: str
    encoding: int | None  # None: it was deleted
    value: bytes
    node: NodeId  # who wrote it, or told that it is gone
    is_new: bool  # it was not there before


@dataclass(slots=True)
class StateChanged:
    """Keys of a shared map changed, here or elsewhere; in order."""

    name: str
    changes: list[KeyChange]


@dataclass(frozen=True, slots=True)
class StateReady:
    """The replica has a snapshot of another, or there is none to have."""

    name: str


@dataclass(slots=True)
class SurveyAnswered:
    """One provider's reply to a survey, or why there is none."""

    survey: int
    node: NodeId
    name: str
    record: Record | None  # of a handler that raised as well
    failure: CallFailure | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SurveyEnded:
    """A survey is over; `failure` is NO_PROVIDER or CLOSED where it came to nothing."""

    survey: int
    failure: CallFailure | None = None


@dataclass(slots=True)
class CancelRequest:
    """The caller of this request no longer waits: cancel its handler."""

    source: Source
    first_seq: int


@dataclass(slots=True)
class StreamOffered:
    """A peer opened a stream; `BeginStream` or `RefuseStream` answers.

    Its one record is alone in the delivery. Where nobody reads it any more its handler is told by
    `CancelRequest`; either way it ends with `RefuseStream` or `EndParts`.
    """

    stream: int
    ways: Ways
    delivery: Delivery


@dataclass(slots=True)
class PartsArrived:
    """The next parts of a stream."""

    stream: int
    records: list[Record]


@dataclass(slots=True)
class PartsEnded:
    """No part follows: all have come, or why they will not."""

    stream: int
    failure: CallFailure | None = None
    peer: str = ""
    reason: str = ""
    record: Record | None = None  # of a REMOTE_ERROR


@dataclass(frozen=True, slots=True)
class StreamRoom:
    """A stream whose writer had no credit has some."""

    stream: int


StreamAction = StreamOffered | PartsArrived | PartsEnded | StreamRoom


@dataclass(frozen=True, slots=True)
class PeerView:
    """A peer as it is now; never changes, a new one is made."""

    id: NodeId
    name: str
    state: PeerState
    services: frozenset[str]
    topics: frozenset[str]
    endpoints: tuple[str, ...]
    incarnation: int
    round_trip: float | None
    draining: bool = False  # asked for no new work; it finishes what it has
    groups: frozenset[str] = frozenset()
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict, hash=False)
    is_edge: bool = False  # has links with hubs alone


class PeerChange(Enum):
    """What happened to a peer."""

    JOINED = "joined"
    UPDATED = "updated"  # services, topics, name
    SUSPECTED = "suspected"  # busy or suspect: see its state
    RECOVERED = "recovered"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """A peer joined, changed, or left, with the whole last-known view of it."""

    change: PeerChange
    peer: PeerView
    reason: str = ""


@dataclass(frozen=True, slots=True)
class IdentityClash:
    """Another live node carries our identity (or a newer incarnation fenced us)."""

    endpoint: str
    fenced: bool


class AuditKind(StrEnum):
    """What happened that somebody who guards the mesh should know."""

    WRONG_KEY = "wrong_key"  # a connection's handshake failed: another mesh key, or none
    FLOODED = "flooded"  # more was sent than is allowed, and some of it was not looked at
    NOT_PROVED = "not_proved"  # a proof of identity that does not hold on its connection
    NOT_TRUSTED = "not_trusted"  # a node whose key is not on the list
    REVOKED = "revoked"  # a node that was linked, and is not trusted any more
    FORBIDDEN = "forbidden"  # rules do not allow what a peer tried, or a peer's what we did
    BAD_TRUST = "bad_trust"  # a file of `trust=` that cannot be used: what it said before holds
    BAD_SIGNATURE = "bad_signature"  # of a message
    REPLAYED = "replayed"  # a signed message that came before
    KEYS_CHANGED = "keys_changed"  # this node uses other mesh keys now
    KEYS_UNUSABLE = "keys_unusable"  # a key file changed and is no good: those of before stay
    WRONG_CODE = "wrong_code"  # an attempt at an invitation without knowing its code


@dataclass(frozen=True, slots=True)
class Audited:
    """Something for the audit log. Never with a body or a key."""

    kind: AuditKind
    peer: str = ""  # its name or id, where one is known
    endpoint: str = ""  # of the other end, where one is known
    detail: str = ""  # what was tried, and the likely cause
    rule: str = ""  # that decided


@dataclass(slots=True)
class Drained:
    """The drain ended: what was still open when it did."""

    unsettled_out: int
    unsettled_in: int


@dataclass(slots=True)
class Trace:
    """Something worth a log line or a counter; `observe` decides. Never a body or a key."""

    name: str
    level: int  # as in logging: 10 debug, 20 info, 30 warning, 40 error
    fields: dict[str, object] = field(default_factory=dict)


Action = (
    SendPackets | Dial | HangUp | ShutOut | Probe | WriteJournal | ReadJournal
    | TicketsStored | Restored | SenderForgot
    | DeliverInbox | DeliverRequests | DeliverPublications | PublicationsMissed | TicketsDone
    | RoomChanged
    | DeliverJobs | GiveBackJobs | QueueRoomChanged
    | DeliverGroup | FanOutAction | SurveyAnswered | SurveyEnded
    | StateChanged | StateReady | StreamAction
    | CallAnswered | CallsAnswered | LaterAction | CancelRequest | PeerChanged | IdentityClash
    | Audited
    | Drained | Trace
)  # fmt: skip
