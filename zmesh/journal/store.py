"""Commands to rows, and rows to answers: the journal's content, on an open database."""

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple, assert_never

from zmesh.journal import coding
from zmesh.journal.coding import Table, Totals, Unsound
from zmesh.journal.tables import Tables
from zmesh.storage import (
    POSITION_MAX,
    STREAMS_MAX,
    Command,
    CountAttempts,
    DropOldest,
    DropStream,
    EntriesRead,
    Forget,
    ForgetOutcomes,
    Identity,
    Move,
    OutcomesRead,
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
    StoredRow,
    StoreOutcomes,
    Stream,
    StreamState,
)

MOVED_AT_ONCE: Final = 256
"""Rows in memory while others go to another stream."""

Dropped = tuple[Stream, int, int]
_State = tuple[Totals, dict[int, int], "dict[Stream, Lane]", set[Stream], Identity]


class Lane(NamedTuple):
    """What is known of a stream beside its rows."""

    number: int
    following: int = 1  # the next position
    cum: int = 0
    ranges: Ranges = ()


class JournalStore:
    """The content of one journal.

    `begin`, `apply` any number of times, then `commit` or `roll_back`. `read_*` any time.
    """

    def __init__(
        self, database: sqlite3.Connection, identity: Identity, totals: Totals | None = None
    ) -> None:
        self.database = database
        self.identity = identity
        self.lanes: dict[Stream, Lane] = {}
        self.tables = Tables(database, totals or Totals())
        self._unsaved: set[Stream] = set()  # their last row alone tells their next position
        self._before = self._state_now()

    @classmethod
    def load(cls, database: sqlite3.Connection) -> "JournalStore":
        """Return the store of a database.

        Raises:
            Unsound: what says what is in it is not what was written, or is not there.
        """
        facts: dict[int, bytes] = {}
        checksums: dict[int, int] = {}
        for columns in database.execute("SELECT * FROM facts"):
            if not coding.is_fact_sound(columns):
                raise Unsound(f"fact {columns[0]}")
            facts[columns[0]] = columns[1]
            checksums[columns[0]] = columns[2]
        if not {coding.IDENTITY, coding.POSITION} <= facts.keys():
            raise Unsound("who keeps it, or how far it has come, is missing")
        totals = Totals.of(facts.pop(coding.POSITION))
        store = cls(database, coding.identity_of(facts.pop(coding.IDENTITY)), totals)
        del checksums[coding.POSITION]
        store.tables.facts = checksums
        for number, value in facts.items():
            stream, following, cum, ranges = coding.stream_of(value)
            last = store.tables.last_place(*coding.bounds_of(number)) & POSITION_MAX
            if last >= following:
                following = last + 1
                store._unsaved.add(stream)
            store.lanes[stream] = Lane(number, following, cum, ranges)
        store._before = store._state_now()
        return store

    @property
    def totals(self) -> Totals:
        """How far the journal has come."""
        return self.tables.totals

    # Transactions

    def begin(self) -> None:
        """Begin a transaction."""
        self.database.execute("BEGIN IMMEDIATE")
        self._before = self._state_now()

    def _state_now(self) -> _State:
        return (
            self.tables.totals.copy(), self.tables.facts.copy(), self.lanes.copy(),
            self._unsaved.copy(), self.identity,
        )  # fmt: skip

    def commit(self) -> None:
        """End the transaction: what was applied is on disk when this returns."""
        self.tables.totals.commits += 1
        self.tables.put_totals()
        self.database.execute("COMMIT")

    def roll_back(self) -> None:
        """End the transaction as if it had not been."""
        if self.database.in_transaction:
            self.database.execute("ROLLBACK")
        tables = self.tables
        tables.totals, tables.facts, self.lanes, self._unsaved, self.identity = self._before

    def set_identity(self, identity: Identity) -> None:
        """Write who keeps this journal."""
        self.identity = identity
        self.tables.put_fact(coding.IDENTITY, coding.identity_value(identity))

    # Commands

    def apply(self, command: Command) -> list[Dropped]:
        """Do what a command says; return what was dropped for it."""
        match command:
            case Store(stream, rows):
                self._store(stream, rows)
            case SetWatermark(stream, cum, ranges):
                self._put(stream, self._lane(stream)._replace(cum=cum, ranges=ranges))
            case Forget(stream, ranges):
                self._save(stream)
                for low, high in self._places(stream, ranges):
                    self.tables.remove_messages(low, high)
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
            case CountAttempts(stream, ranges, attempts):
                value = coding.attempts_value(attempts)
                for low, high in self._places(stream, ranges):
                    self.tables.mark(Table.ATTEMPTS, low, high, value)
            case StoreOutcomes(stream, outcomes):
                base = coding.bounds_of(self._lane(stream).number)[0]
                for each in outcomes:
                    low, high = base | each.first, base | each.last
                    self.tables.mark(Table.OUTCOMES, low, high, coding.outcome_value(each))
            case ForgetOutcomes(stream, ranges):
                for low, high in self._places(stream, ranges):
                    self.tables.mark(Table.OUTCOMES, low, high, None)
            case SetEntries(entries):
                for entry in entries:
                    self.tables.put_entry(entry)
            case RemoveEntries(kind, name, key):
                self.tables.remove_entries(kind, name.encode(), key)
            case _:
                assert_never(command)

    def _drop(self, command: DropOldest | DropStream) -> list[Dropped]:
        lane = self.lanes.get(command.stream)
        if lane is None:
            return []
        low, high = coding.bounds_of(lane.number)
        self._save(command.stream)
        if isinstance(command, DropOldest):
            runs = list(self.tables.oldest(low, high, command.size))
            for first, last in runs:
                self.tables.remove_messages(first, last)
            return [
                (command.stream, first & POSITION_MAX, last & POSITION_MAX) for first, last in runs
            ]
        self.tables.remove_messages(low, high)
        self.tables.mark(Table.OUTCOMES, low, high, None)
        self.tables.remove_fact(lane.number)
        del self.lanes[command.stream]
        return []

    def _store(self, stream: Stream, rows: Sequence[Row]) -> None:
        lane = self._lane(stream)
        columns = coding.message_columns(lane.number, rows)
        if columns:
            self.tables.insert_messages(columns)
            following = rows[-1].position + 1
            if following > lane.following:
                # The rows tell it themselves, until they are removed.
                self.lanes[stream] = lane._replace(following=following)
                self._unsaved.add(stream)

    def _save(self, stream: Stream) -> None:
        """Write what the rows of a stream told alone: some are about to be removed."""
        if stream in self._unsaved:
            self._put(stream, self.lanes[stream])

    def _move(self, command: Move) -> None:
        self._save(command.source)
        position = command.first
        for low, high in self._places(command.source, command.ranges):
            start = low
            while found := self.tables.messages(start, high, MOVED_AT_ONCE).fetchall():
                rows = []
                for columns in found:
                    row = coding.row_of(columns)
                    note = row.note if command.note is None else command.note
                    rows.append(row._replace(position=position, note=note))
                    position += 1
                self._store(command.target, rows)
                start = found[-1][0] + 1
            self.tables.remove_messages(low, high)

    def _lane(self, stream: Stream) -> Lane:
        """Return a stream, which is there from now on."""
        lane = self.lanes.get(stream)
        if lane is None:
            lane = Lane(self._free_number())
            self._put(stream, lane)
        return lane

    def _free_number(self) -> int:
        taken = {lane.number for lane in self.lanes.values()}
        number = max(taken, default=coding.FIRST_STREAM - 1) + 1
        if number > STREAMS_MAX:
            number = next(each for each in range(coding.FIRST_STREAM, number) if each not in taken)
        return number

    def _put(self, stream: Stream, lane: Lane) -> None:
        self.lanes[stream] = lane
        self._unsaved.discard(stream)
        self.tables.put_fact(
            lane.number, coding.stream_value(stream, lane.following, lane.cum, lane.ranges)
        )

    def _places(self, stream: Stream, ranges: Ranges) -> list[tuple[int, int]]:
        lane = self.lanes.get(stream)
        if lane is None:
            return []
        base = coding.bounds_of(lane.number)[0]
        return [(base | first, base | last) for first, last in ranges]

    # Answers

    def states(self) -> tuple[StreamState, ...]:
        """Return all streams with what is in them: one look at every page with rows.

        Raises:
            Unsound: the rows that are there are not those of the last commit.
        """
        states = [self._state(stream, lane) for stream, lane in self.lanes.items()]
        count = sum(state.rows for state, _ in states)
        sums = sum(checksums for _, checksums in states)
        size = sum(state.size for state, _ in states)
        totals = self.totals
        told = (totals.counts[Table.MESSAGES], totals.sums[Table.MESSAGES], totals.size)
        if (count, sums, size) != told:
            raise Unsound(f"{count} messages are there, of {told[0]}, or others than were")
        return tuple(state for state, _ in states)

    def _state(self, stream: Stream, lane: Lane) -> tuple[StreamState, int]:
        count, first, last, size, sums = self.database.execute(
            "SELECT count(*), min(place), max(place), sum(length(record) + length(note)), "
            "sum(checksum) FROM messages WHERE place BETWEEN ? AND ?",
            coding.bounds_of(lane.number),
        ).fetchone()
        first, last = (first or 0) & POSITION_MAX, (last or 0) & POSITION_MAX
        _, following, cum, ranges = lane
        state = StreamState(stream, following, cum, ranges, count, first, last, size or 0)
        return state, sums or 0

    def read_rows(self, question: ReadRows) -> RowsRead:
        """Return rows of a stream; Unsound where one is not what was written."""
        lane = self.lanes.get(question.stream)
        if lane is None:
            return RowsRead([], is_end=True)
        base, high = coding.bounds_of(lane.number)
        rows: list[Row] = []
        size, is_end = 0, True
        found = self.tables.messages(base + question.after + 1, high, question.count_max + 1)
        for columns in found:
            if rows and (size >= question.bytes_max or len(rows) == question.count_max):
                is_end = False
                break
            rows.append(coding.row_of(columns))
            size += len(columns[1])
        found.close()
        return RowsRead(self._with_attempts(base, rows), is_end)

    def _with_attempts(self, base: int, rows: list[Row]) -> list[StoredRow]:
        if not rows or not self.totals.counts[Table.ATTEMPTS]:
            return [StoredRow(row, 0) for row in rows]
        stored = []
        marks = iter(
            self.tables.marks(Table.ATTEMPTS, base | rows[0].position, base | rows[-1].position)
        )
        mark = next(marks, None)
        for row in rows:
            place = base | row.position
            while mark is not None and mark[1] < place:
                mark = next(marks, None)
            counted = mark is not None and mark[0] <= place
            if mark is not None and counted and not coding.is_mark_sound(Table.ATTEMPTS, mark):
                raise Unsound("a count of attempts")
            stored.append(StoredRow(row, coding.attempts_of(mark[2]) if mark and counted else 0))
        return stored

    def read_entries(self, question: ReadEntries) -> EntriesRead:
        """Return entries of a kind; Unsound where one is not what was written."""
        after = question.after and (question.after[0].encode(), question.after[1])
        limit = question.count_max
        found = self.tables.entries(question.kind, after, limit + 1).fetchall()
        return EntriesRead([coding.entry_of(each) for each in found[:limit]], len(found) <= limit)

    def read_outcomes(self, question: ReadOutcomes) -> OutcomesRead:
        """Return outcomes of a stream; Unsound where one is not what was written."""
        lane = self.lanes.get(question.stream)
        if lane is None:
            return OutcomesRead([], is_end=True)
        base, high = coding.bounds_of(lane.number)
        low, limit = base + question.after + 1, question.count_max
        found = [
            mark
            for mark in self.tables.marks(Table.OUTCOMES, low, high, limit + 2)
            if mark[0] >= low  # the one that reaches into these was read before
        ]
        if not all(coding.is_mark_sound(Table.OUTCOMES, mark) for mark in found):
            raise Unsound("an outcome")
        outcomes = [coding.outcome_of(*mark[:3]) for mark in found[:limit]]
        return OutcomesRead(outcomes, len(found) <= limit)
