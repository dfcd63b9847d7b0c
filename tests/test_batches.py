"""Parting batches of records."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.batches import runs
from zmesh.message import Kind, Record, head


def records(count: int) -> list[Record]:
    return [(head(Kind.DIRECT), "", str(number).encode()) for number in range(count)]


def test_runs_end_where_the_label_changes() -> None:
    batch = records(5)
    assert list(runs(10, 14, batch, "aabba")) == [
        ("a", 10, 11, batch[:2]), ("b", 12, 13, batch[2:4]), ("a", 14, 14, batch[4:]),
    ]  # fmt: skip


def test_a_record_with_several_numbers_keeps_them_all() -> None:
    batch = records(1)
    assert list(runs(10, 14, batch, [True])) == [(True, 10, 14, batch)]


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(1, 100))
def test_runs_cover_the_batch_without_overlap(labels: list[int], first: int) -> None:
    batch = records(len(labels))
    at = first
    joined: list[Record] = []
    before: int | None = None
    for label, low, high, run in runs(first, first + len(batch) - 1, batch, labels):
        assert low == at
        assert high - low + 1 == len(run)
        assert label != before
        joined += run
        at, before = high + 1, label
    assert joined == batch
