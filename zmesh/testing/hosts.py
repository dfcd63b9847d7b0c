"""A simulated process: it takes its turns on virtual time, falls late, and dies.

What a process is made of (links alone, or a whole node) is for subclasses: `LinkProcess` and
`NodeProcess`. Everything that happens to a process is queued, and handled in its next turn, as the
runner's event loop does it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from random import Random
from typing import Generic, TypeVar

from zmesh.events import LoopLate
from zmesh.ids import Path
from zmesh.testing.clock import EventQueue, HostClock, SeededEntropy
from zmesh.testing.findings import Findings, Rule
from zmesh.testing.network import Network, NetworkEvent
from zmesh.testing.scenario import Scenario
from zmesh.testing.trace import Fact, Trace

P = TypeVar("P")
E = TypeVar("E")

TURN_DELAY = 0.000_05  # seconds between something happening and the loop getting to it
ROUNDING = 1e-6  # seconds that arithmetic on clocks may be off
LATE_MIN = 0.1  # a loop that ran this late tells the core so


def label_of(index: int, incarnation: int) -> str:
    """Return how a life of a host is called: host a, b, c, ..., and which life."""
    return f"{chr(ord('a') + index)}{incarnation}"


@dataclass(slots=True)
class Lives:
    """What is known of the lives of one host."""

    current: int = 0  # its incarnation
    alive: bool = False
    left: bool = False  # some life said goodbye


@dataclass(slots=True)
class Surroundings(Generic[P]):
    """What the processes of one run share."""

    scenario: Scenario
    queue: EventQueue
    network: Network[P]
    trace: Trace
    findings: Findings

    def endpoint(self, index: int) -> str:
        """Return where a host listens: the same in every life."""
        return f"tcp://127.0.0.1:{20_000 + index}"

    def wrong(self, rule: Rule, host: str, text: str) -> None:
        """Note a violation that is seen now."""
        self.findings.add(self.queue.now, rule, host, text)


class Process(ABC, Generic[P, E]):
    """One life of a host: the same host starts again as a new `Process`."""

    def __init__(
        self, around: Surroundings[P], index: int, incarnation: int, clock: HostClock
    ) -> None:
        self._index = index
        self.incarnation = incarnation
        self.label = label_of(index, incarnation)
        self.around = around
        self.queue = around.queue
        self.network = around.network
        self.clock = clock
        self.endpoint = around.endpoint(index)
        seed = around.scenario.seed
        self.entropy = SeededEntropy(f"entropy {seed} {self.label}")
        self.random = Random(f"process {seed} {self.label}")  # noqa: S311  repeatable
        self.alive = True
        self.left = False  # it said goodbye
        self._inbox: list[E | NetworkEvent | tuple[Path, P]] = []
        self._now = clock.read()
        self._turn_due: float | None = None  # when the next turn should be, on the host's clock
        self._blocked_until = 0.0  # on the queue's time
        self._wake_at: float | None = None  # the earliest wake-up on its way
        self.turns = 0

    @property
    def index(self) -> int:
        """Which host this is a life of."""
        return self._index

    @property
    def last_queued(self) -> E | NetworkEvent | tuple[Path, P] | None:
        """What was queued last for the next turn."""
        return self._inbox[-1] if self._inbox else None

    @property
    def has_handled_all(self) -> bool:
        """Whether nothing waits for a turn."""
        return not self._inbox

    # What happens to it

    def deliver(self, event: E | NetworkEvent) -> None:
        """Queue an event for the next turn."""
        self._inbox.append(event)
        if self._turn_due is None:
            self._plan_turn()

    def receive(self, path: Path, packet: P) -> None:
        """Queue a packet for the next turn."""
        self._inbox.append((path, packet))
        if self._turn_due is None:
            self._plan_turn()

    def stall(self, seconds: float) -> None:
        """Block the loop: nothing is handled until it is over, while time goes on."""
        self._blocked_until = max(self._blocked_until, self.queue.now + seconds)

    def suspend(self, seconds: float) -> None:
        """Put the host to sleep, and its clock with it."""
        self.clock.suspend(seconds)
        self.stall(seconds)

    def die(self, *, dark: bool = False) -> None:
        """End at once, with everything in memory."""
        self.alive = False
        self.network.kill(self, dark=dark)

    def note(self, what: str, *facts: Fact) -> None:
        """Add to the trace of the run."""
        self.around.trace.note(self.queue.now, self.label, what, *facts)

    # Its turns

    def wake_up(self) -> None:
        """Have a turn soon, whatever for."""
        if self._turn_due is None:
            self._plan_turn()

    def _plan_turn(self) -> None:
        self._turn_due = self.clock.read() + TURN_DELAY
        self.queue.at(max(self.queue.now + TURN_DELAY, self._blocked_until), self._turn)

    def _turn(self) -> None:
        if not self.alive or self._turn_due is None:
            return
        if self.queue.now < self._blocked_until:
            self.queue.at(self._blocked_until, self._turn)
            return
        # A timer may ring a hair early; the core must never see a time before its own deadline.
        now = max(self.clock.read(), self._now)
        deadline = self._deadline()
        if deadline is not None and 0 < deadline - now < ROUNDING:
            now = deadline
        lag = now - self._turn_due
        self._now, self._turn_due = now, None
        events, self._inbox = self._inbox, []
        self.turns += 1
        self._handle(events, now, LoopLate(lag) if lag > LATE_MIN else None)
        for event in events:
            if type(event) is tuple:
                self.network.consumed(self, event[0])
        self._plan_wake()

    def _plan_wake(self) -> None:
        deadline = self._deadline()
        if deadline is None:
            return
        at = max(self.clock.when(deadline), self.queue.now)
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self.queue.at(at, self._wake, at)

    def _wake(self, planned: float) -> None:
        """Take a turn if the deadline has come: it may have moved since this was planned."""
        if not self.alive or planned != self._wake_at:
            return
        self._wake_at = None
        deadline = self._deadline()
        if deadline is None or self._turn_due is not None:
            return  # the turn that is planned plans the next wake-up
        if self.clock.read() < deadline - ROUNDING:
            self._plan_wake()
        else:
            self._turn_due = deadline
            self._turn()

    # What it is made of

    @abstractmethod
    def start(self) -> None:
        """Come to life: listen, and look for the others."""

    @abstractmethod
    def _handle(
        self, events: list[E | NetworkEvent | tuple[Path, P]], now: float, late: LoopLate | None
    ) -> None:
        """Handle what happened, and the timer if it is due, and perform what follows."""

    @abstractmethod
    def _deadline(self) -> float | None:
        """Return when the next timer is due, on the host's clock."""
