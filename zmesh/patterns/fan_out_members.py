"""A fan-out under way, and how its members stand."""

from dataclasses import dataclass, field

from zmesh.actions import MemberStanding, MemberState
from zmesh.core.peers import InternalTicket
from zmesh.ids import NodeId
from zmesh.message import FailureKind, Record
from zmesh.storage import FailedAttempt


@dataclass(slots=True, eq=False)
class Member:
    """A member of the group, and how it stands."""

    place: int
    node: NodeId
    name: str
    state: MemberState = MemberState.PENDING
    reason: str = ""
    failure: FailureKind | None = None
    attempts: int = 1
    failed: tuple[FailedAttempt, ...] = ()  # of these
    ticket: "FanOutTicket | None" = None  # of what it has, or is on its way to it
    outcome: MemberState | None = None  # that is on its way to the disk, and not told yet

    @property
    def is_open(self) -> bool:
        """Whether it is still to accept the message."""
        return self.state is MemberState.PENDING and self.outcome is None

    def standing(self) -> MemberStanding:
        """Return how it stands, as it is told."""
        return MemberStanding(
            self.place, self.node, self.name, self.state, self.reason, self.failure, self.attempts
        )


@dataclass(slots=True, eq=False)
class Running:
    """A fan-out under way."""

    number: int
    record: Record
    lane: int
    expires: float | None
    include_late: bool
    members: dict[int, Member] = field(default_factory=dict)  # by place
    by_node: dict[NodeId, Member] = field(default_factory=dict)
    open: int = 0  # members without outcome
    stored: int = 0  # its number in the journal, where it is there
    deadline_ms: int = 0  # by the wall clock, of one that is
    expires_ms: int = 0

    @property
    def group(self) -> str:
        """The group it is for."""
        return self.record[1]

    def add(self, node: NodeId, name: str, place: int | None = None) -> Member:
        """Add a member, at the next place or one it had before."""
        if place is None:
            place = next(reversed(self.members), -1) + 1
        member = self.members[place] = Member(place, node, name)
        self.by_node[node] = member
        self.open += 1
        return member


class FanOutTicket(InternalTicket):
    """The ticket of one attempt at one member."""

    __slots__ = ("member", "running")

    def __init__(self, running: Running, member: Member) -> None:
        super().__init__()
        self.running = running
        self.member = member
