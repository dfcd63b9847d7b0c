"""Reading messages: a queue of deliveries, and the `async for` loops that take from it."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Self, get_args

from zmesh.actions import Delivery
from zmesh.errors import Closed, InvalidOption, UsageError
from zmesh.face.checks import is_seconds
from zmesh.face.loop_exit import dropping, left_by_break
from zmesh.face.received import Chunk, Message
from zmesh.face.verdicts import Settlements, Settler
from zmesh.face.verifying import Guard, Refusal
from zmesh.ids import NodeId
from zmesh.message import Outcome, Tag, extra, tags_of

Settle = Literal["auto", "manual"]
"""`auto`: asking for the next message accepts the one before. `manual`: the application does."""

CHUNK_MAX: Final = 128
"""Messages a loop takes at once, and after which it lets other tasks run."""


def check_settle(settle: str) -> None:
    """Raise InvalidOption where it is neither."""
    if settle not in get_args(Settle):
        raise InvalidOption("settle", settle, '"auto" or "manual"')


@dataclass(slots=True)
class Waiting:
    """The records `start` to `stop` (exclusive) of a delivery."""

    settler: Settler
    delivery: Delivery
    start: int
    stop: int
    since: float | None  # when it came, where messages in it may expire
    is_signed: bool = False  # some of it


class DeliveryQueue:
    """Deliveries that wait for a reader. Credit bounds it: nothing in it is settled yet."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settlements: Settlements,
        guard: Guard | None = None,
    ) -> None:
        self.settlements = settlements
        self.guard = guard  # of signatures
        self._readers = 0
        self._streak = 0  # messages taken one by one since other tasks last had their turn
        self._run: Chunk | None = None  # what the only reader took at once
        self._loop = loop
        self._thread = threading.get_ident()
        self._items: deque[Waiting] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_closed = False
        self._failure: str | None = None

    def put(self, settler: Settler, delivery: Delivery, start: int, stop: int) -> None:
        """Add the records `start` to `stop` (exclusive) of a delivery, and wake a reader."""
        if self._is_closed:
            settler.abandon(delivery, start, stop - 1)
            return
        tags = tags_of(delivery.records)
        since = self._loop.time() if Tag.TTL_MS in tags else None
        is_signed = self.guard is not None and Tag.SIGNATURE in tags
        self._items.append(Waiting(settler, delivery, start, stop, since, is_signed))
        self._wake_one()

    def take(self) -> Chunk | None:
        """Take what is next, or None where nothing is: one by one where several readers compete.

        Raises:
            StopAsyncIteration: the queue was closed.
            Closed: it was closed by a failure.
        """
        alone = self._readers == 1 and not self._waiters
        return self._take(count_max=CHUNK_MAX if alone else 1)

    async def take_one(self) -> Chunk:
        """Wait for one message and take it; errors are those of `take`."""
        if self._streak >= CHUNK_MAX:
            self._streak = 0
            await asyncio.sleep(0)
        self._share_run()
        while (chunk := self._take(count_max=1)) is None:
            self._streak = 0
            await self.wait()
            self._share_run()
        self._streak += 1
        return chunk

    def _take(self, *, count_max: int) -> Chunk | None:
        if self._is_closed:
            if self._failure is not None:
                raise Closed(self._failure)
            raise StopAsyncIteration
        while self._items:
            waiting = self._items[0]
            chunk = self._chunk_of(waiting, count_max)
            if waiting.start == waiting.stop:
                self._items.popleft()
            if chunk is not None:
                if self._items:
                    self._wake_one()
                return chunk
        return None

    async def take_batch(self, count_max: int, wait_s: float) -> list[Chunk]:
        """Wait for messages, `wait_s` seconds for more after the first, and take them at once.

        Errors are those of `take`.
        """
        if self._streak >= CHUNK_MAX:
            self._streak = 0
            await asyncio.sleep(0)
        chunks: list[Chunk] = []
        while not (count := self._take_into(chunks, count_max)):
            self._streak = 0
            await self.wait()
        if count < count_max and wait_s > 0:
            try:
                async with asyncio.timeout(wait_s):
                    while count < count_max:
                        await self.wait()
                        count += self._take_into(chunks, count_max - count)
            except (TimeoutError, StopAsyncIteration):
                pass  # these are the messages there are
            except BaseException:
                self.put_back(chunks)
                raise
        self._streak += count
        return chunks

    def _take_into(self, chunks: list[Chunk], count_max: int) -> int:
        """Take what waits, up to so many; return how many."""
        count = 0
        self._share_run()
        while count < count_max:
            chunk = self._take(count_max=count_max - count)
            self._run = None  # all of it is handed over
            if chunk is None:
                break
            chunks.append(chunk)
            count += chunk.count
        return count

    def joined(self) -> None:
        """Count a reader more; it shares what the only one before had taken and not read."""
        self._readers += 1
        self._share_run()

    def _share_run(self) -> None:
        if self._run is not None:
            run, self._run = self._run, None
            stop = run.stop
            unread = run.give_up()
            if unread < stop:
                self._items.appendleft(Waiting(run.settler, run.delivery, unread, stop, None))

    def _chunk_of(self, waiting: Waiting, count_max: int) -> Chunk | None:
        """Take a run of what waits, or settle its first message as expired."""
        settler, delivery, start = waiting.settler, waiting.delivery, waiting.start
        is_looked_at = waiting.is_signed or (self.guard is not None and self.guard.is_required)
        if waiting.since is not None or count_max == 1 or is_looked_at:
            waiting.start += 1
            if waiting.since is not None and self._has_expired(delivery, start, waiting.since):
                settler.settle(delivery, start, start, Outcome.EXPIRED)
                return None
            refusal = self._refusal(delivery, start)
            if refusal is not None:
                settler.settle(delivery, start, start, *refusal)
                return None
            return Chunk(settler, delivery, start, waiting.start)
        waiting.start = min(waiting.stop, start + count_max)
        self._run = Chunk(settler, delivery, start, waiting.start)
        return self._run

    def _refusal(self, delivery: Delivery, index: int) -> Refusal | None:
        """Return the outcome of a message whose signature is at fault, or missing."""
        guard = self.guard
        if guard is None or not (guard.is_required or len(delivery.records[index]) > 3):
            return None
        return guard.refusal(delivery, index)

    def _has_expired(self, delivery: Delivery, index: int, since: float) -> bool:
        ttl_ms = extra(delivery.records[index], Tag.TTL_MS)
        return isinstance(ttl_ms, int) and self._loop.time() - since > ttl_ms / 1000

    async def wait(self) -> None:
        """Wait until there may be something to take."""
        self.settlements.hurry()
        if self._items:
            return  # what was just settled made room for what this node sends itself
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # Only a wake-up was for us, never a message: pass it on.
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif self._items:
                self._wake_one()
            raise

    def left(self, chunk: Chunk | None, outcome: Outcome | None) -> None:
        """Count a reader less: settle the message it held, keep for others what it had not read.

        Without an outcome (`settle="manual"`) the message stays the application's. It may come
        from any thread, because the garbage collector does.
        """
        if self._loop.is_closed():
            return
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.left, chunk, outcome)
            return
        self._readers -= 1
        if chunk is None:
            return
        if chunk is self._run:
            self._run = None
        unread = chunk.leave(outcome)
        if unread == chunk.stop:
            return
        if self._is_closed:
            chunk.settler.abandon(chunk.delivery, unread, chunk.stop - 1)
            return
        # What can expire is taken one by one, so none of it is left here.
        self._items.appendleft(Waiting(chunk.settler, chunk.delivery, unread, chunk.stop, None))
        self._wake_one()

    def left_batch(self, chunks: Sequence[Chunk], outcome: Outcome | None) -> None:
        """Count a reader of batches less, and settle so what it held; see `left`."""
        if self._loop.is_closed():
            return
        if threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self.left_batch, chunks, outcome)
            return
        self._readers -= 1
        if outcome is not None:
            for chunk in chunks:
                if outcome is Outcome.ACCEPTED:
                    chunk.accept_all()
                else:
                    chunk.judge_rest(outcome)

    def put_back(self, chunks: Sequence[Chunk]) -> None:
        """Put messages back that were taken one by one, and not read after all."""
        for chunk in reversed(chunks):
            start = chunk.stop - chunk.count
            if self._is_closed:
                chunk.settler.abandon(chunk.delivery, start, chunk.stop - 1)
            else:
                self._items.appendleft(self._again(chunk, start))
                self._wake_one()

    def _again(self, chunk: Chunk, start: int) -> Waiting:
        """Return what waits once more, from an index of a chunk on."""
        return Waiting(chunk.settler, chunk.delivery, start, chunk.stop, None)

    def give_back(self, node: NodeId) -> None:
        """Abandon what came from a node and was not read."""
        self._share_run()
        items, self._items = self._items, deque()
        for waiting in items:
            if waiting.delivery.source.node == node:
                waiting.settler.abandon(waiting.delivery, waiting.start, waiting.stop - 1)
            else:
                self._items.append(waiting)

    def close(self, failure: str | None = None) -> None:
        """End all loops over the queue, with `Closed` where it is a failure; abandon the rest.

        A loop ends after the message it has in hand, whatever more it had taken.
        """
        self._is_closed = True
        self._failure = failure
        self._share_run()
        while self._items:
            left = self._items.popleft()
            left.settler.abandon(left.delivery, left.start, left.stop - 1)
        while self._waiters:
            self._wake_one()

    def __len__(self) -> int:
        """Return the number of messages that wait."""
        return sum(waiting.stop - waiting.start for waiting in self._items)

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return


