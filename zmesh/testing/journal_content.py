"""What a journal holds, in memory: commands change it, questions are answered from it.

It says what `zmesh.journal` must hold after the same commands, written as simply as it can be; the
tests do the same to both and look for a difference.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, NamedTuple, TypeVar, assert_never, cast

from msgpack import Packer, unpackb

from zmesh.message import Outcome, Record
from zmesh.storage import (
    POSITION_MAX,
    ROW_OVERHEAD_BYTES,
    Answer,
    BackUp,
    Command,
    CountAttempts,
    DropOldest,
    DropStream,
    EntriesRead,
    Entry,
    EntryKind,
    Forget,
    ForgetOutcomes,
    Move,
    Note,
    OutcomesRead,
    Question,
    Ranges,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    RemoveEntries,
    Row,
    RowsRead,
    SetEntries,
    SetWatermark,
    Store,
    StoredOutcome,
    StoredRow,
    StoreOutcomes,
    StoreRun,
    Stream,
    StreamState,
)

V = TypeVar("V")

Dropped = tuple[Stream, int, int]

_pack: Callable[[object], bytes] = Packer().pack


class Marks(Generic[V]):
    """Values that ranges of positions have; ascending and disjoint."""

    def __init__(self, marks: Iterable[tuple[int, int, V]] = ()) -> None:
        self._marks = list(marks)

    def copy(self) -> "Marks[V]":
        """Return a copy."""
        return Marks(self._marks)

    def put(self, low: int, high: int, value: V | None) -> None:
        """Give a range a value, or none, in the place of what it had."""
        start, end = self._touched(low, high)
        new = [] if value is None else [(low, high, value)]
        touched = self._marks[start:end]
        before = [(first, low - 1, old) for first, _, old in touched if first < low]
        after = [(high + 1, last, old) for _, last, old in touched if last > high]
        self._marks[start:end] = before + new + after

    def at(self, position: int) -> V | None:
        """Return the value of a position."""
        start, end = self._touched(position, position)
        return self._marks[start][2] if start < end else None

    def beginning_above(self, position: int) -> list[tuple[int, int, V]]:
        """Return the marks that begin above a position, in order."""
        return self._marks[bisect_left(self._marks, (position + 1,)) :]

    def _touched(self, low: int, high: int) -> tuple[int, int]:
        marks = self._marks
        start = bisect_left(marks, (low,))
        if start and marks[start - 1][1] >= low:
            start -= 1
        return start, bisect_left(marks, (high + 1,))


class _Block(NamedTuple):
    """Rows that were stored together: it has its room and its positions while one is left."""

    first: int
    last: int
    size: int


class _Kept(NamedTuple):
    """A row as it comes back, how many bytes its record and its note take, and its block."""

    row: Row
    record_bytes: int
    note_bytes: int
    block: _Block

    @property
    def size(self) -> int:
        return self.record_bytes + self.note_bytes


@dataclass(slots=True)
class _Lane:
    """One stream."""

    following: int = 1  # the next position
    cum: int = 0
    ranges: Ranges = ()
    positions: list[int] = field(default_factory=list)  # of the rows, ascending
    rows: dict[int, _Kept] = field(default_factory=dict)
    attempts: Marks[int] = field(default_factory=Marks)
    outcomes: Marks[tuple[Outcome, str, int]] = field(default_factory=Marks)

    def copy(self) -> "_Lane":
        return _Lane(
            self.following, self.cum, self.ranges, self.positions.copy(), self.rows.copy(),
            self.attempts.copy(), self.outcomes.copy(),
        )  # fmt: skip

    def within(self, low: int, high: int) -> list[int]:
        """Return the positions of rows from one to another."""
        return self.positions[
            bisect_left(self.positions, low) : bisect_right(self.positions, high)
        ]

    def runs(self, low: int, high: int) -> list[list[Row]]:
        """Return the rows from one position to another, those together that follow in a block."""
        runs: list[list[Row]] = []
        block: _Block | None = None
        for position in self.within(low, high):
            kept = self.rows[position]
            if kept.block != block or position != runs[-1][-1].position + 1:
                runs.append([])
            block = kept.block
            runs[-1].append(kept.row)
        return runs

    def is_free(self, low: int, high: int) -> bool:
        """Return whether no block has one of these positions."""
        index = bisect_left(self.positions, low)
        beside = [self.rows[each].block for each in self.positions[max(0, index - 1) : index + 1]]
        return not any(block.first <= high and block.last >= low for block in beside)


class JournalContent:
    """The content of one journal."""

    def __init__(self) -> None:
        self.used = 0  # bytes, as `Batch.size` counts them
        self._lanes: dict[Stream, _Lane] = {}
        self._entries: dict[tuple[EntryKind, bytes, bytes], Entry] = {}

    def copy(self) -> "JournalContent":
        """Return a copy: what changes one leaves the other alone."""
        other = JournalContent()
        other.used = self.used
        other._lanes = {stream: lane.copy() for stream, lane in self._lanes.items()}
        other._entries = self._entries.copy()
        return other

    # Commands

    def apply(self, command: Command) -> list[Dropped]:
        """Do what a command says; return what was dropped for it.

        Raises:
            ValueError: it cannot be done, which is a defect of whoever ordered it; some of it may
                be there.
        """
        match command:
            case Store(stream, rows):
                self._lane(stream)
                for row in rows:
                    self._store(stream, [row])
            case StoreRun():
                self._store_run(command)
            case SetWatermark(stream, cum, ranges):
                lane = self._lane(stream)
                lane.cum, lane.ranges = cum, tuple((first, last) for first, last in ranges)
            case Forget(stream, ranges):
                if stream in self._lanes:
                    for low, high in ranges:
                        self._remove(self._lanes[stream], low, high)
            case Move():
                self._move(command)
            case DropOldest() | DropStream():
                return self._drop(command)
            case _:
                self._apply_beside(command)
        return []

    def _apply_beside(
        self, command: CountAttempts | StoreOutcomes | ForgetOutcomes | SetEntries | RemoveEntries
    ) -> None:
        """Do what leaves the rows themselves alone."""
        match command:
            case SetEntries(entries):
                for entry in entries:
                    self._set_entry(entry)
            case RemoveEntries(kind, name, key):
                self._remove_entries(kind, name.encode(), key)
            case StoreOutcomes(stream, outcomes):
                marks = self._lane(stream).outcomes
                for each in outcomes:
                    marks.put(each.first, each.last, (each.outcome, each.reason, each.delay_ms))
            case CountAttempts() | ForgetOutcomes():
                self._mark(command)
            case _:
                assert_never(command)

    def _mark(self, command: CountAttempts | ForgetOutcomes) -> None:
        lane = self._lanes.get(command.stream)
        if lane is None:
            return
        for low, high in command.ranges:
            if isinstance(command, CountAttempts):
                lane.attempts.put(low, high, command.attempts)
            else:
                lane.outcomes.put(low, high, None)

    def _lane(self, stream: Stream) -> _Lane:
        """Return a stream, which is there from now on."""
        return self._lanes.setdefault(stream, _Lane())

    def _store_run(self, run: StoreRun) -> None:
        rows = run.rows()
        for _, records in run.blocks():
            self._store(run.stream, list(islice(rows, len(records))))

    def _store(self, stream: Stream, rows: Sequence[Row]) -> None:
        """Store a block."""
        first, last = rows[0].position, rows[-1].position
        if not 1 <= first <= last <= POSITION_MAX:
            raise ValueError(f"there are no positions {first} to {last}")
        lane = self._lane(stream)
        if not lane.is_free(first, last):
            raise ValueError(f"position {first} of {stream}, or one that follows, is taken")
        block = _Block(first, last, _size_of_block(rows))
        lane.rows.update((row.position, _kept(row, block)) for row in rows)
        index = bisect_left(lane.positions, first)
        lane.positions[index:index] = range(first, last + 1)
        self.used += block.size
        lane.following = max(lane.following, last + 1)

    def _remove(self, lane: _Lane, low: int, high: int) -> None:
        """Remove the rows from one position to another, and what was counted of them."""
        gone = lane.within(low, high)
        blocks = {lane.rows.pop(position).block for position in gone}
        start = bisect_left(lane.positions, low)
        del lane.positions[start : start + len(gone)]
        self.used -= sum(
            block.size for block in blocks if not lane.within(block.first, block.last)
        )
        lane.attempts.put(low, high, None)

    def _move(self, command: Move) -> None:
        lane = self._lanes.get(command.source)
        if lane is None:
            return
        position = command.first
        for low, high in command.ranges:
            for rows in lane.runs(low, high):
                head, records = rows[0], [row.record for row in rows]
                note = head.note if command.note is None else command.note
                times = head.stored_ms, head.expires_ms, head.due_ms
                self._store_run(
                    StoreRun(command.target, position, records, *times, head.order, note)
                )
                position += len(rows)
            self._remove(lane, low, high)

    def _drop(self, command: DropOldest | DropStream) -> list[Dropped]:
        stream = command.stream
        lane = self._lanes.get(stream)
        if lane is None:
            return []
        if isinstance(command, DropStream):
            self._remove(lane, 0, POSITION_MAX)
            del self._lanes[stream]
            return []
        missing = command.size
        runs: list[tuple[int, int]] = []
        block: _Block | None = None
        for position in lane.positions:
            if lane.rows[position].block != block:
                if missing <= 0:
                    break
                block = lane.rows[position].block
                missing -= block.size
            if runs and position == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], position)
            else:
                runs.append((position, position))
        for low, high in runs:
            self._remove(lane, low, high)
        return [(stream, low, high) for low, high in runs]

    def _set_entry(self, entry: Entry) -> None:
        key = (entry.kind, entry.name.encode(), entry.key)
        self._remove_entry(key)
        self._entries[key] = entry
        self.used += _size_of(entry)

    def _remove_entries(self, kind: EntryKind, name: bytes, key: bytes | None) -> None:
        if key is not None:
            self._remove_entry((kind, name, key))
            return
        for each in [each for each in self._entries if each[:2] == (kind, name)]:
            self._remove_entry(each)

    def _remove_entry(self, key: tuple[EntryKind, bytes, bytes]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used -= _size_of(entry)

    # Answers

    def is_free(self, stream: Stream, first: int, last: int) -> bool:
        """Return whether rows can be stored at these positions."""
        return stream not in self._lanes or self._lanes[stream].is_free(first, last)

    def states(self) -> tuple[StreamState, ...]:
        """Return all streams with what is in them, in the order in which they came to be."""
        return tuple(
            StreamState(
                stream,
                lane.following,
                lane.cum,
                lane.ranges,
                rows=len(lane.positions),
                first=lane.positions[0] if lane.positions else 0,
                last=lane.positions[-1] if lane.positions else 0,
                size=sum(kept.size for kept in lane.rows.values()),
            )
            for stream, lane in self._lanes.items()
        )

    def answer(self, question: Question) -> Answer:
        """Answer a question.

        Raises:
            ValueError: it is for a copy in a file.
        """
        match question:
            case ReadRows():
                return self._read_rows(question)
            case ReadEntries(kind, after, count_max):
                keys = sorted(key for key in self._entries if key[0] == kind)
                if after is not None:
                    keys = keys[bisect_right(keys, (kind, after[0].encode(), after[1])) :]
                entries = [self._entries[key] for key in keys[:count_max]]
                return EntriesRead(entries, is_end=len(keys) <= count_max)
            case ReadOutcomes(stream, after_position, count_max):
                lane = self._lanes.get(stream)
                marks = [] if lane is None else lane.outcomes.beginning_above(after_position)
                outcomes = [
                    StoredOutcome(first, last, *value) for first, last, value in marks[:count_max]
                ]
                return OutcomesRead(outcomes, is_end=len(marks) <= count_max)
            case BackUp():
                raise ValueError("what is in memory alone is not copied to a file")
            case _:
                assert_never(question)

    def _read_rows(self, question: ReadRows) -> RowsRead:
        lane = self._lanes.get(question.stream)
        if lane is None:
            return RowsRead([], is_end=True)
        start = bisect_right(lane.positions, question.after)
        rows: list[StoredRow] = []
        size = 0
        for position in islice(lane.positions, start, start + question.count_max + 1):
            if rows and (size >= question.bytes_max or len(rows) == question.count_max):
                return RowsRead(rows, is_end=False)
            kept = lane.rows[position]
            rows.append(StoredRow(kept.row, lane.attempts.at(position) or 0))
            size += kept.record_bytes
        return RowsRead(rows, is_end=True)


def _kept(row: Row, block: _Block) -> _Kept:
    """Return a row as it comes back from a disk: of plain bytes and tuples, nobody else's."""
    record = _pack(row.record)
    note = _pack(row.note) if row.note else b""
    back = row._replace(
        record=cast("Record", unpackb(record, use_list=False)),
        note=cast("Note", unpackb(note, use_list=False)) if note else (),
    )
    return _Kept(back, len(record), len(note), block)


def _size_of_block(rows: Sequence[Row]) -> int:
    records = [row.record for row in rows]
    packed = _pack(records if len(records) > 1 else records[0])
    note = _pack(rows[0].note) if rows[0].note else b""
    return len(packed) + len(note) + ROW_OVERHEAD_BYTES


def _size_of(entry: Entry) -> int:
    return len(entry.value) + 2 * len(entry.key) + ROW_OVERHEAD_BYTES
