"""What an application does with a node: messages, calls and topics."""

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any, Final, TypeVar

from zmesh.errors import DeliveryTimeout, InvalidOption, UsageError
from zmesh.face.assembly import Assembly
from zmesh.face.checks import (
    check_call_options,
    check_message_options,
    check_service,
    check_timeout,
)
from zmesh.face.handlers import Handler, Middleware, adapted, check_handler
from zmesh.face.inbox import Inbox, Settle, check_settle
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import Peer
from zmesh.face.receipts import Receipt
from zmesh.face.signing import Sign, signed
from zmesh.face.streams import Request, Stream
from zmesh.face.verifying import Verify, check_verify
from zmesh.message import PRIORITY_DEFAULT, Kind, Ways
from zmesh.options import NodeOptions
from zmesh.security.rules import Action
from zmesh.terms import Compression

H = TypeVar("H", bound=Handler)
M = TypeVar("M", bound=Middleware)

SEND_TIMEOUT: Final = 30.0
"""Seconds `send` and `call` wait by default: long for a handler, short for a person."""

NO_RETRIES: Final = 0

_READ_ONCE: Final = (
    "a body in parts is read once, by whoever provides the service: key, prefer, hedge_after and "
    "retries do not go with it"
)


class Messaging(ABC):
    """The half of a node that sends, receives, serves and subscribes; `Node` is the other."""

    def __init__(self, options: NodeOptions) -> None:
        self._options = options
        self._services: dict[str, tuple[Handler, int, Verify | None]] = {}
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
        sign: bool | None = None,
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
            sign: whether this node signs it, which `message.signer` tells; what the node does by
                default.

        Raises:
            PeerUnknown, AmbiguousPeer: there is no such peer, or several; not for durable ones.
            JournalFull, JournalBroken: it could not be stored, and is not sent.
            Rejected, Expired, DeadLettered, PeerLost, PeerRestarted: what became of it.
            DeliveryTimeout: nothing yet; it may still be handled.
            BodyNotEncodable, BodyTooLarge, InvalidOption, MissingPackage: it cannot be sent.
        """
        check_timeout(timeout)
        assembly, receipt = self._at_work(), None
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
                    sign=sign,
                )
                await receipt.outcome()
        except TimeoutError as error:
            what = f"the message to {_address(to)}"
            arrived = receipt is not None and assembly.engine.has_arrived(receipt)
            raise DeliveryTimeout(
                what, timeout or 0.0, assembly.why_unseen(), has_arrived=arrived
            ) from error
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
        sign: bool | None = None,
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
        is_durable = assembly.durable.is_wanted(durable)
        address, by = _signing(assembly, to, sign, priority, key, ttl, is_durable=is_durable)
        record = signed(record, by)
        if compressor is not None:
            record = await assembly.outgoing.compressing.soon(record, compressor)
        if is_durable:
            return await assembly.durable.post(address, record, priority, key, ttl)
        return await assembly.posting.post(address, record, priority, key, ttl)

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
        sign: bool | None = None,
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
        address, by = _signing(assembly, to, sign, priority, key, ttl, is_durable=False)
        record = assembly.outgoing.compressing.now(signed(record, by), compressor)
        return assembly.posting.post_nowait(address, record, priority, key, ttl)

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
        sign: bool | None = None,
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
        is_durable = assembly.durable.is_wanted(durable)
        address, by = _signing(assembly, to, sign, priority, key, ttl, is_durable=is_durable)
        batch = assembly.outgoing.batch(bodies, headers, compressor=compressor, sign=by)
        if is_durable:
            return await assembly.durable.post_many(address, batch, priority, key, ttl)
        return await assembly.posting.post_many(address, batch, priority, key, ttl)

    async def flush(self) -> None:
        """Wait until everything posted, published and pushed so far has its outcome.

        Whatever that is. Jobs in a queue that nobody pulls have none, nor has what is stored for
        a node that is away: bound the wait with `asyncio.timeout` where that may be. What an
        earlier life of the node has stored is sent, but not waited for:
        `statistics().engine.stored_out` tells how much of that is left.

        Raises:
            Closed: the node was closed meanwhile.
        """
        await self._at_work().posting.flush()

    def inbox(self, settle: Settle = "auto", *, verify: Verify | None = None) -> Inbox:
        """Return the messages other nodes send to this one: `async for message in node.inbox()`.

        Asking for the next message accepts the one before; leaving the loop by an exception gives
        the message back, to be delivered again; `break` and `return` accept it. With
        `settle="manual"` only `accept`, `reject` and `release` do. Several loops share the work.
        `await anext(node.inbox())` takes a single message, and accepts it as it does.

        With `verify="required"` it takes signed messages alone, from then on and in all its loops;
        with "if-signed" a signature that is there must hold. By default it is as the node says.
        """
        assembly = self._at_work()
        check_settle(settle)
        return assembly.open_inbox(settle, verify)

    # Request and reply

    def service(
        self, name: str, *, concurrency: int = 8, verify: Verify | None = None
    ) -> Callable[[H], H]:
        """Answer calls of a service with the decorated function.

        It takes the message, or its body as the type its parameter is annotated with: a dataclass,
        `msgspec.Struct`, pydantic model or the like; a body that is none refuses the call, with
        the field at fault as the reason. What it returns is the reply. `zmesh.Reject(reason)`
        raised refuses the call, any other exception reaches the caller as `RemoteError`. A plain
        function runs in a thread, so that it may block. It can be used before the node is opened.

        Args:
            name: of the service.
            concurrency: calls handled at a time; more wait.
            verify: "required" for signed calls alone, "if-signed" where a signature that is there
                must hold; what the node says by default.

        Raises:
            InvalidOption, UsageError: it cannot be provided.
            MissingPackage: the type of its parameter needs `zmesh[typed]`.
        """
        check_service(name, concurrency, self._options)
        check_verify(verify)

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
                self._at_work().services.serve(name, handler, concurrency, verify)
            self._services[name] = (handler, concurrency, verify)
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
        retries: int = NO_RETRIES,
        compression: Compression | None = None,
        sign: bool | None = None,
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
            compression, sign: as for `send`; of the answer its provider decides, unsigned.

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
        # What is left as it is by default needs no look.
        if timeout is not SEND_TIMEOUT:
            check_timeout(timeout)
        if priority is not PRIORITY_DEFAULT or key is not None:
            check_message_options(self._options.wire, priority, key, None)
        if hedge_after is not None or retries is not NO_RETRIES:
            check_call_options(hedge_after, retries)
        outgoing = assembly.outgoing
        compressor = outgoing.compressing.compressor(compression)
        by = outgoing.signing.for_target(sign, priority, key, timeout)
        if type(body) is not bytes and isinstance(body, AsyncIterable):
            if not (key is None and prefer is None and hedge_after is None and retries == 0):
                raise UsageError(_READ_ONCE)
            record = signed(outgoing.record(Kind.STREAM_CONTROL, service, None, headers), by)
            request = Request(record, priority, Ways.BODY, body, compressor=compressor)
            return await assembly.streams.call(request, timeout)
        first = None if prefer is None else assembly.engine.preferred(_address(prefer, "prefer"))
        record = signed(outgoing.record(Kind.REQUEST, service, body, headers), by)
        if compressor is not None:
            record = await outgoing.compressing.soon(record, compressor)
        return await assembly.calls.call(
            record, priority, timeout, assembly.runner.now, assembly.no_provider, key=key,
            prefer=first, hedge_after=hedge_after, retries=retries,
        )  # fmt: skip

    def stream(
        self,
        service: str,
        body: object = None,
        *,
        timeout: float | None = None,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        compression: Compression | None = None,
        sign: bool | None = None,
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
            sign: as for `send`, but for parts: what opens the stream is signed, with a body that
                is whole.

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
        record = signed(record, assembly.outgoing.signing.for_target(sign, priority))
        record = compressing.now(record, compressor)
        ways = Ways.ANSWER if parts is None else Ways.ANSWER | Ways.BODY
        request = Request(record, priority, ways, parts, compressor=compressor)
        return Stream(lambda: self._at_work().streams, request, timeout)


def _address(to: str | Peer, option: str = "to") -> str:
    if isinstance(to, str):
        return to
    if isinstance(to, Peer):
        return to.id
    raise InvalidOption(option, to, "a name, an id as hex digits, or a Peer")


def _signing(
    assembly: Assembly,
    to: str | Peer,
    sign: bool | None,
    lane: int,
    key: str | None,
    ttl: float | None,
    *,
    is_durable: bool,
) -> tuple[str, Sign | None]:
    """Return the address of direct messages, and what signs them for it."""
    address, signing = _address(to), assembly.outgoing.signing
    if not signing.is_wanted(sign):
        return address, None
    if is_durable:  # for whoever is called so when it gets there
        return address, signing.for_name(address, lane, key, ttl)
    node = assembly.posting.resolve(address)
    return node.hex(), signing.for_node(node, lane, key, ttl)
