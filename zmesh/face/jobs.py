"""Pulling jobs: what a consumer of a queue holds, and all such of a node."""

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from zmesh.actions import Delivery
from zmesh.errors import Closed, UsageError
from zmesh.events import Event, Pull, Unpull
from zmesh.face.inbox import (
    BatchReader,
    DeliveryQueue,
    Inbox,
    Reader,
    Settle,
    check_batch,
    messages_of,
)
from zmesh.face.received import Chunk, Message
from zmesh.face.verdicts import ClosableSettler
from zmesh.ids import NodeId
from zmesh.message import Outcome

logger = logging.getLogger(__name__)


class Jobs(Inbox):
    """Jobs of a queue, for as long as the `async with` block runs.

    They are read as an inbox is, or in batches. At most `prefetch` jobs are here without outcome;
    what has none when the block ends goes back, to be done by others or later.

    `await anext(jobs)` takes a single job, as `batch` takes several: asking for the next accepts
    it, as does leaving the block; an exception that leaves the block gives it back. What a task
    took that has failed since goes back as well.
    """

    def __init__(
        self,
        registry: "Pulls",
        queue: DeliveryQueue,
        name: str,
        prefetch: int,
        settle: Settle,
    ) -> None:
        super().__init__(queue, settle)
        self.name = name
        self.prefetch = prefetch
        self.settler = ClosableSettler(queue.settlements)
        self._registry = registry
        self._token = 0  # none yet
        self._batch: list[Chunk] = []  # accepted when the next is asked for
        self._batch_reader: asyncio.Task[object] | None = None

    def __aiter__(self) -> Reader:
        self._check_entered()
        return super().__aiter__()

    async def __anext__(self) -> Message:
        self._check_entered()
        is_auto = self._settle == "auto"
        if is_auto:
            self._settle_batch()
        chunk = await self._queue.take_one()
        if is_auto:
            self._batch = [chunk]
        return next(chunk.messages)

    def batches(self, max_count: int = 1000, max_wait: float = 0.0) -> BatchReader:
        """Read many jobs at once, in a loop, `prefetch` at most; see `Inbox.batches`."""
        self._check_entered()
        check_batch(max_count, max_wait)
        return super().batches(min(max_count, self.prefetch), max_wait)

    async def batch(self, max_count: int = 100, max_wait: float = 0.05) -> list[Message]:
        """Wait for jobs, and return several at once; none where no more will come.

        With `settle="auto"` asking for the next batch accepts the one before, as does leaving the
        block; leaving it by an exception gives the batch back, as not handled. Jobs that were
        settled one by one are left alone. One task reads batches so; with `settle="manual"` any
        number may.

        Args:
            max_count: return when there are so many, or as many as `prefetch` allows; half of
                that lets the next ones come while these are worked on.
            max_wait: return so many seconds after the first one came, whatever there is then.

        Raises:
            InvalidOption: `max_count` is no number from 1, or `max_wait` no time.
            UsageError: another task reads batches, or the block has not begun.
            Closed: the node stopped.
        """
        self._check_entered()
        check_batch(max_count, max_wait)
        if self._settle == "auto":
            self._settle_batch()
        try:
            chunks = await self._queue.take_batch(min(max_count, self.prefetch), max_wait)
        except StopAsyncIteration:
            return []
        if self._settle == "auto":
            self._batch = chunks
        return messages_of(chunks)

    def _settle_batch(self) -> None:
        """Accept what was taken before; what a task took that failed since goes back."""
        reader = asyncio.current_task()
        before = self._batch_reader
        # One that has ended may have been that of an `asyncio.wait_for`, in a loop of the same.
        if before is not reader and before is not None and not before.done():
            raise UsageError(
                "another task takes jobs here, and asking for the next accepts what was taken "
                "before: pull with settle='manual', or once for each task"
            )
        self._end_batch(goes_back=self._has_failed(before))
        self._batch_reader = reader

    def _end_batch(self, *, goes_back: bool) -> None:
        batch, self._batch = self._batch, []
        for chunk in batch:
            if goes_back:
                chunk.judge_rest(Outcome.MODIFIED)
            else:
                chunk.accept_all()

    def _has_failed(self, task: "asyncio.Task[object] | None") -> bool:
        """Return whether a task has ended by an exception and left jobs; it is logged here."""
        if not self._batch or task is None or not task.done():
            return False
        if task.cancelled():
            return True
        error = task.exception()
        if error is not None:  # who has asked for it is taken to tell of it
            logger.warning(
                "a task failed that took jobs of %r: they go back", self.name, exc_info=error
            )
        return error is not None

    def _check_entered(self) -> None:
        if not self._token:
            raise UsageError("pulling begins with `async with`: read the jobs inside the block")

    async def __aenter__(self) -> Self:
        """Begin to pull. Producers hear of it at once.

        Raises:
            UsageError: it was entered before, or there are too many.
            Closed: the node was closed.
        """
        if self._token:
            raise UsageError("these jobs were pulled before: call node.pull(...) again")
        self._token = self._registry.add(self, self._queue)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Pull no more; what has no outcome goes back."""
        self._end_batch(goes_back=error is not None or self._has_failed(self._batch_reader))
        self._registry.remove(self._token)


class Pulls:
    """All pulls of a node, by the token the engine knows them by."""

    def __init__(
        self,
        command: Callable[[Event], None],
        flush: Callable[[], None],
        pulls_max: int,
    ) -> None:
        """Begin with none.

        Args:
            command: gives the engine a command.
            flush: lets it have all commands and verdicts there are.
            pulls_max: how many there may be.
        """
        self._command = command
        self._flush = flush
        self._pulls_max = pulls_max
        self._pulls: dict[int, tuple[Jobs, DeliveryQueue]] = {}
        self._last_token = 0
        self._closed: str | None = None

    def __len__(self) -> int:
        return len(self._pulls)

    def add(self, jobs: Jobs, queue: DeliveryQueue) -> int:
        """Ask for jobs; return the token."""
        if self._closed is not None:
            raise Closed(self._closed)
        if len(self._pulls) >= self._pulls_max:
            raise UsageError(f"this node has {self._pulls_max} pulls already: end some first")
        self._last_token += 1
        self._pulls[self._last_token] = (jobs, queue)
        self._command(Pull(self._last_token, jobs.name, jobs.prefetch))
        return self._last_token

    def remove(self, token: int) -> None:
        """End a pull: the verdicts that were given still count, all else goes back."""
        if token not in self._pulls:
            return
        jobs, queue = self._pulls.pop(token)
        self._flush()
        jobs.settler.is_open = False
        self._command(Unpull(token))
        queue.close()
        if queue.guard is not None:
            queue.guard.give_back()

    def deliver(self, deliveries: list[tuple[Delivery, int]]) -> None:
        """Hand out jobs; those of a pull that is over went back with it."""
        for delivery, token in deliveries:
            if token in self._pulls:
                jobs, queue = self._pulls[token]
                queue.put(jobs.settler, delivery, 0, len(delivery.records))

    def give_back(self, node: NodeId) -> None:
        """Give back the jobs of one producer that nobody has begun."""
        for _, queue in self._pulls.values():
            queue.give_back(node)

    def drain(self) -> None:
        """Take no more jobs: what was not read goes back, the others are finished."""
        for token, (_, queue) in self._pulls.items():
            self._command(Unpull(token, drains=True))
            queue.close()

    def close(self, failure: str | None = None) -> None:
        """End all loops over jobs, and take no more."""
        self._closed = failure or "node"
        for jobs, queue in self._pulls.values():
            jobs.settler.is_open = False
            queue.close(failure)
        self._pulls.clear()
