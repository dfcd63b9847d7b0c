"""Rows to columns and back; whatever changed is seen."""

import sqlite3
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgpack import packb

from zmesh.journal import coding
from zmesh.journal.coding import Columns, Table, Totals, Unsound
from zmesh.message import Outcome
from zmesh.storage import (
    POSITION_MAX,
    Entry,
    EntryKind,
    Row,
    StoredOutcome,
    StoreRun,
    Stream,
    StreamKind,
)

TIMES = st.integers(0, (1 << 62))
EXTRAS = st.sampled_from([(), ((2, "key"),), ((1, b"headers", 3, ((4, 7),)),)])
RECORDS = st.builds(
    lambda head, target, body, extras: (head, target, body, *extras),
    st.integers(0, 255), st.text(max_size=20), st.binary(max_size=100), EXTRAS,
)  # fmt: skip
NOTES = st.sampled_from([(), ("queue", "why", (1, "x")), (None, b"z")])
ROWS = st.builds(
    Row, st.integers(1, POSITION_MAX), RECORDS, TIMES, TIMES, TIMES, TIMES, NOTES
)  # fmt: skip
RUNS = st.builds(
    StoreRun, st.just(Stream(StreamKind.WAITING)), st.integers(1, POSITION_MAX - 99),
    st.lists(RECORDS, min_size=2, max_size=40), TIMES, TIMES, TIMES, TIMES, NOTES,
)  # fmt: skip


@given(ROWS, st.integers(16, 1000))
def test_row_comes_back_as_it_was(row: Row, number: int) -> None:
    (columns,) = coding.message_columns(number, [row])
    assert coding.row_of(columns) == row
    assert coding.bounds_of(number)[0] < columns[0] <= coding.bounds_of(number)[1]  # type: ignore[operator]


@given(RUNS, st.integers(16, 1000))
def test_run_comes_back_row_by_row(run: StoreRun, number: int) -> None:
    rows = [
        row
        for columns in coding.run_columns(number, run)
        for row in coding.block_of(columns).rows()
    ]
    assert [row.record for row in rows] == run.records
    assert [row.position - run.first for row in rows] == list(range(len(rows)))
    assert [row.order - run.order for row in rows] == list(range(len(rows)))
    common = {row[2:5] + row[6:] for row in rows}
    assert common == {(run.stored_ms, run.expires_ms, run.due_ms, run.note)}


@given(RUNS)
def test_sizes_of_records_are_those_they_have_alone(run: StoreRun) -> None:
    (columns,) = coding.run_columns(16, run)
    block = coding.block_of(columns)
    alone = [Row(at, record) for at, record in enumerate(run.records, run.first)]
    assert block.sizes() == [len(each[1]) for each in coding.message_columns(16, alone)]  # type: ignore[arg-type]
    assert coding.records_bytes(columns) == sum(block.sizes())


def test_run_of_one_is_a_row_as_others_are() -> None:
    run = StoreRun(Stream(StreamKind.WAITING), 5, [(0, "target", b"body")], 1, 2, 3, 4, ("note",))
    row = Row(5, (0, "target", b"body"), 1, 2, 3, 4, ("note",))
    assert coding.run_columns(16, run) == coding.message_columns(16, [row])


def test_part_of_a_block_keeps_places_and_orders() -> None:
    records = [(0, "", bytes([each])) for each in range(10)]
    (columns,) = coding.run_columns(16, StoreRun(Stream(StreamKind.WAITING), 5, records, order=70))
    base = coding.bounds_of(16)[0]
    rows = coding.block_of(columns).part(base | 7, base | 9).rows()
    assert [(row.position, row.order, row.record) for row in rows] == [
        (each, each + 65, (0, "", bytes([each - 5]))) for each in (7, 8, 9)
    ]


@given(RUNS, st.integers(0, 8), st.data())
def test_block_with_any_column_changed_is_seen(
    run: StoreRun, index: int, data: st.DataObject
) -> None:
    changed = list(coding.run_columns(16, run)[0])
    old = changed[index]
    changed[index] = data.draw(
        st.one_of(
            st.integers(-(1 << 63), (1 << 63) - 1), st.integers(0, 99), st.binary(max_size=50),
            st.none(),
        )
    )  # fmt: skip
    if changed[index] == old:
        return
    with pytest.raises(Unsound):
        coding.block_of(changed)


