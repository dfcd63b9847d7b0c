"""What was handled of a log is known, on disk where the subscription has a name."""

from typing import Any

import pytest

from zmesh.actions import SenderForgot
from zmesh.core.keeper import Keeper
from zmesh.core.positions import Positions
from zmesh.deadlines import Agenda
from zmesh.events import Source
from zmesh.ids import JournalId, NodeId
from zmesh.message import Kind, Outcome, Record, Tag, head
from zmesh.storage import (
    Entry,
    EntryKind,
    Identity,
    Opened,
    Refused,
    SetEntries,
    Written,
)
from zmesh.storage_errors import JournalFull

SHOP = NodeId(b"shop" * 4)
OPENED = Opened(Identity(NodeId(b"till" * 4), b"", JournalId(b"j" * 16), 1), (), True, None)
TOKEN = 7


class Till:
    """The positions of a node, its journal, and what publishers were told."""

    def __init__(self, name: str | None = "billing") -> None:
        self.keeper = Keeper(OPENED, Agenda())
        self.positions = Positions(self.keeper)
        self.positions.settle = self._settle
        self.told: list[tuple[int, Outcome]] = []
        self.seq = 0
        self.positions.follow(TOKEN, name, 1000)
        self.write()

    def _settle(self, _: Source, first: int, last: int, outcome: Outcome, *__: Any) -> None:
        self.told += [(seq, outcome) for seq in range(first, last + 1)]

    def write(self, error: JournalFull | None = None) -> list[Entry]:
        """Have the journal do what it was told; return the entries."""
        entries: list[Entry] = []
        for action in self.keeper.take_actions():
            if isinstance(action, SenderForgot):
                continue
            batch = action.batch  # type: ignore[union-attr]
            for command in batch.commands:
                if isinstance(command, SetEntries):
                    entries += command.entries
            ticket = (batch.ticket,)
            self.keeper.on_told(Written(ticket) if error is None else Refused(ticket, error))
        return entries

    def comes(self, *positions: int, session: bytes = b"s", journal: bytes = b"J") -> list[int]:
        """Have publications arrive; return the numbers of those that are handed over."""
        source = Source(SHOP, session, 4, journal)
        first = self.seq + 1
        self.seq += len(positions)
        records = [publication(position) for position in positions]
        admitted = self.positions.admit(source, first, self.seq, records)
        return [seq for low, high, _ in admitted for seq in range(low, high + 1)]

    def verdict(
        self, *seqs: int, outcome: Outcome = Outcome.ACCEPTED, session: bytes = b"s"
    ) -> None:
        source = Source(SHOP, session, 4, b"J")
        for seq in seqs:
            assert self.positions.on_settle(source, seq, seq, outcome, "", 0.0)

    @property
    def done(self) -> int:
        track = self.positions.find(SHOP, "billing")
        assert track is not None
        return track.done


def publication(position: int, follower: int | None = TOKEN) -> Record:
    extras: tuple[int, ...] = (int(Tag.POSITION), position)
    if follower is not None:
        extras += (int(Tag.FOLLOWER), follower)
    return (head(Kind.PUBLICATION), "t", b"", extras)


def test_nobody_is_told_before_the_position_is_on_disk() -> None:
    till = Till()
    assert till.comes(10, 12) == [1, 2]
    till.verdict(1)
    assert till.told == []
    [entry] = till.write()
    assert (entry.kind, entry.name, entry.key) == (EntryKind.SUBSCRIPTION, "billing", SHOP)
    assert till.told == [(1, Outcome.ACCEPTED)]


def test_the_position_is_below_what_has_no_outcome() -> None:
    till = Till()
    till.comes(10, 12, 15)
    till.verdict(3)
    assert till.done == 9
    till.verdict(1)
    assert till.done == 11
    till.verdict(2)
    assert till.done == 15


def test_what_was_given_back_holds_it_and_is_handed_over_again() -> None:
    till = Till()
    till.comes(10, 12)
    till.verdict(1, outcome=Outcome.MODIFIED)
    till.verdict(2)
    assert till.done == 9
    assert till.comes(10) == [3]
    till.verdict(3)
    assert till.done == 12


