"""Sending: posts and publications, when there is room for them, and their receipts."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Protocol

from zmesh.errors import Backpressure, Closed
from zmesh.events import Post, Publish
from zmesh.face.outgoing import Headers, Outgoing
from zmesh.face.receipts import Receipt
from zmesh.face.room import RoomQueues
from zmesh.face.runner import Runner
from zmesh.ids import NodeId
from zmesh.message import Failure, FailureKind, Kind, Record, Ticket

BATCH_MAX: Final = 1024
"""Messages of `post_many` handed on at once: enough to amortize a turn."""

BACKLOG_MAX: Final = 128
"""Commands gathered in one iteration of the loop, after which a sender lets others run."""

LARGE_BYTES: Final = 64 * 1024
"""A body from here on goes to the engine at once, so that its bytes count before the next."""

ALLOWANCE_MAX: Final = 64
"""Single posts to a peer between two looks at its room, which cost more than the post itself."""


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
        outgoing: Outgoing,
        unheard: Callable[[Failure], None],
    ) -> None:
        """`unheard` is told how messages failed whose receipt nobody awaits."""
        self.peer_rooms: RoomQueues[NodeId] = RoomQueues(loop, self._has_room)
        self.topic_rooms: RoomQueues[str] = RoomQueues(loop, self._fits)
        self._engine = engine
        self._runner = runner
        self._outgoing = outgoing
        self._unheard = unheard
        self._open: dict[Receipt, None] = {}  # in the order posted
        self._closed: str | None = None
        self._allowed: tuple[NodeId | None, int] = (None, 0)  # posts to one peer, without a look

    def __len__(self) -> int:
        """Return the number of receipts without outcome."""
        return len(self._open)

    async def post(
        self, to: str, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post one message once there is room."""
        node = self._engine.resolve(to)
        if self.peer_rooms.is_free(node):
            receipt = self._post(node, [record], lane, key, ttl, Receipt())
        else:
            await self.peer_rooms.wait(node)
            try:
                self._check_still_there(to)
                receipt = self._post(node, [record], lane, key, ttl, Receipt())
            finally:
                self.peer_rooms.passed(node)
        if self._runner.backlog >= BACKLOG_MAX:
            await asyncio.sleep(0)
        return receipt

    def post_nowait(
        self, to: str, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Post one message now.

        Raises:
            Backpressure: there is no room, or others wait for it.
        """
        node = self._engine.resolve(to)
        if not self.peer_rooms.is_free(node):
            raise Backpressure(to, *self._engine.queued(node))
        return self._post(node, [record], lane, key, ttl, Receipt())

    async def post_many(
        self,
        to: str,
        bodies: Iterable[object],
        lane: int,
        key: str | None,
        ttl: float | None,
        headers: Headers | None,
    ) -> Receipt:
        """Post messages in pieces as large as there is room for, under one receipt."""
        node = self._engine.resolve(to)
        receipt = Receipt(expected=1)  # one more than posted: not done before the last is
        self._open[receipt] = None
        waiting = iter(bodies)
        try:
            while True:
                if await self._post_piece(to, node, waiting, lane, key, ttl, headers, receipt):
                    return receipt
                await asyncio.sleep(0)  # let what it set in motion happen: outcomes make room
        finally:
            receipt.expected -= 1
            if receipt.done:
                self.done([receipt])

    async def _post_piece(
        self,
        to: str,
        node: NodeId,
        bodies: Iterator[object],
        lane: int,
        key: str | None,
        ttl: float | None,
        headers: Headers | None,
        receipt: Receipt,
    ) -> bool:
        """Post as many as there is room for; return whether those were the last."""
        must_wait = not self.peer_rooms.is_free(node)
        if must_wait:
            await self.peer_rooms.wait(node)
        try:
            if must_wait:
                self._check_still_there(to)
            self._allowed = (None, 0)  # the room below is all there is
            count = max(1, min(BATCH_MAX, self._engine.room(node)))
            records = self._outgoing.records(Kind.DIRECT, "", list(islice(bodies, count)), headers)
            if records:
                receipt.expected += len(records)
                self._post(node, records, lane, key, ttl, receipt)
                self._runner.flush()
            return len(records) < count
        finally:
            if must_wait:
                self.peer_rooms.passed(node)

    async def publish(
        self, record: Record, lane: int, key: str | None, ttl: float | None
    ) -> Receipt:
        """Publish one message once there is room in every subscriber's queue."""
        topic, receipt = record[1], Receipt()
        must_wait = not self.topic_rooms.is_free(topic)
        if must_wait:
            await self.topic_rooms.wait(topic)
        self._command(receipt, Publish(record, lane, receipt, key, ttl))
        if len(record[2]) >= LARGE_BYTES:
            self._runner.flush()
        if must_wait:
            self.topic_rooms.passed(topic)
        if self._runner.backlog >= BACKLOG_MAX:
            await asyncio.sleep(0)
        return receipt

    async def flush(self) -> None:
        """Wait until everything posted and published so far has its outcome.

        Raises:
            Closed: the node was closed meanwhile.
        """
        for receipt in list(self._open):
            if not receipt.done:
                await receipt.outcome()
        self._check_open()

    def done(self, tickets: Iterable[Ticket]) -> None:
        """Close receipts that have their outcome."""
        for ticket in tickets:
            if isinstance(ticket, Receipt) and ticket in self._open:
                del self._open[ticket]
                if not ticket.finish() and ticket.failures:
                    for failure in set(ticket.failures):
                        self._unheard(failure)

    def close(self, why: str) -> None:
        """Fail all that is open, and let go who waits for room."""
        self._closed = why
        for receipt in list(self._open):
            missing = receipt.expected - receipt.accepted - len(receipt.failures)
            receipt.failures += [Failure(FailureKind.CLOSED, "", why)] * missing
        self.done(list(self._open))
        self.peer_rooms.close()
        self.topic_rooms.close()

    def _check_still_there(self, to: str) -> None:
        """Raise why a message cannot be posted after a wait: we closed, or the peer is gone."""
        self._check_open()
        self._engine.resolve(to)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise Closed(self._closed)

    def _post(
        self,
        node: NodeId,
        records: list[Record],
        lane: int,
        key: str | None,
        ttl: float | None,
        receipt: Receipt,
    ) -> Receipt:
        self._command(receipt, Post(node, lane, records, receipt, key, ttl))
        if len(records[0][2]) >= LARGE_BYTES:
            self._runner.flush()
        return receipt

    def _command(self, receipt: Receipt, command: Post | Publish) -> None:
        self._check_open()
        self._open[receipt] = None
        self._runner.command(command)

    def _has_room(self, node: NodeId) -> bool:
        peer, allowed = self._allowed
        if peer != node or not allowed:
            room = self._engine.room(node)
            if room <= self._runner.backlog:  # what waits may have taken it
                self._runner.flush()
                room = self._engine.room(node)
            allowed = min(ALLOWANCE_MAX, room)
        if allowed <= 0:
            return False
        self._allowed = (node, allowed - 1)
        return True

    def _fits(self, topic: str) -> bool:
        room = self._engine.room_to_publish(topic)
        return room is None or room > 0
