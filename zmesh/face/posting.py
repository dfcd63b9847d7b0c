"""Sending: posts and publications, when there is room for them, and their receipts."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from zmesh.errors import Backpressure, Closed, PeersMissing, PeerUnknown
from zmesh.events import Post, PostEach, Publish, PublishMany
from zmesh.face.outgoing import Batch
from zmesh.face.receipts import Receipt
from zmesh.face.room import RoomQueues
from zmesh.face.runner import Runner
from zmesh.ids import NodeId
from zmesh.message import Failure, FailureKind, Record, Ticket

BATCH_MAX: Final = 1024
"""Messages of `post_many` handed on at once: enough to amortize a turn."""

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of them: more would hold up the loop."""

BACKLOG_MAX: Final = 256
"""Commands gathered in one iteration of the loop, after which a sender lets others run."""

POSTS_MAX: Final = 256
"""The same of single posts, which are one command where they follow each other to one peer."""

LARGE_BYTES: Final = 64 * 1024
"""A body from here on goes to the engine at once, so that its bytes count before the next."""

ALLOWANCE_MAX: Final = 64
"""Single posts to a peer, or publications on a topic, between two looks at the room there is.

A look costs more than the post itself.
"""


class Rooms(Protocol):
    """What posting asks the engine."""

    def resolve(self, to: str | NodeId) -> NodeId:
        """Return the node a name or id stands for; raises PeerUnknown, AmbiguousPeer."""
        ...

    def room(self, node: NodeId) -> int:
        """Return how many messages fit the peer's queue; at most 0 where it is full."""
        ...

    def queued(self, node: NodeId) -> tuple[int, int]:
        """Return how many messages, and bytes, wait for the peer's verdict."""
        ...

    def receivers(self, record: Record) -> list[str]:
        """Return what the nodes are called that would get a publication now."""
        ...

    def room_to_publish(self, topic: str) -> int | None:
        """Return how many publications fit the fullest subscriber's queue; None without any."""
        ...


