"""The tables, and that the totals are those of the rows whatever was done."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journal.support import row, run
from zmesh.journal import coding
from zmesh.journal.coding import Table, Totals
from zmesh.journal.schema import migrate
from zmesh.journal.tables import NAMES, Tables
from zmesh.storage import Entry, EntryKind


def fresh() -> Tables:
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.text_factory = bytes
    migrate(database, "path")
    return Tables(database, Totals())


@pytest.fixture
def tables() -> Iterator[Tables]:
    made = fresh()
    with closing(made.database):
        yield made


def assert_totals(tables: Tables) -> None:
    for table, name in NAMES.items():
        told = tables.totals.counts[table], tables.totals.sums[table]
        found = tables.database.execute(
            f"SELECT count(*), coalesce(sum(checksum), 0) FROM {name} WHERE ? != 'facts' "  # noqa: S608
            "OR rowid != 1",
            (name,),
        ).fetchone()
        assert told == found, name
    (size,) = tables.database.execute(
        "SELECT coalesce(sum(length(record) + length(note)), 0) FROM messages"
    ).fetchone()
    assert tables.totals.size == size
    there, gone = tables.database.execute(
        "SELECT (SELECT coalesce(sum(span), 0) FROM messages), "
        "(SELECT coalesce(sum(last - first + 1), 0) FROM gone)"
    ).fetchone()
    assert tables.totals.records == there - gone


PAINT = st.tuples(st.integers(1, 40), st.integers(0, 15), st.sampled_from([None, b"a", b"b"]))


@given(st.lists(PAINT, max_size=25))
def test_marks_are_what_each_place_was_last_given(
    paints: list[tuple[int, int, bytes | None]],
) -> None:
    tables = fresh()
    with closing(tables.database):
        expected: dict[int, bytes] = {}
        for low, more, value in paints:
            tables.mark(Table.OUTCOMES, low, low + more, value)
            for place in range(low, low + more + 1):
                expected.pop(place, None)
                if value is not None:
                    expected[place] = value
        found = tables.marks(Table.OUTCOMES, 0, 1000)
        assert {
            place: value for low, high, value, _ in found for place in range(low, high + 1)
        } == expected
        assert all(coding.is_mark_sound(Table.OUTCOMES, mark) for mark in found)
        overlapping = tables.marks(Table.OUTCOMES, 10, 20)
        assert overlapping == [mark for mark in found if mark[0] <= 20 and mark[1] >= 10]
        assert_totals(tables)


def test_messages_go_with_what_was_counted_of_them(tables: Tables) -> None:
    tables.insert_messages(coding.message_columns(16, [row(each) for each in range(1, 21)]))
    base = coding.bounds_of(16)[0]
    tables.mark(Table.ATTEMPTS, base | 5, base | 15, coding.attempts_value(2))
    tables.remove_messages(base | 3, base | 10)
    assert_totals(tables)
    assert [each[:2] for each in tables.marks(Table.ATTEMPTS, 0, base | 99)] == [
        (base | 11, base | 15)
    ]
    left = tables.messages(*coding.bounds_of(16), 100).fetchall()
    assert [each[0] & 0xFF for each in left] == [1, 2, *range(11, 21)]
    assert tables.last_place(*coding.bounds_of(16)) == base | 20
    assert tables.last_place(*coding.bounds_of(17)) == 0


def test_facts_and_entries_take_the_place_of_those_before(tables: Tables) -> None:
    for value in (b"one", b"two"):
        tables.put_fact(20, value)
        tables.put_entry(Entry(EntryKind.SHARED, "map", b"key", value))
        tables.put_entry(Entry(EntryKind.SHARED, "map", b"other", value))
    tables.put_fact(21, b"three")
    tables.put_totals()
    assert_totals(tables)
    found = tables.entries(EntryKind.SHARED, None, 10).fetchall()
    assert [coding.entry_of(each).value for each in found] == [b"two", b"two"]
    tables.remove_fact(20)
    tables.remove_entries(EntryKind.SHARED, b"map", b"other")
    tables.remove_entries(EntryKind.SHARED, b"map", b"unknown")
    assert_totals(tables)
    assert tables.totals.counts[Table.ENTRIES] == 1


def test_oldest_are_runs_of_places_that_take_so_much(tables: Tables) -> None:
    places = [*range(1, 6), *range(11, 2500)]
    tables.insert_messages(coding.message_columns(16, [row(each) for each in places]))
    low, high = coding.bounds_of(16)
    runs = [(first - low, last - low) for first, last in tables.oldest(low, high, 1)]
    assert runs == [(1, 1)]
    runs = [(first - low, last - low) for first, last in tables.oldest(low, high, 1200)]
    assert runs == [(1, 5), (11, 12)]
    runs = [(first - low, last - low) for first, last in tables.oldest(low, high, 1 << 30)]
    assert [each for first, last in runs for each in range(first, last + 1)] == places


def with_blocks(tables: Tables) -> int:
    """Store blocks from 1, 129 and 257 to 300, and a row at 301; return the first place."""
    tables.insert_messages(coding.run_columns(16, run(1, 300)))
    tables.insert_messages(coding.message_columns(16, [row(301)]))
    return coding.bounds_of(16)[0]


def left_of(tables: Tables) -> list[tuple[int, int]]:
    """Return the positions that are left, by blocks."""
    low, high = coding.bounds_of(16)
    return [
        (first - low, last - low)
        for columns in tables.messages(low, high, 100)
        for first, last in tables.left(columns[0], columns[8], low, high)
    ]


def marked(tables: Tables) -> list[tuple[int, int]]:
    low, high = coding.bounds_of(16)
    return [(first - low, last - low) for first, last, *_ in tables.marks(Table.GONE, low, high)]


def test_part_of_a_block_goes_alone_and_the_block_with_its_last(tables: Tables) -> None:
    base = with_blocks(tables)
    tables.remove_messages(base | 100, base | 140)
    assert left_of(tables) == [(1, 99), (141, 256), (257, 300), (301, 301)]
    assert tables.totals.counts[Table.MESSAGES] == 4  # their room is taken still
    assert_totals(tables)
    tables.remove_messages(base | 1, base | 99)
    assert left_of(tables) == [(141, 256), (257, 300), (301, 301)]
    assert tables.totals.counts[Table.MESSAGES] == 3
    assert_totals(tables)
    tables.remove_messages(base | 141, base | 400)
    assert left_of(tables) == marked(tables) == []
    assert_totals(tables)


def test_whole_blocks_leave_nothing_to_remember(tables: Tables) -> None:
    base = with_blocks(tables)
    tables.remove_messages(base | 129, base | 300)
    assert left_of(tables) == [(1, 128), (301, 301)]
    assert marked(tables) == []
    assert_totals(tables)


def test_what_goes_one_by_one_is_one_range(tables: Tables) -> None:
    base = with_blocks(tables)
    for position in (10, 12, 11, 14, 13, 12, 9):
        tables.remove_messages(base | position, base | position)
        assert_totals(tables)
    assert marked(tables) == [(9, 14)]


@given(st.lists(st.tuples(st.integers(1, 301), st.integers(0, 130)), max_size=12))
def test_what_is_left_is_what_no_removal_took(removals: list[tuple[int, int]]) -> None:
    tables = fresh()
    with closing(tables.database):
        base = with_blocks(tables)
        expected = set(range(1, 302))
        for low, more in removals:
            tables.remove_messages(base | low, base | low + more)
            expected -= set(range(low, low + more + 1))
            assert_totals(tables)
        left = [each for first, last in left_of(tables) for each in range(first, last + 1)]
        assert left == sorted(expected)


def test_place_in_a_block_is_not_free_be_it_gone(tables: Tables) -> None:
    base = with_blocks(tables)
    tables.remove_messages(base | 50, base | 60)
    for place in (1, 55, 128, 301):
        with pytest.raises(ValueError, match=f"position {place} is taken"):
            tables.check_free(base | place, base | place)
    with pytest.raises(ValueError, match="taken"):
        tables.check_free(base | 290, base | 400)
    tables.check_free(base | 302, base | 400)
    tables.remove_messages(base | 1, base | 128)
    tables.check_free(base | 1, base | 128)


def test_oldest_blocks_go_whole_and_what_is_gone_of_them_is_not_told(tables: Tables) -> None:
    base = with_blocks(tables)
    tables.remove_messages(base | 1, base | 3)
    tables.remove_messages(base | 50, base | 60)
    low, high = coding.bounds_of(16)
    runs = [(first - low, last - low) for first, last in tables.oldest(low, high, 1)]
    assert runs == [(4, 49), (61, 128)]
    runs = [(first - low, last - low) for first, last in tables.oldest(low, high, 20_000)]
    assert runs == [(4, 49), (61, 256)]
