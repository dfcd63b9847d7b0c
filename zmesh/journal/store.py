"""Commands to rows, and rows to answers: the journal's content, on an open database."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import Final, NamedTuple, assert_never, cast

from zmesh.journal import coding
from zmesh.journal.coding import Block, Table, Totals, Unsound
from zmesh.journal.sealed_entries import EntryOrder
from zmesh.journal.sealing import OVERHEAD_BYTES, Keyhole, Seal, looking
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
    StoreRun,
    Stream,
    StreamState,
)

MOVED_AT_ONCE: Final = 256
"""Blocks in memory while others go to another stream."""

_KEYLESS: Final = looking("")
# What a list says of its length is of no record: one byte, or three from 16 on.
_HEADS: Final = "(span > 1) + 2 * (span > 15)"
_STATE: Final = (
    "SELECT count(*), sum(checksum), sum(length(record) + length(note)), sum(span), "
    "sum((span > 1) + 2 * (span > 15)), sum(length(note) * (span - 1)), "
    "min(place), max(place + span) FROM messages WHERE place BETWEEN ? AND ?"
)
_SEALED_STATE: Final = _STATE.replace(
    # Nor is what sealing adds, to the records once and to the note of each.
    f"sum({_HEADS})",
    f"sum({_HEADS} + {OVERHEAD_BYTES} * (1 + span * (length(note) > 0)))",
)

_new_stored: Callable[[tuple[object, ...]], StoredRow] = partial(tuple.__new__, StoredRow)
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

    Args:
        database: open.
        identity: who keeps it.
        totals: how far it has come; not at all by default.
        seal: what its values are encrypted with; None: they are not.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        identity: Identity,
        totals: Totals | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.database = database
        self.identity = identity
        self.lanes: dict[Stream, Lane] = {}
        self.seal = seal
        self.tables = Tables(database, totals or Totals(), seal)
        self._entry_order = None if seal is None else EntryOrder(database, seal)
        self._unsaved: set[Stream] = set()  # their last row alone tells their next position
        self._before = self._state_now()

    @classmethod
    def load(cls, database: sqlite3.Connection, keyhole: Keyhole = _KEYLESS) -> "JournalStore":
        """Return the store of a database.

        Without the key the streams of one that is encrypted have sealed names, and rows cannot
        be read; all that does not look into values works.

        Raises:
            Unsound: what says what is in it is not what was written, or is not there.
            StorageKeyWrong, StorageKeyMissing, StorageNotEncrypted: as the keyhole says.
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
        identity = coding.identity_of(facts[coding.IDENTITY])
        told = _seal_value(database, facts.pop(coding.SEAL, None))
        if told is None and coding.is_sealed(identity.seed):
            raise Unsound("how it is encrypted is lost")
        seal = keyhole(told)
        identity = coding.identity_of(facts.pop(coding.IDENTITY), seal)
        store = cls(database, identity, totals, seal)
        del checksums[coding.POSITION]
        store.tables.facts = checksums
        for number, value in facts.items():
            stream, following, cum, ranges = coding.stream_of(number, value, seal)
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

    def put_seal(self) -> None:
        """Write how a new file is encrypted, where it is."""
        if self.seal is not None:
            self.tables.put_seal(self.seal.value)

    def set_identity(self, identity: Identity) -> None:
        """Write who keeps this journal."""
        self.identity = identity
        self.tables.put_fact(coding.IDENTITY, coding.identity_value(identity, self.seal))

    # Commands

    def apply(self, command: Command) -> list[Dropped]:
        """Do what a command says; return what was dropped for it."""
        match command:
            case Store(stream, rows):
                self._store(stream, rows)
            case StoreRun():
                self._store_run(command)
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
                self._forget_order()
                for entry in entries:
                    self.tables.put_entry(entry)
            case RemoveEntries(kind, name, key):
                self._forget_order()
                self.tables.remove_entries(kind, name.encode(), key)
            case _:
                assert_never(command)

    def _forget_order(self) -> None:
        if self._entry_order is not None:
            self._entry_order.forget()

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
        columns = coding.message_columns(lane.number, rows, self.seal)
        for row, (place, *_) in zip(rows, columns, strict=True):
            if row.position >= lane.following:
                break
            self.tables.check_free(cast("int", place), cast("int", place))
        if columns:
            self.tables.insert_messages(columns)
            self._move_on(stream, lane, rows[-1].position + 1)

    def _store_run(self, run: StoreRun) -> None:
        lane = self._lane(run.stream)
        columns = coding.run_columns(lane.number, run, self.seal)
        if run.first < lane.following:
            base = coding.bounds_of(lane.number)[0]
            self.tables.check_free(base | run.first, base | run.last)
        self.tables.insert_messages(columns)
        self._move_on(run.stream, lane, run.last + 1)

    def _move_on(self, stream: Stream, lane: Lane, following: int) -> None:
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
                for columns in found:
                    for part in self._parts(columns, start, high):
                        note = part.note if command.note is None else command.note
                        times = part.stored_ms, part.expires_ms, part.due_ms
                        self._store_run(
                            StoreRun(
                                command.target, position, part.records, *times, part.order, note
                            )
                        )
                        position += len(part.records)
                start = found[-1][0] + found[-1][8]
            self.tables.remove_messages(low, high)

    def _parts(self, columns: coding.Columns, low: int, high: int) -> Iterator[Block]:
        """Yield what is left of a block from one place to another; Unsound as `block_of`."""
        block = coding.block_of(columns, self.seal)
        for first, last in self.tables.left(block.place, len(block.records), low, high):
            yield block.part(first, last)

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
        number, following, cum, ranges = lane
        value = coding.stream_value(number, stream, following, cum, ranges, self.seal)
        self.tables.put_fact(number, value)

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
        states: list[StreamState] = []
        there = [0, 0, 0]
        for stream, lane in self.lanes.items():
            state, sums = self._state(stream, lane)
            states.append(state)
            there = [one + other for one, other in zip(there, sums, strict=True)]
        totals = self.totals
        told = [totals.counts[Table.MESSAGES], totals.sums[Table.MESSAGES], totals.size]
        records = sum(state.rows for state in states)
        if (there, records) != (told, totals.records):
            raise Unsound(
                f"{records} messages are there, of {totals.records}, or others than were"
            )
        return tuple(states)

    def _state(self, stream: Stream, lane: Lane) -> tuple[StreamState, tuple[int, int, int]]:
        bounds = coding.bounds_of(lane.number)
        count, sums, size, rows, heads, notes, first, end = self.database.execute(
            _STATE if self.seal is None else _SEALED_STATE, bounds
        ).fetchone()
        _, following, cum, ranges = lane
        if not count:
            return StreamState(stream, following, cum, ranges, 0, 0, 0, 0), (0, 0, 0)
        gone, gone_size, first, last = self._gone(*bounds, first, end - 1)
        state = StreamState(
            stream, following, cum, ranges, rows - gone,
            first & POSITION_MAX, last & POSITION_MAX, size - heads + notes - gone_size,
        )  # fmt: skip
        return state, (count, sums, size)

    def _gone(self, low: int, high: int, first: int, last: int) -> tuple[int, int, int, int]:
        """Return how many records are gone, their bytes, and which of all are first and last."""
        count = size = 0
        if not self.totals.counts[Table.GONE]:
            return count, size, first, last
        for start, end, value, _ in self.tables.marks(Table.GONE, low, high):
            columns = self.tables.messages(start, end, 1).fetchone()
            if columns is None or not coding.is_gone_of(columns, start, end, value):
                raise Unsound("something is gone of a block that is not there")
            count += end - start + 1
            if self.seal is None or self.seal.is_open:  # or nobody asks how large what is
                part = coding.block_of(columns, self.seal).part(start, end)
                note_bytes = len(columns[6]) - coding.sealed_bytes(columns, self.seal)[1]
                size += sum(part.sizes()) + note_bytes * len(part.records)
            first = end + 1 if start == first else first
            last = start - 1 if end == last else last
        return count, size, first, last

    def read_rows(self, question: ReadRows) -> RowsRead:
        """Return rows of a stream; Unsound where one is not what was written."""
        lane = self.lanes.get(question.stream)
        if lane is None:
            return RowsRead([], is_end=True)
        base, high = coding.bounds_of(lane.number)
        low, limit, room = base + question.after + 1, question.count_max, question.bytes_max
        rows: list[Row] = []
        is_end, seal = True, self.seal
        # Of the first block nothing may be left above.
        found = self.tables.messages(low, high, question.count_max + 2)
        for columns in found:
            if rows and (limit <= 0 or room <= 0):
                is_end = False
                break
            if columns[8] == 1:
                rows.append(coding.row_of(columns, seal))
                limit, room = limit - 1, room - len(columns[1])
                if seal is not None:
                    room += OVERHEAD_BYTES
                continue
            for part in self._parts(columns, low, high):
                count, size = len(part.records), coding.records_bytes(columns, seal)
                if count > limit or size >= room or count < columns[8]:
                    count, size = _fitting(part, limit, room, is_first=not rows)
                is_end = is_end and count == len(part.records)
                rows += part.rows()[:count]
                limit, room = limit - count, room - size
        found.close()
        return RowsRead(self._with_attempts(base, rows), is_end)

    def _with_attempts(self, base: int, rows: list[Row]) -> list[StoredRow]:
        if not rows or not self.totals.counts[Table.ATTEMPTS]:
            return list(map(_new_stored, zip(rows, repeat(0))))
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
        if self._entry_order is not None:
            entries = self._entry_order.entries(question.kind, after, limit + 1)
            return EntriesRead(entries[:limit], len(entries) <= limit)
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
        outcomes = [coding.outcome_of(*mark[:3], self.seal) for mark in found[:limit]]
        return OutcomesRead(outcomes, len(found) <= limit)


def _seal_value(database: sqlite3.Connection, told: bytes | None) -> bytes | None:
    """Return what a file says of its seal; Unsound where it does not say it twice."""
    copies = database.execute("SELECT * FROM seals").fetchall()
    if told is None and not copies:
        return None
    if len(copies) != 1 or copies[0][1] != told or not coding.is_fact_sound(copies[0]):
        raise Unsound("how it is encrypted")
    return told


def _fitting(part: Block, count_max: int, bytes_max: int, *, is_first: bool) -> tuple[int, int]:
    """Return how many records of a block go into an answer, and how many bytes they have."""
    size = 0
    for count, each in enumerate(part.sizes()):
        if (count or not is_first) and (count >= count_max or size >= bytes_max):
            return count, size
        size += each
    return len(part.records), size
