"""Handlers that wait for nothing share a task, one after the other; each runs in its own context.

A task costs more than most such handlers. So one task begins with a request, and where its
handler comes to its end without waiting for anything, with the next. Where a handler waits, the
task is its own from then on, and another one goes on with the others: so each handler sees one
task from its first step to its last, which is what `asyncio.timeout` and `TaskGroup` build on, and
who cancels it cancels nobody else. A task that something of a handler still refers to is not
shared any further: whoever keeps it means that handler. Neither is one that has got a name, an
attribute, or a callback of it.
"""

import time
import types
from asyncio import Task
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from gc import get_referents
from sys import getrefcount
from typing import Any, Final, NamedTuple
from weakref import getweakrefcount

BLOCKING: Final = 0.1
"""Seconds a coroutine may hold up the event loop before somebody should know."""


class Begun(NamedTuple):
    """A coroutine that waits, the context it runs in, and what it waits for."""

    coroutine: Coroutine[Any, Any, None]
    context: Context
    waits_for: Any


def begin(coroutine: Coroutine[Any, Any, None]) -> Begun | None:
    """Run a coroutine to its end, or to where it waits, in a context of its own.

    Raises:
        BaseException: whatever the coroutine does.
    """
    context = copy_context()
    try:
        waits_for = context.run(coroutine.send, None)
    except StopIteration:
        return None
    return Begun(coroutine, context, waits_for)


@types.coroutine
def finish(begun: Begun, blocked: Callable[[float], None]) -> Generator[Any, None, None]:
    """Run what has begun to its end, by the task it began in.

    `blocked` is called with the seconds of each step that held up the loop.
    """
    coroutine, context, waits_for = begun
    error: BaseException | None = None
    while True:
        try:
            yield waits_for
        except BaseException as thrown:  # noqa: BLE001  # cancellation, which is the coroutine's
            error = thrown
        step_at = time.monotonic()
        try:
            if error is None:
                waits_for = context.run(coroutine.send, None)
            else:
                waits_for = context.run(coroutine.throw, error)
        except StopIteration:
            return
        finally:
            took = time.monotonic() - step_at
            if took > BLOCKING:
                blocked(took)
        error = None


class Marks(NamedTuple):
    """What there is at a task, to which a handler may add."""

    name: str
    references: int
    weak_references: int
    belongings: int


def marks_of(task: "Task[Any]") -> Marks:
    """Look at a task that has had no handler yet."""
    return Marks(
        task.get_name(), getrefcount(task), getweakrefcount(task), len(get_referents(task))
    )


def is_kept(task: "Task[Any]", before: Marks) -> bool:
    """Return whether a handler that ended left something at its task: it is no other's.

    What a task refers to are its attributes and its callbacks, too: these are to be called when
    that handler's task is done, not when the next one's is.
    """
    return bool(
        task.cancelling()
        or task.get_name() != before[0]
        or getrefcount(task) > before[1]
        or getweakrefcount(task) > before[2]
        or len(get_referents(task)) > before[3]
    )
