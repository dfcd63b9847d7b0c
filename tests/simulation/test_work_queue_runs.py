"""Work queues through loss, partitions, deaths and restarts of producers and consumers, by seed.

Every job whose producer lives ends exactly once there, as what a consumer made of it. Jobs of a
key begin in the order they were pushed, each when the one before has its outcome. A job comes to
an application again only after a verdict that gave it back, or where its producer counted that a
consumer was lost with it. No consumer has more than it asked for, and in the end nobody has any.
"""

from collections import Counter
from dataclasses import dataclass, field
from random import Random

import pytest

from tests.engines import Host, World, body, job
from tests.simulation.schedule import Schedule
from zmesh.actions import Action, DeliverJobs, GiveBackJobs, TicketsDone
from zmesh.events import Pull, Push, SettleDeliveries, Source, Unpull
from zmesh.message import FailureKind, Outcome, Tag, Ticket, extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.testing.network import Weather

SEEDS = 70
ACTIVE = 12.0  # seconds in which jobs are pushed, and faults strike
REST = 500.0  # seconds after which all must have ended
LINGER = 3.0
OPTIONS = NodeOptions(
    link=LinkOptions(
        session_linger=LINGER,
        hello_timeout=0.2,
        acceptable_pause=0.5,  # so that some are given up who live
        ping_after_max=0.5,
        ping_idle_max=2.0,
        probe_interval=0.5,
    ),
    attempts_max=6,
    redeliver_max=2.0,
    reconnect_max=0.5,
)
STORM = Weather(loss=0.2, duplication=0.2, reordering=0.2)
GIVEN_BACK = (Outcome.MODIFIED, Outcome.RELEASED)


@dataclass(eq=False)
class Job:
    """A job, as an onlooker sees it who knows everything."""

    text: str
    producer: Host
    ticket: Ticket
    key: str | None
    attempts_max: int
    expires: float | None
    ended: int | None = None  # in which step
    begun: list[tuple[int, "Worker", int]] = field(default_factory=list)  # step, whose, attempt
    verdicts: list[Outcome] = field(default_factory=list)  # of applications
    done: set["Worker"] = field(default_factory=set)  # whose verdict was the last word


@dataclass(eq=False)
class InHand:
    """A job that an application has."""

    job: Job
    source: Source
    first: int
    last: int
    is_begun: bool = False


class Worker:
    """The application of one life of a consumer: a pull, which it may end and begin anew."""

    def __init__(self, run: "Run", host: Host) -> None:
        self.run = run
        self.host = host
        self.token = 0
        self.prefetch = 0
        self.is_pulling = False
        self.in_hand: dict[tuple[Source, int], InHand] = {}
        self.pull()

    def pull(self) -> None:
        self.token += 1
        self.prefetch = self.run.random.choice((1, 2, 5, 20))
        self.is_pulling = True
        self.host.do(Pull(self.token, "work", self.prefetch))

    def unpull(self) -> None:
        self.is_pulling = False
        for held in self.in_hand.values():
            held.job.verdicts.append(Outcome.RELEASED)
        self.in_hand.clear()
        self.host.do(Unpull(self.token))

    def hear(self, action: Action) -> None:
        match action:
            case DeliverJobs(pairs):
                for delivery, token in pairs:
                    single = len(delivery.records) == 1
                    for seq, record in enumerate(delivery.records, delivery.first_seq):
                        last = delivery.last_seq if single else seq
                        attempt = extra(record, Tag.ATTEMPT)
                        taken = InHand(
                            self.run.jobs[body(record).decode()], delivery.source, seq, last
                        )
                        if token == self.token and self.is_pulling:
                            self.take(taken, attempt if isinstance(attempt, int) else 1)
                        else:  # it crossed with the end of the pull
                            taken.job.verdicts.append(Outcome.RELEASED)
                            taken.job.begun.append((self.run.step, self, 0))
            case GiveBackJobs(node):
                for held in list(self.in_hand.values()):
                    if held.source.node == node and not held.is_begun:
                        self.settle(held, Outcome.RELEASED)
            case _:
                pass

    def take(self, taken: InHand, attempt: int) -> None:
        self.run.on_begun(self, taken.job, attempt)
        self.in_hand[taken.source, taken.first] = taken
        assert len(self.in_hand) <= self.prefetch, f"{self.host.name} has more than it asked for"
        self.run.world.queue.after(self.run.pause(0.0, 0.0, 0.01, 0.3, 3.0), self.begin, taken)

    def begin(self, held: InHand) -> None:
        if self.host.alive and (held.source, held.first) in self.in_hand:
            held.is_begun = True
            self.run.world.queue.after(self.run.pause(0.0, 0.01, 0.1, 1.0, 5.0), self.finish, held)

    def finish(self, held: InHand) -> None:
        if self.host.alive and (held.source, held.first) in self.in_hand:
            self.settle(held, self.run.verdict(held.job))

    def settle(self, held: InHand, outcome: Outcome) -> None:
        del self.in_hand[held.source, held.first]
        held.job.verdicts.append(outcome)
        if outcome in (Outcome.ACCEPTED, Outcome.REJECTED):
            held.job.done.add(self)
        delay = self.run.random.choice((0.0, 0.0, 1.0)) if outcome in GIVEN_BACK else 0.0
        where = held.source, held.first, held.last
        self.host.do(SettleDeliveries(*where, outcome, "so it decided", delay))


