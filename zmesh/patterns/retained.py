"""What a publisher keeps of its topics for those who come later."""

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter

from zmesh.message import Record, Tag, extra, size_of
from zmesh.patterns.routing import SEPARATOR, is_pattern_of_many, matches


@dataclass(frozen=True, slots=True)
class Kept:
    """A publication that is kept, with what it was published with."""

    number: int  # counted over all topics
    record: Record
    lane: int
    key: str | None
    expires: float | None  # on the node's clock


class Retained:
    """The last publications of each topic that asked to be kept.

    At most `count_max` of `bytes_max` in all: beyond either, the topics published longest ago are
    forgotten whole, so that what is kept of a topic never has a gap.
    """

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._topics: OrderedDict[str, deque[Kept]] = OrderedDict()  # published longest ago first
        self._numbered = 0
        self._count = 0
        self.size = 0  # in bytes
        self.forgotten = 0  # topics, for want of room
        self.dropped: list[Kept] = []  # that are on disk, and no longer wanted there

    def __len__(self) -> int:
        """Count the publications kept."""
        return self._count

    def keep(
        self, record: Record, lane: int, key: str | None, expires: float | None, depth: int
    ) -> list[str]:
        """Keep a publication and the `depth - 1` kept before it; return the topics forgotten."""
        return self.restore(Kept(self._numbered + 1, record, lane, key, expires), depth)

    def restore(self, kept_again: Kept, depth: int) -> list[str]:
        """Keep what was kept in an earlier life as `keep` does."""
        topic = kept_again.record[1]
        self._numbered = max(self._numbered, kept_again.number)
        kept = self._topics.setdefault(topic, deque())
        kept.append(kept_again)
        self._topics.move_to_end(topic)
        self._count += 1
        self.size += size_of(kept_again.record)
        while len(kept) > depth:
            self._drop(kept.popleft())
        forgotten: list[str] = []
        while self._count > self._count_max or self.size > self._bytes_max:
            forgotten.append(next(iter(self._topics)))
            self.clear(forgotten[-1])
        self.forgotten += len(forgotten)
        return forgotten

    def clear(self, topic: str) -> None:
        """Keep nothing of a topic any longer."""
        for kept in self._topics.pop(topic, ()):
            self._drop(kept)

    def matching(self, pattern: str, now: float) -> list[Kept]:
        """Return what is kept of the topics that match, and has not expired, as published."""
        found = [
            kept
            for topic in self._topics_of(pattern)
            for kept in self._topics[topic]
            if kept.expires is None or kept.expires > now
        ]
        return sorted(found, key=attrgetter("number"))

    def _topics_of(self, pattern: str) -> Iterator[str]:
        if not is_pattern_of_many(pattern):
            if pattern in self._topics:
                yield pattern
            return
        tokens = pattern.split(SEPARATOR)
        for topic in self._topics:
            if matches(tokens, topic):
                yield topic

    def _drop(self, kept: Kept) -> None:
        self._count -= 1
        self.size -= size_of(kept.record)
        if extra(kept.record, Tag.POSITION) is not None:
            self.dropped.append(kept)
