"""Stamps ascend, follow the wall clock, and are not carried away by a wrong one."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.patterns.hybrid_clock import LOGICAL_BITS, HybridClock

NOON = 1_700_000_000_000


def milliseconds(stamp: int) -> int:
    return stamp >> LOGICAL_BITS


def test_stamps_follow_the_wall_clock() -> None:
    clock = HybridClock(drift_max=60.0)
    assert clock.tick(NOON) == NOON << LOGICAL_BITS
    assert clock.tick(NOON + 5) == (NOON + 5) << LOGICAL_BITS


def test_stamps_ascend_within_a_millisecond_and_when_the_wall_clock_falls_back() -> None:
    clock = HybridClock(drift_max=60.0)
    stamps = [clock.tick(wall) for wall in (NOON, NOON, NOON - 1000, NOON - 5000, NOON + 1)]
    assert stamps == sorted(set(stamps))
    assert milliseconds(stamps[3]) == NOON
    assert milliseconds(stamps[4]) == NOON + 1


def test_what_happens_after_something_was_heard_is_stamped_above_it() -> None:
    ahead, behind = HybridClock(60.0), HybridClock(60.0)
    cause = ahead.tick(NOON + 3000)
    behind.observe(cause)
    assert behind.tick(NOON) > cause
    assert milliseconds(behind.tick(NOON)) == NOON + 3000


def test_hearing_something_old_changes_nothing() -> None:
    clock = HybridClock(60.0)
    latest = clock.tick(NOON)
    clock.observe(latest - 1)
    assert clock.latest == latest


def test_a_full_counter_carries_into_the_milliseconds() -> None:
    clock = HybridClock(60.0)
    clock.observe((NOON << LOGICAL_BITS) + (1 << LOGICAL_BITS) - 1)
    assert clock.tick(NOON) == (NOON + 1) << LOGICAL_BITS


def test_the_ceiling_is_the_drift_above_the_wall_clock() -> None:
    assert HybridClock(drift_max=2.5).ceiling(NOON) == (NOON + 2500) << LOGICAL_BITS


def test_reset_lets_stamps_follow_a_wall_clock_that_was_put_back() -> None:
    clock = HybridClock(60.0)
    clock.tick(NOON + 86_400_000)
    clock.reset()
    assert milliseconds(clock.tick(NOON)) == NOON


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 10_000)), max_size=40))
def test_causes_are_stamped_below_effects_whatever_the_clocks_say(
    steps: list[tuple[int, bool, int]],
) -> None:
    clocks = [HybridClock(60.0) for _ in range(3)]
    board: list[int] = []  # what was told, read by whoever reads
    for who, reads, wall in steps:
        if reads and board:
            clocks[who].observe(board[-1])
            assert clocks[who].tick(wall) > board[-1]
        before = clocks[who].latest
        stamp = clocks[who].tick(wall)
        assert stamp > before
        assert milliseconds(stamp) <= max([10_000, *map(milliseconds, board)])
        board.append(stamp)
