"""Seeds without a bug planted: nothing may be found. `make simulate` runs many more."""

import json
import os
import subprocess
import sys

import pytest

from tests.simulation.regressions import REGRESSIONS
from zmesh.testing.scenario import Level
from zmesh.testing.simulate import explain, main, run

SEEDS: dict[Level, int] = {"link": 400, "node": 250, "durable": 80}
"""Of about 0.04, 0.12 and 0.18 s of CPU each, so that all take some 30 s on two cores."""

BATCH = 10  # seeds a test, so that parallel workers share them and none takes long


@pytest.mark.parametrize(
    ("level", "first"),
    [(level, first) for level in SEEDS for first in range(0, SEEDS[level], BATCH)],
)
def test_seeds_keep_every_promise(level: Level, first: int) -> None:
    for seed in range(first, first + BATCH):
        report = run(seed, level)
        assert not report.violations, explain(report)


@pytest.mark.parametrize(("level", "seed", "why"), REGRESSIONS)
def test_seed_that_found_a_bug_finds_it_no_more(level: Level, seed: int, why: str) -> None:
    report = run(seed, level)
    assert not report.violations, f"{why}\n{explain(report)}"


@pytest.mark.parametrize("level", ["link", "node", "durable"])
def test_the_same_seed_gives_the_same_trace(level: Level) -> None:
    first, again, traced = run(3, level), run(3, level), run(3, level, lines_max=10)
    assert first == again
    assert first.digest == traced.digest
    assert len(traced.lines) == 10
    assert run(4, level).digest != first.digest


@pytest.mark.parametrize("level", ["link", "node", "durable"])
def test_the_trace_does_not_depend_on_the_process_or_its_hash_seed(level: Level) -> None:
    command = [sys.executable, "-m", "zmesh.testing.simulate", "--json", "--level", level]
    lines = set()
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [*command, "--seeds", "0:12"], env=environment, capture_output=True, check=True
        )
        lines.add(done.stdout)
    assert len(lines) == 1


def test_json_is_one_line_with_the_sums(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "0:3", "--level", "link", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    sums = json.loads(line)
    assert sums["seeds"] == 3
    assert sums["violations"] == sums["lost"] == sums["duplicated"] == sums["misordered"] == 0
    assert sums["steps"] > sums["messages"] > 0
    assert set(sums) == {
        "seeds", "steps", "messages", "faults", "lost", "duplicated", "misordered", "violations",
        "trace_hash",
    }  # fmt: skip


def test_workers_share_the_seeds_and_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for workers in ("1", "2"):
        assert main(["--seeds", "0:6", "--level", "link", "--json", "--workers", workers]) == 0
    alone, shared = capsys.readouterr().out.splitlines()
    assert alone == shared


def test_violations_are_explained_with_the_command_that_replays_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.reliable.receiver.IncomingLane.settle", lambda *_: True)
    assert main(["--seeds", "0:1", "--level", "link"]) == 1
    printed = capsys.readouterr()
    assert "python -m zmesh.testing.simulate --level link --seed 0 --trace" in printed.err
    assert "lost" in printed.err
    assert main(["--seed", "0", "--level", "link", "--trace"]) == 1
    printed = capsys.readouterr()
    assert "a1 boots" in printed.out
    assert "violations, trace" in printed.out


def test_a_bug_that_raises_is_a_violation_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("zmesh.reliable.link.Link.packets", broken)
    report = run(0, "link")
    assert report.first[0].rule.value == "crashed"
    assert "ZeroDivisionError" in report.first[0].text
