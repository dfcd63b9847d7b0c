"""The benchmark runner: who is measured when, and what comes of failures."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from benchmarks.results import Results
from benchmarks.runner import PROBE, Runner
from benchmarks.scenario import ACKED, CALL, STREAM, Scenario
from benchmarks.servers import Absent
from benchmarks.system import Measured, Opened, Pair, RoleFailed, System, nothing
from benchmarks.table import markdown


def no_role(*_: object) -> None:
    raise AssertionError("tests measure nothing")


def absent(_place: Path) -> AbstractContextManager[Opened]:
    raise Absent("its server is not installed")


def system(
    name: str,
    *scenarios: Scenario,
    opened: Callable[[Path], AbstractContextManager[Opened]] = nothing,
    left_out: dict[str, str] | None = None,
) -> System:
    roles = {scenario.key: Pair(no_role, no_role) for scenario in scenarios}
    return System(name, "as it is", roles, opened, left_out or {}, yardstick="bare")


class Clockwork:
    """Figures in the place of measurements, and what was measured in which order."""

    def __init__(self, calls_us: list[float] | None = None) -> None:
        self.order: list[tuple[str, str]] = []
        self._calls_us = iter(calls_us or [])
        self.broken: set[tuple[str, str]] = set()

    def measure(
        self, measured: System, _opened: Opened, scenario: Scenario, _place: Path
    ) -> Measured:
        if scenario is PROBE:
            return Measured(next(self._calls_us, 26.0))
        self.order.append((scenario.key, measured.name))
        if (scenario.key, measured.name) in self.broken:
            raise RoleFailed("ValueError: no")
        return Measured(100.0 if measured.name == "bare" else 250.0)


def run(
    clockwork: Clockwork, systems: list[System], *scenarios: Scenario, runs: int = 1
) -> Results:
    return Runner(systems, scenarios, runs=runs, measure_one=clockwork.measure).run()


def test_systems_take_turns_and_nobody_is_always_first() -> None:
    clockwork = Clockwork()
    run(clockwork, [system("bare", STREAM), system("other", STREAM)], STREAM, runs=2)
    assert [name for _, name in clockwork.order] == ["bare", "other", "other", "bare"]


def test_scenarios_take_turns_within_a_run() -> None:
    clockwork = Clockwork()
    run(clockwork, [system("bare", STREAM, ACKED)], STREAM, ACKED, runs=2)
    assert [key for key, _ in clockwork.order] == ["stream", "acked"] * 2


def test_ratio_is_to_the_yardstick_of_the_same_round() -> None:
    results = run(Clockwork(), [system("bare", STREAM), system("other", STREAM)], STREAM, runs=3)
    [other] = [figure for figure in results.figures() if figure.system == "other"]
    assert (other.value, other.ratio, other.ratios) == (250.0, 2.5, (2.5, 2.5, 2.5))


def test_scenario_a_system_does_not_do_is_left_out_with_a_word() -> None:
    other = system("other", STREAM, left_out={ACKED.key: "it acknowledges nothing"})
    results = run(Clockwork(), [system("bare", STREAM, ACKED), other], STREAM, ACKED)
    assert results.left_out == {"other": {"acked": "it acknowledges nothing"}}
    assert ("acked", "other") not in {(each.scenario, each.system) for each in results.figures()}


def test_system_that_cannot_be_had_is_skipped_with_a_word() -> None:
    results = run(
        Clockwork(), [system("bare", STREAM), system("other", STREAM, opened=absent)], STREAM
    )
    assert results.skipped == {"other": "its server is not installed"}
    assert [figure.system for figure in results.figures()] == ["bare"]


def test_failure_is_told_and_not_tried_again() -> None:
    clockwork = Clockwork()
    clockwork.broken.add(("stream", "other"))
    results = run(clockwork, [system("bare", STREAM), system("other", STREAM)], STREAM, runs=3)
    assert results.failed == {"other": {"stream": "ValueError: no"}}
    assert clockwork.order.count(("stream", "other")) == 1
    assert clockwork.order.count(("stream", "bare")) == 3


def test_round_in_which_the_machine_changed_is_measured_again() -> None:
    clockwork = Clockwork([26.0, 105.0, 105.0, 104.0])
    results = run(clockwork, [system("bare", CALL)], CALL)
    assert len(clockwork.order) == 2
    assert [each.wake_up for each in results.rounds] == ["slow"]


def test_machine_that_keeps_changing_gives_no_figure() -> None:
    clockwork = Clockwork([26.0, 105.0] * 10)
    results = run(clockwork, [system("bare", CALL)], CALL)
    assert [each.wake_up for each in results.rounds] == [None]
    assert results.figures() == []
    assert results.restless() == ["call"]
    assert "The machine changed in the midst of every round: call." in markdown(results)


def test_figures_are_of_the_wake_up_that_most_rounds_had() -> None:
    clockwork = Clockwork([105.0, 105.0, 26.0, 26.0, 26.0, 26.0])
    results = run(clockwork, [system("bare", CALL)], CALL, runs=3)
    [figure] = results.figures()
    assert (figure.wake_up, len(figure.ratios)) == ("quick", 2)


def test_results_survive_json() -> None:
    results = run(Clockwork(), [system("bare", STREAM), system("other", STREAM)], STREAM, runs=2)
    assert Results.from_json(results.as_json()) == results


@pytest.mark.parametrize(("seconds", "count", "bodies"), [(0.0, 0, 1), (0.0, 7, 7)])
def test_load_is_a_time_or_a_count_and_never_nothing(
    seconds: float, count: int, bodies: int
) -> None:
    scenario = Scenario("some", "some", seconds=seconds, count=count)
    assert [len(body) for body in scenario.load()] == [100] * bodies