@pytest.mark.parametrize("first", [0, -1, POSITION_MAX])
def test_run_beyond_the_positions_there_are_is_refused(first: int) -> None:
    with pytest.raises(ValueError, match="positions"):
        coding.run_columns(16, StoreRun(Stream(StreamKind.WAITING), first, [(0, "", b"")] * 2))


@given(ROWS, st.integers(0, 8), st.data())
def test_row_with_any_column_changed_is_seen(row: Row, index: int, data: st.DataObject) -> None:
    (columns,) = coding.message_columns(16, [row])
    changed = list(columns)
    old = changed[index]
    changed[index] = data.draw(
        st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=50), st.none())
    )
    if changed[index] == old:
        return
    with pytest.raises(Unsound):
        coding.row_of(changed)


SOUND: list[tuple[Callable[[Columns], bool], Columns]] = [
    (coding.is_fact_sound, (17, b"value", coding.fact_checksum(17, b"value"))),
    (
        lambda columns: coding.is_mark_sound(Table.ATTEMPTS, columns),
        (5, 9, b"value", coding.mark_checksum(Table.ATTEMPTS, 5, 9, b"value")),
    ),
    (coding.is_entry_sound, coding.entry_columns(Entry(EntryKind.SHARED, "map", b"k", b"v"))),
]


@pytest.mark.parametrize(("is_sound", "columns"), SOUND)
def test_other_rows_with_any_column_changed_are_seen(
    is_sound: Callable[[Columns], bool], columns: Columns
) -> None:
    assert is_sound(columns)
    for index in range(len(columns)):
        for other in (0, -1, 1 << 62, b"", b"other", None):
            assert not is_sound([*columns[:index], other, *columns[index + 1 :]])


def test_row_of_one_table_is_no_row_of_another() -> None:
    mark = (5, 9, b"value", coding.mark_checksum(Table.ATTEMPTS, 5, 9, b"value"))
    assert not coding.is_mark_sound(Table.OUTCOMES, mark)


def test_key_and_value_do_not_run_into_each_other() -> None:
    one = coding.entry_columns(Entry(EntryKind.SHARED, "map", b"ke", b"y"))
    other = coding.entry_columns(Entry(EntryKind.SHARED, "map", b"k", b"ey"))
    assert one[4] != other[4]


@pytest.mark.parametrize("position", [0, -1, POSITION_MAX + 1])
def test_there_is_no_such_position(position: int) -> None:
    with pytest.raises(ValueError, match="position"):
        coding.message_columns(16, [Row(position, (0, "", b""))])


def test_small_values_come_back() -> None:
    stream = Stream(StreamKind.TOPIC, b"a.b", 0)
    assert coding.stream_of(16, coding.stream_value(16, stream, 8, 5, ((7, 9),))) == (
        stream, 8, 5, ((7, 9),),
    )  # fmt: skip
    outcome = StoredOutcome(3, 4, Outcome.REJECTED, "why", 50)
    assert coding.outcome_of(3, 4, coding.outcome_value(outcome)) == outcome
    totals = Totals()
    totals.commits, totals.size, totals.records = 7, 900, 60
    totals.add(Table.ENTRIES, 3, 1 << 40)
    again = Totals.of(totals.value())
    assert again.value() == totals.value()
    assert (again.counts[Table.ENTRIES], again.records) == (3, 60)


def test_totals_of_version_1_are_understood() -> None:
    told = Totals.of(packb((7, 900, 1, 2, 3, 4, 5, 10, 20, 30, 40, 50)))
    assert (told.commits, told.size, told.records) == (7, 900, 2)
    assert list(told.counts.values()) == [1, 2, 3, 4, 5, 0]
    assert list(told.sums.values()) == [10, 20, 30, 40, 50, 0]
    with pytest.raises(Unsound):
        Totals.of(packb((7, 900, 1, 2, 3)))


def test_sums_of_very_many_checksums_fit() -> None:
    totals = Totals()
    totals.add(Table.MESSAGES, 1 << 31, ((1 << 32) - 1) * ((1 << 31) - 1))
    assert Totals.of(totals.value()).sums[Table.MESSAGES] < 1 << 63
    sqlite3.connect(":memory:").execute("SELECT ?", (totals.sums[Table.MESSAGES],)).close()
