"""Every frame of the link protocol, version 1.

A *packet* is one ZeroMQ message: the link it belongs to, its own number, and frames. Frames in a
packet travel and are acknowledged together; a retransmission is a new packet with a new number,
so a round trip is never ambiguous (RFC 9002 section 3). `docs/protocol.md` has the bytes.

Nobody changes a frame. Those of nearly every packet are not frozen, as making one would take four
times as long.
"""

from dataclasses import dataclass
from enum import IntEnum

from zmesh.ids import JournalId, LinkId, MeshTag, NodeId, SessionId
from zmesh.message import Outcome, Record

VERSION = 1

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of sequence numbers, ascending, disjoint and not adjacent."""


class FrameType(IntEnum):
    """The first element of a frame on the wire."""

    WHO = 1
    IAM = 2
    HELLO = 3
    WELCOME = 4
    DATA = 5
    ACK = 6
    PING = 7
    PONG = 8
    BYE = 9
    FENCED = 10
    ERROR = 11


class ControlType(IntEnum):
    """The first element of a record on the control lane."""

    SETTLE = 1
    GAP = 2
    INTEREST = 3
    DRAIN = 4
    REFUSED = 5


class ErrorCode(IntEnum):
    """Why a packet was refused, in an ERROR frame."""

    UNSUPPORTED_VERSION = 1
    UNKNOWN_FRAME = 2
    MALFORMED = 3
    WRONG_MESH = 4
    WRONG_NODE = 5  # HELLO was meant for another node
    UNKNOWN_LINK = 6  # the link was given up here; say HELLO again
    OVER_CREDIT = 7
    DUPLICATE_IDENTITY = 8
    NOT_PROVED = 9  # HELLO whose proof does not hold on its connection
    NOT_TRUSTED = 10  # the sender's key is not one of those that get a link


class ByeCode(IntEnum):
    """Why a peer leaves."""

    CLOSED = 0
    DRAINED = 1
    REFUSED = 2


@dataclass(frozen=True, slots=True)
class PeerHint:
    """A node somebody knows of: never proof, only where to ask."""

    node: NodeId
    name: str
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Who:
    """Ask who answers on this path. Sent outside any link."""

    mesh: MeshTag
    node: NodeId


@dataclass(frozen=True, slots=True)
class Iam:
    """Answer to WHO: identity, and the peers known here (a seed's gift).

    `key` is the node's public key and `proof` its signature of the claim (`security.proof`), here
    and in what follows; both are empty where the mesh has no CURVE. An edge has links with nodes
    that are none (hubs) alone.
    """

    mesh: MeshTag
    node: NodeId
    name: str
    incarnation: int
    endpoints: tuple[str, ...]
    known: tuple[PeerHint, ...]
    key: bytes = b""
    proof: bytes = b""
    is_edge: bool = False


@dataclass(frozen=True, slots=True)
class LaneState:
    """What one side holds of one lane when a link starts.

    `next_seq` is the next number this side will send; `received_*` is what it has of the other
    side's numbers; `seq_limit` and `bytes_limit` are the absolute credit it grants.
    """

    lane: int
    next_seq: int
    received_cum: int
    received_ranges: Ranges
    seq_limit: int
    bytes_limit: int


@dataclass(frozen=True, slots=True)
class Hello:
    """Ask for a link; the packet's link id is the one proposed.

    `attempt` counts HELLOs of this incarnation to this peer, so a late copy is known as such.
    `resume` is the session to go on with (None where there is none), `fresh` the id of the
    session to start if the peer cannot. `decompresses` are the algorithms by which bodies sent to
    the sender may be compressed, ascending.
    """

    mesh: MeshTag
    node: NodeId
    to: NodeId
    name: str
    incarnation: int
    journal: JournalId
    attempt: int
    resume: SessionId | None
    fresh: SessionId
    endpoints: tuple[str, ...]
    lanes: tuple[LaneState, ...]
    decompresses: tuple[int, ...] = ()
    key: bytes = b""
    proof: bytes = b""
    is_edge: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """Grant a link: `session` is the one both sides are in from now on.

    `attempt` is that of the HELLO it answers; `calls` is the last attempt the sender of the
    WELCOME made itself: a HELLO of it that is still on the way is void. `decompresses` is as in
    HELLO.
    """

    node: NodeId
    name: str
    incarnation: int
    journal: JournalId
    attempt: int
    calls: int
    session: SessionId
    endpoints: tuple[str, ...]
    lanes: tuple[LaneState, ...]
    decompresses: tuple[int, ...] = ()
    key: bytes = b""
    proof: bytes = b""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What another process with the addressed node's key said in HELLO or WELCOME, and its proof.

    So who is told of a clone need not believe it: it can see its own signature under what it never
    said. What is not here of the claim (`security.proof`), both ends know.
    """

    role: int
    incarnation: int
    journal: JournalId
    to_incarnation: int
    connection: bytes
    link: LinkId
    attempt: int
    proof: bytes


@dataclass(slots=True)
class Settle:
    """Control record: outcomes of messages of one lane.

    `outcomes` are `(outcome, first, last)`; `details` are `(seq, reason, delay_ms)` for those
    that have something to say.
    """

    lane: int
    outcomes: tuple[tuple[Outcome, int, int], ...]
    details: tuple[tuple[int, str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Gap:
    """Control record: these numbers will not come (any more).

    `ranges` are `(first, last, bytes)`, `bytes` being what was counted against credit for them.
    """

    lane: int
    ranges: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Interest:
    """Control record: services provided and topic patterns subscribed, as a change.

    Entries are `("service", name)` or `("topic", pattern)`.
    """

    added: tuple[tuple[str, str], ...]
    removed: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Control record: no new work please; what was sent is being finished."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Control record: interests of the receiver that rules of the sender do not allow.

    Entries are `(kind, text, reason)`: the sender acts as if it had not been told of these.
    """

    entries: tuple[tuple[str, str, str], ...]


ControlNews = Interest | Drain | Refused
"""Control records that are not the link's own."""

Control = Settle | Gap | ControlNews


@dataclass(slots=True)
class Data:
    """Records of one lane with numbers `first_seq`, `first_seq + 1`, ..."""

    lane: int
    first_seq: int
    records: tuple[Record, ...]


@dataclass(slots=True)
class ControlData:
    """Records of the control lane, numbered the same way."""

    first_seq: int
    records: tuple[Control, ...]


@dataclass(slots=True)
class Ack:
    """What has been received, and how much more may come.

    `largest` is the highest packet number seen, `delay_us` how long it waited here. `lanes` are
    `(lane, cumulative, ranges above)`; `credit` are `(lane, seq_limit, bytes_limit)`, absolute.
    """

    largest: int
    delay_us: int
    lanes: tuple[tuple[int, int, Ranges], ...]
    credit: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a sign of life; answered at once by PONG and a full ACK."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to PING."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The peer leaves. A hint: correctness never needs it."""

    code: ByeCode
    text: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """A newer incarnation of the addressed node is known here; the older one must stop."""

    incarnation: int
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """The packet was refused and had no effect. Evidence is of DUPLICATE_IDENTITY."""

    code: ErrorCode
    text: str
    evidence: Evidence | None = None


Frame = Who | Iam | Hello | Welcome | Data | ControlData | Ack | Ping | Pong | Bye | Fenced | Error


@dataclass(slots=True)
class Packet:
    """One ZeroMQ message: frames of one link, numbered together."""

    link: LinkId
    number: int
    frames: tuple[Frame, ...]
