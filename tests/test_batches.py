"""Parting batches of records."""

from hypothesis import given
from hypothesis import strategies as st

from zmesh.batches import Block, TicketRun, are_bare, blocks, largest_of, runs
from zmesh.message import Kind, Record, Tag, Ticket, head, sizes_of, with_extra


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


# Blocks

anything = st.lists(
    st.tuples(
        st.integers(0, 20), st.sampled_from(["", "a", "topic"]), st.booleans()
    ),
    min_size=1,
    max_size=30,
)  # fmt: skip


def made_of(parts: list[tuple[int, str, bool]]) -> list[Record]:
    made: list[Record] = []
    for size, target, has_key in parts:
        record: Record = (head(Kind.PUBLICATION), target, bytes(size))
        made.append(with_extra(record, Tag.KEY, "some key") if has_key else record)
    return made


@given(anything, st.data())
def test_a_block_knows_of_its_records_what_they_would_tell(
    parts: list[tuple[int, str, bool]], data: st.DataObject
) -> None:
    batch = made_of(parts)
    block, sizes = Block(batch), sizes_of(batch)
    assert block == tuple(batch)
    start = data.draw(st.integers(0, len(batch) - 1))
    stop = data.draw(st.integers(start, len(batch)))
    assert block.size == sum(sizes)
    assert block.size_of(start, stop) == sum(sizes[start:stop])
    assert block.sizes(start) == sizes[start:]
    assert block.ends(start)[-1] == sum(sizes[start:])
    assert block.targets == {record[1] for record in batch}
    assert block.heads == {record[0] for record in batch}
    assert are_bare(block) is are_bare(batch)
    assert largest_of(block) == largest_of(batch) == max(len(record[2]) for record in batch)


@given(anything, st.integers(1, 10), st.integers(1, 200))
def test_records_are_parted_into_blocks_that_are_as_large_as_may_be(
    parts: list[tuple[int, str, bool]], count_max: int, bytes_max: int
) -> None:
    batch = made_of(parts)
    found = list(blocks(batch, count_max, bytes_max))
    assert [record for block in found for record in block] == batch
    for block, following in zip(found, [*found[1:], None], strict=True):
        assert len(block) <= count_max
        assert len(block) == 1 or block.size <= bytes_max
        if following is not None:
            is_full = len(block) == count_max or block.size + following.sizes(0)[0] > bytes_max
            assert is_full


# Tickets counted together


def run_of(count: int, *carriers: str) -> tuple[TicketRun, list[Ticket]]:
    tickets = [Ticket(len(carriers)) for _ in range(count)]
    run = TicketRun(tickets)
    for carrier in carriers:
        run.join(carrier)
    return run, tickets


def test_a_ticket_is_done_when_the_last_carrier_has_come_so_far() -> None:
    run, tickets = run_of(4, "b", "c")
    assert run.on_accepted("b", 0, 2) == ()
    assert list(run.on_accepted("c", 0, 0)) == tickets[:1]
    assert list(run.on_accepted("c", 1, 3)) == tickets[1:3]
    assert [ticket.done for ticket in tickets] == [True, True, True, False]
    assert list(run.on_accepted("b", 3, 3)) == tickets[3:]
    assert [ticket.accepted for ticket in tickets] == [2, 2, 2, 2]


def test_tickets_count_for_themselves_from_what_comes_out_of_order() -> None:
    run, tickets = run_of(3, "b", "c")
    run.on_accepted("b", 0, 1)
    assert list(run.on_accepted("c", 2, 2)) == tickets[2:]
    assert [ticket.accepted for ticket in tickets] == [1, 1, 1]
    assert list(run.on_accepted("c", 0, 1)) == tickets[:2]
    assert list(run.on_accepted("b", 2, 2)) == tickets[2:]
    assert [ticket.accepted for ticket in tickets] == [2, 2, 2]


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(1, 6)), max_size=12),
)
def test_however_a_run_is_accepted_every_ticket_gets_all_of_it_once(
    count: int, steps: list[tuple[int, int, int]]
) -> None:
    carriers = ("b", "c", "d")
    run, tickets = run_of(count, *carriers)
    done: list[Ticket] = []
    open_ = {carrier: list(range(count)) for carrier in carriers}
    rest = [(number, 0, 1) for number in range(len(carriers)) for _ in range(count)]
    for number, at, most in (*steps, *rest):
        left = open_[carriers[number]]
        some = left[at : at + most]
        some = [each for each in some if each - some[0] == some.index(each)]
        if some:
            rose = run.on_accepted(carriers[number], some[0], some[-1])
            done += [ticket for ticket in rose if ticket.done]
            del left[at : at + len(some)]
    assert all(ticket.accepted == len(carriers) for ticket in tickets)
    assert sorted(map(id, done)) == sorted(map(id, tickets))
