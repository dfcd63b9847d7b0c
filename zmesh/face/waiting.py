"""What tasks wait for that are woken together: their answers come in runs."""

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextvars import Context
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

_NOTHING: Final[Any] = object()


class Waiting(Generic[T]):
    """What one task awaits, once: a result, which somebody sets and then wakes the task.

    It is what `asyncio.isfuture` calls compatible with a future, as far as a task asks of what it
    waits for. A future would have the loop call back for each task; these share one call.
    """

    __slots__ = (
        "_asyncio_future_blocking", "_cancelled", "_context", "_loop", "_wake", "answer",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._asyncio_future_blocking = False
        self._loop = loop
        self._wake: Callable[[Any], object] | None = None
        self._cancelled: asyncio.CancelledError | None = None
        self.answer: T = _NOTHING

    @property
    def is_over(self) -> bool:
        """Whether it has its result, or nobody waits for one any more."""
        return self._cancelled is not None or self.answer is not _NOTHING

    def wake(self) -> None:
        """Let the task go on, within this call; to be called from the loop, of no task."""
        wake, self._wake = self._wake, None
        if wake is not None:
            self._context.run(wake, self)

    def __await__(self) -> Generator[Any, None, T]:
        if self.answer is _NOTHING:
            self._asyncio_future_blocking = True
            yield self
        return self.answer

    # What a task asks of it

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop it belongs to."""
        return self._loop

    def add_done_callback(self, wake: Callable[[Any], object], *, context: Context) -> None:
        """Take note of how the task is to go on."""
        self._wake, self._context = wake, context

    def cancel(self, msg: object = None) -> bool:
        """Let the task go on without a result; False where it has one."""
        if self.is_over:
            return False
        error = asyncio.CancelledError
        self._cancelled = error() if msg is None else error(msg)
        self._loop.call_soon(self.wake)
        return True

    def result(self) -> T:
        """Return the result; raises CancelledError where there is none."""
        if self._cancelled is not None:
            raise self._cancelled
        return self.answer


class Waking:
    """Wakes tasks, all that got their results in one turn of the loop in one call of it.

    Args:
        loop: of the tasks.
        before: is called before they are woken: `Runner.hold`.
        after: is called when they have gone as far as they do: `Runner.let_go`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        before: Callable[[], None],
        after: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._before = before
        self._after = after
        self._ready: list[Waiting[Any]] = []

    def add(self, some: Sequence[Waiting[Any]]) -> None:
        """Have tasks woken whose results are there."""
        if not self._ready:
            self._loop.call_soon(self._wake)
        self._ready += some

    def _wake(self) -> None:
        ready, self._ready = iter(self._ready), []
        self._before()
        try:
            for waiting in ready:
                waiting.wake()
        finally:
            self._after()
            left = list(ready)  # where one of them ends the loop itself, by SystemExit or such
            if left:
                self.add(left)
