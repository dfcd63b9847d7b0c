"""Which of a service's waiting requests is handled next."""

from collections.abc import Hashable
from typing import Generic, TypeVar

R = TypeVar("R", bound=Hashable)
L = TypeVar("L", bound=Hashable)


class Turns(Generic[R, L]):
    """So many requests at a time, of each line one, in the order they came.

    A request without line (None) waits for nobody but the number of those being handled.
    """

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running = 0
        self._ready: dict[R, L | None] = {}  # at the head of their line, or without one
        self._behind: dict[L, dict[R, None]] = {}  # of each line, whose head is ready or runs

    def add(self, request: R, line: L | None) -> None:
        """Let a request wait."""
        behind = None if line is None else self._behind.get(line)
        if behind is not None:
            behind[request] = None
            return
        if line is not None:
            self._behind[line] = {}
        self._ready[request] = line

    @property
    def startable(self) -> int:
        """How many requests may be handled now, beside those that are."""
        return min(len(self._ready), self._at_once - self._running)

    def begin(self) -> R | None:
        """Return the request to be handled now, if there is one; `end` says when it was."""
        if self._running >= self._at_once or not self._ready:
            return None
        request = next(iter(self._ready))
        del self._ready[request]
        self._running += 1
        return request

    def end(self, line: L | None) -> None:
        """Note that a request that had begun is handled, and let the next of its line come."""
        self._running -= 1
        self._advance(line)

    def remove(self, request: R, line: L | None) -> None:
        """Forget a request that waits."""
        if request in self._ready:
            del self._ready[request]
            self._advance(line)
        elif line is not None:
            del self._behind[line][request]

    def clear(self) -> list[R]:
        """Forget all that wait, and return them in the order in which they would have begun."""
        waiting = [*self._ready, *(each for behind in self._behind.values() for each in behind)]
        self._ready.clear()
        self._behind.clear()
        return waiting

    def _advance(self, line: L | None) -> None:
        if line is None or line not in self._behind:
            return
        behind = self._behind[line]
        if behind:
            request = next(iter(behind))
            del behind[request]
            self._ready[request] = line
        else:
            del self._behind[line]