class Reader:
    """One loop over a queue. Dropping it ends the loop: see `loop_exit` for what that means."""

    __slots__ = ("_chunk", "_has_left", "_is_asking", "_is_auto", "_queue", "_streak")

    def __init__(self, queue: DeliveryQueue, settle: Settle) -> None:
        self._queue = queue
        self._is_auto = settle == "auto"
        self._chunk: Chunk | None = None
        self._has_left = False
        self._is_asking = False
        self._streak = 0  # messages read since other tasks last had their turn
        queue.joined()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """Accept the message before, and return the next."""
        while True:
            chunk = self._chunk
            if chunk is not None:
                for message in chunk.messages:
                    chunk.current = message
                    if not chunk.noted:
                        self._queue.settlements.note(chunk)
                    return message
            await self._next_chunk()

    async def _next_chunk(self) -> None:
        """Settle the chunk that was read, and take the next one; nothing is taken before."""
        if self._is_asking:
            raise UsageError("another task waits in this loop: begin one of its own")
        self._is_asking = True
        try:
            if self._chunk is not None:
                self._finish(self._chunk)
            if self._streak >= CHUNK_MAX:
                self._streak = 0
                await asyncio.sleep(0)
            while (chunk := self._queue.take()) is None:
                self._streak = 0
                await self._queue.wait()
            self._streak += chunk.count
            chunk.noted = not self._is_auto  # a manual reader's progress says nothing
            self._chunk = chunk
        finally:
            self._is_asking = False

    def _finish(self, chunk: Chunk) -> None:
        if self._is_auto:
            chunk.accept_all()
        chunk.current = None  # ends the circle of chunk and message
        self._chunk = None

    def leave(self, outcome: Outcome) -> None:
        """End the loop: settle so the message that was being handled."""
        if self._has_left:
            return
        self._has_left = True
        chunk, self._chunk = self._chunk, None
        self._queue.left(chunk, outcome if self._is_auto else None)

    def __del__(self) -> None:
        # A message left by `break` was handled, one left by an exception was not.
        handled = left_by_break(dropping())
        self.leave(Outcome.ACCEPTED if handled else Outcome.MODIFIED)


