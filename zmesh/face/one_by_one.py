"""One at a time, threads and coroutines alike; and one thread that does things in order."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

from zmesh.errors import Closed, UsageError

T = TypeVar("T")


class Line:
    """Who stands in it has its turn in the order of asking; one has it at a time."""

    def __init__(self, what: str) -> None:
        self._what = what  # it is for; named in errors
        self._lock = threading.Lock()
        self._waiting: deque[Future[None]] = deque()
        self._is_taken = False
        self._is_closed = False
        self._holder: object = None

    async def take(self) -> None:
        """Wait for the turn; whoever has it must `leave`.

        Raises:
            UsageError: this task has it already.
            Closed: the line is closed.
        """
        task = asyncio.current_task()
        self._check_not_held_by(task)
        turn = self._ask()
        try:
            await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            if not turn.cancel() and turn.exception() is None:  # it had come just now
                self.leave()
            raise
        self._holder = task

    def take_in_thread(self) -> None:
        """Wait for the turn, in a thread that may block; else as `take`."""
        thread = threading.current_thread()
        self._check_not_held_by(thread)
        self._ask().result()
        self._holder = thread

    def _check_not_held_by(self, who: object) -> None:
        if who is not None and self._holder is who:
            raise UsageError(
                f"one {self._what} is open here already: leave its block before the next begins"
            )

    def _ask(self) -> Future[None]:
        turn: Future[None] = Future()
        with self._lock:
            if self._is_closed:
                raise Closed(self._what)
            if self._is_taken:
                self._waiting.append(turn)
                return turn
            self._is_taken = True
        turn.set_result(None)
        return turn

    def leave(self) -> None:
        """Let the next have its turn."""
        self._holder = None
        with self._lock:
            while self._waiting:
                turn = self._waiting.popleft()
                if turn.set_running_or_notify_cancel():
                    break
            else:
                self._is_taken = False
                return
        turn.set_result(None)

    def close(self) -> Future[None]:
        """Turn away all who wait, and whoever comes; the future is this call's own, last turn."""
        last: Future[None] = Future()
        with self._lock:
            self._is_closed = True
            waiting, self._waiting = self._waiting, deque()
            is_free, self._is_taken = not self._is_taken, True
            if not is_free:
                self._waiting.append(last)
        for turn in waiting:
            if turn.set_running_or_notify_cancel():
                turn.set_exception(Closed(self._what))
        if is_free:
            last.set_result(None)
        return last


class Worker:
    """A thread that does what it is told, in order; it begins with the first."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def call(self, function: Callable[[], T]) -> Future[T]:
        """Do this after all that was told before.

        Raises:
            Closed: the worker was closed.
        """
        done: Future[T] = Future()

        def job() -> None:
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001  # it belongs to whoever waits
                done.set_exception(error)
            else:
                done.set_result(result)

        with self._lock:
            if self._is_closed:
                raise Closed("database")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._jobs.put(job)
        return done

    async def run(self, function: Callable[[], T]) -> T:
        """Do this, and return what it returns. Cancelling waits until it was done.

        What becomes of a transaction must be known before anybody goes on.
        """
        waiting = asyncio.wrap_future(self.call(function))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            while not waiting.done():
                try:
                    await asyncio.wait([waiting])
                except asyncio.CancelledError:
                    continue
            waiting.exception()  # nobody waits for it
            raise

    def close(self) -> None:
        """End the thread after what it was told. Idempotent, and waits for nothing."""
        with self._lock:
            self._is_closed = True
            if self._thread is not None:
                self._jobs.put(None)

    def join(self, timeout: float) -> None:
        """Wait for its end, once there is nothing left to do."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
