"""Stored messages are handled once, and their outcome is on disk before anybody hears of it."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from zmesh.actions import WriteJournal
from zmesh.core.handled import ORIGINS_MAX, Handled
from zmesh.core.keeper import Keeper
from zmesh.events import Source
from zmesh.ids import JournalId, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, head
from zmesh.storage import (
    POSITION_MAX,
    DropStream,
    ForgetOutcomes,
    Identity,
    Opened,
    Refused,
    StoredOutcome,
    StoreOutcomes,
    Written,
)
from zmesh.storage_errors import JournalBroken

ADA = NodeId(b"ada-ada-ada-ada-")
JOURNAL = b"journal-journal-"
OPENED = Opened(Identity(NodeId(bytes(16)), b"", JournalId(bytes(16)), 1), (), True, None)
Told = tuple[int, int, Outcome]


def numbered(number: int) -> Record:
    return (head(Kind.DIRECT), "", b"body", (int(Tag.STORED), number))


def plain() -> Record:
    return (head(Kind.DIRECT), "", b"body")


def source(session: bytes = b"session", journal: bytes = JOURNAL) -> Source:
    return Source(ADA, session, 4, journal)


@dataclass
class Memory:
    """A memory, with what it told and ordered."""

    stored: bool = True
    told: list[tuple[Source, Told]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeper = Keeper(OPENED if self.stored else None)
        self.handled = Handled(self.keeper)
        self.handled.settle = self._settle

    def _settle(
        self, source: Source, first: int, last: int, outcome: Outcome, *_: Any, **__: Any
    ) -> None:
        self.told.append((source, (first, last, outcome)))

    def admit(self, where: Source, first: int, *records: Record) -> list[tuple[int, int]]:
        runs = self.handled.admit(where, first, first + len(records) - 1, list(records))
        return [(low, high) for low, high, _ in runs]

    def settle(self, where: Source, first: int, last: int, outcome: Outcome) -> bool:
        return self.handled.on_settle(where, first, last, outcome, "", 0.0)

    def orders(self) -> list[Any]:
        self.keeper.on_timer()  # and what may be done later
        actions = [a for a in self.keeper.take_actions() if isinstance(a, WriteJournal)]
        self.tickets = tuple(action.batch.ticket for action in actions)
        return [command for action in actions for command in action.batch.commands]

    def written(self) -> None:
        self.keeper.on_told(Written(self.tickets))


def test_messages_without_a_number_are_no_concern_of_it() -> None:
    memory = Memory()
    assert memory.admit(source(), 1, plain(), plain()) == [(1, 2)]
    assert not memory.settle(source(), 1, 2, Outcome.ACCEPTED)
    assert memory.orders() == []


def test_an_outcome_is_told_when_it_is_on_disk_and_not_before() -> None:
    memory = Memory()
    assert memory.admit(source(), 1, numbered(10), numbered(11)) == [(1, 2)]
    assert memory.settle(source(), 1, 2, Outcome.ACCEPTED)
    [order] = memory.orders()
    assert isinstance(order, StoreOutcomes)
    assert order.outcomes == (StoredOutcome(10, 11, Outcome.ACCEPTED),)
    assert memory.told == []
    memory.written()
    assert memory.told == [(source(), (1, 2, Outcome.ACCEPTED))]


def test_an_outcome_that_cannot_be_written_is_never_told() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    memory.orders()
    memory.keeper.on_told(Refused(memory.tickets, JournalBroken("j", "be written", "EIO")))
    assert memory.told == []


def test_without_a_journal_it_is_told_at_once() -> None:
    memory = Memory(stored=False)
    memory.admit(source(), 1, numbered(10))
    assert memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    assert memory.told == [(source(), (1, 1, Outcome.ACCEPTED))]
    assert memory.admit(source(b"later"), 5, numbered(10)) == []
    assert memory.told[1:] == [(source(b"later"), (5, 5, Outcome.ACCEPTED))]


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REJECTED])
def test_a_copy_of_what_was_handled_gets_the_outcome_there_was(outcome: Outcome) -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    memory.settle(source(), 1, 1, outcome)
    memory.orders()
    memory.written()
    assert memory.admit(source(b"later"), 3, numbered(10), numbered(11)) == [(4, 4)]
    assert memory.told[1:] == [(source(b"later"), (3, 3, outcome))]
    assert memory.handled.duplicates == 1


def test_a_copy_of_what_is_being_handled_waits_for_its_outcome() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    assert memory.admit(source(b"later"), 7, numbered(10)) == []
    memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    memory.orders()
    memory.written()
    assert memory.told == [
        (source(), (1, 1, Outcome.ACCEPTED)),
        (source(b"later"), (7, 7, Outcome.ACCEPTED)),
    ]


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.MODIFIED])
def test_a_copy_that_comes_together_with_the_first_gets_its_outcome(outcome: Outcome) -> None:
    memory = Memory()
    assert memory.admit(source(), 1, *map(numbered, (10, 11, 10))) == [(1, 2)]
    memory.settle(source(), 1, 1, outcome)
    memory.orders()
    memory.written()
    assert memory.told == [(source(), (1, 1, outcome)), (source(), (3, 3, outcome))]
    assert memory.handled.duplicates == 1


@pytest.mark.parametrize("outcome", [Outcome.RELEASED, Outcome.MODIFIED])
def test_what_was_given_back_may_come_again(outcome: Outcome) -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    assert memory.settle(source(), 1, 1, outcome)
    assert memory.told == [(source(), (1, 1, outcome))]
    assert memory.orders() == []
    assert memory.admit(source(), 2, numbered(10)) == [(2, 2)]


def test_what_nobody_has_any_more_may_come_again() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10), numbered(11))
    memory.handled.drop(source(), 1, 2)
    assert memory.admit(source(b"later"), 1, numbered(10), numbered(11)) == [(1, 2)]


def test_outcomes_are_kept_until_the_sender_has_forgotten_the_messages() -> None:
    memory = Memory()
    memory.admit(source(), 1, *map(numbered, range(10, 20)))
    memory.settle(source(), 1, 10, Outcome.ACCEPTED)
    memory.orders()
    memory.written()
    memory.handled.on_known(ADA, JOURNAL, 12, ((15, 16),))
    [order] = memory.orders()
    assert order == ForgetOutcomes(order.stream, ((0, 11), (15, 16)))
    assert memory.admit(source(b"later"), 1, numbered(12), numbered(15)) == [(2, 2)]
    assert len(memory.handled) == 2


def test_what_another_sender_says_changes_nothing() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    memory.handled.on_known(NodeId(bytes(16)), JOURNAL, 99, ())
    memory.handled.on_known(ADA, b"another journal.", 99, ())
    assert len(memory.handled) == 1


def test_another_journal_begins_anew() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    memory.orders()
    memory.written()
    other = source(b"later", b"another journal.")
    assert memory.admit(other, 1, numbered(10)) == [(1, 1)]
    assert [type(order) for order in memory.orders()] == [DropStream]


def test_of_a_journal_that_is_gone_nothing_is_kept_any_more() -> None:
    # It would come back to life on disk, and another life might take it for the sender's own.
    memory = Memory()
    memory.admit(source(), 1, numbered(5))
    other = source(b"session-2", b"journal-2-------")
    memory.admit(other, 1, numbered(7))
    memory.orders()
    assert memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    assert memory.orders() == []
    assert memory.told == [(source(), (1, 1, Outcome.ACCEPTED))]


@pytest.mark.parametrize("numbers", [(0, 1), (POSITION_MAX + 1,)], ids=["zero", "too large"])
def test_numbers_that_no_journal_gives_are_refused(numbers: tuple[int, ...]) -> None:
    memory = Memory()
    assert memory.admit(source(), 1, *map(numbered, numbers)) == []
    assert memory.told == [(source(), (1, len(numbers), Outcome.REJECTED))]


def test_what_a_peer_claims_to_have_forgotten_is_within_what_there_can_be() -> None:
    memory = Memory()
    memory.admit(source(), 1, numbered(10))
    memory.settle(source(), 1, 1, Outcome.ACCEPTED)
    memory.orders()
    memory.handled.on_known(ADA, JOURNAL, 1 << 62, ((-5, 3), (9, 4), (1 << 60, 1 << 61)))
    [order] = memory.orders()
    assert order.ranges == ((0, POSITION_MAX), (0, 3))


def test_strangers_cannot_fill_it_with_names() -> None:
    memory = Memory(stored=False)
    for number in range(ORIGINS_MAX):
        node = NodeId(number.to_bytes(16))
        memory.handled.admit(Source(node, b"s", 4, JOURNAL), 1, 1, [numbered(1)])
    assert memory.told == []
    assert memory.admit(source(), 1, numbered(1)) == []
    assert memory.told == [(source(), (1, 1, Outcome.RELEASED))]


def test_what_an_earlier_life_accepted_elsewhere_is_known() -> None:
    memory = Memory()
    memory.handled.remember(ADA, JOURNAL, ((3, 4),))
    assert memory.admit(source(), 1, numbered(4), numbered(5)) == [(2, 2)]


def test_the_outcome_of_what_its_sender_forgot_meanwhile_is_not_kept() -> None:
    memory, where = Memory(), source()
    memory.admit(where, 1, numbered(7), numbered(8))
    memory.handled.on_known(ADA, JOURNAL, 8, ())
    memory.settle(where, 1, 2, Outcome.ACCEPTED)
    orders = memory.orders()
    [kept] = [order for order in orders if isinstance(order, StoreOutcomes)]
    assert kept.outcomes == (StoredOutcome(8, 8, Outcome.ACCEPTED),)
    assert len(memory.handled) == 1
