"""Work that blocks on the disk, in threads: the event loop never waits for it."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from zmesh.face.threads import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")


class Disk:
    """Runs functions in threads. Who no longer waits for one cannot stop it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._threads = ThreadPool("zmesh-files")

    def start(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        """Run a function; the future has what it returns or raises."""
        done: asyncio.Future[T] = self._loop.create_future()

        def finish(result: T | None, error: BaseException | None) -> None:
            if done.done():
                return  # nobody waits for it any more
            if error is None:
                done.set_result(result)  # type: ignore[arg-type]
            else:
                done.set_exception(error)

        def job() -> None:
            result: T | None = None
            failure: BaseException | None = None
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
                failure = error
            try:
                self._loop.call_soon_threadsafe(finish, result, failure)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise

        self._threads.run(job)
        done.add_done_callback(_look_at)
        return done

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function, and return what it returns."""
        return await self.start(function, *args, **kwargs)

    def close(self) -> None:
        """End the threads that are idle; the others end with what they do."""
        self._threads.close(timeout=0.1)


async def has_ended(waiting: asyncio.Future[T], seconds: float) -> bool:
    """Wait so long for a future, at most, and return whether it is done; it is left as it is."""
    return bool((await asyncio.wait([waiting], timeout=seconds))[0])


def _look_at(done: asyncio.Future[T]) -> None:
    """Have no warning where nobody waits any more for what failed."""
    if not done.cancelled():
        done.exception()