def test_what_does_not_come_again_holds_it_no_longer() -> None:
    till = Till()
    till.comes(10, 12)
    till.verdict(1, outcome=Outcome.MODIFIED)
    till.verdict(2)
    till.positions.given_up(Source(SHOP, b"s", 4, b"J"), TOKEN, 10)
    assert till.done == 12


def test_what_was_refused_unseen_holds_it_until_it_comes_again() -> None:
    till = Till()
    source = Source(SHOP, b"s", 4, b"J")
    till.positions.refused(source, [publication(10)])
    till.comes(12)
    till.verdict(1)
    assert till.done == 9
    till.comes(10)
    till.verdict(2)
    assert till.done == 12


@pytest.mark.parametrize("outcome", [Outcome.ACCEPTED, Outcome.REJECTED, Outcome.EXPIRED])
def test_a_copy_of_what_is_settled_is_not_handed_over(outcome: Outcome) -> None:
    till = Till()
    till.comes(10, 12)
    till.verdict(2, outcome=outcome)
    till.write()
    assert till.comes(10, 12, session=b"t") == []
    assert till.told[-1] == (4, Outcome.ACCEPTED)
    till.verdict(1)
    till.write()
    assert {seq for seq, _ in till.told} == {1, 2, 3, 4}, "the other copy has the first's outcome"


def test_what_a_publisher_passed_counts_as_handled() -> None:
    till = Till()
    source = Source(SHOP, b"s", 4, b"J")
    till.positions.passed(source, TOKEN, 50)
    assert till.done == 50
    assert len(till.write()) == 1
    till.comes(60)
    till.positions.passed(source, TOKEN, 70)
    assert till.done == 59


def test_the_next_life_knows_what_this_one_wrote() -> None:
    till = Till()
    till.comes(10, 12, 15)
    till.verdict(1)
    till.verdict(3)
    entry = till.write()[-1]
    next_till = Till()
    next_till.positions.on_entry(entry)
    assert next_till.comes(10, 12, 15) == [2]


def test_in_another_journal_positions_begin_anew() -> None:
    till = Till()
    till.comes(10)
    till.verdict(1)
    assert till.comes(10, journal=b"K") == [2]


def test_a_full_disk_delays_the_outcome() -> None:
    till = Till()
    till.comes(10)
    till.verdict(1)
    till.write(JournalFull("till.journal", 1, 1))
    assert till.told == []
    assert till.positions.owing
    till.positions.save_owing()
    till.write()
    assert till.told == [(1, Outcome.ACCEPTED)]


def test_without_a_name_nothing_is_written() -> None:
    till = Till(None)
    till.comes(10)
    till.verdict(1)
    assert till.told == [(1, Outcome.ACCEPTED)]
    assert till.write() == []
    assert till.comes(10, session=b"t") == []
    till.positions.unfollow(TOKEN)
    assert till.positions.find(SHOP, TOKEN) is None


def test_what_others_had_is_told_for_each_lane() -> None:
    till = Till()
    for lane, position in ((4, 10), (9, 12)):
        source = Source(SHOP, b"s", lane, b"J")
        list(till.positions.admit(source, 1, 1, [publication(position, None)]))
        till.positions.on_settle(source, 1, 1, Outcome.ACCEPTED, "", 0.0)
    assert till.positions.lanes(SHOP, b"J") == [(4, 10), (9, 12)]
    assert till.positions.lanes(SHOP, b"K") == []


@pytest.mark.parametrize("is_refused", [False, True], ids=["taken", "refused"])
def test_a_lane_begins_before_the_first_that_came_on_it(*, is_refused: bool) -> None:
    till = Till()
    source = Source(SHOP, b"s", 9, b"J")
    record = publication(12, None)
    if is_refused:
        till.positions.refused(source, [record])
    else:
        assert list(till.positions.admit(source, 1, 1, [record]))
    assert till.positions.lanes(SHOP, b"J") == [(9, 11)]
    assert list(till.positions.admit(source, 2, 2, [publication(13, None)]))
    assert till.positions.lanes(SHOP, b"J") == [(9, 11)]
