"""Events on their way from sockets to the runner."""

import asyncio
from collections.abc import Callable

from zmesh.events import Event


class News:
    """Keeps events in order, and never hands them over from inside a call the runner made.

    What happens while an order is performed is told `later`, with the loop's next iteration. What
    a descriptor or timer woke us for is told `now`, because a detour through the loop is a tenth
    of a round trip.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_events: Callable[[list[Event]], None]
    ) -> None:
        self._loop = loop
        self._on_events = on_events
        self._events: list[Event] = []
        self._planned: asyncio.Handle | None = None
        self._is_closed = False

    def later(self, event: Event) -> None:
        """Tell it with the next iteration of the loop, or with whatever is told before."""
        if self._is_closed:
            return
        self._events.append(event)
        if self._planned is None:
            self._planned = self._loop.call_soon(self._tell)

    def now(self, *events: Event) -> None:
        """Tell these and all that wait. Only for callbacks of the loop, see the class."""
        if self._is_closed:
            return
        if self._events:
            self._events += events
            self._tell()
        elif events:
            self._on_events(list(events))

    def close(self) -> None:
        """Tell nothing any more."""
        self._is_closed = True
        self._events.clear()
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def _tell(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        if self._events:
            events, self._events = self._events, []
            self._on_events(events)
