"""Other processes for tests: started, spoken to line by line, and ended by their id."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent

PATIENCE_S = 60.0
"""For what takes a second where nothing else runs, and half a minute where everything does."""


def say(*words: object) -> None:
    """Print a line for the test that started this program."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Child:
    """A Python program under test."""

    def __init__(self, process: Process) -> None:
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
) -> AsyncIterator[Child]:
    """Run Python with these arguments, warnings being errors; kill it at the latest at the end.

    Its standard input is empty, unless it reads what it is told.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        *arguments,
        stdin=PIPE if reads else DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
    )
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # The transport would otherwise close with the loop, and warn.
        process._transport.close()  # type: ignore[attr-defined]
