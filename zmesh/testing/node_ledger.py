"""The books of whole nodes: messages, publications and calls, and what became of each.

As `ledger` does it for links, nothing here asks the engine. A message may be handled again only
after its handler gave it back; a call also after its provider was lost to the caller.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from zmesh.actions import CallAnswered, CallFailure
from zmesh.message import FailureKind, Kind, Outcome, Record, Tag, Ticket, extra
from zmesh.testing.application import Verdict
from zmesh.testing.findings import Rule
from zmesh.testing.ledger import body_of, number_in
from zmesh.testing.scenario import Submission

if TYPE_CHECKING:
    from zmesh.testing.durable_books import DurableBooks

GIVEN_BACK = (Outcome.RELEASED, Outcome.MODIFIED)
_GONE = (FailureKind.PEER_LOST, FailureKind.PEER_RESTARTED, FailureKind.CLOSED)
_CALL_SLACK = 0.001


@dataclass(slots=True, eq=False)
class Handling:
    """One time a handler was given a message."""

    receiver: str
    index: int  # of the receiver's host
    attempt: int
    verdict: Verdict | None = None
    answer: bytes = b""  # of a call
    raised: bool = False  # and the answer is an exception
    cancelled: bool = False  # it was told that nobody waits for its call


@dataclass(slots=True, eq=False)
class NodeMessage:
    """One message, publication or call."""

    number: int
    kind: Kind
    sender: str
    source: int  # the sender's host
    submission: Submission
    body: bytes
    ticket: Ticket
    submitted_at: float  # on the sender's clock
    target: int | None = None  # the one host it is for
    handlings: list[Handling] = field(default_factory=list)
    told: CallAnswered | None = None

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.number} of {self.sender}"

    def by(self, index: int) -> list[Handling]:
        """Return what handlers of one host did with it."""
        return [handling for handling in self.handlings if handling.index == index]


@dataclass(slots=True, eq=False)
class NodeParcel:
    """Messages with one ticket."""

    sender: str
    ticket: Ticket
    messages: list[NodeMessage]


class NodeLedger:
    """Books for all nodes of a run.

    `wrong` takes violations. `may_be_lost` tells whether two hosts may have lost each other for a
    good reason, so far; `fickle` whether subscriptions end during the run.
    """

    def __init__(
        self,
        wrong: Callable[[Rule, str, str], None],
        may_be_lost: Callable[[int, int], bool],
        *,
        calm: bool,
        fickle: bool,
        attempts_max: int,
    ) -> None:
        self._wrong = wrong
        self._may_be_lost = may_be_lost
        self._calm = calm
        self._fickle = fickle
        self._attempts_max = attempts_max
        self.messages: list[NodeMessage] = []
        self._parcels: dict[Ticket, NodeParcel] = {}
        self._open: dict[NodeParcel, None] = {}
        self.open_calls: dict[int, NodeMessage] = {}
        self.cancelled: set[int] = set()  # calls nobody waits for any more
        self.durable: DurableBooks | None = None  # judges what is stored first
        self._last_of_lane: dict[tuple[str, str, int, Kind], int] = {}
        self._last_of_key: dict[tuple[str, str, str, Kind], int] = {}

    # What senders do

    def submit(
        self, sender: str, source: int, submission: Submission, kind: Kind, now: float
    ) -> NodeParcel:
        """Make the messages of a submission."""
        expected = len(submission.sizes) if kind is Kind.DIRECT else 1
        parcel = NodeParcel(sender, Ticket(expected), [])
        for size in submission.sizes[:expected]:
            number = len(self.messages)
            message = NodeMessage(
                number, kind, sender, source, submission, body_of(number, size), parcel.ticket, now
            )
            if kind is Kind.DIRECT:
                message.target = submission.target
            self.messages.append(message)
            parcel.messages.append(message)
        if kind is Kind.REQUEST:
            self.open_calls[parcel.messages[0].number] = parcel.messages[0]
        else:
            self._parcels[parcel.ticket] = parcel
            if self.durable is not None and submission.durable:
                self.durable.on_submitted(parcel)
            else:
                self._open[parcel] = None
        return parcel

    def on_death(self, sender: str) -> None:
        """Note that a process died: nobody waits for its messages any more."""
        for parcel in [parcel for parcel in self._open if parcel.sender == sender]:
            del self._open[parcel]
        for number in [n for n, call in self.open_calls.items() if call.sender == sender]:
            del self.open_calls[number]

    def check_closed(self, sender: str) -> None:
        """A node that closed has told its application the end of everything."""
        for parcel in self._open:
            if parcel.sender == sender:
                self._wrong(Rule.LOST, sender, f"{parcel.messages[0]}.. has no end after closing")
        for call in self.open_calls.values():
            if call.sender == sender:
                self._wrong(Rule.LOST, sender, f"{call} has no answer after closing")

    # What handlers see

    def on_delivered(
        self, receiver: str, index: int, source: int, kind: Kind, lane: int, record: Record
    ) -> tuple[NodeMessage, Handling] | None:
        """Check what a handler is given; None where it is nobody's."""
        number = number_in(record[2])
        message = self.messages[number] if number < len(self.messages) else None
        if message is None or record[2] != message.body:
            self._wrong(Rule.DAMAGED, receiver, f"a {kind.name} with a body that nobody sent")
            return None
        handling = Handling(receiver, index, _attempt(record))
        if (
            message.kind is not kind
            or message.submission.lane != lane
            or message.source != source
            or message.target not in (None, index)
            or record[1] != message.submission.name
        ):
            self._wrong(Rule.DAMAGED, receiver, f"{message} was not for {receiver}, lane {lane}")
        if kind is Kind.REQUEST:
            self._check_request(message, handling)
        elif self.durable is not None and message.submission.durable and kind is Kind.DIRECT:
            self.durable.on_delivered(message, handling, record)
        else:
            self._check_again(message, handling)
        message.handlings.append(handling)
        if handling.attempt == 1 and len(message.by(index)) == 1 and kind is not Kind.REQUEST:
            self._check_order(message, receiver)
        return message, handling

    def _check_again(self, message: NodeMessage, handling: Handling) -> None:
        """Nobody handles a message twice who did not give it back."""
        before = message.by(handling.index)
        for earlier in before:
            if earlier.verdict is None or earlier.verdict.outcome not in GIVEN_BACK:
                text = f"{message} was handled by {earlier.receiver} already"
                self._wrong(Rule.DUPLICATED, handling.receiver, text)
                return
        failed = sum(
            each.verdict is not None and each.verdict.outcome is Outcome.MODIFIED
            for each in before
        )
        # What comes from a log again, in another life of its publisher, begins anew.
        fewest = 1 if message.submission.durable else failed + 1
        if not fewest <= handling.attempt <= failed + 1:
            text = f"{message} comes as attempt {handling.attempt} after {failed} failures"
            self._wrong(Rule.UNTRUE, handling.receiver, text)

    def _check_request(self, message: NodeMessage, handling: Handling) -> None:
        """A request goes to another provider only when the one before cannot answer.

        A hedged one may be with two.
        """
        is_hedged = message.submission.hedge_after is not None
        holders = 0
        for earlier in message.handlings:
            given_back = earlier.verdict is not None and earlier.verdict.outcome in GIVEN_BACK
            raised = earlier.raised and message.submission.retries > 0
            elsewhere = earlier.receiver != handling.receiver
            # A provider that was lost may still get to it, late, as the attempt it was.
            lost = elsewhere and any(
                self._may_be_lost(message.source, index)
                for index in (earlier.index, handling.index)
            )
            if not given_back and not lost and not raised:
                holders += 1
                if not elsewhere or holders > is_hedged:
                    text = f"{message} is with {earlier.receiver} already"
                    self._wrong(Rule.DUPLICATED, handling.receiver, text)
            same = handling.attempt == earlier.attempt
            if same or (handling.attempt < earlier.attempt and not lost and not is_hedged):
                text = f"{message} comes again as attempt {handling.attempt}"
                self._wrong(Rule.UNTRUE, handling.receiver, text)

    def _check_order(self, message: NodeMessage, receiver: str) -> None:
        submission = message.submission
        sender = message.sender
        if submission.durable and self.durable is not None:  # what is not need not wait for a disk
            if message.kind is Kind.DIRECT:  # for all lives; each box on its own
                sender = f"host {message.source} by {'name' if submission.by_name else 'id'}"
            else:
                sender = f"the log of {sender}"
        lane = (sender, receiver, submission.lane, message.kind)
        last = self._last_of_lane.get(lane, -1)
        if last > message.number:
            self._wrong(Rule.MISORDERED, receiver, f"{message} comes after {last}")
        self._last_of_lane[lane] = message.number
        if submission.key is None:
            return
        key = (sender, receiver, submission.key, message.kind)
        last = self._last_of_key.get(key, -1)
        if last > message.number:
            text = f"{message} comes after {last} of the same key {submission.key!r}"
            self._wrong(Rule.MISORDERED, receiver, text)
        self._last_of_key[key] = message.number

    # What senders are told

    def on_done(self, sender: str, ticket: Ticket) -> None:
        """Check the end of a ticket against what handlers decided."""
        parcel = self._parcels.get(ticket)
        if parcel is None or parcel.sender != sender:
            self._wrong(Rule.UNTRUE, sender, "told of a ticket that is not its own")
            return
        if self.durable is not None and parcel.messages[0].submission.durable:
            self.durable.on_done(parcel)
            return
        if self._open.pop(parcel, True) is not None:
            self._wrong(Rule.DUPLICATED, sender, f"{parcel.messages[0]} ended twice")
            return
        if not ticket.done or ticket.accepted + len(ticket.failures) > ticket.expected:
            text = (
                f"{parcel.messages[0]}: {ticket.accepted} acceptances and "
                f"{len(ticket.failures)} failures of {ticket.expected}"
            )
            self._wrong(Rule.DUPLICATED, sender, text)
        self._check_outcomes(parcel)

    def _check_outcomes(self, parcel: NodeParcel) -> None:
        """Count what the sender was told, and hold it against the handlers' last words."""
        ticket = parcel.ticket
        failures = Counter(failure.kind for failure in ticket.failures)
        last = Counter(outcome for m in parcel.messages for outcome in self._last_words(m))
        gone = sum(failures[kind] for kind in _GONE)
        checks = (
            ("accepted", ticket.accepted, last[Outcome.ACCEPTED]),
            ("rejected", failures[FailureKind.REJECTED], last[Outcome.REJECTED]),
            ("dead-lettered", failures[FailureKind.DEAD_LETTERED], last[Outcome.MODIFIED]),
        )
        # What comes after the last subscription ended is accepted without a handler.
        unseen = parcel.messages[0].kind is Kind.PUBLICATION and self._fickle
        for what, told, true in checks:
            missing = 0 if what == "dead-lettered" else true - told
            if (told > true and not (unseen and what == "accepted")) or missing > gone:
                text = f"{parcel.messages[0]}..: {told} are said to be {what}, {true} were"
                self._wrong(Rule.UNTRUE, parcel.sender, text)
        self._check_reasons(parcel, failures)

    def _last_words(self, message: NodeMessage) -> list[Outcome | None]:
        """Return the last verdict at each host that was given the message."""
        hosts = dict.fromkeys(handling.index for handling in message.handlings)
        last = [message.by(index)[-1].verdict for index in hosts]
        return [None if verdict is None else verdict.outcome for verdict in last]

    def _check_reasons(self, parcel: NodeParcel, failures: Counter[FailureKind]) -> None:
        first = parcel.messages[0]
        if failures[FailureKind.EXPIRED] and first.submission.ttl is None:
            self._wrong(Rule.UNTRUE, parcel.sender, f"{first} expired without a time to live")
        lost = failures[FailureKind.PEER_LOST] + failures[FailureKind.PEER_RESTARTED]
        parted = first.target is None or self._may_be_lost(first.source, first.target)
        if lost and (self._calm or not parted):
            self._wrong(Rule.UNTRUE, parcel.sender, f"{first} was lost with a peer that is there")
        if failures[FailureKind.DEAD_LETTERED]:
            failed = [m for m in parcel.messages if self._failures_of(m) >= self._attempts_max]
            if len(failed) < failures[FailureKind.DEAD_LETTERED] and first.target is not None:
                self._wrong(Rule.UNTRUE, parcel.sender, f"{first} was given up too early")

    @staticmethod
    def _failures_of(message: NodeMessage) -> int:
        return sum(
            handling.verdict is not None and handling.verdict.outcome is Outcome.MODIFIED
            for handling in message.handlings
        )

    def on_answered(
        self, sender: str, answer: CallAnswered, now: float, *, providers: list[str]
    ) -> None:
        """Check the end of a call; `providers` are those the caller's application can see."""
        call = self.open_calls.pop(answer.call, None)
        if answer.call in self.cancelled:
            return  # the answer was quicker than the cancellation
        if call is None or call.sender != sender:
            known = answer.call < len(self.messages)
            text = f"call {answer.call} was answered " + ("twice" if known else "unasked")
            self._wrong(Rule.DUPLICATED, sender, text)
            return
        call.told = answer
        why = self._untrue_answer(call, answer, now, providers)
        if why:
            failure = answer.failure and answer.failure.name
            self._wrong(Rule.UNTRUE, sender, f"{call} ended ({failure}): {why}")

    def _untrue_answer(
        self, call: NodeMessage, answer: CallAnswered, now: float, providers: list[str]
    ) -> str:
        verdicts = [h.verdict.outcome for h in call.handlings if h.verdict is not None]
        timeout = call.submission.timeout
        due = None if timeout is None else call.submitted_at + timeout
        match answer.failure:
            case None | CallFailure.REMOTE_ERROR:
                return self._untrue_reply(call, answer)
            case CallFailure.NO_PROVIDER | CallFailure.PEER_LOST:
                return f"{providers} provide it" if providers else ""
            case CallFailure.REJECTED:
                rejected = Outcome.REJECTED in verdicts
                return "" if rejected or not self._calm else "no handler rejected it"
            case CallFailure.DEADLINE:
                early = due is None or now < due - _CALL_SLACK
                return "before its deadline" if early and not self._is_dead_on_time(call) else ""
            case CallFailure.EXHAUSTED:
                return "" if not self._calm or GIVEN_BACK[0] in verdicts else "nobody gave it back"
            case CallFailure.CLOSED:
                return ""
            case CallFailure.BROKEN:
                return "it is no stream"

    @staticmethod
    def _is_dead_on_time(call: NodeMessage) -> bool:
        """Whether the provider let the call expire, whose clock may be a little ahead."""
        return call.submission.timeout is not None

    @staticmethod
    def _untrue_reply(call: NodeMessage, answer: CallAnswered) -> str:
        if answer.record is None:
            return "without an answer"
        kind = Kind.FAILURE if answer.failure else Kind.REPLY
        if answer.record[0] & 15 != kind:
            return f"the answer is a {Kind(answer.record[0] & 15).name}"
        body = bytes(answer.record[2])
        if not any(handling.answer == body for handling in call.handlings if handling.answer):
            return "no handler gave this answer"
        return ""

    # In the end

    @property
    def settled(self) -> bool:
        """Whether every sender that lives was told everything."""
        return not self._open and not self.open_calls

    def finish(self) -> None:
        """Find what was lost: nobody was ever told its end."""
        for parcel in self._open:
            ticket = parcel.ticket
            for _ in range(max(1, ticket.expected - ticket.accepted - len(ticket.failures))):
                self._wrong(Rule.LOST, parcel.sender, f"{parcel.messages[0]}.. has no end")
        for call in self.open_calls.values():
            self._wrong(Rule.LOST, call.sender, f"{call} has no answer")


def _attempt(record: Record) -> int:
    attempt = extra(record, Tag.ATTEMPT)
    return attempt if isinstance(attempt, int) else 1
