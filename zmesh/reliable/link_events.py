"""What a link tells the engine, in order, after each call: see `Link.take_events`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from zmesh.ids import SessionId
from zmesh.message import Outcome, Record, Ticket
from zmesh.wire.frames import ByeCode, ControlNews


class Liveness(Enum):
    """The verdict on the peer (DESIGN: failure detection)."""

    JOINING = "joining"
    ALIVE = "alive"
    BUSY = "busy"
    SUSPECT = "suspect"
    LOST = "lost"
    LEFT = "left"


class SessionEnd(Enum):
    """Why a session ended."""

    PEER_RESTARTED = "restarted"  # a higher incarnation, or another journal
    PEER_FORGOT = "forgot"  # same incarnation without its memory of us
    LINGER_OVER = "lost"  # the peer stayed away for `session_linger`
    PEER_LEFT = "left"  # BYE
    CLOSED = "closed"  # by us
    REVOKED = "its key is not trusted any more"  # the same, of this one peer


@dataclass(frozen=True, slots=True)
class Opened:
    """The link carries traffic. With `resumed`, the session goes on; else it is new and empty."""

    session: SessionId
    resumed: bool
    name: str
    incarnation: int
    endpoints: tuple[str, ...]
    decompresses: tuple[int, ...] = ()  # ways in which bodies for the peer may be compressed
    journal: bytes = b""  # of the peer


@dataclass(slots=True)
class Arrived:
    """Records of one lane, in order, each exactly once in a session.

    A record put together from fragments is alone in its event and spans `first_seq..last_seq`.
    """

    lane: int
    first_seq: int
    last_seq: int
    records: Sequence[Record]


@dataclass(slots=True)
class ControlArrived:
    """Control records for the engine (settlements and gaps stay inside the link)."""

    records: list[ControlNews]


@dataclass(slots=True)
class Accepted:
    """Tickets whose `accepted` count rose; some may be done now."""

    tickets: list[Ticket]


@dataclass(slots=True)
class Returned:
    """A record that ended otherwise than accepted: its pattern decides what is next.

    `transmitted` is False where it never left this process, so sending it elsewhere is safe.
    """

    record: Record
    ticket: Ticket
    lane: int
    outcome: Outcome
    reason: str
    delay: float
    transmitted: bool


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over; `Returned` events for all that was un-settled come right after."""

    session: SessionId
    reason: SessionEnd


@dataclass(frozen=True, slots=True)
class LivenessChanged:
    """The verdict changed."""

    old: Liveness
    new: Liveness
    why: str
    is_gone: bool = False  # its process is no more, rather than out of reach


@dataclass(frozen=True, slots=True)
class ProbeWanted:
    """The link wants to know whether the peer's process still listens."""

    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PathWanted:
    """The link has no path: dial the peer's endpoints now."""


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """The peer said BYE."""

    code: ByeCode
    text: str


@dataclass(frozen=True, slots=True)
class Clash:
    """The peer knows another node with our identity: of our incarnation, or (fenced) a newer."""

    fenced: bool


@dataclass(frozen=True, slots=True)
class Room:
    """The queue was full to somebody who asked for its room, and has some again."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A rule was broken, or the network did what a healthy one does not: counted."""

    kind: str
    detail: str


LinkEvent = (
    Opened | Arrived | ControlArrived | Accepted | Returned | SessionEnded | LivenessChanged
    | ProbeWanted | PathWanted | LeftBehind | Clash | Room | Defect
)  # fmt: skip
