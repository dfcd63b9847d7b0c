"""Servers of others for one run: on free ports of loopback, in their own directory, ended by pid.

Neither they nor their clients are needed by zmesh: what is not installed is `Absent`.
"""

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STARTED_WITHIN_S = 120.0  # RabbitMQ takes its time on a busy machine
ENDED_WITHIN_S = 15.0


class Absent(Exception):
    """Something is not installed, or does not run here; tells what."""


def client(module: str, package: str) -> Any:
    """Return a client library."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise Absent(f"the Python package {package} is not installed") from error


def program(name: str, *places: str) -> str:
    """Return the path of a program: in these places, beside this Python, or on PATH."""
    path = [*places, str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    found = shutil.which(name, path=os.pathsep.join(path))
    if found is None:
        raise Absent(f"{name} is not installed")
    return found


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str], place: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Run a server in `place` from when it listens on `port` until the end of the block.

    Yields its process id.
    """
    place.mkdir(parents=True, exist_ok=True)
    log = place / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=place, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait_for(process, port, log)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    name = Path(str(process.args[0])).name if isinstance(process.args, Sequence) else "it"
    began = time.monotonic()
    while not _listens(port):
        said = log.read_text(errors="replace").strip().splitlines()
        if process.poll() is not None:
            raise Absent(f"{name} ended while it started: {said[-1] if said else 'no word why'}")
        if time.monotonic() - began > STARTED_WITHIN_S:
            raise Absent(f"{name} did not listen within {STARTED_WITHIN_S:.0f} s")
        time.sleep(0.05)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True
