"""How often proofs are made and looked at."""

import pytest

from zmesh.core.proofs import Rate


def taken(rate: Rate, busy: float, now: float, times: int) -> tuple[int, float]:
    """How many of so many tries at one time are let pass."""
    passed = 0
    for _ in range(times):
        after = rate.after(busy, now)
        if after is not None:
            busy, passed = after, passed + 1
    return passed, busy


@pytest.mark.parametrize("burst", [1, 2, 8])
def test_a_burst_passes_at_once_and_then_as_many_as_time_brings(burst: int) -> None:
    rate = Rate(4.0, burst)
    passed, busy = taken(rate, 100.0, 100.0, 50)
    assert passed == burst
    passed, busy = taken(rate, busy, 100.2, 50)
    assert passed == 0
    passed, busy = taken(rate, busy, 100.25, 50)
    assert passed == 1
    passed, busy = taken(rate, busy, 200.0, 50)
    assert passed == burst, "what was not used for long is no more than a burst"


@pytest.mark.parametrize("burst", [1, 8])
def test_who_is_muted_is_not_heard_until_then(burst: int) -> None:
    rate = Rate(4.0, burst)
    busy = rate.muted(115.0)
    assert taken(rate, busy, 114.9, 5)[0] == 0
    assert taken(rate, busy, 115.0, 5)[0] == 1
