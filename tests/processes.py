"""Other processes for tests: started, spoken to line by line, and ended by their id."""

import asyncio
import atexit
import os
import signal
import socket
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path

from tests import warm

ROOT = Path(__file__).parent.parent

PATIENCE_S = 60.0
"""For what takes a second where nothing else runs, and half a minute where everything does."""


def say(*words: object) -> None:
    """Print a line for the test that started this program."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Forked:
    """A process forked by `tests.warm`, with what tests use of `asyncio.subprocess.Process`."""

    def __init__(self) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._transports: list[asyncio.BaseTransport] = []

    async def start(self, order: dict[str, object], *, reads: bool) -> None:
        """Have it forked."""
        loop = asyncio.get_running_loop()
        report = asyncio.StreamReader()
        given: list[int] = []
        for reader in (self.stdout, self.stderr, report):
            ours, theirs = os.pipe()
            given.append(theirs)
            transport, _ = await loop.connect_read_pipe(
                lambda reader=reader: asyncio.StreamReaderProtocol(reader),  # type: ignore[misc]
                os.fdopen(ours, "rb", 0),
            )
            self._transports.append(transport)
        if reads:
            theirs, ours = os.pipe()
            writing, protocol = await loop.connect_write_pipe(
                lambda: asyncio.streams.FlowControlMixin(loop), os.fdopen(ours, "wb", 0)
            )
            self.stdin = asyncio.StreamWriter(writing, protocol, None, loop)
            self._transports.append(writing)
        else:
            theirs = os.open(os.devnull, os.O_RDONLY)
        given.insert(0, theirs)
        try:
            warm.send(server(), order, given)
        finally:
            for file in given:
                os.close(file)
        self.pid = int(await report.readline())
        self._end = asyncio.create_task(self._ends(report))

    async def _ends(self, report: asyncio.StreamReader) -> int:
        self.returncode = int(await report.readline())
        return self.returncode

    async def wait(self) -> int:
        """Wait for its end, and return its exit status, or minus the signal that ended it."""
        return await asyncio.shield(self._end)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Wait for its end, and return what is left of its output."""
        out, error = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, error

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def release(self) -> None:
        """Close what belongs to it, once it has ended."""
        for transport in self._transports:
            transport.close()


@cache
def server() -> socket.socket:
    """Return where programs are ordered; who runs them ends with this process."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", warm.__file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


class Child:
    """A Python program under test."""

    def __init__(self, process: Process | Forked) -> None:
        self.process = process

    async def line(self, seconds: float = PATIENCE_S) -> str:
        """Return the next line it prints."""
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), seconds)
        return line.decode().rstrip("\n")

    async def rest(self) -> list[str]:
        """Return the lines that are left to be read, once it has ended."""
        assert self.process.stdout is not None
        whole = (await self.process.stdout.read()).decode()
        return [line for line in whole.splitlines(keepends=True) if line.endswith("\n")]

    async def tell(self, line: str) -> None:
        """Let it read a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    def end_of_input(self) -> None:
        """Let it read no more."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    async def ended(self, seconds: float = PATIENCE_S) -> tuple[int, str, str]:
        """Wait for its end; return exit status and what else it printed, out and err."""
        out, error = await asyncio.wait_for(self.process.communicate(), seconds)
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), error.decode()


@asynccontextmanager
async def run(
    *arguments: str,
    environment: dict[str, str] | None = None,
    reads: bool = False,
    place: Path = ROOT,
    fresh: bool = False,
    namespace: str | None = None,
) -> AsyncIterator[Child]:
    """Run Python with these arguments, warnings being errors; kill it at the latest at the end.

    Its standard input is empty, unless it reads what it is told. It is a fork of a process that
    has imported zmesh, unless it is to be a `fresh` interpreter, where that is what is tested.
    It lives in this network `namespace`, where one is named.
    """
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
    starting = _exec if fresh else _fork
    async with starting(arguments, variables, place, namespace, reads=reads) as process:
        try:
            yield Child(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def _fork(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    place: Path,
    namespace: str | None,
    *,
    reads: bool,
) -> AsyncIterator[Process | Forked]:
    process = Forked()
    order: dict[str, object] = {
        "arguments": arguments, "place": str(place), "environment": environment,
        "namespace": namespace,
    }  # fmt: skip
    try:
        await process.start(order, reads=reads)
        yield process
    finally:
        process.release()


@asynccontextmanager
async def _exec(
    arguments: tuple[str, ...],
    environment: dict[str, str],
    place: Path,
    namespace: str | None,
    *,
    reads: bool,
) -> AsyncIterator[Process | Forked]:
    assert namespace is None, "a fork enters one"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", *arguments,
        stdin=PIPE if reads else DEVNULL, stdout=PIPE, stderr=PIPE,
        cwd=place, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        # The transport would otherwise close with the loop, and warn.
        process._transport.close()  # type: ignore[attr-defined]
