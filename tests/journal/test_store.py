"""Commands and questions, on a database in memory beside a simple model of it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.journal.support import BOX, IN, KEY, NODE, OUT, row, row_of_run, run, store
from zmesh.ids import JournalId
from zmesh.journal import coding
from zmesh.journal.coding import Table, Unsound
from zmesh.journal.schema import migrate
from zmesh.journal.sealing import Seal, with_key
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
    StoreRun,
)

IDENTITY = Identity(NODE, b"", JournalId(b"j" * 16), 1)


def fresh(*, is_sealed: bool = False) -> JournalStore:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.text_factory = bytes
    migrate(database, "path")
    made = JournalStore(database, IDENTITY, seal=Seal.new("path", KEY) if is_sealed else None)
    made.begin()
    made.put_seal()
    made.set_identity(IDENTITY)
    made.commit()
    return made


def loaded(kept: JournalStore) -> JournalStore:
    """Return the store as another process would load it."""
    key = None if kept.seal is None else KEY
    return JournalStore.load(kept.database, with_key("path", key))


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def kept(request: pytest.FixtureRequest) -> Iterator[JournalStore]:
    made = fresh(is_sealed=request.param)
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
    again = loaded(kept)
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
    assert do(kept, DropOldest(OUT, 910)) == [(OUT, 1, 3), (OUT, 10, 11)]
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
    loaded(kept).states()


def test_run_is_read_row_by_row_from_wherever(kept: JournalStore) -> None:
    do(kept, run(1, 300), Forget(BOX, ((3, 5), (120, 140))))
    expected = [row_of_run(each) for each in range(1, 301) if not 3 <= each <= 5]
    expected = [each for each in expected if not 120 <= each.position <= 140]
    assert [each.row for each in kept.read_rows(ReadRows(BOX)).rows] == expected
    for after in (1, 4, 119, 125, 128, 129, 256, 299, 300):
        above = [each.position for each in expected if each.position > after]
        answer = kept.read_rows(ReadRows(BOX, after, count_max=7))
        assert [each.row.position for each in answer.rows] == above[:7]
        assert answer.is_end == (len(above) <= 7)


def test_bounds_of_an_answer_hold_within_a_block(kept: JournalStore) -> None:
    do(kept, run(1, 60, size=80))
    size = len(coding.message_columns(16, [row(1, 80)])[0][1])  # type: ignore[arg-type]
    assert positions(kept, ReadRows(BOX, bytes_max=1)) == [1]
    assert positions(kept, ReadRows(BOX, bytes_max=3 * size)) == [1, 2, 3]
    assert positions(kept, ReadRows(BOX, bytes_max=3 * size + 1)) == [1, 2, 3, 4]
    exact = kept.read_rows(ReadRows(BOX, count_max=60, bytes_max=60 * size))
    assert (len(exact.rows), exact.is_end) == (60, True)
    assert len(kept.read_rows(ReadRows(BOX, count_max=59)).rows) == 59


def test_attempts_are_those_of_single_rows_of_a_block(kept: JournalStore) -> None:
    do(kept, run(1, 10), CountAttempts(BOX, ((4, 5),), 2), Forget(BOX, ((5, 6),)))
    rows = kept.read_rows(ReadRows(BOX)).rows
    assert [(each.row.position, each.attempts) for each in rows] == [
        (1, 0), (2, 0), (3, 0), (4, 2), (7, 0), (8, 0), (9, 0), (10, 0),
    ]  # fmt: skip


def test_state_of_a_stream_is_that_of_the_rows_that_are_left(kept: JournalStore) -> None:
    do(kept, run(1, 300), store(1, 2))
    do(kept, Forget(BOX, ((1, 10), (100, 110), (290, 300))))
    rows = kept.read_rows(ReadRows(BOX)).rows
    sizes = [len(coding.message_columns(16, [each.row])[0][1]) + 2 for each in rows]  # type: ignore[arg-type]
    state = {each.stream: each for each in kept.states()}[BOX]
    assert (state.rows, state.first, state.last) == (len(rows), 11, 289)
    assert (state.size, state.next_position) == (sum(sizes), 301)  # a note has two bytes
    again = loaded(kept)
    assert again.states() == kept.states()


def test_rows_move_out_of_the_middle_of_blocks(kept: JournalStore) -> None:
    do(kept, run(1, 300), Forget(BOX, ((130, 140),)))
    do(kept, Move(BOX, ((120, 150), (300, 300)), DEAD_LETTERS, 7, ("why",)))
    dead = [each.row for each in kept.read_rows(ReadRows(DEAD_LETTERS)).rows]
    moved = [*range(120, 130), *range(141, 151), 300]
    assert dead == [
        row_of_run(old)._replace(position=new, note=("why",)) for new, old in enumerate(moved, 7)
    ]
    assert positions(kept, ReadRows(BOX)) == [*range(1, 120), *range(151, 300)]
    do(kept, Move(DEAD_LETTERS, ((8, 9),), BOX, 301))
    assert positions(kept, ReadRows(BOX, after=299)) == [301, 302]
    kept.states()


def test_run_that_would_cover_a_row_is_refused(kept: JournalStore) -> None:
    do(kept, store(5, 5, BOX), run(10, 20))
    for command in (
        run(1, 9), run(3, 5), run(20, 30), run(12, 13), store(15, 15, BOX), run(1, 40),
    ):  # fmt: skip
        kept.begin()
        with pytest.raises(ValueError, match="is taken"):
            kept.apply(command)
        kept.roll_back()
    do(kept, run(6, 9), run(1, 4), store(21, 21, BOX))
    assert positions(kept, ReadRows(BOX)) == list(range(1, 22))


def test_dropping_the_oldest_takes_blocks_whole(kept: JournalStore) -> None:
    do(kept, run(1, 300), Forget(BOX, ((5, 6),)))
    assert do(kept, DropOldest(BOX, 10)) == [(BOX, 1, 4), (BOX, 7, 128)]
    assert positions(kept, ReadRows(BOX)) == list(range(129, 301))
    kept.states()


def test_large_records_have_blocks_of_their_own(kept: JournalStore) -> None:
    do(kept, run(1, 5, size=20_000), run(6, 25, size=3000))
    spans = kept.database.execute("SELECT span FROM messages ORDER BY place").fetchall()
    assert spans == [(1,)] * 5 + [(10,), (10,)]


def test_what_is_gone_of_another_block_is_unsound(kept: JournalStore) -> None:
    do(kept, run(1, 100), Forget(BOX, ((5, 6),)))
    kept.states()
    kept.database.execute("UPDATE gone SET value = x'00000000'")
    with pytest.raises(Unsound, match="gone"):
        kept.states()


@pytest.mark.parametrize("checksum", [-1, 1 << 32])
def test_block_with_a_checksum_that_can_be_none_is_unsound(
    kept: JournalStore, checksum: int
) -> None:
    do(kept, run(1, 100), Forget(BOX, ((5, 6),)))
    kept.database.execute("UPDATE messages SET checksum = ?", (checksum,))
    with pytest.raises(Unsound):
        kept.states()


def test_dropped_stream_takes_what_was_gone_along(kept: JournalStore) -> None:
    do(kept, run(1, 100), Forget(BOX, ((5, 6),)), DropStream(BOX))
    assert kept.totals.counts[Table.GONE] == kept.totals.records == 0
    do(kept, run(1, 100))
    assert len(positions(kept, ReadRows(BOX))) == 100


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


@pytest.mark.parametrize("is_sealed", [False, True])
@given(work=st.lists(st.tuples(st.sampled_from("srfmoc"), st.integers(1, 30), st.integers(0, 9))))
@settings(max_examples=60)
def test_store_that_is_loaded_again_is_the_same(
    is_sealed: bool, work: list[tuple[str, int, int]]
) -> None:
    kept = fresh(is_sealed=is_sealed)
    with closing(kept.database):
        for what, first, more in work:
            last = first + more
            there = set(positions(kept, ReadRows(OUT)))
            rows = [row(each) for each in range(first, last + 1) if each not in there]
            commands: dict[str, Command] = {
                "s": Store(OUT, rows),
                "r": StoreRun(
                    OUT,
                    max(40, kept.lanes[OUT].following if OUT in kept.lanes else 0),
                    [each.record for each in rows] or [row(1).record],
                ),
                "f": Forget(OUT, ((first, last), (39 + first, 39 + last))),
                "m": SetWatermark(IN, first),
                "o": DropOldest(OUT, 100 * more),
                "c": CountAttempts(OUT, ((first, last),), more),
            }
            if IN in kept.lanes and what == "m":
                do(kept, Move(OUT, ((first, last),), IN, kept.lanes[IN].following))
                continue
            do(kept, commands[what])
        again = loaded(kept)
        assert again.lanes == kept.lanes
        assert again.states() == kept.states()
        assert again.totals.value() == kept.totals.value()


def test_identity_does_not_tell_its_seed() -> None:
    assert "secret" not in repr(Identity(NODE, b"secret", JournalId(b"j"), 1))
    assert Row(1, (0, "", b"")).note == ()
