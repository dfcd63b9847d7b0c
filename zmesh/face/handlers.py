"""What may be a handler, and running one that is a plain function in a thread."""

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Self

from zmesh.errors import InvalidOption
from zmesh.face.received import Message
from zmesh.face.threads import ThreadPool
from zmesh.face.typed import body_type, check_type

Handler = Callable[[Any], Any]
"""What answers a request: a coroutine function, or a plain one, which runs in a thread.

It takes the message, or its body as the type its parameter is annotated with.
"""

Middleware = Callable[[Message, Callable[[Message], Awaitable[Any]]], Awaitable[Any]]
"""What runs around handlers: it gets the request and what comes next, and returns the reply."""


def check_handler(handler: object) -> None:
    """Check that a handler can be called with what it is to handle.

    Raises:
        InvalidOption: it cannot.
    """
    expected = "a function of one argument, the message or its body"
    if not callable(handler):
        raise InvalidOption("handler", handler, expected)
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return  # built in: it says nothing of its parameters
    try:
        signature.bind(None)
    except TypeError as error:
        raise InvalidOption("handler", handler, f"{expected} ({error})") from error


def is_async(handler: Handler) -> bool:
    """Return whether the handler runs in the loop, rather than in a thread."""
    return _is(inspect.iscoroutinefunction, handler) or _is(inspect.isasyncgenfunction, handler)


def answers_in_parts(handler: Handler) -> bool:
    """Return whether the handler is a generator function, whose answer comes in parts."""
    return _is(inspect.isasyncgenfunction, handler) or _is(inspect.isgeneratorfunction, handler)


def _is(kind: Callable[[object], bool], handler: Handler) -> bool:
    # An object may have a __call__ of that kind.
    return kind(handler) or kind(getattr(handler, "__call__", None))  # noqa: B004


def adapted(handler: Handler) -> Handler:
    """Return the handler as one that takes the message, whatever it is annotated with.

    Raises:
        InvalidOption: an annotation that cannot be read, or a type nothing can be made into.
        MissingPackage: the type needs msgspec, which is not installed.
    """
    wanted = body_type(handler, Message)
    if wanted is not None:
        check_type(wanted)
    return handler if wanted is None else lambda message: handler(message.as_(wanted))


async def in_thread(
    threads: ThreadPool,
    loop: asyncio.AbstractEventLoop,
    handler: Handler,
    message: Message | None,
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


_END: Final = object()


class ThreadedParts:
    """A plain generator, whose steps run in threads, one after the other."""

    def __init__(
        self,
        threads: ThreadPool,
        loop: asyncio.AbstractEventLoop,
        generator: Generator[Any, None, Any],
    ) -> None:
        self._threads = threads
        self._loop = loop
        self._generator = generator
        self._lock = threading.Lock()  # a step whose waiter was cancelled goes on

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        part = await in_thread(self._threads, self._loop, self._step, None)
        if part is _END:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        """Close the generator, after the step that runs."""
        await in_thread(self._threads, self._loop, self._close, None)

    def _step(self, _: None) -> Any:
        with self._lock:
            return next(self._generator, _END)

    def _close(self, _: None) -> None:
        with self._lock:
            self._generator.close()
