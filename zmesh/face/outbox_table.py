"""The table of the transactional outbox, in the application's own database."""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from zmesh.errors import UsageError
from zmesh.face.databases import Connection, Dialect, execute, has_no_table, rows_of
from zmesh.message import ExtraValue, Kind, Record, Tag

TABLE: Final = "zmesh_outbox"

SQLITE: Final = """\
CREATE TABLE IF NOT EXISTS zmesh_outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL CHECK (length(id) = 32),
    created_ms INTEGER NOT NULL,
    verb TEXT NOT NULL CHECK (verb IN ('send', 'push', 'publish')),
    destination TEXT NOT NULL,
    lane INTEGER NOT NULL CHECK (lane BETWEEN 0 AND 9),
    message_key TEXT,
    ttl_ms INTEGER,
    delay_ms INTEGER NOT NULL,
    type TEXT,
    encoding INTEGER NOT NULL,
    headers BLOB,
    body BLOB NOT NULL CHECK (typeof(body) = 'blob')
)"""
"""The table in SQLite; `create` and the first `enqueue` make it."""

POSTGRESQL: Final = """\
CREATE TABLE IF NOT EXISTS zmesh_outbox (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL CHECK (length(id) = 32),
    created_ms BIGINT NOT NULL,
    verb TEXT NOT NULL CHECK (verb IN ('send', 'push', 'publish')),
    destination TEXT NOT NULL,
    lane SMALLINT NOT NULL CHECK (lane BETWEEN 0 AND 9),
    message_key TEXT,
    ttl_ms BIGINT,
    delay_ms BIGINT NOT NULL,
    type TEXT,
    encoding SMALLINT NOT NULL,
    headers BYTEA,
    body BYTEA NOT NULL
)"""
"""The table in PostgreSQL: for `create`, or for the application's own migrations."""

ROWS_MAX: Final = 256
"""Rows read at once: they share a commit of the journal, and another that deletes them."""

BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of their bodies, one body beyond at most: more would only wait in memory."""

KINDS: Final = {"send": Kind.DIRECT, "push": Kind.JOB, "publish": Kind.PUBLICATION}


class OutboxRow(NamedTuple):
    """A message as it lies in the outbox. Times by the wall clock, in milliseconds."""

    sequence: int
    id: str  # 32 hex digits, random: known in the journal until the row is deleted
    created_ms: int
    verb: str  # "send", "push" or "publish"
    destination: str  # name or id of a peer, queue, topic
    lane: int
    key: str | None
    ttl_ms: int | None  # from `created_ms` on
    delay_ms: int  # the same; 0: at once
    type: str | None
    encoding: int
    headers: bytes | None  # a msgpack map
    body: bytes

    @property
    def expires_ms(self) -> int:
        """When it is no longer worth handling; 0: never."""
        return 0 if self.ttl_ms is None else self.created_ms + self.ttl_ms

    @property
    def due_ms(self) -> int:
        """When it may begin; 0: at once."""
        return self.created_ms + self.delay_ms if self.delay_ms else 0

    def record(self) -> Record:
        """Return the record to post, push or publish; lane, key and times go beside it."""
        kind = KINDS[self.verb]
        target = "" if kind is Kind.DIRECT else self.destination
        extras: list[ExtraValue] = []
        if self.headers is not None:
            extras += (int(Tag.HEADERS), self.headers)
        if self.type is not None:
            extras += (int(Tag.TYPE), self.type)
        plain = (kind | self.encoding << 4, target, self.body)
        return (*plain, tuple(extras)) if extras else plain


_COLUMNS: Final = (
    "id", "created_ms", "verb", "destination", "lane", "message_key", "ttl_ms", "delay_ms",
    "type", "encoding", "headers", "body",
)  # fmt: skip
_NAMES: Final = ", ".join(_COLUMNS)
_INSERT: Final = (
    f"INSERT INTO {TABLE} ({_NAMES}) VALUES ({', '.join(map('{{{}}}'.format, _COLUMNS))})"  # noqa: S608  # nothing in it is from outside
)
_SIZES: Final = f"SELECT sequence, length(body) FROM {TABLE} ORDER BY sequence LIMIT {ROWS_MAX}"  # noqa: S608
_RANGE: Final = "sequence BETWEEN {first} AND {last} ORDER BY sequence"
_SELECT: Final = f"SELECT sequence, {_NAMES} FROM {TABLE} WHERE {_RANGE}"  # noqa: S608
_DELETE: Final = f"DELETE FROM {TABLE} WHERE sequence = {{sequence}} AND id = {{id}}"  # noqa: S608
_FIND: Final = f"SELECT 1 FROM {TABLE} WHERE id = {{id}}"  # noqa: S608


def create(connection: Connection, dialect: Dialect) -> None:
    """Make the table where there is none.

    Raises:
        UsageError: how, is not known for this database.
    """
    if dialect.is_sqlite:
        execute(connection, SQLITE)
    elif dialect.is_postgresql:
        execute(connection, POSTGRESQL)
    else:
        raise UsageError(
            f"how to make a table with {dialect.module} is not known here: make it yourself, "
            "after zmesh.outbox.POSTGRESQL"
        )


def insert(connection: Connection, row: OutboxRow) -> None:
    """Put a row into the table; its sequence is the database's own."""
    dialect = Dialect(connection)
    sql = dialect.statement(_INSERT, _COLUMNS)
    values = dialect.values(_COLUMNS, row[1:])
    try:
        execute(connection, sql, values)
    except dialect.error as error:
        # In SQLite alone a statement that failed leaves the transaction as it was.
        if not (dialect.is_sqlite and has_no_table(error, TABLE)):
            error.add_note(f"zmesh.outbox.create(connection) makes {TABLE} where it is missing")
            raise
        create(connection, dialect)
        execute(connection, sql, values)


def read(connection: Connection, dialect: Dialect) -> list[OutboxRow]:
    """Return the oldest rows, at most `ROWS_MAX` and `BYTES_MAX`."""
    sizes = rows_of(connection, _SIZES)
    if not sizes:
        return []
    last, total = sizes[0][0], 0
    for sequence, size in sizes:
        if total >= BYTES_MAX:
            break
        last = sequence
        total += size
    names = ("first", "last")
    rows = rows_of(
        connection,
        dialect.statement(_SELECT, names),
        dialect.values(names, (sizes[0][0], last)),
    )
    return [_row(row) for row in rows]


def _row(row: tuple[Any, ...]) -> OutboxRow:
    # Some modules have a memoryview for bytes.
    headers = None if row[-2] is None else bytes(row[-2])
    return OutboxRow._make((*row[:-2], headers, bytes(row[-1])))


def delete(connection: Connection, dialect: Dialect, rows: Iterable[tuple[int, str]]) -> None:
    """Delete rows, given by sequence and id."""
    names = ("sequence", "id")
    cursor = connection.cursor()
    try:
        cursor.executemany(
            dialect.statement(_DELETE, names), [dialect.values(names, row) for row in rows]
        )
    finally:
        cursor.close()


def missing(connection: Connection, dialect: Dialect, ids: Iterable[str]) -> list[str]:
    """Return which of these ids no row has."""
    sql = dialect.statement(_FIND, ("id",))
    return [each for each in ids if not rows_of(connection, sql, dialect.values(("id",), (each,)))]
