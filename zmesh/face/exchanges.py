"""All exchanges of a node: what was declared, here and elsewhere, and the way of a message."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import count

from zmesh.actions import KeyChange
from zmesh.errors import PeersMissing, ZmeshError
from zmesh.face.inbox import Settle
from zmesh.face.outgoing import Headers, Outgoing
from zmesh.face.posting import Posting
from zmesh.face.pushing import JobTerms, Pushing
from zmesh.face.receipts import Receipt
from zmesh.face.shared import SharedMap, SharedMaps
from zmesh.face.signing import Seal
from zmesh.face.subscriptions import Subscription
from zmesh.face.verifying import Verify
from zmesh.ids import TOKEN_BYTES, Entropy, NodeId
from zmesh.message import Kind, Record, Tag, with_extra, with_target
from zmesh.options import NodeOptions
from zmesh.patterns.bindings import (
    TABLE,
    Binding,
    Declaration,
    Destination,
    DestinationKind,
    check_exchange,
    check_kind,
    key_of,
)
from zmesh.patterns.declarations import Declarations
from zmesh.security.rules import Action
from zmesh.terms import Terms

Subscribing = Callable[[str, Settle, Terms, Verify | None], Subscription]
"""Makes a subscription, which begins when it is entered."""


class Exchanges:
    """What this node knows of exchanges, and the way of messages through them.

    The shared map of declarations is held from the first one until the node closes.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        shared: SharedMaps,
        posting: Posting,
        pushing: Pushing,
        outgoing: Outgoing,
        options: NodeOptions,
        *,
        node: NodeId,
        entropy: Entropy,
        check: Callable[[Action, str], None],
        is_there: Callable[[str], bool],
        subscribing: Subscribing,
    ) -> None:
        """Begin without the map.

        Args:
            loop: of the node.
            shared: has the map of declarations.
            posting: publishes to subjects, and knows who subscribes.
            pushing: pushes to queues.
            outgoing: makes records.
            options: the bounds.
            node: the id of this node.
            entropy: makes names that nobody else has.
            check: raises NotAllowed for what the rules here forbid this node.
            is_there: returns whether another node is known, by its id as hex.
            subscribing: makes a subscription.
        """
        self.node = node.hex()
        self.wire = options.wire
        self.outgoing = outgoing
        self.declarations = Declarations(
            self.node, options.wire, options.topics_cached_max, self._write, is_there
        )
        self.unroutable = 0  # messages dropped
        self._loop = loop
        self._shared = shared
        self._stored: asyncio.Future[ZmeshError | None] | None = None  # of the latest declaration
        self._posting = posting
        self._pushing = pushing
        self._check = check
        self._subscribing = subscribing
        self._map: SharedMap | None = None
        self._own = f"{TABLE}.{entropy.token(TOKEN_BYTES).hex()}"
        self._numbers = count(1)
        self._is_to_be_tended = False
        self._is_closed = False

    # Declaring

    async def declare(
        self,
        name: object,
        kind: object,
        alternate: object,
        timeout: float | None,  # noqa: ASYNC109  # it ends the waiting and is no error
        check: Callable[[], object],
    ) -> Declaration:
        """Declare an exchange, once the map has a snapshot or the time is over.

        Raises:
            InvalidOption, ExchangeConflict, ExchangeUnknown, UsageError, MapFull: it cannot be.
        """
        wall_ms = time.time_ns() // 1_000_000
        declared = Declaration(check_exchange(name, self.wire), check_kind(kind), wall_ms)
        other = None if alternate is None else check_exchange(alternate, self.wire, "alternate")
        self._check(Action.SHARE, TABLE)
        opened = await self._shared.open(TABLE, timeout, check)
        if self._map is None:
            self._map = opened
            self._shared.follow(TABLE, self)
            for key, entry in list(self._shared.entries(TABLE).entries()):
                if not entry.deleted:
                    self.declarations.on_change(key, entry.encoding, entry.value)
            self.declarations.tend()
        else:
            await opened.close()  # it is held once
        self.declarations.declare(declared, other)
        await self.stored()
        return declared

    def _write(self, key: str, encoding: int | None, value: bytes) -> None:
        if not self._is_closed:
            self._stored = self._shared.write(TABLE, key, encoding, value)

    async def stored(self) -> None:
        """Wait until what was declared here is on disk, where the node has storage.

        Raises:
            JournalFull, JournalBroken: it is not; all know of it, and it is stored when there is
                room.
        """
        if self._stored is not None:
            error = await asyncio.shield(self._stored)
            if error is not None:
                raise error

    def add(self, change: KeyChange) -> None:
        """Take in a change of the map."""
        self.declarations.on_change(change.key, change.encoding, change.value)
        self._posting.receivers_changed()
        self._tend_soon()

    def left(self, node: NodeId) -> None:
        """Take note that a node has gone."""
        self.declarations.on_left(node.hex())
        self._tend_soon()

    def _tend_soon(self) -> None:
        # Not now: the engine is telling, and what is written has to take effect at once.
        if not self._is_to_be_tended:
            self._is_to_be_tended = True
            self._loop.call_soon(self._tend)

    def _tend(self) -> None:
        self._is_to_be_tended = False
        if not self._is_closed:
            self.declarations.tend()

    def close(self, failure: str | None) -> None:  # noqa: ARG002  # the node tells it
        """Take note that the node closes."""
        self._is_closed = True

    # Reading

    def own_subject(self) -> str:
        """Return a subject that nobody uses."""
        return f"{self._own}.{next(self._numbers)}"

    @asynccontextmanager
    async def tapped(
        self,
        subject: str,
        bindings: Iterable[Binding],
        settle: Settle,
        terms: Terms,
        verify: Verify | None,
    ) -> AsyncIterator[Subscription]:
        """Subscribe to a subject that is bound so meanwhile."""
        held = {key_of(binding): binding for binding in bindings}
        async with self._subscribing(subject, settle, terms, verify) as subscription:
            try:
                self.declarations.hold(held)
                yield subscription
            finally:
                self.declarations.let_go(held)

    # Publishing

    def record(self, body: object, routing_key: str, headers: Headers | None) -> Record:
        """Return a message that has no destination yet.

        Raises:
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be sent.
        """
        record = self.outgoing.record(Kind.PUBLICATION, "", body, headers)
        return with_extra(record, Tag.ROUTING_KEY, routing_key)

    def route(
        self, name: str, routing_key: str, headers: Headers | None, record: Record
    ) -> list[Destination]:
        """Return where a message goes now."""

        def is_heard(subject: str) -> bool:
            to_all = with_target(record, Kind.PUBLICATION, subject)
            return bool(self._posting.receivers(to_all))

        return self.declarations.table.route(name, routing_key, headers or {}, is_heard)

    def is_durable(self, durable: bool | None) -> bool:
        """Return whether queues store what is published first: as said, or where they can."""
        return self._pushing.is_durable(durable)

    async def send(
        self, record: Record, destinations: list[Destination], terms: JobTerms, seal: Seal
    ) -> Receipt:
        """Send a message to all its destinations, once there is room, under one receipt."""
        for kind, name in destinations:
            self._check(Action.PUSH if kind is DestinationKind.QUEUE else Action.PUBLISH, name)
        self._pushing.check(
            *(name for kind, name in destinations if kind is DestinationKind.QUEUE)
        )
        to_queues = all(kind is DestinationKind.QUEUE for kind, _ in destinations)
        receipt = Receipt(expected=len(destinations), is_stored=terms.durable and to_queues)
        sent = 0
        try:
            for kind, name in destinations:
                if kind is DestinationKind.QUEUE:
                    job = seal(with_target(record, Kind.JOB, name))
                    await self._pushing.push(job, terms, receipt)
                else:
                    to_all = seal(with_target(record, Kind.PUBLICATION, name))
                    await self._posting.publish(
                        to_all, terms.priority, terms.key, terms.ttl, receipt=receipt
                    )
                sent += 1
        finally:
            if sent < len(destinations):  # whoever waited for room has given up
                receipt.expected -= len(destinations) - sent
                if receipt.done:
                    self._posting.done([receipt])
        return receipt

    # Waiting

    async def change(self) -> None:
        """Wait until bindings or subscribers may be others than now.

        Raises:
            Closed: the node was closed meanwhile.
        """
        await self._posting.receivers_change()

    def missing(self, wanted: str, seen: list[str], seconds: float | None) -> PeersMissing:
        """Return the error that tells what did not appear in time."""
        return self._posting.missing(wanted, seen, seconds)
