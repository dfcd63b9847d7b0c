"""From a seed to a scenario: the same seed always means the same."""

from dataclasses import replace
from math import exp, log
from random import Random
from typing import Any, Literal

from zmesh.message import LANES, PRIORITY_DEFAULT, Outcome
from zmesh.options import KIB, MIB, LinkOptions
from zmesh.testing.scenario import (
    Consumer,
    Fault,
    FaultKind,
    HostPlan,
    InterestChange,
    Level,
    Scenario,
    Submission,
)


def generate(seed: int, level: Level = "link") -> Scenario:
    """Return the scenario of a seed: always the same one."""
    if level == "durable":
        return _DurableGenerator(seed, level).scenario()
    if level == "node" and seed % SECURED_EVERY == 0:
        return _SecuredGenerator(seed, level).scenario()
    generator = _Generator(seed, level)
    return generator.drill() if level == "node" and seed % 16 == 15 else generator.scenario()


SECURED_EVERY = 4
"""Of the seeds of whole nodes: nodes that prove who they are. Half of those are attacked."""

CROWDED_EVERY = 4
"""Of the seeds: those in which much is sent at the same time."""


SERVICES = ("add", "multiply")
TOPICS = ("news.*", "news.local", "weather.>", "*.local")
PUBLISHED = ("news.local", "news.far", "weather.today.here", "sport.local")

_SHARES = {
    FaultKind.WEATHER: 5, FaultKind.LAG: 1, FaultKind.CORRUPTION: 2, FaultKind.ONE_WAY: 2,
    FaultKind.PARTITION: 3, FaultKind.ISOLATION: 1, FaultKind.BLACK_HOLE: 2, FaultKind.RESET: 5,
    FaultKind.CRASH: 5, FaultKind.POWER_LOSS: 2, FaultKind.LEAVE: 1, FaultKind.STALL: 2,
    FaultKind.SUSPEND: 1, FaultKind.SLOW: 2, FaultKind.ECHO: 3,
}  # fmt: skip

_NODE_SHARES = {FaultKind.CORRUPTION: 0, FaultKind.GHOST: 1, FaultKind.STRANGER: 2}
_MORE_SHARES: dict[Level, dict[FaultKind, int]] = {
    "link": {},
    "node": _NODE_SHARES,
    "durable": _NODE_SHARES
    | {
        FaultKind.DISK_DEATH: 14,
        FaultKind.DISK_FULL: 3,
        FaultKind.POWER_LOSS: 6,
        FaultKind.SLOW: 5,
    },
}


