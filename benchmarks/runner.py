"""The runner: systems take turns within a round, scenarios within a run, and runs follow runs."""

import datetime as dt
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import machine
from benchmarks.machine import WakeUp
from benchmarks.processes import preload
from benchmarks.results import Results, Round, wake_up_of
from benchmarks.scenario import CALL, Scenario
from benchmarks.servers import Absent
from benchmarks.system import Measured, Opened, RoleFailed, System, measure

RUNS = 5
PROBE = replace(CALL, key="call", seconds=0.1)
"""What tells how quickly processes are woken up: a call of the bare system."""

AGAIN_MAX = 2
"""Times a round in the midst of which the machine changed is measured once more."""

Measure = Callable[[System, Opened, Scenario, Path], Measured]
Say = Callable[[str], None]


def say_nothing(_text: str) -> None:
    """Be silent."""


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Ready:
    """A system that was opened."""

    system: System
    opened: Opened


class Runner:
    """Measures scenarios through systems; `measure_one` is replaced in tests."""

    def __init__(
        self,
        systems: Sequence[System],
        scenarios: Sequence[Scenario],
        *,
        runs: int = RUNS,
        place: Path | None = None,
        measure_one: Measure = measure,
        tell: Say = say_nothing,
    ) -> None:
        self._systems = systems
        self._scenarios = scenarios
        self._runs = runs
        self._place = place
        self._measure_one = measure_one
        self._tell = tell
        self._count = 0
        self._taken = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

    def run(self) -> Results:
        """Open all systems, measure, and end what was started."""
        results = Results(machine.facts(), self._taken.partition("T")[0])
        preload(["benchmarks.system", *_modules(self._systems)])
        with ExitStack() as stack:
            directory = tempfile.TemporaryDirectory(dir=self._place, ignore_cleanup_errors=True)
            place = Path(stack.enter_context(directory))
            ready = list(self._open(stack, place, results))
            self._take_rounds(ready, place, results)
        return results

    def _open(self, stack: ExitStack, place: Path, results: Results) -> Iterator[Ready]:
        for number, system in enumerate(self._systems):
            own = place / f"system-{number}"
            own.mkdir()
            try:
                opened = stack.enter_context(system.opened(own))
            except Absent as absent:
                results.skipped[system.name] = str(absent)
                self._tell(f"{system.name} skipped: {absent}")
                continue
            results.versions.update(opened.versions)
            results.yardsticks[system.name] = system.yardstick
            results.about[system.name] = system.about
            asked = {scenario.key for scenario in self._scenarios}
            left_out = {key: why for key, why in system.left_out.items() if key in asked}
            if left_out:
                results.left_out[system.name] = left_out
            yield Ready(system, opened)

    def _take_rounds(self, ready: list[Ready], place: Path, results: Results) -> None:
        for run in range(self._runs):
            for number, scenario in enumerate(self._scenarios):
                self._tell(f"run {run + 1} of {self._runs}: {scenario.title}")
                first = (run + number) % max(len(ready), 1)  # nobody is always the first
                turns = ready[first:] + ready[:first]
                results.rounds.append(self._steady_round(scenario, turns, place, results))

    def _steady_round(
        self, scenario: Scenario, turns: list[Ready], place: Path, results: Results
    ) -> Round:
        """Return a round in which the machine stayed as it was, if one of a few is such."""
        taken = self._round(scenario, turns, place, results)
        for _ in range(AGAIN_MAX):
            if taken.wake_up is not None:
                break
            self._tell("the machine changed in between: once more")
            taken = self._round(scenario, turns, place, results)
        return taken

    def _round(
        self, scenario: Scenario, turns: list[Ready], place: Path, results: Results
    ) -> Round:
        before = self._probed(turns, place)
        values, lost = {}, {}
        for each in turns:
            name = each.system.name
            if scenario.key not in each.system.roles:
                continue
            if scenario.key in results.failed.get(name, ()):
                continue
            try:
                measured = self._measure(each, scenario, place)
            except (RoleFailed, TimeoutError, EOFError) as error:
                why = str(error) or "a process ended"
                results.failed.setdefault(name, {})[scenario.key] = why
                self._tell(f"{name} failed: {why}")
                continue
            values[name] = measured.value
            if measured.lost:
                lost[name] = measured.lost
        after = self._probed(turns, place)
        return Round(scenario.key, wake_up_of(before, after), values, lost, self._taken)

    def _probed(self, turns: list[Ready], place: Path) -> WakeUp:
        yardsticks = [each for each in turns if each.system.yardstick == each.system.name]
        if not yardsticks:
            return WakeUp.SLOW
        bare = min(yardsticks, key=lambda each: each.system.name)  # not the encrypted one
        return WakeUp.of(self._measure(bare, PROBE, place).value)

    def _measure(self, ready: Ready, scenario: Scenario, place: Path) -> Measured:
        self._count += 1
        own = place / f"measurement-{self._count}"
        return self._measure_one(ready.system, ready.opened, scenario, own)


def _modules(systems: Sequence[System]) -> list[str]:
    return list(dict.fromkeys(module for system in systems for module in system.preload))


def timed(run: Callable[[], Results]) -> tuple[Results, float]:
    """Return results, and how many seconds they took."""
    began = time.monotonic()
    results = run()
    return results, time.monotonic() - began
