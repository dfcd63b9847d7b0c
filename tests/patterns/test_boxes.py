"""Boxes of stored messages: who gets what is in one, and in which order."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.engines import Host, World
from zmesh.message import Kind, Record, Tag, Ticket, head, size_of
from zmesh.patterns.boxes import WINDOW_BYTES, WINDOW_RECORDS, Box
from zmesh.storage import Row, StoredRow, StoreRun
from zmesh.storage_errors import JournalFull
from zmesh.testing.journal import Disk

HEAD = head(Kind.DIRECT)


def store(host: Host, *texts: str) -> Ticket:
    """Post durable messages to whoever is called `b`."""
    return host.post("b", *texts, durable=True, wall_ms=host.world.wall_ms)


def two() -> tuple[World, Host, Host]:
    """Return a sender with a disk, and the first bearer of the name."""
    world = World()
    sender = world.host("a", disk=Disk())
    first = world.host("first", known_as="b")
    world.introduce(sender, first)
    world.run(2.0)
    return world, sender, first


def test_the_next_bearer_of_a_name_gets_nothing_before_what_the_last_one_had() -> None:
    world, sender, first = two()
    first.accepts = False
    early = store(sender, "1", "2")
    world.run(0.5)
    assert first.inbox == ["1", "2"]
    first.kill()
    world.run(0.01)
    second = world.host("second", known_as="b")
    world.introduce(sender, second)
    late = store(sender, "3")
    world.run_until(lambda: sender.sees(first) is None and sender.sees(second) is not None)
    assert second.inbox == []
    world.run(5.0)
    assert second.inbox == ["1", "2", "3"]
    assert sender.finished(early)
    assert sender.finished(late)
    assert sender.engine.statistics().stored_out == 0


def test_the_end_of_another_session_takes_nothing_back() -> None:
    world, sender, first = two()
    first.kill()
    world.run(0.01)
    second = world.host("second", known_as="b")
    second.accepts = False
    world.introduce(sender, second)
    world.run_until(lambda: sender.sees(first) is None and sender.sees(second) is not None)
    store(sender, "1", "2")
    world.run(5.0)
    assert second.inbox == ["1", "2"]
    assert sender.engine._news.outbox.reread == 0


def test_outcomes_are_forgotten_though_numbers_were_refused_that_were_to_follow() -> None:
    world, sender, first = two()
    sender.post("absent", "x", durable=True, wall_ms=world.wall_ms)
    store(sender, "1")
    world.run(0.2)
    sender.kill()  # before it told that it has forgotten this one
    sender = world.host("a", disk=sender.disk)
    sender.scribe.error = JournalFull("path", 1, 1)
    store(sender, "2")
    world.introduce(sender, first)
    world.run(3.0)
    known = first.engine._turn.handled
    assert len(known) == 1, "what is older waits still"
    world.introduce(sender, world.host("absent"))
    world.run(5.0)
    assert len(known) == 0


# What is in memory


def record(number: int) -> Record:
    return (HEAD, "", b"%d" % number)


def row(position: int, order: int = 0, attempts: int = 0, **changes: Any) -> StoredRow:
    made = Row(position, record(position), order=order or position + 100)
    return StoredRow(made._replace(**changes), attempts)


def box(rows: Sequence[StoredRow]) -> Box:
    made = Box("bob", 1, 0)
    made.add_ready(rows)
    return made


def test_rows_that_are_alike_are_taken_together_with_their_numbers() -> None:
    made = box([row(position) for position in range(1, 6)])
    size = sum(size_of(record(position)) for position in range(1, 6))
    assert made.ready_bytes == size
    rows, records, taken = made.take_alike(3)
    assert [each.position for each in rows] == [1, 2, 3]
    assert records == [(*record(at), (Tag.STORED, 100 + at)) for at in (1, 2, 3)]
    assert (made.cursor, made.ready_bytes) == (3, size - taken)
    made.take_alike(10)
    assert (made.cursor, made.ready_bytes, len(made.ready)) == (5, 0, 0)


@pytest.mark.parametrize(
    "other",
    [
        row(3, note=(1, "key")),
        row(3, expires_ms=7),
        row(4, order=103),
        row(3, order=104),
    ],
)
def test_a_row_that_differs_begins_another_run(other: StoredRow) -> None:
    made = box([row(1), row(2), other])
    assert [each.position for each in made.take_alike(10)[0]] == [1, 2]
    assert [each.position for each in made.take_alike(10)[0]] == [other.row.position]


def test_a_run_is_of_one_caller_or_of_none() -> None:
    made = box([row(position) for position in range(1, 8)])
    ada, bob = Ticket(), Ticket()
    made.add_caller(2, 3, ada)
    made.add_caller(6, 6, bob)
    runs = []
    while made.ready:
        rows = made.take_alike(10)[0]
        runs.append((rows[0].position, rows[-1].position, made.caller_of(rows[0].position)))
    assert runs == [(1, 1, None), (2, 3, ada), (4, 5, None), (6, 6, bob), (7, 7, None)]


def test_what_was_attempted_before_and_has_extras_says_so() -> None:
    keyed: Record = (*record(1), (int(Tag.KEY), "k"))
    made = box([row(1, record=keyed, attempts=2), row(2)])
    told = made.take_alike(10)[1]
    assert told[0][3:] == ((Tag.KEY, "k", Tag.ATTEMPT, 3, Tag.STORED, 101),)
    assert told[1][3:] == ((Tag.STORED, 102),)


def test_a_run_is_kept_in_memory_as_far_as_there_is_space() -> None:
    made = Box("bob", 1, 0)
    made.add_run(StoreRun(made.stream, 1, [record(1)] * (WINDOW_RECORDS + 5), order=1))
    assert len(made.ready) == WINDOW_RECORDS
    assert made.ready_bytes == WINDOW_RECORDS * size_of(record(1))
    made.add_run(StoreRun(made.stream, WINDOW_RECORDS + 1, [record(1)]))
    assert len(made.ready) == WINDOW_RECORDS
    large: Record = (HEAD, "", bytes(WINDOW_BYTES // 2))
    other = Box("eve", 1, 0)
    other.add_run(StoreRun(other.stream, 1, [large] * 5))
    assert len(other.ready) == 2
