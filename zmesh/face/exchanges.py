"""All exchanges of a node: what was declared, here and elsewhere, and the way of a message."""

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Final

from zmesh.actions import KeyChange
from zmesh.errors import (
    ExchangeConflict,
    ExchangeUnknown,
    MapFull,
    PeersMissing,
    ProtocolError,
)
from zmesh.face.inbox import Settle
from zmesh.face.outgoing import Headers, Outgoing
from zmesh.face.posting import Posting
from zmesh.face.pushing import JobTerms, Pushing
from zmesh.face.receipts import Receipt
from zmesh.face.shared import SharedMap, SharedMaps
from zmesh.face.subscriptions import Subscription
from zmesh.message import Kind, Record, Tag, with_extra, with_target
from zmesh.options import NodeOptions
from zmesh.patterns.bindings import (
    TABLE,
    Alternate,
    Binding,
    Declaration,
    Declared,
    Destination,
    DestinationKind,
    check_exchange,
    check_kind,
    from_value,
    key_of,
    to_value,
)
from zmesh.patterns.exchanges import RoutingTable
from zmesh.terms import Terms
from zmesh.wire.bodies import decode_body, encode_body

_OWN_SUBJECT: Final = f"{TABLE}.{{node}}.{{number}}"
"""What `Exchange.subscribe` binds: a subject that nobody else uses."""

Subscribing = Callable[[str, Settle, Terms], Subscription]
"""Makes a subscription, which begins when it is entered."""


class Exchanges:
    """What this node knows of exchanges: a replica of what all nodes declared.

    It is held from the first declaration until the node closes.
    """

    def __init__(
        self,
        shared: SharedMaps,
        posting: Posting,
        pushing: Pushing,
        outgoing: Outgoing,
        options: NodeOptions,
        node: str,
        subscribing: Subscribing,
    ) -> None:
        """Begin without the table.

        Args:
            shared: has the map of declarations.
            posting: publishes to subjects, and knows who subscribes.
            pushing: pushes to queues.
            outgoing: makes records.
            options: the bounds.
            node: the id of this node, as hex.
            subscribing: makes a subscription.
        """
        self.table = RoutingTable(options.topics_cached_max)
        self.wire = options.wire
        self.outgoing = outgoing
        self.node = node
        self.unroutable = 0  # messages dropped
        self.refused = 0  # values in the map that declare nothing
        self._shared = shared
        self._posting = posting
        self._pushing = pushing
        self._subscribing = subscribing
        self._map: SharedMap | None = None
        self._held: dict[str, Binding] = {}  # to own subjects, while they are read
        self._numbers = count(1)
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
        """Declare an exchange, once the replica has a snapshot or the time is over.

        Raises:
            InvalidOption, ExchangeConflict, ExchangeUnknown, UsageError, MapFull: it cannot be.
        """
        declared = Declaration(check_exchange(name, self.wire), check_kind(kind))
        other = None if alternate is None else check_exchange(alternate, self.wire, "alternate")
        opened = await self._shared.open(TABLE, timeout, check)
        if self._map is None:
            self._map = opened
            self._shared.follow(TABLE, self)
            for key, entry in self._shared.entries(TABLE).entries():
                if not entry.deleted:
                    self._learn(key, entry.encoding, entry.value)
        else:
            await opened.close()  # it is held once
        if self.table.declaration(declared.name) is not None:
            self.check_agreed(declared)
        if other is not None:
            self.check_known(other)
            agreed = self.table.alternate(declared.name)
            if agreed not in (None, other):
                wanted, known = (f"alternate={each!r}" for each in (other, agreed))
                raise ExchangeConflict(declared.name, wanted, known)
            self.write(Alternate(declared.name, other))
        self.write(declared)
        return declared

    def check_known(self, name: str) -> None:
        """Raise ExchangeUnknown where an exchange is not declared."""
        if self.table.declaration(name) is None:
            raise ExchangeUnknown(name, list(self.table.exchanges()))

    def check_agreed(self, declared: Declaration) -> None:
        """Raise ExchangeUnknown or ExchangeConflict where all have not agreed on this."""
        known = self.table.declaration(declared.name)
        if known is None:
            raise ExchangeUnknown(declared.name, list(self.table.exchanges()))
        if known.kind != declared.kind:
            wanted, told = (f"kind={each.kind!r}" for each in (declared, known))
            raise ExchangeConflict(declared.name, wanted, told)

    def write(self, declared: Declared) -> None:
        """Tell everybody of a declaration, unless it is known."""
        key = key_of(declared)
        if key not in self.table:
            encoding, value = encode_body(to_value(declared))
            self._shared.write(TABLE, key, int(encoding), bytes(value))

    def erase(self, key: str) -> bool:
        """Take a declaration back everywhere; return whether it was known."""
        is_known = key in self.table
        if is_known:
            self._shared.write(TABLE, key, None, b"")
        return is_known

    # Subjects of this node's own

    def own_subject(self) -> str:
        """Return a subject that nobody uses."""
        return _OWN_SUBJECT.format(node=self.node, number=next(self._numbers))

    @asynccontextmanager
    async def tapped(
        self, subject: str, bindings: Iterable[Binding], settle: Settle, terms: Terms
    ) -> AsyncIterator[Subscription]:
        """Subscribe to a subject that is bound so meanwhile."""
        held = {key_of(binding): binding for binding in bindings}
        async with self._subscribing(subject, settle, terms) as subscription:
            try:
                for binding in held.values():
                    self.write(binding)
                self._held |= held
                yield subscription
            finally:
                for key in held:
                    self._held.pop(key, None)
                    if not self._is_closed:
                        self.erase(key)

    def left(self, node: str) -> None:
        """Take back what was bound for a node that has gone; if it comes back, it binds anew."""
        for key in self.table.owned(node):
            self.erase(key)

    def _hold(self) -> None:
        """Bind anew what is read here and was taken back: somebody took this node for gone."""
        for binding in self._held.values():
            with suppress(MapFull):  # then it is done when something else is unbound
                self.write(binding)

    # What the map tells

    def add(self, change: KeyChange) -> None:
        """Take in a change of the map."""
        if change.encoding is not None:
            self._learn(change.key, change.encoding, change.value)
        else:
            self.table.remove(change.key)
            self._hold()
        self._posting.receivers_changed()

    def _learn(self, key: str, encoding: int, value: bytes) -> None:
        try:
            self.table.put(key, from_value(key, decode_body(encoding, value), self.wire))
        except ProtocolError:
            self.refused += 1
            self.table.remove(key)

    def close(self, failure: str | None) -> None:  # noqa: ARG002  # the node tells it
        """Take note that the node closes."""
        self._is_closed = True

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

        return self.table.route(name, routing_key, headers or {}, is_heard)

    async def send(
        self, record: Record, destinations: list[Destination], terms: JobTerms
    ) -> Receipt:
        """Send a message to all its destinations, once there is room, under one receipt."""
        for kind, name in destinations:
            if kind is DestinationKind.QUEUE:
                self._pushing.check(name)
        receipt = Receipt(expected=len(destinations))
        sent = 0
        try:
            for kind, name in destinations:
                if kind is DestinationKind.QUEUE:
                    await self._pushing.push(with_target(record, Kind.JOB, name), terms, receipt)
                else:
                    to_all = with_target(record, Kind.PUBLICATION, name)
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
