"""What a seed stands for: the hosts, what they send each other, and what goes wrong when."""

from dataclasses import dataclass, field
from enum import Enum
from math import exp, log
from random import Random
from typing import Literal

from zmesh.message import LANES, PRIORITY_DEFAULT, Outcome
from zmesh.options import KIB, MIB, LinkOptions

Level = Literal["link", "node"]


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


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, at virtual second `at`."""

    at: float
    kind: FaultKind
    host: int
    other: int
    seconds: float
    severity: float = 0.0  # 0 to 1, what it means depends on the kind


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
    services: tuple[tuple[int, str], ...] = field(default=())  # host, service (whole nodes)
    topics: tuple[tuple[int, str], ...] = field(default=())  # host, pattern (whole nodes)

    @property
    def calm(self) -> bool:
        """Whether nothing goes wrong at all."""
        return not self.faults

    @property
    def quiet_from(self) -> float:
        """From when on nothing is sent and nothing goes wrong any more."""
        ends = [self.active, *(fault.at + fault.seconds for fault in self.faults)]
        return max([*ends, *(submission.at for submission in self.submissions)])


def generate(seed: int, level: Level = "link") -> Scenario:
    """Return the scenario of a seed: always the same one."""
    return _Generator(seed, level).scenario()


_SHARES = {
    FaultKind.WEATHER: 5, FaultKind.LAG: 1, FaultKind.CORRUPTION: 1, FaultKind.ONE_WAY: 2,
    FaultKind.PARTITION: 3, FaultKind.ISOLATION: 1, FaultKind.BLACK_HOLE: 2, FaultKind.RESET: 5,
    FaultKind.CRASH: 3, FaultKind.POWER_LOSS: 1, FaultKind.LEAVE: 1, FaultKind.STALL: 2,
    FaultKind.SUSPEND: 1, FaultKind.SLOW: 2, FaultKind.ECHO: 3,
}  # fmt: skip


class _Generator:
    def __init__(self, seed: int, level: Level) -> None:
        self._seed = seed
        self._level = level
        self._random = Random(f"scenario {level} {seed}")  # noqa: S311  repeatable is the point

    def scenario(self) -> Scenario:
        random = self._random
        hosts = random.choices((2, 3, 4, 5), (8, 3, 1, 1))[0]
        intensity = random.choices((0, 1, 3, 6), (2, 3, 4, 2))[0]
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
            submissions=self._submissions(hosts, active, options, calm=intensity == 0),
            faults=self._faults(hosts, active, intensity),
            active=active,
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
            in_flight_bytes_min=choice((2 * KIB, 16 * KIB, 256 * KIB)),
            quantum_bytes=choice((1 * KIB, 64 * KIB)),
            ranges_max=window_max // 2 + 1,  # what an honest peer can need
            transfer_bytes_max=choice((256 * KIB, 8 * MIB)),
            ack_every_messages=choice((2, 16, 256)),
            session_linger=choice((4.0, 10.0, 60.0)),
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
            )
            for index in range(count)
        )

    def _consumer(self) -> Consumer:
        random = self._random
        outcomes = random.choice((
            (),
            ((Outcome.REJECTED, 0.1), (Outcome.RELEASED, 0.1), (Outcome.MODIFIED, 0.1)),
        ))  # fmt: skip
        return Consumer(
            concurrency=random.choice((1, 3, 64)),
            seconds=random.choice((0.0, 0.0, 0.001, 0.02)),
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
        expiring = 0.0 if calm else random.choice((0.0, 0.2))
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
                    ttl=self._between(0.02, 5.0) if random.random() < expiring else None,
                    withdraw_after=(
                        self._between(0.001, 2.0) if random.random() < expiring / 4 else None
                    ),
                )
            )
        return tuple(made)

    def _sizes(self, options: LinkOptions) -> tuple[int, ...]:
        """Return the sizes of the bodies of one submission: mostly few and small."""
        random = self._random
        if random.random() < 0.1:
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
        kinds = random.choices(tuple(_SHARES), tuple(_SHARES.values()), k=count)
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
            case FaultKind.RESET | FaultKind.ECHO | FaultKind.BLACK_HOLE:
                seconds = 0.0
            case FaultKind.CRASH | FaultKind.POWER_LOSS | FaultKind.LEAVE:
                seconds = self._between(0.001, 10.0)
            case _:
                seconds = self._between(0.05, 10.0)
        return Fault(at, kind, host, other, seconds, random.random())
