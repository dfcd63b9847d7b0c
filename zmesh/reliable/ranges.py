"""Sets of sequence numbers as ranges, and the watermark that makes duplicates visible.

A healthy link keeps each of these at one range or none, so every operation has its fast path
there; with n ranges a lookup costs O(log n) and a change O(n) of a short `memmove`.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from zmesh.wire.frames import Ranges


class RangeSet:
    """Integers, kept as inclusive ranges: ascending, disjoint and not adjacent.

    A range with `first > last` is empty wherever one is an argument. `count` is how many integers
    are in the set (read only); `len()` is how many ranges they make.
    """

    __slots__ = ("_ends", "_starts", "count")

    def __init__(self, ranges: Ranges = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.count = 0
        for first, last in ranges:
            self.add(first, last)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __contains__(self, number: int) -> bool:
        index = bisect_left(self._ends, number)
        return index < len(self._starts) and self._starts[index] <= number

    def __repr__(self) -> str:
        return f"RangeSet({self.as_tuple()})"

    @property
    def first(self) -> int:
        """The lowest integer; IndexError where the set is empty."""
        return self._starts[0]

    @property
    def last(self) -> int:
        """The highest integer; IndexError where the set is empty."""
        return self._ends[-1]

    def add(self, first: int, last: int) -> int:
        """Add `first..last`; return how many of them were new."""
        if first > last:
            return 0
        starts, ends = self._starts, self._ends
        if not ends or first > ends[-1] + 1:
            starts.append(first)
            ends.append(last)
            added = last - first + 1
        elif first == ends[-1] + 1:
            ends[-1] = last
            added = last - first + 1
        else:
            added = self._merge(first, last)
        self.count += added
        return added

    def _merge(self, first: int, last: int) -> int:
        """Put `first..last` in the place of every range that overlaps or touches it."""
        starts, ends = self._starts, self._ends
        low = bisect_left(ends, first - 1)
        high = bisect_right(starts, last + 1, low)
        if low == high:
            starts.insert(low, first)
            ends.insert(low, last)
            return last - first + 1
        merged_first = min(first, starts[low])
        merged_last = max(last, ends[high - 1])
        held = sum(ends[low:high]) - sum(starts[low:high]) + high - low
        starts[low:high] = [merged_first]
        ends[low:high] = [merged_last]
        return merged_last - merged_first + 1 - held

    def remove(self, first: int, last: int) -> int:
        """Remove `first..last`; return how many of them were in the set."""
        starts, ends = self._starts, self._ends
        if first > last or not ends:
            return 0
        low = bisect_left(ends, first)
        high = bisect_right(starts, last, low)
        if low == high:
            return 0
        lowest, highest = starts[low], ends[high - 1]
        removed = sum(ends[low:high]) - sum(starts[low:high]) + high - low
        kept_starts: list[int] = []
        kept_ends: list[int] = []
        if lowest < first:
            kept_starts.append(lowest)
            kept_ends.append(first - 1)
            removed -= first - lowest
        if highest > last:
            kept_starts.append(last + 1)
            kept_ends.append(highest)
            removed -= highest - last
        starts[low:high] = kept_starts
        ends[low:high] = kept_ends
        self.count -= removed
        return removed

    def pop_first(self) -> tuple[int, int]:
        """Remove and return the lowest range; IndexError where the set is empty."""
        first, last = self._starts.pop(0), self._ends.pop(0)
        self.count -= last - first + 1
        return first, last

    def clear(self) -> None:
        """Remove everything."""
        self._starts.clear()
        self._ends.clear()
        self.count = 0

    def overlaps(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of `first..last` that are in the set, ascending."""
        if first > last:
            return []
        low = bisect_left(self._ends, first)
        high = bisect_right(self._starts, last, low)
        return [
            (max(start, first), min(end, last))
            for start, end in zip(self._starts[low:high], self._ends[low:high], strict=True)
        ]

    def missing(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the parts of `first..last` that are not in the set, ascending."""
        holes: list[tuple[int, int]] = []
        for start, end in self.overlaps(first, last):
            if start > first:
                holes.append((first, start - 1))
            first = end + 1
        if first <= last:
            holes.append((first, last))
        return holes

    def touches(self, first: int, last: int) -> bool:
        """Return whether a range overlaps `first..last` or is adjacent to it."""
        low = bisect_left(self._ends, first - 1)
        return low < len(self._starts) and self._starts[low] <= last + 1

    def as_tuple(self, limit: int | None = None) -> Ranges:
        """Return the ranges, the lowest first, at most `limit` of them."""
        return tuple(zip(self._starts[:limit], self._ends[:limit], strict=True))


class Watermark:
    """Which numbers of a lane were received: all of `1..cum`, and the ranges `above`.

    `above` holds at most `ranges_max` ranges. Numbers that would make one more are refused, which
    loses nothing: they are not acknowledged, so the sender keeps them and sends them again. A
    range that starts at `cum + 1` is never refused, so the lane always moves.
    """

    __slots__ = ("above", "cum", "ranges_max")

    def __init__(self, ranges_max: int, cum: int = 0) -> None:
        self.ranges_max = ranges_max
        self.cum = cum
        self.above = RangeSet()

    def __contains__(self, number: int) -> bool:
        return 1 <= number <= self.cum or number in self.above

    @property
    def highest(self) -> int:
        """The highest number received; 0 where there is none."""
        return self.above.last if self.above else self.cum

    def advance(self, cum: int) -> list[tuple[int, int]]:
        """Note all of `1..cum` as received; return the parts that are new, ascending."""
        first = self.cum + 1
        if cum < first:
            return []
        if self.above.count:
            return self.add(first, cum) or []
        self.cum = cum
        return [(first, cum)]

    def add(self, first: int, last: int) -> list[tuple[int, int]] | None:
        """Note `first..last` (`first >= 1`) as received.

        Returns the parts that are new, ascending: an empty list where all are duplicates, and
        None where the numbers were refused for want of ranges and nothing has changed. Either
        way there is nothing to keep of what came with them.
        """
        cum, above = self.cum, self.above
        if first == cum + 1 and not above.count and last > cum:
            self.cum = last
            return [(first, last)]
        if first <= cum:
            first = cum + 1
        new = above.missing(first, last)
        if not new:
            return new
        if first == cum + 1:
            self._advance(last)
        elif len(above) >= self.ranges_max and not above.touches(first, last):
            return None
        else:
            above.add(first, last)
        return new

    def _advance(self, cum: int) -> None:
        """Raise `cum`, and on over the range that now follows it, if one does."""
        above = self.above
        above.remove(1, cum)
        if above and above.first == cum + 1:
            cum = above.pop_first()[1]
        self.cum = cum
