"""`python -m benchmarks.check`: today's ratios beside the stored ones; it fails beyond noise.

Ratios are compared within one wake-up of the machine: each has stored ratios of its own. What is
worse is measured once more, and counts where it is worse again. Counted instructions, which have
no noise, are compared first (`benchmarks.instructions`).
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import instructions
from benchmarks.judging import NOTHING_STORED, exit_status
from benchmarks.results import Figure, Results, named
from benchmarks.run import systems_of, terminable
from benchmarks.runner import RUNS, Runner, say
from benchmarks.scenario import SCENARIOS, Better, Scenario

BASELINE = Path(__file__).parent / "baseline.json"

NOISE_MIN = 0.15
"""Less than this part of a ratio is never beyond noise."""

SPREADS = 4.0
"""Median absolute deviations, of both series together, that a median may be off by: some 2.7
standard deviations of a normal distribution."""

Stored = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""Ratios by wake-up, scenario and system."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ratio beside the stored one."""

    scenario: str
    system: str
    stored: float | None  # None: nothing is stored for this wake-up
    now: float
    allowed: float  # how far off it may be
    is_worse: bool


def compare(scenario: Scenario, figure: Figure, stored: Sequence[float] | None) -> Verdict:
    """Return whether a figure's ratio is worse than what is stored, beyond noise."""
    now = statistics.median(figure.ratios)
    if not stored:
        return Verdict(scenario.key, figure.system, None, now, 0.0, is_worse=False)
    before = statistics.median(stored)
    allowed = max(NOISE_MIN * before, SPREADS * max(spread(stored), spread(figure.ratios)))
    worse_by = before - now if scenario.better is Better.HIGHER else now - before
    return Verdict(scenario.key, figure.system, before, now, allowed, worse_by > allowed)


def spread(values: Sequence[float]) -> float:
    """Return the median absolute deviation."""
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)


def verdicts(results: Results, stored: Stored) -> list[Verdict]:
    """Compare all ratios of systems that are no yardstick."""
    scenarios = named(SCENARIOS)
    found = []
    for figure in results.figures():
        if figure.ratios and results.yardsticks[figure.system] != figure.system:
            of_wake_up = stored.get(figure.wake_up, {}).get(figure.scenario, {})
            before = of_wake_up.get(figure.system)
            found.append(compare(scenarios[figure.scenario], figure, before))
    return found


def merged(results: Results, stored: Stored) -> dict[str, Any]:
    """Return what is stored with these results in the place of what they measured."""
    new: dict[str, Any] = {
        wake_up: {scenario: dict(systems) for scenario, systems in scenarios.items()}
        for wake_up, scenarios in stored.items()
    }
    for figure in results.figures():
        if figure.ratios and results.yardsticks[figure.system] != figure.system:
            place = new.setdefault(figure.wake_up, {}).setdefault(figure.scenario, {})
            place[figure.system] = [round(ratio, 4) for ratio in figure.ratios]
    return new


def told(found: Sequence[Verdict]) -> str:
    """Return the comparison as a Markdown table."""
    lines = ["| scenario | system | stored | now | may be off by | |", "| --- |" + " --- |" * 5]
    for each in found:
        before = "nothing" if each.stored is None else f"{each.stored:.3g}x"
        word = "worse" if each.is_worse else "not compared" if each.stored is None else "well"
        lines.append(
            f"| {each.scenario} | {each.system} | {before} | {each.now:.3g}x "
            f"| {each.allowed:.2g} | {word} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and compare, or store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.check", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--results", type=Path, help="compare these, and measure nothing")
    parser.add_argument("--baseline", type=Path, default=BASELINE)
    parser.add_argument("--store", action="store_true", help="store the ratios: they are right")
    options = parser.parse_args()
    terminable()
    stored: Stored = {}
    if options.baseline.exists():
        stored = json.loads(options.baseline.read_text(encoding="utf-8"))
    measures = options.results is None
    counted = instructions.check() if measures and not options.store else NOTHING_STORED
    results = _results(options.results, options.runs)
    if options.store:
        text = json.dumps(merged(results, stored), indent=1, sort_keys=True)
        options.baseline.write_text(text + "\n", encoding="utf-8")
        print(f"stored in {options.baseline}")
        return 0
    found = verdicts(results, stored)
    again = [each.scenario for each in found if each.is_worse]
    if again and measures:
        say(f"worse: {', '.join(dict.fromkeys(again))}; measured once more")
        repeated = verdicts(_measured(options.runs, again), stored)
        found = [each for each in found if each.scenario not in again] + repeated
    print(told(found))
    return _ended(exit_status(found), counted, options.baseline)


def _ended(ratios: int, counted: int, baseline: Path) -> int:
    """Return 1 where anything is worse, 2 where nothing was compared, else 0."""
    if ratios == NOTHING_STORED:
        print(f"nothing in {baseline} is of this machine's wake-up: --store stores it")
    if 1 in (ratios, counted):
        return 1
    return min(ratios, counted)


def _results(path: Path | None, runs: int) -> Results:
    if path is None:
        return _measured(runs, [scenario.key for scenario in SCENARIOS])
    return Results.from_json(json.loads(path.read_text(encoding="utf-8")))


def _measured(runs: int, scenarios: Sequence[str]) -> Results:
    chosen = [scenario for scenario in SCENARIOS if scenario.key in scenarios]
    return Runner(systems_of("core"), chosen, runs=runs, tell=say).run()


if __name__ == "__main__":
    sys.exit(main())
