"""Nodes with disks die before and after every operation on them, in seeded scenarios.

`python -m tests.chaos.persistence_points --seeds 0:20` prints a line of JSON, and fails where a
promise is broken. Each seed is run once to count what each life of each host does on its disk, and
again for every one of these operations, twice. With `--pairs N` each of these deaths is followed
by another one of the same host, in so many of its next life's first operations.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from tests.processes import say
from tests.simulation.points import Death, deaths, live
from zmesh.testing.generator import generate
from zmesh.testing.scenario import Fault, FaultKind, Scenario


def pairs(plan: Scenario, first: Death, count: int) -> Iterator[Death]:
    """Yield the deaths that follow one: of the next life, in its first operations."""
    host, life = first.life
    _, operations = live(plan, first)
    following = min(count, operations.get((host, life + 1), 0))
    yield from deaths({(host, life + 1): following})


def visit(seed: int, pairs_max: int, sums: Counter[str]) -> None:
    """Visit the points of one seed."""
    plan = generate(seed, "durable")
    # Where nothing else goes wrong, something does now: peers may be lost for it.
    plan = replace(plan, faults=(*plan.faults, Fault(0.0, FaultKind.RESET, 0, 1, 0.0)))
    _, operations = live(plan)
    for death in deaths(operations):
        judge(plan, sums, death)
        for another in pairs(plan, death, pairs_max) if pairs_max else ():
            judge(plan, sums, death, another)
    sums["seeds"] += 1


def judge(plan: Scenario, sums: Counter[str], *where: Death) -> None:
    """Run a scenario with deaths, and count what it broke."""
    report, _ = live(plan, *where)
    sums["runs"] += 1
    sums["messages"] += report.messages
    sums["violations"] += report.violations
    if report.violations:
        found = "".join(f"  {violation}\n" for violation in report.first)
        sys.stderr.write(f"seed {plan.seed}, {where}:\n{found}")


def main() -> int:
    """Run what the command line asks for; return its exit code."""
    parser = argparse.ArgumentParser(description="Die at every operation on a disk.")
    parser.add_argument("--seeds", default="0:10", help="FIRST:END (0:10)")
    parser.add_argument("--pairs", type=int, default=0, help="operations of the next life as well")
    asked = parser.parse_args()
    first, end = map(int, asked.seeds.split(":"))
    sums: Counter[str] = Counter(seeds=0, runs=0, messages=0, violations=0)
    for seed in range(first, end):
        visit(seed, asked.pairs, sums)
    say(json.dumps(sums))
    return 1 if sums["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
