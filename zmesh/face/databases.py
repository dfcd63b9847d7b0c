"""Databases of the application: what differs from one DB-API module to another (PEP 249)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from zmesh.errors import UsageError

_SQLITE_MODULES: Final = ("sqlite3", "pysqlite3", "sqlcipher3")
_POSTGRESQL_MODULES: Final = ("psycopg", "psycopg2", "pg8000", "pgdb")

_LEGACY_AUTOCOMMIT: Final = -1
"""What a sqlite3 connection of Python 3.12 says of `autocommit` where transactions are as ever."""


class Connection(Protocol):
    """A connection as PEP 249 has it: of sqlite3, psycopg and most others."""

    def cursor(self) -> Any:
        """Return a new cursor."""
        ...

    def commit(self) -> None:
        """Commit what was done since the last time."""
        ...

    def rollback(self) -> None:
        """Undo it."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


Connect = Callable[[], Connection]


class Dialect:
    """How to speak to a connection: its module's placeholders, errors and types.

    Raises:
        UsageError: it is no connection of a DB-API module.
    """

    def __init__(self, connection: object) -> None:
        module = _module_of(connection)
        self.module = module.__name__
        self._style: str = module.paramstyle
        self.error: type[Exception] = module.Error
        self.integrity_error: type[Exception] = module.IntegrityError
        family = self.module.partition(".")[0]
        self.is_sqlite = family in _SQLITE_MODULES
        self.is_postgresql = family in _POSTGRESQL_MODULES

    def statement(self, template: str, names: Sequence[str]) -> str:
        """Return SQL with this module's placeholders for the `{names}` in it, in their order."""
        marks = {name: self._mark(name, index) for index, name in enumerate(names, 1)}
        return template.format_map(marks)

    def _mark(self, name: str, index: int) -> str:
        match self._style:
            case "qmark":
                return "?"
            case "format":
                return "%s"
            case "pyformat":
                return f"%({name})s"
            case "named":
                return f":{name}"
            case "numeric":
                return f":{index}"
            case _:
                raise UsageError(f"{self.module} has the unknown paramstyle {self._style!r}")

    def values(
        self, names: Sequence[str], values: Sequence[object]
    ) -> tuple[object, ...] | dict[str, object]:
        """Return values as a statement for these names takes them."""
        if self._style in ("pyformat", "named"):
            return dict(zip(names, values, strict=True))
        return tuple(values)


def _module_of(connection: object) -> Any:
    for kind in type(connection).__mro__:
        package = ""
        for part in kind.__module__.split("."):
            package = f"{package}.{part}" if package else part
            module = sys.modules.get(package)
            if all(hasattr(module, name) for name in ("paramstyle", "Error", "IntegrityError")):
                return module
    raise UsageError(
        f"a {type(connection).__qualname__} is no connection of a DB-API module: pass one of "
        "sqlite3, psycopg or the like (of SQLAlchemy: connection.connection.driver_connection)"
    )


def begins_explicitly(connection: object, dialect: Dialect) -> bool:
    """Return whether a transaction begins with BEGIN here, and not with any first statement."""
    autocommit = getattr(connection, "autocommit", _LEGACY_AUTOCOMMIT)
    return dialect.is_sqlite and autocommit is not False


def commits_by_itself(connection: object, dialect: Dialect) -> bool:
    """Return whether every statement of a connection is committed at once."""
    return not dialect.is_sqlite and getattr(connection, "autocommit", None) is True


def execute(connection: Connection, sql: str, parameters: Any = None) -> int:
    """Execute a statement that has no rows; return how many rows it concerned."""
    cursor = connection.cursor()
    try:
        if parameters is None:
            cursor.execute(sql)
        else:
            cursor.execute(sql, parameters)
        return int(cursor.rowcount)
    finally:
        cursor.close()


def rows_of(connection: Connection, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """Return the rows of a query, as tuples whatever the connection makes of them."""
    cursor = connection.cursor()
    try:
        if parameters is None:
            cursor.execute(sql)
        else:
            cursor.execute(sql, parameters)
        return [
            tuple(row.values() if isinstance(row, Mapping) else row) for row in cursor.fetchall()
        ]
    finally:
        cursor.close()


def begin(connection: Connection, dialect: Dialect) -> None:
    """Begin a transaction that will write, where the first statement does not."""
    if begins_explicitly(connection, dialect):
        # The write lock now: one taken at the first write may be refused in the middle.
        execute(connection, "BEGIN IMMEDIATE")


def commit(connection: Connection, dialect: Dialect) -> None:
    """Commit; the method alone does nothing where sqlite3 is in autocommit mode."""
    if begins_explicitly(connection, dialect):
        execute(connection, "COMMIT")
    else:
        connection.commit()


def roll_back(connection: Connection, dialect: Dialect) -> None:
    """Undo what is not committed; without a word where the connection is gone, and it with it."""
    with suppress(dialect.error):
        if not begins_explicitly(connection, dialect):
            connection.rollback()
        elif getattr(connection, "in_transaction", True):
            execute(connection, "ROLLBACK")


def has_no_table(error: BaseException, table: str) -> bool:
    """Return whether SQLite or PostgreSQL says that there is no such table."""
    return f"no such table: {table}" in str(error) or _sqlstate(error) == "42P01"


def _sqlstate(error: BaseException) -> object:
    """Return the code of an error as PostgreSQL has it: psycopg, psycopg2, pg8000."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        if code is not None:
            return code
    told = error.args[0] if error.args else None
    return told.get("C") if isinstance(told, dict) else None
