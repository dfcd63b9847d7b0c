"""What a node keeps beyond its life: rows in streams, entries by name, orders to the journal.

Pure, so that the engine can order and hear: a `Batch` of commands goes to the journal under one
ticket and becomes durable whole or not at all; `Written` or `Refused` answers it, in order.

A *stream* is a lane to or from a peer, a queue, a topic's publications, the dead letters: rows,
each at a position that is its own for good. An *entry* is a value under a name and a key, in the
place of the one before.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import repeat
from operator import itemgetter
from typing import Final, NamedTuple

from zmesh.errors import ZmeshError
from zmesh.ids import JournalId, NodeId
from zmesh.message import Outcome, Record
from zmesh.storage_errors import StorageError

POSITION_MAX: Final = (1 << 44) - 1
"""Of a row: four years of 150,000 messages a second on one lane."""

STREAMS_MAX: Final = (1 << 19) - 1
"""Ever numbered in one journal and not dropped."""

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of positions, ascending and disjoint, as in `wire.frames`."""

NoteItem = int | str | bytes | None | tuple["NoteItem", ...]
Note = tuple[NoteItem, ...]
"""What a pattern keeps beside a record; `Burial` for dead letters, otherwise its own affair."""


class StreamKind(IntEnum):
    """What the rows of a stream are."""

    LANE_OUT = 1  # of one peer; nodes store none of these
    LANE_IN = 2  # of outcomes of what another journal numbered; owner: its node id and its own
    WAITING = 3  # for an addressee; owner: its name, or its node id as hex digits
    QUEUE = 4  # jobs of a queue, delayed ones too; owner: its name, lane: see `job_lane`
    TOPIC = 5  # the log: publications of all topics, for durable subscriptions and replay
    DEAD_LETTERS = 6
    FOUND = 15  # rescued from a damaged journal, of a stream whose description was lost


class Stream(NamedTuple):
    """The name of a stream."""

    kind: StreamKind
    owner: bytes = b""
    lane: int = 0


DEAD_LETTERS: Final = Stream(StreamKind.DEAD_LETTERS)


class EntryKind(IntEnum):
    """What an entry is."""

    SUBSCRIPTION = 2  # with a name; name: that, key: the publisher, value: see `core.positions`
    RETAINED = 3  # name: the topic, key: which of its history
    SHARED = 4  # name: the map, key: one of its keys or origins, see `patterns.shared_saving`
    COUNTER = 5  # numbers given out up to here, so that none is given twice
    TICKET = 6  # of a request whose answer may come in another life
    RELAYED = 7  # key: of a row in an application's outbox that was taken, and may be there still
    FAN_OUT = 8  # name: its number, key: its message, or a member
    REPLAYS = 9  # of signed messages; name: the handler, see `security.replays.Change`


class Row(NamedTuple):
    """A record in a stream, and what a node must know of it in its next life."""

    position: int
    record: Record
    stored_ms: int = 0  # by the wall clock, as all times that outlive a process
    expires_ms: int = 0  # 0: never
    due_ms: int = 0  # 0: at once
    order: int = 0  # among all that were stored; of a numbered message its number
    note: Note = ()


_new_row: Callable[[tuple[object, ...]], Row] = partial(tuple.__new__, Row)


class StoredRow(NamedTuple):
    """A row as it was read, and how often its handling has begun."""

    row: Row
    attempts: int


class Entry(NamedTuple):
    """A value under a name and a key."""

    kind: EntryKind
    name: str
    key: bytes
    value: bytes


class StoredOutcome(NamedTuple):
    """What became of the rows at these positions; the sender may not know yet."""

    first: int
    last: int
    outcome: Outcome
    reason: str = ""
    delay_ms: int = 0


class FailedAttempt(NamedTuple):
    """An attempt to handle a message that came to nothing: when, and why."""

    at_ms: int  # by the wall clock
    reason: str


