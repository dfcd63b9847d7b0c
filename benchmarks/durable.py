"""`python -m benchmarks.durable`: durable messaging beside others in the same run, as ratios.

What is accepted is on disk, synced, in all of them: zmesh's journals, Redis streams with
`appendfsync always`, RabbitMQ with persistent messages and publisher confirms, NATS JetStream
with `sync_interval: always`, and bare SQLite with `synchronous=FULL`. The measures take turns;
a ratio is the median of those of neighbours in time. What is not installed is skipped.
"""

import argparse
import json
import os
import platform
import signal
import sqlite3
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import bare_sqlite, durable_mesh, jetstream, rabbitmq, redis_streams
from benchmarks.servers import Absent
from benchmarks.turns import Measure, Rates, fresh_name

BODY_SIZES = (100, 512)
RUNS = 3
SECONDS = 0.5

SQLITE_ONE = "bare SQLite: one a commit"
SQLITE_BATCH = "bare SQLite: 512 a commit"

STEADY_MAX = 2.0
"""Times the slowest run that the fastest of bare SQLite may be before a warning says so."""

ACCEPTED_GUIDE = 150_000.0


@contextmanager
def _sqlite(place: Path, notes: list[str]) -> Iterator[list[Measure]]:
    place.mkdir(parents=True)
    grown, filled = bare_sqlite.sync_seconds(place / "synced")
    notes.append(
        f"SQLite {sqlite3.sqlite_version}; a sync takes {1000 * grown:.2f} ms where a file has "
        f"grown, {1000 * filled:.2f} ms where it was written over"
    )

    def measure(name: str, batch: int) -> Measure:
        def inserted(body: bytes, seconds: float) -> Rates:
            return {name: bare_sqlite.inserted(place / fresh_name(), body, batch, seconds)}

        return inserted

    yield [measure(SQLITE_ONE, 1), measure(SQLITE_BATCH, 512)]


System = Callable[[Path, list[str]], AbstractContextManager[list[Measure]]]