class BatchReader:
    """One loop over a queue that takes messages by the batch.

    Dropping it ends the loop, as it does a `Reader`'s; the outcome is of the whole batch.
    """

    __slots__ = ("_chunks", "_count_max", "_has_left", "_is_asking", "_is_auto", "_queue", "_wait")

    def __init__(
        self, queue: DeliveryQueue, settle: Settle, count_max: int, wait_s: float
    ) -> None:
        self._queue = queue
        self._is_auto = settle == "auto"
        self._count_max = count_max
        self._wait = wait_s
        self._chunks: list[Chunk] = []  # of the batch that the application has
        self._has_left = False
        self._is_asking = False
        queue.joined()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Message]:
        """Accept the batch before, and return the next."""
        if self._is_asking:
            raise UsageError("another task waits in this loop: begin one of its own")
        self._is_asking = True
        try:
            chunks, self._chunks = self._chunks, []
            if self._is_auto:
                for chunk in chunks:
                    chunk.accept_all()
            self._chunks = await self._queue.take_batch(self._count_max, self._wait)
        finally:
            self._is_asking = False
        return messages_of(self._chunks)

    def leave(self, outcome: Outcome) -> None:
        """End the loop: settle so what has no outcome of the batch that was being handled."""
        if self._has_left:
            return
        self._has_left = True
        chunks, self._chunks = self._chunks, []
        self._queue.left_batch(chunks, outcome if self._is_auto else None)

    def __del__(self) -> None:
        handled = left_by_break(dropping())  # as of a Reader
        self.leave(Outcome.ACCEPTED if handled else Outcome.MODIFIED)


