from collections.abc import Callable
from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from sys import getsizeof

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.options import LinkOptions
from zmesh.patience import FACTOR_MAX
from zmesh.reliable.detector import FailureDetector
from zmesh.reliable.round_trip import RoundTrip

OPTIONS = LinkOptions()
SUSPECT, LOST = OPTIONS.suspect_phi, OPTIONS.lost_phi
Answer = Callable[[int, float], float | None]
"""From the number of a ping and its time: how long the answer takes, or None."""


def detector(rtt: float | None = 0.001, start: float = 0.0) -> FailureDetector:
    round_trip = RoundTrip(OPTIONS)
    if rtt is not None:
        round_trip.on_sample(rtt, 0.0)
    made = FailureDetector(OPTIONS, round_trip)
    made.restart(start)
    return made


def run(
    subject: FailureDetector, until: float, answer: Answer, data_pending: bool = False
) -> tuple[list[float], float | None]:
    """Do as a link does; return when pings went out, and when the peer was suspected."""
    pings: list[float] = []
    answers: list[float] = []
    while True:
        suspected = subject.deadline(SUSPECT)
        due = min(subject.ping_deadline(data_pending), suspected, *answers[:1])
        if due > until:
            return pings, None
        if answers and due == answers[0]:
            subject.heard(heappop(answers))
        elif subject.phi(due) >= SUSPECT:
            return pings, due
        else:
            assert subject.ping_due(due, data_pending)
            subject.on_ping_sent(due)
            delay = answer(len(pings), due)
            pings.append(due)
            if delay is not None:
                heappush(answers, due + delay)


def always(delay: float) -> Answer:
    return lambda _number, _now: delay


def never(_number: int, _now: float) -> None:
    return None


def test_a_detector_that_was_never_started_suspects_nobody() -> None:
    subject = FailureDetector(OPTIONS, RoundTrip(OPTIONS))
    assert subject.phi(1e6) == 0.0
    assert subject.deadline(SUSPECT) == inf
    assert not subject.ping_due(1e6, data_pending=True)


@pytest.mark.parametrize("delay", [0.0005, 0.050, 0.9, 2.9])
@pytest.mark.parametrize("data_pending", [False, True])
def test_ten_minutes_of_answered_pings_bring_no_suspicion(
    delay: float, data_pending: bool
) -> None:
    pings, suspected = run(detector(delay), 600.0, always(delay), data_pending)
    assert suspected is None
    assert len(pings) > 50


@pytest.mark.parametrize("rtt", [None, 0.0005, 0.1, 0.4])
@pytest.mark.parametrize("data_pending", [False, True])
def test_one_lost_heartbeat_brings_no_suspicion(rtt: float | None, data_pending: bool) -> None:
    for lost in range(8):
        answers: Answer = lambda number, _now, lost=lost: (  # type: ignore[misc]  # noqa: E731
            None if number == lost else rtt or 0.001
        )
        _, suspected = run(detector(rtt), 100.0, answers, data_pending)
        assert suspected is None


def test_silence_is_suspected_and_then_lost_within_four_seconds_of_the_ping() -> None:
    subject = detector()
    pings, suspected = run(subject, 100.0, never, data_pending=True)
    assert pings[0] == 0.25
    assert suspected is not None
    assert 3.0 < suspected - pings[0] < 4.0
    lost = subject.deadline(LOST)
    assert suspected < lost < pings[0] + 4.0
    assert subject.phi(lost) >= LOST


def test_pings_go_out_again_and_again_at_doubling_intervals() -> None:
    subject, pings = detector(), []
    for _ in range(9):
        pings.append(subject.ping_deadline(data_pending=True))
        subject.on_ping_sent(pings[-1])
    gaps = [after - before for before, after in pairwise(pings)]
    assert gaps == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_any_frame_ends_the_suspicion() -> None:
    subject = detector()
    _, suspected = run(subject, 100.0, never)
    assert suspected is not None
    subject.heard(suspected + 1.0)
    assert subject.phi(suspected + 1.0) == 0.0
    assert subject.deadline(SUSPECT) == inf
    assert run(subject, suspected + 60.0, always(0.001))[1] is None


def test_silence_before_a_ping_means_nothing() -> None:
    subject = detector()
    assert subject.phi(9.9) == 0.0
    subject.on_ping_sent(10.0)
    assert subject.phi(10.0) < 0.001
    assert subject.phi(12.0) < 0.001


def test_ping_interval_with_data_pending_is_four_round_trips_within_bounds() -> None:
    for rtt, expected in [(0.001, 0.25), (0.1, 0.4), (3.0, 2.0), (None, 2.0)]:
        assert detector(rtt, 7.0).ping_deadline(data_pending=True) == 7.0 + expected


def test_ping_interval_rises_from_two_to_ten_seconds_while_idle() -> None:
    pings, _ = run(detector(), 60.0, always(0.0))
    gaps = [after - before for before, after in pairwise(pings)]
    assert pings[0] == 2.0
    assert gaps == [3.0, 4.5, 6.75, 10.0, 10.0, 10.0, 10.0][: len(gaps)]
    assert len(gaps) >= 5


def test_traffic_brings_the_idle_interval_down_and_the_peers_heartbeats_do_not() -> None:
    subject = detector()
    run(subject, 60.0, always(0.0))
    for turn in range(20):
        subject.heard(60.0 + turn * 5.0)
    assert subject.ping_deadline(data_pending=False) == 155.0 + 10.0
    for turn in range(20):
        subject.heard(156.0 + turn * 0.01)
    assert subject.ping_deadline(data_pending=False) == pytest.approx(156.19 + 2.0)


