"""Run seeds: `python -m zmesh.testing.simulate --seeds 0:1000`."""

# ruff: noqa: T201  a command prints

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from time import monotonic
from typing import get_args

from zmesh.testing.durable_world import DurableWorld
from zmesh.testing.generator import generate
from zmesh.testing.link_world import LinkWorld
from zmesh.testing.node_world import NodeWorld
from zmesh.testing.scenario import Level, Scenario
from zmesh.testing.trace import Trace
from zmesh.testing.world import Report

LINES_MAX = 100_000  # of a trace that is printed
TAIL_LINES = 40  # of a trace that ends in a violation
CHUNK = 16  # seeds a worker takes at once

_WORLDS: dict[Level, Callable[[Scenario, Trace], LinkWorld | NodeWorld]] = {
    "link": LinkWorld,
    "node": NodeWorld,
    "durable": DurableWorld,
}


def run(seed: int, level: Level = "link", *, lines_max: int = 0) -> Report:
    """Run one seed and return what came of it.

    With `lines_max` the report has as many of the last lines of a readable trace; the run is the
    same otherwise.
    """
    return _WORLDS[level](generate(seed, level), Trace(lines_max)).run()


def replay_command(report: Report) -> str:
    """Return the command that runs a seed again, with its trace."""
    return f"python -m zmesh.testing.simulate --level {report.level} --seed {report.seed} --trace"


def explain(report: Report) -> str:
    """Return what went wrong in a seed, how to run it again, and the end of its trace."""
    again = run(report.seed, report.level, lines_max=TAIL_LINES)
    found = [f"  {violation}" for violation in report.first]
    tail = [f"  | {line}" for line in again.lines]
    header = f"seed {report.seed} ({report.level}): {report.violations} violations"
    return "\n".join([header, *found, *tail, f"  replay: {replay_command(report)}"])


@dataclass(slots=True)
class Total:
    """Sums over many seeds, in the order of the seeds."""

    seeds: int = 0
    steps: int = 0
    messages: int = 0
    faults: int = 0
    lost: int = 0
    duplicated: int = 0
    misordered: int = 0
    violations: int = 0
    failed: list[Report] = field(default_factory=list)
    _digest: "blake2b" = field(default_factory=lambda: blake2b(digest_size=16))

    def add(self, report: Report) -> None:
        """Add one seed."""
        self.seeds += 1
        self.steps += report.steps
        self.messages += report.messages
        self.faults += report.faults
        self.lost += report.lost
        self.duplicated += report.duplicated
        self.misordered += report.misordered
        self.violations += report.violations
        self._digest.update(report.digest.encode())
        if report.violations:
            self.failed.append(report)

    def as_dict(self) -> dict[str, int | str]:
        """Return the sums, and the hash over the traces of all seeds."""
        return {
            "seeds": self.seeds,
            "steps": self.steps,
            "messages": self.messages,
            "faults": self.faults,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "misordered": self.misordered,
            "violations": self.violations,
            "trace_hash": self._digest.hexdigest(),
        }


def run_all(seeds: Sequence[int], levels: Sequence[Level], workers: int) -> Iterator[Report]:
    """Run seeds at each level, over as many processes as asked for; reports come in order."""
    jobs: list[tuple[int, Level]] = [(seed, level) for level in levels for seed in seeds]
    if workers == 1:
        yield from (run(seed, level) for seed, level in jobs)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(_run_job, jobs, chunksize=CHUNK)


def _run_job(job: tuple[int, Level]) -> Report:
    return run(*job)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return its exit code."""
    asked = _parser().parse_args(arguments)
    levels: Sequence[Level] = [asked.level] if asked.level else get_args(Level)
    if asked.seed is not None:
        return _run_one(asked.seed, levels[0], trace=asked.trace)
    started, total = monotonic(), Total()
    for report in run_all(asked.seeds, levels, asked.workers or os.cpu_count() or 1):
        total.add(report)
        if report.violations:
            print(explain(report), file=sys.stderr)
    if asked.json:
        print(json.dumps(total.as_dict()))
    else:
        sums = ", ".join(f"{value} {name}" for name, value in total.as_dict().items())
        print(f"{sums}, in {monotonic() - started:.1f} s")
    return 1 if total.violations else 0


def _run_one(seed: int, level: Level, *, trace: bool) -> int:
    report = run(seed, level, lines_max=LINES_MAX if trace else 0)
    for line in report.lines:
        print(line)
    for violation in report.first:
        print(violation)
    print(
        f"seed {seed} ({level}): {report.steps} steps, {report.messages} messages, "
        f"{report.faults} faults in {report.seconds:.3f} virtual seconds, "
        f"{report.violations} violations, trace {report.digest}"
    )
    return 1 if report.violations else 0


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end)) if end else range(int(first), int(first) + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zmesh.testing.simulate",
        description="Run links and nodes through seeded faults, and hold them to their promises.",
    )
    parser.add_argument("--seeds", type=_seeds, default=range(100), help="FIRST:END (0:100)")
    parser.add_argument("--seed", type=int, help="run one seed")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens")
    parser.add_argument("--level", choices=get_args(Level), help="default: all (--seed: link)")
    parser.add_argument("--workers", type=int, default=1, help="processes; 0: one for each core")
    parser.add_argument("--json", action="store_true", help="print one line, for machines")
    return parser


if __name__ == "__main__":
    sys.exit(main())
