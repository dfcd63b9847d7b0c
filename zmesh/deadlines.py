"""Many deadlines, one next: heaps from which what was changed or dropped is removed lazily."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from math import inf, nextafter
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_Entry = tuple[float, int, K]
_Listing = tuple[float, int, "Deadlines[Any] | None"]

_STALE_MIN = 64
"""Stale entries kept before it is worth rebuilding a small heap."""


def earliest(*times: float | None) -> float | None:
    """Return the earliest of the times there are; None where there is none."""
    first = None
    for time in times:
        if time is not None and (first is None or time < first):
            first = time
    return first


class Deadlines(Generic[K]):
    """At most one deadline a key, in seconds on the node's clock; setting one costs a heap push.

    Memory stays within twice the live keys: the heap is rebuilt when more than half is stale.
    With an agenda, that is told when to look here.
    """

    __slots__ = ("_agenda", "_entries", "_heap", "_pushed", "listing")

    def __init__(self, agenda: "Agenda | None" = None) -> None:
        self.listing: _Listing | None = None  # when the agenda looks here
        self._agenda = agenda
        self._entries: dict[K, _Entry[K]] = {}
        self._heap: list[_Entry[K]] = []
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        return key in self._entries

    def set(self, key: K, when: float | None) -> None:
        """Let `key` be due at `when`, instead of whenever it was; None: never."""
        entries, heap = self._entries, self._heap
        old = entries.get(key)
        if when is None:
            if old is not None:
                self.discard(key)
            return
        if old is not None and old[0] == when:
            return
        self._pushed += 1  # equal times fire in the order they were set, and keys are not compared
        entries[key] = entry = (when, self._pushed, key)
        heappush(heap, entry)
        listing = self.listing
        if (listing is None or when < listing[0]) and self._agenda is not None:
            self._agenda.add(when, self)
        if len(heap) > 2 * len(entries) + _STALE_MIN:
            self._tidy()

    def discard(self, key: K) -> None:
        """Forget the deadline of `key`, if it has one."""
        entries = self._entries
        if entries.pop(key, None) and len(self._heap) > 2 * len(entries) + _STALE_MIN:
            self._tidy()

    @property
    def next(self) -> float | None:
        """The earliest deadline, None where there is none."""
        heap, entries = self._heap, self._entries
        while heap and entries.get(heap[0][2]) is not heap[0]:
            heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[K]:
        """Remove and return the keys whose deadline has come, the earliest first."""
        keys: list[K] = []
        when = self.next
        while when is not None and when <= now:
            key = heappop(self._heap)[2]
            del self._entries[key]
            keys.append(key)
            when = self.next
        return keys

    def _tidy(self) -> None:
        self._heap = list(self._entries.values())
        heapify(self._heap)


def _is_current(listing: _Listing) -> bool:
    """Return whether a listing counts: of a part the latest, of others each."""
    return listing[2] is None or listing[2].listing is listing


class Agenda:
    """When the first of many `Deadlines` may be due, without asking each of them.

    `next` may come too early, because what was dropped or put off is found out only then: call
    `put_off` when it has come and what was due is done. A spare look is cheaper than a search
    after every change. Memory stays within twice the parts that are listed.
    """

    __slots__ = ("_added", "_heap", "_listed")

    def __init__(self) -> None:
        self._heap: list[_Listing] = []
        self._added = 0
        self._listed = 0  # parts, each once

    def look_at(self, when: float) -> None:
        """Look once at `when`, for who keeps one deadline of its own and tells of each it has."""
        self._added += 1
        heappush(self._heap, (when, self._added, None))

    def add(self, when: float, deadlines: "Deadlines[Any]") -> None:
        """Look at `deadlines` at `when`, which is earlier than before."""
        self._added += 1
        self._listed += deadlines.listing is None
        deadlines.listing = listing = (when, self._added, deadlines)
        heappush(self._heap, listing)
        if len(self._heap) > 2 * self._listed + _STALE_MIN:
            self._heap = [each for each in self._heap if _is_current(each)]
            heapify(self._heap)

    @property
    def next(self) -> float | None:
        """No deadline is before this; None where there is none."""
        heap = self._heap
        while heap:
            listing = heap[0]
            if listing[2] is None or listing[2].listing is listing:  # `_is_current`
                return listing[0]
            heappop(heap)
        return None

    def put_off(self, now: float) -> None:
        """Look at those whose time has come, and list each under the next deadline it has."""
        while (when := self.next) is not None and when <= now:
            deadlines = heappop(self._heap)[2]
            if deadlines is None:
                continue
            deadlines.listing = None
            self._listed -= 1
            first = deadlines.next
            if first is not None:
                self.add(max(first, nextafter(now, inf)), deadlines)
