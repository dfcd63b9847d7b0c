from math import inf

import pytest

from zmesh.events import PathCause
from zmesh.options import LinkOptions
from zmesh.reliable.link_events import Liveness, LivenessChanged
from zmesh.reliable.liveness import LivenessVerdict
from zmesh.reliable.round_trip import RoundTrip

OPTIONS = LinkOptions()
ENDPOINTS = ("tcp://one", "tcp://two")
REFUSED, UNREACHABLE = PathCause.REFUSED, PathCause.UNREACHABLE
CONNECTED = None
START = 100.0


class Bench:
    """A verdict on a peer with two endpoints, on a link that has just been opened."""

    def __init__(self, endpoints: tuple[str, ...] = ENDPOINTS) -> None:
        round_trip = RoundTrip(OPTIONS)
        round_trip.on_sample(0.001, 0.0)
        self.verdict = LivenessVerdict(OPTIONS, round_trip)
        self.endpoints = endpoints
        self.verdict.on_open(START)
        self.verdict.take_events()

    def state(self) -> Liveness:
        return self.verdict.state

    def ping(self, now: float) -> None:
        self.verdict.detector.on_ping_sent(now)

    def tick(self, now: float) -> None:
        self.verdict.on_timer(self.endpoints, now)

    def told(self) -> list[Liveness | tuple[str, ...]]:
        """New verdicts and wanted probes since the last call."""
        events = self.verdict.take_events()
        return [
            event.new if isinstance(event, LivenessChanged) else event.endpoints
            for event in events
        ]

    def answer(self, now: float, *causes: PathCause | None) -> None:
        for endpoint, cause in zip(self.endpoints, causes, strict=False):
            self.verdict.on_probe(endpoint, cause, now)

    def next_at(self) -> float:
        return self.verdict.due

    def run(self, until: float) -> None:
        """Let the timer fire whenever it wants to."""
        fired = 0
        while (due := self.verdict.due) <= until:
            fired += 1
            assert fired < 1000, "time stands still"
            self.tick(due)

    def silent(self, now: float = START) -> "Bench":
        """A peer that was pinged and is suspected now."""
        self.ping(now)
        self.tick(self.verdict.due)
        assert self.told() == [Liveness.SUSPECT, self.endpoints]
        return self


def test_a_peer_is_joining_until_a_link_opens() -> None:
    verdict = LivenessVerdict(OPTIONS, RoundTrip(OPTIONS))
    assert verdict.due == inf
    verdict.on_open(START)
    assert verdict.state is Liveness.ALIVE
    joined = LivenessChanged(Liveness.JOINING, Liveness.ALIVE, "linked")
    assert verdict.take_events() == [joined]
    assert verdict.take_events() == []


def test_a_handshake_that_fails_makes_nobody_suspect() -> None:
    verdict = LivenessVerdict(OPTIONS, RoundTrip(OPTIONS))
    verdict.on_link_down("no answer to HELLO", START)
    verdict.on_timer(ENDPOINTS, START + 100.0)
    assert verdict.state is Liveness.JOINING
    assert verdict.take_events() == []
    assert verdict.due == inf


def test_silence_that_nobody_asked_to_end_means_nothing() -> None:
    bench = Bench()
    bench.tick(START + 3600.0)
    assert bench.told() == []


def test_an_unanswered_ping_makes_suspect_and_the_endpoints_are_probed() -> None:
    bench = Bench()
    bench.ping(START)
    due = bench.next_at()
    assert START + 3.0 < due < START + 4.0
    bench.tick(due - 0.01)
    assert bench.told() == []
    bench.tick(due)
    assert bench.told() == [Liveness.SUSPECT, ENDPOINTS]


@pytest.mark.parametrize(
    "causes", [(CONNECTED, REFUSED), (UNREACHABLE, CONNECTED), (CONNECTED,) * 2]
)
def test_a_probe_that_succeeds_makes_busy(causes: tuple[PathCause | None, ...]) -> None:
    bench = Bench().silent()
    bench.answer(START + 4.0, *causes)
    assert bench.told() == [Liveness.BUSY]


def test_a_busy_peer_is_never_lost_while_its_host_accepts_connections() -> None:
    bench = Bench().silent()
    now = START + 4.0
    for _ in range(1000):
        bench.answer(now, CONNECTED, CONNECTED)
        assert bench.state() is Liveness.BUSY
        due = bench.next_at()
        assert due == now + OPTIONS.probe_interval
        bench.tick(due)
        now = due + 0.1
    assert bench.told()[0] is Liveness.BUSY
    assert not bench.told()


def test_silence_alone_never_makes_lost() -> None:
    """No probe has been answered yet: not even as failed."""
    bench = Bench().silent()
    bench.tick(START + 5.0)
    assert bench.verdict.detector.phi(START + 5.0) > OPTIONS.lost_phi
    assert bench.state() is Liveness.SUSPECT


