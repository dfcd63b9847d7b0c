import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from zmesh.ids import JournalId, NodeId
from zmesh.message import Outcome
from zmesh.reliable.seen import PENDING, TICKS, MessageId, SeenStatistics, SeenTable

NODE, JOURNAL = NodeId(b"n" * 16), JournalId(b"j" * 16)
HORIZON_S = 3600.0


def message(counter: int) -> MessageId:
    return (NODE, JOURNAL, counter)


def table(capacity: int = 100) -> SeenTable:
    return SeenTable(capacity, HORIZON_S)


def handle(seen: SeenTable, counter: int, now: float, outcome: Outcome = Outcome.ACCEPTED) -> None:
    assert seen.begin(message(counter), now)
    seen.finish(message(counter), outcome, now)


def test_a_message_is_unknown_then_pending_then_has_its_outcome() -> None:
    seen = table()
    assert seen.check(message(1), 0.0) is None
    assert seen.begin(message(1), 0.0)
    assert seen.check(message(1), 1.0) is PENDING
    seen.finish(message(1), Outcome.REJECTED, 2.0)
    assert seen.check(message(1), 3.0) is Outcome.REJECTED
    assert seen.check(message(2), 3.0) is None


def test_same_counter_of_another_origin_or_journal_is_another_message() -> None:
    seen = table()
    handle(seen, 1, 0.0)
    assert seen.check((NodeId(b"o" * 16), JOURNAL, 1), 0.0) is None
    assert seen.check((NODE, JournalId(b"k" * 16), 1), 0.0) is None


def test_a_forgotten_message_may_come_again() -> None:
    seen = table()
    seen.begin(message(1), 0.0)
    seen.forget(message(1))
    assert seen.check(message(1), 0.0) is None
    handle(seen, 2, 0.0)
    seen.forget(message(2))
    assert seen.check(message(2), 0.0) is None
    seen.forget(message(3))
    assert seen.statistics == SeenStatistics(0, 0, 0, 0)


def test_a_message_that_is_begun_again_loses_its_outcome() -> None:
    seen = table()
    handle(seen, 1, 0.0, Outcome.MODIFIED)
    assert seen.begin(message(1), 1.0)
    assert seen.begin(message(1), 1.0)
    assert seen.check(message(1), 1.0) is PENDING
    assert seen.statistics == SeenStatistics(pending=1, finished=0, expired=0, displaced=0)
    seen.finish(message(1), Outcome.ACCEPTED, 2.0)
    assert seen.check(message(1), 2.0) is Outcome.ACCEPTED
    assert seen.statistics.finished == 1


def test_what_was_not_begun_cannot_be_finished() -> None:
    with pytest.raises(KeyError):
        table().finish(message(1), Outcome.ACCEPTED, 0.0)


def test_an_outcome_is_remembered_for_the_horizon() -> None:
    seen = table()
    handle(seen, 1, 10.0)
    assert seen.check(message(1), 9.0 + HORIZON_S) is Outcome.ACCEPTED
    later = 10.0 + HORIZON_S * (TICKS + 2) / TICKS
    assert seen.check(message(1), later) is None
    handle(seen, 2, later)
    assert seen.statistics == SeenStatistics(pending=0, finished=1, expired=1, displaced=0)


def test_each_outcome_has_its_own_age() -> None:
    seen = table()
    handle(seen, 1, 0.0)
    handle(seen, 2, 0.75 * HORIZON_S)
    assert seen.check(message(1), 1.5 * HORIZON_S) is None
    assert seen.check(message(2), 1.5 * HORIZON_S) is Outcome.ACCEPTED


def test_a_message_being_handled_is_never_too_old() -> None:
    seen = table()
    seen.begin(message(1), 0.0)
    assert seen.check(message(1), 100 * HORIZON_S) is PENDING


def test_a_full_table_forgets_the_oldest_outcome() -> None:
    seen = table(capacity=3)
    for counter in range(4):
        handle(seen, counter, 0.0)
    assert seen.check(message(0), 0.0) is None
    assert [seen.check(message(counter), 0.0) for counter in (1, 2, 3)] == [Outcome.ACCEPTED] * 3
    assert seen.statistics == SeenStatistics(pending=0, finished=3, expired=0, displaced=1)


def test_a_new_outcome_is_as_young_as_it_is() -> None:
    seen = table(capacity=3)
    handle(seen, 0, 0.0, Outcome.MODIFIED)
    handle(seen, 0, 0.0, Outcome.ACCEPTED)
    handle(seen, 1, 0.0)
    handle(seen, 2, 0.0)  # the place of the first outcome goes, not the second
    assert seen.check(message(0), 0.0) is Outcome.ACCEPTED
    assert seen.statistics == SeenStatistics(pending=0, finished=3, expired=0, displaced=0)


