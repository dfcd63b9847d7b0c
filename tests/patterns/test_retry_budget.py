"""The budget of retries: a share of the calls, some a second, no more saved up than allowed."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import NodeOptions
from zmesh.patterns.retry_budget import RetryBudget

SMALL = NodeOptions(retries_per_call=0.25, retries_per_second=2.0, retries_saved_max=3.0)


def taken(budget: RetryBudget, now: float) -> int:
    count = 0
    while budget.take(now):
        count += 1
    return count


def test_what_is_saved_up_may_be_spent_at_once() -> None:
    assert taken(RetryBudget(SMALL, 10.0), 10.0) == 3


def test_calls_bring_their_share() -> None:
    budget = RetryBudget(SMALL, 0.0)
    taken(budget, 0.0)
    for _ in range(8):
        budget.on_calls()
    assert taken(budget, 0.0) == 2


def test_time_brings_some_and_no_more_than_may_be_saved() -> None:
    budget = RetryBudget(SMALL, 0.0)
    taken(budget, 0.0)
    assert not budget.take(0.25)
    assert budget.take(0.5)
    assert not budget.take(0.5)
    assert taken(budget, 100.0) == 3


@given(st.lists(st.tuples(st.integers(0, 20), st.floats(0.0, 2.0)), max_size=30))
def test_retries_never_exceed_what_calls_time_and_savings_allow(
    steps: list[tuple[int, float]],
) -> None:
    budget, now, calls, spent = RetryBudget(SMALL, 0.0), 0.0, 0, 0
    for made, seconds in steps:
        now += seconds
        calls += made
        for _ in range(made):
            budget.on_calls()
        spent += taken(budget, now)
        assert spent <= 3.0 + 0.25 * calls + 2.0 * now + 1e-6
