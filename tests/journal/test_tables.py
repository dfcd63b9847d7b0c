"""The tables, and that the totals are those of the rows whatever was done."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.journal.support import row
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