class _Generator:
    def __init__(self, seed: int, level: Level) -> None:
        self._seed = seed
        self._level: Level = level
        self._random = Random(f"scenario {level} {seed}")  # noqa: S311  repeatable is the point
        # A later invention: seeds that found something before it are to stay what they were.
        self._wishes = Random(f"wishes {level} {seed}")  # noqa: S311

    def scenario(self) -> Scenario:
        random, whole = self._random, self._level != "link"
        hosts = random.choices((2, 3, 4, 5), (8, 3, 1, 1))[0]
        intensity = self._intensity()
        active = self._between(0.5, 8.0)
        options = self._link_options()
        delay = random.choice((0.000_1, 0.000_2, 0.002, 0.02))
        return Scenario(
            seed=self._seed,
            level=self._level,
            hosts=self._hosts(hosts, calm=intensity == 0),
            link=options,
            delay=delay,
            jitter=delay * random.choice((0.1, 1.0)),
            unread_max=1000 if intensity == 0 else random.choice((8, 64, 1000, 1000)),
            submissions=self._submissions(hosts, active, options, calm=intensity == 0)
            + self._crowds(hosts, active, options),
            faults=self._faults(hosts, active, intensity),
            active=active,
            # A call without deadline waits for a provider as long as a session lingers.
            settle_within=60.0 + (options.session_linger if whole else 0.0),
            changes=self._changes(hosts, active) if whole else (),
            attempts_max=random.choice((3, 20)),
            discovery=random.choice(("mdns", "mdns", "static")),
        )

    def _intensity(self) -> int:
        return self._random.choices((0, 1, 3, 6), (2, 3, 4, 2))[0]

    def drill(self) -> Scenario:
        """Return a scenario of calls only, of which one provider is lost while it handles them."""
        random, hosts = self._random, self._random.randint(3, 5)
        plan = HostPlan(consumer=Consumer(concurrency=64, seconds=1.0), services=SERVICES)
        kind = random.choice(
            (FaultKind.CRASH, FaultKind.CRASH, FaultKind.LEAVE, FaultKind.PARTITION)
        )
        lost = random.randrange(1, hosts)
        return Scenario(
            seed=self._seed,
            level=self._level,
            hosts=tuple(replace(plan, fresh_identity=random.random() < 0.5) for _ in range(hosts)),
            link=replace(
                self._link_options(), window_messages=64, window_messages_max=64, ranges_max=33
            ),
            submissions=tuple(
                Submission(
                    at,
                    0,
                    0,
                    PRIORITY_DEFAULT,
                    (64,),
                    kind="call",
                    name=SERVICES[0],
                    hedge_after=self._wishes.choice((None, 0.05, 0.5)),
                )
                for at in sorted(random.uniform(1.0, 4.0) for _ in range(30))
            ),
            faults=(Fault(random.uniform(2.0, 3.0), kind, lost, 0, self._between(0.01, 10.0)),),
            settle_within=120.0,
        )

    def _between(self, low: float, high: float) -> float:
        """Return a number whose logarithm is uniform: small ones are as likely as large ones."""
        return exp(self._random.uniform(log(low), log(high)))

    def _link_options(self) -> LinkOptions:
        """Return small limits, so that short runs meet them."""
        choice = self._random.choice
        window = choice((2, 4, 16, 64, 1024))
        window_max = window * choice((1, 4))
        fragment = choice((256, 1 * KIB, 4 * KIB))
        window_bytes = max(choice((4 * KIB, 16 * KIB, 64 * KIB, 1 * MIB)), 4 * fragment)
        return LinkOptions(
            window_messages=window,
            window_messages_max=window_max,
            window_bytes=window_bytes,
            window_bytes_max=window_bytes * choice((1, 4)),
            packet_bytes=choice((512, 4 * KIB, 64 * KIB)),
            fragment_bytes=fragment,
            fragment_bytes_max=16 * fragment,
            in_flight_bytes_min=choice((2 * KIB, 16 * KIB, 256 * KIB)),
            quantum_bytes=choice((1 * KIB, 64 * KIB)),
            ranges_max=window_max // 2 + 1,  # what an honest peer can need
            transfer_bytes_max=choice((256 * KIB, 8 * MIB)),
            ack_every_messages=choice((2, 16, 256)),
            session_linger=choice((4.0, 10.0, 60.0)),
            queued_messages_max=choice((10, 100_000, 100_000)),
        )

    def _hosts(self, count: int, *, calm: bool) -> tuple[HostPlan, ...]:
        random = self._random
        shielded = random.randrange(count) if random.random() < 0.15 else None
        return tuple(
            HostPlan(
                starts_at=random.choice((0.0, 0.0, self._between(0.001, 1.0))),
                clock_rate=1.0 if calm else random.choice((1.0, 1.001, 0.999)),
                clock_zero=random.choice((0.0, 17.5, 86_400.0 * random.random())),
                shielded=index == shielded,
                consumer=self._consumer(),
                **self._node_plan(index),
            )
            for index in range(count)
        )

    def _node_plan(self, index: int) -> dict[str, Any]:
        """Return what a host offers and wants, where it is a whole node."""
        if self._level != "node":
            return {}
        random = self._random
        return {
            "fresh_identity": random.random() < 0.3,
            "reads_at": random.choice((0.0, 0.0, self._between(0.01, 2.0))),
            "services": tuple(s for s in SERVICES if random.random() < 0.5 or index == 1),
            "topics": tuple(t for t in TOPICS if random.random() < 0.3),
        }

    def _changes(self, hosts: int, active: float) -> tuple[InterestChange, ...]:
        random = self._random
        count = random.choice((0, 0, 2, 6))
        made = []
        for at in sorted(random.random() * active for _ in range(count)):
            kind: Literal["service", "topic"] = random.choice(("service", "topic"))
            name = random.choice(SERVICES if kind == "service" else TOPICS)
            added = random.random() < 0.5
            made.append(InterestChange(at, random.randrange(hosts), kind, name, added))
        return tuple(made)

    def _consumer(self) -> Consumer:
        random = self._random
        outcomes = random.choice((
            (),
            ((Outcome.REJECTED, 0.1), (Outcome.RELEASED, 0.1), (Outcome.MODIFIED, 0.1)),
        ))  # fmt: skip
        seconds = random.choice((0.0, 0.0, 0.0, 0.001, 0.001, 0.02, 0.02, 1.0))
        return Consumer(
            concurrency=64 if seconds == 1.0 else random.choice((1, 3, 64)),
            seconds=seconds,
            long_share=random.choice((0.0, 0.0, 0.01)),
            outcomes=outcomes,
        )

    def _submissions(
        self, hosts: int, active: float, options: LinkOptions, *, calm: bool
    ) -> tuple[Submission, ...]:
        random = self._random
        lanes = random.choice(
            ((PRIORITY_DEFAULT,), (0, PRIORITY_DEFAULT, LANES - 1), range(LANES))
        )
        keys = random.choice(((None,), (None, "a"), ("a", "b", None)))
        expiring = 0.0 if calm else random.choice((0.0, 0.2, 0.6))
        count = int(self._between(4, 50))
        made = []
        for at in sorted(random.random() * active for _ in range(count)):
            source, target = random.sample(range(hosts), 2)
            made.append(
                Submission(
                    at=at,
                    source=source,
                    target=target,
                    lane=random.choice(lanes),
                    sizes=self._sizes(options),
                    key=random.choice(keys),
                    ttl=self._between(0.01, 4.0) if random.random() < expiring else None,
                    withdraw_after=(
                        self._between(0.001, 2.0) if random.random() < expiring / 4 else None
                    ),
                    **self._pattern(hosts),
                )
            )
        return tuple(made)

    def _crowds(self, hosts: int, active: float, options: LinkOptions) -> tuple[Submission, ...]:
        """Return what is sent at the same time: large bodies, and many small ones together."""
        if self._level == "durable" or self._seed % CROWDED_EVERY != 1:
            return ()
        random = Random(f"crowds {self._level} {self._seed}")  # noqa: S311
        made = []
        for at in sorted(random.random() * active for _ in range(random.randint(2, 8))):
            source, target = random.sample(range(hosts), 2)
            lane = random.choice((PRIORITY_DEFAULT, PRIORITY_DEFAULT, LANES - 1))
            for _ in range(random.randint(3, 6)):
                large = int(options.fragment_bytes * random.uniform(1.0, 8.0)) + 1
                small = tuple(random.randint(16, 64) for _ in range(random.choice((8, 20, 40))))
                made.append(Submission(at, source, target, lane, random.choice(((large,), small))))
        return tuple(made)

    def _pattern(self, hosts: int) -> dict[str, Any]:
        """Return which pattern a submission uses, where hosts are whole nodes."""
        if self._level != "node":
            return {}
        random = self._random
        kind = random.choice(("direct", "call", "publish"))
        if kind == "direct":
            return {}
        if kind == "publish":
            return {"kind": kind, "name": random.choice(PUBLISHED)}
        timeout = random.choice((None, self._between(0.2, 20.0)))
        call = {"kind": kind, "name": random.choice(SERVICES), "timeout": timeout}
        return call | self._wish(hosts)

    def _wish(self, hosts: int) -> dict[str, Any]:
        """Return what a caller wants beside its key: mostly nothing."""
        random = self._wishes
        return {
            "prefer": random.choice((None, None, None, random.randrange(hosts))),
            "hedge_after": random.choice((None, None, 10 ** random.uniform(-3.0, 0.0))),
            "retries": random.choice((0, 0, 0, 1, 3)),
        }

    def _sizes(self, options: LinkOptions) -> tuple[int, ...]:
        """Return the sizes of the bodies of one submission: mostly few and small."""
        random = self._random
        if random.random() < 0.15:
            largest = min(256 * KIB, 100 * options.fragment_bytes)
            return (int(self._between(options.fragment_bytes, largest)),)
        count = random.choice((1, 1, 2, 5, 20))
        largest = min(options.fragment_bytes, 64 if count > 5 else 2 * KIB)
        return tuple(int(self._between(16, largest)) for _ in range(count))

    def _faults(self, hosts: int, active: float, intensity: int) -> tuple[Fault, ...]:
        random = self._random
        if intensity == 0:
            return ()
        count = random.randint(1, 2 * intensity)
        shares = _SHARES | _MORE_SHARES[self._level]
        kinds = random.choices(tuple(shares), tuple(shares.values()), k=count)
        return tuple(
            self._fault(at, kind, hosts)
            for at, kind in zip(
                sorted(random.random() * active for _ in range(count)), kinds, strict=True
            )
        )

    def _fault(self, at: float, kind: FaultKind, hosts: int) -> Fault:
        random = self._random
        host, other = random.sample(range(hosts), 2)
        match kind:
            case FaultKind.STALL | FaultKind.SUSPEND | FaultKind.SLOW:
                seconds = self._between(0.05, 15.0)
            case (
                FaultKind.RESET | FaultKind.ECHO | FaultKind.BLACK_HOLE
                | FaultKind.GHOST | FaultKind.STRANGER
            ):  # fmt: skip
                seconds = 0.0
            case FaultKind.CRASH | FaultKind.POWER_LOSS | FaultKind.LEAVE | FaultKind.DISK_DEATH:
                seconds = self._between(0.001, 10.0)
            case _:
                seconds = self._between(0.05, 10.0)
        return Fault(at, kind, host, other, seconds, random.random())


