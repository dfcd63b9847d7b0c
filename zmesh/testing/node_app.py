"""The application of a simulated node: sends what the scenario says, handles what arrives."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from zmesh.actions import (
    Action,
    CallAnswered,
    CallsAnswered,
    CancelRequest,
    DeliverInbox,
    DeliverPublications,
    DeliverRequests,
    Delivery,
    Drained,
    IdentityClash,
    PeerChanged,
    RoomChanged,
    TicketsDone,
    TicketsStored,
    Trace,
)
from zmesh.errors import AmbiguousPeer, PeerUnknown
from zmesh.events import (
    Call,
    CallEach,
    CancelCall,
    CloseNode,
    DrainNode,
    OpenInbox,
    Post,
    PostEach,
    Publish,
    PublishMany,
    Reply,
    ReplyEach,
    Serve,
    SettleDeliveries,
    Source,
    Subscribe,
    Unsubscribe,
    Withdraw,
)
from zmesh.ids import NodeId
from zmesh.message import Kind, Outcome, Record, Tag, extra, head
from zmesh.terms import Terms
from zmesh.testing.application import Application, Verdict
from zmesh.testing.call_books import answers_in
from zmesh.testing.findings import Rule
from zmesh.testing.node_books import NodeBooks
from zmesh.testing.node_ledger import Handling, NodeMessage
from zmesh.testing.node_process import NodeProcess
from zmesh.testing.scenario import HostPlan, InterestChange, Submission

DRAIN_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class NodeJob:
    """A delivery with the application, and what is needed to settle or answer it."""

    source: Source
    first_seq: int
    last_seq: int
    kind: Kind
    record: Record
    message: NodeMessage
    handling: Handling

    @property
    def number(self) -> int:
        """The number of its message."""
        return self.message.number


def named(plan: HostPlan) -> list[tuple[str, str]]:
    """Return the names and patterns of a host's subscriptions that have one."""
    return [(f"reader of {pattern}", pattern) for pattern in plan.followed]


