"""The orders to a journal: what room they take, and what is kept beside a dead letter."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.message import Record
from zmesh.storage import (
    BLOCK_BYTES,
    BLOCK_RECORDS_MAX,
    ROW_OVERHEAD_BYTES,
    RUN_OVERHEAD_BYTES,
    Batch,
    Burial,
    Entry,
    EntryKind,
    FailedAttempt,
    Forget,
    Row,
    SetEntries,
    Store,
    StoreRun,
    Stream,
    StreamKind,
)

OUT = Stream(StreamKind.LANE_OUT, b"session", 4)


def test_batch_takes_room_for_rows_and_entries_and_none_for_what_it_forgets() -> None:
    rows = [Row(1, (0, "to", b"12345")), Row(2, (0, "to", memoryview(b"123")))]
    entry = Entry(EntryKind.SHARED, "map", b"key", b"value")
    assert Batch(1, (Store(OUT, rows),)).size == 7 + 5 + 2 * ROW_OVERHEAD_BYTES
    assert Batch(1, (SetEntries((entry,)),)).size == 2 * 3 + 5 + ROW_OVERHEAD_BYTES
    assert Batch(1, (Forget(OUT, ((1, 2),)),)).size == 0


def test_run_takes_room_for_its_records_and_its_blocks() -> None:
    records: list[Record] = [(0, "to", b"12345"), (0, "to", memoryview(b"123"))] * 100
    size = 100 * (7 + 5) + 200 * RUN_OVERHEAD_BYTES + 2 * ROW_OVERHEAD_BYTES
    assert Batch(1, (StoreRun(OUT, 1, records), Forget(OUT, ((1, 2),)))).size == size


@pytest.mark.parametrize(
    ("count", "size", "counts"),
    [
        (1, 10, [1]),
        (BLOCK_RECORDS_MAX, 10, [BLOCK_RECORDS_MAX]),
        (BLOCK_RECORDS_MAX + 1, 10, [BLOCK_RECORDS_MAX, 1]),
        (9, BLOCK_BYTES // 4, [3, 3, 3]),
        (3, 2 * BLOCK_BYTES, [1, 1, 1]),
    ],
)
def test_records_share_blocks_as_far_as_their_bounds_go(
    count: int, size: int, counts: list[int]
) -> None:
    run = StoreRun(OUT, 7, [(0, "", bytes(size))] * count)
    blocks = run.blocks()
    assert [len(records) for _, records in blocks] == counts
    assert [first for first, _ in blocks] == [7 + sum(counts[:at]) for at in range(len(counts))]


@given(
    st.text(), st.text(), st.lists(st.tuples(st.integers(0, 1 << 60), st.text())).map(tuple)
)  # fmt: skip
def test_burial_comes_back_from_its_note(
    destination: str, reason: str, history: tuple[tuple[int, str], ...]
) -> None:
    burial = Burial(destination, reason, history)
    assert Burial.of(burial.as_note()) == burial


def test_burial_tells_where_a_letter_is_to_go_back_to() -> None:
    history = (FailedAttempt(1, "once"), FailedAttempt(2, "twice"))
    burial = Burial("b", "twice", history, 5, 2, b"peer", OUT, (4, "key", (1, (2,))))
    assert Burial.of(burial.as_note()) == burial


def test_burial_is_read_as_it_was_noted_at_first() -> None:
    burial = Burial.of(("b", "twice", (1, "once"), (2, "twice")))
    assert burial == Burial("b", "twice", ((1, "once"), (2, "twice")), attempts=2)


@pytest.mark.parametrize(
    "note",
    [
        (), ("a",), (1, "b"), ("a", "b", ("c", 1)), ("a", "b", 3), ("a", "b", 2),
        ("a", "b", 2, 1, 1, b"", (1, 2), ()), ("a", "b", 2, 1, 1, b"", (), (), 3),
        ("a", "b", 2, 1, 1, b"", (99, b"", 0), ()),
    ],
)  # fmt: skip
def test_other_notes_are_no_burials(note: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="dead letter"):
        Burial.of(note)  # type: ignore[arg-type]
