"""One candidate's dials: addresses in parallel, rounds with back-off, and whose turn it is.

`Membership` drives these; nothing here knows of the table or of identities.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import Final

from zmesh.discovery.candidates import MDNS, Candidate
from zmesh.events import PathCause
from zmesh.ids import Entropy
from zmesh.options import NodeOptions


class Phase(Enum):
    """What is being done about a candidate."""

    RESTING = "resting"  # until `due`
    DIALING = "dialing"  # a round is under way
    GREETED = "greeted"  # one path answered with the right id; the link is being made on it
    LINKED = "linked"


@dataclass(slots=True)
class Attempt:
    """A path we dialed: where to, and until when it has to show the next sign."""

    endpoint: str
    deadline: float  # infinite once a link watches over the path


@dataclass(slots=True, eq=False)
class Pursuit:
    """The dials of one candidate.

    A round tries every endpoint once, each a stagger after the one before (RFC 8305 section 5) or
    as soon as that one failed, so that a black-holed address delays nobody.
    """

    candidate: Candidate
    phase: Phase = Phase.RESTING
    due: float | None = None  # when the next round begins; None: when something changes
    began: float = -inf  # when the latest round did
    untried: deque[str] = field(default_factory=deque)  # what is left of this round
    next_dial: float = 0.0
    attempts: dict[int, Attempt] = field(default_factory=dict)  # path -> attempt
    winner: int | None = None  # the path that answered with the right id
    queued: bool = False  # waits for a free dial
    was_asked: bool = False  # it dialed us before we dialed it, and was waited for
    slow: bool = False  # the answer was wrong, not missing: hurry cannot help
    forget_at: float | None = None
    causes: dict[str, PathCause] = field(default_factory=dict)  # endpoint -> latest failure
    locked_out: set[str] = field(default_factory=set)  # where the latest dial had a wrong key

    def begin(self, endpoints: Iterable[str], now: float) -> None:
        """Start a round."""
        self.phase = Phase.DIALING
        self.due = None
        self.began = self.next_dial = now
        self.slow = False
        self.causes.clear()
        self.untried = deque(endpoints)

    def extend(self, endpoints: Iterable[str]) -> None:
        """Add what was learned while the round is under way."""
        busy = {attempt.endpoint for attempt in self.attempts.values()}
        seen = busy.union(self.untried, self.causes)
        self.untried.extend(endpoint for endpoint in endpoints if endpoint not in seen)

    @property
    def is_fresh(self) -> bool:
        """Whether nobody was ever dialed here, nor met otherwise: the first round is planned."""
        return self.began == -inf and not self.candidate.proven

    @property
    def is_over(self) -> bool:
        """Whether every endpoint of this round was tried in vain."""
        return self.phase is Phase.DIALING and not self.untried and not self.attempts

    def fail(self, endpoint: str, cause: PathCause) -> None:
        """Take note why the latest dial of an endpoint failed."""
        self.causes[endpoint] = cause
        if cause is PathCause.WRONG_KEY:
            self.locked_out.add(endpoint)
        else:
            self.locked_out.discard(endpoint)

    def rest(self, due: float | None) -> None:
        """Do nothing until `due`."""
        self.phase = Phase.RESTING
        self.due = due
        self.untried.clear()
        self.winner = None
        self.candidate.linked = False

    def next_wake(self) -> float | None:
        """Return when something has to be done, as far as this candidate goes."""
        times = [each.deadline for each in self.attempts.values() if each.deadline < inf]
        if self.phase is Phase.DIALING and self.untried and not self.queued:
            times.append(self.next_dial)
        if self.phase is Phase.RESTING:
            times += [time for time in (self.due, self.forget_at) if time is not None]
        return min(times, default=None)


def backoff(failures: int, options: NodeOptions, entropy: Entropy) -> float:
    """Return how long to wait after so many rounds failed: doubling, full jitter, capped.

    Full jitter, because a whole mesh may lose the same peer in the same instant.
    """
    ceiling = options.reconnect_min * 2.0 ** min(failures - 1, 30)
    return entropy.uniform(0.0, min(options.reconnect_max, ceiling))


def slow_backoff(options: NodeOptions, entropy: Entropy) -> float:
    """Return how long to wait where haste is useless: the peer left, or somebody else answers."""
    return entropy.uniform(options.reconnect_max / 2, options.reconnect_max)


class DialQueue:
    """Who waits for a free dial, served in turns so that no kind of candidate starves another.

    The kinds are: what the operator wrote down, who proved itself before, strangers from mDNS,
    strangers others told of, and strangers that failed before. Strangers have to wait for their
    share of a second as well: a dial costs some milliseconds, whoever made up whom it is to.
    """

    def __init__(self, options: NodeOptions) -> None:
        self._kinds: tuple[dict[int, Pursuit], ...] = ({}, {}, {}, {}, {})
        self._turn = 0
        # The leaky bucket of ITU-T I.371 (GCRA), which needs one number and no refilling.
        self._step = 1.0 / options.dials_per_second
        self._tolerance = (options.dials_burst - 1) * self._step
        self._busy_until = -inf

    def __len__(self) -> int:
        return sum(map(len, self._kinds))

    def add(self, pursuit: Pursuit) -> None:
        """Have it wait, at the end of its kind, if it does not wait already."""
        if not pursuit.queued:
            pursuit.queued = True
            self._kinds[_kind(pursuit.candidate)][pursuit.candidate.serial] = pursuit

    def discard(self, pursuit: Pursuit) -> None:
        """Have it wait no longer."""
        pursuit.queued = False
        for kind in self._kinds:
            kind.pop(pursuit.candidate.serial, None)

    def pop(self, now: float) -> Pursuit | None:
        """Return whose turn it is, which waits no longer; None: see `due`."""
        kinds = len(self._kinds) if self._free_at <= now else _KNOWN
        for turn in range(self._turn, self._turn + len(self._kinds)):
            number = turn % len(self._kinds)
            kind = self._kinds[number]
            if kind and number < kinds:
                self._turn = number + 1
                if number >= _KNOWN:
                    self._busy_until = max(self._busy_until, now) + self._step
                pursuit = kind.pop(next(iter(kind)))
                pursuit.queued = False
                return pursuit
        return None

    @property
    def due(self) -> float | None:
        """When the next may be dialed, in seconds; None where nobody waits."""
        if any(self._kinds[:_KNOWN]):
            return -inf
        return self._free_at if any(self._kinds) else None

    @property
    def _free_at(self) -> float:
        """When a stranger may be dialed."""
        return self._busy_until - self._tolerance


_KNOWN: Final = 2
"""Kinds that are no strangers."""


def _kind(candidate: Candidate) -> int:
    if candidate.is_pinned:
        return 0
    if candidate.proven:
        return 1
    if candidate.failures:
        return 4
    return 2 if MDNS in candidate.vouched else 3
