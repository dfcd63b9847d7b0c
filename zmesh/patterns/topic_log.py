"""The log of durable publications: on disk before anybody gets them, kept within bounds.

There is one for all topics of a node, so that a position says all of how far a reader is. What is
beyond the retention goes in batches and behind everybody's back: who has not read it by then is
told how many there were.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.errors import ZmeshError
from zmesh.events import Publish
from zmesh.message import Record, Tag, size_of, with_extra
from zmesh.options import Retention
from zmesh.storage import (
    Answer,
    Command,
    DropOldest,
    Forget,
    ReadRows,
    Row,
    RowsRead,
    Store,
    Stream,
    StreamKind,
)
from zmesh.storage_errors import StorageError

LOG: Final = Stream(StreamKind.TOPIC)

TRIM_ROWS: Final = 1024
TRIM_BYTES: Final = 1024 * 1024
"""What is looked at, and forgotten, together."""

SLACK: Final = 64
"""Of a bound this part may be exceeded before it is worth a batch."""

LOOK_S_MIN, LOOK_S_MAX = 1.0, 60.0
"""Seconds between two looks at what is too old: a 64th of the age, within these."""


class Logged(NamedTuple):
    """A publication that is in the log."""

    position: int
    record: Record
    lane: int
    key: str | None
    expires_ms: int
    published_ms: int

    @classmethod
    def of(cls, row: Row) -> "Logged":
        """Return it from its row."""
        match row.note:
            case (int(lane), str(key)):
                return cls(row.position, row.record, lane, key, row.expires_ms, row.stored_ms)
            case (int(lane), *_):
                return cls(row.position, row.record, lane, None, row.expires_ms, row.stored_ms)
            case _:
                raise ValueError("this is not the note of a publication")


Beside = Callable[[Logged], list[Command]]
OnStored = Callable[[Logged | None, StorageError | None], None]


class TopicLog:
    """The log of one node. Without a journal there is none."""

    def __init__(self, turn: Turn, retention: Retention) -> None:
        self._turn = turn
        self._retention = retention
        opened = turn.keeper.opened
        states = () if opened is None else opened.streams
        state = next((each for each in states if each.stream == LOG), None)
        self._following = 1 if state is None else state.next_position
        self.written = self._following - 1  # everything up to here is on disk, if it ever was
        self.first = self._following if state is None or not state.rows else state.first
        self.count = 0 if state is None else state.rows
        self.size = 0 if state is None else state.size  # in bytes, about
        self.trimmed = 0
        self._is_trimming = False
        turn.keeper.on_dropped[StreamKind.TOPIC] = self._on_dropped
        self._due: Deadlines[None] = Deadlines(turn.agenda)
        if self.count:
            self._due.set(None, turn.now + LOOK_S_MIN)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    def store(self, publish: Publish, beside: Beside, then: OnStored) -> None:
        """Put a publication into the log; `then` is told when it is on disk, or why it is not.

        `beside` says what is done together with that.
        """
        keeper = self._turn.keeper
        keeper.on_wall_clock(publish.wall_ms, self._turn.now)
        position, wall_ms = self._following, publish.wall_ms
        self._following += 1
        record = with_extra(publish.record, Tag.POSITION, position)
        record = with_extra(record, Tag.PUBLISHED, wall_ms)
        expires_ms = 0 if publish.ttl is None else wall_ms + max(1, round(publish.ttl * 1000))
        note = (publish.lane,) if publish.key is None else (publish.lane, publish.key)
        row = Row(position, record, wall_ms, expires_ms, 0, position, note)
        logged = Logged.of(row)
        commands = [Store(LOG, [row]), *beside(logged)]
        keeper.write(*commands, then=partial(self._on_stored, logged, then))

    def _on_stored(self, logged: Logged, then: OnStored, error: StorageError | None) -> None:
        if error is not None:
            then(None, error)  # its position stays unused
            return
        if not self.count:
            self.first = logged.position
        self.count += 1
        self.size += size_of(logged.record)
        then(logged, None)
        self.written = logged.position
        if self._retention.age is not None and not self._due:
            self._due.set(None, self._turn.now + self._look_after(self._retention.age))
        if self._is_beyond(SLACK):
            self._trim()

    def make_room(self, size: int) -> None:
        """Drop the oldest publications, retention or not."""
        self._turn.keeper.write(DropOldest(LOG, size))

    def _on_dropped(self, _: Stream, first: int, last: int) -> None:
        gone = min(self.count, last - first + 1)
        self.size -= self.size * gone // self.count if self.count else 0
        self.count -= gone
        self.trimmed += gone
        self.first = max(self.first, last + 1)

    # Retention

    def on_timer(self) -> None:
        """Look for what is too old."""
        self._due.due(self._turn.now)
        self._trim()

    def _look_after(self, age: float) -> float:
        return min(LOOK_S_MAX, max(LOOK_S_MIN, age / SLACK))

    def _is_beyond(self, slack: int) -> bool:
        """Return whether there is more than wanted, and than a part of it, unless slack is 0."""
        count, size = self._retention.count, self._retention.size
        beyond = 0 if count is None else self.count - count
        beyond_bytes = 0 if size is None else self.size - size
        return (count is not None and beyond > (count // slack if slack else 0)) or (
            size is not None and beyond_bytes > (size // slack if slack else 0)
        )

    def _trim(self) -> None:
        if not self._is_trimming and self.count:
            self._is_trimming = True
            question = ReadRows(LOG, self.first - 1, TRIM_ROWS, TRIM_BYTES)
            self._turn.keeper.read(question, self._on_oldest)

    def _on_oldest(self, answer: Answer | ZmeshError) -> None:
        """Forget what is beyond a bound, of the oldest."""
        self._is_trimming = False
        if not isinstance(answer, RowsRead):
            return
        rows = [each.row for each in answer.rows]
        age, gone = self._retention.age, 0
        now_ms = self._turn.keeper.wall_ms(self._turn.now)
        for row in rows:
            is_old = age is not None and row.stored_ms < now_ms - age * 1000
            if not (is_old or self._is_beyond(0)):
                break
            gone += 1
            self.count -= 1
            self.size -= size_of(row.record)
        if gone:
            self.trimmed += gone
            self._turn.keeper.later(Forget(LOG, ((rows[0].position, rows[gone - 1].position),)))
            self.first = rows[gone - 1].position + 1
        if not rows or not self.count:
            self.count = self.size = 0  # what is not known exactly is exact again
            self.first = max(self.first, self.written + 1)
        elif gone == len(rows):
            self._trim()
        if age is not None and self.count:
            self._due.set(None, self._turn.now + self._look_after(age))
