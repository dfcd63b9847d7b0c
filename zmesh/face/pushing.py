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
from zmesh.face.signing import Sign, Signing
from zmesh.face.storing_posts import DurablePosting
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
    durable: bool = False  # on disk first

    @property
    def is_watched(self) -> bool:
        """Whether a job is in memory even where it is on disk as well."""
        return self.key is not None or self.ttl is not None or self.delay > 0

    def sign(self, signing: Signing, sign: bool | None) -> Sign | None:
        """Return what signs jobs on these terms; None where nothing does."""
        return signing.for_target(sign, self.priority, self.key, self.ttl, self.delay)


class Pushing:
    """The jobs of one node on their way into its queues."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        queues: WorkQueue,
        runner: Runner,
        posting: Posting,
        storing: DurablePosting,
        queued_bytes_max: int,
    ) -> None:
        """Begin with nothing pushed.

        Args:
            loop: that all calls come from.
            queues: is asked for room.
            runner: takes the commands.
            posting: keeps the receipts.
            storing: has durable jobs on disk.
            queued_bytes_max: bytes that may be in one queue.
        """
        self.rooms: RoomQueues[str] = RoomQueues(loop, self._has_room)
        self._queues = queues
        self._runner = runner
        self._posting = posting
        self._storing = storing
        self._queued_bytes_max = queued_bytes_max

    async def push(
        self, record: Record, terms: JobTerms, receipt: Receipt | None = None
    ) -> Receipt:
        """Push one job once there is room; a receipt that is given expects it.

        Raises:
            JournalFull, JournalBroken, Closed: a durable one is not on disk.
        """
        if terms.durable:
            return await self._store(record, terms, receipt)
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
        if terms.durable:
            return await self._store_many(queue, batch, terms)
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

    def is_durable(self, durable: bool | None) -> bool:
        """Return whether jobs are stored first: as said, or where there is storage.

        Raises:
            UsageError: there is none.
        """
        return self._storing.is_wanted(durable)

    def check(self, *queues: str) -> None:
        """Raise UsageError where jobs wait in too many queues for some more in all of these."""
        if self._runner.backlog and any(self._queues.queued(queue)[0] == 0 for queue in queues):
            self._runner.flush()  # what waits may make queues as well
        self._queues.check_push(*queues)

    def close(self) -> None:
        """Let go who waits for room: the node closes."""
        self.rooms.close()

    async def _store(self, record: Record, terms: JobTerms, given: Receipt | None) -> Receipt:
        """Push one job, and return once it is on disk."""
        receipt = given or Receipt(is_stored=True)
        await self._wait_for_room(record[1], terms)
        self._posting.track(receipt)
        stored = self._storing.store(_push([record], terms, receipt))
        self.rooms.passed(record[1])
        try:
            await stored
        except BaseException:
            if given is None:
                receipt.expected = 0
                self._posting.done([receipt])
            raise
        return receipt

    async def _store_many(self, queue: str, batch: Batch, terms: JobTerms) -> Receipt:
        """Push jobs in pieces, and return once all are on disk."""

        async def piece(receipt: Receipt) -> Push:
            await self._wait_for_room(queue, terms)
            try:
                records = batch.take(*self._piece(queue, terms))
            finally:
                self.rooms.passed(queue)
            return _push(records, terms, receipt)

        return await self._storing.store_many(batch, piece)

    async def _wait_for_room(self, queue: str, terms: JobTerms) -> None:
        """Wait for one's turn where durable jobs need room in memory."""
        self.check(queue)
        if terms.is_watched and not self.rooms.is_free(queue):
            await self.rooms.wait(queue)

    def _piece(self, queue: str, terms: JobTerms) -> tuple[int, int]:
        """Return how many jobs, and bytes, may be pushed together."""
        if self._runner.backlog:
            self._runner.flush()  # what waits takes some of the room
        if terms.durable and not terms.is_watched:
            return BATCH_MAX, BATCH_BYTES_MAX
        _, queued_bytes = self._queues.queued(queue)
        return (
            max(1, min(BATCH_MAX, self._queues.room(queue))),
            min(BATCH_BYTES_MAX, self._queued_bytes_max - queued_bytes),
        )

    def _push_piece(self, queue: str, batch: Batch, terms: JobTerms, receipt: Receipt) -> None:
        records = batch.take(*self._piece(queue, terms))
        receipt.expected += len(records)
        try:
            self._push(records, terms, receipt)
        except BaseException:
            receipt.expected -= len(records)
            raise
        self._runner.flush()

    def _push(self, records: list[Record], terms: JobTerms, receipt: Receipt) -> Receipt:
        self._posting.track(receipt)
        self._runner.command(_push(records, terms, receipt))
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


def _push(records: list[Record], terms: JobTerms, receipt: Receipt) -> Push:
    return Push(
        records,
        terms.priority,
        receipt,
        terms.key,
        terms.ttl,
        terms.delay,
        terms.attempts_max,
        durable=terms.durable,
    )
