"""Running a handler: a coroutine under watch, or a plain function in a thread."""

import asyncio
import contextvars
import inspect
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final

from zmesh.errors import InvalidOption
from zmesh.face.received import Message
from zmesh.face.threads import ThreadPool

Handler = Callable[[Message], Any]
"""What answers a request: a coroutine function, or a plain one, which runs in a thread."""

BLOCKING: Final = 0.1
"""Seconds a coroutine may hold up the event loop before somebody should know."""


def is_async(handler: Handler) -> bool:
    """Return whether the handler is to be awaited, rather than run in a thread.

    Raises:
        InvalidOption: it is something that gives no answer.
    """
    call = getattr(handler, "__call__", None)  # noqa: B004  # an object may have an async __call__
    if inspect.isasyncgenfunction(handler) or inspect.isasyncgenfunction(call):
        raise InvalidOption("handler", handler, "a function that returns a reply, not a generator")
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(call)


@types.coroutine
def watched(
    coroutine: Coroutine[Any, None, Any], blocked: Callable[[float], None]
) -> Generator[Any, None, Any]:
    """Await a coroutine; call `blocked` with the seconds of each step that held up the loop."""
    error: BaseException | None = None
    while True:
        begun = time.monotonic()
        try:
            waiting_for = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as end:
            return end.value
        finally:
            took = time.monotonic() - begun
            if took > BLOCKING:
                blocked(took)
        error = None
        try:
            yield waiting_for
        except BaseException as thrown:  # noqa: BLE001  # cancellation, which is the coroutine's
            error = thrown


async def in_thread(
    threads: ThreadPool,
    loop: asyncio.AbstractEventLoop,
    handler: Handler,
    message: Message,
) -> Any:
    """Run a plain handler in a thread, in a copy of the context; return what it returns.

    Where that is an awaitable (a lambda around a coroutine function), it is awaited here.
    """
    done: asyncio.Future[Any] = loop.create_future()

    def finish(result: Any, error: BaseException | None) -> None:
        if done.done():
            return  # cancelled: the node closes
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def report(result: Any, error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(finish, result, error)
        except RuntimeError:
            if not loop.is_closed():
                raise

    def job() -> None:
        try:
            result = context.run(handler, message)
        except BaseException as error:  # noqa: BLE001  # it belongs to whoever awaits
            report(None, _awaitable(error))
        else:
            report(result, None)

    context = contextvars.copy_context()
    threads.run(job)
    result = await done
    return await result if inspect.isawaitable(result) else result


def _awaitable(error: BaseException) -> BaseException:
    """Return the error as a future can carry it: none takes StopIteration (as in PEP 479)."""
    if not isinstance(error, StopIteration):
        return error
    carried = RuntimeError("the handler raised StopIteration")
    carried.__cause__ = error
    return carried
