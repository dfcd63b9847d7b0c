"""Waiting for room in peers' queues, first come first served."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class RoomQueues(Generic[K]):
    """Those who wait to send something: a queue for each place (a peer, a topic) that is full."""

    def __init__(self, loop: asyncio.AbstractEventLoop, has_room: Callable[[K], bool]) -> None:
        """`has_room` tells whether a place takes at least one message."""
        self._loop = loop
        self._has_room = has_room
        self._is_closed = False
        self._waiters: dict[K, deque[asyncio.Future[None]]] = {}

    def is_free(self, place: K) -> bool:
        """Return whether one may send at once: there is room, and nobody waits before."""
        return self._is_closed or (place not in self._waiters and self._has_room(place))

    async def wait(self, place: K) -> None:
        """Wait for one's turn and for room; then send without awaiting, and call `passed`."""
        waiter = self._loop.create_future()
        waiters = self._waiters.setdefault(place, deque())
        waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            self._remove(place, waiter)
            self.passed(place)
            raise
        # Only now: nobody who came later may slip in before this one runs.
        self._remove(place, waiter)

    def passed(self, place: K) -> None:
        """Let the next one go where there is room left."""
        if place in self._waiters and self._has_room(place):
            self._release(self._waiters[place][0])

    def passed_all(self) -> None:
        """Let the next one go everywhere where there is room."""
        for place in list(self._waiters):
            self.passed(place)

    def gone(self, place: K) -> None:
        """Let all go: there is nothing to wait for, and each will find out why."""
        for waiter in self._waiters.get(place, ()):
            self._release(waiter)

    def close(self) -> None:
        """Let everybody go, and keep nobody from now on."""
        self._is_closed = True
        for place in self._waiters:
            self.gone(place)

    def _remove(self, place: K, waiter: "asyncio.Future[None]") -> None:
        waiters = self._waiters[place]
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[place]

    @staticmethod
    def _release(waiter: "asyncio.Future[None]") -> None:
        if not waiter.done():
            waiter.set_result(None)
