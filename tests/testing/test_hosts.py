from random import Random

from zmesh.events import LoopLate
from zmesh.ids import Path
from zmesh.options import LinkOptions
from zmesh.testing.clock import EventQueue, HostClock
from zmesh.testing.findings import Findings
from zmesh.testing.hosts import Process, Surroundings
from zmesh.testing.network import Network, NetworkEvent
from zmesh.testing.scenario import HostPlan, Scenario
from zmesh.testing.trace import Trace

Inbox = list[str | NetworkEvent | tuple[Path, str]]


class Counter(Process[str, str]):
    """Keeps what its turns were given, and wants one at `wanted`."""

    def __init__(self, *, rate: float = 1.0) -> None:
        queue = EventQueue()
        network: Network[str] = Network(
            queue, Random(1), corrupt=lambda _a, _b, packet, _r: packet
        )
        scenario = Scenario(seed=1, level="link", hosts=(HostPlan(),), link=LinkOptions())
        around = Surroundings(scenario, queue, network, Trace(), Findings())
        super().__init__(around, 0, 1, HostClock(queue, rate, zero=100.0))
        self.turns_taken: list[tuple[float, Inbox, LoopLate | None]] = []
        self.wanted: float | None = None

    def start(self) -> None:
        """Nothing to look for."""

    def _deadline(self) -> float | None:
        return self.wanted

    def _handle(self, events: Inbox, now: float, late: LoopLate | None) -> None:
        self.turns_taken.append((now, events, late))
        if self.wanted is not None and self.wanted <= now:
            self.wanted = None

    def run(self, until: float) -> None:
        while self.queue.next_at is not None and self.queue.next_at <= until:
            self.queue.step()
        self.queue.now = until


def test_what_happens_together_is_handled_together() -> None:
    process = Counter()
    process.deliver("one")
    process.receive(3, "two")
    process.run(1.0)
    assert [events for _, events, _ in process.turns_taken] == [["one", (3, "two")]]
    assert process.has_handled_all


def test_a_deadline_is_kept_to_the_clock_of_the_host() -> None:
    process = Counter(rate=2.0)
    process.wanted = 104.0
    process.deliver("go")
    process.run(10.0)
    assert [round(now, 3) for now, _, _ in process.turns_taken] == [100.0, 104.0]


def test_a_blocked_loop_handles_all_late_and_knows_how_late() -> None:
    process = Counter()
    process.stall(5.0)
    process.deliver("one")
    process.run(3.0)
    assert process.turns_taken == []
    process.deliver("two")
    process.run(6.0)
    ((now, events, late),) = process.turns_taken
    assert events == ["one", "two"]
    assert now == 105.0
    assert late is not None
    assert 4.9 < late.lag <= 5.0


def test_a_suspended_host_does_not_know_that_time_went_by() -> None:
    process = Counter()
    process.suspend(5.0)
    process.deliver("one")
    process.run(6.0)
    ((now, _, late),) = process.turns_taken
    assert now < 100.1
    assert late is None


def test_the_dead_take_no_turns() -> None:
    process = Counter()
    process.deliver("one")
    process.die()
    process.run(1.0)
    assert process.turns_taken == []