class Posting:
    """Posts and publications of one node, and the receipts that are open."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: Rooms,
        runner: Runner,
        queued_bytes_max: int,
        unheard: Callable[[Failure, int], None],
        why_alone: Callable[[], str],
    ) -> None:
        """Begin with nothing posted.

        Args:
            loop: that all calls come from.
            engine: knows the peers and their room.
            runner: takes the commands.
            queued_bytes_max: bytes that may wait for one peer's verdict.
            unheard: told how messages failed whose receipt nobody awaits, and how many did so.
            why_alone: returns why no peer at all is known.
        """
        self.peer_rooms: RoomQueues[NodeId] = RoomQueues(loop, self._has_room)
        self.topic_rooms: RoomQueues[str] = RoomQueues(loop, self._fits)
        self._engine = engine
        self._runner = runner
        self._queued_bytes_max = queued_bytes_max
        self._unheard = unheard
        self._why_alone = why_alone
        self._loop = loop
        self._watchers: dict[asyncio.Future[None], None] = {}  # wait for receivers
        self._open: dict[Receipt, None] = {}  # in the order posted
        self._closed: str | None = None
        self._allowed: tuple[NodeId | None, int] = (None, 0)  # posts to one peer, without a look
        self._allowed_on = ("", 0)  # publications on one topic, the same

    def __len__(self) -> int:
        """Return the number of receipts without outcome."""
        return len(self._open)

    async def post(
        self, to: str, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post one message once there is room."""
        node = self.resolve(to)
        if self.peer_rooms.is_free(node):
            receipt = self._post_one(node, record, lane, key, ttl)
        else:
            await self.peer_rooms.wait(node)
            try:
                self._check_still_there(to)
                receipt = self._post_one(node, record, lane, key, ttl)
            finally:
                self.peer_rooms.passed(node)
        if self._runner.backlog >= POSTS_MAX or len(record[2]) >= LARGE_BYTES:
            await asyncio.sleep(0)  # a loop that only posts must not stop all others
        return receipt

    def post_nowait(
        self, to: str, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post one message now.

        Raises:
            Backpressure: there is no room, or others wait for it.
        """
        node = self.resolve(to)
        if not self.peer_rooms.is_free(node):
            raise Backpressure(to, *self._engine.queued(node))
        return self._post_one(node, record, lane, key, ttl)

    async def post_many(
        self, to: str, batch: Batch, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post messages in pieces as large as there is room for, under one receipt."""
        node = self.resolve(to)
        receipt = Receipt(expected=1)  # one more than posted: not done before the last is
        self._open[receipt] = None
        try:
            while not batch.is_exhausted:
                await self._post_piece(to, node, batch, lane, key, ttl, receipt)
                if not batch.is_exhausted:
                    await asyncio.sleep(0)  # let what it set in motion happen: outcomes make room
        finally:
            receipt.expected -= 1
            if receipt.done:
                self.done([receipt])
        return receipt

    async def _post_piece(
        self,
        to: str,
        node: NodeId,
        batch: Batch,
        lane: int,
        key: str | None,
        ttl: float | None,
        receipt: Receipt,
    ) -> None:
        """Post as many as there is room for, once there is any."""
        await batch.prepare()
        must_wait = not self.peer_rooms.is_free(node)
        if must_wait:
            await self.peer_rooms.wait(node)
        try:
            if must_wait:
                self._check_still_there(to)
            self._allowed, self._allowed_on = (None, 0), ("", 0)  # the room below is all there is
            if self._runner.backlog:
                self._runner.flush()  # what waits takes some of it
            _, queued_bytes = self._engine.queued(node)
            records = batch.take(
                max(1, min(BATCH_MAX, self._engine.room(node))),
                min(BATCH_BYTES_MAX, self._queued_bytes_max - queued_bytes),
            )
            receipt.expected += len(records)
            self._post(node, records, lane, key, ttl, receipt)
            self._runner.flush()
        finally:
            if must_wait:
                self.peer_rooms.passed(node)

    async def publish(
        self,
        record: Record,
        lane: int,
        key: str | None,
        ttl: float | None,
        keep: int | None = None,
        receipt: Receipt | None = None,
        *,
        at_most_once: bool = False,
    ) -> Receipt:
        """Publish one message: once there is room in every queue, or to those that have some.

        A receipt that is given expects one more of it.
        """
        topic, receipt = record[1], receipt or Receipt()
        must_wait = not (at_most_once or self.topic_rooms.is_free(topic))
        if must_wait:
            await self.topic_rooms.wait(topic)
        self.track(receipt)
        if key is None and ttl is None and keep is None:
            self._publish(record, lane, receipt, at_most_once=at_most_once)
        else:
            self._runner.command(Publish(record, lane, receipt, key, ttl, keep, at_most_once))
        if len(record[2]) >= LARGE_BYTES:
            self._runner.flush()
            self._allowed_on = ("", 0)
        if must_wait:
            self.topic_rooms.passed(topic)
        if self._is_turn_of_others(record):
            await asyncio.sleep(0)
        return receipt

    def _publish(self, record: Record, lane: int, receipt: Receipt, *, at_most_once: bool) -> None:
        """Publish with what was published just before on the same topic, if that still waits."""
        last = self._runner.last
        if (
            isinstance(last, PublishMany)
            and last.records[0][1] == record[1]
            and last.lane == lane
            and last.at_most_once is at_most_once
            and last.key is None
            and last.ttl is None
            and len(last.tickets) == len(last.records)  # each has its own
        ):
            last.records.append(record)
            last.tickets.append(receipt)
            self._runner.joined()
            return
        self._runner.command(PublishMany([record], lane, [receipt], at_most_once=at_most_once))

    async def publish_many(
        self,
        topic: str,
        batch: Batch,
        lane: int,
        key: str | None,
        ttl: float | None,
        *,
        at_most_once: bool = False,
    ) -> Receipt:
        """Publish messages in pieces as large as there is room for, under one receipt."""
        receipt = Receipt(expected=1)  # one more than published: not done before the last is
        self.track(receipt)
        try:
            while not batch.is_exhausted:
                await batch.prepare()
                must_wait = not (at_most_once or self.topic_rooms.is_free(topic))
                if must_wait:
                    await self.topic_rooms.wait(topic)
                try:
                    self._check_open()
                    records = batch.take(*self.piece(topic, at_most_once=at_most_once))
                    receipt.expected += len(records)
                    self._runner.command(
                        PublishMany(records, lane, [receipt], key, ttl, at_most_once)
                    )
                    self._runner.flush()
                finally:
                    if must_wait:
                        self.topic_rooms.passed(topic)
                await asyncio.sleep(0)  # let what it set in motion happen: outcomes make room
        finally:
            receipt.expected -= 1
            if receipt.done:
                self.done([receipt])
        return receipt

    def piece(self, topic: str, *, at_most_once: bool = False) -> tuple[int, int]:
        """Return how many publications, and bytes, may go together."""
        self._allowed, self._allowed_on = (None, 0), ("", 0)
        if self._runner.backlog:
            self._runner.flush()  # what waits takes some of the room
        room = None if at_most_once else self._engine.room_to_publish(topic)
        return max(1, BATCH_MAX if room is None else min(BATCH_MAX, room)), BATCH_BYTES_MAX

    async def room_to_publish(self, topic: str) -> None:
        """Wait until there is room in every queue."""
        if not self.topic_rooms.is_free(topic):
            await self.topic_rooms.wait(topic)
            self.topic_rooms.passed(topic)

    async def wait_for_receivers(
        self,
        record: Record,
        count: int,
        timeout: float | None,  # noqa: ASYNC109  # the error tells who is there
    ) -> None:
        """Wait until so many nodes would receive a publication.

        Raises:
            PeersMissing: not in time.
            Closed: the node was closed meanwhile.
        """
        try:
            async with asyncio.timeout(timeout):
                while len(self.receivers(record)) < count:
                    await self.receivers_change()
        except TimeoutError:
            receivers = f"{count} receivers" if count > 1 else "receiver"
            wanted = f"{receivers} of {record[1]!r}"
            raise self.missing(wanted, self.receivers(record), timeout) from None

    def missing(self, wanted: str, seen: list[str], seconds: float | None) -> PeersMissing:
        """Return the error that tells what did not appear in time."""
        return PeersMissing(wanted, seen, seconds or 0.0, self._why_alone())

    def receivers(self, record: Record) -> list[str]:
        """Return what the nodes are called that would get a publication now."""
        if self._runner.backlog:
            self._runner.flush()  # own subscriptions may be among what waits
        return self._engine.receivers(record)

    async def receivers_change(self) -> None:
        """Wait until there may be others than now.

        Raises:
            Closed: the node was closed meanwhile.
        """
        waiter = self._loop.create_future()
        self._watchers[waiter] = None
        try:
            await waiter
        finally:
            self._watchers.pop(waiter, None)
        self._check_open()

    def receivers_changed(self) -> None:
        """Let those who wait for receivers look again."""
        while self._watchers:
            waiter, _ = self._watchers.popitem()
            if not waiter.done():
                waiter.set_result(None)

    async def flush(self) -> None:
        """Wait until everything posted, published and pushed so far has its outcome.

        Raises:
            Closed: the node was closed meanwhile.
        """
        for receipt in list(self._open):
            if not receipt.done:
                await receipt.outcome()
        self._check_open()

    def done(self, tickets: Iterable[Ticket]) -> None:
        """Close receipts that have their outcome."""
        unheard: dict[Failure, int] | None = None
        for ticket in tickets:
            if isinstance(ticket, Receipt) and ticket in self._open:
                del self._open[ticket]
                if not ticket.finish() and ticket.failures:
                    unheard = {} if unheard is None else unheard
                    for failure in ticket.failures:
                        if not (ticket.is_stored and failure.kind is FailureKind.CLOSED):
                            unheard[failure] = unheard.get(failure, 0) + 1
        for failure, count in unheard.items() if unheard else ():
            self._unheard(failure, count)

    def close(self, why: str) -> None:
        """Fail all that is open, and let go who waits for room."""
        self._closed = why
        for receipt in list(self._open):
            missing = receipt.expected - receipt.accepted - len(receipt.failures)
            receipt.failures += [Failure(FailureKind.CLOSED, "", why)] * missing
        self.done(list(self._open))
        self.peer_rooms.close()
        self.topic_rooms.close()
        self.receivers_changed()

    def _is_turn_of_others(self, record: Record) -> bool:
        """Return whether to wait a moment: a loop that only posts must not stop all others."""
        return self._runner.backlog >= BACKLOG_MAX or len(record[2]) >= LARGE_BYTES

    def resolve(self, to: str) -> NodeId:
        """Return the node a name or id stands for; raises PeerUnknown, AmbiguousPeer."""
        try:
            return self._engine.resolve(to)
        except PeerUnknown as error:
            raise PeerUnknown(error.name, error.known, self._why_alone()) from None

    def _check_still_there(self, to: str) -> None:
        """Raise why a message cannot be posted after a wait: we closed, or the peer is gone."""
        self._check_open()
        self.resolve(to)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Closed(self._closed)

    def _post_one(
        self, node: NodeId, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        receipt = Receipt()
        if ttl is not None or len(record[2]) >= LARGE_BYTES:
            return self._post(node, [record], lane, key, ttl, receipt)
        self._check_open()
        self._open[receipt] = None
        last = self._runner.last
        if isinstance(last, PostEach) and last.to == node and last.lane == lane:
            last.records.append(record)
            last.tickets.append(receipt)
            last.keys.append(key)
            self._runner.joined()
        else:
            self._runner.command(PostEach(node, lane, [record], [receipt], [key]))
        return receipt

    def _post(
        self,
        node: NodeId,
        records: list[Record],
        lane: int,
        key: str | None,
        ttl: float | None,
        receipt: Receipt,
    ) -> Receipt:
        if self._closed is not None:
            raise Closed(self._closed)
        self._open[receipt] = None
        self._runner.command(Post(node, lane, records, receipt, key, ttl))
        if len(records[0][2]) >= LARGE_BYTES:
            self._runner.flush()
            self._allowed = (None, 0)
        return receipt

    def track(self, receipt: Receipt) -> None:
        """Keep a receipt until it has its outcome.

        Raises:
            Closed: the node was closed.
        """
        self._check_open()
        self._open[receipt] = None

    def _has_room(self, node: NodeId) -> bool:
        peer, allowed = self._allowed
        if peer != node or not allowed:
            room = self._engine.room(node)
            if room <= self._runner.backlog:  # what waits may have taken it
                self._runner.flush()
                room = self._engine.room(node)
            allowed = min(ALLOWANCE_MAX, room)
            self._allowed_on = ("", 0)  # the room is the same
        if allowed <= 0:
            return False
        self._allowed = (node, allowed - 1)
        return True

    def _fits(self, topic: str) -> bool:
        known, allowed = self._allowed_on
        if known != topic or not allowed:
            room, backlog = self._engine.room_to_publish(topic), self._runner.backlog
            if room is not None and 0 < room <= backlog:  # what waits may have taken it
                self._runner.flush()
                room, backlog = self._engine.room_to_publish(topic), 0
            allowed = ALLOWANCE_MAX if room is None else min(ALLOWANCE_MAX, room - backlog)
            self._allowed = (None, 0)  # the room is the same
        if allowed <= 0:
            return False
        self._allowed_on = (topic, allowed - 1)
        return True
