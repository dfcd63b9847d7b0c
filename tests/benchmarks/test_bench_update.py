"""A later run of some systems and scenarios: it takes the place of these, and of no others."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import run
from benchmarks.results import OtherMachine, Results, Round, by_place
from benchmarks.runner import Runner
from benchmarks.table import markdown

FIRST, SECOND = "2026-12-01T10:00:00+00:00", "2026-12-02T10:00:00+00:00"
YARDSTICKS = {"bare": "bare", "zmesh": "bare", "other": "bare"}


def results(*rounds: Round, date: str = "2026-12-01", **more: Any) -> Results:
    return Results({"cores": "2"}, date, {"pyzmq": "27"}, YARDSTICKS, rounds=[*rounds], **more)


def first() -> Results:
    return results(
        Round("acked", "slow", {"bare": 100.0, "zmesh": 200.0, "other": 50.0}, taken=FIRST),
        Round("call", "slow", {"bare": 100.0, "zmesh": 400.0}, taken=FIRST),
        left_out={"other": {"call": "it has none"}},
    )


def second(**values: float) -> Results:
    return results(Round("acked", "quick", values, taken=SECOND), date="2026-12-02")


def test_what_was_measured_again_takes_the_place_of_what_was() -> None:
    figures = by_place(first().updated(second(bare=200.0, other=50.0)).figures())
    assert figures["acked", "other"].ratio == 0.25
    assert figures["acked", "bare"].value == 200.0


def test_what_was_not_measured_again_keeps_its_value_ratio_state_and_day() -> None:
    figures = by_place(first().updated(second(bare=200.0, other=50.0)).figures())
    kept = figures["acked", "zmesh"]
    assert (kept.value, kept.ratio, kept.wake_up, kept.date) == (200.0, 2.0, "slow", "2026-12-01")
    assert figures["call", "zmesh"].ratio == 4.0


def test_rounds_of_which_nothing_is_left_are_gone() -> None:
    updated = first().updated(second(bare=200.0, zmesh=300.0, other=50.0))
    assert [(each.scenario, each.taken) for each in updated.rounds] == [
        ("call", FIRST),
        ("acked", SECOND),
    ]


def test_run_in_which_the_machine_never_rested_takes_the_place_of_nothing() -> None:
    restless = results(Round("acked", None, {"bare": 1.0, "other": 1.0}, taken=SECOND))
    figures = by_place(first().updated(restless).figures())
    assert figures["acked", "other"].value == 50.0


def test_failure_takes_the_place_of_a_value_and_a_value_that_of_a_failure() -> None:
    broken = results(
        Round("acked", "quick", {"bare": 200.0}, taken=SECOND),
        failed={"other": {"acked": "ValueError: no"}},
    )
    updated = first().updated(broken)
    assert ("acked", "other") not in by_place(updated.figures())
    assert updated.failed == {"other": {"acked": "ValueError: no"}}
    third = results(Round("acked", "quick", {"bare": 1.0, "other": 1.0}, taken=SECOND + "0"))
    assert updated.updated(third).failed == {}


def test_what_could_not_be_had_and_can_be_now_is_no_longer_skipped() -> None:
    old = results()
    old.yardsticks = {"bare": "bare"}
    old.skipped = {"other": "its server is not installed"}
    assert old.updated(second(bare=1.0, other=1.0)).skipped == {}


def test_another_machine_and_other_versions_are_not_put_on_one_page() -> None:
    other = second(bare=1.0, zmesh=1.0)
    other.machine = {"cores": "4"}
    other.versions = {"pyzmq": "28"}
    with pytest.raises(OtherMachine, match="cores, pyzmq"):
        first().updated(other)


def test_page_tells_whose_figures_are_of_another_day_or_state() -> None:
    page = markdown(first().updated(second(bare=200.0, other=50.0)))
    assert "| quick, 2026-12-02; zmesh: slow, 2026-12-01 |" in page
    assert "| slow, 2026-12-01 |" in page


def test_command_updates_a_file_and_leaves_that_of_another_machine_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    told = [first(), second(bare=200.0, other=50.0), second(bare=1.0, other=1.0)]
    told[2].machine = {"cores": "4"}
    monkeypatch.setattr(Runner, "run", lambda _: told.pop(0))
    monkeypatch.setattr(run, "terminable", lambda: None)
    monkeypatch.setattr(run, "in_order", lambda results: results)
    monkeypatch.setattr(sys, "argv", ["run", "--update", "--json", str(file)])
    assert run.main() == 0
    assert run.main() == 0
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert [each["taken"] for each in stored["rounds"]] == [FIRST, FIRST, SECOND]
    assert run.main() == 1
    assert json.loads(file.read_text(encoding="utf-8")) == stored
    assert "not measured with the same cores" in capsys.readouterr().err