def test_own_stall_of_thirty_seconds_brings_no_suspicion() -> None:
    for stalled_at in (2.0, 2.1, 4.0):
        subject = detector()
        subject.on_ping_sent(2.0)
        woken = stalled_at + 30.0
        assert subject.phi(woken) > LOST
        subject.on_loop_late(30.0, woken)
        assert subject.phi(woken) < SUSPECT
        assert subject.deadline(SUSPECT) > woken + 3.0
        subject.heard(woken + 0.001)
        assert run(subject, woken + 60.0, always(0.001))[1] is None


def test_a_lag_longer_than_the_wait_leaves_none_but_no_more() -> None:
    subject = detector()
    subject.on_ping_sent(10.0)
    subject.on_loop_late(30.0, 11.0)
    assert subject.deadline(SUSPECT) < 11.0 + FACTOR_MAX * 3.8


def test_a_late_loop_makes_patient_and_a_punctual_one_forgets_it() -> None:
    subject = detector()
    subject.on_loop_late(3.0, 10.0)
    assert subject.multiplier == 4.0
    subject.on_loop_late(100.0, 10.0)
    assert subject.multiplier == FACTOR_MAX
    subject.on_ping_sent(15.0)
    assert subject.multiplier == pytest.approx(1.0 + 7.0 / 2)
    patient = subject.deadline(SUSPECT) - 15.0
    subject.heard(15.1)
    subject.on_ping_sent(75.0)
    assert subject.multiplier == pytest.approx(1.0, abs=0.01)
    assert patient == pytest.approx(4.5 * (subject.deadline(SUSPECT) - 75.0), rel=0.02)


def test_a_dead_peer_is_found_even_after_an_own_stall() -> None:
    subject = detector()
    subject.on_ping_sent(2.0)
    subject.on_loop_late(30.0, 32.0)
    _, suspected = run(subject, 200.0, never)
    assert suspected is not None
    assert suspected < 32.0 + 30.0


def test_slow_answers_make_patient() -> None:
    quick, slow = detector(), detector()
    run(quick, 3600.0, always(0.001))
    run(slow, 3600.0, always(1.5))
    for subject in (quick, slow):
        subject.heard(4000.0)
        subject.on_ping_sent(4010.0)
    assert quick.deadline(SUSPECT) < 4010.0 + 3.8
    assert slow.deadline(SUSPECT) > 4010.0 + 5.0


def test_answers_always_as_late_may_still_be_a_quarter_later() -> None:
    subject = detector()
    run(subject, 20_000.0, always(2.0))
    subject.heard(20_000.0)
    subject.on_ping_sent(20_010.0)
    mean_and_pause = 2.0 + 3.0
    assert subject.deadline(SUSPECT) == pytest.approx(20_010.0 + mean_and_pause + 5.226 * 0.5)


def test_a_restart_forgets_the_waits_of_the_old_path() -> None:
    subject = detector()
    run(subject, 3600.0, always(2.9))
    subject.on_ping_sent(3700.0)
    subject.restart(3710.0)
    assert subject.phi(3800.0) == 0.0
    assert subject.ping_deadline(data_pending=False) == 3712.0
    subject.on_ping_sent(3712.0)
    assert subject.deadline(SUSPECT) < 3712.0 + 4.0


def test_samples_are_bounded_and_their_sums_exact() -> None:
    subject = detector()
    for turn in range(3 * OPTIONS.samples_max):
        subject.on_ping_sent(turn * 1.0)
        subject.heard(turn * 1.0 + (turn % 7) * 0.1)
    assert len(subject._waits) == OPTIONS.samples_max
    assert subject._sum == sum(subject._waits)
    assert subject._square_sum == sum(wait * wait for wait in subject._waits)


@given(
    start=st.floats(0.0, 2e9),
    waits=st.lists(st.floats(0.0, 1000.0), max_size=30),
    lags=st.lists(st.floats(0.0, 100.0), max_size=5),
    thresholds=st.lists(st.floats(0.01, 300.0), min_size=1, max_size=5),
)
def test_phi_is_at_the_threshold_at_its_deadline_and_not_long_before(
    start: float, waits: list[float], lags: list[float], thresholds: list[float]
) -> None:
    subject, now = detector(0.1, start), start
    for wait in waits:
        subject.on_ping_sent(now)
        now += wait
        subject.heard(now)
    subject.on_ping_sent(now)
    for lag in lags:
        now += lag
        subject.on_loop_late(lag, now)
    for threshold in thresholds:
        deadline = subject.deadline(threshold)
        assert subject.phi(deadline) >= threshold
        assert subject.phi(deadline - 0.001) < threshold


@given(
    waits=st.lists(st.floats(0.0, 1000.0), max_size=300),
    idle=st.booleans(),
)
def test_real_silence_is_found_in_bounded_time_whatever_was_before(
    waits: list[float], idle: bool
) -> None:
    subject, now = detector(), 0.0
    for wait in waits:
        now = subject.ping_deadline(data_pending=not idle)
        subject.on_ping_sent(now)
        now += wait
        subject.heard(now)
    pings, suspected = run(subject, now + 1000.0, never, data_pending=not idle)
    assert suspected is not None
    assert pings[0] - now <= OPTIONS.ping_idle_max + 1e-6  # floats, far from zero
    assert suspected - pings[0] <= 14.0
    assert subject.deadline(LOST) - pings[0] <= 16.0


def test_a_window_of_waits_takes_four_bytes_each() -> None:
    subject = detector()
    for turn in range(OPTIONS.samples_max):
        subject.on_ping_sent(turn * 20.0)
        subject.heard(turn * 20.0 + 0.001 * turn)
    assert getsizeof(subject._waits) < 5 * OPTIONS.samples_max
