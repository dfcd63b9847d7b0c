"""Handlers run in one task after the other, as long as none of them has to wait.

A task for each request costs as much as all else that is done to run its handler. So requests of a
service whose handlers do not wait share one, those that came together. Whether handlers wait is
found out by trying: the one that does keeps the task, and the others get their own.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Hashable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

APART: Final = 64
"""So many get tasks of their own before it is tried again whether some can share one."""


class Group(Protocol):
    """What items have in common that wait alike."""

    apart: int  # how many more get tasks of their own


R = TypeVar("R", bound=Hashable)


class Shifts(Generic[R]):
    """Runs what is added, from the loop's next iteration on.

    Args:
        loop: to run on.
        run: makes the coroutine of an item.
        on_begun: hears of each item, and the task it runs in, before its first step.
        on_ended: hears when an item has ended, and whether it was cancelled.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Callable[[R], Coroutine[Any, Any, None]],
        on_begun: Callable[[R, "asyncio.Task[None]"], None],
        on_ended: Callable[[R, bool], None],
    ) -> None:
        self._loop = loop
        self._run = run
        self._on_begun = on_begun
        self._on_ended = on_ended
        self._waiting: dict[R, tuple[Group, Context]] = {}
        self._task: asyncio.Task[None] | None = None  # runs what waits

    def add(self, item: R, group: Group) -> None:
        """Run an item, in a copy of the context of now."""
        if group.apart:
            group.apart -= 1
            self._run_apart(item)
            return
        self._waiting[item] = (group, copy_context())
        if self._task is None:
            self._task = self._loop.create_task(self._work())
            # A task that is cancelled before its first step runs none of its code.
            self._task.add_done_callback(self._leave)

    def remove(self, item: R) -> bool:
        """Forget an item that has not begun; return whether it had not."""
        return self._waiting.pop(item, None) is not None

    def clear(self) -> list[R]:
        """Forget all that have not begun, and return them."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting

    def _run_apart(self, item: R) -> None:
        task = self._loop.create_task(self._run(item))
        self._on_begun(item, task)
        task.add_done_callback(partial(self._on_done, item))

    def _on_done(self, item: R, task: "asyncio.Task[None]") -> None:
        self._on_ended(item, task.cancelled())

    def _leave(self, task: "asyncio.Task[None]") -> None:
        """Run what waits in tasks of their own: this one is not there for it any more."""
        if self._task is not task:
            return
        self._task = None
        waiting, self._waiting = self._waiting, {}
        for item, (_, context) in waiting.items():
            context.run(self._run_apart, item)

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "this runs in a task"  # noqa: S101
        while self._task is task and self._waiting and not task.cancelling():
            item = next(iter(self._waiting))
            group, context = self._waiting.pop(item)
            self._on_begun(item, task)
            is_cancelled = False
            try:
                await self._driven(task, group, self._run(item), context)
            except asyncio.CancelledError:
                is_cancelled = True
                raise
            finally:
                self._on_ended(item, is_cancelled)
        self._leave(task)

    @types.coroutine
    def _driven(
        self,
        task: "asyncio.Task[None]",
        group: Group,
        coroutine: Coroutine[Any, Any, None],
        context: Context,
    ) -> Generator[Any, Any, None]:
        """Run a coroutine in a context of its own; where it waits, others are not to wait."""
        try:
            waiting_for = context.run(coroutine.send, None)
            group.apart = APART
            self._leave(task)
            while True:
                try:
                    value = yield waiting_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001  # cancellation, which is the coroutine's
                    waiting_for = context.run(coroutine.throw, thrown)
                else:
                    waiting_for = context.run(coroutine.send, value)
        except StopIteration:
            return
