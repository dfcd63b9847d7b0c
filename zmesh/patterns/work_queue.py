"""Work queues, the producing side: each producer holds its jobs, and binds them late.

A job leaves only for a consumer that granted room for it (`job_control`), so it is with nobody
while all are busy, and the next one that is free gets it. Of one key a single job is under way at
a time, with the consumer the key weighs most at: so its jobs keep their order whatever becomes of
consumers, and stay with one as long as the consumers do. `jobs_taken` is the other side.
"""

from collections.abc import Sequence
from itertools import count, islice
from typing import Final

from zmesh.actions import PeerState, QueueRoomChanged
from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines, earliest
from zmesh.errors import UsageError
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
from zmesh.patterns.job_control import Grant, Offer, encode
from zmesh.patterns.job_queue import Attempt, Job, JobQueue, Outlet
from zmesh.patterns.redelivery import Redelivery
from zmesh.patterns.telling import Telling
from zmesh.reliable.link_events import Returned
from zmesh.storage import FailedAttempt

_LOST: Final = "its consumer was lost while it had it"


class WorkQueue:
    """The queues of this node, and the consumers of each."""

    def __init__(self, turn: Turn, options: NodeOptions, redelivery: Redelivery) -> None:
        self._turn = turn
        self._options = options
        self._redelivery = redelivery
        self._queues: dict[str, JobQueue] = {}
        self._served: dict[NodeId, dict[str, None]] = {}  # queues with an outlet, by consumer
        self._with: dict[NodeId, dict[Attempt, None]] = {}  # attempts under way, by consumer
        self._touched: dict[JobQueue, None] = {}  # where something may be bound or told
        self._paused: Deadlines[Job] = Deadlines(turn.agenda)  # until they may leave
        self._expiry: Deadlines[Job] = Deadlines(turn.agenda)
        self._numbers = count(1)
        self._relations = count(1)
        self._telling = Telling(turn, self._standing, options.answers_max, options.queues_max)
        self.gathered = (self._touched, *self._telling.gathered)  # all empty: nothing to flush
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
        """How many jobs are with nobody."""
        return sum(len(queue.jobs) for queue in self._queues.values()) - self.bound

    @property
    def wanted(self) -> int:
        """How many of these wait in queues that somebody pulls."""
        return sum(len(q.jobs) - q.bound for q in self._queues.values() if q.outlets)

    def queued(self, name: str) -> tuple[int, int]:
        """Return how many jobs, and bytes, of a queue have no outcome yet."""
        queue = self._queues.get(name)
        return (0, 0) if queue is None else (len(queue.jobs), queue.size)

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
        if queue.size >= self._options.queued_jobs_bytes_max:
            return 0
        return self._options.queued_jobs_max - len(queue.jobs)

    def check_push(self, *names: str) -> None:
        """Raise UsageError where jobs for these queues could not all be taken."""
        new = [name for name in names if name not in self._queues]
        if not new:
            return
        limit = self._options.queues_max
        over = len(self._queues) + len(new) - limit
        if over <= 0:
            return
        idle = (q for q in self._queues.values() if not (q.jobs or q.name in names))
        if sum(1 for _ in islice(idle, over)) < over:
            raise UsageError(f"jobs wait in {limit} queues already: pull some of them first")

    # Commands

    def on_push(self, push: Push) -> None:
        """Take jobs in."""
        ticket, now = push.ticket, self._turn.now
        if not push.records:
            self._turn.note_accepted((ticket,))
            return
        queue = self._queue(push.records[0][1])
        expires = None if push.ttl is None else now + push.ttl
        attempts_max = push.attempts_max or self._options.attempts_max
        body_bytes_max = self._options.link.body_bytes_max
        for record in push.records:
            if len(record[2]) > body_bytes_max:
                why = "its body is too large"
                self._turn.fail(ticket, Failure(FailureKind.REJECTED, "", why))
                continue
            if push.key is not None:
                record = with_extra(record, Tag.KEY, push.key)  # noqa: PLW2901
            job = Job(next(self._numbers), queue, push.lane, record, ticket, attempts_max, expires)
            queue.add(job, push.key)
            if expires is not None:
                self._expiry.set(job, expires)
            if push.delay > 0:
                self._paused.set(job, now + push.delay)
            else:
                self._ready(job)

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
        return next((queue for queue in self._queues.values() if not queue.jobs), None)

    def _drop(self, queue: JobQueue) -> None:
        """Forget a queue; what its consumers granted is void, and they learn so when they ask."""
        for node in queue.outlets:
            self._served[node].pop(queue.name, None)
        del self._queues[queue.name]
        self._touched.pop(queue, None)

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
        while self._touched:
            touched = list(self._touched)
            self._touched.clear()
            for queue in touched:
                self._bind(queue)
                self._offer_all(queue)
                if queue.is_full and self._room(queue) > 0:
                    queue.is_full = False
                    self._turn.actions.append(QueueRoomChanged(queue.name))
                if not queue.jobs and not queue.outlets:
                    self._queues.pop(queue.name, None)

    def _bind(self, queue: JobQueue) -> None:
        now = self._turn.now
        for job, outlet in queue.matches():
            attempt = job.attempt = Attempt(job, outlet)
            self._with.setdefault(outlet.peer.id, {})[attempt] = None
            self.redelivered += job.has_been_out
            job.has_been_out = True
            record = job.on_the_way(outlet.relation, now)
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
                self._remove(job)
                job.ticket.accepted += 1
                self._turn.note_accepted((job.ticket,))

    def on_returned(self, peer: Peer, returned: Returned) -> None:
        """Decide on a job that was not accepted, unless it has moved on."""
        attempt = returned.ticket
        if not isinstance(attempt, Attempt) or attempt.job.attempt is not attempt:
            return
        job = attempt.job
        self._close(attempt)
        match returned.outcome:
            case Outcome.REJECTED:
                self._count_attempt(job, returned.reason)
                self._bury(job, peer, FailureKind.REJECTED, returned.reason)
            case Outcome.EXPIRED:
                self._fail(job, FailureKind.EXPIRED, peer.label, returned.reason)
            case Outcome.MODIFIED:
                self._on_modified(job, peer, returned)
            case Outcome.RELEASED if returned.transmitted:
                self._again(job, returned.delay)
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
        self._again(job, max(returned.delay, pause))

    def _come_back(self, job: Job, peer: Peer, *, may_have_begun: bool) -> None:
        """Take a job from a consumer that gave no verdict: it counts what may have begun.

        So a job that kills whoever handles it ends as a dead letter.
        """
        if may_have_begun:
            self.uncertain += 1
            self._count_attempt(job, _LOST)
            if job.attempts >= job.attempts_max:
                self._bury(job, peer, FailureKind.DEAD_LETTERED, _LOST)
                return
        self._again(job, 0.0)

    def _again(self, job: Job, delay: float) -> None:
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
        attempts = self._with[outlet.peer.id]
        del attempts[attempt]
        if not attempts:
            del self._with[outlet.peer.id]

    def _bury(self, job: Job, peer: Peer, kind: FailureKind, reason: str) -> None:
        """Keep a job among the dead letters."""
        self._redelivery.dead_letters.keep(
            peer, job.record, reason, job.attempts, lane=job.lane, history=job.failed
        )
        self._fail(job, kind, peer.label, reason)

    def _fail(self, job: Job, kind: FailureKind, peer: str, reason: str) -> None:
        self._remove(job)
        self._turn.fail(job.ticket, Failure(kind, peer, reason, max(1, job.attempts)))

    def _remove(self, job: Job) -> None:
        """Forget a job that has its outcome; the next of its key may leave."""
        self._expiry.discard(job)
        self._paused.discard(job)
        queue = job.queue
        following = queue.remove(job)
        if following is not None:
            self._ready(following)
        self._touched[queue] = None

    def close(self) -> None:
        """End every job: the node closes."""
        for queue in self._queues.values():
            for job in queue.jobs.values():
                self._turn.fail(job.ticket, Failure(FailureKind.CLOSED, ""))
                job.attempt = None  # what its consumer may say comes too late
        self._queues.clear()
