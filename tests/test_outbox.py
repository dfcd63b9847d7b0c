"""The transactional outbox: what the application writes, and what is in the table then."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.postgresql import Connect
from zmesh import outbox
from zmesh.face import inbox_table, outbox_table
from zmesh.face.databases import Dialect
from zmesh.face.outbox_table import OutboxRow
from zmesh.message import Encoding, Kind, Tag, extra, head
from zmesh.wire.bodies import body_of, decode_headers


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        yield opened


def rows_in(connection: Any) -> list[OutboxRow]:
    return outbox_table.read(connection, Dialect(connection))


def test_message_is_written_with_everything_said_of_it(connection: sqlite3.Connection) -> None:
    before = time.time_ns() // 1_000_000
    identity = outbox.enqueue(
        connection, {"order": 7}, to="printer-1", headers={"unit": "C"}, priority=7,
        key="customer-3", ttl=1.5,
    )  # fmt: skip
    [row] = rows_in(connection)
    assert row.id == identity
    assert len(bytes.fromhex(row.id)) == 16
    assert before <= row.created_ms <= time.time_ns() // 1_000_000
    assert row[3:9] == ("send", "printer-1", 7, "customer-3", 1500, 0)
    assert row.expires_ms == row.created_ms + 1500
    assert row.due_ms == 0
    record = row.record()
    assert record[:2] == (head(Kind.DIRECT, Encoding.MSGPACK), "")
    assert body_of(record) == {"order": 7}
    headers = extra(record, Tag.HEADERS)
    assert isinstance(headers, bytes)
    assert decode_headers(headers) == {"unit": "C"}


def test_job_has_its_queue_and_delay(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, b"raw", queue="thumbnails", delay=0.25)
    [row] = rows_in(connection)
    assert row[3:9] == ("push", "thumbnails", 4, None, None, 250)
    assert row.due_ms == row.created_ms + 250
    assert row.expires_ms == 0
    assert row.record() == (head(Kind.JOB), "thumbnails", b"raw")


def test_publication_has_its_topic_and_type(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, None, topic="orders.new", type="order")
    [row] = rows_in(connection)
    record = row.record()
    assert record[:2] == (head(Kind.PUBLICATION, Encoding.MSGPACK), "orders.new")
    assert extra(record, Tag.TYPE) == "order"
    assert body_of(record) is None


def test_rows_keep_the_order_of_calls(connection: sqlite3.Connection) -> None:
    identities = [outbox.enqueue(connection, each, to="a") for each in range(50)]
    assert [row.id for row in rows_in(connection)] == identities


def test_rolled_back_transaction_leaves_no_message(connection: sqlite3.Connection) -> None:
    outbox.create(connection)
    connection.commit()
    outbox.enqueue(connection, 1, to="a")
    connection.rollback()
    assert rows_in(connection) == []


def test_message_is_seen_by_others_only_after_the_commit(tmp_path: Path) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "shop.db")) as writer,
        closing(sqlite3.connect(tmp_path / "shop.db")) as reader,
    ):
        outbox.create(writer)
        outbox.enqueue(writer, 1, to="a")
        assert rows_in(reader) == []
        writer.commit()
        assert len(rows_in(reader)) == 1


def test_first_message_in_the_middle_of_a_transaction_makes_the_table_in_it(
    connection: sqlite3.Connection,
) -> None:
    connection.execute("CREATE TABLE orders (number)")
    connection.execute("INSERT INTO orders VALUES (1)")
    outbox.enqueue(connection, 1, to="a")
    connection.rollback()
    assert connection.execute("SELECT * FROM orders").fetchall() == []
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    assert tables == [("orders",)]


def test_making_the_table_again_changes_nothing(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, 1, to="a")
    outbox.create(connection)
    assert len(rows_in(connection)) == 1


def test_connection_with_rows_of_its_own_kind_works(connection: sqlite3.Connection) -> None:
    connection.row_factory = sqlite3.Row
    outbox.enqueue(connection, b"1", to="a")
    assert [row.body for row in rows_in(connection)] == [b"1"]


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({}, "destination"),
        ({"to": "a", "queue": "b"}, "destination"),
        ({"queue": "b", "topic": "c"}, "destination"),
        ({"to": ""}, "to"),
        ({"to": 3}, "to"),
        ({"to": "\ud800"}, "to"),
        ({"queue": ""}, "queue"),
        ({"queue": "x" * 2000}, "size of queue"),
        ({"topic": "a..b"}, "topic"),
        ({"topic": "a.*"}, "topic"),
        ({"topic": 3}, "topic"),
        ({"to": "a", "priority": 10}, "priority"),
        ({"to": "a", "priority": True}, "priority"),
        ({"to": "a", "key": b"k"}, "key"),
        ({"to": "a", "ttl": 0}, "ttl"),
        ({"to": "a", "delay": 1}, "delay"),
        ({"topic": "a", "delay": 1}, "delay"),
        ({"queue": "a", "delay": -1}, "delay"),
        ({"queue": "a", "delay": 2, "ttl": 1}, "ttl"),
        ({"to": "a", "type": "t"}, "type"),
        ({"queue": "a", "type": "t"}, "type"),
        ({"topic": "a", "type": ""}, "type"),
        ({"to": "a", "headers": {"a": []}}, "headers['a']"),
    ],
)
def test_what_cannot_be_sent_is_refused_and_not_written(
    connection: sqlite3.Connection, arguments: dict[str, Any], option: str
) -> None:
    outbox.create(connection)
    with pytest.raises(zmesh.InvalidOption) as told:
        outbox.enqueue(connection, 1, **arguments)
    assert told.value.option == option
    assert rows_in(connection) == []


def test_body_that_cannot_be_sent_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(zmesh.BodyNotEncodable):
        outbox.enqueue(connection, object(), to="a")
    with pytest.raises(zmesh.BodyTooLarge):
        outbox.enqueue(connection, bytes(64 * 1024 * 1024 + 1), to="a")


def test_what_is_no_connection_is_refused() -> None:
    with pytest.raises(zmesh.UsageError, match="no connection of a DB-API module"):
        outbox.enqueue(object(), 1, to="a")  # type: ignore[arg-type]


def test_reading_stops_at_a_bound_of_bytes(connection: sqlite3.Connection) -> None:
    for _ in range(5):
        outbox.enqueue(connection, bytes(2 * 1024 * 1024), to="a")
    assert len(rows_in(connection)) == 2


def test_one_body_beyond_the_bound_of_bytes_is_read_alone(connection: sqlite3.Connection) -> None:
    outbox.enqueue(connection, bytes(5 * 1024 * 1024), to="a")
    outbox.enqueue(connection, b"", to="a")
    assert len(rows_in(connection)) == 1


def test_reading_stops_at_a_bound_of_rows(connection: sqlite3.Connection) -> None:
    for each in range(outbox_table.ROWS_MAX + 1):
        outbox.enqueue(connection, each, to="a")
    assert len(rows_in(connection)) == outbox_table.ROWS_MAX


def test_table_refuses_what_no_node_could_send(connection: sqlite3.Connection) -> None:
    outbox.create(connection)
    good = OutboxRow(0, "0" * 32, 1, "send", "a", 4, None, None, 0, None, 0, None, b"")
    for bad in (
        good._replace(id="short"),
        good._replace(verb="shout"),
        good._replace(lane=10),
        good._replace(body="text"),  # type: ignore[arg-type]
    ):
        with pytest.raises(sqlite3.IntegrityError):
            outbox_table.insert(connection, bad)
    outbox_table.insert(connection, good)


# PostgreSQL


def test_postgresql_has_the_same_rows(postgresql: Connect) -> None:
    with postgresql() as connection:
        outbox.create(connection)
        outbox.create(connection)
        outbox.enqueue(
            connection, {"order": 7}, queue="q", headers={"a": b"\0"}, key="k", ttl=9, delay=1
        )
        outbox.enqueue(connection, b"\0\xff", topic="a.b", type="t", priority=0)
    with postgresql() as connection:
        job, publication = rows_in(connection)
    assert job[3:10] == ("push", "q", 4, "k", 9000, 1000, None)
    assert body_of(job.record()) == {"order": 7}
    assert job.headers is not None
    assert decode_headers(job.headers) == {"a": b"\0"}
    assert publication[3:10] == ("publish", "a.b", 0, None, None, 0, "t")
    assert publication.body == b"\0\xff"


def test_postgresql_rolls_back_with_the_application(postgresql: Connect) -> None:
    with postgresql() as connection:
        outbox.create(connection)
        connection.commit()
        outbox.enqueue(connection, 1, to="a")
        connection.rollback()
        assert rows_in(connection) == []


def test_postgresql_without_the_table_says_how_to_make_it(postgresql: Connect) -> None:
    with closing(postgresql()) as connection:
        with pytest.raises(Exception, match="zmesh_outbox") as told:
            outbox.enqueue(connection, 1, to="a")
        assert any("zmesh.outbox.create" in note for note in told.value.__notes__)


def test_documentation_shows_the_tables_of_postgresql() -> None:
    page = (Path(zmesh.__file__).parent.parent / "docs" / "databases.md").read_text("utf-8")
    assert outbox.POSTGRESQL in page
    assert inbox_table.POSTGRESQL in page
