"""Jobs by the run: what is pushed together, and asks for nothing, waits, leaves and ends together.

That is most jobs, and then nothing is made for each of them. One that does not end accepted at its
first attempt goes on as a `Job` of its own.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zmesh.core.peers import InternalTicket
from zmesh.message import Record, Tag, Ticket, extra, sizes_of

if TYPE_CHECKING:
    from zmesh.patterns.job_queue import JobQueue, Outlet


@dataclass(slots=True, eq=False)
class JobRun:
    """Jobs of one push with consecutive numbers that nobody had yet."""

    number: int  # of the first
    records: list[Record]
    lane: int
    ticket: Ticket
    attempts_max: int

    @property
    def place(self) -> tuple[int, int]:
        """Where its first job stands among all: what is less leaves before."""
        return -self.lane, self.number


class PlainJobs:
    """The jobs of a queue that are in runs: those that wait, and how many have no outcome."""

    __slots__ = ("_lanes", "count", "size", "waiting")

    def __init__(self) -> None:
        self._lanes: dict[int, deque[JobRun]] = {}
        self.count = 0  # without outcome
        self.size = 0  # their bytes
        self.waiting = 0  # with nobody

    def add(self, run: JobRun) -> None:
        """Take in jobs, behind all of their lane."""
        self._lanes.setdefault(run.lane, deque()).append(run)
        self.count += len(run.records)
        self.waiting += len(run.records)
        self.size += sum(sizes_of(run.records))

    @property
    def first(self) -> JobRun | None:
        """The run whose first job leaves next."""
        return self._lanes[max(self._lanes)][0] if self._lanes else None

    def take(self, run: JobRun, count: int) -> list[Record]:
        """Let the first jobs of the first run leave."""
        self.waiting -= count
        if count < len(run.records):
            taken = run.records[:count]
            del run.records[:count]
            run.number += count
            return taken
        lane = self._lanes[run.lane]
        lane.popleft()
        if not lane:
            del self._lanes[run.lane]
        return run.records

    def tickets(self) -> list[tuple[Ticket, int]]:
        """Return whose jobs wait, and how many."""
        return [(run.ticket, len(run.records)) for lane in self._lanes.values() for run in lane]


class RunAttempt(InternalTicket):
    """The ticket of jobs that left together, for the first time."""

    __slots__ = (
        "_parted", "_records", "attempts_max", "caller", "is_lost", "lane", "noted", "number",
        "open", "outlet", "queue", "size",
    )  # fmt: skip

    def __init__(self, queue: "JobQueue", outlet: "Outlet", run: JobRun, count: int) -> None:
        super().__init__(count)
        self.queue = queue
        self.outlet = outlet
        self.lane = run.lane
        self.caller = run.ticket
        self.attempts_max = run.attempts_max
        self.number = run.number
        self._records = queue.plain.take(run, count)
        self._parted: set[int] = set()  # jobs that go on by themselves
        self.size = sum(sizes_of(self._records))
        self.open = count  # jobs of it without outcome
        self.noted = 0  # acceptances
        self.is_lost = False  # with its consumer, whose word counts no more

    def on_the_way(self) -> list[Record]:
        """Return its records as they travel: with their ids, and whose grant they use."""
        used = (int(Tag.CORRELATION), self.outlet.relation)
        tag = int(Tag.MESSAGE_ID)
        if max(map(len, self._records)) == 3:
            return [
                (record[0], record[1], record[2], (tag, number, *used))
                for number, record in enumerate(self._records, self.number)
            ]
        return [
            (record[0], record[1], record[2], (*(record[3:] or ((),))[0], tag, number, *used))
            for number, record in enumerate(self._records, self.number)
        ]

    def take_accepted(self) -> int:
        """Return how many jobs were accepted since the last call; they have their outcome."""
        if self.is_lost:
            return 0
        count, self.noted = self.accepted - self.noted, self.accepted
        self._close(count, self.size * count // self.open if self.open else 0)
        return count

    def part(self, record: Record) -> tuple[int, Record] | None:
        """Let the job of a record that left go on by itself: its number, and what was pushed.

        None where it does already.
        """
        number = extra(record, Tag.MESSAGE_ID)
        assert isinstance(number, int), "it was written when the job left"  # noqa: S101
        if number in self._parted:
            return None
        self._parted.add(number)
        pushed = self._records[number - self.number]
        self._close(1, sizes_of([pushed])[0])
        return number, pushed

    def void(self) -> int:
        """Let nothing that comes count any more; return how many jobs had no outcome."""
        count = self.open
        self.is_lost = True
        self._parted.update(range(self.number, self.number + len(self._records)))
        self._close(count, self.size)
        return count

    def _close(self, count: int, size: int) -> None:
        """End so many jobs here, of so many bytes, about: the last take all that is left."""
        self.open -= count
        size = size if self.open else self.size
        self.size -= size
        plain = self.queue.plain
        plain.count -= count
        plain.size -= size
        self.queue.bound -= count
        self.outlet.bound -= count
