"""Commands and questions, on a database in memory beside a simple model of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal.support import IN, NODE, OUT, row, store
from zmesh.ids import JournalId
from zmesh.journal import coding
from zmesh.journal.coding import Unsound
from zmesh.journal.schema import migrate
from zmesh.journal.store import JournalStore
from zmesh.message import Outcome
from zmesh.storage import (
    DEAD_LETTERS,
    Burial,
    Command,
    CountAttempts,
    DropOldest,
    DropStream,
    Entry,
    EntryKind,
    Forget,
    ForgetOutcomes,
    Identity,
    Move,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    RemoveEntries,
    Row,
    SetEntries,
    SetWatermark,
    Store,
    StoredOutcome,
    StoreOutcomes,
)

IDENTITY = Identity(NODE, b"", JournalId(b"j" * 16), 1)


def fresh() -> JournalStore:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.text_factory = bytes
    migrate(database, "path")
    made = JournalStore(database, IDENTITY)
    made.begin()
    made.set_identity(IDENTITY)
    made.commit()
    return made


@pytest.fixture
def kept() -> Iterator[JournalStore]:
    made = fresh()
    with closing(made.database):
        yield made


def do(kept: JournalStore, *commands: Command) -> list[object]:
    kept.begin()
    dropped = [each for command in commands for each in kept.apply(command)]
    kept.commit()
    return list(dropped)


def positions(kept: JournalStore, question: ReadRows) -> list[int]:
    return [stored.row.position for stored in kept.read_rows(question).rows]


def test_rows_are_read_in_order_and_in_pages(kept: JournalStore) -> None:
    do(kept, store(1, 5), store(1, 3, IN), store(8, 9))
    answer = kept.read_rows(ReadRows(OUT, count_max=4))
    assert [stored.row for stored in answer.rows] == [row(each) for each in (1, 2, 3, 4)]
    assert not answer.is_end
    answer = kept.read_rows(ReadRows(OUT, after=4))
    assert [stored.row.position for stored in answer.rows] == [5, 8, 9]
    assert answer.is_end
    assert positions(kept, ReadRows(OUT, bytes_max=200)) == [1, 2]
    assert positions(kept, ReadRows(OUT, bytes_max=1)) == [1]
    assert positions(kept, ReadRows(DEAD_LETTERS)) == []


def test_attempts_are_told_with_the_rows_and_go_with_them(kept: JournalStore) -> None:
    do(kept, store(1, 9, IN), CountAttempts(IN, ((2, 7),), 1), CountAttempts(IN, ((4, 5),), 2))
    rows = kept.read_rows(ReadRows(IN)).rows
    assert [stored.attempts for stored in rows] == [0, 1, 1, 2, 2, 1, 1, 0, 0]
    do(kept, Forget(IN, ((3, 4), (7, 7))), store(7, 7, IN))
    rows = kept.read_rows(ReadRows(IN, after=1)).rows
    assert [(stored.row.position, stored.attempts) for stored in rows] == [
        (2, 1), (5, 2), (6, 1), (7, 0), (8, 0), (9, 0),
    ]  # fmt: skip


def test_numbers_are_not_given_twice_though_all_rows_are_gone(kept: JournalStore) -> None:
    do(kept, store(1, 5))
    do(kept, Forget(OUT, ((1, 5),)))
    do(kept, SetWatermark(IN, 7, ((9, 9),)), DropOldest(DEAD_LETTERS, 100))
    again = JournalStore.load(kept.database)
    by_stream = {state.stream: state for state in again.states()}
    assert by_stream[OUT].next_position == 6
    assert by_stream[OUT].rows == 0
    assert by_stream[IN].received_cum == 7
    assert by_stream[IN].received_ranges == ((9, 9),)
    assert DEAD_LETTERS not in by_stream


def test_rows_move_with_or_without_a_note_and_in_order(kept: JournalStore) -> None:
    burial = Burial("queue", "why", ((5, "once"),))
    do(kept, store(1, 600, IN), CountAttempts(IN, ((1, 600),), 3))
    do(kept, Move(IN, ((2, 2), (10, 600)), DEAD_LETTERS, 1, burial.as_note()))
    dead = kept.read_rows(ReadRows(DEAD_LETTERS, count_max=1000)).rows
    assert [stored.row.position for stored in dead] == list(range(1, 593))
    assert [stored.row.order for stored in dead] == [2, *range(10, 601)]
    assert {Burial.of(stored.row.note) for stored in dead} == {burial}
    assert {stored.attempts for stored in dead} == {0}
    assert positions(kept, ReadRows(IN)) == [1, *range(3, 10)]
    do(kept, Move(DEAD_LETTERS, ((1, 1),), OUT, 40))
    (moved,) = kept.read_rows(ReadRows(OUT)).rows
    assert moved.row == row(2)._replace(position=40, note=burial.as_note())


def test_outcomes_are_kept_until_the_sender_knows(kept: JournalStore) -> None:
    outcomes = (
        StoredOutcome(1, 10, Outcome.ACCEPTED),
        StoredOutcome(11, 11, Outcome.REJECTED, "why"),
        StoredOutcome(12, 20, Outcome.RELEASED, "", 500),
    )
    do(kept, StoreOutcomes(IN, outcomes))
    assert kept.read_outcomes(ReadOutcomes(IN)).outcomes == list(outcomes)
    do(kept, ForgetOutcomes(IN, ((1, 5), (11, 12))))
    left = [StoredOutcome(6, 10, Outcome.ACCEPTED), outcomes[2]._replace(first=13)]
    assert kept.read_outcomes(ReadOutcomes(IN)).outcomes == left
    page = kept.read_outcomes(ReadOutcomes(IN, count_max=1))
    assert (page.outcomes, page.is_end) == (left[:1], False)
    page = kept.read_outcomes(ReadOutcomes(IN, after=10, count_max=1))
    assert (page.outcomes, page.is_end) == (left[1:], True)


def test_entries_are_read_in_order_and_in_pages(kept: JournalStore) -> None:
    def entry(name: str, key: bytes, value: bytes = b"") -> Entry:
        return Entry(EntryKind.RETAINED, name, key, value)

    entries = (entry("", b""), entry("a", b"1"), entry("a", b"2"), entry("b", b"1"))
    do(kept, SetEntries((*reversed(entries), Entry(EntryKind.SHARED, "a", b"3", b""))))
    answer = kept.read_entries(ReadEntries(EntryKind.RETAINED))
    assert (answer.entries, answer.is_end) == (list(entries), True)
    answer = kept.read_entries(ReadEntries(EntryKind.RETAINED, ("a", b"1"), count_max=1))
    assert (answer.entries, answer.is_end) == ([entries[2]], False)
    do(kept, SetEntries((entry("a", b"1", b"new"),)), RemoveEntries(EntryKind.RETAINED, "b"))
    do(kept, RemoveEntries(EntryKind.RETAINED, "a", b"2"))
    answer = kept.read_entries(ReadEntries(EntryKind.RETAINED))
    assert answer.entries == [entries[0], entry("a", b"1", b"new")]


def test_dropping_the_oldest_tells_which(kept: JournalStore) -> None:
    do(kept, store(1, 3), store(10, 20))
    assert do(kept, DropOldest(OUT, 800)) == [(OUT, 1, 3), (OUT, 10, 11)]
    assert positions(kept, ReadRows(OUT)) == list(range(12, 21))
    kept.states()


def test_dropped_stream_leaves_nothing_and_its_number_is_free(kept: JournalStore) -> None:
    do(kept, store(1, 9, IN), CountAttempts(IN, ((1, 2),), 1), SetWatermark(IN, 9))
    do(kept, StoreOutcomes(IN, (StoredOutcome(1, 1, Outcome.ACCEPTED),)), store(1, 1))
    do(kept, DropStream(IN), DropStream(DEAD_LETTERS))
    assert [state.stream for state in kept.states()] == [OUT]
    do(kept, store(1, 1, IN))
    assert kept.read_rows(ReadRows(IN)).rows[0].attempts == 0
    assert kept.read_outcomes(ReadOutcomes(IN)).outcomes == []


def test_what_is_rolled_back_has_not_been(kept: JournalStore) -> None:
    do(kept, store(1, 5), SetEntries((Entry(EntryKind.SHARED, "m", b"k", b"v"),)))
    before = kept.database.serialize(), kept.totals.value(), kept.lanes.copy()
    kept.begin()
    for command in (
        store(6, 9), store(1, 2, IN), Forget(OUT, ((1, 3),)), SetWatermark(IN, 2),
        RemoveEntries(EntryKind.SHARED, "m"), DropStream(OUT),
    ):  # fmt: skip
        kept.apply(command)
    kept.roll_back()
    assert (kept.database.serialize(), kept.totals.value(), kept.lanes) == before
    do(kept, store(6, 9))
    assert positions(kept, ReadRows(OUT)) == list(range(1, 10))
    JournalStore.load(kept.database).states()


def test_place_that_is_taken_is_an_error(kept: JournalStore) -> None:
    do(kept, store(1, 5))
    kept.begin()
    with pytest.raises(ValueError, match="position 5 is taken"):
        kept.apply(Store(OUT, [row(5)]))
    kept.roll_back()


def test_damaged_row_is_seen_before_anybody_gets_it(kept: JournalStore) -> None:
    do(kept, store(1, 5), CountAttempts(OUT, ((1, 1),), 1))
    place = coding.bounds_of(16)[0] | 3
    kept.database.execute("UPDATE messages SET ordinal = 7 WHERE place = ?", (place,))
    assert positions(kept, ReadRows(OUT, count_max=2)) == [1, 2]
    with pytest.raises(Unsound):
        kept.read_rows(ReadRows(OUT))
    kept.database.execute("DELETE FROM messages WHERE place = ?", (place,))
    with pytest.raises(Unsound, match="4 messages are there, of 5"):
        kept.states()
    kept.database.execute("UPDATE attempts SET last = last + 1")
    with pytest.raises(Unsound, match="attempts"):
        kept.read_rows(ReadRows(OUT, count_max=1))


def test_numbers_of_streams_are_taken_again_when_they_run_out(
    kept: JournalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.journal.store.STREAMS_MAX", 18)
    streams = [OUT._replace(lane=lane) for lane in range(4)]
    do(kept, *(store(1, 1, stream) for stream in streams[:3]))
    do(kept, DropStream(streams[1]), store(1, 2, streams[3]))
    assert kept.lanes[streams[3]].number == 17
    assert positions(kept, ReadRows(streams[3])) == [1, 2]


@given(st.lists(st.tuples(st.sampled_from("sfmoc"), st.integers(1, 30), st.integers(0, 9))))
@settings(max_examples=60)
def test_store_that_is_loaded_again_is_the_same(work: list[tuple[str, int, int]]) -> None:
    kept = fresh()
    with closing(kept.database):
        for what, first, more in work:
            last = first + more
            there = set(positions(kept, ReadRows(OUT)))
            rows = [row(each) for each in range(first, last + 1) if each not in there]
            commands: dict[str, Command] = {
                "s": Store(OUT, rows),
                "f": Forget(OUT, ((first, last),)),
                "m": SetWatermark(IN, first),
                "o": DropOldest(OUT, 100 * more),
                "c": CountAttempts(OUT, ((first, last),), more),
            }
            if IN in kept.lanes and what == "m":
                do(kept, Move(OUT, ((first, last),), IN, kept.lanes[IN].following))
                continue
            do(kept, commands[what])
        again = JournalStore.load(kept.database)
        assert again.lanes == kept.lanes
        assert again.states() == kept.states()
        assert again.totals.value() == kept.totals.value()


def test_identity_does_not_tell_its_seed() -> None:
    assert "secret" not in repr(Identity(NODE, b"secret", JournalId(b"j"), 1))
    assert Row(1, (0, "", b"")).note == ()