SYSTEMS: dict[str, System] = {
    "zmesh": durable_mesh.measures,
    "sqlite": _sqlite,
    "redis": redis_streams.measures,
    "rabbitmq": rabbitmq.measures,
    "jetstream": jetstream.measures,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """A measure of zmesh, the yardstick, and what is asked of their ratio."""

    name: str
    ours: str
    theirs: str
    goal: float | None = None


COMPARISONS = (
    Comparison("accepted / Redis pipelined", durable_mesh.ACCEPTED, redis_streams.PIPELINED, 2),
    Comparison("end to end / Redis", durable_mesh.END_TO_END, redis_streams.END_TO_END, 2),
    Comparison("accepted / RabbitMQ confirms", durable_mesh.ACCEPTED, rabbitmq.CONFIRMED, 20),
    Comparison("end to end / RabbitMQ", durable_mesh.END_TO_END, rabbitmq.END_TO_END, 20),
    Comparison("accepted / JetStream window", durable_mesh.ACCEPTED, jetstream.WINDOW),
    Comparison("end to end / JetStream", durable_mesh.END_TO_END, jetstream.END_TO_END),
    Comparison("accepted / bare SQLite, 512 a commit", durable_mesh.ACCEPTED, SQLITE_BATCH),
    Comparison("one at a time / bare SQLite", durable_mesh.ONE, SQLITE_ONE, 0.8),
    Comparison("one at a time, nobody there / bare SQLite", durable_mesh.ALONE, SQLITE_ONE),
    Comparison("one at a time / Redis", durable_mesh.ONE, redis_streams.ONE),
    Comparison("one at a time / JetStream", durable_mesh.ONE, jetstream.ONE),
    Comparison("64 callers / bare SQLite, one a commit", durable_mesh.TOGETHER, SQLITE_ONE),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """What one measure reached with one size of body."""

    measure: str
    body_bytes: int
    median: float
    runs: list[float]


@dataclass(frozen=True, slots=True)
class Ratio:
    """What zmesh reached beside another; `theirs` is None where the goal is absolute."""

    name: str
    body_bytes: int
    ours: float
    theirs: float | None
    ratio: float
    goal: float | None
    reached: bool

    @property
    def asked(self) -> str:
        """Return the goal in words."""
        return "none" if self.goal is None else f">= {self.goal:g}"


@dataclass(slots=True)
class Results:
    """All that was measured, run by run, and what was not."""

    rates: dict[tuple[int, str], list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, body_bytes: int, rates: Rates) -> None:
        """Take what one turn reached."""
        for name, rate in rates.items():
            self.rates.setdefault((body_bytes, name), []).append(rate)

    def speeds(self) -> list[Speed]:
        """Return what each measure reached."""
        return [
            Speed(name, body_bytes, statistics.median(runs), runs)
            for (body_bytes, name), runs in self.rates.items()
        ]

    def ratios(self) -> list[Ratio]:
        """Return what can be compared, a size of body at a time."""
        ratios = []
        for body_bytes in sorted({body_bytes for body_bytes, _ in self.rates}):
            found = [self._ratio(body_bytes, each) for each in COMPARISONS]
            found.append(self._accepted(body_bytes))
            ratios += [ratio for ratio in found if ratio is not None]
        return ratios

    def unsteady(self) -> list[str]:
        """Return warnings where the disk was much slower in one run than in another."""
        return [
            f"the disk was not steady: {min(runs):,.0f} to {max(runs):,.0f} commits a second "
            f"of bare SQLite with {body_bytes} bytes"
            for (body_bytes, name), runs in self.rates.items()
            if name == SQLITE_ONE and max(runs) > STEADY_MAX * min(runs)
        ]

    def _ratio(self, body_bytes: int, compared: Comparison) -> Ratio | None:
        ours = self.rates.get((body_bytes, compared.ours))
        theirs = self.rates.get((body_bytes, compared.theirs))
        if ours is None or theirs is None:
            return None
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        return Ratio(
            compared.name, body_bytes, statistics.median(ours), statistics.median(theirs), ratio,
            compared.goal, compared.goal is None or ratio >= compared.goal,
        )  # fmt: skip

    def _accepted(self, body_bytes: int) -> Ratio | None:
        ours = self.rates.get((body_bytes, durable_mesh.ACCEPTED))
        if ours is None:
            return None
        rate = statistics.median(ours)
        ratio = rate / ACCEPTED_GUIDE
        name = f"accepted / the guide of {ACCEPTED_GUIDE:,.0f}/s"
        return Ratio(name, body_bytes, rate, None, ratio, 1, ratio >= 1)


def measured(
    systems: Sequence[str], runs: int, seconds: float = SECONDS, place: Path | None = None
) -> Results:
    """Start the systems, let their measures take turns, and end them."""
    results = Results()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place)))
        measures: list[Measure] = []
        for name in systems:
            try:
                opened = SYSTEMS[name](directory / name, results.notes)
                measures += stack.enter_context(opened)
            except Absent as absent:
                results.skipped.append(f"{name} skipped: {absent}")
        for body_bytes in BODY_SIZES:
            for run in range(runs):
                # Nobody is always the first after a pause: some disks let a burst through.
                first = run * len(measures) // runs
                for measure in measures[first:] + measures[:first]:
                    results.add(body_bytes, measure(os.urandom(body_bytes), seconds))
    results.notes += results.unsteady()
    return results


def _print(results: Results, machine: dict[str, str]) -> None:
    print(" ".join(f"{key} {value}" for key, value in machine.items()))
    for note in results.notes + results.skipped:
        print(note)
    sizes = sorted({body_bytes for body_bytes, _ in results.rates})
    medians = {(each.body_bytes, each.measure): each.median for each in results.speeds()}
    print("\n| messages per second | " + " | ".join(f"{size} bytes" for size in sizes) + " |")
    print("| --- |" + " --- |" * len(sizes))
    for measure in dict.fromkeys(measure for _, measure in results.rates):
        cells = (f"{medians[size, measure]:,.0f}" for size in sizes)
        print(f"| {measure} | " + " | ".join(cells) + " |")
    print("\n| zmesh beside | body | zmesh | yardstick | ratio | goal | reached |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for each in results.ratios():
        print(_row(each))


def _row(ratio: Ratio) -> str:
    theirs = "" if ratio.theirs is None else f"{ratio.theirs:,.0f}/s"
    reached = "yes" if ratio.reached else "no"
    return (
        f"| {ratio.name} | {ratio.body_bytes} B | {ratio.ours:,.0f}/s | {theirs} "
        f"| {ratio.ratio:.2f}x | {ratio.asked} | {reached} |"
    )


def main() -> int:
    """Run all; print tables, or one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.durable", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of producing, each time")
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--place", type=Path, help="a directory on the disk to be measured")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and what was started ends too
    results = measured(options.only, options.runs, options.seconds, options.place)
    machine = {
        "python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0))),
    }
    if options.json:
        report = {
            "machine": machine,
            "notes": results.notes,
            "skipped": results.skipped,
            "speeds": [asdict(each) for each in results.speeds()],
            "ratios": [asdict(each) for each in results.ratios()],
        }
        print(json.dumps(report))
    else:
        _print(results, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())
