"""Durable posts: on disk before the caller goes on."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Final

from zmesh.errors import Closed, UsageError, ZmeshError
from zmesh.events import MakeRoom, Post, Publish, Push
from zmesh.face.checks import check_durable
from zmesh.face.outbox_table import OutboxRow
from zmesh.face.outgoing import Batch
from zmesh.face.posting import BATCH_BYTES_MAX, BATCH_MAX, Posting
from zmesh.face.receipts import Receipt
from zmesh.face.runner import Runner
from zmesh.face.signing import Signing, signed
from zmesh.face.storing import Storing, wall_ms
from zmesh.message import Record, Ticket, size_of
from zmesh.storage import Entry, EntryKind
from zmesh.storage_errors import JournalFull

PIECES_MAX: Final = 4
"""Pieces of `post_many` on their way to the disk: the next is made while one is written."""

ROOM_BYTES_MIN: Final = 64 * 1024
ROOM_TRIES: Final = 3
ROOM_WITHIN_S: Final = 0.5
"""How much is dropped at least for what finds no room, how often more, and within which time."""

RECORD_ROOM_BYTES: Final = 128
"""What a record takes there beside itself, at most, and so does all that comes along with some."""

Stored = asyncio.Future[ZmeshError | None]

Piece = Post | Push
Storable = Piece | Publish


class DurablePosting:
    """Durable posts of one node, and who waits for the disk."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        runner: Runner,
        posting: Posting,
        storing: Storing | None,
        signing: Signing | None = None,
    ) -> None:
        self._loop = loop
        self._runner = runner
        self._posting = posting
        self._journal = storing
        self._signing = signing  # of what an application left in its outbox
        self._waiting: dict[Ticket, deque[Stored]] = {}
        self._turnstile = asyncio.Lock()  # of those who wait for room, in order

    def is_wanted(self, durable: bool | None) -> bool:
        """Return whether a message is to be stored first: as said, or where there is storage.

        Raises:
            InvalidOption: it says neither yes nor no.
            UsageError: the node has none.
        """
        check_durable(durable)
        if durable:
            self.check_storage("durable messages need")
        return durable is not False and self._journal is not None

    def is_wanted_by_all(self, durable: bool | None, *, is_once: bool) -> bool:
        """Return whether a publication is to be stored first.

        Raises:
            UsageError: the node has no storage, or it is to come at most once.
        """
        if durable is None:  # as mostly
            return not is_once and self._journal is not None
        check_durable(durable)
        if durable and is_once:
            raise UsageError("what is durable comes at least once: leave guarantee= or durable=")
        return self.is_wanted(False if is_once else durable)

    def check_storage(self, what: str) -> None:
        """Raise UsageError where the node has no storage."""
        if self._journal is None:
            raise UsageError(f"{what} a node with storage: Node(..., storage=PATH)")

    @property
    def _storing(self) -> Storing:
        assert self._journal is not None  # noqa: S101  # else nothing is wanted to be stored
        return self._journal

    async def post(
        self,
        to: str,
        record: Record,
        lane: int,
        key: str | None,
        ttl: float | None,
        entries: tuple[Entry, ...] = (),
    ) -> Receipt:
        """Post one message, and return once it is on disk.

        Raises:
            JournalFull, JournalBroken, Closed: it is not.
        """
        receipt = Receipt(is_stored=True)
        self._posting.track(receipt)
        post = Post(to, lane, [record], receipt, key, ttl, durable=True, entries=entries)
        await self._store_for(receipt, post)
        return receipt

    async def publish(
        self,
        record: Record,
        lane: int,
        key: str | None,
        ttl: float | None,
        keep: int | None,
    ) -> Receipt:
        """Publish one message, and return once it is on disk.

        Raises:
            JournalFull, JournalBroken, Closed: it is not.
        """
        receipt = Receipt(is_stored=True)
        await self._posting.room_to_publish(record[1])
        self._posting.track(receipt)
        publish = Publish(record, lane, receipt, key, ttl, keep, durable=True)
        await self._store_for(receipt, publish)
        return receipt

    async def publish_many(
        self, topic: str, batch: Batch, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Publish messages in pieces, and return once all are on disk.

        Raises:
            JournalFull, JournalBroken, Closed: some are not, from one of a piece on.
        """
        receipt = Receipt(expected=1, is_stored=True)
        self._posting.track(receipt)
        try:
            while not batch.is_exhausted:
                await batch.prepare()
                await self._posting.room_to_publish(topic)
                records = batch.take(*self._posting.piece(topic))
                receipt.expected += len(records)
                await self._store_all(
                    [Publish(each, lane, receipt, key, ttl, durable=True) for each in records]
                )
        finally:
            receipt.expected -= 1
            if receipt.done:
                self._posting.done([receipt])
        return receipt

    async def _store_all(self, events: Sequence[Storable]) -> None:
        """Store these in order: together, where all have room; what is not is off its receipt."""
        if self._storing.storage.when_full != "raise" and (
            self._turnstile.locked() or not self._has_room(*map(_records_of, events))
        ):
            # One by one: what waits for room must not be overtaken by what is smaller.
            await self._store_each(events)
            return
        handed = [(event, self._begin(event)) for event in events]
        self._runner.flush()
        for index, (event, stored) in enumerate(handed):
            try:
                await self._finish(event, stored)
            except BaseException:
                await self._give_up(handed[index:])
                raise

    async def _store_each(self, events: Sequence[Storable]) -> None:
        for index, event in enumerate(events):
            try:
                await self.store(event)
            except BaseException:
                event.ticket.expected -= len(events) - index
                raise

    async def _store_for(self, receipt: Receipt, event: Storable) -> None:
        try:
            await self.store(event)
        except BaseException:
            receipt.expected = 0
            self._posting.done([receipt])
            raise

    async def post_many(
        self, to: str, batch: Batch, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post messages in pieces, and return once all are on disk.

        Raises:
            JournalFull, JournalBroken, Closed: some are not, from the first piece that failed on.
        """

        async def piece(receipt: Receipt) -> Post:
            records = batch.take(BATCH_MAX, BATCH_BYTES_MAX)
            return Post(to, lane, records, receipt, key, ttl, durable=True)

        return await self.store_many(batch, piece)

    async def store_many(
        self, batch: Batch, piece: Callable[[Receipt], Awaitable[Piece]]
    ) -> Receipt:
        """Store what a batch has, in the pieces that `piece` makes of it, under one receipt."""
        # One more than posted: it is not done before the last is.
        receipt = Receipt(expected=1, is_stored=True)
        self._posting.track(receipt)
        pieces: deque[tuple[Piece, Stored]] = deque()
        try:
            while not batch.is_exhausted:
                await batch.prepare()
                event = await piece(receipt)
                receipt.expected += len(event.records)
                # One that is refused for want of room must not be overtaken by smaller ones.
                ahead = PIECES_MAX - 1 if self._has_room(event.records) else 0
                pieces.append((event, self._begin(event)))
                self._runner.flush()
                await self._finish_until(pieces, ahead)
                await asyncio.sleep(0)
            await self._finish_until(pieces, 0)
        finally:
            await self._give_up(pieces)
            receipt.expected -= 1
            if receipt.done:
                self._posting.done([receipt])
        return receipt

    def _has_room(self, *pieces: list[Record]) -> bool:
        """Return whether the journal is going to take pieces, whatever it makes of them."""
        size = sum(
            sum(map(size_of, records)) + RECORD_ROOM_BYTES * (1 + len(records))
            for records in pieces
        )
        return self._storing.has_room(size)

    async def _finish_until(self, pieces: deque[tuple[Piece, Stored]], left: int) -> None:
        """Wait until so many are on their way to the disk; none, once one of them was refused."""
        while len(pieces) > left:
            piece, stored = pieces[0]
            if await stored is not None:
                left = 0
            await self._finish(piece, stored)
            pieces.popleft()

    async def relay(self, rows: Sequence[OutboxRow]) -> None:
        """Store what an application left in its outbox, in order, and return once it is on disk.

        Raises:
            JournalFull, JournalBroken, Closed: some of it is not.
        """
        handed: list[tuple[Storable, Stored]] = []
        now_ms = wall_ms()
        for row in rows:
            receipt = Receipt(is_stored=True)
            self._posting.track(receipt)
            event = _event_of(row, receipt, now_ms, self._signing)
            handed.append((event, self._begin(event)))
        self._runner.flush()
        for piece, stored in handed:
            try:
                await self._finish(piece, stored)
            except ZmeshError:
                await self._give_up(handed)
                raise

    def stored(self, tickets: list[Ticket], error: ZmeshError | None) -> None:
        """Let go those whose messages are on disk, or refused."""
        for ticket in tickets:
            waiting = self._waiting.get(ticket)
            if waiting is None:
                continue
            stored = waiting.popleft()
            if not waiting:
                del self._waiting[ticket]
            if not stored.done():
                stored.set_result(error)

    def close(self, why: str) -> None:
        """Let all go: the node closes, and it is not known what is on disk."""
        error = Closed(why)
        for ticket in list(self._waiting):
            while ticket in self._waiting:
                self.stored([ticket], error)

    def _begin(self, post: Storable) -> Stored:
        stored: Stored = self._loop.create_future()
        self._waiting.setdefault(post.ticket, deque()).append(stored)
        post.wall_ms = wall_ms()
        self._runner.command(post)
        return stored

    def store(self, post: Storable) -> Awaitable[None]:
        """Order that something is stored; await that it is on disk, which raises why it is not."""
        if self._turnstile.locked():  # others wait for room: behind them
            return self._wait_for_room(post)
        return self._finish(post, self._begin(post))

    async def _finish(self, post: Storable, stored: Stored) -> None:
        """Wait until a post is on disk; where there is no room do what the node was told to."""
        error, when_full = await stored, self._storing.storage.when_full
        if isinstance(error, JournalFull) and when_full == "wait":
            await self._wait_for_room(post)
            return
        if isinstance(error, JournalFull) and when_full == "drop_oldest":
            error = await self._make_room(post)
        if error is not None:
            raise error

    async def _make_room(self, post: Storable) -> ZmeshError | None:
        """Store in the place of older ones; return why that did not do either."""
        error: ZmeshError | None = None
        if isinstance(post, Push):
            return await self._begin(post)  # jobs are not dropped
        size = max(ROOM_BYTES_MIN, 2 * sum(map(size_of, _records_of(post))))
        for _ in range(ROOM_TRIES):
            rooms = self._storing.rooms
            self._runner.command(MakeRoom(post, size))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._storing.room(rooms), ROOM_WITHIN_S)
            error = await self._begin(post)
            if not isinstance(error, JournalFull):
                break
            size *= 2
        return error

    async def _wait_for_room(self, post: Storable) -> None:
        async with self._turnstile:
            while True:
                rooms = self._storing.rooms
                error = await self._begin(post)
                if error is None:
                    return
                if not isinstance(error, JournalFull) or self._storing.error is not None:
                    raise error
                await self._storing.room(rooms)

    async def _give_up(self, pieces: Iterable[tuple[Storable, Stored]]) -> None:
        """Take off receipts what turns out not to be on disk."""
        for post, stored in pieces:
            if await stored is not None:
                post.ticket.expected -= len(_records_of(post))
                if post.ticket.done:
                    self._posting.done([post.ticket])


def _records_of(event: Storable) -> list[Record]:
    return [event.record] if isinstance(event, Publish) else event.records


def _event_of(row: OutboxRow, receipt: Receipt, now_ms: int, signing: Signing | None) -> Storable:
    """Return what stores a row of an application's outbox, and that it was taken."""
    ttl = None if not row.expires_ms else max(1, row.expires_ms - now_ms) / 1000
    entries = (Entry(EntryKind.RELAYED, "", row.id.encode(), b""),)
    record, lane, key = row.record(), row.lane, row.key
    delay = max(0, row.due_ms - now_ms) / 1000
    if signing is not None and signing.is_wanted(None):
        by = (
            signing.for_target(None, lane, key, ttl, delay)
            if row.verb in ("push", "publish")
            else signing.for_name(row.destination, lane, key, ttl)
        )
        record = signed(record, by)
    match row.verb:
        case "push":
            return Push([record], lane, receipt, key, ttl, delay, durable=True, entries=entries)
        case "publish":
            return Publish(record, lane, receipt, key, ttl, durable=True, entries=entries)
        case _:
            return Post(
                row.destination, lane, [record], receipt, key, ttl, durable=True, entries=entries
            )
