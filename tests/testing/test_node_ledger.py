from zmesh.actions import CallAnswered, CallFailure
from zmesh.message import Failure, FailureKind, Kind, Outcome, Record, Tag, with_extra
from zmesh.testing.application import Verdict
from zmesh.testing.findings import Rule
from zmesh.testing.node_ledger import Handling, NodeLedger, NodeMessage, NodeParcel
from zmesh.testing.scenario import Submission


class Books:
    """The ledger of a mesh in which host a sends to hosts b and c."""

    def __init__(self, *, calm: bool = False, parted: bool = False) -> None:
        self.wrong: list[Rule] = []
        self.ledger = NodeLedger(
            lambda rule, _host, _text: self.wrong.append(rule),
            lambda _one, _other: parted,
            calm=calm,
            fickle=False,
            attempts_max=2,
        )

    def submit(self, kind: Kind, *, count: int = 1, timeout: float | None = None) -> NodeParcel:
        submission = Submission(0.0, 0, 1, 4, (20,) * count, timeout=timeout)
        return self.ledger.submit("a1", 0, submission, kind, 0.0)

    def deliver(
        self, message: NodeMessage, *, to: str = "b1", attempt: int = 1, lane: int = 4
    ) -> Handling:
        record: Record = (int(message.kind), "", message.body)
        if attempt > 1:
            record = with_extra(record, Tag.ATTEMPT, attempt)
        index = ord(to[0]) - ord("a")
        taken = self.ledger.on_delivered(to, index, 0, message.kind, lane, record)
        assert taken is not None
        return taken[1]

    def answer(
        self,
        message: NodeMessage,
        *,
        body: bytes = b"",
        failure: CallFailure | None = None,
        now: float = 1.0,
        providers: tuple[str, ...] = (),
    ) -> None:
        record: Record | None = None if failure else (int(Kind.REPLY), "", body)
        answered = CallAnswered(message.number, record, failure)
        self.ledger.on_answered("a1", answered, now, providers=list(providers))


ACCEPTED, FAILED = Verdict(Outcome.ACCEPTED), Verdict(Outcome.MODIFIED)


def test_an_accepted_message_settles_its_parcel() -> None:
    books = Books()
    parcel = books.submit(Kind.DIRECT)
    books.deliver(parcel.messages[0]).verdict = ACCEPTED
    parcel.ticket.accepted = 1
    books.ledger.on_done("a1", parcel.ticket)
    books.ledger.finish()
    assert books.wrong == []
    books.ledger.on_done("a1", parcel.ticket)
    assert books.wrong == [Rule.DUPLICATED]


def test_a_message_comes_again_only_when_given_back_and_as_the_next_attempt() -> None:
    books = Books()
    (message,) = books.submit(Kind.DIRECT).messages
    books.deliver(message).verdict = FAILED
    books.deliver(message, attempt=2).verdict = ACCEPTED
    assert books.wrong == []
    books.deliver(message, attempt=2)
    assert books.wrong == [Rule.DUPLICATED]


def test_an_attempt_that_is_not_raised_is_untrue() -> None:
    books = Books()
    (message,) = books.submit(Kind.DIRECT).messages
    books.deliver(message).verdict = FAILED
    books.deliver(message, attempt=1)
    assert books.wrong == [Rule.UNTRUE]


def test_acceptances_nobody_gave_and_losses_without_reason_are_untrue() -> None:
    books = Books(calm=True)
    parcel = books.submit(Kind.DIRECT, count=2)
    parcel.ticket.accepted = 1
    parcel.ticket.fail(Failure(FailureKind.PEER_LOST, "b"))
    books.ledger.on_done("a1", parcel.ticket)
    assert books.wrong == [Rule.UNTRUE, Rule.UNTRUE]


def test_a_dead_letter_needs_as_many_failures_as_attempts_are_allowed() -> None:
    for failures, wrong in ((1, [Rule.UNTRUE]), (2, [])):
        books = Books()
        parcel = books.submit(Kind.DIRECT)
        for attempt in range(1, failures + 1):
            books.deliver(parcel.messages[0], attempt=attempt).verdict = FAILED
        parcel.ticket.fail(Failure(FailureKind.DEAD_LETTERED, "b"))
        books.ledger.on_done("a1", parcel.ticket)
        assert books.wrong == wrong


def test_messages_keep_their_order_and_their_lane() -> None:
    books = Books()
    first, second = books.submit(Kind.DIRECT, count=2).messages
    books.deliver(second)
    books.deliver(first, lane=5)
    assert books.wrong == [Rule.DAMAGED, Rule.MISORDERED]


def test_a_call_goes_to_another_provider_only_when_the_first_was_lost() -> None:
    for parted, wrong in ((True, []), (False, [Rule.DUPLICATED])):
        books = Books(parted=parted)
        (call,) = books.submit(Kind.REQUEST).messages
        books.deliver(call, to="b1")
        books.deliver(call, to="c1", attempt=2)
        assert books.wrong == wrong


def test_an_answer_must_be_some_handlers_and_the_only_one() -> None:
    books = Books()
    (call,) = books.submit(Kind.REQUEST).messages
    books.deliver(call).answer = b"seven"
    books.answer(call, body=b"seven")
    assert books.wrong == []
    books.answer(call, body=b"seven")
    assert books.wrong == [Rule.DUPLICATED]
    (other,) = books.submit(Kind.REQUEST).messages
    books.answer(other, body=b"eight")
    assert books.wrong == [Rule.DUPLICATED, Rule.UNTRUE]


def test_a_call_fails_for_want_of_a_provider_only_where_there_is_none() -> None:
    books = Books()
    for providers in ((), ("b",)):
        (call,) = books.submit(Kind.REQUEST).messages
        books.answer(call, failure=CallFailure.NO_PROVIDER, providers=providers)
    assert books.wrong == [Rule.UNTRUE]


def test_what_has_no_end_is_lost_and_a_closed_node_has_told_everything() -> None:
    books = Books()
    books.submit(Kind.DIRECT)
    books.submit(Kind.REQUEST)
    books.ledger.check_closed("a1")
    books.ledger.finish()
    assert books.wrong == [Rule.LOST] * 4
    books.ledger.on_death("a1")
    books.ledger.finish()
    assert len(books.wrong) == 4
