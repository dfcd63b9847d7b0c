"""The proof that the simulator can fail: every planted bug is found within 1,000 seeds."""

import pytest

from tests.simulation import planted_durable, planted_security
from tests.simulation.found_at import FOUND_AT
from tests.simulation.planted import BUGS, Bug
from tests.simulation.regressions import REGRESSIONS
from zmesh.testing.findings import Violation
from zmesh.testing.simulate import run

SEEDS_MAX = 1000


def first_violation(bug: Bug) -> Violation | None:
    found = [FOUND_AT[bug.name]] if bug.name in FOUND_AT else []
    known = [seed for level, seed, _ in REGRESSIONS if level == bug.level and seed < SEEDS_MAX]
    for seed in (*found, *known, *range(0, SEEDS_MAX, bug.every)):
        for violation in run(seed, bug.level).first:
            if violation.rule in bug.rules:
                return violation
    return None


def test_at_least_twenty_bugs_are_planted() -> None:
    assert len({bug.name for bug in BUGS}) >= 20
    durable = {bug.name for bug in BUGS if bug.level == "durable"}
    assert len(durable) >= 8
    assert durable <= vars(planted_durable).keys()
    security = [bug for bug in BUGS if bug.name in vars(planted_security)]
    assert len(security) >= 6


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    bug.plant(monkeypatch)
    assert first_violation(bug) is not None


def test_what_is_known_of_the_bugs_is_of_bugs_there_are() -> None:
    assert FOUND_AT.keys() <= {bug.name for bug in BUGS}
    assert all(0 <= seed < SEEDS_MAX for seed in FOUND_AT.values())
