"""Surveys: a request to every provider of a service at once, and the answers that come in time.

Each provider is asked once. A survey is over when enough of them replied, when all have replied or
cannot, or at its deadline; whoever still works on an answer then is told to stop. To providers it
is a request like any other: `serving` is the other side.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from zmesh.actions import CallFailure, SurveyAnswered, SurveyEnded
from zmesh.core.peers import InternalTicket, Peer
from zmesh.core.turn import Turn
from zmesh.deadlines import Deadlines
from zmesh.events import StartSurvey
from zmesh.ids import NodeId
from zmesh.message import InterestKind, Kind, Outcome, Record, Tag, extra, head, with_extra
from zmesh.patterns.interest import InterestTable
from zmesh.reliable.link_events import Returned

FIRST_QUESTION = 1 << 40
"""Correlations and message ids of calls count from 1: those of surveys never meet them."""


class QuestionTicket(InternalTicket):
    """The ticket of what one provider is asked."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass(slots=True, eq=False)
class _Running:
    """A survey under way."""

    number: int
    record: Record
    lane: int
    needed: int  # replies that are enough
    questions: dict[int, None] = field(default_factory=dict)  # those without answer
    replies: int = 0


@dataclass(slots=True, eq=False)
class _Question:
    """What one provider was asked, and has not answered."""

    survey: _Running
    provider: Peer
    ticket: QuestionTicket


