"""One direction of a stream: absolute limits, and parts that count against them."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.message import Kind, Record, head, size_of
from zmesh.patterns.stream_flow import Inflow, Outflow


def record(size: int) -> Record:
    return (head(Kind.STREAM), "", b"x" * size)


def as_it_is(record: Record) -> Record:
    return record


def test_nothing_is_written_without_credit() -> None:
    outflow = Outflow()
    assert outflow.room() == (0, 0)
    outflow.write(record(1))
    assert (outflow.leaving(as_it_is), outflow.waiting) == ([], 1)
    outflow.raise_limits(1, 100)
    assert (outflow.leaving(as_it_is), outflow.waiting) == ([record(1)], 0)
    assert outflow.room() == (0, 0)


def test_limits_never_fall() -> None:
    outflow = Outflow()
    outflow.raise_limits(5, 500)
    outflow.raise_limits(3, 900)
    assert outflow.room() == (5, 900)


def test_a_part_larger_than_what_is_left_may_go_once() -> None:
    outflow = Outflow()
    outflow.raise_limits(10, 50)
    outflow.write(record(4000))
    outflow.write(record(1))
    assert outflow.leaving(as_it_is) == [record(4000)]
    assert outflow.room() == (0, 0)
    outflow.raise_limits(10, 4016 + 50)
    assert outflow.leaving(as_it_is) == [record(1)]


def test_another_reader_grants_anew() -> None:
    outflow = Outflow()
    outflow.raise_limits(10, 500)
    outflow.restart()
    assert outflow.room() == (0, 0)


def test_part_beyond_the_credit_is_noticed() -> None:
    inflow = Inflow(2, 100)
    assert "beyond the credit" in inflow.take_in(1, 20)
    inflow.grant(0, 0)
    assert inflow.take_in(1, 20) == ""
    assert inflow.take_in(2, 500) == ""
    assert "beyond the credit" in inflow.take_in(3, 20)
    inflow.grant(1, 500)
    assert inflow.take_in(3, 20) == ""


def test_part_that_is_not_the_next_one_is_noticed() -> None:
    inflow = Inflow(9, 100)
    inflow.grant(0, 0)
    assert inflow.take_in(2, 1) == "part 2 came instead of 1"
    assert inflow.take_in(1, 1) == ""
    assert inflow.take_in(1, 1) == "part 1 came instead of 2"


@given(
    st.integers(1, 5), st.integers(1, 300),
    st.lists(st.integers(0, 400), min_size=1, max_size=30), st.data(),
)  # fmt: skip
def test_an_honest_writer_never_exceeds_what_is_granted(
    parts: int, size: int, bodies: list[int], data: st.DataObject
) -> None:
    inflow, outflow = Inflow(parts, size), Outflow()
    inflow.grant(0, 0)
    left = list(bodies)
    held: list[Record] = []  # at the reader, not taken
    came: list[int] = []
    while len(came) < len(bodies):
        outflow.raise_limits(inflow.parts_limit, inflow.bytes_limit)
        while left and outflow.room() != (0, 0):
            outflow.write(record(left.pop(0)))
            for part in outflow.leaving(as_it_is):
                assert inflow.take_in(outflow.parts, size_of(part)) == ""
                held.append(part)
                came.append(len(part[2]))
        assert len(held) <= parts
        assert sum(map(size_of, held)) < size + 416 + 1
        taken = data.draw(st.integers(1, len(held))) if held else 0
        inflow.grant(taken, sum(map(size_of, held[:taken])))
        del held[:taken]
    assert came == bodies