def messages_of(chunks: Sequence[Chunk]) -> list[Message]:
    """Return all messages of what was taken."""
    if len(chunks) == 1:
        return list(chunks[0].messages)
    messages: list[Message] = []
    for chunk in chunks:
        messages += chunk.messages
    return messages


def check_batch(max_count: int, max_wait: float) -> None:
    """Raise InvalidOption where batches cannot be of that size, or time."""
    if type(max_count) is not int or max_count < 1:
        raise InvalidOption("max_count", max_count, "a whole number, 1 or more")
    if not (is_seconds(max_wait) and max_wait >= 0):
        raise InvalidOption("max_wait", max_wait, "seconds, 0 or more")


class Inbox:
    """Messages for the application: `async for message in ...`.

    Every loop is its own reader, and several compete: each message goes to one of them.

    `await anext(...)` takes a single message. No loop tells how its handling ends, so it is
    accepted as it is taken; with `settle="manual"` it is yours to accept, reject or release. Any
    number of tasks may do so at once.
    """

    def __init__(self, queue: DeliveryQueue, settle: Settle) -> None:
        self._queue = queue
        self._settle: Settle = settle

    def __aiter__(self) -> Reader:
        return Reader(self._queue, self._settle)

    async def __anext__(self) -> Message:
        chunk = await self._queue.take_one()
        message = next(chunk.messages)
        if self._settle == "auto":
            chunk.accept_all()
        return message

    def batches(self, max_count: int = 1000, max_wait: float = 0.0) -> BatchReader:
        """Read many messages at once: `async for batch in inbox.batches()`, each batch a list.

        Asking for the next batch accepts the one before; leaving the loop by an exception gives
        all of the batch back. Messages that were settled one by one are left alone, and with
        `settle="manual"` all are. It is a loop of its own, and competes with others.

        Args:
            max_count: messages in a batch at most. A batch has what is there, at least one.
            max_wait: how many seconds to wait for more after the first came.

        Raises:
            InvalidOption: `max_count` is no number from 1, or `max_wait` no time.
        """
        check_batch(max_count, max_wait)
        return BatchReader(self._queue, self._settle, max_count, max_wait)

    def __len__(self) -> int:
        """Return the number of messages that wait to be read."""
        return len(self._queue)
