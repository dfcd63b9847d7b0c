"""What was measured, round by round, and the figures that come of it; to and from JSON."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from benchmarks.machine import WakeUp
from benchmarks.scenario import Scenario


class OtherMachine(Exception):
    """Results of another machine, or of other versions; tells what differs."""


@dataclass(frozen=True, slots=True)
class Round:
    """One scenario once through every system, one after the other.

    Attributes:
        scenario: its key.
        wake_up: of the machine before and after; None where it changed in between.
        values: by system, in the scenario's unit.
        lost: which part did not arrive, by system, where it is not 0.
        taken: when the run it is of began, as in 2026-12-01T12:30:00.
    """

    scenario: str
    wake_up: str | None
    values: Mapping[str, float]
    lost: Mapping[str, float] = field(default_factory=dict)
    taken: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a system reached in a scenario: medians over rounds that had the same wake-up.

    They are of one run: the last in which it was measured.
    """

    system: str
    scenario: str
    wake_up: str
    value: float
    ratio: float | None  # to the yardstick, in the same round
    ratios: tuple[float, ...]
    lost: float = 0.0
    taken: str = ""

    @property
    def date(self) -> str:
        """Return the day it was measured."""
        return self.taken.partition("T")[0]


@dataclass(slots=True)
class Results:
    """All that was measured, and what was not.

    Attributes:
        machine: its facts.
        date: the day of the last run, as in 2026-12-01.
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

    def updated(self, new: "Results") -> "Results":
        """Return these, and where `new` measured the same systems in the same scenarios, those.

        Raises:
            OtherMachine: they do not belong on one page.
        """
        if differing := self._differing(new):
            raise OtherMachine(f"not measured with the same {', '.join(differing)}")
        measured = _pairs(new)
        old = [_without(each, measured, self._are_yardsticks()) for each in self.rounds]
        return Results(
            machine=new.machine,
            date=new.date,
            versions={**self.versions, **new.versions},
            yardsticks={**self.yardsticks, **new.yardsticks},
            about={**self.about, **new.about},
            rounds=[*(each for each in old if each is not None), *new.rounds],
            skipped={
                name: why
                for name, why in {**self.skipped, **new.skipped}.items()
                if name not in self.yardsticks and name not in new.yardsticks
            },
            left_out=_together(self.left_out, new.left_out),
            failed=_together(_but(self.failed, measured), new.failed),
        )

    def _differing(self, new: "Results") -> list[str]:
        before, now = {**self.machine, **self.versions}, {**new.machine, **new.versions}
        return [name for name in before if before[name] != now.get(name, before[name])]

    def _are_yardsticks(self) -> set[str]:
        return set(self.yardsticks.values())

    def _figures(self, scenario: str) -> list[Figure]:
        steady = [
            each for each in self.rounds if each.scenario == scenario and each.wake_up is not None
        ]
        last = {name: each.taken for each in steady for name in each.values}
        found = []
        for system, taken in last.items():
            rounds = [each for each in steady if each.taken == taken]
            [(wake_up, _)] = Counter(each.wake_up for each in rounds).most_common(1)
            rounds = [each for each in rounds if each.wake_up == wake_up]
            if wake_up is not None and any(system in each.values for each in rounds):
                found.append(self._figure(system, scenario, wake_up, rounds))
        return found

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
            taken=own[-1].taken,
        )


def _pairs(results: Results) -> set[tuple[str, str]]:
    """Return the scenarios and systems that have a figure, or failed."""
    figures = {(each.scenario, each.system) for each in results.figures()}
    return figures | {(key, name) for name, reasons in results.failed.items() for key in reasons}


def _without(taken: Round, measured: set[tuple[str, str]], yardsticks: set[str]) -> Round | None:
    """Return a round without what was measured again, but with what its ratios are to."""
    kept = {name for name in taken.values if (taken.scenario, name) not in measured}
    if not kept:
        return None
    kept |= yardsticks
    return replace(
        taken,
        values={name: value for name, value in taken.values.items() if name in kept},
        lost={name: value for name, value in taken.lost.items() if name in kept},
    )


def _but(
    reasons: Mapping[str, Mapping[str, str]], pairs: set[tuple[str, str]]
) -> dict[str, dict[str, str]]:
    """Return reasons by system and scenario, without those of some."""
    left = {
        name: {key: why for key, why in whys.items() if (key, name) not in pairs}
        for name, whys in reasons.items()
    }
    return {name: whys for name, whys in left.items() if whys}


def _together(
    before: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, str]]:
    """Return reasons by system and scenario of both, the later ones where both have one."""
    names = dict.fromkeys([*before, *now])
    return {name: {**before.get(name, {}), **now.get(name, {})} for name in names}


def wake_up_of(before: WakeUp, after: WakeUp) -> str | None:
    """Return the wake-up of a round between two looks, or None where it changed."""
    return before.value if before is after else None


def by_place(figures: Sequence[Figure]) -> dict[tuple[str, str], Figure]:
    """Return figures by scenario and system."""
    return {(figure.scenario, figure.system): figure for figure in figures}


def named(scenarios: Sequence[Scenario]) -> dict[str, Scenario]:
    """Return scenarios by key."""
    return {scenario.key: scenario for scenario in scenarios}
