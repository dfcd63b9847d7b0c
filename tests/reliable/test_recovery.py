from itertools import pairwise
from math import inf

import pytest

from tests.discovery.entropy import FixedEntropy
from zmesh.errors import ProtocolError
from zmesh.options import LinkOptions
from zmesh.reliable.recovery import Piece, Recovery
from zmesh.reliable.send_window import SendWindow

OPTIONS = LinkOptions()
EVEN = FixedEntropy(0.5)  # a jitter of 1.0
SIZE = 1000
RTT = 0.1


class Bench:
    """A recovery, and one lane of which each packet carries one number."""

    def __init__(self) -> None:
        self.recovery = Recovery(OPTIONS, EVEN)
        self.recovery.start()
        self.window: SendWindow[int] = SendWindow(1000)

    def send(self, now: float, amount: int = 1) -> None:
        for _ in range(amount):
            number = self.recovery.next_number()
            self.window.enqueue([number])
            self.window.next_transmit = self.window.next_seq
            self.recovery.on_sent(number, [(self.window, number, number)], SIZE, now)

    def ping(self, now: float) -> int:
        number = self.recovery.next_number()
        self.recovery.on_sent(number, [], SIZE, now)
        return number

    def ack(
        self, now: float, largest: int, *received: int, cum: int = 0, delay: float = 0.0
    ) -> list[int]:
        """The peer acknowledges a packet and the lane's numbers; return what that shows lost."""
        self.window.on_ack(cum, tuple((seq, seq) for seq in received))
        return lost(self.recovery.on_ack(largest, delay, now))

    @property
    def under_way(self) -> int:
        return self.recovery.bytes_in_flight // SIZE

    @property
    def due(self) -> float:
        return min(self.recovery.loss_at, self.recovery.probe_at)


def lost(pieces: list[Piece]) -> list[int]:
    return [seq for _, first, last in pieces for seq in range(first, last + 1)]


def warm() -> Bench:
    """One round trip of 0.1 s is known: the probe timeout is 0.325 s, the loss delay 0.1125 s."""
    bench = Bench()
    bench.send(0.0)
    bench.ack(RTT, 1, cum=1)
    assert bench.recovery.round_trip.smoothed == RTT
    return bench


# What is under way


def test_what_is_acknowledged_is_no_more_under_way() -> None:
    bench = Bench()
    bench.send(0.0, 3)
    assert bench.under_way == 3
    bench.ack(RTT, 2, cum=2)
    assert bench.under_way == 1
    bench.ack(RTT, 3, cum=3)
    assert bench.under_way == 0
    assert bench.due == inf


def test_a_packet_counts_as_arrived_when_all_it_carried_did() -> None:
    bench = Bench()
    bench.window.enqueue([1, 2, 3])
    bench.window.next_transmit = 4
    number = bench.recovery.next_number()
    pieces = [(bench.window, 1, 1), (bench.window, 2, 3)]
    bench.recovery.on_sent(number, pieces, SIZE, 0.0)
    bench.ack(RTT, 1, cum=2)
    assert bench.under_way == 1
    bench.ack(RTT, 1, cum=3)
    assert bench.under_way == 0


def test_a_ping_arrived_when_its_number_is_acknowledged() -> None:
    bench = Bench()
    number = bench.ping(0.0)
    bench.ack(0.2, number)
    assert bench.under_way == 0
    assert bench.recovery.round_trip.smoothed == 0.2


@pytest.mark.parametrize("largest", [4, 2**63])
def test_an_ack_of_a_packet_never_sent_is_a_lie(largest: int) -> None:
    bench = Bench()
    bench.send(0.0, 3)
    with pytest.raises(ProtocolError, match=f"packet {largest}, never sent"):
        bench.ack(RTT, largest)
    assert bench.under_way == 3


def test_the_round_trip_is_that_of_the_largest_packet_and_only_if_it_is_new() -> None:
    bench = Bench()
    bench.send(0.0)
    bench.send(0.5)
    bench.ack(1.0, 2, cum=2)
    assert bench.recovery.round_trip.latest == 0.5
    bench.send(1.0, 2)
    bench.ack(1.2, 4, 4)  # 3 is missing
    assert bench.recovery.round_trip.latest == pytest.approx(0.2)
    bench.ack(1.9, 4, cum=4)
    assert bench.recovery.round_trip.latest == pytest.approx(0.2)


def test_no_more_than_the_floor_is_under_way_before_the_rate_is_known() -> None:
    assert Bench().recovery.in_flight_max == OPTIONS.in_flight_bytes_min


# Loss


