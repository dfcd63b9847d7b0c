"""One queue of one producer: its jobs, its consumers, and which job is for whom.

Jobs leave by priority, and within one as they were pushed; one that came back has its old place.
Of a key only the oldest job may leave, to the consumer at which the key weighs most.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from zmesh.core.peers import InternalTicket, Peer
from zmesh.ids import NodeId
from zmesh.message import ExtraValue, Record, Tag, Ticket, size_of
from zmesh.patterns.choosing import weight
from zmesh.patterns.job_lane import JobLane
from zmesh.patterns.job_runs import JobRun, PlainJobs, RunAttempt
from zmesh.storage import FailedAttempt, Stream

_HIGHER: Final = frozenset(map(int, (Tag.COMPRESSED, Tag.ROUTING_KEY, Tag.STORED, Tag.SIGNATURE)))
"""Tags a pushed job may have, above those that are written when it leaves."""

_STALE_MIN: Final = 64
"""Stale entries kept before it is worth rebuilding a small heap."""


class Job:
    """One pushed record, from the push to its outcome."""

    __slots__ = (
        "attempt", "attempts", "attempts_max", "chain", "expires", "failed", "has_been_out",
        "lane", "number", "queue", "record", "size", "stream", "ticket", "window",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        queue: "JobQueue",
        lane: int,
        record: Record,
        ticket: Ticket,
        attempts_max: int,
        expires: float | None,
        *,
        stream: Stream | None = None,
        window: JobLane | None = None,
    ) -> None:
        self.number = number  # its message id, and its place in the order and in its stream
        self.queue = queue
        self.lane = lane
        self.record = record
        self.ticket = ticket
        self.attempts_max = attempts_max
        self.expires = expires
        self.stream = stream  # where it is on disk, if it is
        self.window = window  # that it is in, and leaves for another
        self.size = size_of(record)
        self.attempts = 0  # which a handler may have begun
        self.failed: tuple[FailedAttempt, ...] = ()  # of these
        self.has_been_out = False
        self.chain: Chain | None = None  # of its key
        self.attempt: Attempt | None = None  # under way

    def on_the_way(self, relation: int, now: float) -> Record:
        """Return its record as it travels: with its id, its attempt, and whose grant it uses."""
        kind, target, body = self.record[:3]
        extras: Sequence[ExtraValue] = self.record[3] if len(self.record) == 4 else ()
        above = len(extras)  # where higher tags begin; those of headers and key are lower
        while above and extras[above - 2] in _HIGHER:
            above -= 2
        written = [*extras[:above]]
        if self.expires is not None:
            written += (int(Tag.TTL_MS), max(1, round((self.expires - now) * 1000)))
        written += (int(Tag.MESSAGE_ID), self.number)
        if self.attempts:
            written += (int(Tag.ATTEMPT), self.attempts + 1)
        written += (int(Tag.CORRELATION), relation)
        return (kind, target, body, (*written, *extras[above:]))


@dataclass(slots=True, eq=False)
class Chain:
    """The jobs of one key, of which only the first may leave."""

    key: str
    jobs: OrderedDict[int, Job] = field(default_factory=OrderedDict)

    @property
    def first(self) -> Job:
        """The oldest job."""
        return self.jobs[next(iter(self.jobs))]


class ReadyJobs:
    """Jobs that may leave: a heap, from which what was taken otherwise is removed lazily."""

    __slots__ = ("_heap", "_jobs")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int]] = []
        self._jobs: dict[int, Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Add a job, in its place."""
        window = job.window
        if window is not None and job.number not in self._jobs:
            window.ready += 1
            window.ready_bytes += job.size
        self._jobs[job.number] = job
        heappush(self._heap, (-job.lane, job.number))

    def discard(self, job: Job) -> None:
        """Remove a job, if it is here."""
        if self._jobs.pop(job.number, None) is None:
            return
        if job.window is not None:
            job.window.ready -= 1
            job.window.ready_bytes -= job.size
        if len(self._heap) > 2 * len(self._jobs) + _STALE_MIN:
            self._heap = [(-each.lane, each.number) for each in self._jobs.values()]
            heapify(self._heap)

    @property
    def first(self) -> Job | None:
        """The job to leave next."""
        heap, jobs = self._heap, self._jobs
        while heap and heap[0][1] not in jobs:
            heappop(heap)
        return jobs[heap[0][1]] if heap else None


