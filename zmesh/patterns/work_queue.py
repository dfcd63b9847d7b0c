"""Work queues, the producing side: each producer holds its jobs, and binds them late.

A job leaves only for a consumer that granted room for it (`job_control`), so it is with nobody
while all are busy, and the next one that is free gets it. Of one key a single job is under way at
a time, with the consumer the key weighs most at: so its jobs keep their order whatever becomes of
consumers, and stay with one as long as the consumers do. `jobs_taken` is the other side.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count, islice
from operator import itemgetter
from typing import Final

from zmesh.actions import PeerState, QueueRoomChanged
from zmesh.batches import fit_runs
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import UsageError, ZmeshError
from zmesh.events import Push
from zmesh.ids import NodeId
from zmesh.message import (
    Failure,
    FailureKind,
    InterestKind,
    Outcome,
    Record,
    Tag,
    Ticket,
    with_extra,
)
from zmesh.options import NodeOptions
from zmesh.patterns.confirming import Confirming
from zmesh.patterns.job_control import Grant, Offer, encode
from zmesh.patterns.job_queue import Attempt, Job, JobQueue, Outlet
from zmesh.patterns.job_runs import JobRun, RunAttempt
from zmesh.patterns.redelivery import Redelivery
from zmesh.patterns.stored_jobs import StoredJobs
from zmesh.patterns.telling import Telling
from zmesh.reliable.link_events import Returned
from zmesh.storage import FailedAttempt, StreamState

_BODY = itemgetter(2)
_LOST: Final = "its consumer was lost while it had it"


class WorkQueue:
    """The queues of this node, and the consumers of each."""

    def __init__(
        self,
        turn: Turn,
        options: NodeOptions,
        redelivery: Redelivery,
        confirming: Confirming,
    ) -> None:
        self._turn = turn
        self._options = options
        self._redelivery = redelivery
        self._dead_letters = redelivery.dead_letters
        self._stored = StoredJobs(
            turn, options, confirming, self._dead_letters, self._enter_stored, self._queue
        )
        self.take_back = self._stored.take_back
        self._queues: dict[str, JobQueue] = {}
        self._served: dict[NodeId, dict[str, None]] = {}  # queues with an outlet, by consumer
        # Attempts under way, by consumer.
        self._with: dict[NodeId, dict[Attempt | RunAttempt, None]] = {}
        self._touched: dict[JobQueue, None] = {}  # where something may be bound or told
        self._paused: Deadlines[Job] = Deadlines(turn.agenda)  # until they may leave
        self._expiry: Deadlines[Job] = Deadlines(turn.agenda)
        self._next_number = 1
        self._relations = count(1)
        self._telling = Telling(turn, self._standing, options.answers_max, options.queues_max)
        self.gathered = (  # all empty: nothing to flush
            self._touched, *self._stored.gathered, *self._telling.gathered,
        )  # fmt: skip
        self.redelivered = 0  # left a second time, or more often
        self.uncertain = 0  # delivered again though they may have been handled before

    # What there is

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return earliest(self._paused.next, self._expiry.next)

    @property
    def bound(self) -> int:
        """How many jobs are with consumers, or on their way."""
        return sum(queue.bound for queue in self._queues.values())

    @property
    def waiting(self) -> int:
        """How many jobs are with nobody, those on disk included."""
        return sum(queue.waiting for queue in self._queues.values())

    @property
    def wanted(self) -> int:
        """How many of these wait in queues that somebody pulls."""
        return sum(queue.waiting for queue in self._queues.values() if queue.outlets)

    @property
    def floor(self) -> int:
        """The number below which no stored job is left, for good."""
        unread = [
            lane.cursor + 1
            for queue in self._queues.values()
            for lane in queue.lanes.values()
            if lane.waiting
        ]
        return min([self._stored.floor, *unread])

    def queued(self, name: str) -> tuple[int, int]:
        """Return how many jobs, and bytes, of a queue count against its room."""
        queue = self._queues.get(name)
        return (0, 0) if queue is None else queue.held

    def room(self, name: str) -> int:
        """Return how many jobs may be pushed; at most 0 where the queue is full.

        Whoever was told so hears by `QueueRoomChanged` when there is room again.
        """
        queue = self._queues.get(name)
        if queue is None:
            return self._options.queued_jobs_max
        room = self._room(queue)
        queue.is_full = queue.is_full or room <= 0
        return room

    def _room(self, queue: JobQueue) -> int:
        jobs, size = queue.held
        if size >= self._options.queued_jobs_bytes_max:
            return 0
        return self._options.queued_jobs_max - jobs

    def check_push(self, *names: str) -> None:
        """Raise UsageError where jobs for these queues could not all be taken."""
        new = [name for name in names if name not in self._queues]
        if not new:
            return
        limit = self._options.queues_max
        over = len(self._queues) + len(new) - limit
        if over <= 0:
            return
        idle = (q for q in self._queues.values() if q.is_idle and q.name not in names)
        if sum(1 for _ in islice(idle, over)) < over:
            raise UsageError(f"jobs wait in {limit} queues already: pull some of them first")

    # Commands

    def on_push(self, push: Push) -> None:
        """Take jobs in."""
        ticket, now = push.ticket, self._turn.now
        records = self._fitting(push)
        if push.durable and records:
            self._stored.on_push(push, records)
            return
        if push.durable:
            self._turn.stored(ticket, None)
        if not push.records:
            self._turn.note_accepted((ticket,))
        if not records:
            return
        queue = self._queue(records[0][1])
        expires = None if push.ttl is None else now + push.ttl
        attempts_max = push.attempts_max or self._options.attempts_max
        number = self._numbers(len(records))
        is_plain = push.key is None and expires is None and push.delay <= 0
        if is_plain and fit_runs(records, self._options.link.fragment_bytes):
            queue.plain.add(JobRun(number, records, push.lane, ticket, attempts_max))
            self._touched[queue] = None
            return
        for each, record in enumerate(records, number):
            job = Job(each, queue, push.lane, record, ticket, attempts_max, expires)
            self._enter(job, push.key, push.delay)

    def _fitting(self, push: Push) -> list[Record]:
        """Return the records that can be taken, as they travel; the others fail."""
        records: list[Record] = []
        if push.key is None and push.records:
            largest = max(map(len, map(_BODY, push.records)))
            if largest <= self._options.link.body_bytes_max:
                return list(push.records)
        for record in push.records:
            if len(record[2]) > self._options.link.body_bytes_max:
                why, name = "its body is too large", record[1]
                self._turn.fail(push.ticket, Failure(FailureKind.REJECTED, "", why, queue=name))
            elif push.key is not None:
                records.append(with_extra(record, Tag.KEY, push.key))
            else:
                records.append(record)
        return records

    def _numbers(self, count: int) -> int:
        """Return the first number of the next jobs: one order for those stored and others."""
        keeper = self._turn.keeper
        if keeper.is_there:
            return keeper.numbers(count)
        number, self._next_number = self._next_number, self._next_number + count
        return number

    def _enter(self, job: Job, key: str | None, delay: float) -> None:
        job.queue.add(job, key)
        if job.expires is not None:
            self._expiry.set(job, job.expires)
        if delay > 0:
            self._paused.set(job, self._turn.now + delay)
        else:
            self._ready(job)

    def _enter_stored(self, job: Job, key: str | None, delay: float) -> None:
        """Take in a job that is on disk, maybe from an earlier life: it may be over by now."""
        self._enter(job, key, delay)
        if job.attempts >= job.attempts_max:
            self._bury(job, self._turn.peers.local, FailureKind.DEAD_LETTERED, _LOST)
        elif job.expires is not None and job.expires <= self._turn.now:
            self._fail(job, FailureKind.EXPIRED, "", "nobody took it in time")

    def _queue(self, name: str) -> JobQueue:
        queue = self._queues.get(name)
        if queue is not None:
            return queue
        if len(self._queues) >= self._options.queues_max:
            idle = self._idle()
            if idle is not None:
                self._drop(idle)
        queue = self._queues[name] = JobQueue(name)
        for peer in (self._turn.peers.local, *self._turn.peers):
            self._look_at(queue, peer)
        return queue

    def _idle(self) -> JobQueue | None:
        """Return a queue without jobs, the oldest."""
        return next((queue for queue in self._queues.values() if queue.is_idle), None)

    def _drop(self, queue: JobQueue) -> None:
        """Forget a queue; what its consumers granted is void, and they learn so when they ask."""
        for node in queue.outlets:
            self._served[node].pop(queue.name, None)
        del self._queues[queue.name]
        self._touched.pop(queue, None)
        self._stored.touched.pop(queue, None)

    # Consumers

    def on_peer_changed(self, peer: Peer) -> None:
        """Look anew at what a peer pulls, and whether it is fit for work."""
        pulled = peer.interests[InterestKind.QUEUE]
        served = self._served.get(peer.id, {})
        for name in {**served, **pulled}:
            queue = self._queues.get(name)
            if queue is not None:
                self._look_at(queue, peer)

    def on_session_ended(self, peer: Peer) -> None:
        """Forget what was to be told to a peer, and what it pulled."""
        self._telling.forget(peer)
        self.on_peer_changed(peer)

    def _look_at(self, queue: JobQueue, peer: Peer) -> None:
        outlet = queue.outlets.get(peer.id)
        if queue.name not in peer.interests[InterestKind.QUEUE] or not peer.present:
            if outlet is not None:
                queue.remove_outlet(outlet)
                self._served[peer.id].pop(queue.name)
                if not self._served[peer.id]:
                    del self._served[peer.id]
            return
        if outlet is None:
            outlet = queue.outlets[peer.id] = Outlet(peer, next(self._relations))
            self._served.setdefault(peer.id, {})[queue.name] = None
        is_fit = peer.state is PeerState.ALIVE and not peer.draining
        if is_fit is not outlet.is_fit:
            queue.set_fit(outlet, is_fit=is_fit)
            self._touched[queue] = None

    def on_grant(self, peer: Peer, grant: Grant) -> None:
        """Take the room a consumer has; one of an earlier relation is told that it is over."""
        queue = self._queues.get(grant.queue)
        outlet = None if queue is None else queue.outlets.get(peer.id)
        if queue is None or outlet is None or grant.relation != outlet.relation:
            self._telling.tell(peer, grant.queue)
        else:
            outlet.limit = max(outlet.limit, grant.limit)
            outlet.is_recalled = outlet.is_recalled or grant.recalls
            self._touched[queue] = None

    def on_lost(self, peer: Peer, *, is_gone: bool) -> None:
        """Take back what a lost consumer had.

        Jobs with a key stay where its process may live on: they would be handled twice at once.
        They come back when its session ends, or go on with it.
        """
        for attempt in list(self._with.get(peer.id, ())):
            if isinstance(attempt, RunAttempt):
                self._on_run_lost(attempt, peer)
                continue
            job = attempt.job
            if job.chain is None or is_gone:
                may_have_begun = self._turn.withdraw(peer, attempt)
                self._close(attempt)
                self._come_back(job, peer, may_have_begun=may_have_begun)

    # Binding

    def _ready(self, job: Job) -> None:
        """Let a job leave when its turn comes: at once, or after those before it of its key."""
        queue = job.queue
        if job.chain is not None and job.chain.first is not job:
            return
        if job.attempt is None and job not in self._paused:
            queue.make_ready(job)
            self._touched[queue] = None

    def flush(self) -> None:
        """Bind what can be bound, and tell of what cannot."""
        self._telling.flush()
        self._touched |= self._stored.touched
        self._stored.touched.clear()
        while self._touched:
            touched = list(self._touched)
            self._touched.clear()
            for queue in touched:
                self._bind(queue)
                self._stored.refill(queue)
                self._offer_all(queue)
                if queue.is_full and self._room(queue) > 0:
                    queue.is_full = False
                    self._turn.actions.append(QueueRoomChanged(queue.name))
                if queue.is_idle and not queue.outlets:
                    self._queues.pop(queue.name, None)
        self._stored.flush()

    def _bind(self, queue: JobQueue) -> None:
        for job, outlet in queue.matches():
            if isinstance(job, RunAttempt):
                self._with.setdefault(outlet.peer.id, {})[job] = None
                self._turn.submit(outlet.peer, job.lane, job.on_the_way(), job)
                continue
            attempt = job.attempt = Attempt(job, outlet)
            self._with.setdefault(outlet.peer.id, {})[attempt] = None
            self.redelivered += job.has_been_out
            job.has_been_out = True
            if job.stream is None:
                self._submit(attempt)
            elif outlet.peer is self._turn.peers.local:
                self._stored.count(job, job.attempts + 1, partial(self._submit, attempt))
            else:
                self._stored.on_bound(job)
                self._submit(attempt)

    def _submit(self, attempt: Attempt) -> None:
        job, outlet = attempt.job, attempt.outlet
        if job.attempt is attempt:
            record = job.on_the_way(outlet.relation, self._turn.now)
            self._turn.submit(outlet.peer, job.lane, [record], attempt)

    def _offer_all(self, queue: JobQueue) -> None:
        for outlet in queue.outlets.values():
            if outlet.is_fit and queue.waiting_for(outlet):
                if outlet.told <= outlet.limit:
                    self._telling.tell(outlet.peer, queue.name)
            elif outlet.is_recalled and outlet.credit:
                outlet.returned += outlet.credit
                self._telling.tell(outlet.peer, queue.name)
            outlet.is_recalled = False

    def _standing(self, peer: Peer, name: str) -> Record:
        """Return how a queue stands with a consumer: one that is none here has no jobs for it."""
        queue = self._queues.get(name)
        outlet = None if queue is None else queue.outlets.get(peer.id)
        if queue is None or outlet is None:
            return encode(Offer(name, next(self._relations), 0, 0, 0))
        waiting = queue.waiting_for(outlet)
        outlet.told = outlet.limit + waiting
        return encode(Offer(name, outlet.relation, outlet.limit, outlet.returned, waiting))

    # Outcomes

    def on_accepted(self, peer: Peer, tickets: Sequence[Ticket]) -> None:
        """Note which of a peer's tickets are of jobs."""
        if peer.id not in self._with:
            return
        for ticket in tickets:
            if isinstance(ticket, Attempt) and ticket.job.attempt is ticket:
                self._close(ticket)
                job = ticket.job
                self._remove(job, peer)
                job.ticket.accepted += 1
                self._turn.note_accepted((job.ticket,))

    def on_run_accepted(self, peer: Peer, tickets: Sequence[Ticket]) -> None:
        """Note which of a peer's tickets are of jobs in runs."""
        for ticket in tickets:
            if isinstance(ticket, RunAttempt):
                self._note_accepted(ticket, peer)

    def _note_accepted(self, attempt: RunAttempt, peer: Peer) -> None:
        accepted = attempt.take_accepted()
        if accepted:
            self._forget_ended(attempt, peer)
            attempt.caller.accepted += accepted
            self._turn.note_accepted((attempt.caller,))
            self._touched[attempt.queue] = None

    def _forget_ended(self, attempt: RunAttempt, peer: Peer) -> None:
        if not (attempt.open or attempt.is_lost):
            self._forget(attempt, peer)

    def _forget(self, attempt: Attempt | RunAttempt, peer: Peer) -> None:
        """Let an attempt be under way no more."""
        attempts = self._with[peer.id]
        del attempts[attempt]
        if not attempts:
            del self._with[peer.id]

    def _on_run_lost(self, attempt: RunAttempt, peer: Peer) -> None:
        """Take back what a lost consumer had of a run."""
        self._note_accepted(attempt, peer)
        left = peer.carrier.open_of(attempt)
        parted = [(self._part(attempt, record, peer), sent) for record, sent in left]
        self._turn.withdraw(peer, attempt)
        if attempt.open:  # what came back is told next
            self._forget(attempt, peer)
        attempt.is_lost = True
        for job, may_have_begun in parted:
            if job is not None:
                self._come_back(job, peer, may_have_begun=may_have_begun)

    def _part(self, attempt: RunAttempt, record: Record, peer: Peer) -> Job | None:
        """Let a job of a run go on by itself; None where it does already."""
        parted = attempt.part(record)
        if parted is None:
            return None
        self._forget_ended(attempt, peer)
        number, pushed = parted
        job = Job(
            number, attempt.queue, attempt.lane, pushed, attempt.caller, attempt.attempts_max, None
        )
        job.has_been_out = True
        attempt.queue.add(job, None)
        return job

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Decide on a job that was not accepted, unless it has moved on."""
        attempt = returned.ticket
        if isinstance(attempt, RunAttempt):
            part = self._part(attempt, returned.record, peer)
            if part is not None:
                self._on_outcome(part, peer, returned)
        elif isinstance(attempt, Attempt) and attempt.job.attempt is attempt:
            self._close(attempt)
            self._on_outcome(attempt.job, peer, returned)

    def _on_outcome(self, job: Job, peer: Peer, returned: Returned) -> None:
        match returned.outcome:
            case Outcome.REJECTED:
                self._count_attempt(job, returned.reason)
                self._bury(job, peer, FailureKind.REJECTED, returned.reason)
            case Outcome.EXPIRED:
                self._fail(job, FailureKind.EXPIRED, peer.label, returned.reason)
            case Outcome.MODIFIED:
                self._on_modified(job, peer, returned)
            case Outcome.RELEASED if returned.transmitted:
                self._back(job, returned.delay)
            case _:  # its session ended
                self._come_back(job, peer, may_have_begun=returned.transmitted)

    def _count_attempt(self, job: Job, reason: str) -> None:
        job.attempts += 1
        at_ms = self._turn.keeper.wall_ms(self._turn.now)
        job.failed = (*job.failed, FailedAttempt(at_ms, reason))

    def _on_modified(self, job: Job, peer: Peer, returned: Returned) -> None:
        self._count_attempt(job, returned.reason)
        if job.attempts >= job.attempts_max:
            self._bury(job, peer, FailureKind.DEAD_LETTERED, returned.reason)
            return
        pause = self._redelivery.backoff(job.attempts)
        self._counted(job, max(returned.delay, pause))

    def _come_back(self, job: Job, peer: Peer, *, may_have_begun: bool) -> None:
        """Take a job from a consumer that gave no verdict: it counts what may have begun.

        So a job that kills whoever handles it ends as a dead letter.
        """
        if may_have_begun:
            self.uncertain += 1
            self._count_attempt(job, _LOST)
            if job.attempts >= job.attempts_max:
                self._bury(job, peer, FailureKind.DEAD_LETTERED, _LOST)
            else:
                self._counted(job, 0.0)
        else:
            self._back(job, 0.0)

    def _counted(self, job: Job, delay: float) -> None:
        """Try a job again when its attempts are where a next life finds them."""
        if job.stream is None:
            self._again(job, delay)
        else:
            self._stored.count(job, job.attempts, partial(self._again, job, delay))

    def _back(self, job: Job, delay: float) -> None:
        """Take back a job whose handling has not begun."""
        if job.stream is not None:
            self._stored.on_back(job)
        self._again(job, delay)

    def _again(self, job: Job, delay: float) -> None:
        if job.queue.jobs.get(job.number) is not job:
            return  # it has its outcome meanwhile
        if job.expires is not None and job.expires <= self._turn.now:
            self._fail(job, FailureKind.EXPIRED, "", "")
            return
        if delay > 0:
            self._paused.set(job, self._turn.now + delay)
        else:
            self._ready(job)

    def on_timer(self) -> None:
        """Let go what has paused, and end what has outlived its time to live."""
        now = self._turn.now
        for job in self._expiry.due(now):
            if job.attempt is None:  # else its consumer knows how long it has left
                self._fail(job, FailureKind.EXPIRED, "", "nobody took it in time")
        for job in self._paused.due(now):
            self._ready(job)

    # Ends

    def _close(self, attempt: Attempt) -> None:
        """End an attempt; the job is with nobody now."""
        outlet, job = attempt.outlet, attempt.job
        outlet.bound -= 1
        job.queue.bound -= 1
        job.attempt = None
        self._forget(attempt, outlet.peer)

    def _bury(self, job: Job, peer: Peer, kind: FailureKind, reason: str) -> None:
        """Keep a job among the dead letters; who waits for its outcome finds it there."""
        end = partial(self._end, job, kind, peer.label, reason)
        if job.stream is not None:
            self._stored.bury(job, peer.id, reason, end)
            self._remove(job, peer)
            return
        self._dead_letters.keep(
            peer, job.record, reason, job.attempts, lane=job.lane, history=job.failed
        )
        self._remove(job, peer)
        end()

    def _fail(self, job: Job, kind: FailureKind, peer: str, reason: str) -> None:
        self._remove(job)
        self._end(job, kind, peer, reason)

    def _end(self, job: Job, kind: FailureKind, peer: str, reason: str) -> None:
        failure = Failure(kind, peer, reason, max(1, job.attempts), job.queue.name)
        self._turn.fail(job.ticket, failure)

    def _remove(self, job: Job, peer: Peer | None = None) -> None:
        """Forget a job that has its outcome, of a peer maybe; the next of its key may leave."""
        if job.stream is not None:
            self._stored.forget(job, None if peer is None else peer.id)
        self._expiry.discard(job)
        self._paused.discard(job)
        queue = job.queue
        following = queue.remove(job)
        if following is not None:
            self._ready(following)
        self._touched[queue] = None

    def restore(
        self, states: Sequence[StreamState], then: Callable[[ZmeshError | None], None]
    ) -> int:
        """Take up stored jobs of an earlier life; return how often `then` will be called."""
        return self._stored.restore(states, then)

    def close(self) -> None:
        """End every job: the node closes."""
        for queue in self._queues.values():
            for ticket, waiting in queue.plain.tickets():
                self._fail_all(ticket, waiting, queue.name)
            for job in queue.jobs.values():
                self._fail_all(job.ticket, 1, queue.name)
                job.attempt = None  # what its consumer may say comes too late
        for attempts in self._with.values():
            for attempt in attempts:
                if isinstance(attempt, RunAttempt):
                    accepted = attempt.take_accepted()
                    attempt.caller.accepted += accepted
                    self._turn.note_accepted((attempt.caller,))
                    self._fail_all(attempt.caller, attempt.void(), attempt.queue.name)
        self._queues.clear()

    def _fail_all(self, ticket: Ticket, count: int, queue: str) -> None:
        for _ in range(count):
            self._turn.fail(ticket, Failure(FailureKind.CLOSED, "", queue=queue))
