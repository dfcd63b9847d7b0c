import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import LinkOptions
from zmesh.reliable.round_trip import RoundTrip


def round_trip(*samples: float, ack_delay: float = 0.0) -> RoundTrip:
    trip = RoundTrip(LinkOptions())
    for sample in samples:
        trip.on_sample(sample, ack_delay)
    return trip


def test_first_sample_sets_everything() -> None:
    trip = round_trip(0.040, ack_delay=0.020)
    assert trip.smoothed == trip.latest == trip.minimum == 0.040
    assert trip.deviation == 0.020


def test_later_samples_are_smoothed_as_in_rfc_9002() -> None:
    trip = round_trip(0.100, 0.200)
    assert trip.smoothed == pytest.approx(7 / 8 * 0.100 + 1 / 8 * 0.200)
    assert trip.deviation == pytest.approx(3 / 4 * 0.050 + 1 / 4 * 0.100)
    assert trip.latest == 0.200
    assert trip.minimum == 0.100


def test_ack_delay_is_taken_off() -> None:
    trip = round_trip(0.100)
    trip.on_sample(0.140, 0.020)
    assert trip.smoothed == pytest.approx(7 / 8 * 0.100 + 1 / 8 * 0.120)
    assert trip.deviation == pytest.approx(3 / 4 * 0.050 + 1 / 4 * 0.020)


def test_ack_delay_is_believed_up_to_its_limit_only() -> None:
    trip = round_trip(0.100)
    trip.on_sample(0.200, 5.0)
    assert trip.smoothed == pytest.approx(7 / 8 * 0.100 + 1 / 8 * 0.175)


def test_ack_delay_that_makes_the_trip_impossibly_short_is_ignored() -> None:
    trip = round_trip(0.100)
    trip.on_sample(0.105, 0.020)
    assert trip.smoothed == pytest.approx(7 / 8 * 0.100 + 1 / 8 * 0.105)


def test_probe_timeout_before_any_sample_is_the_initial_one() -> None:
    assert round_trip().probe_timeout(0, 1.0) == 1.0
    assert round_trip().probe_timeout(1, 1.0) == 2.0


def test_probe_timeout_is_smoothed_plus_four_deviations_plus_ack_delay() -> None:
    trip = round_trip(0.100)
    assert trip.probe_timeout(0, 1.0) == pytest.approx(0.100 + 4 * 0.050 + 0.025)
    assert trip.probe_timeout(2, 1.0) == pytest.approx(4 * (0.100 + 4 * 0.050 + 0.025))


def test_probe_timeout_counts_at_least_the_granularity() -> None:
    trip = round_trip(*[0.300] * 60)
    assert trip.probe_timeout(0, 1.0) == pytest.approx(0.300 + 0.010 + 0.025)


def test_probe_timeout_on_a_fast_lan_doubles_from_its_floor() -> None:
    trip = round_trip(0.000_1)
    assert trip.probe_timeout(0, 1.0) == 0.2
    assert trip.probe_timeout(1, 1.0) == 0.4
    assert trip.probe_timeout(1, 1.2) == pytest.approx(0.48)
    assert trip.probe_timeout(0, 0.8) == 0.2


def test_probe_timeout_ends_at_its_ceiling() -> None:
    assert round_trip(0.100).probe_timeout(10, 1.2) == 30.0
    assert round_trip(0.100).probe_timeout(1_000_000, 0.8) == 30.0


def test_loss_delay_is_nine_eighths_of_the_longer_round_trip() -> None:
    assert round_trip().loss_delay() == 1.0
    assert round_trip(0.100, 0.400).loss_delay() == pytest.approx(9 / 8 * 0.400)
    slow_then_fast = round_trip(0.400, 0.100)
    assert slow_then_fast.smoothed is not None
    assert slow_then_fast.loss_delay() == pytest.approx(9 / 8 * slow_then_fast.smoothed)


def test_loss_delay_is_at_least_the_granularity() -> None:
    assert round_trip(0.000_1).loss_delay() == 0.010


def test_shortest_loop_is_the_shortest_round_trip_and_the_longest_ack_delay() -> None:
    assert round_trip().shortest_loop() is None
    assert round_trip(0.400, 0.100, 0.300).shortest_loop() == pytest.approx(0.125)


def test_reset_forgets_the_old_path() -> None:
    trip = round_trip(3.0, 4.0)
    trip.reset()
    assert [trip.smoothed, trip.latest, trip.minimum] == [None, None, None]
    assert trip.probe_timeout(0, 1.0) == 1.0
    trip.on_sample(0.100, 0.0)
    assert [trip.smoothed, trip.minimum, trip.deviation] == [0.100, 0.100, 0.050]


@given(
    st.lists(st.tuples(st.floats(0.0, 1e4), st.floats(0.0, 1e4)), max_size=50),
    st.integers(0, 10_000),
    st.floats(0.8, 1.2),
)
def test_whatever_is_sampled_timeouts_stay_in_bounds(
    samples: list[tuple[float, float]], backoff_count: int, jitter: float
) -> None:
    trip = RoundTrip(LinkOptions())
    for rtt, ack_delay in samples:
        trip.on_sample(rtt, ack_delay)
    if samples:
        assert trip.smoothed is not None
        assert trip.minimum == min(rtt for rtt, _ in samples)
        assert trip.smoothed <= max(rtt for rtt, _ in samples) * (1 + 1e-9)
        assert trip.smoothed >= trip.minimum * (1 - 1e-9)
    assert 0.2 <= trip.probe_timeout(backoff_count, jitter) <= 30.0
    assert trip.loss_delay() >= 0.010
