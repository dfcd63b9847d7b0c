"""The table that tells which messages were handled, in the application's own database."""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from zmesh.errors import UsageError
from zmesh.face.databases import (
    Connection,
    Dialect,
    begin,
    begins_explicitly,
    commit,
    commits_by_itself,
    execute,
    has_no_table,
    roll_back,
    rows_of,
)
from zmesh.storage import Ranges
from zmesh.storage_errors import AlreadyHandled, TransactionFailed

TABLE: Final = "zmesh_inbox"

SQLITE: Final = """\
CREATE TABLE IF NOT EXISTS zmesh_inbox (
    node BLOB NOT NULL,
    journal BLOB NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (node, journal, number)
) WITHOUT ROWID"""

POSTGRESQL: Final = """\
CREATE TABLE IF NOT EXISTS zmesh_inbox (
    node BYTEA NOT NULL,
    journal BYTEA NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (node, journal, number)
)"""

MessageIdentity = tuple[bytes, bytes, int]
"""Of a message: its origin's node id and journal id, and its number in that journal."""

_NAMES: Final = ("node", "journal", "number")
_INSERT: Final = (
    "INSERT INTO zmesh_inbox (node, journal, number) VALUES ({node}, {journal}, {number})"
)
_FIND: Final = (
    "SELECT 1 FROM zmesh_inbox WHERE node = {node} AND journal = {journal} AND number = {number}"
)
_SELECT: Final = "SELECT node, journal, number FROM zmesh_inbox ORDER BY node, journal, number"
_RANGE_NAMES: Final = ("node", "journal", "first", "last")
_DELETE: Final = (
    "DELETE FROM zmesh_inbox WHERE node = {node} AND journal = {journal} "
    "AND number BETWEEN {first} AND {last}"
)


class Handled(NamedTuple):
    """Messages of one journal that were handled."""

    node: bytes
    journal: bytes
    ranges: Ranges


class Session:
    """The transaction of one message, on a connection that is its alone. All calls block."""

    def __init__(self, connection: Connection, identity: MessageIdentity) -> None:
        self.connection = connection
        self.is_open = False
        self.is_committed = False
        self._identity = identity
        self._dialect = Dialect(connection)
        self._begins = begins_explicitly(connection, self._dialect)

    def begin(self) -> None:
        """Begin, and note that the message is handled.

        Raises:
            AlreadyHandled: it was before.
            TransactionFailed: the database did not let it.
            UsageError: the connection cannot have a transaction now.
        """
        self._check()
        dialect = self._dialect
        try:
            self._begin()
            try:
                self._insert()
            except dialect.integrity_error as error:
                raise AlreadyHandled(self._identity[2]) from error
            except dialect.error as error:
                self._make_table(error)
        except dialect.error as error:
            self.rollback()
            raise TransactionFailed("begin", str(error)) from error
        except BaseException:
            self.rollback()
            raise

    def _check(self) -> None:
        if commits_by_itself(self.connection, self._dialect):
            raise UsageError(
                "this connection commits every statement at once: set autocommit=False, so that "
                "the handler's writes and the message's outcome are one transaction"
            )
        if self._begins and getattr(self.connection, "in_transaction", False):
            raise UsageError(
                "this connection is in a transaction already: commit it, or roll it back, before "
                "message.transaction(connection) begins its own"
            )

    def _begin(self) -> None:
        self.is_open = True
        begin(self.connection, self._dialect)

    def _insert(self) -> None:
        dialect = self._dialect
        sql = dialect.statement(_INSERT, _NAMES)
        execute(self.connection, sql, dialect.values(_NAMES, self._identity))

    def _make_table(self, error: Exception) -> None:
        """Make the table where there was none, and go on; a transaction of its own has it."""
        dialect = self._dialect
        if not has_no_table(error, TABLE):
            raise error
        self.rollback()
        try:
            execute(self.connection, SQLITE if dialect.is_sqlite else POSTGRESQL)
            self.connection.commit()
        except dialect.error:
            # Somebody else made it at the same time; or nobody may, which the next insert tells.
            self.connection.rollback()
        self._begin()
        try:
            self._insert()
        except dialect.integrity_error as conflict:
            raise AlreadyHandled(self._identity[2]) from conflict

    def commit(self) -> None:
        """Commit.

        Raises:
            TransactionFailed: it is not known to be committed.
            UsageError: the transaction had been ended in between.
        """
        self.is_open = False
        try:
            if not self._is_as_begun():
                roll_back(self.connection, self._dialect)
                raise UsageError(
                    "the transaction was ended inside its block: leave commit, rollback and "
                    "executescript to message.transaction(), which commits at the end of it"
                )
            commit(self.connection, self._dialect)
        except self._dialect.error as error:
            roll_back(self.connection, self._dialect)
            raise TransactionFailed("commit", str(error)) from error
        self.is_committed = True

    def _is_as_begun(self) -> bool:
        if self._begins:
            return bool(getattr(self.connection, "in_transaction", True))
        # PostgreSQL answers COMMIT with a silent rollback where a statement failed before, as in a
        # block that swallowed its error. Another statement tells, and whether the row is there.
        sql = self._dialect.statement(_FIND, _NAMES)
        return bool(rows_of(self.connection, sql, self._dialect.values(_NAMES, self._identity)))

    def rollback(self) -> None:
        """Undo everything, if there is something to undo; never raises what a database raises."""
        if self.is_open:
            self.is_open = False
            roll_back(self.connection, self._dialect)


def handled(connection: Connection) -> list[Handled]:
    """Return which messages were handled; none where there is no table."""
    dialect = Dialect(connection)
    try:
        rows = rows_of(connection, _SELECT)
    except dialect.error as error:
        if not has_no_table(error, TABLE):
            raise
        rows = []
    roll_back(connection, dialect)  # what reading began
    found: dict[tuple[bytes, bytes], list[tuple[int, int]]] = {}
    for node, journal, number in rows:
        ranges = found.setdefault((bytes(node), bytes(journal)), [])
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return [Handled(*owner, tuple(ranges)) for owner, ranges in found.items()]


def forget(
    connection: Connection, numbers: Mapping[tuple[bytes, bytes], Iterable[tuple[int, int]]]
) -> None:
    """Remove what is in these ranges of each node's journal, in a transaction."""
    dialect = Dialect(connection)
    values = [
        dialect.values(_RANGE_NAMES, (*owner, first, last))
        for owner, ranges in numbers.items()
        for first, last in ranges
    ]
    cursor = connection.cursor()
    try:
        begin(connection, dialect)
        cursor.executemany(dialect.statement(_DELETE, _RANGE_NAMES), values)
        commit(connection, dialect)
    except dialect.error as error:
        roll_back(connection, dialect)
        if not has_no_table(error, TABLE):
            raise
    finally:
        cursor.close()
