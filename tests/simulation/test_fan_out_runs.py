"""Fan-outs in seeded runs with loss, partitions, crashes and restarts: the report is true.

Every fan-out is held against what its members' applications did. A patient one lasts until
everything has healed, so its report says of every member exactly what that one decided; a hasty
one may miss what came late, and never says anything else.
"""

from dataclasses import dataclass, field
from random import Random

import pytest

from tests.engines import Host, World
from tests.patterns.gathering import GROUP, Report, fan_out, join
from tests.simulation.schedule import Schedule
from zmesh.actions import DeliverGroup, MemberState
from zmesh.events import SettleDeliveries
from zmesh.message import FailureKind, Outcome
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.groups import Groups

SEEDS = 60
ACTIVE = 20.0  # seconds in which things happen
END = 70.0  # by then everything has healed, and every back-off is over
OPTIONS = NodeOptions(
    link=LinkOptions(session_linger=4.0), redeliver_max=2.0, attempts_max=1000
)  # fmt: skip


@dataclass(eq=False)
class Member:
    """The application of one life of a member."""

    run: "Run"
    host: Host
    seen: int = 0  # actions looked at
    open: set[str] = field(default_factory=set)  # with the application
    decided: dict[str, Outcome] = field(default_factory=dict)

    def look(self) -> None:
        """Take what the engine delivered since."""
        actions, self.seen = self.host.actions[self.seen :], len(self.host.actions)
        for action in actions:
            if isinstance(action, DeliverGroup):
                for delivery in action.deliveries:
                    for offset, record in enumerate(delivery.records):
                        self._take(delivery.source, delivery.first_seq + offset, record[2])

    def _take(self, source: object, seq: int, body: bytes | memoryview) -> None:
        text = bytes(body).decode()
        assert text not in self.open, f"{self.host.name} was given {text} twice"
        assert text not in self.decided, f"{self.host.name} was given {text} again"
        self.open.add(text)
        pause = self.run.random.choice((0.0, 0.01, 2.0, 6.0))
        self.run.world.queue.after(pause, self._settle, source, seq, text)

    def _settle(self, source: object, seq: int, text: str) -> None:
        if not self.host.alive:
            return
        verdict = self.run.verdict(self.host.name, text)
        if self.run.random.random() < 0.2:
            verdict = self.run.random.choice((Outcome.MODIFIED, Outcome.RELEASED))
        else:
            self.decided[text] = verdict
        self.open.discard(text)
        self.host.do(SettleDeliveries(source, seq, seq, verdict, "so it decided"))  # type: ignore[arg-type]


