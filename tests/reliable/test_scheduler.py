from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.message import LANES
from zmesh.options import KIB, LinkOptions
from zmesh.reliable.scheduler import LaneScheduler

CHUNK = 64 * KIB
NEVER_AGED = LinkOptions(aged_after=1e9)


def serve_saturated(
    scheduler: LaneScheduler, lanes: list[int], chunks: int, chunk_s: float, size: int = CHUNK
) -> list[int]:
    """Serve lanes that always have something to send; return who was served, in order."""
    order = []
    for turn in range(chunks):
        lane = scheduler.next_lane([(lane, 0.0) for lane in lanes], turn * chunk_s)
        assert lane is not None
        scheduler.spent(lane, size)
        order.append(lane)
    return order


def longest_wait(order: list[int], lane: int) -> int:
    turns = [-1, *(turn for turn, served in enumerate(order) if served == lane), len(order)]
    return max(after - before for before, after in pairwise(turns)) - 1


def test_a_lane_alone_is_served_for_ever() -> None:
    scheduler = LaneScheduler(LinkOptions())
    assert serve_saturated(scheduler, [0], 1000, 0.001) == [0] * 1000


def test_a_lane_that_was_long_alone_owes_nothing_and_has_saved_nothing() -> None:
    scheduler = LaneScheduler(NEVER_AGED)
    serve_saturated(scheduler, [0], 1000, 0.001)
    order = serve_saturated(scheduler, [0, 9], 110, 0.001)
    assert order.index(0) <= 20  # what is left of 9's round, and its next one
    assert order.count(0) == pytest.approx(10, abs=1)


def test_the_highest_goes_first() -> None:
    scheduler = LaneScheduler(NEVER_AGED)
    assert scheduler.next_lane([(3, 0.0), (7, 0.0), (5, 0.0)], 0.0) == 7


@pytest.mark.parametrize("size", [1000, CHUNK, 3 * CHUNK, 1024 * KIB])
def test_saturated_lanes_share_by_priority_plus_one(size: int) -> None:
    chunks = 55 * 40 * max(1, CHUNK // size)
    order = serve_saturated(LaneScheduler(NEVER_AGED), list(range(LANES)), chunks, 0.0, size)
    share = Counter(order)
    for lane in range(LANES):
        assert share[lane] / chunks == pytest.approx((lane + 1) / 55, rel=0.1)


def test_every_lane_is_served_within_a_round() -> None:
    order = serve_saturated(LaneScheduler(NEVER_AGED), list(range(LANES)), 1000, 0.0)
    for lane in range(LANES):
        assert longest_wait(order, lane) <= 2 * 55


def test_a_high_message_waits_for_one_chunk_of_a_saturated_link() -> None:
    scheduler = LaneScheduler(LinkOptions())
    busy = [(lane, 0.0) for lane in range(9)]
    now = 0.0
    for _ in range(200):
        for _ in range(5):
            now += 0.001
            lane = scheduler.next_lane(busy, now)
            assert lane is not None
            scheduler.spent(lane, CHUNK)
        waits = 0
        while (lane := scheduler.next_lane([*busy, (9, now)], now)) != 9:
            assert lane is not None
            scheduler.spent(lane, CHUNK)
            waits += 1
        scheduler.spent(9, 100)
        assert waits <= 1


def test_a_lane_that_waited_a_second_is_served_next() -> None:
    """A link so slow that a round takes minutes: a chunk in 0.3 s."""
    order = serve_saturated(LaneScheduler(LinkOptions()), [0, 9], 100, 0.3)
    assert longest_wait(order, 0) <= 4
    order = serve_saturated(LaneScheduler(NEVER_AGED), [0, 9], 100, 0.3)
    assert longest_wait(order, 0) > 4


def test_a_high_message_waits_for_two_chunks_where_every_lane_is_aged() -> None:
    scheduler, now = LaneScheduler(LinkOptions()), 0.0
    busy = [(lane, 0.0) for lane in range(9)]
    queued: list[float] = []
    order = []
    for turn in range(400):
        now += 2.0
        if turn % 8 == 0:
            queued.append(now)
        lane = scheduler.next_lane([*busy, *((9, since) for since in queued)], now)
        assert lane is not None
        if lane == 9:
            assert now - queued.pop() <= 2 * 2.0
        scheduler.spent(lane, 100 if lane == 9 else CHUNK)
        order.append(lane)
    assert order.count(9) == 50
    for lane in range(9):
        assert longest_wait(order, lane) <= 2 * LANES


def test_what_has_just_been_queued_is_not_aged() -> None:
    scheduler = LaneScheduler(LinkOptions())
    assert scheduler.next_lane([(0, 100.0), (9, 100.0)], 100.5) == 9


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, LANES - 1), min_size=1), st.integers(1, 2 * CHUNK)),
        min_size=1,
        max_size=300,
    ),
    st.integers(0, LANES - 1),
    st.floats(0.0, 0.5),
)
def test_no_lane_starves_whatever_the_others_do(
    turns: list[tuple[set[int], int]], waiting: int, chunk_s: float
) -> None:
    """`waiting` is always ready; the others come and go with chunks of any size."""
    scheduler, others, now = LaneScheduler(LinkOptions()), 0, 0.0
    for lanes, size in turns:
        now += chunk_s
        lane = scheduler.next_lane([(lane, now) for lane in lanes | {waiting}], now)
        assert lane in lanes | {waiting}
        scheduler.spent(lane, size)
        others = 0 if lane == waiting else others + size
        # At most what all others may send in two rounds, each with one chunk beyond its quantum.
        assert others <= 2 * (55 * CHUNK + LANES * 2 * CHUNK)
