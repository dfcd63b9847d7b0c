"""The check against stored ratios: what is noise, what is worse, and what is not compared."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import check
from benchmarks.check import compare, merged, verdicts
from benchmarks.judging import exit_status
from benchmarks.results import Figure, Results, Round
from benchmarks.scenario import ACKED, CALL


def figure(scenario: str, *ratios: float) -> Figure:
    return Figure("zmesh", scenario, "quick", 1.0, ratios[0], ratios)


def results(*ratios: float, wake_up: str = "quick") -> Results:
    rounds = [Round("acked", wake_up, {"bare": 100.0, "zmesh": 100.0 * ratio}) for ratio in ratios]
    yardsticks = {"bare": "bare", "zmesh": "bare"}
    return Results({}, "2026-12-01", yardsticks=yardsticks, rounds=rounds)


def test_ratio_far_below_the_stored_is_worse() -> None:
    assert compare(ACKED, figure("acked", 2.0, 2.1, 2.0), [3.0, 3.1, 3.0]).is_worse


def test_ratio_above_the_stored_is_not_worse_where_more_is_better() -> None:
    assert not compare(ACKED, figure("acked", 4.0, 4.1, 4.0), [3.0, 3.1, 3.0]).is_worse


def test_ratio_above_the_stored_is_worse_where_less_is_better() -> None:
    assert compare(CALL, figure("call", 4.0, 4.1, 4.0), [3.0, 3.1, 3.0]).is_worse
    assert not compare(CALL, figure("call", 2.0, 2.1, 2.0), [3.0, 3.1, 3.0]).is_worse


def test_little_less_is_noise_however_steady_both_were() -> None:
    assert not compare(ACKED, figure("acked", 2.6, 2.6, 2.6), [3.0, 3.0, 3.0]).is_worse


def test_restless_series_are_allowed_more() -> None:
    restless = [3.0, 2.5, 3.5, 2.0, 4.0]
    assert not compare(ACKED, figure("acked", 2.0, 2.1, 2.0), restless).is_worse


def test_ratios_of_another_wake_up_are_not_compared() -> None:
    stored = {"slow": {"acked": {"zmesh": [3.0, 3.0, 3.0]}}}
    found = verdicts(results(1.0, 1.0, 1.0), stored)
    assert [each.stored for each in found] == [None]
    assert exit_status(found) == 2


def test_what_is_stored_is_replaced_where_it_was_measured_and_kept_elsewhere() -> None:
    stored = {"slow": {"acked": {"zmesh": [3.0]}}, "quick": {"call": {"zmesh": [5.0]}}}
    assert merged(results(2.0, 2.0), stored) == {
        "slow": {"acked": {"zmesh": [3.0]}},
        "quick": {"call": {"zmesh": [5.0]}, "acked": {"zmesh": [2.0, 2.0]}},
    }


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["check", *arguments])
    monkeypatch.setattr(check, "terminable", lambda: None)
    return check.main()


def test_command_stores_compares_and_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad, baseline = tmp_path / "good.json", tmp_path / "bad.json", tmp_path / "baseline.json"
    good.write_text(json.dumps(results(3.0, 3.1, 2.9).as_json()), encoding="utf-8")
    bad.write_text(json.dumps(results(1.0, 1.1, 0.9).as_json()), encoding="utf-8")
    common = ["--baseline", str(baseline)]
    assert run(monkeypatch, "--results", str(good), *common) == 2
    assert run(monkeypatch, "--results", str(good), "--store", *common) == 0
    assert run(monkeypatch, "--results", str(good), *common) == 0
    capsys.readouterr()
    assert run(monkeypatch, "--results", str(bad), *common) == 1
    assert "| acked | zmesh | 3x | 1x | 0.45 | worse |" in capsys.readouterr().out