class Run:
    """One seed: producers, consumers, and what befalls them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"work {seed}")
        self.together = Random(f"together {seed}")
        self.world = World(OPTIONS)
        self.world.random.seed(seed)
        self.schedule = Schedule(self.world, self.random)
        self.step = 0
        self.jobs: dict[str, Job] = {}
        self.last_of_key: dict[tuple[Host, str], Job] = {}
        self.before: dict[Job, Job] = {}  # of the same key
        self.tickets: dict[Ticket, list[Job]] = {}
        self.producing = "ab"[: self.random.randint(1, 2)]
        self.pulling = "cde"[: self.random.randint(1, 3)]
        if self.random.random() < 0.3:
            self.pulling += "a"
        self.workers: dict[str, Worker] = {}
        self.heard: dict[Host, int] = {}  # actions of each host that were looked at
        self.uncertain = 0  # counted by producers that died
        self.has_died = self.was_parted = False
        names = sorted({*self.producing, *self.pulling})
        for host in self.world.mesh(*names):
            self._enlist(host)

    def verdict(self, one: Job) -> Outcome:
        """Return what an application makes of a job this time."""
        if one.expires is not None and one.expires < self.world.queue.now:
            return Outcome.EXPIRED
        return self.random.choices(
            (Outcome.ACCEPTED, Outcome.REJECTED, *GIVEN_BACK), (80, 4, 8, 8)
        )[0]

    def pause(self, *choices: float) -> float:
        """Return how long an application takes; not long when all is to end."""
        return self.random.choice(choices if self.world.queue.now < ACTIVE else choices[:3])

    def _enlist(self, host: Host) -> None:
        self.heard[host] = 0
        if host.name in self.pulling:
            self.workers[host.name] = Worker(self, host)

    # What happens

    def go(self) -> None:
        queue, random = self.world.queue, self.random
        for _ in range(random.randint(5, 15)):
            queue.after(random.uniform(0.0, ACTIVE), self._push)
        faults = [
            self._cut, self._cut, self._weather, self._reset, self._kill, self._kill, self._pause,
            self._strike, self._strike,
        ]  # fmt: skip
        for _ in range(random.randint(0, 6)):
            queue.after(random.uniform(0.0, ACTIVE), random.choice(faults))
        self._pass(ACTIVE + LINGER)
        self._put_right()
        self._pass(REST, until_done=True)
        self._pass(LINGER + 3.0)
        self.check()

    def _pass(self, seconds: float, *, until_done: bool = False) -> None:
        queue = self.world.queue
        until = queue.now + seconds
        while (at := queue.next_at) is not None and at <= until:
            queue.step()
            self.step += 1
            for host, heard in self.heard.items():
                if len(host.actions) > heard:
                    self._hear(host, heard)
            if until_done and self.is_done():
                return
        queue.now = until

    def _hear(self, host: Host, heard: int) -> None:
        self.heard[host] = len(host.actions)
        news = host.actions[heard:]
        for action in news:  # a turn tells them last, of what was long so
            if isinstance(action, TicketsDone):
                for ended in [one for ticket in action.tickets for one in self.tickets[ticket]]:
                    assert ended.ended is None, f"{ended.text} ended twice"
                    ended.ended = self.step
        worker = self.workers.get(host.name)
        if worker is not None and worker.host is host:
            for action in news:
                worker.hear(action)

    def on_begun(self, worker: Worker, begun: Job, attempt: int) -> None:
        if begun.key is not None and not begun.begun:
            before = self.before.get(begun)
            if before is not None:
                assert before.ended is not None, f"{begun.text} begins before {before.text} ended"
        if begun.key is not None:
            self._check_alone(begun)
        assert attempt <= begun.attempts_max
        assert worker not in begun.done, f"{begun.text} comes again to who has done it"
        begun.begun.append((self.step, worker, attempt))

    def _check_alone(self, begun: Job) -> None:
        """Find no other of its key at work, unless with one whom its producer has given up."""
        peers = begun.producer.engine._peers
        for worker in self.workers.values():
            peer = peers.find(worker.host.id)
            for held in worker.in_hand.values() if worker.host.alive else ():
                if (held.job.key, held.job.producer) == (begun.key, begun.producer):
                    assert peer is None or peer.session != held.source.session, (
                        f"{begun.text} begins beside {held.job.text}"
                    )

    def _push(self) -> None:
        random = self.random
        host = self.world.hosts[random.choice(self.producing)]
        if not host.alive:
            return
        key = random.choice((None, None, "k1", "k2", "k3"))
        lane = random.choice((1, 4, 4, 9))
        ttl = random.choice((None, None, None, 3.0))
        delay = random.choice((0.0, 0.0, 0.0, 2.0))
        attempts_max = random.choice((1, 3, 6))
        if self.together.random() < 0.5:
            self._push_together(host, lane, attempts_max)
        for _ in range(random.choice((1, 3, 12))):
            ticket = Ticket()
            text = f"{host.name} {len(self.jobs)}"
            expires = None if ttl is None else self.world.queue.now + ttl
            pushed = Job(text, host, ticket, key, attempts_max, expires)
            self.jobs[text] = pushed
            self.tickets[ticket] = [pushed]
            if key is not None:
                if (host, key) in self.last_of_key:
                    self.before[pushed] = self.last_of_key[host, key]
                self.last_of_key[host, key] = pushed
            host.do(Push([job("work", text)], lane, ticket, key, ttl, delay, attempts_max))

    def _push_together(self, host: Host, lane: int, attempts_max: int) -> None:
        """Push jobs that ask for nothing, with one ticket: they leave by the run."""
        count = self.together.choice((2, 12, 40))
        ticket = Ticket(count)
        texts = [f"{host.name} {len(self.jobs) + at}" for at in range(count)]
        pushed = [Job(text, host, ticket, None, attempts_max, None) for text in texts]
        self.jobs.update(zip(texts, pushed, strict=True))
        self.tickets[ticket] = pushed
        records = [job("work", text) for text in texts]
        host.do(Push(records, lane, ticket, None, None, 0.0, attempts_max))

    def _pair(self) -> tuple[Host, Host]:
        one, other = self.random.sample(list(self.world.hosts), 2)
        return self.world.hosts[one], self.world.hosts[other]

    def _cut(self) -> None:
        one, other = self._pair()
        seconds = self.random.choice((1.0, 3.0, 9.0))
        self.was_parted = True
        ways = [(one.index, other.index), (other.index, one.index)]
        for way in ways[: self.random.randint(1, 2)]:
            self.world.network.cut(*way)
            self.world.queue.after(seconds, self.world.network.heal, *way)

    def _weather(self) -> None:
        one, other = self._pair()
        self.world.network.set_weather(one.index, other.index, STORM)

    def _strike(self) -> None:
        self.was_parted = True
        self.schedule.strike(9.0)

    def _reset(self) -> None:
        one, other = self._pair()
        self.world.network.reset(one.index, other.index)

    def _kill(self) -> None:
        host, _ = self._pair()
        if not host.alive:
            return
        self.has_died = True
        self.uncertain += host.engine.statistics().jobs_uncertain
        host.kill()
        self.world.queue.after(self.random.choice((0.0, 0.1, 3.0)), self._restart, host.name)

    def _restart(self, name: str) -> None:
        if not self.world.hosts[name].alive:
            host = self.world.host(name)
            for other in self.world.hosts.values():
                if other is not host:
                    self.world.introduce(host, other)
            self._enlist(host)

    def _pause(self) -> None:
        worker = self.workers[self.random.choice(self.pulling)]
        if worker.host.alive and worker.is_pulling:
            worker.unpull()
            self.world.queue.after(self.random.choice((0.0, 0.5, 5.0)), self._resume, worker)

    def _resume(self, worker: Worker) -> None:
        if worker.host.alive and not worker.is_pulling:
            worker.pull()

    def _put_right(self) -> None:
        for name, host in list(self.world.hosts.items()):
            self._restart(name)
            for other in self.world.hosts.values():
                if other is not host:
                    self.world.network.set_weather(host.index, other.index, None)
        for worker in self.workers.values():
            self._resume(worker)

    # What must hold

    def mine(self) -> list[Job]:
        """Jobs of producers that live."""
        return [each for each in self.jobs.values() if each.producer.alive]

    def is_done(self) -> bool:
        return all(each.ended is not None for each in self.mine())

    def check(self) -> None:
        for each in self.jobs.values():
            if each.producer.alive:
                assert each.ended is not None, f"{each.text} never ends"
        for ticket, jobs in self.tickets.items():
            if jobs[0].ended is not None:
                self._check_end(ticket, jobs)
        self._check_order()
        self._check_copies()
        for host in self.world.hosts.values():
            statistics = host.engine.statistics()
            assert (
                statistics.jobs_waiting, statistics.jobs_out, statistics.jobs_held,
                statistics.queued_messages, statistics.unsettled_in,
            ) == (0, 0, 0, 0, 0), f"{host.name} keeps something"  # fmt: skip
            assert statistics.defects.keys() <= {"gap", "error"}, "more than weather"

    def _check_end(self, ticket: Ticket, jobs: list[Job]) -> None:
        assert ticket.accepted + len(ticket.failures) == len(jobs)
        assert ticket.accepted <= sum(Outcome.ACCEPTED in each.verdicts for each in jobs)
        rejected = 0
        for failure in ticket.failures:
            match failure.kind:
                case FailureKind.REJECTED:
                    rejected += 1
                case FailureKind.EXPIRED:
                    assert jobs[0].expires is not None
                case FailureKind.DEAD_LETTERED:
                    assert failure.attempts == jobs[0].attempts_max
                case _:
                    pytest.fail(f"{jobs[0].text} ended as {failure}")
        assert rejected <= sum(Outcome.REJECTED in each.verdicts for each in jobs)

    def _check_order(self) -> None:
        for later, earlier in self.before.items():
            if later.begun and earlier.begun:
                assert earlier.begun[0][0] < later.begun[0][0], f"{later.text} overtook"

    def _check_copies(self) -> None:
        """Count what came to an application again without having been given back."""
        lives = [host for host in self.world.hosts.values() if host.alive]
        uncertain = self.uncertain + sum(host.engine.statistics().jobs_uncertain for host in lives)
        again = 0
        for each in self.jobs.values():
            given_back = sum(outcome in GIVEN_BACK for outcome in each.verdicts)
            again += max(0, len(each.begun) - 1 - given_back)
        assert again <= uncertain, f"{again} came again, and {uncertain} were counted"
        if not (self.has_died or self.was_parted):
            assert uncertain == 0


def run(seed: int) -> Run:
    through = Run(seed)
    through.go()
    return through


@pytest.mark.parametrize("block", range(4))
def test_every_job_ends_once_and_in_order(block: int) -> None:
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        try:
            run(seed)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise


def test_the_runs_are_not_idle() -> None:
    runs = [run(seed) for seed in range(1000, 1030)]
    ended = [
        ticket
        for through in runs
        for ticket, jobs in through.tickets.items()
        if jobs[0].ended is not None
    ]
    kinds = Counter(failure.kind for ticket in ended for failure in ticket.failures)
    accepted = sum(ticket.accepted for ticket in ended)
    assert kinds.keys() == {
        FailureKind.REJECTED, FailureKind.EXPIRED, FailureKind.DEAD_LETTERED,
    }  # fmt: skip
    assert accepted > 200
    living = [host for each in runs for host in each.world.hosts.values() if host.alive]
    uncertain = sum(through.uncertain for through in runs)
    assert uncertain + sum(host.engine.statistics().jobs_uncertain for host in living) > 0