def test_refusals_while_the_link_is_open_are_not_enough() -> None:
    bench = Bench().silent()
    bench.answer(START + 3.9, REFUSED, REFUSED)
    assert bench.state() is Liveness.SUSPECT
    bench.verdict.on_link_down("its connection ended", START + 4.0)
    bench.tick(START + 4.0)
    bench.answer(START + 4.001, REFUSED, REFUSED)
    assert bench.state() is Liveness.LOST


def test_a_killed_process_is_lost_as_soon_as_its_host_refuses() -> None:
    bench = Bench()
    bench.verdict.on_link_down("its connection ended", START)
    assert bench.next_at() == START
    bench.tick(START)
    assert bench.told() == [Liveness.SUSPECT, ENDPOINTS]
    bench.answer(START + 0.001, REFUSED)
    assert bench.told() == []
    bench.verdict.on_probe(ENDPOINTS[1], REFUSED, START + 0.002)
    assert bench.told() == [Liveness.LOST]
    assert bench.verdict.process_gone
    assert bench.next_at() == inf


@pytest.mark.parametrize("causes", [(UNREACHABLE, UNREACHABLE), (REFUSED, UNREACHABLE)])
def test_a_host_out_of_reach_is_lost_when_the_silence_is_sure(
    causes: tuple[PathCause, ...],
) -> None:
    bench = Bench().silent()
    bench.answer(START + 3.2, *causes)
    assert bench.state() is Liveness.SUSPECT
    sure = bench.next_at()
    assert sure is not None
    assert START + 3.2 < sure < START + 4.5
    bench.tick(sure - 0.01)
    assert bench.state() is Liveness.SUSPECT
    bench.tick(sure)
    assert bench.told() == [Liveness.LOST]
    assert not bench.verdict.process_gone
    assert bench.next_at() == inf


def test_a_failed_probe_after_the_silence_was_sure_makes_lost_at_once() -> None:
    bench = Bench().silent()
    bench.answer(START + 5.0, UNREACHABLE, UNREACHABLE)
    assert bench.told() == [Liveness.LOST]


def test_a_probe_that_is_never_answered_counts_as_failed() -> None:
    bench = Bench().silent()
    bench.answer(START + 3.7, REFUSED)
    due = bench.next_at()
    assert due < START + 4.0 + OPTIONS.probe_interval
    bench.tick(due)
    assert bench.told() == [Liveness.LOST]


def test_without_a_link_silence_is_counted_from_its_end() -> None:
    """Nobody was pinged: the path ended in the middle of nothing."""
    bench = Bench()
    bench.verdict.on_link_down("its connection ended", START)
    bench.tick(START)
    bench.answer(START + 2.0, UNREACHABLE, UNREACHABLE)
    assert bench.told() == [Liveness.SUSPECT, ENDPOINTS]
    bench.run(START + 3.0)
    assert bench.state() is Liveness.SUSPECT
    while bench.state() is Liveness.SUSPECT:
        due = bench.next_at()
        assert due < START + 5.0
        bench.tick(due)
    assert bench.state() is Liveness.LOST


def test_a_round_of_probes_under_way_goes_on_when_the_link_goes_down() -> None:
    """A probe that is about to succeed must not count as failed because of it."""
    bench = Bench().silent()
    bench.verdict.on_link_down("it acknowledges nothing", START + 4.0)
    bench.tick(START + 4.0)
    assert bench.told() == []
    bench.answer(START + 4.08, CONNECTED, REFUSED)
    assert bench.told() == [Liveness.BUSY]


def test_a_busy_peer_whose_host_vanishes_is_lost() -> None:
    bench = Bench().silent()
    bench.answer(START + 4.0, CONNECTED, CONNECTED)
    bench.run(START + 6.0)
    bench.answer(START + 8.0, UNREACHABLE, UNREACHABLE)
    assert bench.told() == [Liveness.BUSY, ENDPOINTS, Liveness.SUSPECT, Liveness.LOST]


def test_a_busy_peer_whose_process_dies_is_lost_with_its_link() -> None:
    bench = Bench().silent()
    bench.answer(START + 4.0, CONNECTED, CONNECTED)
    bench.run(START + 6.0)
    bench.answer(START + 6.1, REFUSED, REFUSED)
    assert bench.state() is Liveness.SUSPECT
    bench.verdict.on_link_down("it acknowledges nothing", START + 7.0)
    bench.tick(START + 7.0)
    bench.answer(START + 7.001, REFUSED, REFUSED)
    assert bench.state() is Liveness.LOST