class Run:
    """One seed: members, faults and fan-outs."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"fan-out {seed}")
        self.world = World(OPTIONS)
        self.schedule = Schedule(self.world, self.random)
        names = "abcde"[: self.random.randint(3, 5)]
        self.origin, *hosts = self.world.mesh(*names)
        self.members: list[Member] = []
        self.living: dict[str, Host] = {}  # by name
        self.own_names = {host.name: host.name for host in hosts}  # of the latest process
        self.twins = 0
        for host in hosts:
            self._enlist(host)
        self.patient: list[Report] = []
        self.hasty: list[Report] = []
        self.cancelled: list[Report] = []

    def verdict(self, name: str, text: str) -> Outcome:
        """Return what a member of this name decides on a text in the end, in any life."""
        rejects = Random(f"{name} {text}").random() < 0.2
        return Outcome.REJECTED if rejects else Outcome.ACCEPTED

    def _enlist(self, host: Host) -> None:
        host.accepts = False
        self.living[host.name] = host
        self.members.append(Member(self, host))
        join(host)

    def go(self) -> None:
        self._pass(0.2)
        queue, random = self.world.queue, self.random
        begun = queue.now
        faults = (
            self._partition, self._partition, self._strike, self._strike, self._crash, self._crash,
        )  # fmt: skip
        for number in range(random.randint(1, 6)):
            at = random.uniform(0.0, ACTIVE)
            queue.after(at, self._fan_out, f"m{number}", begun + END)
            if random.random() < 0.4:  # while members handle it
                queue.after(at + random.uniform(0.0, 5.0), random.choice(faults))
        for _ in range(random.randint(0, 3)):
            queue.after(random.uniform(0.0, ACTIVE), random.choice(faults))
        self._pass(END + 5.0)
        self.check()

    def _pass(self, seconds: float) -> None:
        queue = self.world.queue
        until = queue.now + seconds
        while (at := queue.next_at) is not None and at <= until:
            queue.step()
            for member in self.members:
                if len(member.host.actions) > member.seen:
                    member.look()
        queue.now = until

    # What happens

    def _fan_out(self, text: str, end: float) -> None:
        if not self.origin.engine.members(GROUP):
            return
        now = self.world.queue.now
        kind = self.random.choice(("patient", "patient", "hasty", "cancelled"))
        hasty = self.random.choice((0.05, 1.0, 8.0))
        report = fan_out(self.origin, text, timeout=hasty if kind == "hasty" else end - now)
        {"patient": self.patient, "hasty": self.hasty, "cancelled": self.cancelled}[kind].append(
            report
        )
        if kind == "cancelled":
            self.world.queue.after(hasty, report.cancel)

    def _pair(self) -> tuple[int, int]:
        other = self.random.choice([*self.living.values()])
        return self.origin.index, other.index

    def _partition(self) -> None:
        one, other = self._pair()
        network, seconds = self.world.network, self.random.choice((0.5, 3.0, 25.0))
        for pair in ((one, other), (other, one)):
            network.cut(*pair)
            self.world.queue.after(seconds, network.heal, *pair)

    def _strike(self) -> None:
        self.schedule.strike(25.0)

    def _crash(self) -> None:
        host = self.random.choice([*self.living.values()])
        if not host.alive:
            return
        host.kill()
        as_another = self.random.random() < 0.5
        self.world.queue.after(
            self.random.choice((0.01, 0.5, 5.0)), self._restart, host, as_another
        )

    def _restart(self, host: Host, as_another: bool) -> None:
        """Start a process of the same name, under the same id or, without storage, another."""
        world = self.world
        own = self.own_names[host.name]
        if as_another:
            self.twins += 1
            own = self.own_names[host.name] = f"{host.name}-{self.twins}"
        again = world.host(own, known_as=host.name)
        for other in (self.origin, *self.living.values()):
            if other.alive:
                world.introduce(other, again)
        self._enlist(again)

    # What holds

    def check(self) -> None:
        for report in (*self.patient, *self.hasty):
            assert report.ended is not None
        for report in (*self.patient, *self.hasty, *self.cancelled):
            for standing in report.standings.values():
                self._check_true(report, standing.name, standing.state)
        for report in self.patient:
            assert report.pending == []
            for name in report.accepted:
                assert self.verdict(name, report.text) is Outcome.ACCEPTED
            for name in report.failed:
                assert report.standings[name].failure is FailureKind.REJECTED
                assert self.verdict(name, report.text) is Outcome.REJECTED
        statistics = self.origin.engine.statistics()
        assert (statistics.fan_outs, statistics.queued_messages) == (0, 0)
        for host in self.living.values():
            assert host.engine.statistics().group_messages == 0

    def _check_true(self, report: Report, name: str, state: MemberState) -> None:
        """Check that what the report says of a member is what one of its lives decided."""
        decided = {
            member.decided.get(report.text) for member in self.members if member.host.name == name
        }
        if state is MemberState.ACCEPTED:
            assert Outcome.ACCEPTED in decided
        elif state is MemberState.FAILED:
            assert Outcome.REJECTED in decided


def test_reports_equal_what_members_saw() -> None:
    reports = duplicates = repeats = 0
    for seed in range(SEEDS):
        run = Run(seed)
        try:
            run.go()
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
        reports += len(run.patient)
        repeats += run.origin.engine.statistics().fanned_out_again
        duplicates += sum(
            host.engine.statistics().duplicate_group_messages for host in run.living.values()
        )
    assert reports > SEEDS
    assert repeats > SEEDS, "what these runs are about does not happen in them"
    assert duplicates > 0


def go_all() -> None:
    for seed in range(SEEDS):
        Run(seed).go()


def test_a_member_that_forgets_what_it_took_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs would see a message handled twice by one process: plant the bug that does it."""
    monkeypatch.setattr(Groups, "_admit", lambda *_: True)
    with pytest.raises(AssertionError, match="was given"):
        go_all()
