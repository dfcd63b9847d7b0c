"""Jobs that are on disk until they have their outcome: what is written, read and forgotten.

A job is a row at its own number. It is stored before anybody is told of it. That it leaves is
noted with whatever is written next, and not waited for, so that a producer that dies knows in its
next life what may have begun; what it misses of the last moment its consumers know, who remember
by its number what they handled. But a job that this very process is to handle may be what kills
it: that it begins is on disk before. So is an attempt that was in vain, before the next one.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import Final, NamedTuple

from zmesh.core.peers import InternalTicket
from zmesh.core.turn import Turn
from zmesh.errors import ZmeshError
from zmesh.events import Push
from zmesh.ids import NodeId
from zmesh.message import LANES, PRIORITY_DEFAULT, Record, Tag, Ticket, size_of, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.job_lane import PAGE_BYTES, PAGE_ROWS, WATCHED_LANE, JobLane, lane_stream
from zmesh.patterns.job_queue import Job, JobQueue
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import (
    Answer,
    Command,
    CountAttempts,
    DropStream,
    Forget,
    Note,
    Ranges,
    ReadRows,
    Row,
    RowsRead,
    SetEntries,
    Store,
    StoredRow,
    Stream,
    StreamKind,
    StreamState,
)
from zmesh.storage_errors import StorageError

_STALE_MIN: Final = 64
"""Stale numbers kept before it is worth rebuilding a small heap."""

Enter = Callable[[Job, str | None, float], None]
"""Takes a job in, with its key, and seconds until it may leave."""

Then = Callable[[ZmeshError | None], None]


class _Terms(NamedTuple):
    """What is kept beside a job."""

    lane: int
    attempts_max: int
    key: str | None

    @property
    def note(self) -> tuple[int | str, ...]:
        terms = (self.lane, self.attempts_max)
        return terms if self.key is None else (*terms, self.key)


class StoredJobs:
    """The rows of this node's jobs.

    Args:
        turn: what it acts through.
        options: bounds.
        confirming: tells consumers what is forgotten.
        dead_letters: gets what nobody could handle, and may refuse more.
        enter: takes in what may be handed out.
        queue: returns the queue of a name.
    """

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        confirming: Confirming,
        dead_letters: DeadLetters,
        enter: Enter,
        queue: Callable[[str], JobQueue],
    ) -> None:
        self._turn = turn
        self._options = options
        self._confirming = confirming
        self._dead_letters = dead_letters
        self._enter = enter
        self._queue = queue
        self._attempts: dict[Job, int] = {}  # to be written, some time
        self._counted: dict[Job, tuple[int, Callable[[], None]]] = {}  # now, and what goes on then
        self._done: dict[Job, NodeId | None] = {}  # to be forgotten; who has their outcome
        self._storing: dict[int, int] = {}  # lowest numbers of what is on its way to the disk
        self._tokens = count(1)
        self._lowest: list[int] = []  # a heap of numbers that are in memory, or were
        self._open: set[int] = set()  # those of them that are on disk
        self.touched: dict[JobQueue, None] = {}  # for who binds jobs
        self.gathered = (
            self._attempts,
            self._counted,
            self._done,
            self.touched,
        )  # all empty: nothing to flush

    @property
    def floor(self) -> int:
        """The number below which no job that was ever in memory is left."""
        lowest = self._lowest
        while lowest and lowest[0] not in self._open:
            heappop(lowest)
        first = [lowest[0]] if lowest else []
        return min([*first, *self._storing.values()], default=self._turn.keeper.next_number)

    # Storing

    def on_push(self, push: Push, records: Sequence[Record]) -> None:
        """Store jobs; they are handed out when they are on disk."""
        keeper, told = self._turn.keeper, partial(self._turn.stored, push.ticket)
        refusal = self._dead_letters.refusal()
        if refusal is not None:
            told(refusal)
            return
        keeper.on_wall_clock(push.wall_ms, self._turn.now)
        queue = self._queue(records[0][1])
        number = keeper.numbers(len(records))
        expires_ms = 0 if push.ttl is None else push.wall_ms + max(1, round(push.ttl * 1000))
        due_ms = 0 if push.delay <= 0 else push.wall_ms + max(1, round(push.delay * 1000))
        terms = _Terms(push.lane, push.attempts_max or self._options.attempts_max, push.key)
        rows = [
            Row(each, with_extra(record, Tag.STORED, each), push.wall_ms, expires_ms, due_ms,
                each, terms.note)
            for each, record in enumerate(records, number)
        ]  # fmt: skip
        beside = (SetEntries(push.entries),) if push.entries else ()
        self._store(queue, rows, terms, push.ticket, told, *beside)

    def take_back(
        self,
        owner: bytes,
        record: Record,
        note: Note,
        also: Command,
        then: Callable[[StorageError | None], None],
    ) -> None:
        """Store a dead letter anew, as the last of its queue; nobody waits for its outcome.

        It gets another number: a consumer may know still what became of the old one.
        """
        number, terms = self._turn.keeper.numbers(1), self._terms(note)
        row = Row(
            number, with_extra(record, Tag.STORED, number),
            self._turn.keeper.wall_ms(self._turn.now), 0, 0, number, terms.note,
        )  # fmt: skip
        self._store(self._queue(owner.decode()), [row], terms, InternalTicket(), then, also)

    def _store(
        self,
        queue: JobQueue,
        rows: list[Row],
        terms: _Terms,
        ticket: Ticket,
        told: Callable[[StorageError | None], None],
        *also: Command,
    ) -> None:
        is_watched = terms.key is not None or rows[0].expires_ms > 0 or rows[0].due_ms > 0
        stream = lane_stream(queue.name, WATCHED_LANE if is_watched else terms.lane)
        queue.storing += len(rows)
        if is_watched:
            queue.entering += len(rows)
            queue.entering_bytes += sum(size_of(row.record) for row in rows)
        token = next(self._tokens)
        self._storing[token] = rows[0].position
        stored = partial(self._on_stored, queue, stream, rows, ticket, token, told)
        self._turn.keeper.write(Store(stream, rows), *also, then=stored)

    def _on_stored(
        self,
        queue: JobQueue,
        stream: Stream,
        rows: list[Row],
        ticket: Ticket,
        token: int,
        told: Callable[[StorageError | None], None],
        error: StorageError | None,
    ) -> None:
        del self._storing[token]
        queue.storing -= len(rows)
        if stream.lane == WATCHED_LANE:
            queue.entering -= len(rows)
            queue.entering_bytes -= sum(size_of(row.record) for row in rows)
        self.touched[queue] = None
        told(error)
        if error is not None:
            return  # their numbers stay unused
        if stream.lane == WATCHED_LANE:
            for row in rows:
                self._take(queue, StoredRow(row, 0), ticket)
        else:
            self._take_or_leave(queue, stream.lane, rows, ticket)

    def _take_or_leave(
        self, queue: JobQueue, number: int, rows: list[Row], ticket: Ticket
    ) -> None:
        """Take in as many as have space in memory, unless others are before them on disk."""
        lane = self._lane(queue, number)
        lane.written = rows[-1].position
        for index, row in enumerate(rows):
            if lane.waiting or not lane.has_space:
                left = rows[index:]
                lane.put_off(left[0].position, left[-1].position, len(left), ticket)
                return
            lane.cursor = row.position
            self._take(queue, StoredRow(row, 0), ticket, lane)

    def _lane(self, queue: JobQueue, number: int) -> JobLane:
        lane = queue.lanes.get(number)
        if lane is None:
            lane = queue.lanes[number] = JobLane(queue.name, number, self._options)
        return lane

    def _take(
        self, queue: JobQueue, stored: StoredRow, ticket: Ticket, window: JobLane | None = None
    ) -> None:
        """Take in a job that is on disk."""
        row, attempts = stored
        now = self._turn.now
        wall_ms = self._turn.keeper.wall_ms(now)
        terms = self._terms(row.note)
        expires = now + (row.expires_ms - wall_ms) / 1000 if row.expires_ms else None
        stream = lane_stream(queue.name, WATCHED_LANE) if window is None else window.stream
        number = row.position
        job = Job(
            number, queue, terms.lane, row.record, ticket, terms.attempts_max, expires,
            stream=stream, window=window,
        )  # fmt: skip
        job.attempts = attempts
        job.has_been_out = attempts > 0
        self._open.add(number)
        heappush(self._lowest, number)
        self._enter(job, terms.key, (row.due_ms - wall_ms) / 1000 if row.due_ms else 0.0)

    def _terms(self, note: Note) -> _Terms:
        match note:
            case (int(lane), int(attempts_max), str(key)):
                return _Terms(lane, attempts_max, key)
            case (int(lane), int(attempts_max)):
                return _Terms(lane, attempts_max, None)
            case _:  # rescued, or of a later version
                return _Terms(PRIORITY_DEFAULT, self._options.attempts_max, None)

    # Reading

    def refill(self, queue: JobQueue) -> None:
        """Read more of each priority that has few jobs left in memory."""
        for lane in queue.lanes.values():
            self._read(queue, lane)

    def _read(self, queue: JobQueue, lane: JobLane, then: Then | None = None) -> None:
        count_max, bytes_max = lane.page
        if count_max:
            lane.is_reading = True
            question = ReadRows(lane.stream, lane.cursor, count_max, bytes_max)
            self._turn.keeper.read(question, partial(self._on_read, queue, lane, then))

    def _on_read(
        self, queue: JobQueue, lane: JobLane, then: Then | None, answer: Answer | ZmeshError
    ) -> None:
        lane.is_reading = False
        self.touched[queue] = None
        if then is not None:
            then(answer if isinstance(answer, ZmeshError) else None)
        if not isinstance(answer, RowsRead):
            lane.is_broken = True  # the journal says so itself
            return
        for stored in answer.rows:
            if stored.row.position > lane.written:
                return  # whose push was not answered yet
            lane.cursor = stored.row.position
            lane.waiting -= 1
            ticket = lane.caller_of(lane.cursor) or InternalTicket()
            self._take(queue, stored, ticket, lane)
        if answer.is_end:
            lane.waiting = 0

    # Attempts and ends

    def on_bound(self, job: Job) -> None:
        """Note that handling of a job may begin: a producer that dies later knows it then."""
        self._attempts[job] = job.attempts + 1

    def on_back(self, job: Job) -> None:
        """Note that handling of a job that left has not begun."""
        self._attempts[job] = job.attempts

    def count(self, job: Job, attempts: int, then: Callable[[], None]) -> None:
        """Have it on disk how often handling of a job has begun, before anything else is done."""
        self._attempts.pop(job, None)
        self._counted[job] = (attempts, then)

    def bury(self, job: Job, node: NodeId, reason: str, then: Callable[[], None]) -> None:
        """Move a job to the dead letters, and call `then` once it is one; `forget` it as well."""
        assert job.stream is not None, "only stored jobs come here"  # noqa: S101
        key = None if job.chain is None else job.chain.key
        self._dead_letters.bury(
            job.stream,
            job.number,
            job.queue.name,
            reason,
            job.attempts,
            history=job.failed,
            note=_Terms(job.lane, job.attempts_max, key).note,
            peer=node,
            then=then,
        )

    def forget(self, job: Job, node: NodeId | None) -> None:
        """Forget a job that has its outcome, which a node may remember."""
        self._attempts.pop(job, None)
        self._counted.pop(job, None)
        self._done[job] = node

    def flush(self) -> None:
        """Order what was gathered."""
        keeper = self._turn.keeper
        if self._counted:
            counted = self._counted.copy()
            self._counted.clear()
            commands = _attempts({job: attempts for job, (attempts, _) in counted.items()})
            goes_on = [then for _, then in counted.values()]
            keeper.write(*commands, then=partial(_go_on, goes_on))
        if self._attempts:
            keeper.later(*_attempts(self._attempts))
            self._attempts.clear()
        if self._done:
            done = self._done.copy()
            self._done.clear()
            forgets = [Forget(*each) for each in _by_stream(done)]
            keeper.later(*forgets, then=partial(self._on_forgotten, done))

    def _on_forgotten(self, done: dict[Job, NodeId | None], error: StorageError | None) -> None:
        if error is not None:
            return  # they are there still, for another life
        self._open.difference_update(job.number for job in done)
        if len(self._lowest) > 2 * len(self._open) + _STALE_MIN:
            self._lowest = sorted(self._open)  # which is a heap
        for job, node in done.items():
            if node is not None:
                self._confirming.add(node, job.number, job.number)

    # Another life

    def restore(self, states: Sequence[StreamState], then: Then) -> int:
        """Take up the jobs of an earlier life; return how many times `then` will be called."""
        waited = 0
        for state in states:
            if state.stream.kind is not StreamKind.QUEUE:
                continue
            if not state.rows:
                self._turn.keeper.write(DropStream(state.stream))
                continue
            waited += 1
            queue = self._queue(state.stream.owner.decode())
            if state.stream.lane < LANES:
                lane = self._lane(queue, state.stream.lane)
                lane.cursor, lane.written = state.first - 1, state.last
                lane.waiting = state.rows
                self._read(queue, lane, then)
            else:
                self._restore_page(queue, 0, then)
        return waited

    def _restore_page(self, queue: JobQueue, after: int, then: Then) -> None:
        question = ReadRows(lane_stream(queue.name, WATCHED_LANE), after, PAGE_ROWS, PAGE_BYTES)
        self._turn.keeper.read(question, partial(self._on_page, queue, then))

    def _on_page(self, queue: JobQueue, then: Then, answer: Answer | ZmeshError) -> None:
        if not isinstance(answer, RowsRead):
            then(answer if isinstance(answer, ZmeshError) else None)
            return
        for stored in answer.rows:
            self._take(queue, stored, InternalTicket())
        if answer.is_end or not answer.rows:
            self.touched[queue] = None
            then(None)
        else:
            self._restore_page(queue, answer.rows[-1].row.position, then)


def _go_on(counted: list[Callable[[], None]], error: StorageError | None) -> None:
    if error is None:  # else another life goes on with them
        for then in counted:
            then()


def _attempts(attempts: dict[Job, int]) -> list[Command]:
    by_count: dict[int, list[Job]] = {}
    for job, count_ in attempts.items():
        by_count.setdefault(count_, []).append(job)
    return [
        CountAttempts(stream, ranges, count_)
        for count_, jobs in by_count.items()
        for stream, ranges in _by_stream(jobs)
    ]


def _by_stream(jobs: Iterable[Job]) -> list[tuple[Stream, Ranges]]:
    places: dict[Stream, list[int]] = {}
    for job in jobs:
        assert job.stream is not None, "only stored jobs come here"  # noqa: S101
        places.setdefault(job.stream, []).append(job.number)
    return [
        (stream, RangeSet(tuple((each, each) for each in sorted(numbers))).as_tuple())
        for stream, numbers in places.items()
    ]
