"""What was measured, round by round, and the figures that come of it; to and from JSON."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from benchmarks.machine import WakeUp
from benchmarks.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Round:
    """One scenario once through every system, one after the other.

    Attributes:
        scenario: its key.
        wake_up: of the machine before and after; None where it changed in between.
        values: by system, in the scenario's unit.
        lost: which part did not arrive, by system, where it is not 0.
    """

    scenario: str
    wake_up: str | None
    values: Mapping[str, float]
    lost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a system reached in a scenario: medians over rounds that had the same wake-up."""

    system: str
    scenario: str
    wake_up: str
    value: float
    ratio: float | None  # to the yardstick, in the same round
    ratios: tuple[float, ...]
    lost: float = 0.0


@dataclass(slots=True)
class Results:
    """All that was measured, and what was not.

    Attributes:
        machine: its facts.
        date: the day, as in 2026-12-01.
        versions: of all that was used.
        yardsticks: the system that a system's figures are ratios to.
        about: how each system was set.
        rounds: in the order they were measured.
        skipped: systems that could not be had, and why.
        left_out: scenarios a system is not asked for, by both names, and why.
        failed: the same for what went wrong.
    """

    machine: dict[str, str]
    date: str
    versions: dict[str, str] = field(default_factory=dict)
    yardsticks: dict[str, str] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, dict[str, str]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can carry it, with the figures beside the rounds."""
        return {**asdict(self), "figures": [asdict(figure) for figure in self.figures()]}

    @classmethod
    def from_json(cls, read: Mapping[str, Any]) -> Self:
        """Return what `as_json` made."""
        known = {name: value for name, value in read.items() if name != "figures"}
        return cls(**{**known, "rounds": [Round(**each) for each in read["rounds"]]})

    def figures(self) -> list[Figure]:
        """Return what all rounds come to, scenario by scenario."""
        scenarios = dict.fromkeys(each.scenario for each in self.rounds)
        return [figure for scenario in scenarios for figure in self._figures(scenario)]

    def restless(self) -> list[str]:
        """Return the scenarios that have no figure: the machine changed in every round."""
        steady = {each.scenario for each in self.rounds if each.wake_up is not None}
        return [
            key
            for key in dict.fromkeys(each.scenario for each in self.rounds)
            if key not in steady
        ]

    def _figures(self, scenario: str) -> list[Figure]:
        rounds = [each for each in self.rounds if each.scenario == scenario]
        counted = Counter(each.wake_up for each in rounds if each.wake_up is not None)
        if not counted:
            return []
        wake_up = counted.most_common(1)[0][0]
        rounds = [each for each in rounds if each.wake_up == wake_up]
        systems = dict.fromkeys(name for each in rounds for name in each.values)
        return [self._figure(name, scenario, wake_up, rounds) for name in systems]

    def _figure(self, system: str, scenario: str, wake_up: str, rounds: Sequence[Round]) -> Figure:
        own = [each for each in rounds if system in each.values]
        yardstick = self.yardsticks[system]
        ratios = tuple(
            each.values[system] / each.values[yardstick]
            for each in own
            if each.values.get(yardstick)
        )
        return Figure(
            system,
            scenario,
            wake_up,
            value=statistics.median(each.values[system] for each in own),
            ratio=statistics.median(ratios) if ratios else None,
            ratios=ratios,
            lost=statistics.median(each.lost.get(system, 0.0) for each in own),
        )


def wake_up_of(before: WakeUp, after: WakeUp) -> str | None:
    """Return the wake-up of a round between two looks, or None where it changed."""
    return before.value if before is after else None


def by_place(figures: Sequence[Figure]) -> dict[tuple[str, str], Figure]:
    """Return figures by scenario and system."""
    return {(figure.scenario, figure.system): figure for figure in figures}


def named(scenarios: Sequence[Scenario]) -> dict[str, Scenario]:
    """Return scenarios by key."""
    return {scenario.key: scenario for scenario in scenarios}