class _SecuredGenerator(_Generator):
    """Whole nodes that prove who they are; a member may mean them harm.

    In half of the runs with attacks nothing else goes wrong: all must be as if there were none.
    """

    def _intensity(self) -> int:
        intensity = super()._intensity()
        return 0 if self._seed % (4 * SECURED_EVERY) == 0 else intensity

    def scenario(self) -> Scenario:
        scenario = super().scenario()
        attacks: tuple[Fault, ...] = ()
        if self._seed % (2 * SECURED_EVERY) == 0:
            random = Random(f"attacks {self._seed}")  # noqa: S311
            hosts = range(len(scenario.hosts))
            pairs = [random.sample(hosts, 2) for _ in range(random.randint(2, 12))]
            attacks = tuple(
                Fault(random.random() * scenario.active, FaultKind.ATTACK, host, other, 0.0)
                for host, other in pairs
            )
        faults = sorted((*scenario.faults, *attacks), key=lambda fault: fault.at)
        return replace(scenario, faults=tuple(faults), secured=True)


_SEEDS_WITH_LOGS = (5, 7)  # of eight


class _DurableGenerator(_Generator):
    """Nodes with disks that send each other what must not be lost, and some that may be."""

    def scenario(self) -> Scenario:
        window = self._wishes.choice((2, 8, None))
        scenario = replace(super().scenario(), box_window=window)
        return self._with_logs(scenario) if self._seed % 8 in _SEEDS_WITH_LOGS else scenario

    def _with_logs(self, scenario: Scenario) -> Scenario:
        """Return a scenario with durable publications and subscriptions that have names."""
        random = Random(f"logs {self._seed}")  # noqa: S311
        # A log that may keep everything fills a small disk for good.
        hosts = tuple(
            replace(
                plan, disk_bytes=None, followed=tuple(t for t in TOPICS if random.random() < 0.4)
            )
            if plan.has_disk else plan
            for plan in scenario.hosts
        )  # fmt: skip
        submissions = tuple(
            replace(each, kind="publish", name=random.choice(PUBLISHED), durable=True)
            if random.random() < 0.5 else each
            for each in scenario.submissions
        )  # fmt: skip
        count = random.choice((None, None, 8))
        return replace(scenario, hosts=hosts, submissions=submissions, log_count=count)

    def _node_plan(self, index: int) -> dict[str, Any]:
        random = self._random
        has_disk = index == 0 or random.random() < 0.7
        disk_bytes = int(self._between(0.5 * KIB, 16 * KIB)) if random.random() < 0.3 else None
        return {
            "has_disk": has_disk,
            "disk_bytes": disk_bytes,
            "fresh_identity": not has_disk and random.random() < 0.7,
            "reads_at": random.choice((0.0, 0.0, self._between(0.01, 2.0))),
            "topics": tuple(t for t in TOPICS if random.random() < 0.2),
        }

    def _changes(self, hosts: int, active: float) -> tuple[InterestChange, ...]:  # noqa: ARG002
        return ()

    def _pattern(self, hosts: int) -> dict[str, Any]:  # noqa: ARG002
        random = self._random
        kind = random.choices(("durable", "direct", "publish"), (16, 3, 1))[0]
        if kind == "publish":
            return {"kind": kind, "name": random.choice(PUBLISHED)}
        return {"durable": kind == "durable", "by_name": random.random() < 0.5}
