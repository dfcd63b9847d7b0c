from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import LinkOptions
from zmesh.reliable.credit import CreditPool, LaneCredit

OPTIONS = LinkOptions(
    window_messages=10, window_messages_max=40, window_bytes=1000, window_bytes_max=8000
)
ROUND_TRIP = 0.1


def lane(pool_bytes: int = 100_000, options: LinkOptions = OPTIONS) -> LaneCredit:
    return LaneCredit(options, CreditPool(pool_bytes))


def use_up(credit: LaneCredit, now: float) -> tuple[int, int]:
    """Consume a whole window of messages and bytes, and grant."""
    credit.consume(credit.window_messages, credit.window_bytes)
    return credit.grant(now, ROUND_TRIP)


# Pools


def test_a_pool_gives_no_more_than_it_has() -> None:
    pool = CreditPool(100)
    assert pool.draw(60)
    assert not pool.draw(41)
    assert pool.used == 60
    assert pool.draw(40)
    assert not pool.draw(1)
    pool.put_back(100)
    assert pool.draw(100)


def test_a_pool_draws_on_its_parent_all_or_nothing() -> None:
    node = CreditPool(100)
    one, other = CreditPool(80, node), CreditPool(80, node)
    assert one.draw(80)
    assert not other.draw(21)
    assert (other.used, node.used) == (0, 80)
    assert other.draw(20)
    one.put_back(80)
    assert (one.used, node.used) == (0, 20)
    assert other.draw(60)
    assert not other.draw(1)  # its own limit
    assert node.used == 80


# Limits


def test_the_first_limits_are_the_window() -> None:
    assert lane().grant(0.0, None) == (10, 1000)


def test_limits_are_absolute_and_rise_with_what_was_consumed() -> None:
    credit = lane()
    credit.consume(3, 200)
    assert credit.grant(0.0, ROUND_TRIP) == (13, 1200)
    assert credit.grant(5.0, ROUND_TRIP) == (13, 1200)  # nothing new: the same word again
    credit.consume(1, 0)
    assert credit.grant(5.0, ROUND_TRIP) == (14, 1200)


def test_a_peer_never_has_more_than_the_window_unconsumed() -> None:
    credit = lane()
    for turn in range(100):
        seq_limit, bytes_limit = credit.grant(turn * 1.0, ROUND_TRIP)
        assert seq_limit - credit.consumed_messages <= credit.window_messages
        assert bytes_limit - credit.consumed_bytes <= credit.window_bytes
        credit.consume(turn % 7, turn % 7 * 100)


# Growth


def test_a_window_used_up_within_four_round_trips_doubles() -> None:
    credit = lane()
    use_up(credit, 0.39)
    assert (credit.window_messages, credit.window_bytes) == (20, 2000)
    assert credit.grant(0.39, ROUND_TRIP) == (10 + 20, 1000 + 2000)


def test_a_window_used_up_slowly_stays() -> None:
    credit = lane()
    for turn in range(1, 20):
        use_up(credit, turn * 0.5)
    assert (credit.window_messages, credit.window_bytes) == (10, 1000)


def test_only_what_was_used_up_grows() -> None:
    many, large = lane(), lane()
    many.consume(10, 10)
    many.grant(0.1, ROUND_TRIP)
    large.consume(1, 1000)
    large.grant(0.1, ROUND_TRIP)
    assert (many.window_messages, many.window_bytes) == (20, 1000)
    assert (large.window_messages, large.window_bytes) == (10, 2000)


def test_windows_grow_to_their_maximum_and_no_further() -> None:
    credit = lane()
    for turn in range(1, 20):
        use_up(credit, turn * 0.01)
    assert (credit.window_messages, credit.window_bytes) == (40, 8000)


def test_before_a_round_trip_is_known_the_granularity_is_the_measure() -> None:
    quick, slow = lane(), lane()
    quick.consume(10, 0)
    quick.grant(4 * OPTIONS.granularity - 0.001, None)
    slow.consume(10, 0)
    slow.grant(4 * OPTIONS.granularity + 0.001, None)
    assert quick.window_messages == 20
    assert slow.window_messages == 10


def test_a_window_grows_only_as_far_as_the_pools_allow() -> None:
    node = CreditPool(3000)
    one = LaneCredit(OPTIONS, CreditPool(100_000, node))
    other = LaneCredit(OPTIONS, CreditPool(1500, node))
    use_up(one, 0.01)
    use_up(other, 0.01)
    assert (one.window_bytes, other.window_bytes, node.used) == (2000, 2000, 2000)
    use_up(other, 0.02)  # 2000 more are over its peer's 1500
    use_up(one, 0.02)  # and over the node's 3000
    assert (one.window_bytes, other.window_bytes, node.used) == (2000, 2000, 2000)
    assert (one.window_messages, other.window_messages) == (40, 40)


def test_a_closed_lane_gives_back_what_it_drew_and_only_once() -> None:
    pool = CreditPool(100_000)
    credit = LaneCredit(OPTIONS, pool)
    use_up(credit, 0.01)
    use_up(credit, 0.02)
    assert pool.used == 3000
    credit.close()
    credit.close()
    assert pool.used == 0


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9000), st.floats(0.0, 1.0))),
    st.integers(0, 20_000),
)
def test_limits_never_shrink_and_are_never_over_window_and_pool(
    steps: list[tuple[int, int, float]], pool_bytes: int
) -> None:
    pool = CreditPool(pool_bytes)
    credit = LaneCredit(OPTIONS, pool)
    now, before = 0.0, credit.grant(0.0, None)
    for messages, size, pause in steps:
        now += pause
        credit.consume(messages, size)
        after = credit.grant(now, ROUND_TRIP)
        assert after[0] >= before[0]
        assert after[1] >= before[1]
        assert after[0] <= credit.consumed_messages + OPTIONS.window_messages_max
        assert after[1] <= credit.consumed_bytes + OPTIONS.window_bytes_max
        assert credit.window_bytes == OPTIONS.window_bytes + pool.used
        assert pool.used <= pool_bytes
        before = after


def test_a_window_at_its_maximum_draws_nothing() -> None:
    options = replace(OPTIONS, window_bytes_max=1000)
    pool = CreditPool(100_000)
    credit = LaneCredit(options, pool)
    use_up(credit, 0.01)
    assert (credit.window_bytes, pool.used) == (1000, 0)
