from typing import Any

import pytest

from zmesh.message import Outcome, Record, Ticket
from zmesh.reliable.link_events import Returned
from zmesh.testing.findings import Rule
from zmesh.testing.ledger import Ledger, body_of, number_in
from zmesh.testing.scenario import Submission


class Books:
    """A ledger in which host a sent host b three messages of one key."""

    def __init__(self, **options: Any) -> None:
        self.wrong: list[Rule] = []
        self.ledger = Ledger(lambda rule, _host, _text: self.wrong.append(rule))
        submission = Submission(0.0, 0, 1, 4, (20, 30, 40), key="k", **options)
        self.records, self.ticket = self.ledger.submit("a1", submission, 10.0)

    def deliver(self, index: int, *, now: float = 10.0, lane: int = 4) -> None:
        self.ledger.on_delivered("b1", 1, 0, lane, self.records[index], now)

    def settle(self, index: int, outcome: Outcome, reason: str = "") -> None:
        self.ledger.on_settled([self.ledger.messages[index]], outcome, reason, 0.0)

    def accept(self, count: int = 1) -> None:
        self.ticket.accepted += count
        self.ledger.on_accepted("a1", [self.ticket])

    def give_back(
        self,
        index: int,
        outcome: Outcome,
        reason: str = "",
        *,
        transmitted: bool = True,
        session_over: bool = False,
    ) -> None:
        event = Returned(self.records[index], self.ticket, 4, outcome, reason, 0.0, transmitted)
        self.ledger.on_returned("a1", event, session_over=session_over)


def test_bodies_carry_their_number() -> None:
    assert number_in(body_of(70_000, 100)) == 70_000
    assert len(body_of(1, 100)) == 100
    assert body_of(1, 100)[4:] != body_of(2, 100)[4:]


def test_honest_outcomes_settle_everything() -> None:
    books = Books()
    for index in range(3):
        books.deliver(index)
    books.settle(0, Outcome.ACCEPTED)
    books.settle(1, Outcome.REJECTED, "no")
    books.settle(2, Outcome.ACCEPTED)
    books.accept(2)
    before = books.ledger.settled
    books.give_back(1, Outcome.REJECTED, "no")
    assert not before
    assert books.ledger.settled
    books.ledger.finish()
    assert books.wrong == []


def test_what_has_no_end_is_lost_unless_its_sender_died() -> None:
    books = Books()
    books.ledger.finish()
    assert books.wrong == [Rule.LOST] * 3
    books = Books()
    books.ledger.on_death("a1")
    books.ledger.finish()
    assert books.wrong == []


def test_more_acceptances_than_handlers_gave_are_untrue() -> None:
    books = Books()
    books.accept()
    assert books.wrong == [Rule.UNTRUE]


def test_a_second_delivery_a_second_end_and_a_wrong_order_are_seen() -> None:
    books = Books()
    books.deliver(1)
    books.deliver(1)
    books.deliver(0)
    assert books.wrong == [Rule.DUPLICATED, Rule.MISORDERED, Rule.MISORDERED]  # lane and key
    books.settle(1, Outcome.RELEASED)
    books.give_back(1, Outcome.RELEASED)
    books.give_back(1, Outcome.RELEASED)
    assert books.wrong[3:] == [Rule.DUPLICATED]


@pytest.mark.parametrize("outcome", [Outcome.REJECTED, Outcome.MODIFIED, Outcome.UNKNOWN])
def test_an_outcome_nobody_gave_is_untrue(outcome: Outcome) -> None:
    books = Books()
    books.give_back(0, outcome)
    assert books.wrong == [Rule.UNTRUE]


def test_unknown_is_true_once_the_session_is_over() -> None:
    books = Books()
    books.give_back(0, Outcome.UNKNOWN, session_over=True)
    assert books.wrong == []


def test_a_reason_must_be_the_handlers() -> None:
    books = Books()
    books.deliver(0)
    books.settle(0, Outcome.REJECTED, "because")
    books.give_back(0, Outcome.REJECTED, "another")
    assert books.wrong == [Rule.UNTRUE]


def test_what_is_said_to_be_unsent_must_never_be_delivered() -> None:
    books = Books()
    books.give_back(0, Outcome.RELEASED, transmitted=False)
    assert books.wrong == []
    books.deliver(0)
    assert books.wrong == [Rule.UNTRUE]


def test_expiry_needs_a_time_to_live_or_a_withdrawal() -> None:
    books = Books()
    books.give_back(0, Outcome.EXPIRED)
    assert books.wrong == [Rule.UNTRUE]
    books.ledger.withdraw(books.ticket)
    books.give_back(1, Outcome.EXPIRED)
    assert len(books.wrong) == 1


def test_a_message_handled_after_its_time_to_live_is_late() -> None:
    books = Books(ttl=1.0)
    books.ledger.messages[0].expires_at = 11.0
    books.deliver(0, now=11.5)
    assert books.wrong == [Rule.LATE]


def test_damage_and_strangers_are_seen() -> None:
    books = Books()
    damaged: Record = (0, "", bytes(books.records[0][2][:-1]) + b"?")
    books.ledger.on_delivered("b1", 1, 0, 4, damaged, 10.0)
    books.deliver(1, lane=5)
    books.ledger.on_delivered("b1", 1, 0, 4, (0, "", b"\xff\xff\xff\xff"), 10.0)
    assert books.wrong == [Rule.DAMAGED] * 3


def test_a_ticket_of_somebody_else_is_untrue() -> None:
    books = Books()
    books.ledger.on_accepted("b1", [books.ticket])
    assert books.wrong == [Rule.UNTRUE]
    event = Returned(books.records[0], Ticket(), 4, Outcome.RELEASED, "", 0.0, transmitted=False)
    books.ledger.on_returned("a1", event, session_over=False)
    assert books.wrong == [Rule.UNTRUE] * 2