def test_a_table_full_of_messages_being_handled_takes_no_more() -> None:
    seen = table(capacity=2)
    handle(seen, 0, 0.0)
    assert seen.begin(message(1), 0.0)
    assert seen.begin(message(2), 0.0)
    assert not seen.begin(message(3), 0.0)
    assert seen.check(message(3), 0.0) is None
    seen.finish(message(1), Outcome.ACCEPTED, 0.0)
    assert seen.begin(message(3), 0.0)


def test_old_outcomes_leave_a_few_at_a_time() -> None:
    seen = table(capacity=1000)
    for counter in range(1000):
        handle(seen, counter, 0.0)
    handle(seen, 1000, 10 * HORIZON_S)
    assert 990 < seen.statistics.finished < 1000  # no pause for all of them at once
    for counter in range(1001, 1500):
        handle(seen, counter, 10 * HORIZON_S)
    assert seen.statistics == SeenStatistics(pending=0, finished=500, expired=1000, displaced=0)


class SeenTableRemembersTheRecent(RuleBasedStateMachine):
    """Outcomes are never wrong, nor forgotten before the capacity or the horizon asks for it."""

    CAPACITY = 8

    def __init__(self) -> None:
        super().__init__()
        self.seen = SeenTable(self.CAPACITY, HORIZON_S)
        self.now = 0.0
        self.pending: set[int] = set()
        self.finished: dict[int, tuple[Outcome, float, int]] = {}
        self.calls = 0

    counters = st.integers(0, 20)

    @rule(seconds=st.floats(0.0, HORIZON_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(counter=counters)
    def begin(self, counter: int) -> None:
        begun = self.seen.begin(message(counter), self.now)
        assert begun == (counter in self.pending or len(self.pending) < self.CAPACITY)
        self.finished.pop(counter, None)
        self.calls += 1
        if begun:
            self.pending.add(counter)

    @rule(counter=counters, outcome=st.sampled_from(Outcome))
    def finish(self, counter: int, outcome: Outcome) -> None:
        if counter in self.pending:
            self.pending.remove(counter)
            self.seen.finish(message(counter), outcome, self.now)
            self.calls += 1
            self.finished[counter] = (outcome, self.now, self.calls)

    @rule(counter=counters)
    def forget(self, counter: int) -> None:
        self.seen.forget(message(counter))
        self.pending.discard(counter)
        self.finished.pop(counter, None)

    @invariant()
    def nothing_is_wrong_or_missing(self) -> None:
        for counter in range(21):
            known = self.seen.check(message(counter), self.now)
            if counter in self.pending:
                assert known is PENDING
                continue
            outcome, at, calls = self.finished.get(counter, (None, 0.0, 0))
            assert known in (None, outcome)
            age, since = self.now - at, self.calls - calls
            if age > 1.001 * HORIZON_S:
                assert known is None
            elif age < 0.999 * HORIZON_S and since + len(self.pending) < self.CAPACITY / 2:
                assert known is outcome

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.seen._pending) + len(self.seen._order) <= self.CAPACITY
        assert len(self.seen._finished) <= len(self.seen._order)
        assert len(self.seen._order) == len(self.seen._stamps_in_order)
        assert len(self.seen._stamps) <= len(Outcome)


TestSeenTable = SeenTableRemembersTheRecent.TestCase


def test_many_are_noted_at_once_where_none_is_known() -> None:
    seen = table(6)
    assert seen.begin_all([message(1), message(2), message(3)], 0.0)
    assert seen.check(message(2), 0.0) is PENDING
    assert not seen.begin_all([message(4), message(3)], 0.0)
    assert seen.check(message(4), 0.0) is None
    seen.finish_all([message(1), message(2), message(3)], Outcome.REJECTED, 0.0)
    assert seen.check(message(3), 0.0) is Outcome.REJECTED
    assert not seen.begin_all([message(4), message(1)], 0.0)
    assert seen.statistics == SeenStatistics(0, 3, 0, 0)


def test_many_push_out_as_many_of_the_oldest_and_never_more_than_there_is_room_for() -> None:
    seen = table(6)
    for number in range(1, 7):
        seen.begin(message(number), 0.0)
        seen.finish(message(number), Outcome.ACCEPTED, 0.0)
    assert seen.begin_all([message(number) for number in (7, 8, 9, 10)], 1.0)
    assert [seen.check(message(number), 1.0) for number in (4, 5)] == [None, Outcome.ACCEPTED]
    assert seen.statistics == SeenStatistics(4, 2, 0, 4)
    assert not seen.begin_all([message(number) for number in (11, 12, 13)], 1.0)