class Outlet:
    """A consumer of a queue, and its credit. All counts are of one relation: see `job_control`."""

    __slots__ = (
        "bound", "is_fit", "is_recalled", "keyed", "limit", "peer", "relation", "returned",
        "sent", "told",
    )  # fmt: skip

    def __init__(self, peer: Peer, relation: int) -> None:
        self.peer = peer
        self.relation = relation
        self.limit = 0  # how many jobs it granted in all
        self.sent = 0
        self.returned = 0  # grants given back
        self.told = 0  # the limit it knows to be wanted
        self.bound = 0  # jobs it has
        self.is_fit = False  # for new work
        self.is_recalled = False  # it wants back what is not used
        self.keyed = ReadyJobs()  # of keys that weigh most here

    @property
    def credit(self) -> int:
        """How many jobs may be sent now."""
        return self.limit - self.sent - self.returned


class Attempt(InternalTicket):
    """The ticket of one delivery of a job."""

    __slots__ = ("job", "outlet")

    def __init__(self, job: Job, outlet: Outlet) -> None:
        super().__init__()
        self.job = job
        self.outlet = outlet


class JobQueue:
    """The jobs of one name that have no outcome yet, and who takes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: dict[int, Job] = {}
        self.plain = PlainJobs()  # beside these
        self.size = 0  # bytes of `jobs`
        self.bound = 0  # jobs with consumers
        self.is_full = False  # and somebody may wait for room
        self.lanes: dict[int, JobLane] = {}  # of which a window is in memory
        self.windowed = 0  # jobs in these windows
        self.windowed_bytes = 0
        self.storing = 0  # jobs on their way to the disk
        self.entering = 0  # of these, jobs that will be in memory
        self.entering_bytes = 0
        self.outlets: dict[NodeId, Outlet] = {}
        self._chains: dict[str, Chain] = {}
        self._common = ReadyJobs()
        self._orphans = ReadyJobs()  # with a key, while no consumer is fit

    @property
    def is_idle(self) -> bool:
        """Whether there is no job, here or on disk."""
        return not (self.jobs or self.plain.count or self.storing or self.on_disk)

    @property
    def on_disk(self) -> int:
        """How many jobs are on disk alone."""
        return sum(lane.waiting for lane in self.lanes.values()) if self.lanes else 0

    @property
    def waiting(self) -> int:
        """How many jobs are with nobody."""
        return len(self.jobs) + self.plain.count - self.bound + self.on_disk

    @property
    def held(self) -> tuple[int, int]:
        """How many jobs, and bytes, are in memory, or soon will be, beside the windows."""
        return (
            len(self.jobs) + self.plain.count - self.windowed + self.entering,
            self.size + self.plain.size - self.windowed_bytes + self.entering_bytes,
        )

    # Jobs

    def add(self, job: Job, key: str | None) -> None:
        """Take a job in."""
        self.jobs[job.number] = job
        self.size += job.size
        if job.window is not None:
            job.window.loaded += 1
            self.windowed += 1
            self.windowed_bytes += job.size
        if key is not None:
            chain = self._chains.get(key)
            if chain is None:
                chain = self._chains[key] = Chain(key)
            chain.jobs[job.number] = job
            job.chain = chain

    def remove(self, job: Job) -> Job | None:
        """Forget a job; return the one of its key whose turn it is now, if there is one."""
        del self.jobs[job.number]
        self.size -= job.size
        if job.window is not None:
            job.window.loaded -= 1
            self.windowed -= 1
            self.windowed_bytes -= job.size
        chain = job.chain
        if chain is None:
            self._common.discard(job)
            return None
        was_first = chain.first is job
        del chain.jobs[job.number]
        if not was_first:
            return None
        for ready in self._keyed():
            ready.discard(job)
        if chain.jobs:
            return chain.first
        del self._chains[chain.key]
        return None

    def _keyed(self) -> list[ReadyJobs]:
        return [self._orphans, *(outlet.keyed for outlet in self.outlets.values())]

    def make_ready(self, job: Job) -> None:
        """Let a job leave as soon as a consumer has room."""
        if job.chain is None:
            self._common.add(job)
        else:
            self._home(job.chain.key).add(job)

    def _home(self, key: str) -> ReadyJobs:
        """Return where a key weighs most; sought anew for each job, so that nothing is kept."""
        text = key.encode()
        fit = [outlet for outlet in self.outlets.values() if outlet.is_fit]
        if not fit:
            return self._orphans
        return max(fit, key=lambda outlet: weight(text, outlet.peer.id)).keyed

    # Consumers

    def set_fit(self, outlet: Outlet, *, is_fit: bool) -> None:
        """Note whether a consumer is fit for new work, and move the keys that this concerns."""
        outlet.is_fit = is_fit
        moving = self._keyed() if is_fit else [outlet.keyed]
        for ready in moving:
            for job in ready:
                assert job.chain is not None  # noqa: S101  # it is among those with a key
                home = self._home(job.chain.key)
                if home is not ready:
                    ready.discard(job)
                    home.add(job)

    def remove_outlet(self, outlet: Outlet) -> None:
        """Forget a consumer that takes no more."""
        self.set_fit(outlet, is_fit=False)
        del self.outlets[outlet.peer.id]

    def waiting_for(self, outlet: Outlet) -> int:
        """Return how many jobs could leave for a consumer."""
        unread = sum(lane.waiting for lane in self.lanes.values() if not lane.is_stuck)
        return len(self._common) + self.plain.waiting + len(outlet.keyed) + unread

    def _limit(self) -> tuple[int, int] | None:
        """Return the place of the first job that has to be read before any behind it leaves."""
        return min(
            (
                (-lane, each.cursor + 1)
                for lane, each in self.lanes.items()
                if each.waiting and not each.is_stuck
            ),
            default=None,
        )

    def matches(self) -> Iterator[tuple[Job | RunAttempt, Outlet]]:
        """Yield each job that leaves now, and for whom: who has the fewest gets the next.

        Of those in runs many leave at once, as many as would one after the other.
        """
        free = [
            (outlet.bound, outlet.sent, index, outlet)
            for index, outlet in enumerate(self.outlets.values())
            if outlet.is_fit and outlet.credit > 0
        ]
        heapify(free)
        limit = self._limit() if self.lanes else None
        while free:
            *_, index, outlet = free[0]
            job = _earlier(self._common.first, outlet.keyed.first)
            run = self.plain.first
            if run is not None and (job is None or run.place < (-job.lane, job.number)):
                count = self._portion(run, job, limit, free)
                leaving: Job | RunAttempt | None = (
                    RunAttempt(self, outlet, run, count) if count else None
                )
            else:
                count, leaving = 1, job
                if job is None or (limit is not None and (-job.lane, job.number) > limit):
                    leaving = None
                else:
                    (self._common if job.chain is None else outlet.keyed).discard(job)
            if leaving is None:
                heappop(free)
                continue
            outlet.sent += count
            outlet.bound += count
            self.bound += count
            yield leaving, outlet
            if outlet.credit > 0:
                heapreplace(free, (outlet.bound, outlet.sent, index, outlet))
            else:
                heappop(free)

    def _portion(
        self,
        run: JobRun,
        job: Job | None,
        limit: tuple[int, int] | None,
        free: list[tuple[int, int, int, Outlet]],
    ) -> int:
        """Return how many jobs of a run leave together, for the first of a heap of consumers.

        Those that are before `job`, and not behind `limit`. Where several are free, as many as the
        next one has more, or a share of all.
        """
        outlet = free[0][-1]
        count = min(outlet.credit, len(run.records))
        if job is not None and job.lane == run.lane:
            count = min(count, job.number - run.number)
        if limit is not None and run.lane == -limit[0]:
            count = min(count, max(0, limit[1] - run.number + 1))
        elif limit is not None and run.place > limit:
            return 0
        if len(free) > 1:
            lead = min(free[1:3])[0] - outlet.bound
            count = min(count, lead or -(-self.plain.waiting // len(free)))
        return count


def _earlier(one: Job | None, other: Job | None) -> Job | None:
    """Return which of two jobs leaves first, None where there is neither."""
    if one is None or other is None:
        return one or other
    return one if (-one.lane, one.number) < (-other.lane, other.number) else other
