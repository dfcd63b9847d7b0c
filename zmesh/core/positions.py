"""How far subscriptions of this node are in the logs of publishers: nothing is handled again.

A durable publication has a position in its publisher's journal. What a subscription with a name
has handled is on disk before its publisher is told; what others have is remembered in memory, for
a publisher that comes back.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from msgpack import packb, unpackb

from zmesh.actions import SenderForgot
from zmesh.batches import runs
from zmesh.core.keeper import Keeper
from zmesh.events import Source
from zmesh.ids import NodeId
from zmesh.message import Outcome, Record, Tag, extra
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import POSITION_MAX, Entry, EntryKind, Ranges, SetEntries
from zmesh.storage_errors import JournalFull, StorageError

TRACKS_MAX: Final = 100_000
"""Subscriptions times publishers, ever met: some 50 MB. Of more named ones take nothing."""

RANGES_KEPT_MAX: Final = 512
"""Of what was handled out of order, on disk; beyond it a crash may bring something again."""

RANGES_MAX: Final = 100_000
"""The same in memory: while one message is long at work, so many behind it may be done."""

RESUMED: Final = 0
"""As `Tag.FOLLOWER`: for all subscriptions there were when touch was lost with the publisher."""

_FINAL: Final = (Outcome.ACCEPTED, Outcome.REJECTED, Outcome.EXPIRED)
_CROWDED_DELAY_S: Final = 1.0
_LAST_TAGS: Final = frozenset(range(Tag.POSITION, 128))

Place = tuple[Source, int, int]
Verdict = tuple[Outcome, str, float]
Reader = str | int | tuple[int]
"""A subscription by its name, or by its token; or all others, on one lane."""


@dataclass(slots=True, eq=False)
class Track:
    """One reader here, and the log of one publisher. All up to `done` is handled."""

    node: NodeId
    name: str | None
    journal: bytes
    done: int = 0
    highest: int = 0  # that came
    others: RangeSet = field(default_factory=RangeSet)  # above `done`, handled
    pending: dict[int, list[Place]] = field(default_factory=dict)  # at work; copies of it
    returned: set[int] = field(default_factory=set)  # given back, to come again
    late: set[int] = field(default_factory=set)  # at work, and came after higher ones
    owed: list[tuple[Place, Verdict]] = field(default_factory=list)  # the disk was full

    def is_handled(self, position: int) -> bool:
        """Return whether its publisher may forget it."""
        return position <= self.done or position in self.others

    def begin(self, position: int) -> None:
        """Note that the application has it."""
        self.pending[position] = []
        self.returned.discard(position)
        if position < self.highest:
            self.late.add(position)
        self.highest = max(self.highest, position)

    def give_back(self, position: int) -> None:
        """Note that it is to come again; a publisher that makes up positions is not believed."""
        if position <= POSITION_MAX and len(self.returned) < RANGES_MAX:
            self.returned.add(position)

    def settle(self, position: int) -> None:
        """Note that it was handled."""
        self.returned.discard(position)
        if position > self.done:
            self.others.add(position, position)

    def recall(self, ranges: Ranges) -> None:
        """Note what was handled in an earlier life."""
        for first, last in ranges:
            self.others.add(max(first, self.done + 1), last)

    def advance(self) -> bool:
        """Move the mark below which all is handled; return whether it moved."""
        lowest = next(iter(self.pending), POSITION_MAX)  # they came in order, but for the late
        for out_of_order in (self.late, self.returned):
            if out_of_order:
                lowest = min(lowest, *out_of_order)
        done = min(lowest - 1, self.highest)
        if done <= self.done:
            return False
        self.done = done
        self.others.remove(0, done)
        return True

    def begin_anew(self) -> None:
        """Forget who has what: another reader takes its place."""
        self.highest = self.done
        self.pending.clear()
        self.late.clear()
        self.returned.clear()

    def entry(self) -> Entry:
        """Return what is kept of it."""
        flat = [number for pair in self.others.as_tuple(RANGES_KEPT_MAX) for number in pair]
        value = cast("bytes", packb([self.journal, self.done, *flat]))
        return Entry(EntryKind.SUBSCRIPTION, self.name or "", self.node, value)


Held = dict[int, tuple[Track, int]]


def may_be_logged(record: Record) -> bool:
    """Return at a glance whether a record may have a position: tags ascend, and few are higher."""
    return len(record) == 4 and len(record[3]) > 1 and record[3][-2] in _LAST_TAGS


class Positions:
    """The memory of one node. `settle` is to be set before anything arrives."""

    def __init__(self, keeper: Keeper) -> None:
        self.settle: Callable[..., None]
        self.open: dict[tuple[NodeId, bytes, int], Held] = {}
        self.followers: dict[int, str | None] = {}  # by token, with their names
        self.begun_ms: dict[str, int] = {}  # when names were used first
        self.owing: dict[Track, None] = {}  # what the full disk did not take
        self.duplicates = 0
        self._keeper = keeper
        self._tracks: dict[tuple[NodeId, Reader], Track] = {}
        self._remembered: dict[tuple[NodeId, Reader], tuple[bytes, Ranges]] = {}  # of no track yet

    def find(self, node: NodeId, reader: Reader) -> Track | None:
        """Return what is known of a publisher's log for a reader."""
        return self._tracks.get((node, reader))

    def lanes(self, node: NodeId, journal: bytes) -> list[tuple[int, int]]:
        """Return how far this node is in a log on each lane, subscriptions that follow aside."""
        return [
            (reader[0], track.done)
            for (_, reader), track in self._tracks.items()
            if track.node == node and track.journal == journal and isinstance(reader, tuple)
        ]

    # Subscriptions that follow

    def follow(self, token: int, name: str | None, now_ms: int) -> None:
        """Begin to follow."""
        self.followers[token] = name
        if name is None:
            return
        for track in self._tracks.values():
            if track.name == name:
                track.begin_anew()
        if name not in self.begun_ms:
            self.begun_ms[name] = now_ms
            value = now_ms.to_bytes(8)
            self._keeper.write(SetEntries((Entry(EntryKind.SUBSCRIPTION, name, b"", value),)))

    def unfollow(self, token: int) -> None:
        """End: what belongs to a name stays."""
        name = self.followers.pop(token)
        if name is None:
            for key in [key for key in self._tracks if key[1] == token]:
                del self._tracks[key]

    def passed(self, source: Source, token: int, position: int) -> None:
        """Take note that a log has nothing more for a subscription up to a position."""
        track = self._track(source, token)
        if track is not None and token in self.followers:
            track.highest = max(track.highest, position)
            self._advanced(track)

    def given_up(self, source: Source, token: int, position: int) -> None:
        """Take note that a publication does not come again, though it was given back."""
        track = self._track(source, token)
        if track is not None and position in track.returned:
            track.settle(position)
            self._advanced(track)

    def _advanced(self, track: Track) -> None:
        if track.advance() and track.name is not None:
            self._keeper.write(SetEntries((track.entry(),)))

    # What comes

    def admit(
        self, source: Source, first: int, last: int, records: Sequence[Record]
    ) -> Iterator[tuple[int, int, list[Record]]]:
        """Yield what is to be handled, in runs; all else gets its outcome here, now or later."""
        is_alone = len(records) == 1  # and may have come in fragments, with a number each
        labels = [
            self._admit_one((source, seq, last if is_alone else seq), record)
            for seq, record in enumerate(records, first)
        ]
        for is_new, low, high, run in runs(first, last, list(records), labels):
            if is_new:
                yield low, high, run

    def _admit_one(self, place: Place, record: Record) -> bool:
        source, position = place[0], extra(record, Tag.POSITION)
        reader = self._reader_of(source, record) if isinstance(position, int) else None
        if reader is None or not isinstance(position, int):
            return True  # it is not of a log, or who followed that has ended
        track = self._track_of(source, reader, position)
        if isinstance(reader, tuple) and (track is None or len(track.others) > RANGES_MAX):
            return True  # it may come again, should its publisher die
        if track is None or position > POSITION_MAX or len(track.others) > RANGES_MAX:
            reason = "no room for more positions in logs"
            if track is not None:
                track.give_back(position)
            self.settle(*place, Outcome.RELEASED, reason, _CROWDED_DELAY_S)
            return False
        if position in track.pending:
            track.pending[position].append(place)
        elif track.is_handled(position):
            self.settle(*place, Outcome.ACCEPTED)
        else:
            track.begin(position)
            key = (source.node, source.session, source.lane)
            self.open.setdefault(key, {})[place[1]] = (track, position)
            return True
        self.duplicates += 1
        return False

    def refused(self, source: Source, records: Sequence[Record]) -> None:
        """Take note of what was given back before anything was made of it."""
        for record in records:
            position = extra(record, Tag.POSITION)
            if not isinstance(position, int):
                continue
            reader = self._reader_of(source, record)
            track = None if reader is None else self._track_of(source, reader, position)
            if track is not None:
                track.give_back(position)

    def _reader_of(self, source: Source, record: Record) -> Reader | None:
        if extra(record, Tag.RETAINED) is not None:
            return None  # of a replay, whatever came before
        follower = extra(record, Tag.FOLLOWER)
        if not isinstance(follower, int) or follower == RESUMED:
            return (source.lane,)
        return (self.followers[follower] or follower) if follower in self.followers else None

    def _track(self, source: Source, token: int) -> Track | None:
        return self._track_of(source, self.followers.get(token) or token)

    def _track_of(self, source: Source, reader: Reader, position: int = 0) -> Track | None:
        """Return how far a reader is, of whom a position may be told; None without room for it."""
        track = self._tracks.get((source.node, reader))
        if track is None or track.journal != source.journal:
            if track is None and len(self._tracks) >= TRACKS_MAX:
                return None
            name = reader if isinstance(reader, str) else None
            track = self._tracks[source.node, reader] = Track(source.node, name, source.journal)
            if isinstance(reader, tuple) and 0 < position <= POSITION_MAX:
                track.done = track.highest = position - 1  # what was before was not for it
            journal, ranges = self._remembered.pop((source.node, reader), (b"", ()))
            if journal == source.journal:
                track.recall(ranges)
        return track

    # Outcomes

    def on_settle(
        self, source: Source, first: int, last: int, outcome: Outcome, reason: str, delay: float
    ) -> bool:
        """Take the application's verdict; whether it is passed on from here, now or later."""
        key = (source.node, source.session, source.lane)
        held = self.open.get(key)
        if held is None:
            return False
        taken = [held.pop(seq) for seq in range(first, last + 1) if seq in held]
        if not held:
            del self.open[key]
        if not taken:
            return False
        places: list[Place] = [(source, first, last)]
        touched: dict[Track, None] = {}
        for track, position in taken:
            places += track.pending.pop(position, ())
            track.late.discard(position)
            if outcome in _FINAL:
                track.settle(position)
                touched[track] = None
            else:
                track.give_back(position)
        verdict = (outcome, reason, delay)
        for track in touched:
            track.advance()
        named = [track for track in touched if track.name is not None]
        if not named:
            for place in places:
                self.settle(*place, *verdict)
            return True
        named[0].owed += [(place, verdict) for place in places]
        for track in named[1:] + named[:1]:  # who owes is last: the others are on disk as well
            self._save(track)
        return True

    def _save(self, track: Track) -> None:
        owed, track.owed, done = track.owed, [], track.done

        def saved(error: StorageError | None) -> None:
            if error is None:
                gone = SenderForgot(track.node, track.journal, track.name, done + 1, ())
                self._keeper.actions.append(gone)
                for place, verdict in owed:
                    self.settle(*place, *verdict)
            elif isinstance(error, JournalFull):
                track.owed[:0] = owed
                self.owing[track] = None

        self._keeper.write(SetEntries((track.entry(),)), then=saved)

    def save_owing(self) -> None:
        """Try again what the full disk did not take."""
        owing = list(self.owing)
        self.owing.clear()
        for track in owing:
            self._save(track)

    # Another life

    def remember(self, node: NodeId, journal: bytes, ranges: Ranges, name: str) -> None:
        """Take note of what a name handled in an earlier life, as somebody else kept it."""
        track = self._tracks.get((node, name))
        if track is None:  # the disk does not say yet where it begins
            self._remembered[node, name] = (journal, ranges)
        elif track.journal == journal:
            track.recall(ranges)

    def on_entry(self, entry: Entry) -> None:
        """Learn how far a name was in an earlier life."""
        if not entry.key:
            self.begun_ms[entry.name] = int.from_bytes(entry.value)
            return
        node = NodeId(entry.key)
        journal, done, *flat = unpackb(entry.value)
        ranges: Ranges = tuple(zip(flat[::2], flat[1::2], strict=True))
        track = Track(node, entry.name, journal, done, done, RangeSet(ranges))
        self._tracks[node, entry.name] = track
