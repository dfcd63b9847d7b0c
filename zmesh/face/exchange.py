"""An exchange as the application holds it: binding, reading, and publishing to it."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Self

from zmesh.errors import InvalidOption, Unroutable
from zmesh.face.checks import (
    check_is_text,
    check_message_options,
    check_timeout,
    check_when_full,
    check_yes_no,
    is_count,
)
from zmesh.face.exchanges import Exchanges
from zmesh.face.inbox import Settle, check_settle
from zmesh.face.outgoing import Headers
from zmesh.face.pushing import JobTerms
from zmesh.face.receipts import Receipt
from zmesh.face.signing import sealing
from zmesh.face.subscriptions import Subscription
from zmesh.face.verifying import Verify, check_verify
from zmesh.message import PRIORITY_DEFAULT
from zmesh.patterns.bindings import (
    Binding,
    Declaration,
    Destination,
    DestinationKind,
    binding_of,
    destination_of,
    key_of,
)
from zmesh.patterns.routing import check_routing_key
from zmesh.terms import (
    LIMIT_DEFAULT,
    Compression,
    ExchangeKind,
    Match,
    Policy,
    Scalar,
    Terms,
)
from zmesh.wire.bodies import check_text


class Exchange:
    """An exchange, as `await node.exchange("orders", kind="topic")` returns it.

    It sends what is published to it to the queues, subjects and exchanges that are bound to it, by
    what this node has heard of bindings: one made elsewhere counts here a moment later.
    """

    def __init__(
        self, exchanges: Exchanges, declared: Declaration, check: Callable[[], object]
    ) -> None:
        self._exchanges = exchanges
        self._declared = declared
        self._check_node = check  # raises where the node cannot be used

    @property
    def name(self) -> str:
        """What all nodes know it by."""
        return self._declared.name

    @property
    def kind(self) -> ExchangeKind:
        """What it looks at."""
        return self._declared.kind

    def __repr__(self) -> str:
        return f"<Exchange {self.name!r}, {self.kind}>"

    # Binding

    async def bind(
        self,
        *,
        queue: str | None = None,
        subject: str | None = None,
        exchange: str | Self | None = None,
        routing_key: str | None = None,
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
    ) -> None:
        """Send messages to a queue, a subject, or another exchange. Again changes nothing.

        It is so here when this returns, and with all other nodes a moment later, until it is
        unbound or the last node that uses exchanges has gone.

        Args:
            queue: one that consumers `pull`; it counts whether anybody does or not.
            subject: a topic that subscribers `subscribe` to; it counts while anybody does.
            exchange: one that is declared.
            routing_key: of the messages, for a direct exchange; for a topic exchange with `*` for
                one word and `#` for none or more.
            where: headers and values the messages have, for a headers exchange.
            match: "all" of these, or "any" of them.

        Raises:
            InvalidOption: none or several destinations, or what this kind does not look at.
            ExchangeUnknown: the destination is not declared.
            ExchangeConflict: this one is of another kind, as others declared it before.
            MapFull: there are too many bindings.
        """
        self._exchanges.declarations.put(
            self._binding(queue, subject, exchange, routing_key, where, match)
        )
        await self._exchanges.stored()

    async def unbind(
        self,
        *,
        queue: str | None = None,
        subject: str | None = None,
        exchange: str | Self | None = None,
        routing_key: str | None = None,
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
    ) -> bool:
        """Take a binding back, whoever made it; return whether it was there.

        Arguments and errors are those of `bind`.
        """
        binding = self._binding(queue, subject, exchange, routing_key, where, match)
        was_there = self._exchanges.declarations.erase(key_of(binding))
        await self._exchanges.stored()
        return was_there

    def bindings(self) -> list[Binding]:
        """Return what is bound to it, as far as this node has heard."""
        self._check()
        return self._exchanges.declarations.table.bindings(self.name)

    def _binding(
        self,
        queue: str | None,
        subject: str | None,
        exchange: str | Self | None,
        routing_key: str | None,
        where: Mapping[str, Scalar] | None,
        match: Match,
    ) -> Binding:
        self._check()
        to = exchange.name if isinstance(exchange, Exchange) else exchange
        destination = destination_of(queue, subject, to, self._exchanges.wire)
        if destination.kind is DestinationKind.EXCHANGE:
            self._exchanges.declarations.check_known(destination.name)
        return binding_of(
            self._declared, destination, routing_key, where, match, self._exchanges.wire
        )

    # Reading

    def subscribe(
        self,
        *routing_keys: str,
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
        when_full: Policy = "block",
        limit: int = LIMIT_DEFAULT,
        settle: Settle = "auto",
        verify: Verify | None = None,
    ) -> AbstractAsyncContextManager[Subscription]:
        """Read what it sends, for as long as an `async with` block runs: an exclusive queue.

        ```python
        async with logs.subscribe("kern.*", "*.critical") as messages:
            async for message in messages:
                print(message.routing_key, message.body)
        ```

        A subject of this node's own is bound, and unbound in the end. Other nodes unbind it where
        this one is lost.

        Args:
            routing_keys: of the messages, one or more for a direct or topic exchange.
            where: headers and values the messages have, for a headers exchange.
            match: "all" of these, or "any" of them.
            when_full: as for `node.subscribe`.
            limit: as for `node.subscribe`.
            settle: "auto" or "manual".
            verify: as for `node.subscribe`.

        Raises:
            InvalidOption, ExchangeUnknown, ExchangeConflict: as for `bind`.
            UsageError, MapFull: there are too many; raised where the block begins.
        """
        self._check()
        check_settle(settle)
        terms = Terms(None, check_when_full(when_full, limit), limit)
        subject = self._exchanges.own_subject()
        destination = Destination(DestinationKind.SUBJECT, subject)
        bindings = [
            binding_of(
                self._declared, destination, key, where, match, self._exchanges.wire,
                self._exchanges.node,
            )
            for key in routing_keys or (None,)
        ]  # fmt: skip
        check_verify(verify)
        return self._exchanges.tapped(subject, bindings, settle, terms, verify)

    # Publishing

    async def publish(
        self,
        body: object,
        routing_key: str = "",
        *,
        mandatory: bool = False,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
        sign: bool | None = None,
    ) -> Receipt:
        """Send a message to all that is bound for it, and return once there is room there.

        `await receipt` waits until a consumer of each queue has done it and all subscribers of
        the subjects have handled it, and returns how many did. Where nobody is to have it, it is
        dropped and counted (`NodeStatistics.unroutable`), and the receipt is done with 0.

        Args:
            body: bytes, which pass untouched, or anything msgpack can carry.
            routing_key: what direct and topic exchanges look at; `message.routing_key` tells it.
            mandatory: whether it is an error where nobody is to have it.
            headers: small values beside the body; what headers exchanges look at.
            priority: 0 (lowest) to 9 (highest).
            key: messages of one key keep their order; as for `push` and `publish`.
            ttl: seconds after which it is no longer worth handling.
            compression: as for `send`; it is done once, however many receive it.
            durable: whether queues have it on disk first, as for `push`; by default where this
                node has `storage`.
            sign: as for `send`; once for each of its destinations.

        Raises:
            Unroutable: nobody is to have it, and `mandatory` says that somebody must.
            ExchangeConflict: it is of another kind, as others declared it before.
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be published.
            JournalFull, JournalBroken: a queue could not store it.
            UsageError: jobs wait in too many queues already, or `durable` needs storage.
        """
        exchanges = self._exchanges
        self._check()
        is_durable = exchanges.is_durable(durable)
        self._check_routing_key(routing_key)
        check_yes_no("mandatory", mandatory)
        check_message_options(exchanges.wire, priority, key, ttl)
        record = exchanges.record(body, routing_key, headers)
        compressing, plain = exchanges.outgoing.compressing, record
        by = exchanges.outgoing.signing.for_target(sign, priority, key, ttl)
        compressor = compressing.compressor(compression)
        if compressor is not None:
            record = await compressing.soon(record, compressor)
            self._check()
        destinations = exchanges.route(self.name, routing_key, headers, record)
        if not destinations:
            if mandatory:
                raise Unroutable(self.name, routing_key)
            exchanges.unroutable += 1
            return Receipt(expected=0)
        terms = JobTerms(priority, key, ttl, 0.0, None, is_durable)
        return await exchanges.send(record, destinations, terms, sealing(plain, by))

    async def wait_for(
        self,
        routing_key: str = "",
        *,
        headers: Headers | None = None,
        count: int = 1,
        timeout: float | None = None,  # noqa: ASYNC109  # the error tells what there was
    ) -> list[Destination]:
        """Wait until a message so published would go to `count` queues and subjects; return them.

        Args:
            routing_key: of the message.
            headers: of the message; it has no body, for filters that look into it.
            count: how many.
            timeout: seconds to wait; None waits for ever.

        Raises:
            PeersMissing: they did not appear in time. It is a `TimeoutError`.
            ExchangeConflict: it is of another kind, as others declared it before.
            Closed: the node was closed meanwhile.
        """
        self._check()
        self._check_routing_key(routing_key)
        check_timeout(timeout)
        if not is_count(count, 1):
            raise InvalidOption("count", count, "1 or more")
        record = self._exchanges.record(None, routing_key, headers)
        found: list[Destination] = []
        try:
            async with asyncio.timeout(timeout):
                while True:
                    found = self._exchanges.route(self.name, routing_key, headers, record)
                    if len(found) >= count:
                        return found
                    await self._exchanges.change()
                    self._check()
        except TimeoutError:
            places = f"{count} destinations" if count > 1 else "destination"
            wanted = f"{places} of {self!r} for the routing key {routing_key!r}"
            seen = [f"{kind} {name!r}" for kind, name in found]
            raise self._exchanges.missing(wanted, seen, timeout) from None

    def _check_routing_key(self, routing_key: object) -> None:
        check_is_text("routing_key", routing_key)
        check_text("routing_key", str(routing_key), self._exchanges.wire)
        if self._declared.kind == "topic":
            check_routing_key(str(routing_key))

    def _check(self) -> None:
        self._check_node()
        self._exchanges.declarations.check_agreed(self._declared)