def test_a_packet_is_lost_when_three_later_ones_overtook_it() -> None:
    bench = warm()
    bench.send(1.0, 4)  # 2, 3, 4, 5
    assert bench.ack(1.01, 4, 3, 4, cum=1) == []
    assert bench.ack(1.01, 5, 3, 4, 5, cum=1) == [2]
    assert bench.recovery.packets_lost == 1
    assert bench.under_way == 0


def test_a_packet_is_lost_nine_eighths_of_a_round_trip_after_it_was_sent() -> None:
    bench = warm()
    bench.send(1.0)
    bench.send(1.0)
    assert bench.ack(1.0 + RTT, 3, 3, cum=1) == []
    assert bench.due == pytest.approx(1.0 + RTT * 9 / 8)
    assert bench.recovery.on_timer(1.112) == ([], False)
    pieces, probe = bench.recovery.on_timer(1.0 + RTT * 9 / 8)
    assert lost(pieces) == [2]
    assert not probe
    assert bench.due == inf


def test_nothing_is_lost_that_no_later_packet_overtook() -> None:
    bench = warm()
    bench.send(1.0, 3)
    assert bench.ack(50.0, 2, cum=2) == []
    assert bench.under_way == 2


def test_an_old_ack_that_comes_late_forgets_no_loss() -> None:
    bench = warm()
    bench.send(1.0, 3)  # 2, 3, 4
    bench.ack(1.1, 4, 3, 4, cum=1)
    deadline = bench.due
    assert bench.ack(1.101, 3, 3, cum=1) == []
    assert bench.due == deadline
    assert lost(bench.recovery.on_timer(1.2)[0]) == [2]


def test_what_came_after_all_in_another_packet_is_not_lost() -> None:
    """A retransmission has a number of its own; either one may bring the record."""
    bench = warm()
    bench.send(1.0)  # number 2 of the lane, in packet 2
    again = bench.recovery.next_number()
    bench.recovery.on_sent(again, [(bench.window, 2, 2)], SIZE, 2.0)
    assert bench.ack(2.1, again, cum=2) == []
    assert bench.under_way == 0


# Probes


def test_a_probe_is_due_one_timeout_after_the_last_packet_and_then_with_back_off() -> None:
    bench = warm()
    bench.send(1.0)
    bench.send(1.2)
    times = []
    for _ in range(4):
        due = bench.due
        assert bench.recovery.on_timer(due - 0.001) == ([], False)
        assert bench.recovery.on_timer(due) == ([], True)
        times.append(due)
    assert times[0] == pytest.approx(1.2 + 0.325)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert waits == pytest.approx([0.65, 1.3, 2.6])
    assert bench.recovery.probes_unanswered == 4


def test_before_the_first_round_trip_a_probe_waits_a_second() -> None:
    bench = Bench()
    bench.send(1.0)
    assert bench.due == 2.0


def test_an_answer_ends_the_back_off() -> None:
    bench = warm()
    bench.send(1.0)
    bench.recovery.on_timer(1.33)
    bench.recovery.on_timer(2.0)
    assert bench.recovery.probes_unanswered == 2
    number = bench.ping(2.0)
    bench.ack(2.1, number)
    assert bench.recovery.probes_unanswered == 0


def test_an_ack_of_nothing_new_does_not_end_it() -> None:
    bench = warm()
    bench.send(1.0)
    bench.recovery.on_timer(1.33)
    bench.ack(1.4, 1, cum=1)
    assert bench.recovery.probes_unanswered == 1


def test_where_nothing_is_under_way_no_timer_runs() -> None:
    bench = warm()
    assert bench.due == inf
    bench.send(1.0, 4)
    bench.ack(1.01, 5, 3, 4, 5, cum=1)  # 2 is lost: it goes with a packet of its own
    assert bench.due == inf


# Links


def test_a_new_link_starts_at_packet_one_and_knows_no_round_trip() -> None:
    bench = warm()
    bench.send(1.0, 3)
    bench.ack(1.1, 4, 4, cum=1)
    bench.recovery.stop()
    assert bench.under_way == 0
    assert bench.due == inf
    bench.recovery.start()
    assert bench.recovery.round_trip.smoothed is None
    assert bench.recovery.next_number() == 1
    with pytest.raises(ProtocolError):
        bench.recovery.on_ack(2, 0.0, 2.0)


def test_nothing_is_lost_by_what_was_acknowledged_on_the_link_before() -> None:
    bench = warm()
    bench.send(1.0, 9)
    bench.ack(1.1, 10, cum=10)
    bench.recovery.stop()
    bench.recovery.start()
    bench.ping(5.0)
    assert bench.recovery.on_ack(0, 0.0, 5.1) == []
    assert bench.under_way == 1
