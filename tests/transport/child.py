"""Scripts that run in a process of their own, which ends with the test whatever happens."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Ended:
    code: int
    seconds: float  # since its last line was read, or its start
    output: str  # what was not read by then
    errors: str


class Child:
    """A running script."""

    def __init__(self, *arguments: str) -> None:
        # Unbuffered, so that what `line` has not read is left for `end`.
        self._process = subprocess.Popen(  # our own script
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._since = time.monotonic()

    def line(self) -> str:
        """Wait for the next line of its output."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        self._since = time.monotonic()
        return line.removesuffix("\n") or f"no line: {self.end()}"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> Ended:
        """Wait until it has ended by itself."""
        output, errors = self._process.communicate(timeout=30)
        seconds = time.monotonic() - self._since
        return Ended(self._process.returncode, seconds, output.decode(), errors.decode())

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


@contextmanager
def running(*arguments: str) -> Iterator[Child]:
    """Run `python` with these arguments."""
    child = Child(*arguments)
    try:
        yield child
    finally:
        child.kill()
