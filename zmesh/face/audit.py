"""The audit log: who tried what they may not, for people and for the application."""

import asyncio
import logging
from collections import Counter, deque
from typing import Final
from weakref import WeakSet

from zmesh.actions import Audited
from zmesh.errors import Closed

logger = logging.getLogger("zmesh.audit")

WAITING_MAX: Final = 1024
"""Events kept for a watcher that does not keep up; the oldest go first."""

TOLD_MAX: Final = 4096
"""Culprits and kinds remembered as told: a flood of new ones pushes out the oldest."""


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


class Audit:
    """Counts, logs and passes on. What a culprit does again goes to the debug level."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._watchers: WeakSet[AuditWatcher] = WeakSet()
        self._told: dict[tuple[str, str, str, str], int] = {}
        self.counts: Counter[str] = Counter()

    def tell(self, event: Audited) -> None:
        """Take note of an event."""
        self.counts[event.kind] += 1
        for watcher in list(self._watchers):
            watcher.add(event)
        culprit = (event.kind, event.peer, event.endpoint.rpartition(":")[0], event.rule)
        times = self._told.pop(culprit, 0) + 1
        self._told[culprit] = times
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        # As repr: what a peer put into a field cannot forge a line.
        facts = {name: getattr(event, name) for name in ("peer", "endpoint", "detail", "rule")}
        told = " ".join(f"{name}={value!r}" for name, value in facts.items() if value)
        level = logging.WARNING if times == 1 else logging.DEBUG
        logger.log(level, "%s: %s %s", self._node, event.kind.value.replace("_", " "), told)

    def watch(self) -> AuditWatcher:
        """Return an iterator of what happens from now on."""
        watcher = AuditWatcher()
        self._watchers.add(watcher)
        return watcher

    def close(self) -> None:
        """End all watching."""
        for watcher in list(self._watchers):
            watcher.close()
