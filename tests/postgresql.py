"""A PostgreSQL server for tests: in memory, on a socket in a directory of its own."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.memory import directory_in_memory

Connect = Callable[..., Any]


def _binaries() -> Path | None:
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return installed[-1].parent if installed else None


def _user() -> str | None:
    """Return who the server is to run as, where this is root, which it refuses."""
    return "postgres" if os.getuid() == 0 else None


def _set_up(binaries: Path, directory: Path, user: str | None) -> None:
    if user is not None:
        account = pwd.getpwnam(user)
        os.chown(directory, account.pw_uid, account.pw_gid)
    command = [
        str(binaries / "initdb"), "-D", str(directory / "data"),
        "-A", "trust", "-U", "zmesh", "--no-sync", "--locale=C", "-E", "UTF8",
    ]  # fmt: skip
    subprocess.run(command, user=user, check=True, capture_output=True, cwd=directory)


def _wait(connect: Connect, server: "subprocess.Popen[bytes]", error: type[Exception]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            connect().close()
        except error:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Connect]:
    """What returns a new connection to a server of this test run."""
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    binaries = _binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed")
    user = _user()
    if user is not None and user not in {each.pw_name for each in pwd.getpwall()}:
        pytest.skip("root cannot run PostgreSQL, and there is no user postgres")
    with directory_in_memory() as directory:
        _set_up(binaries, directory, user)
        command = [
            str(binaries / "postgres"), "-D", str(directory / "data"), "-k", str(directory),
            "-c", "listen_addresses=", "-c", "fsync=off",
        ]  # fmt: skip
        log = (directory / "log").open("wb")
        with log:
            server = subprocess.Popen(
                command, user=user, cwd=directory, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

        def connect(**options: Any) -> Any:
            return psycopg.connect(host=str(directory), user="zmesh", dbname="postgres", **options)

        try:
            _wait(connect, server, psycopg.OperationalError)
            yield connect
        finally:
            server.send_signal(signal.SIGINT)  # ends connections, and then itself
            server.wait(30)


@pytest.fixture
def postgresql(postgresql_server: Connect) -> Connect:
    """The same, with nothing in the database."""
    with postgresql_server() as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgresql_server
