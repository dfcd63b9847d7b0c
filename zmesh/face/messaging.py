"""What an application does with a node: messages, calls and topics."""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from zmesh.errors import DeliveryTimeout, InvalidOption, UsageError
from zmesh.face.assembly import Assembly
from zmesh.face.checks import (
    check_call_options,
    check_guarantee,
    check_is_text,
    check_message_options,
    check_receivers,
    check_retained,
    check_service,
    check_timeout,
    check_unreserved,
    kept_of,
)
from zmesh.face.handlers import Handler, Middleware, adapted, check_handler
from zmesh.face.inbox import Inbox, Settle, check_settle
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import Peer
from zmesh.face.receipts import Receipt
from zmesh.face.shared import SharedMap
from zmesh.face.since import Begin, terms_of
from zmesh.face.streams import Request, Stream
from zmesh.face.subscriptions import Subscription
from zmesh.message import PRIORITY_DEFAULT, Kind, Tag, Ways, with_extra
from zmesh.options import NodeOptions
from zmesh.patterns.filters import check_type, filter_of
from zmesh.security.rules import Action
from zmesh.terms import (
    LIMIT_DEFAULT,
    Compression,
    Guarantee,
    Match,
    Policy,
    Scalar,
)

H = TypeVar("H", bound=Handler)
M = TypeVar("M", bound=Middleware)

SEND_TIMEOUT: Final = 30.0
"""Seconds `send` and `call` wait by default: long for a handler, short for a person."""

_READ_ONCE: Final = (
    "a body in parts is read once, by whoever provides the service: key, prefer, hedge_after and "
    "retries do not go with it"
)

SNAPSHOT_TIMEOUT: Final = 10.0
"""Seconds `shared` waits by default for what other replicas hold."""