class Survey:
    """The asking side of surveys."""

    def __init__(self, turn: Turn, interest: InterestTable) -> None:
        self._turn = turn
        self._interest = interest
        self._running: dict[int, _Running] = {}
        self._questions: dict[int, _Question] = {}
        self._with: dict[NodeId, dict[int, None]] = {}  # questions by provider
        self._deadlines: Deadlines[int] = Deadlines(turn.agenda)
        self._asked = 0
        self._cancels = InternalTicket(0)

    def __len__(self) -> int:
        """Count the surveys under way."""
        return len(self._running)

    @property
    def questions(self) -> int:
        """How many providers have not answered yet, over all surveys."""
        return len(self._questions)

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._deadlines.next

    # Commands

    def on_start(self, start: StartSurvey) -> None:
        """Ask every provider there is now; `SurveyEnded` tells the end."""
        providers = self._providers(start.record[1], start.group)
        if not providers:
            ended = SurveyEnded(start.survey, CallFailure.NO_PROVIDER)
            self._turn.actions.append(ended)
            return
        needed = _needed(len(providers), start.count, start.quorum)
        survey = _Running(start.survey, start.record, start.lane, needed)
        self._running[survey.number] = survey
        self._deadlines.set(survey.number, start.deadline)
        for number in [self._prepare(survey, provider) for provider in providers]:
            self._ask(number, start.deadline)

    def _providers(self, service: str, group: str | None) -> list[Peer]:
        return [
            peer
            for peer in self._interest.providers(service)
            if peer.present
            and not peer.draining
            and (group is None or group in peer.interests[InterestKind.GROUP])
        ]

    def _prepare(self, survey: _Running, provider: Peer) -> int:
        """Note what a provider is to be asked: a survey is over when all of that is answered."""
        self._asked += 1
        number = FIRST_QUESTION + self._asked
        self._questions[number] = _Question(survey, provider, QuestionTicket(number))
        self._with.setdefault(provider.id, {})[number] = None
        survey.questions[number] = None
        return number

    def _ask(self, number: int, deadline: float) -> None:
        question = self._questions[number]
        survey, provider, ticket = question.survey, question.provider, question.ticket
        if self._turn.room(provider) <= 0:
            self._fail(number, CallFailure.REJECTED, "its queue is full: it was not asked")
            return
        record = _numbered(survey.record, number)
        ttl = max(0.0, deadline - self._turn.now)
        self._turn.submit(provider, survey.lane, [record], ticket, ttl=ttl)
        if ticket.failures:  # its body is too large to be sent
            self._fail(number, CallFailure.REJECTED, ticket.failures[0].reason)

    def on_cancel(self, number: int) -> None:
        """Forget a survey nobody waits for, and tell those at work on it."""
        survey = self._running.get(number)
        if survey is not None:
            self._forget(survey)

    # Answers

    def on_replies(self, peer: Peer, records: Sequence[Record]) -> Sequence[Record]:
        """Take what answers a survey; return the rest, which is for calls."""
        if not self._questions:
            return records
        rest: list[Record] = []
        for record in records:
            number = extra(record, Tag.CORRELATION)
            question = self._questions.get(number) if isinstance(number, int) else None
            if question is None or question.provider.id != peer.id:
                rest.append(record)
                continue
            survey = question.survey
            self._drop(question.ticket.number)
            failed = record[0] & 15 == Kind.FAILURE
            survey.replies += not failed
            failure = CallFailure.REMOTE_ERROR if failed else None
            self._turn.actions.append(
                SurveyAnswered(survey.number, peer.id, peer.label, record, failure)
            )
            self._check_over(survey)
        return rest

    def on_returned(self, returned: Returned) -> None:
        """Take note that a provider did not handle a request."""
        ticket = returned.ticket
        if not isinstance(ticket, QuestionTicket) or ticket.number not in self._questions:
            return
        match returned.outcome:
            case Outcome.EXPIRED:
                self._fail(ticket.number, CallFailure.DEADLINE, "nobody began to handle it")
            case Outcome.REJECTED:
                self._fail(ticket.number, CallFailure.REJECTED, returned.reason)
            case Outcome.UNKNOWN:
                self._fail(ticket.number, CallFailure.PEER_LOST, "its session is over")
            case _:
                reason = f"it gave the request back: {returned.reason or 'without a reason'}"
                self._fail(ticket.number, CallFailure.REJECTED, reason)

    def on_away(self, peer: Peer, reason: str) -> None:
        """Take note that a provider was lost, left or restarted: it will not answer."""
        for number in list(self._with.get(peer.id, ())):
            self._turn.withdraw(peer, self._questions[number].ticket)
            self._fail(number, CallFailure.PEER_LOST, reason)

    def on_timer(self) -> None:
        """End the surveys whose time is over."""
        for number in self._deadlines.due(self._turn.now):
            survey = self._running[number]
            for question in list(survey.questions):
                self._recall(question)
                self._fail(question, CallFailure.DEADLINE, "it had not answered in time")

    # Ends

    def _fail(self, number: int, failure: CallFailure, reason: str) -> None:
        question = self._questions[number]
        self._drop(number)
        provider, survey = question.provider, question.survey
        answered = SurveyAnswered(
            survey.number, provider.id, provider.label, None, failure, reason
        )
        self._turn.actions.append(answered)
        self._check_over(survey)

    def _drop(self, number: int) -> None:
        question = self._questions.pop(number)
        del question.survey.questions[number]
        numbers = self._with[question.provider.id]
        del numbers[number]
        if not numbers:
            del self._with[question.provider.id]

    def _check_over(self, survey: _Running) -> None:
        """End a survey with enough replies, or when nobody is left to give one."""
        is_over = not survey.questions or survey.replies >= survey.needed
        if is_over and self._forget(survey):
            self._turn.actions.append(SurveyEnded(survey.number))

    def _recall(self, number: int) -> None:
        """Tell a provider that nobody waits for its answer."""
        question = self._questions[number]
        provider, survey = question.provider, question.survey
        # What never left needs no cancelling: else these would pile up for one that stalls.
        if self._turn.withdraw(provider, question.ticket) and provider.present:
            cancel = _numbered((head(Kind.CANCEL), survey.record[1], b""), number)
            self._turn.submit(provider, survey.lane, [cancel], self._cancels)

    def _forget(self, survey: _Running) -> bool:
        """Stop those at work; False where that was done before."""
        if self._running.pop(survey.number, None) is None:
            return False
        self._deadlines.discard(survey.number)
        for number in list(survey.questions):
            self._recall(number)
            self._drop(number)
        return True

    def close(self) -> None:
        """End all: the node closes."""
        for survey in list(self._running.values()):
            self._forget(survey)
            self._turn.actions.append(SurveyEnded(survey.number, CallFailure.CLOSED))


def _needed(asked: int, count: int | None, quorum: float | None) -> int:
    """Return how many replies are enough: `count`, or more than the share `quorum`."""
    needed = asked if count is None else min(asked, count)
    if quorum is not None:
        needed = min(needed, int(asked * quorum) + 1)
    return needed


def _numbered(record: Record, number: int) -> Record:
    return with_extra(with_extra(record, Tag.MESSAGE_ID, number), Tag.CORRELATION, number)