@pytest.mark.parametrize("causes", [(), (CONNECTED, CONNECTED), (UNREACHABLE, UNREACHABLE)])
def test_any_frame_makes_alive_again(causes: tuple[PathCause | None, ...]) -> None:
    bench = Bench().silent()
    bench.answer(START + 3.2, *causes)
    bench.told()
    bench.verdict.on_heard(START + 3.3)
    assert bench.told() == [Liveness.ALIVE]
    bench.tick(START + 1000.0)
    assert bench.told() == []
    assert bench.verdict.detector.phi(START + 1000.0) == 0.0


def test_what_was_found_in_one_silence_says_nothing_of_the_next() -> None:
    bench = Bench().silent()
    bench.answer(START + 3.2, UNREACHABLE, UNREACHABLE)
    bench.verdict.on_heard(START + 3.3)
    bench.told()
    bench.silent(START + 50.0)
    bench.tick(START + 54.5)
    assert bench.verdict.detector.phi(START + 54.5) > OPTIONS.lost_phi
    assert bench.state() is Liveness.SUSPECT  # the new probes are still under way
    bench.answer(START + 54.6, CONNECTED, CONNECTED)
    assert bench.state() is Liveness.BUSY


def test_a_round_that_an_answer_ended_is_not_counted_in_the_next() -> None:
    bench = Bench().silent()
    bench.answer(START + 3.2, CONNECTED)  # the other one is still under way
    bench.verdict.on_heard(START + 3.3)
    bench.told()
    bench.verdict.on_link_down("its connection ended", START + 10.0)
    bench.tick(START + 10.0)
    bench.answer(START + 10.1, REFUSED, REFUSED)
    assert bench.told() == [Liveness.SUSPECT, ENDPOINTS, Liveness.LOST]


def test_a_new_link_makes_alive_from_whatever_was_before() -> None:
    bench = Bench()
    bench.verdict.on_link_down("its connection ended", START)
    bench.tick(START)
    bench.answer(START, REFUSED, REFUSED)
    assert bench.state() is Liveness.LOST
    bench.verdict.on_open(START + 1.0)
    assert bench.state() is Liveness.ALIVE
    assert not bench.verdict.process_gone
    assert bench.next_at() == inf
    bench.run(START + 1.0)


def test_an_answer_to_no_probe_is_ignored() -> None:
    bench = Bench()
    bench.answer(START, REFUSED, REFUSED)
    bench.verdict.on_probe("tcp://other", REFUSED, START)
    assert bench.told() == []
    bench.silent()
    bench.verdict.on_probe("tcp://other", CONNECTED, START + 4.0)
    assert bench.told() == []


def test_a_frame_of_an_old_link_does_not_make_alive() -> None:
    bench = Bench()
    bench.verdict.on_link_down("its connection ended", START)
    bench.verdict.on_heard(START + 0.001)
    assert bench.state() is Liveness.SUSPECT


def test_who_left_is_neither_probed_nor_lost() -> None:
    bench = Bench().silent()
    bench.verdict.on_left()
    assert bench.told() == [Liveness.LEFT]
    bench.answer(START + 3.9, REFUSED, REFUSED)
    bench.verdict.on_linger_over()
    bench.tick(START + 100.0)
    assert bench.told() == []
    assert bench.next_at() == inf


def test_who_stays_away_for_the_whole_linger_is_lost() -> None:
    bench = Bench()
    bench.verdict.on_link_down("its connection ended", START)
    bench.tick(START)
    bench.answer(START + 0.001, CONNECTED, CONNECTED)
    bench.told()
    bench.verdict.on_linger_over()
    assert bench.told() == [Liveness.LOST]
    assert bench.next_at() == inf


def test_a_peer_without_endpoints_is_judged_by_its_silence() -> None:
    """It can only dial out; where its link ended, nothing else will tell."""
    bench = Bench(endpoints=())
    bench.ping(START)
    due = bench.next_at()
    bench.tick(due)
    assert bench.told() == [Liveness.SUSPECT]
    bench.run(START + 5.0)
    assert bench.told() == [Liveness.LOST]


def test_how_late_our_own_loop_was_is_not_held_against_the_peer() -> None:
    bench = Bench()
    bench.ping(START)
    bench.verdict.detector.on_loop_late(30.0, START + 30.0)
    bench.tick(START + 30.0)
    assert bench.told() == []
    assert bench.state() is Liveness.ALIVE


def test_probes_are_wanted_again_and_again_at_their_interval() -> None:
    bench = Bench().silent()
    first = START + 4.0
    bench.answer(first, CONNECTED, CONNECTED)
    bench.told()
    for turn in range(1, 4):
        bench.run(first + turn * OPTIONS.probe_interval)
        assert bench.told() == [ENDPOINTS]
        bench.answer(first + turn * OPTIONS.probe_interval, CONNECTED, CONNECTED)
