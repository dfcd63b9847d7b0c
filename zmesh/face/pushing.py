"""Pushing jobs, when there is room for them in their queue."""

import asyncio
from dataclasses import dataclass

from zmesh.errors import Backpressure
from zmesh.events import Push
from zmesh.face.outgoing import Batch
from zmesh.face.posting import BACKLOG_MAX, BATCH_BYTES_MAX, BATCH_MAX, LARGE_BYTES, Posting
from zmesh.face.receipts import Receipt
from zmesh.face.room import RoomQueues
from zmesh.face.runner import Runner
from zmesh.message import Record
from zmesh.patterns.work_queue import WorkQueue


@dataclass(frozen=True, slots=True)
class JobTerms:
    """What is asked for jobs, beside their body. Times in seconds."""

    priority: int
    key: str | None
    ttl: float | None
    delay: float
    attempts_max: int | None


class Pushing:
    """The jobs of one node on their way into its queues."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queues: WorkQueue,
        runner: Runner,
        posting: Posting,
        queued_bytes_max: int,
    ) -> None:
        """Begin with nothing pushed.

        Args:
            loop: that all calls come from.
            queues: is asked for room.
            runner: takes the commands.
            posting: keeps the receipts.
            queued_bytes_max: bytes that may be in one queue.
        """
        self.rooms: RoomQueues[str] = RoomQueues(loop, self._has_room)
        self._queues = queues
        self._runner = runner
        self._posting = posting
        self._queued_bytes_max = queued_bytes_max

    async def push(
        self, record: Record, terms: JobTerms, receipt: Receipt | None = None
    ) -> Receipt:
        """Push one job once there is room; a receipt that is given expects it."""
        queue, receipt = record[1], receipt or Receipt()
        if self.rooms.is_free(queue):
            self._push([record], terms, receipt)
        else:
            await self.rooms.wait(queue)
            try:
                self._push([record], terms, receipt)
            finally:
                self.rooms.passed(queue)
        if self._runner.backlog >= BACKLOG_MAX or len(record[2]) >= LARGE_BYTES:
            await asyncio.sleep(0)  # a loop that does nothing but push would stop all others
        return receipt

    def push_nowait(self, record: Record, terms: JobTerms) -> Receipt:
        """Push one job now.

        Raises:
            Backpressure: there is no room, or others wait for it.
        """
        queue = record[1]
        if not self.rooms.is_free(queue):
            raise Backpressure(f"queue {queue!r}", *self._queues.queued(queue), instead="push")
        return self._push([record], terms, Receipt())

    async def push_many(self, queue: str, batch: Batch, terms: JobTerms) -> Receipt:
        """Push jobs in pieces as large as there is room for, under one receipt."""
        receipt = Receipt(expected=1)  # one more than pushed: not done before the last is
        self._posting.track(receipt)
        try:
            while not batch.is_exhausted:
                await batch.prepare()
                must_wait = not self.rooms.is_free(queue)
                if must_wait:
                    await self.rooms.wait(queue)
                try:
                    self._push_piece(queue, batch, terms, receipt)
                finally:
                    if must_wait:
                        self.rooms.passed(queue)
                if not batch.is_exhausted:
                    await asyncio.sleep(0)  # outcomes make room
        finally:
            receipt.expected -= 1
            if receipt.done:
                self._posting.done([receipt])
        return receipt

    def check(self, queue: str) -> None:
        """Raise UsageError where jobs wait in too many other queues."""
        self._queues.check_push(queue)

    def close(self) -> None:
        """Let go who waits for room: the node closes."""
        self.rooms.close()

    def _push_piece(self, queue: str, batch: Batch, terms: JobTerms, receipt: Receipt) -> None:
        if self._runner.backlog:
            self._runner.flush()  # what waits takes some of the room
        _, queued_bytes = self._queues.queued(queue)
        records = batch.take(
            max(1, min(BATCH_MAX, self._queues.room(queue))),
            min(BATCH_BYTES_MAX, self._queued_bytes_max - queued_bytes),
        )
        receipt.expected += len(records)
        try:
            self._push(records, terms, receipt)
        except BaseException:
            receipt.expected -= len(records)
            raise
        self._runner.flush()

    def _push(self, records: list[Record], terms: JobTerms, receipt: Receipt) -> Receipt:
        self._posting.track(receipt)
        self._runner.command(
            Push(
                records,
                terms.priority,
                receipt,
                terms.key,
                terms.ttl,
                terms.delay,
                terms.attempts_max,
            )
        )
        if len(records[0][2]) >= LARGE_BYTES:
            self._runner.flush()
        return receipt

    def _has_room(self, queue: str) -> bool:
        self._queues.check_push(queue)
        room = self._queues.room(queue)
        if 0 < room <= self._runner.backlog:  # what waits may have taken it
            self._runner.flush()
            room = self._queues.room(queue)
        return room > 0
