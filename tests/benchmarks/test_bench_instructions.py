"""Counted instructions: they repeat, and what is worse than the stored ones is told."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import instructions
from benchmarks.instruction_cases import CASES, Case, Steps
from benchmarks.instructions import Compared, bytecode, compared, place, told
from benchmarks.judging import exit_status


def once(key: str) -> tuple[float, float]:
    [case] = [case for case in CASES if case.key == key]
    first, second = (bytecode([case], warm=1, times=2)[key] for _ in range(2))
    return first, second


@pytest.mark.parametrize("key", ["encode", "decode", "link", "ack", "call"])
def test_counts_of_hot_paths_repeat_exactly(key: str) -> None:
    first, second = once(key)
    assert first == second > 0


def test_what_a_case_does_beforehand_is_not_counted() -> None:
    def steps() -> Steps:
        while True:
            sum(number for number in range(1_000))
            yield lambda: None

    assert bytecode([Case("some", "some", steps)], warm=0, times=1)["some"] < 10


def test_tracing_that_was_on_is_on_again() -> None:
    before = sys.gettrace()
    once("encode")
    assert sys.gettrace() is before


def test_few_more_are_well_and_many_are_worse() -> None:
    stored = {place("bytecode"): {"call": 1_000.0}}
    words = [
        compared({"bytecode": {"call": now}}, stored)[0].word
        for now in (1_000.0, 1_029.0, 1_031.0, 960.0)
    ]
    assert words == ["well", "well", "worse", "better: store it"]


def test_counts_of_another_python_are_not_compared() -> None:
    found = compared({"bytecode": {"call": 5.0}}, {"bytecode, CPython 3.1": {"call": 1.0}})
    assert [each.word for each in found] == ["not compared"]
    assert exit_status(found) == 2


def test_comparison_tells_both_and_the_change() -> None:
    assert "| 1,000 | 1,100 (+10.0%) | worse |" in told([Compared("bytecode", "call", 1100, 1000)])


def test_command_stores_compares_and_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "instructions.json"
    counts = {"call": 1_000.0}
    monkeypatch.setattr(instructions, "measured", lambda: {"bytecode": counts})

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["instructions", "--stored", str(file), *arguments])
        return instructions.main()

    assert run() == 2
    assert run("--store") == 0
    assert run() == 0
    counts["call"] = 1_100.0
    assert run() == 1
    assert json.loads(file.read_text(encoding="utf-8")) == {place("bytecode"): {"call": 1_000.0}}
