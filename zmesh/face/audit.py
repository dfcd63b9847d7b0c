"""The audit log: who tried what they may not, for people and for the application."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

from zmesh.actions import Audited, AuditKind
from zmesh.errors import Closed

logger = logging.getLogger("zmesh.audit")

WAITING_MAX: Final = 1024
"""Events kept for a watcher that does not keep up; the oldest go first."""

TOLD_MAX: Final = 4096
"""Culprits and kinds remembered as told: a flood of new ones pushes out the oldest."""

NAMES_TOLD_MAX: Final = 16
"""Things a culprit was forbidden by one rule that are warned of each: it may try as many names as
it likes, and must not use up the warnings of others."""

WARNINGS_BURST: Final = 100
WARNINGS_PER_SECOND: Final = 1.0
"""Warnings of one kind, at once and from then on: who can be as many culprits as it likes must not
fill the log, nor the disk, and other kinds are heard beside it."""


class AuditWatcher:
    """What happens from now on, in order; `missed` counts what was not taken in time."""

    def __init__(self) -> None:
        self._events: deque[Audited] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_closed = False
        self.missed = 0

    def __aiter__(self) -> "AuditWatcher":
        return self

    async def __anext__(self) -> Audited:
        while not self._events:
            if self._is_closed:
                raise StopAsyncIteration
            if self._waiter is not None:
                raise Closed("watcher: another task waits on it")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._events.popleft()

    def add(self, event: Audited) -> None:
        """Tell it what happened."""
        if len(self._events) >= WAITING_MAX:
            self._events.popleft()
            self.missed += 1
        self._events.append(event)
        self._wake()

    def close(self) -> None:
        """End the iteration after what waits."""
        self._is_closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Warnings:
    """How many more warnings of a kind there may be: a token bucket."""

    def __init__(self, now: float) -> None:
        self._left = float(WARNINGS_BURST)
        self._at = now
        self.untold = 0

    def take(self, now: float) -> bool:
        """Return whether there may be one now."""
        gained = (now - self._at) * WARNINGS_PER_SECOND
        self._left, self._at = min(float(WARNINGS_BURST), self._left + gained), now
        if self._left < 1.0:
            self.untold += 1
            return False
        self._left -= 1.0
        return True


class Audit:
    """Counts, logs and passes on. What a culprit does again goes to the debug level."""

    def __init__(self, node: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._clock = clock
        self._warnings: dict[str, _Warnings] = {}
        self._watchers: WeakSet[AuditWatcher] = WeakSet()
        self._told: dict[tuple[str, str, str, str], set[int]] = {}  # hashes of what it tried
        self.counts: Counter[str] = Counter()

    def tell(self, event: Audited) -> None:
        """Take note of an event."""
        self.counts[event.kind] += 1
        for watcher in list(self._watchers):
            watcher.add(event)
        culprit = (event.kind, event.peer, _host_of(event.endpoint), event.rule)
        tried = self._told[culprit] = self._told.pop(culprit, set())
        # What is forbidden is an action and a name. Of all else the detail says nothing new.
        what = hash(event.detail if event.kind is AuditKind.FORBIDDEN else "")
        is_new = what not in tried and len(tried) < NAMES_TOLD_MAX
        if is_new:
            tried.add(what)
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        # As repr: what a peer put into a field cannot forge a line.
        facts = {name: getattr(event, name) for name in ("peer", "endpoint", "detail", "rule")}
        told = " ".join(f"{name}={value!r}" for name, value in facts.items() if value)
        level = logging.WARNING if is_new and self._may_warn(event.kind) else logging.DEBUG
        if level == logging.WARNING and (untold := self._warnings[event.kind].untold):
            told += f" (and {untold} others like it, which are at the debug level)"
            self._warnings[event.kind].untold = 0
        logger.log(level, "%s: %s %s", self._node, event.kind.value.replace("_", " "), told)

    def _may_warn(self, kind: str) -> bool:
        now = self._clock()
        if kind not in self._warnings:
            self._warnings[kind] = _Warnings(now)
        return self._warnings[kind].take(now)

    def watch(self) -> AuditWatcher:
        """Return an iterator of what happens from now on."""
        watcher = AuditWatcher()
        self._watchers.add(watcher)
        return watcher

    def close(self) -> None:
        """End all watching."""
        for watcher in list(self._watchers):
            watcher.close()


def _host_of(endpoint: str) -> str:
    """Return an endpoint without its port, which is another one every time; or the address."""
    return endpoint.rpartition(":")[0] if "://" in endpoint else endpoint