class Messaging(ABC):
    """The half of a node that sends, receives, serves and subscribes; `Node` is the other."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._services: dict[str, tuple[Handler, int]] = {}  # with their concurrency
        self._middleware: list[Middleware] = []

    @property
    @abstractmethod
    def _was_opened(self) -> bool:
        """Whether it is, or was, open."""

    @abstractmethod
    def _at_work(self) -> Assembly:
        """Return the node at work, or raise why there is none."""

    # Direct messages

    async def send(
        self,
        to: str | Peer,
        body: object,
        *,
        timeout: float | None = SEND_TIMEOUT,  # noqa: ASYNC109  # the error says what it was for
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
    ) -> None:
        """Send a message to one peer, and return once its application accepted it.

        Args:
            to: the peer's name or id.
            body: bytes, which pass untouched, or anything msgpack can carry.
            timeout: seconds to wait for the outcome; None waits for ever.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest): each is a lane of its own.
            key: messages of one key keep their order, whatever their priority.
            ttl: seconds after which it is no longer worth handling.
            compression: "zstd" or "lz4", "none" for none; what the node does by default.
            durable: whether it is stored first, and sent until it has its outcome, in whatever
                life of this node or the other; by default where the node has `storage`. Then the
                peer need not be there, nor be known.

        Raises:
            PeerUnknown, AmbiguousPeer: there is no such peer, or several; not for durable ones.
            JournalFull, JournalBroken: it could not be stored, and is not sent.
            Rejected, Expired, DeadLettered, PeerLost, PeerRestarted: what became of it.
            DeliveryTimeout: nothing yet; it may still be handled.
            BodyNotEncodable, BodyTooLarge, InvalidOption, MissingPackage: it cannot be sent.
        """
        check_timeout(timeout)
        try:
            async with asyncio.timeout(timeout):
                receipt = await self.post(
                    to,
                    body,
                    headers=headers,
                    priority=priority,
                    key=key,
                    ttl=ttl,
                    compression=compression,
                    durable=durable,
                )
                await receipt.outcome()
        except TimeoutError as error:
            raise DeliveryTimeout(f"the message to {_address(to)}", timeout or 0.0) from error
        receipt.result()

    async def post(
        self,
        to: str | Peer,
        body: object,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
    ) -> Receipt:
        """Post a message to one peer, and return its receipt once there is room for it.

        A durable one is on disk when this returns. `await receipt` for the outcome, or leave it:
        `flush` waits for all. Arguments and errors are those of `send`, but the outcome's are
        raised by the receipt.
        """
        assembly = self._at_work()
        assembly.engine.check_send(_address(to))
        record = assembly.outgoing.record(Kind.DIRECT, "", body, headers)
        check_message_options(self._options.wire, priority, key, ttl)
        compressor = assembly.outgoing.compressing.compressor(compression)
        if compressor is not None:
            record = await assembly.outgoing.compressing.soon(record, compressor)
        if assembly.durable.is_wanted(durable):
            return await assembly.durable.post(_address(to), record, priority, key, ttl)
        return await assembly.posting.post(_address(to), record, priority, key, ttl)

    def post_nowait(
        self,
        to: str | Peer,
        body: object,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        compression: Compression | None = None,
    ) -> Receipt:
        """Post a message now, as `post` does where there is room. It is not stored first.

        Raises:
            Backpressure: there is no room.
        """
        assembly = self._at_work()
        assembly.engine.check_send(_address(to))
        record = assembly.outgoing.record(Kind.DIRECT, "", body, headers)
        check_message_options(self._options.wire, priority, key, ttl)
        compressor = assembly.outgoing.compressing.compressor(compression)
        record = assembly.outgoing.compressing.now(record, compressor)
        return assembly.posting.post_nowait(_address(to), record, priority, key, ttl)

    async def post_many(
        self,
        to: str | Peer,
        bodies: Iterable[object],
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        compression: Compression | None = None,
        durable: bool | None = None,
    ) -> Receipt:
        """Post many messages to one peer, as fast as there is room, under one receipt.

        It is by far the cheapest way to send many. They go in pieces; one that cannot be sent
        raises with its piece not posted. Arguments are those of `post`.

        Raises:
            InvalidOption: `bodies` is one body, or nothing that can be iterated; and as `post`.
        """
        assembly = self._at_work()
        assembly.engine.check_send(_address(to))
        check_message_options(self._options.wire, priority, key, ttl)
        compressor = assembly.outgoing.compressing.compressor(compression)
        batch = assembly.outgoing.batch(bodies, headers, compressor=compressor)
        if assembly.durable.is_wanted(durable):
            return await assembly.durable.post_many(_address(to), batch, priority, key, ttl)
        return await assembly.posting.post_many(_address(to), batch, priority, key, ttl)

    async def flush(self) -> None:
        """Wait until everything posted, published and pushed so far has its outcome.

        Whatever that is. Jobs in a queue that nobody pulls have none: bound the wait with
        `asyncio.timeout` where that may be.

        Raises:
            Closed: the node was closed meanwhile.
        """
        await self._at_work().posting.flush()

    def inbox(self, settle: Settle = "auto") -> Inbox:
        """Return the messages other nodes send to this one: `async for message in node.inbox()`.

        Asking for the next message accepts the one before; leaving the loop by an exception gives
        the message back, to be delivered again; `break` and `return` accept it. With
        `settle="manual"` only `accept`, `reject` and `release` do. Several loops share the work.
        `await anext(node.inbox())` takes a single message, and accepts it as it does.
        """
        assembly = self._at_work()
        check_settle(settle)
        return assembly.open_inbox(settle)

    # Request and reply

    def service(self, name: str, *, concurrency: int = 8) -> Callable[[H], H]:
        """Answer calls of a service with the decorated function.

        It takes the message, or its body as the type its parameter is annotated with: a dataclass,
        `msgspec.Struct`, pydantic model or the like; a body that is none refuses the call, with
        the field at fault as the reason. What it returns is the reply. `zmesh.Reject(reason)`
        raised refuses the call, any other exception reaches the caller as `RemoteError`. A plain
        function runs in a thread, so that it may block. It can be used before the node is opened.

        Args:
            name: of the service.
            concurrency: calls handled at a time; more wait.

        Raises:
            InvalidOption, UsageError: it cannot be provided.
            MissingPackage: the type of its parameter needs `zmesh[typed]`.
        """
        check_service(name, concurrency, self._options)

        def register(handler: H) -> H:
            check_handler(handler)
            adapted(handler)  # raises now, and not at the first call
            if name in self._services:
                raise UsageError(f"service {name!r} is provided already: withdraw it first")
            limit = self._options.services_max
            if len(self._services) >= limit:
                raise UsageError(f"this node has {limit} services already: withdraw some first")
            if self._was_opened:
                self._at_work().engine.guard.check_own(Action.SERVE, name)
                self._at_work().services.serve(name, handler, concurrency)
            self._services[name] = (handler, concurrency)
            return handler

        return register

    def middleware(self, layer: M) -> M:
        """Run the decorated coroutine function around every handler of this node's services.

        ```python
        @node.middleware
        async def timed(message, call_next):
            begun = time.monotonic()
            try:
                return await call_next(message)
            finally:
                print(message.topic, time.monotonic() - begun)
        ```

        What it returns is the reply, and what it raises counts as raised by the handler. The first
        one registered is the outermost; it counts from the next request on.

        Raises:
            InvalidOption: it is no coroutine function.
        """
        is_coroutine = inspect.iscoroutinefunction
        if not (is_coroutine(layer) or is_coroutine(getattr(layer, "__call__", None))):  # noqa: B004
            raise InvalidOption("layer", layer, "a coroutine function of a message and call_next")
        self._middleware.append(layer)
        return layer

    def withdraw(self, service: str) -> None:
        """Provide a service no longer; calls being handled are finished.

        Raises:
            UsageError: it is not provided.
        """
        assembly = self._at_work() if self._was_opened else None
        if self._services.pop(service, None) is None:
            raise UsageError(f"service {service!r} is not provided here")
        if assembly is not None:
            assembly.services.withdraw(service)

    async def call(
        self,
        service: str,
        body: object = None,
        *,
        timeout: float | None = SEND_TIMEOUT,  # noqa: ASYNC109  # the engine keeps the deadline
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        prefer: str | Peer | None = None,
        hedge_after: float | None = None,
        retries: int = 0,
        compression: Compression | None = None,
    ) -> Any:
        """Call a service: the best of its providers answers, and if it dies, another.

        The best is the one with the least work of ours and the quickest answers lately.

        Args:
            service: its name.
            body: bytes, or anything msgpack can carry; an async iterable is one in parts.
            timeout: seconds to wait for the reply; None waits for ever.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest).
            key: calls of one key go to one provider, which handles them one at a time, in order.
            prefer: name or id of the peer to ask first, if it provides the service.
            hedge_after: seconds after which a second provider is asked too; the first answer wins.
            retries: how often it is asked again where the handler raised.
            compression: as for `send`; of the answer its provider decides.

        Returns:
            What the handler returned.

        Raises:
            NoProvider: nobody provides it.
            PeerUnknown, AmbiguousPeer: there is no such peer to prefer, or several.
            RemoteError: the handler raised; type and message of its exception.
            Rejected: the handler refused the call.
            DeliveryTimeout: no reply in time; the call may still be handled.
            DeadLettered: as many providers as allowed tried and did not come to an end.
            StreamBroken, PeerLost: a body in parts did not come to its end.
        """
        assembly = self._at_work()
        assembly.check_call(service)
        check_timeout(timeout)
        check_message_options(self._options.wire, priority, key, None)
        check_call_options(hedge_after, retries)
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        if isinstance(body, AsyncIterable):
            if not (key is None and prefer is None and hedge_after is None and retries == 0):
                raise UsageError(_READ_ONCE)
            record = assembly.outgoing.record(Kind.STREAM_CONTROL, service, None, headers)
            request = Request(record, priority, Ways.BODY, body, compressor=compressor)
            return await assembly.streams.call(request, timeout)
        first = None if prefer is None else assembly.engine.preferred(_address(prefer, "prefer"))
        record = assembly.outgoing.record(Kind.REQUEST, service, body, headers)
        if compressor is not None:
            record = await compressing.soon(record, compressor)
        return await assembly.calls.call(
            record,
            priority,
            timeout,
            assembly.runner.now,
            assembly.services_seen,
            key=key,
            prefer=first,
            hedge_after=hedge_after,
            retries=retries,
        )

    def stream(
        self,
        service: str,
        body: object = None,
        *,
        timeout: float | None = None,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        compression: Compression | None = None,
    ) -> Stream:
        """Call a service that yields its answer: `async for part in node.stream("tail", file)`.

        The handler yields as fast as the parts are read. Leaving the loop stops it. A provider
        that is lost before its first part is replaced by another; after that the stream ends with
        what happened to it. A service that returns its answer gives one part.

        Args:
            service: its name.
            body: bytes, anything msgpack can carry, or an async iterable of such: a body in
                parts, read as the handler reads `message.parts`.
            timeout: seconds to wait for each part; None waits for ever.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest).
            compression: of the body, as for `send`; of the answer its provider decides.

        Raises (those from `NoProvider` on in the loop, after the parts that came):
            InvalidOption, BodyNotEncodable, BodyTooLarge: it cannot be asked.
            NoProvider: nobody provides it.
            RemoteError: the handler raised; type and message of its exception.
            Rejected: the handler refused.
            PeerLost, StreamBroken: the provider is gone, or gave it back.
            DeliveryTimeout: no part in time.
        """
        assembly = self._at_work()
        assembly.check_call(service)
        check_timeout(timeout)
        check_message_options(self._options.wire, priority, None, None)
        parts = body if isinstance(body, AsyncIterable) else None
        whole = body if parts is None else None
        compressing = assembly.outgoing.compressing
        compressor = compressing.compressor(compression)
        record = assembly.outgoing.record(Kind.STREAM_CONTROL, service, whole, headers)
        record = compressing.now(record, compressor)
        ways = Ways.ANSWER if parts is None else Ways.ANSWER | Ways.BODY
        request = Request(record, priority, ways, parts, compressor=compressor)
        return Stream(lambda: self._at_work().streams, request, timeout)

    # Publish and subscribe

    async def publish(
        self,
        topic: str,
        body: object,
        *,
        headers: Headers | None = None,
        type: str | None = None,  # noqa: A002  # what users call it
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
        retain: bool = False,
        history: int | None = None,
        min_receivers: int = 0,
        timeout: float | None = None,  # noqa: ASYNC109  # the error tells who is there
        guarantee: Guarantee = "at_least_once",
        compression: Compression | None = None,
        durable: bool | None = None,
    ) -> Receipt:
        """Publish a message to every node that subscribes to its topic now, this one included.

        Returns once there is room in their queues, and a durable one is on disk. `await receipt`
        waits until all have handled it, and returns how many did; without subscribers that is 0,
        at once. Those that would rather miss some, or are behind, are not waited for.

        Args:
            topic: tokens separated by dots, as in "sensors.kitchen.temp".
            body, headers, priority, key, ttl: as for `send`.
            type: what kind of message it is; subscriptions can ask for it.
            retain: whether it is kept, in place of what was, for those who subscribe later. With
                None as the body nothing of the topic is kept any longer.
            history: how many of the topic are kept, this one included.
            min_receivers: how many nodes must be there to receive it; it is waited for them.
            timeout: seconds to wait for them; None waits for ever.
            guarantee: "at_least_once" until each subscriber has accepted it; "at_most_once" goes
                to those that have room now, and is forgotten: nothing is waited for, nothing
                comes again, and the receipt is done at once, with 0.
            compression: as for `send`; it is done once, however many receive it.
            durable: whether it is put into this node's log first, where subscriptions with a name
                or `since` read it later; by default with `storage`, unless it is at most once.

        Raises:
            InvalidOption, BodyNotEncodable, BodyTooLarge: it cannot be published.
            JournalFull, JournalBroken: it could not be stored, and is not published.
            PeersMissing: too few receivers, in time; it was not published.
        """
        assembly = self._at_work()
        check_is_text("topic", topic)
        assembly.engine.check_publish(topic)
        assembly.engine.guard.check_own(Action.PUBLISH, topic)
        check_message_options(self._options.wire, priority, key, ttl)
        check_receivers(min_receivers, timeout)
        check_guarantee(guarantee)
        is_once = guarantee == "at_most_once"
        is_durable = assembly.durable.is_wanted_by_all(durable, is_once=is_once)
        keep = kept_of(self._options, body, retain=retain, history=history)
        record = assembly.outgoing.record(Kind.PUBLICATION, topic, body, headers)
        if type is not None:
            check_type(type, self._options.wire)
            record = with_extra(record, Tag.TYPE, type)
        compressor = assembly.outgoing.compressing.compressor(compression)
        if compressor is not None:
            record = await assembly.outgoing.compressing.soon(record, compressor)
        if keep:
            check_retained(record, self._options)
        if min_receivers:
            await assembly.posting.wait_for_receivers(record, min_receivers, timeout)
        if is_durable:
            return await assembly.durable.publish(record, priority, key, ttl, keep)
        publish = assembly.posting.publish
        return await publish(record, priority, key, ttl, keep, at_most_once=is_once)

    def subscribe(
        self,
        pattern: str,
        *,
        type: str | None = None,  # noqa: A002  # what users call it
        where: Mapping[str, Scalar] | None = None,
        match: Match = "all",
        content: str | None = None,
        replay: bool = True,
        when_full: Policy = "block",
        limit: int = LIMIT_DEFAULT,
        settle: Settle = "auto",
        name: str | None = None,
        since: Begin | None = None,
    ) -> Subscription:
        """Subscribe to topics, for as long as an `async with` block runs.

        ```python
        async with node.subscribe("sensors.*.temp", where={"unit": "C"}) as temperatures:
            async for message in temperatures:
                print(message.topic, message.body)
        ```

        Messages are settled as in `inbox`. Publishers evaluate the filters, so that what nobody
        wants does not travel.

        Args:
            pattern: a topic in which `*` stands for one token, and `>` at the end for all others.
            type: only messages that were published with this type.
            where: only messages with headers of these values.
            match: "all" of these headers, or "any" of them.
            content: only messages for whose body this JMESPath expression is true.
            replay: whether it first gets what publishers keep of its topics (`retain`, `history`).
            when_full: what becomes of messages that it is too slow for: "block" makes publishers
                wait; "drop_oldest", "drop_newest" and "latest" (of each topic) drop some, which
                `Subscription.dropped` and `Message.gap` tell; "disconnect" ends it.
            limit: how many may wait for it before some are dropped or it ends, here, and as many
                at each publisher; not with "block".
            settle: "auto" or "manual".
            name: of a durable subscription: it goes on in each publisher's log where this node
                was when it ended, in whatever life; the first time from now on. Needs `storage`.
            since: where it begins in the logs it has no position in: "first", a time, seconds
                ago, or positions by publishers' ids, to go on after them.

        Raises:
            InvalidOption, UsageError: it cannot work, or there are too many.
            MissingPackage: `content` needs JMESPath: `pip install 'zmesh[content]'`.
        """
        assembly = self._at_work()
        check_settle(settle)
        if name is not None:
            assembly.durable.check_storage("a subscription with a name needs")
        check_is_text("pattern", pattern)
        wanted = filter_of(type, where, match, content, self._options.wire)
        terms = terms_of(wanted, when_full, limit, replay=replay, name=name, since=since)
        assembly.engine.check_subscribe(pattern, terms)
        return assembly.subscription(pattern, settle, terms)

    # Shared state

    async def shared(
        self,
        name: str,
        *,
        timeout: float | None = SNAPSHOT_TIMEOUT,  # noqa: ASYNC109  # it is no error
    ) -> SharedMap:
        """Hold a replica of a map that all nodes share which ask for it by this name.

        Returns with a snapshot from a live replica; at once where this node knows of no other, or
        after `timeout`, and then what the others hold comes later.

        ```python
        config = await node.shared("config")
        await config.set("rate", 5)
        ```

        Args:
            name: of the map.
            timeout: seconds to wait for the snapshot; None waits for ever.

        Raises:
            InvalidOption, UsageError: the name cannot work, or there are too many.
        """
        assembly = self._at_work()
        check_unreserved("name", name)
        assembly.engine.guard.check_own(Action.SHARE, name)
        return await assembly.shared.open(name, timeout, self._at_work)


def _address(to: str | Peer, option: str = "to") -> str:
    if isinstance(to, str):
        return to
    if isinstance(to, Peer):
        return to.id
    raise InvalidOption(option, to, "a name, an id as hex digits, or a Peer")
