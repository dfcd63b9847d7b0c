"""What a node keeps of a shared map beside its entries: the other replicas, and what is due."""

from dataclasses import dataclass, field

from zmesh.core.peers import InternalTicket, Peer
from zmesh.deadlines import earliest
from zmesh.ids import NodeId
from zmesh.patterns.shared_replica import Replica
from zmesh.patterns.state_pull import Pull


class WallClock:
    """What the wall clock reads, counted on from when it was last read."""

    __slots__ = ("_at", "_read_ms")

    def __init__(self) -> None:
        self._read_ms = 0
        self._at = 0.0

    def on_read(self, wall_ms: int, now: float) -> None:
        """Learn what it reads, in milliseconds since 1970."""
        self._read_ms, self._at = wall_ms, now

    def ms(self, now: float) -> int:
        """Return what it reads now."""
        return self._read_ms + int((now - self._at) * 1000)


class DeltaTicket(InternalTicket):
    """Changes on their way to a peer."""

    __slots__ = ("name", "since")

    def __init__(self, name: str, since: int) -> None:
        super().__init__()
        self.name = name
        self.since = since  # they begin above this stamp


class QuestionTicket(InternalTicket):
    """A question of a pull."""

    __slots__ = ("name", "number")

    def __init__(self, name: str, number: int) -> None:
        super().__init__()
        self.name = name
        self.number = number


class AnswerTicket(InternalTicket):
    """An answer to somebody else's pull."""

    __slots__ = ()


@dataclass(slots=True)
class Member:
    """Another replica, for as long as its session and its interest last."""

    peer: Peer
    told: int  # all written here up to this stamp was sent to it
    due: float | None  # when to pull from it
    in_flight: DeltaTicket | None = None
    held_until: float | None = None  # it gave changes back: it is left alone for a while
    rest_until: float = 0.0  # it was pulled from just before
    tried: bool = False  # it was pulled from, with whatever result
    run: tuple[bytes, int, int] | None = None  # origin, since, until: ahead of what was seen


@dataclass(slots=True)
class Shared:
    """A map and what surrounds it."""

    replica: Replica
    next_look: float  # when to compare with another, and to forget old deletions
    members: dict[NodeId, Member] = field(default_factory=dict)
    pull: Pull | None = None
    pull_until: float = 0.0
    looked_at: int = 0  # members compared with in their turn
    quick_looks: int = 0  # that come soon: a writer left, and may have told only some
    is_whole: bool = False  # it has a snapshot, or nobody has more
    adopt_at: float | None = None  # what is stamped too far ahead, if its writer did not
    grace_until: float | None = None  # until then others may still tell that they share it

    @property
    def deadline(self) -> float | None:
        """When there is something to do."""
        waiting = [member.held_until for member in self.members.values()]
        waiting += (self.grace_until, self.adopt_at)
        if self.pull is not None:
            return earliest(self.next_look, self.pull_until, *waiting)
        due = [
            max(member.due, member.rest_until)
            for member in self.members.values()
            if member.due is not None
        ]
        return earliest(self.next_look, *waiting, *due)
