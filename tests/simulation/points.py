"""Every point at which what is on a disk changes: a node dies there, and begins again."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from zmesh.message import PRIORITY_DEFAULT, Outcome
from zmesh.options import LinkOptions
from zmesh.testing.durable_world import DurableWorld, Point
from zmesh.testing.scenario import (
    Consumer,
    Fault,
    FaultKind,
    HostPlan,
    Scenario,
    Submission,
)
from zmesh.testing.trace import Trace
from zmesh.testing.world import Report

SENDER, RECEIVER = 0, 1

Life = tuple[int, int]
"""A host, and which of its lives."""


@dataclass(frozen=True, slots=True)
class Death:
    """A life that ends at a point of its work on its disk."""

    life: Life
    point: Point


def scenario(*, receiver_has_disk: bool = True) -> Scenario:
    """Return a small run: some posts by name and id, a slow receiver, one restart of each."""
    consumer = Consumer(
        concurrency=2, seconds=0.03, outcomes=((Outcome.REJECTED, 0.15), (Outcome.MODIFIED, 0.15))
    )
    submissions = [
        Submission(
            0.1 + number * 0.05, SENDER, RECEIVER, PRIORITY_DEFAULT - number % 2, (20, 30),
            key="k" if number % 3 == 0 else None, ttl=0.05 if number == 4 else None,
            durable=number != 3, by_name=number % 2 == 0,
        )
        for number in range(10)
    ]  # fmt: skip
    return Scenario(
        seed=1,
        level="durable",
        hosts=(
            HostPlan(has_disk=True),
            HostPlan(has_disk=receiver_has_disk, consumer=consumer),
        ),
        link=LinkOptions(),
        submissions=tuple(submissions),
        faults=(
            Fault(0.33, FaultKind.CRASH, RECEIVER, SENDER, 0.1),
            Fault(0.6, FaultKind.CRASH, SENDER, RECEIVER, 0.1),
        ),
        active=0.7,
        settle_within=30.0,
        attempts_max=2,
        box_window=3,
    )


def with_logs(count: int | None = None) -> Scenario:
    """Return the same run with publications in the place of posts, read under two names."""
    plan = scenario()
    publisher, reader = plan.hosts
    return replace(
        plan,
        hosts=(
            replace(publisher, topics=("news.local",)),
            replace(reader, followed=("news.*", "news.local")),
        ),
        submissions=tuple(
            replace(each, kind="publish", name=("news.local", "news.far")[number % 2])
            for number, each in enumerate(plan.submissions)
        ),
        log_count=count,
    )


def live(plan: Scenario, *deaths: Death) -> tuple[Report, dict[Life, int]]:
    """Run a scenario with some deaths; return what came of it, and how much each life did."""
    world = DurableWorld(plan, Trace(), {death.life: death.point for death in deaths})
    return world.run(), world.operations


def deaths(operations: dict[Life, int]) -> Iterator[Death]:
    """Yield a death before and one after each operation on a disk."""
    for life, count in sorted(operations.items()):
        for operation in range(1, count + 1):
            for after in (False, True):
                yield Death(life, (operation, after))