@dataclass(frozen=True, slots=True)
class Burial:
    """What is kept beside a dead letter."""

    destination: str  # the peer, queue, topic or group it was for
    reason: str
    history: tuple[tuple[int, str], ...] = ()  # of attempts, as far as known: `FailedAttempt`s
    attempts: int = 0  # all there were, those of earlier lives included
    at_ms: int = 0  # when it died, by the wall clock
    peer: bytes = b""  # the node that had it last, where that is known
    source: Stream | None = None  # where it was, and is to go back to
    note: Note = ()  # that it had there

    def as_note(self) -> Note:
        """Return it as the note of a row."""
        source = () if self.source is None else (int(self.source.kind), *self.source[1:])
        history = tuple((at_ms, reason) for at_ms, reason in self.history)
        return (
            self.destination, self.reason, _BURIAL_FORM, self.attempts, self.at_ms, self.peer,
            source, self.note, *history,
        )  # fmt: skip

    @classmethod
    def of(cls, note: Note) -> "Burial":
        """Return it from the note of a row; ValueError where that is another."""
        match note:
            case (str(to), str(why), 2, int(attempts), int(at_ms), bytes(peer), source,
                  tuple(kept), *history):  # fmt: skip
                tried = tuple(map(_attempt, history))
                return cls(to, why, tried, attempts, at_ms, peer, _source(source), kept)
            case (str(destination), str(reason), *history):  # of before there was more to tell
                tried = tuple(map(_attempt, history))
                return cls(destination, reason, tried, len(tried))
            case _:
                raise ValueError("this is not the note of a dead letter")


_BURIAL_FORM: Final = 2
_STREAM_KINDS: Final = frozenset(map(int, StreamKind))


def _attempt(item: object) -> FailedAttempt:
    match item:
        case (int(at_ms), str(reason)):
            return FailedAttempt(at_ms, reason)
        case _:
            raise ValueError("this is not the history of a dead letter")


def _source(item: object) -> Stream | None:
    match item:
        case ():
            return None
        case (int(kind), bytes(owner), int(lane)) if kind in _STREAM_KINDS:
            return Stream(StreamKind(kind), owner, lane)
        case _:
            raise ValueError("this is not where a dead letter was")


# Commands. Each is done whole, in the order of its batch.


