"""What a seed stands for: the hosts, what they send each other, and what goes wrong when."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

from zmesh.message import Outcome
from zmesh.options import LinkOptions

Level = Literal["link", "node", "durable"]
"""What hosts are made of: links alone, whole nodes, or whole nodes most of which have a disk."""


class FaultKind(Enum):
    """What can go wrong. `host` and `other` are struck; most end after `seconds`."""

    WEATHER = "weather"  # loss, duplication and reordering from host to other
    LAG = "lag"  # delay from host to other rises
    CORRUPTION = "corruption"  # bits of large bodies flip from host to other
    ONE_WAY = "one_way"  # nothing passes from host to other
    PARTITION = "partition"  # nothing passes between host and other
    ISOLATION = "isolation"  # nothing passes between host and anybody
    BLACK_HOLE = "black_hole"  # the connections between host and other swallow everything
    RESET = "reset"  # the connections between host and other end
    CRASH = "crash"  # the process dies with its memory; a new one starts after `seconds`
    POWER_LOSS = "power_loss"  # the same, and nobody is told
    LEAVE = "leave"  # the process says goodbye and ends; a new one starts after `seconds`
    STALL = "stall"  # the host's loop is blocked
    SUSPEND = "suspend"  # the host sleeps, and its clock with it
    SLOW = "slow"  # the host's handlers take long
    ECHO = "echo"  # a copy of an old handshake arrives late, on a newer connection
    GHOST = "ghost"  # the host hears of a node that is not there (whole nodes)
    STRANGER = "stranger"  # somebody connects to the host and sends rubbish (whole nodes)
    DISK_DEATH = "disk_death"  # the process dies at one of its next commits or reads (disks)
    DISK_FULL = "disk_full"  # others have filled the host's disk (disks)
    ATTACK = "attack"  # a member turns on the host in the name of other (nodes that prove)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, at virtual second `at`."""

    at: float
    kind: FaultKind
    host: int
    other: int
    seconds: float
    severity: float = 0.0  # 0 to 1, what it means depends on the kind

    @property
    def is_of_one(self) -> bool:
        """Whether it strikes `host` alone, and with it everything between it and the others."""
        return self.kind in _OF_ONE

    def strikes(self, one: int, other: int) -> bool:
        """Return whether anything between two hosts is touched; by an attack nothing may be."""
        if self.kind is FaultKind.ATTACK:
            return False
        if self.is_of_one:
            return self.host in (one, other)
        return {self.host, self.other} == {one, other}


_OF_ONE = frozenset(
    (
        FaultKind.ISOLATION, FaultKind.CRASH, FaultKind.POWER_LOSS, FaultKind.LEAVE,
        FaultKind.STALL, FaultKind.SUSPEND, FaultKind.SLOW, FaultKind.GHOST, FaultKind.STRANGER,
        FaultKind.DISK_DEATH, FaultKind.DISK_FULL,
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Submission:
    """Messages one host sends in one call."""

    at: float
    source: int
    target: int
    lane: int
    sizes: tuple[int, ...]
    key: str | None = None
    ttl: float | None = None
    withdraw_after: float | None = None  # the caller gives up waiting
    kind: Literal["direct", "call", "publish"] = "direct"
    name: str = ""  # of the service or the topic
    timeout: float | None = None  # of a call, as what follows
    prefer: int | None = None  # a host
    hedge_after: float | None = None
    retries: int = 0
    durable: bool = False  # stored first, where the source has a disk
    by_name: bool = False  # of a durable one, instead of by id


@dataclass(frozen=True, slots=True)
class Consumer:
    """How a host's application handles what it is given."""

    concurrency: int = 1
    seconds: float = 0.0  # a handler takes, about
    long_share: float = 0.0  # of handlers that take much longer
    long_seconds: float = 20.0
    outcomes: tuple[tuple[Outcome, float], ...] = ()  # other than accepted, with their shares


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host of a scenario."""

    starts_at: float = 0.0
    clock_rate: float = 1.0
    clock_zero: float = 0.0
    shielded: bool = False  # nobody can dial it
    consumer: Consumer = Consumer()
    fresh_identity: bool = False  # each life has another node id (whole nodes)
    reads_at: float = 0.0  # seconds until the application reads its inbox (whole nodes)
    services: tuple[str, ...] = ()  # whole nodes
    topics: tuple[str, ...] = ()  # patterns (whole nodes)
    followed: tuple[str, ...] = ()  # patterns of subscriptions with a name (disks)
    has_disk: bool = False  # and a node that keeps a journal there
    disk_bytes: int | None = None  # how large it is; None: large enough


@dataclass(frozen=True, slots=True)
class InterestChange:
    """A service or a subscription of a host comes or goes."""

    at: float
    host: int
    kind: Literal["service", "topic"]
    name: str
    added: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that is decided before a run begins."""

    seed: int
    level: Level
    hosts: tuple[HostPlan, ...]
    link: LinkOptions
    delay: float = 0.000_2  # between any two hosts, at least
    jitter: float = 0.000_3
    unread_max: int = 1000  # packets a connection holds before it is full
    submissions: tuple[Submission, ...] = ()
    faults: tuple[Fault, ...] = ()
    active: float = 5.0  # seconds in which things are sent and go wrong
    settle_within: float = 60.0  # once nothing goes wrong and no handler runs any more
    changes: tuple[InterestChange, ...] = ()  # whole nodes
    attempts_max: int = 20  # whole nodes
    discovery: Literal["mdns", "static"] = "mdns"  # whole nodes
    log_count: int | None = None  # publications that logs keep, if not as ever
    box_window: int | None = None  # durable messages on their way to one addressee, if not as ever

    secured: bool = False  # who says something proves who it is (whole nodes)

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong at all. Attacks are not to make a difference."""
        return all(fault.kind is FaultKind.ATTACK for fault in self.faults)

    @property
    def is_attacked(self) -> bool:
        """Whether a member means harm."""
        return any(fault.kind is FaultKind.ATTACK for fault in self.faults)

    @property
    def quiet_from(self) -> float:
        """From when on nothing is sent and nothing goes wrong any more."""
        ends = [self.active, *(fault.at + fault.seconds for fault in self.faults)]
        ends += [submission.at for submission in self.submissions]
        ends += [change.at for change in self.changes]
        return max(ends)
