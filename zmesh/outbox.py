"""The transactional outbox: messages written in the application's own transaction.

```python
with connection:
    connection.execute("INSERT INTO orders VALUES (7)")
    zmesh.outbox.enqueue(connection, {"order": 7}, to="printer-1")
```

Either both are in the database or neither is. A node that was given this database sends the
message soon after the commit, and once, whatever dies in between. One node has one outbox.

`connection` is any DB-API connection. SQLite gets its table by itself; other databases get it by
`create`, or by the application's migrations, as `POSTGRESQL` has it.
"""

import secrets
import time
from typing import Final

from zmesh.errors import InvalidOption
from zmesh.face.checks import (
    check_delay,
    check_is_text,
    check_message_options,
    check_queue,
    is_seconds,
)
from zmesh.face.databases import Connection, Dialect
from zmesh.face.outbox_table import KINDS, POSTGRESQL, SQLITE, TABLE, OutboxRow, insert
from zmesh.face.outbox_table import create as create_table
from zmesh.face.outgoing import Headers, Outgoing
from zmesh.face.peers_view import Peer
from zmesh.message import PRIORITY_DEFAULT, Tag, encoding_of, extra
from zmesh.options import NodeOptions
from zmesh.patterns.filters import check_type
from zmesh.patterns.routing import check_topic
from zmesh.wire.bodies import check_text

__all__ = ["POSTGRESQL", "SQLITE", "TABLE", "Connection", "create", "enqueue"]

_OPTIONS: Final = NodeOptions()
_OUTGOING: Final = Outgoing(_OPTIONS)


def create(connection: Connection) -> None:
    """Make the table of the outbox where there is none. It does not commit.

    Raises:
        UsageError: this is no DB-API connection, or one of a database not known here.
    """
    create_table(connection, Dialect(connection))


def enqueue(
    connection: Connection,
    body: object,
    *,
    to: str | Peer | None = None,
    queue: str | None = None,
    topic: str | None = None,
    headers: Headers | None = None,
    priority: int = PRIORITY_DEFAULT,
    key: str | None = None,
    ttl: float | None = None,
    delay: float | None = None,
    type: str | None = None,  # noqa: A002  # what users call it
) -> str:
    """Write a message into the transaction of `connection`. It does not commit.

    Messages leave in the order of their rows. Where transactions overlap, as in PostgreSQL, those
    of one transaction keep their order, and the transactions that of their commits.

    Args:
        connection: any DB-API connection, within the transaction that the message belongs to.
        body: bytes, which pass untouched, or anything msgpack can carry.
        to: name or id of the peer to send it to;
        queue: or name of the queue to push it to;
        topic: or topic to publish it on. Exactly one of the three.
        headers: small values beside the body.
        priority: 0 (lowest) to 9 (highest).
        key: messages of one key keep their order, whatever their priority.
        ttl: seconds after which it is no longer worth handling, counted from now.
        delay: of a job: seconds before it may begin.
        type: of a publication: what kind of message it is.

    Returns:
        Its id in the outbox, 32 hex digits.

    Raises:
        BodyNotEncodable, BodyTooLarge, InvalidOption, UsageError: it cannot be sent.
        Whatever the database raises: as from the application's own statements.
    """
    verb, destination = _destination(to, queue, topic)
    record = _OUTGOING.record(KINDS[verb], destination, body, headers)
    check_message_options(_OPTIONS.wire, priority, key, ttl)
    _check_delay(verb, delay, ttl)
    if type is not None:
        if verb != "publish":
            raise InvalidOption("type", type, "None: only publications, on a topic=, have one")
        check_type(type, _OPTIONS.wire)
    encoded = extra(record, Tag.HEADERS)
    row = OutboxRow(
        sequence=0,
        id=secrets.token_hex(16),
        created_ms=time.time_ns() // 1_000_000,
        verb=verb,
        destination=destination,
        lane=priority,
        key=key,
        ttl_ms=None if ttl is None else max(1, round(ttl * 1000)),
        delay_ms=round((delay or 0.0) * 1000),
        type=type,
        encoding=encoding_of(record),
        headers=encoded if isinstance(encoded, bytes) else None,
        body=bytes(record[2]),
    )
    insert(connection, row)
    return row.id


def _destination(to: str | Peer | None, queue: str | None, topic: str | None) -> tuple[str, str]:
    """Return the verb and the destination that one of the three says."""
    given = {"to": to, "queue": queue, "topic": topic}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        expected = "exactly one of to=, queue= and topic="
        raise InvalidOption("destination", given, expected)
    limits = _OPTIONS.wire
    if queue is not None:
        check_queue(queue, limits)
        return "push", queue
    if topic is not None:
        check_is_text("topic", topic)
        check_topic(topic, limits.text_bytes_max)
        return "publish", topic
    name = to.id if isinstance(to, Peer) else to
    if not isinstance(name, str) or not name:
        raise InvalidOption("to", name, "a name, an id as hex digits, or a Peer")
    check_text("to", name, limits)
    return "send", name


def _check_delay(verb: str, delay: float | None, ttl: float | None) -> None:
    if delay is None:
        return
    if verb != "push" and is_seconds(delay) and delay:
        raise InvalidOption("delay", delay, "None: only jobs, in a queue=, wait")
    check_delay(delay, ttl)
