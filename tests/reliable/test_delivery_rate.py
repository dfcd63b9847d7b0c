from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import LinkOptions
from zmesh.reliable.delivery_rate import SLOT_S, SLOTS, DeliveryRate, Snapshot
from zmesh.reliable.round_trip import RoundTrip

FLOOR = 256 * 1024


def sampled(rtt: float) -> RoundTrip:
    round_trip = RoundTrip(LinkOptions())
    round_trip.on_sample(rtt, 0.0)
    return round_trip


def test_nothing_is_known_before_the_first_ack() -> None:
    rate = DeliveryRate()
    rate.on_sent(1000, 10.0)
    assert rate.bytes_per_s == 0.0
    assert rate.in_flight_bytes == 1000
    assert rate.in_flight_max(RoundTrip(LinkOptions()), FLOOR) == FLOOR
    assert rate.in_flight_max(sampled(0.1), FLOOR) == FLOOR


def test_first_ack_gives_bytes_over_round_trip() -> None:
    rate = DeliveryRate()
    rate.on_sent(1000, 10.0)
    newest = rate.on_sent(1000, 10.1)
    rate.on_acked(newest, 2000, 10.5)
    assert rate.bytes_per_s == pytest.approx(2000 / 0.5)
    assert rate.in_flight_bytes == 0


def test_steady_stream_is_measured_at_its_rate() -> None:
    """1000 bytes every 10 ms, each acked 100 ms later."""
    rate = DeliveryRate()
    sent: deque[Snapshot] = deque()
    for turn in range(2000):
        if turn >= 10:
            rate.on_acked(sent.popleft(), 1000, turn * 0.010)
        sent.append(rate.on_sent(1000, turn * 0.010))
    assert rate.bytes_per_s == pytest.approx(100_000, rel=0.02)


def test_acks_in_a_bunch_do_not_inflate_the_rate() -> None:
    """100 kB/s; the ACK of the first packet comes alone, those of all others at once soon after.

    Most of them were sent long before the first ACK, so the time since it is too short.
    """
    rate = DeliveryRate()
    sent = [rate.on_sent(1000, turn * 0.010) for turn in range(51)]
    rate.on_acked(sent[0], 1000, 0.505)
    sent += [rate.on_sent(1000, turn * 0.010) for turn in range(51, 60)]
    rate.on_acked(sent[-1], 59_000, 0.600)
    assert rate.bytes_per_s == pytest.approx(100_000, rel=0.02)


def test_idle_time_does_not_count() -> None:
    rate = DeliveryRate()
    rate.on_acked(rate.on_sent(1000, 0.0), 1000, 0.1)
    rate.on_acked(rate.on_sent(50_000, 60.0), 50_000, 60.1)
    assert rate.bytes_per_s == pytest.approx(500_000)


def test_lost_bytes_are_no_longer_in_flight() -> None:
    rate = DeliveryRate()
    rate.on_sent(1000, 0.0)
    rate.on_lost(1000)
    assert rate.in_flight_bytes == 0
    rate.on_acked(rate.on_sent(1000, 60.0), 1000, 60.1)  # the path counts as idle before
    assert rate.bytes_per_s == pytest.approx(10_000)
    rate.on_lost(1000)  # and acked after all
    assert rate.in_flight_bytes == 0


def test_best_rate_is_remembered_for_the_window_only() -> None:
    rate = DeliveryRate()
    rate.on_acked(rate.on_sent(100_000, 0.0), 100_000, 0.1)
    inside = SLOT_S * (SLOTS - 1)
    rate.on_acked(rate.on_sent(1000, inside - 0.1), 1000, inside)
    assert rate.bytes_per_s == pytest.approx(1_000_000)
    outside = SLOT_S * SLOTS
    rate.on_acked(rate.on_sent(2000, outside - 0.1), 2000, outside)
    assert rate.bytes_per_s == pytest.approx(20_000)


def test_an_ack_in_no_time_is_not_a_sample() -> None:
    rate = DeliveryRate()
    rate.on_acked(rate.on_sent(1000, 5.0), 1000, 5.0)
    rate.on_acked(rate.on_sent(1000, 0.0), 1000, 1e-300)
    assert rate.bytes_per_s == 0.0


def test_in_flight_limit_is_twice_what_the_path_holds() -> None:
    rate = DeliveryRate()
    rate.on_acked(rate.on_sent(1_000_000, 0.0), 1_000_000, 0.1)
    limit = rate.in_flight_max(sampled(0.075), FLOOR)
    assert limit == pytest.approx(2 * 10_000_000 * (0.075 + LinkOptions().ack_delay_max), abs=1)


def test_in_flight_limit_does_not_grow_with_the_queue_it_makes() -> None:
    """A path of 10 MB/s and 50 ms: whatever is beyond 500 kB waits, and lengthens the trip."""
    rate, round_trip, now = DeliveryRate(), RoundTrip(LinkOptions()), 0.0
    limits = []
    for _ in range(100):
        size = rate.in_flight_max(round_trip, FLOOR)
        limits.append(size)
        snapshot = rate.on_sent(size, now)
        trip = max(0.050, size / 10e6)
        now += trip
        rate.on_acked(snapshot, size, now)
        round_trip.on_sample(trip, 0.0)
    assert max(limits) <= 2 * 10e6 * 0.075 + 1
    assert limits[-1] > 10e6 * 0.050  # and yet the path is full


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "ack", "lose"]), st.integers(1, 10**6), st.floats(0.0, 3.0)
        ),
        max_size=60,
    )
)
def test_whatever_happens_memory_and_estimate_are_bounded(
    steps: list[tuple[str, int, float]],
) -> None:
    rate, now = DeliveryRate(), 0.0
    sent: list[tuple[Snapshot, int]] = []
    for step, size, pause in steps:
        now += pause
        if step == "send":
            sent.append((rate.on_sent(size, now), size))
        elif sent:
            snapshot, size_sent = sent.pop(size % len(sent))
            if step == "ack":
                rate.on_acked(snapshot, size_sent, now)
            else:
                rate.on_lost(size_sent)
        assert rate.in_flight_bytes == sum(size_sent for _, size_sent in sent)
        assert rate.bytes_per_s >= 0.0
        assert len(rate._best) <= SLOTS
        assert rate.in_flight_max(sampled(0.1), FLOOR) >= FLOOR
