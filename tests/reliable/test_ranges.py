from collections.abc import Iterable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from zmesh.reliable.ranges import RangeSet, Watermark

numbers = st.integers(min_value=1, max_value=40)


@st.composite
def spans(draw: st.DrawFn) -> tuple[int, int]:
    first = draw(numbers)
    return first, first + draw(st.integers(min_value=-1, max_value=12))


def as_ranges(members: Iterable[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(members):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


class RangeSetBehavesAsASet(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.ranges = RangeSet()
        self.model: set[int] = set()

    @rule(span=spans())
    def add(self, span: tuple[int, int]) -> None:
        new = set(range(span[0], span[1] + 1)) - self.model
        assert self.ranges.add(*span) == len(new)
        self.model |= new

    @rule(span=spans())
    def remove(self, span: tuple[int, int]) -> None:
        gone = set(range(span[0], span[1] + 1)) & self.model
        assert self.ranges.remove(*span) == len(gone)
        self.model -= gone

    @rule()
    def pop_first(self) -> None:
        if self.model:
            popped = self.ranges.pop_first()
            assert popped == as_ranges(self.model)[0]
            self.model -= set(range(popped[0], popped[1] + 1))

    @rule()
    def clear(self) -> None:
        self.ranges.clear()
        self.model.clear()

    @rule(span=spans())
    def ask(self, span: tuple[int, int]) -> None:
        asked = set(range(span[0], span[1] + 1))
        assert self.ranges.overlaps(*span) == as_ranges(asked & self.model)
        assert self.ranges.missing(*span) == as_ranges(asked - self.model)
        if asked:
            touched = asked | {span[0] - 1, span[1] + 1}
            assert self.ranges.touches(*span) == bool(touched & self.model)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        expected = as_ranges(self.model)
        assert list(self.ranges) == expected
        assert self.ranges.as_tuple() == tuple(expected)
        assert self.ranges.as_tuple(2) == tuple(expected[:2])
        assert len(self.ranges) == len(expected)
        assert bool(self.ranges) == bool(expected)
        assert self.ranges.count == len(self.model)
        assert {number for number in range(60) if number in self.ranges} == self.model
        if expected:
            assert (self.ranges.first, self.ranges.last) == (min(self.model), max(self.model))


TestRangeSet = RangeSetBehavesAsASet.TestCase


class WatermarkBehavesAsASet(RuleBasedStateMachine):
    @initialize(cum=st.integers(min_value=0, max_value=10), ranges_max=st.integers(0, 3))
    def start(self, cum: int, ranges_max: int) -> None:
        self.watermark = Watermark(ranges_max, cum)
        self.model = set(range(1, cum + 1))

    @rule(span=spans())
    def add(self, span: tuple[int, int]) -> None:
        asked = set(range(span[0], span[1] + 1))
        before = (self.watermark.cum, self.watermark.above.as_tuple())
        new = self.watermark.add(*span)
        if new is None:
            assert len(self.above(self.model | asked)) > self.watermark.ranges_max
            assert (self.watermark.cum, self.watermark.above.as_tuple()) == before
        else:
            assert new == as_ranges(asked - self.model)
            self.model |= asked

    @rule(length=st.integers(min_value=1, max_value=5))
    def next_in_order_is_never_refused(self, length: int) -> None:
        first = self.watermark.cum + 1
        assert self.watermark.add(first, first + length - 1)
        self.model |= set(range(first, first + length))

    def above(self, members: set[int]) -> list[tuple[int, int]]:
        return [span for span in as_ranges(members) if span[0] > 1]

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        if not hasattr(self, "watermark"):
            return
        cum = next(number for number in count() if number + 1 not in self.model)
        assert self.watermark.cum == cum
        assert list(self.watermark.above) == self.above(self.model)
        assert len(self.watermark.above) <= self.watermark.ranges_max
        assert self.watermark.highest == max(self.model, default=0)
        held = {
            number for number in range(max(self.model, default=0) + 9) if number in self.watermark
        }
        assert held == self.model


TestWatermark = WatermarkBehavesAsASet.TestCase


@given(st.lists(spans()))
def test_ranges_given_at_the_start_are_merged(ranges: list[tuple[int, int]]) -> None:
    members = {number for first, last in ranges for number in range(first, last + 1)}
    assert list(RangeSet(tuple(ranges))) == as_ranges(members)


def test_an_empty_set_has_no_first_last_or_pop() -> None:
    ranges = RangeSet()
    with pytest.raises(IndexError):
        ranges.pop_first()
    with pytest.raises(IndexError):
        _ = ranges.first
    with pytest.raises(IndexError):
        _ = ranges.last
    assert repr(ranges) == "RangeSet(())"


def test_a_watermark_advances_over_what_it_holds_and_never_goes_back() -> None:
    watermark = Watermark(8)
    assert watermark.advance(3) == [(1, 3)]
    assert watermark.advance(3) == []
    assert watermark.advance(1) == []
    watermark.add(6, 7)
    assert watermark.advance(5) == [(4, 5)]
    assert (watermark.cum, watermark.above.count) == (7, 0)


def test_a_fully_held_range_is_all_duplicates() -> None:
    watermark = Watermark(ranges_max=8, cum=5)
    watermark.add(8, 9)
    assert watermark.add(1, 5) == []
    assert watermark.add(8, 9) == []
    assert watermark.add(3, 9) == [(6, 7)]
    assert watermark.cum == 9
    assert not watermark.above


def test_one_range_too_many_is_refused_until_a_hole_closes() -> None:
    watermark = Watermark(ranges_max=2)
    assert watermark.add(3, 3) == [(3, 3)]
    assert watermark.add(5, 5) == [(5, 5)]
    assert watermark.add(7, 7) is None
    assert 7 not in watermark
    assert watermark.add(6, 7) == [(6, 7)]  # grows a range, makes none
    assert watermark.add(9, 9) is None
    assert watermark.add(1, 2) == [(1, 2)]
    assert watermark.cum == 3
    assert watermark.add(9, 9) == [(9, 9)]
