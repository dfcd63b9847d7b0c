"""What differs from one DB-API module to another."""

import sqlite3
import sys
from contextlib import closing
from types import ModuleType
from typing import Any

import pytest

from zmesh import UsageError, outbox
from zmesh.face import outbox_table
from zmesh.face.databases import Dialect


def module(name: str, paramstyle: str) -> Any:
    """Return a DB-API module with connections of its own, which remember what they execute."""
    made: Any = ModuleType(name)
    made.paramstyle = paramstyle
    made.Error, made.IntegrityError = sqlite3.Error, sqlite3.IntegrityError

    class Connection:
        def __init__(self) -> None:
            self.executed: list[tuple[Any, ...]] = []
            self.rowcount = 1

        def cursor(self) -> "Connection":
            return self

        def execute(self, *statement: Any) -> None:
            self.executed.append(statement)

        def commit(self) -> None: ...
        def rollback(self) -> None: ...
        def close(self) -> None: ...

    Connection.__module__ = f"{name}.connections"
    made.Connection = Connection
    return made


@pytest.mark.parametrize(
    ("paramstyle", "begins", "is_by_name"),
    [
        ("qmark", "VALUES (?, ?, ", False),
        ("format", "VALUES (%s, %s, ", False),
        ("numeric", "VALUES (:1, :2, ", False),
        ("named", "VALUES (:id, :created_ms, ", True),
        ("pyformat", "VALUES (%(id)s, %(created_ms)s, ", True),
    ],
)
def test_every_paramstyle_has_its_placeholders(
    monkeypatch: pytest.MonkeyPatch, paramstyle: str, begins: str, is_by_name: bool
) -> None:
    driver = module("somedriver", paramstyle)
    monkeypatch.setitem(sys.modules, "somedriver", driver)
    connection = driver.Connection()
    identity = outbox.enqueue(connection, b"body", to="a")
    [(sql, values)] = connection.executed
    assert begins in sql
    if is_by_name:
        assert (values["id"], values["body"]) == (identity, b"body")
    else:
        assert (values[0], values[-1]) == (identity, b"body")


def test_statements_by_name_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        monkeypatch.setattr(sqlite3, "paramstyle", "named")
        identity = outbox.enqueue(connection, b"body", to="a")
        assert [row.id for row in outbox_table.read(connection, Dialect(connection))] == [identity]


def test_unknown_paramstyle_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = module("somedriver", "smoke")
    monkeypatch.setitem(sys.modules, "somedriver", driver)
    with pytest.raises(UsageError, match="smoke"):
        outbox.enqueue(driver.Connection(), 1, to="a")


def test_module_of_a_subclass_is_found() -> None:
    class Mine(sqlite3.Connection):
        pass

    with closing(sqlite3.connect(":memory:", factory=Mine)) as connection:
        assert Dialect(connection).module == "sqlite3"


def test_database_whose_tables_are_not_known_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = module("somedriver", "qmark")
    monkeypatch.setitem(sys.modules, "somedriver", driver)
    with pytest.raises(UsageError, match="somedriver"):
        outbox.create(driver.Connection())