class NodeApp:
    """Takes the engine's news, and gives it commands, for one life of a node."""

    def __init__(self, process: NodeProcess, books: NodeBooks, plan: HostPlan) -> None:
        self._process = process
        self._books = books
        self._plan = plan
        self.handlers: Application[NodeJob] = Application(
            process.queue, process.random, plan.consumer, self._on_verdict
        )
        self.services: dict[str, None] = {}
        self.topics: dict[str, int] = {}  # pattern -> token
        self.followed: dict[int, str] = {}  # token -> name
        self._requests: dict[tuple[Source, int], NodeJob] = {}
        self._tokens = 0
        self._parked: deque[Submission] = deque()
        self.leaving = False
        self._is_logged = False  # what was settled last is from a log

    def start(self) -> None:
        """Offer and ask for what the plan says, and read the inbox, by and by."""
        for service in self._plan.services:
            self._offer(service)
        for pattern in self._plan.topics:
            self._subscribe(pattern)
        for name, pattern in named(self._plan):
            self._tokens += 1
            self.followed[self._tokens] = name
            terms = Terms(name=name, since="first")
            self._process.deliver(Subscribe(self._tokens, pattern, terms))
        self._process.queue.after(self._plan.reads_at, self._process.deliver, OpenInbox())

    @property
    def waits(self) -> bool:
        """Whether submissions wait for room."""
        return bool(self._parked)

    # What it wants

    def change(self, change: InterestChange) -> None:
        """Let a service or a subscription come or go."""
        if change.kind == "service":
            if change.added and change.name not in self.services:
                self._offer(change.name)
            elif not change.added and change.name in self.services:
                del self.services[change.name]
                self._process.deliver(Withdraw(change.name))
        elif change.added and change.name not in self.topics:
            self._subscribe(change.name)
        elif not change.added and change.name in self.topics:
            self._process.deliver(Unsubscribe(self.topics.pop(change.name)))

    def _offer(self, service: str) -> None:
        self.services[service] = None
        self._process.deliver(Serve(service))

    def _subscribe(self, pattern: str) -> None:
        self._tokens += 1
        self.topics[pattern] = self._tokens
        self._process.deliver(Subscribe(self._tokens, pattern))

    def leave(self, *, drain: bool) -> None:
        """Say goodbye, after finishing what is open where `drain` asks for it."""
        self.leaving = True
        if drain:
            self._process.deliver(DrainNode(self._process.clock.read() + DRAIN_SECONDS))
        else:
            self._process.left = True
            self._process.deliver(CloseNode())

    # What it sends

    def submit(self, submission: Submission, target: NodeId) -> None:
        """Send, or wait for room first."""
        if self.leaving:
            return
        if self._parked or not self._has_room(submission, target):
            self._parked.append(submission)
            return
        match submission.kind:
            case "direct":
                self._post(submission, target)
            case "publish":
                self._publish(submission)
            case "call":
                self._call(submission)

    def _has_room(self, submission: Submission, target: NodeId) -> bool:
        engine = self._process.engine
        if self._is_stored(submission):
            return True
        if submission.kind == "publish":
            room = engine.room_to_publish(submission.name)
            return room is None or room > 0
        return submission.kind == "call" or engine.room(target) > 0

    def _post(self, submission: Submission, target: NodeId) -> None:
        process = self._process
        to: str | NodeId = target
        is_stored = self._is_stored(submission)
        if is_stored and submission.by_name:
            to = self._books.name_of(submission.target)
        elif is_stored:
            pass
        elif submission.target != process.index and len(submission.sizes) % 2:
            to = self._books.name_of(submission.target)
            try:
                process.engine.resolve(to)
            except (PeerUnknown, AmbiguousPeer):
                to = target  # an older life of the same name is not forgotten yet
        if not is_stored and submission.ttl is None and len(submission.sizes) > 2:
            self._post_each(submission, to, target)
            return
        parcel = self._books.submit(process, replace(submission, durable=is_stored), Kind.DIRECT)
        self._books.on_posted(process, parcel, target)
        records: list[Record] = [(head(Kind.DIRECT), "", each.body) for each in parcel.messages]
        lane, key, ttl = submission.lane, submission.key, submission.ttl
        wall_ms = process.wall_ms if is_stored else 0
        process.deliver(Post(to, lane, records, parcel.ticket, key, ttl, is_stored, wall_ms))

    def _post_each(self, submission: Submission, to: str | NodeId, target: NodeId) -> None:
        """Send messages together, each with a ticket of its own."""
        process, key = self._process, submission.key
        each = [replace(submission, sizes=(size,), durable=False) for size in submission.sizes]
        parcels = [self._books.submit(process, one, Kind.DIRECT) for one in each]
        for parcel in parcels:
            self._books.on_posted(process, parcel, target)
        records: list[Record] = [
            (head(Kind.DIRECT), "", parcel.messages[0].body) for parcel in parcels
        ]
        tickets = [parcel.ticket for parcel in parcels]
        process.deliver(PostEach(to, submission.lane, records, tickets, [key] * len(each)))

    def _is_stored(self, submission: Submission) -> bool:
        return submission.durable and self._process.drive is not None

    def _publish(self, submission: Submission) -> None:
        process = self._process
        is_stored = self._is_stored(submission)
        if not is_stored and len(submission.sizes) > 2:
            self._publish_many(submission)
            return
        for size in submission.sizes:
            one = replace(submission, sizes=(size,), durable=is_stored)
            parcel = self._books.submit(process, one, Kind.PUBLICATION)
            record: Record = (head(Kind.PUBLICATION), one.name, parcel.messages[0].body)
            publish = Publish(record, one.lane, parcel.ticket, one.key, one.ttl, durable=is_stored)
            publish.wall_ms = process.wall_ms if is_stored else 0
            process.deliver(publish)

    def _publish_many(self, submission: Submission) -> None:
        process, topic = self._process, submission.name
        each = [replace(submission, sizes=(size,), durable=False) for size in submission.sizes]
        parcels = [self._books.submit(process, one, Kind.PUBLICATION) for one in each]
        records: list[Record] = [
            (head(Kind.PUBLICATION), topic, parcel.messages[0].body) for parcel in parcels
        ]
        tickets = [parcel.ticket for parcel in parcels]
        lane, key, ttl = submission.lane, submission.key, submission.ttl
        process.deliver(PublishMany(records, lane, tickets, key, ttl))

    def _call(self, submission: Submission) -> None:
        process = self._process
        now = process.clock.read()
        deadline = None if submission.timeout is None else now + submission.timeout
        wishes = (submission.key, submission.prefer, submission.hedge_after, submission.retries)
        together = CallEach(0, [], submission.lane, deadline)
        for size in submission.sizes:
            one = replace(submission, sizes=(size,))
            message = self._books.submit(process, one, Kind.REQUEST).messages[0]
            record: Record = (head(Kind.REQUEST), one.name, message.body)
            self._books.calls.on_called(message, partial(self._seen, one.name))
            if wishes == (None, None, None, 0):
                together.first = together.first if together.records else message.number
                together.records.append(record)
            else:
                prefer = None if one.prefer is None else self._books.node_of(one.prefer)
                process.deliver(
                    Call(
                        message.number,
                        record,
                        one.lane,
                        deadline,
                        one.key,
                        prefer,
                        one.hedge_after,
                        one.retries,
                    )
                )
            if one.withdraw_after is not None:
                process.queue.after(one.withdraw_after, self._cancel, message.number)
        if together.records:
            process.deliver(together)

    def _cancel(self, number: int) -> None:
        if self._process.alive and self._books.on_cancelled(number):
            self._process.deliver(CancelCall(number))

    def _seen(self, service: str) -> frozenset[NodeId]:
        """Return the providers of a service in sight, this node included."""
        seen = {view.id for view in self._books.providers(self._process, service)}
        return frozenset(seen | {self._process.node} if service in self.services else seen)

    # What the engine tells

    def perform(self, action: Action) -> None:
        """Take an action of the engine."""
        match action:
            case DeliverInbox(deliveries):
                for delivery in deliveries:
                    self._take(delivery, Kind.DIRECT)
            case DeliverRequests(deliveries):
                for delivery in deliveries:
                    self._take(delivery, Kind.REQUEST)
            case DeliverPublications(pairs):
                for delivery, tokens in pairs:
                    self._books.check_tokens(self._process, delivery, tokens)
                    self._take(delivery, Kind.PUBLICATION, tokens)
            case TicketsDone(tickets):
                for ticket in tickets:
                    self._books.ledger.on_done(self._process.label, ticket)
                self._process.note("done", len(tickets))
            case CallAnswered() | CallsAnswered():
                self._answered(action)
            case _:
                self._perform_rare(action)

    def _answered(self, action: CallAnswered | CallsAnswered) -> None:
        for answer in answers_in(action):
            self._books.on_answered(self._process, answer)

    def _perform_rare(self, action: Action) -> None:
        match action:
            case TicketsStored(tickets, error):
                for ticket in tickets:
                    self._books.on_stored(self._process, ticket, is_stored=error is None)
            case PeerChanged():
                self._books.on_peer_changed(self._process, action)
                self._retry()
            case RoomChanged():
                self._retry()
            case CancelRequest(source, first_seq):
                self._stop(source, first_seq)
            case IdentityClash():
                self._books.wrong(
                    Rule.IDENTITY, self._process.label, "sees its own identity twice"
                )
            case Drained():
                self._process.note("drained", action.unsettled_out, action.unsettled_in)
                self.leave(drain=False)
            case Trace(name, level):
                self._process.note("trace", name, level)
            case _:
                pass

    def _retry(self) -> None:
        """Submit again what waits for room: its peer may have some now."""
        parked, self._parked = self._parked, deque()
        for submission in parked:
            target = self._books.node_of(submission.target)
            if target is not None:
                self.submit(submission, target)

    def _take(
        self, delivery: Delivery, kind: Kind, tokens: Sequence[tuple[int, ...]] = ()
    ) -> None:
        source, records = delivery.source, delivery.records
        whole = delivery.last_seq - delivery.first_seq + 1 != len(records)
        for offset, record in enumerate(records):
            name = self._follower(record, tokens[offset]) if tokens else None
            if name is None:
                taken = self._books.on_delivered(self._process, source, kind, record)
            else:
                taken = self._books.on_followed(self._process, name, source, record)
            if taken is None:
                continue
            first = delivery.first_seq + offset
            last = delivery.last_seq if whole else first
            job = NodeJob(source, first, last, kind, record, *taken)
            if kind is Kind.REQUEST:
                self._requests[source, first] = job
            self.handlers.take(job)

    def _follower(self, record: Record, tokens: tuple[int, ...]) -> str | None:
        """Return the subscription with a name that was given a publication from a log."""
        if extra(record, Tag.POSITION) is None:
            return None
        return next((self.followed[token] for token in tokens if token in self.followed), None)

    def _stop(self, source: Source, first_seq: int) -> None:
        """Give a request back that no handler has begun with: its caller waits no longer."""
        if (source, first_seq) in self._requests:
            self._requests[source, first_seq].handling.cancelled = True
        for job in self.handlers.drop(
            lambda job: job.source == source and job.first_seq == first_seq
        ):
            self._requests.pop((job.source, job.first_seq), None)
            self._settle(job, Verdict(Outcome.RELEASED))

    # What handlers decide

    def _on_verdict(self, job: NodeJob, verdict: Verdict) -> None:
        if not self._process.alive or self._process.left:
            return
        self._requests.pop((job.source, job.first_seq), None)
        if job.kind is not Kind.REQUEST or verdict.outcome in (Outcome.RELEASED, Outcome.REJECTED):
            self._settle(job, verdict)
            return
        # A handler that raises answers with its exception, and has answered.
        kind = Kind.REPLY if verdict.outcome is Outcome.ACCEPTED else Kind.FAILURE
        correlation = extra(job.record, Tag.CORRELATION)
        answer = b"%s answers %d " % (self._process.label.encode(), job.number)
        answer = answer.ljust(len(job.message.body), b".")
        job.handling.verdict = Verdict(Outcome.ACCEPTED)
        job.handling.answer = answer
        job.handling.raised = kind is Kind.FAILURE
        self._process.note("answers", job.number, kind.name)
        self._reply(
            job, correlation if isinstance(correlation, int) else 0, (head(kind), "", answer)
        )

    def _reply(self, job: NodeJob, correlation: int, record: Record) -> None:
        """Answer, together with what was answered just before to the same peer."""
        source, number, last = job.source, job.first_seq, self._process.last_queued
        if number != job.last_seq:
            self._process.deliver(Reply(source, number, job.last_seq, correlation, record))
        elif isinstance(last, ReplyEach) and last.source == source:
            last.numbers.append(number)
            last.correlations.append(correlation)
            last.records.append(record)
        else:
            self._process.deliver(ReplyEach(source, [number], [correlation], [record]))

    def _settle(self, job: NodeJob, verdict: Verdict) -> None:
        job.handling.verdict = verdict
        self._process.note("settles", job.number, verdict.outcome.name)
        last, before = self._process.last_queued, self._is_logged
        self._is_logged = extra(job.record, Tag.POSITION) is not None
        if (
            isinstance(last, SettleDeliveries)
            and self._is_logged is before  # what is handled alike is settled together
            and (last.source, last.last_seq + 1) == (job.source, job.first_seq)
            and (last.outcome, last.reason, last.delay)
            == (verdict.outcome, verdict.reason, verdict.delay)
        ):
            last.last_seq = job.last_seq
            return
        self._process.deliver(
            SettleDeliveries(
                job.source,
                job.first_seq,
                job.last_seq,
                verdict.outcome,
                verdict.reason,
                verdict.delay,
            )
        )
