"""A run: hosts that live through a scenario, and the verdict on it.

What a host is made of is for subclasses (`LinkWorld`, `NodeWorld`); here are time, faults, lives
and deaths, and when a run is over.
"""

import traceback
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, TypeVar

from zmesh.testing.clock import EventQueue, HostClock
from zmesh.testing.faults import strike
from zmesh.testing.findings import Findings, Rule, Violation
from zmesh.testing.hosts import Lives, Process, Surroundings
from zmesh.testing.network import Network, Weather
from zmesh.testing.scenario import Fault, Level, Scenario
from zmesh.testing.trace import Trace

P = TypeVar("P")

STEPS_MAX = 60_000  # a run that needs more never comes to rest: they take 5,000 at most
LOOK_EVERY = 0.25  # virtual seconds between looks whether all is settled
REST = 1.0  # virtual seconds that it must stay settled


@dataclass(frozen=True, slots=True)
class Report:
    """What came of one seed."""

    level: Level
    seed: int
    steps: int
    messages: int
    faults: int
    seconds: float  # virtual
    digest: str
    lost: int
    duplicated: int
    misordered: int
    violations: int
    first: tuple[Violation, ...] = ()
    lines: tuple[str, ...] = field(default=(), repr=False)


class World(ABC, Generic[P]):
    """Hosts, their network, and what happens to them."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self.scenario = scenario
        self.trace = trace
        self.queue = EventQueue()
        self.findings = Findings()
        self.random = Random(f"world {scenario.seed}")  # noqa: S311  repeatable is the point
        self.network: Network[P] = Network(
            self.queue,
            Random(f"network {scenario.seed}"),  # noqa: S311
            corrupt=self.corrupted,
            unread_max=scenario.unread_max,
        )
        self.network.calm = Weather(delay=scenario.delay, jitter=scenario.jitter)
        self.network.on_sent = self.on_sent
        self.around = Surroundings(scenario, self.queue, self.network, trace, self.findings)
        self.lives = [Lives() for _ in scenario.hosts]
        self.processes: list[Process[P, Any] | None] = [None] * len(scenario.hosts)
        self._severed: set[tuple[int, int]] = set()
        self.steps = 0
        self.struck = 0  # faults so far

    # The run

    def run(self) -> Report:
        """Live through the scenario, until all is settled or the time is up."""
        self._schedule()
        try:
            settled = self._advance()
            self.finish(settled=settled)
        except Exception:  # noqa: BLE001  whatever leaves the core is a finding of its own
            text = traceback.format_exc(limit=-4)
            self.findings.add(self.queue.now, Rule.CRASHED, "-", text)
        return self._report()

    def _schedule(self) -> None:
        scenario, queue = self.scenario, self.queue
        for index, plan in enumerate(scenario.hosts):
            if plan.shielded:
                self.network.shield(index)
            queue.at(plan.starts_at, self.boot, index)
        for submission in scenario.submissions:
            queue.at(submission.at, self.submit, submission)
        for fault in scenario.faults:
            queue.at(fault.at, self._strike, fault)

    def _advance(self) -> bool:
        """Take steps until everything has been settled for a while; False where it never is."""
        queue, step = self.queue, self.queue.step
        look_at = rest_until = self.scenario.quiet_from
        limit = look_at + self.scenario.settle_within
        at_rest = False
        while self.steps < STEPS_MAX:
            self.steps += 1
            if not step():
                return self.settled()
            if queue.now < look_at:
                continue
            look_at = queue.now + LOOK_EVERY
            if self.busy():
                limit = queue.now + self.scenario.settle_within
            if not self.settled():
                at_rest = False
            elif not at_rest:
                at_rest, rest_until = True, queue.now + REST
            elif queue.now >= rest_until:
                return True
            if queue.now > limit:
                return False
        text = f"after {STEPS_MAX} steps there is still no rest"
        self.findings.add(queue.now, Rule.FLOOD, "-", text)
        return False

    def _report(self) -> Report:
        counts = self.findings.counts
        return Report(
            level=self.scenario.level,
            seed=self.scenario.seed,
            steps=self.steps,
            messages=self.messages(),
            faults=self.struck + self.network.struck,
            seconds=self.queue.now,
            digest=self.trace.digest(),
            lost=counts[Rule.LOST],
            duplicated=counts[Rule.DUPLICATED],
            misordered=counts[Rule.MISORDERED],
            violations=len(self.findings),
            first=tuple(self.findings.first),
            lines=tuple(self.trace.lines),
        )

    # Lives and deaths

    def boot(self, index: int) -> None:
        """Begin the next life of a host."""
        life = self.lives[index]
        life.current += 1
        life.alive = True
        plan = self.scenario.hosts[index]
        clock = HostClock(self.queue, plan.clock_rate, plan.clock_zero)
        self.network.power(index)
        process = self.processes[index] = self.make_process(index, life.current, clock)
        self.note(process.label, "boots")
        process.start()

    def kill(self, index: int, *, dark: bool = False) -> None:
        """End a life, if there is one."""
        process = self.processes[index]
        if process is None:
            return
        self.note(process.label, "dies")
        self.processes[index] = None
        self.lives[index].alive = False
        process.die(dark=dark)
        self.on_death(process.label)

    def _strike(self, fault: Fault) -> None:
        self.struck += 1
        self.note("-", "fault", fault.kind.value, fault.host, fault.other, fault.seconds)
        strike(self, fault)

    def sever(self, host: int, other: int) -> None:
        """Note that from now on these two may lose each other for a good reason."""
        self._severed |= {(host, other), (other, host)}

    def may_be_lost(self, host: int, other: int) -> bool:
        """Return whether something happened that can part these two.

        A shielded host cannot be probed, so its silence alone has to do.
        """
        hosts = self.scenario.hosts
        return (host, other) in self._severed or hosts[other].shielded

    def note(self, host: str, what: str, *facts: float | str) -> None:
        """Add to the trace."""
        self.trace.note(self.queue.now, host, what, *facts)

    def haunt(self, host: int, severity: float) -> None:
        """Let a host hear of a node that is not there; hosts of links alone hear of nobody."""

    def intrude(self, host: int) -> None:
        """Let a stranger send rubbish to a host; hosts of links alone have no door for it."""

    def attack(self, host: int, other: int) -> None:
        """Let a member turn on a host in the name of another; on links alone there is none."""

    def doom(self, fault: Fault) -> None:
        """Let a host die at its disk; hosts without a disk do not."""

    def fill(self, fault: Fault) -> None:
        """Fill the disk of a host; hosts without a disk have none to fill."""

    # What hosts are made of

    @abstractmethod
    def make_process(self, index: int, incarnation: int, clock: HostClock) -> Process[P, Any]:
        """Make a life of a host; `start` is called next."""

    @abstractmethod
    def submit(self, submission: Any) -> None:
        """Let the application of the submission's source send it, if it lives."""

    @abstractmethod
    def on_sent(self, source: int, target: int, packet: P) -> None:
        """Look at a packet as it leaves a host."""

    @abstractmethod
    def corrupted(self, source: int, target: int, packet: P, random: Random) -> P:
        """Return the packet with damage to a body that a digest protects, or as it is."""

    @abstractmethod
    def echo(self, host: int, other: int) -> None:
        """Let a copy of an old handshake of `host` reach `other` now."""

    @abstractmethod
    def slow(self, host: int, seconds: float, each: float) -> None:
        """Let the handlers of a host take `each` seconds, for a while."""

    @abstractmethod
    def leave(self, host: int) -> float:
        """Let a host say goodbye; return how many seconds that takes."""

    @abstractmethod
    def busy(self) -> bool:
        """Whether handlers still run."""

    @abstractmethod
    def settled(self) -> bool:
        """Whether everything sent has its end, and all live hosts see each other."""

    @abstractmethod
    def finish(self, *, settled: bool) -> None:
        """Check what must hold in the end."""

    @abstractmethod
    def on_death(self, label: str) -> None:
        """Note that a process died."""

    @abstractmethod
    def messages(self) -> int:
        """Return how many messages were sent."""