@dataclass(frozen=True, slots=True)
class Store:
    """Put rows into a stream, at ascending positions that are free.

    A lane to a peer is where numbers are given: the stream's `next_position` moves along.
    """

    stream: Stream
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class StoreRun:
    """Put records into a stream at consecutive positions, which no row ever had: as `Store`.

    They have consecutive orders and all else in common. They share blocks on disk, and a block
    keeps its room and its positions until all of it is forgotten.
    """

    stream: Stream
    first: int  # the position of the first record
    records: Sequence[Record]  # one at least
    stored_ms: int = 0
    expires_ms: int = 0
    due_ms: int = 0
    order: int = 0  # of the first record
    note: Note = ()
    bodies: int = field(init=False, repr=False, compare=False)  # what it carries, in bytes

    def __post_init__(self) -> None:
        """Measure it, once for all who ask."""
        records = self.records
        bodies = sum(map(len, map(_BODY, records))) + sum(map(len, map(_TARGET, records)))
        object.__setattr__(self, "bodies", bodies)

    @property
    def last(self) -> int:
        """The position of the last record."""
        return self.first + len(self.records) - 1

    def rows(self) -> Iterator[Row]:
        """Return the rows it stores, one by one."""
        count = len(self.records)
        columns = zip(
            range(self.first, self.first + count), self.records,
            repeat(self.stored_ms), repeat(self.expires_ms), repeat(self.due_ms),
            range(self.order, self.order + count), repeat(self.note), strict=False,
        )  # fmt: skip
        return map(_new_row, columns)

    def blocks(self) -> list[tuple[int, Sequence[Record]]]:
        """Return the positions from which on records share a block, and the records."""
        count = len(self.records)
        mean = self.bodies // max(count, 1) + RUN_OVERHEAD_BYTES
        step = max(1, min(BLOCK_RECORDS_MAX, BLOCK_BYTES // mean))
        return [(self.first + at, self.records[at : at + step]) for at in range(0, count, step)]


@dataclass(frozen=True, slots=True)
class SetWatermark:
    """Note which positions of a stream came, with or without their rows. Nodes order none."""

    stream: Stream
    cum: int
    ranges: Ranges = ()


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove the rows at these positions, and their attempts; what is not there is no matter."""

    stream: Stream
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Move:
    """Take rows to another stream, where they get the positions from `first` on, in order.

    For those whose bodies are not in memory: a session ended, a job is bound, a letter is dead.
    Attempts do not go along: what counts of them is in the note.
    """

    source: Stream
    ranges: Ranges
    target: Stream
    first: int
    note: Note | None = None  # None: each keeps its own


@dataclass(frozen=True, slots=True)
class CountAttempts:
    """Note that handling of these rows begins for the `attempts`-th time."""

    stream: Stream
    ranges: Ranges
    attempts: int


@dataclass(frozen=True, slots=True)
class StoreOutcomes:
    """Note what became of rows, until `ForgetOutcomes`; the rows themselves go by `Forget`."""

    stream: Stream
    outcomes: tuple[StoredOutcome, ...]


@dataclass(frozen=True, slots=True)
class ForgetOutcomes:
    """Remove outcomes: the sender knows them."""

    stream: Stream
    ranges: Ranges


@dataclass(frozen=True, slots=True)
class DropOldest:
    """Remove rows of the stream, the lowest positions first, until so many bytes are free.

    Rows that share a block go together. `Written.dropped` tells which: somebody may wait for them.
    """

    stream: Stream
    size: int


@dataclass(frozen=True, slots=True)
class DropStream:
    """Remove a stream with all its rows, its numbers, watermark and outcomes."""

    stream: Stream


@dataclass(frozen=True, slots=True)
class SetEntries:
    """Put entries in the place of those before."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class RemoveEntries:
    """Remove the entry of a key, or without one all of the name."""

    kind: EntryKind
    name: str
    key: bytes | None = None


Command = (
    Store | StoreRun | SetWatermark | Forget | Move | CountAttempts | StoreOutcomes
    | ForgetOutcomes | DropOldest | DropStream | SetEntries | RemoveEntries
)  # fmt: skip

BLOCK_RECORDS_MAX: Final = 128
BLOCK_BYTES: Final = 32 * 1024
"""How many records of a run share a block at most, and about how large it is.

More are hardly cheaper, and what is damaged or dropped goes with its block.
"""

ROW_OVERHEAD_BYTES: Final = 64
"""What a row or a block takes in the file beside records and note, and what pages cannot use."""

RUN_OVERHEAD_BYTES: Final = 8
"""What a record of a run takes in its block beside target and body."""

_TARGET = itemgetter(1)
_BODY = itemgetter(2)


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands that become durable together."""

    ticket: int
    commands: tuple[Command, ...]
    size: int = field(init=False, repr=False, compare=False)
    """How much room it takes, about, in bytes; 0 where it takes none worth asking for."""

    def __post_init__(self) -> None:
        """Measure it, once for all who ask."""
        object.__setattr__(self, "size", sum(map(_size_of, self.commands)))


def _size_of(command: Command) -> int:
    match command:
        case Store(_, rows):
            bodies = sum(len(row.record[2]) + len(row.record[1]) for row in rows)
            return bodies + ROW_OVERHEAD_BYTES * len(rows)
        case StoreRun(records=records, bodies=bodies):
            blocks = -(-len(records) // BLOCK_RECORDS_MAX)
            return bodies + RUN_OVERHEAD_BYTES * len(records) + ROW_OVERHEAD_BYTES * blocks
        case SetEntries(entries):
            values = sum(len(entry.value) + 2 * len(entry.key) for entry in entries)
            return values + ROW_OVERHEAD_BYTES * len(entries)
        case _:
            return 0


# Questions


@dataclass(frozen=True, slots=True)
class ReadRows:
    """Rows of a stream above a position, in order; answered by `RowsRead`."""

    stream: Stream
    after: int = 0
    count_max: int = 1024
    bytes_max: int = 1024 * 1024  # of records; one row is read whatever its size


@dataclass(frozen=True, slots=True)
class ReadEntries:
    """Entries of a kind above a name and key, in order; answered by `EntriesRead`."""

    kind: EntryKind
    after: tuple[str, bytes] | None = None
    count_max: int = 1024


@dataclass(frozen=True, slots=True)
class ReadOutcomes:
    """Outcomes kept of a stream above a position; answered by `OutcomesRead`."""

    stream: Stream
    after: int = 0
    count_max: int = 1024


@dataclass(frozen=True, slots=True)
class BackUp:
    """Copy the journal, as it is now, to a new file; answered by `BackedUp`."""

    path: str


Question = ReadRows | ReadEntries | ReadOutcomes | BackUp


@dataclass(frozen=True, slots=True)
class RowsRead:
    """The rows; those that follow are asked for with the position of the last."""

    rows: list[StoredRow]
    is_end: bool


@dataclass(frozen=True, slots=True)
class EntriesRead:
    """The entries."""

    entries: list[Entry]
    is_end: bool


@dataclass(frozen=True, slots=True)
class OutcomesRead:
    """The outcomes."""

    outcomes: list[StoredOutcome]
    is_end: bool


@dataclass(frozen=True, slots=True)
class BackedUp:
    """The copy is on disk: a journal of its own, with another journal id."""

    path: str
    size: int


Answer = RowsRead | EntriesRead | OutcomesRead | BackedUp


# What the journal tells


@dataclass(frozen=True, slots=True)
class Identity:
    """Who keeps this journal."""

    node: NodeId
    seed: bytes = field(repr=False)  # of the node key; empty without one
    journal: JournalId
    incarnation: int


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as it is in the journal."""

    stream: Stream
    next_position: int  # no row was ever at this position or above
    received_cum: int
    received_ranges: Ranges
    rows: int
    first: int  # position of the lowest row; 0 where there is none
    last: int
    size: int  # of records and notes, in bytes


@dataclass(frozen=True, slots=True)
class Rescue:
    """What was saved of a damaged journal, under a new journal id.

    The damaged file was set aside as it was. What was already forgotten may have come back.
    """

    detail: str  # what was wrong
    set_aside: str  # path of the damaged file
    rows: int  # rescued
    rows_lost: int | None  # None: nobody can tell any more
    entries: int
    entries_lost: int | None
    streams: int
    streams_lost: int | None
    is_identity_lost: bool  # the node has another id now


@dataclass(frozen=True, slots=True)
class Opened:
    """The journal is there, and the node's next incarnation is on disk."""

    identity: Identity
    streams: tuple[StreamState, ...]
    is_new: bool
    rescue: Rescue | None


@dataclass(frozen=True, slots=True)
class Written:
    """These batches, in order, are on disk (`synchronous="normal"`: are with the system)."""

    tickets: tuple[int, ...]
    dropped: tuple[tuple[Stream, int, int], ...] = ()  # ranges that `DropOldest` removed


@dataclass(frozen=True, slots=True)
class Refused:
    """These batches were not written.

    With `JournalFull` nothing of them is there, and the journal goes on; they were refused
    together with all after them that need room, so numbers given out are missing at the end only.
    With any other error the next life may find some of what was under way when the disk failed.
    """

    tickets: tuple[int, ...]
    error: StorageError


@dataclass(frozen=True, slots=True)
class Answered:
    """A question has its answer, or why there is none."""

    ticket: int
    answer: Answer | ZmeshError


@dataclass(frozen=True, slots=True)
class Room:
    """A journal that was full has room again."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The journal could not be opened, or its disk failed: nothing is written any more."""

    error: StorageError


@dataclass(frozen=True, slots=True)
class Closed:
    """Everything handed over is written, and the files are closed; the last there is."""


JournalEvent = Opened | Written | Refused | Answered | Room | Broken | Closed


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """What a journal did since it opened, and how large it is. Sizes in bytes."""

    batches: int
    commits: int  # fewer than batches where they shared one
    bytes_handed_over: int
    pending: int  # batches
    used: int  # pages in use
    limit: int
    is_full: bool
    has_reserve: bool
    checkpoints: int
