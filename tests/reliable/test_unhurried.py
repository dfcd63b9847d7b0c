import pytest

from tests.reliable.pair import OPTIONS, record
from zmesh.message import Outcome, size_of
from zmesh.reliable.credit import CreditPool
from zmesh.reliable.receiver import IncomingLane
from zmesh.reliable.unhurried import SETTLED_TOGETHER, Unhurried
from zmesh.wire.frames import Settle

SIZE = size_of(record())
PACKET_BYTES = 64 * 1024


def lane_with(count: int, number: int = 4) -> IncomingLane:
    pool = CreditPool(10**9)
    lane = IncomingLane(number, OPTIONS, pool, pool)
    lane.on_data(1, [record()] * count, 0.0, lambda *_: True)
    return lane


def test_ranges_that_follow_each_other_are_one() -> None:
    unhurried = Unhurried(PACKET_BYTES)
    for lane, first, last in ((4, 1, 1), (4, 2, 5), (5, 6, 6), (5, 8, 8), (4, 6, 6)):
        unhurried.add(lane, first, last)
    assert unhurried.ranges == [(4, 1, 5), (5, 6, 6), (5, 8, 8), (4, 6, 6)]
    assert unhurried.messages == 8


def test_lanes_hear_of_them_once() -> None:
    four, five = lane_with(3), lane_with(2, 5)
    lanes = {4: four, 5: five}
    unhurried = Unhurried(PACKET_BYTES)
    unhurried.add(4, 1, 3)
    unhurried.add(5, 1, 1)
    assert unhurried.take_in(lanes) == [4, 5]
    assert unhurried.take_in(lanes) == []
    assert (four.held_messages, five.held_messages) == (0, 1)
    assert unhurried.bytes == 4 * SIZE
    assert four.take_settlements(16) == [Settle(4, ((Outcome.ACCEPTED, 1, 3),))]


def test_a_lane_that_was_never_used_is_not_made() -> None:
    unhurried = Unhurried(PACKET_BYTES)
    unhurried.add(7, 1, 1)
    assert unhurried.take_in({}) == []
    assert unhurried.bytes == 0


@pytest.mark.parametrize("packet_bytes", [PACKET_BYTES, 3 * SIZE])
def test_many_or_large_ones_are_enough_for_the_next_packet(packet_bytes: int) -> None:
    count = min(SETTLED_TOGETHER, packet_bytes // SIZE)
    unhurried, lanes = Unhurried(packet_bytes), {4: lane_with(count)}
    for seq in range(1, count + 1):
        assert not unhurried.is_enough
        unhurried.add(4, seq, seq)
        unhurried.take_in(lanes)
    assert unhurried.is_enough
    unhurried.told()
    assert unhurried.messages == unhurried.bytes == 0
