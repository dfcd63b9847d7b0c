"""The node: what an application holds of its mesh."""

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar, get_args

from zeroconf.asyncio import AsyncZeroconf

from zmesh.assembly import Assembly, DrainReport
from zmesh.errors import (
    Closed,
    DeliveryTimeout,
    ForkedProcess,
    InvalidOption,
    NotOpen,
    UsageError,
    WrongThread,
    ZmeshError,
)
from zmesh.handlers import Handler, is_async
from zmesh.inbox import Inbox, Settle
from zmesh.message import PRIORITY_DEFAULT, Kind
from zmesh.options import NodeOptions
from zmesh.outgoing import Headers
from zmesh.peers_view import Peer, Peers
from zmesh.receipts import Receipt
from zmesh.settings import settle as settle_arguments
from zmesh.subscriptions import Subscription

H = TypeVar("H", bound=Handler)

SEND_TIMEOUT: Final = 30.0
"""Seconds `send` and `call` wait by default: long for a handler, short for a person."""

EXIT_DRAIN: Final = 0.5
"""Seconds the end of an `async with` block waits for what is under way."""


class Node:
    """One member of a mesh.

    ```python
    async with zmesh.Node("camera-3") as node:
        await node.send("printer-1", {"job": 7})
    ```

    It belongs to the event loop, thread and process it was opened in.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        mesh: str | None = None,
        peers: Iterable[str] = (),
        seeds: Iterable[str] = (),
        mdns: bool = True,
        interfaces: Sequence[str] | None = None,
        port: int = 0,
        insecure: bool = False,
        options: NodeOptions = NodeOptions(),  # noqa: B008  # frozen
        zeroconf: AsyncZeroconf | None = None,
    ) -> None:
        """Describe a node; nothing happens before it is opened.

        Args:
            name: a label for people; host name and process id by default.
            mesh: nodes of different meshes do not see each other; `ZMESH_MESH` or "default".
            peers: addresses of nodes, `host:port`, for where mDNS does not reach; `ZMESH_PEERS`
                adds to them.
            seeds: addresses of nodes that are asked whom they know; `ZMESH_SEEDS` adds to them.
            mdns: whether to be found, and to find others, by mDNS.
            interfaces: names or addresses of network interfaces to listen on, "*" for all; this
                machine's loopback alone by default.
            port: to listen on; any free one by default.
            insecure: allows interfaces other than loopback, though nothing is encrypted yet.
            options: limits and times.
            zeroconf: the application's own mDNS responder, to be used instead of one of ours.

        Raises:
            InvalidOption: naming the argument that cannot work, and why.
        """
        self._settings = settle_arguments(
            name=name,
            mesh=mesh,
            peers=peers,
            seeds=seeds,
            mdns=mdns,
            interfaces=interfaces,
            port=port,
            insecure=insecure,
            options=options,
            zeroconf=zeroconf,
            environment=os.environ,
        )
        self._services: dict[str, tuple[Handler, int]] = {}
        self._assembly: Assembly | None = None
        self._thread = 0
        self._refusal: ZmeshError | None = NotOpen()  # why calls are refused, if they are

    # Opening and closing

    async def open(self) -> Self:
        """Join the mesh: listen, and look for others. `async with` does it.

        Raises:
            InvalidOption: an interface or port that cannot be listened on.
            UsageError: it was opened before.
        """
        if not isinstance(self._refusal, NotOpen) or self._thread:
            raise UsageError("a node is opened once: make a new one")
        self._thread = threading.get_ident()
        assembly = Assembly(self._settings, self._on_failed)
        try:
            await assembly.start()
        except BaseException:
            self._refusal = Closed()
            raise
        self._assembly, self._refusal = assembly, None
        _open_nodes.add(self)
        for service, (handler, concurrency) in self._services.items():
            assembly.engine.check_serve(service)
            assembly.services.serve(service, handler, concurrency)
        return self

    async def close(self, drain: float | None = None) -> DrainReport:
        """Leave the mesh, and release everything. Closing again does nothing.

        Args:
            drain: seconds to finish what is under way: handlers that run, and messages without
                outcome. New work is not taken meanwhile. None does not wait at all.

        Returns:
            What was still open when the drain ended. What waits for it gets `Closed`.
        """
        if self._assembly is None or isinstance(self._refusal, ForkedProcess):
            return DrainReport(0, 0)
        if threading.get_ident() != self._thread:
            raise WrongThread
        self._refusal = self._refusal or Closed()
        _open_nodes.discard(self)
        return await self._assembly.close(drain or 0.0)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; what is under way gets half a second, unless an exception ended the block."""
        await self.close(drain=EXIT_DRAIN if error is None else None)

    def __del__(self) -> None:
        if getattr(self, "_assembly", None) is not None and self._refusal is None:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=1)

    def __repr__(self) -> str:
        return f"<Node {self._settings.name!r} of mesh {self._settings.mesh!r}>"

    # Who it is, and who is there

    @property
    def name(self) -> str:
        """The label people know it by."""
        return self._settings.name

    @property
    def mesh(self) -> str:
        """The mesh it is in."""
        return self._settings.mesh

    @property
    def id(self) -> str:
        """Its id, as hex: what to address it by where several share its name."""
        return self._at_work().id.hex()

    @property
    def endpoints(self) -> list[str]:
        """Where it listens, as in `["tcp://127.0.0.1:49152"]`: what others need as `peers`."""
        return list(self._at_work().endpoints)

    @property
    def peers(self) -> Peers:
        """The other nodes: iterate, `get`, `wait_for` and `watch`."""
        return self._at_work().peers

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

        Raises:
            PeerUnknown, AmbiguousPeer: there is no such peer, or several.
            Rejected, Expired, DeadLettered, PeerLost, PeerRestarted: what became of it.
            DeliveryTimeout: nothing yet; it may still be handled.
            BodyNotEncodable, BodyTooLarge, InvalidOption: it cannot be sent.
        """
        try:
            async with asyncio.timeout(timeout):
                receipt = await self.post(
                    to, body, headers=headers, priority=priority, key=key, ttl=ttl
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
    ) -> Receipt:
        """Post a message to one peer, and return its receipt once there is room for it.

        `await receipt` for the outcome, or leave it: `flush` waits for all.
        Arguments and errors are those of `send`, but the outcome's are raised by the receipt.
        """
        assembly = self._at_work()
        record = assembly.outgoing.record(Kind.DIRECT, "", body, headers)
        assembly.outgoing.check_options(priority, key, ttl)
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
    ) -> Receipt:
        """Post a message now, as `post` does where there is room.

        Raises:
            Backpressure: there is no room.
        """
        assembly = self._at_work()
        record = assembly.outgoing.record(Kind.DIRECT, "", body, headers)
        assembly.outgoing.check_options(priority, key, ttl)
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
    ) -> Receipt:
        """Post many messages to one peer, as fast as there is room, under one receipt.

        It is by far the cheapest way to send many. Arguments are those of `post`.
        """
        assembly = self._at_work()
        assembly.outgoing.check_options(priority, key, ttl)
        return await assembly.posting.post_many(_address(to), bodies, priority, key, ttl, headers)

    async def flush(self) -> None:
        """Wait until everything posted and published so far has its outcome, whatever it is.

        Raises:
            Closed: the node was closed meanwhile.
        """
        await self._at_work().posting.flush()

    def inbox(self, settle: Settle = "auto") -> Inbox:
        """Return the messages other nodes send to this one: `async for message in node.inbox()`.

        Asking for the next message accepts the one before; leaving the loop by an exception gives
        the message back, to be delivered again; `break` and `return` accept it. With
        `settle="manual"` only `accept`, `reject` and `release` do. Several loops share the work.
        """
        assembly = self._at_work()
        _check_settle(settle)
        assembly.open_inbox()
        return assembly.inboxes[settle]

    # Request and reply

    def service(self, name: str, *, concurrency: int = 8) -> Callable[[H], H]:
        """Answer calls of a service with the decorated function.

        What it returns is the reply. `raise zmesh.Reject(reason)` refuses the call, any other
        exception reaches the caller as `RemoteError`. A plain function runs in a thread, so that
        it may block. It can be used before the node is opened.

        Args:
            name: of the service.
            concurrency: calls handled at a time; more wait.

        Raises:
            InvalidOption, UsageError: it cannot be provided.
        """
        if not isinstance(name, str):
            raise InvalidOption("service", name, 'a name, as in @node.service("resize")')
        if concurrency < 1:
            raise InvalidOption("concurrency", concurrency, "1 or more")

        def register(handler: H) -> H:
            is_async(handler)
            if name in self._services:
                raise UsageError(f"service {name!r} is provided already: withdraw it first")
            if not isinstance(self._refusal, NotOpen):
                assembly = self._at_work()
                assembly.engine.check_serve(name)
                assembly.services.serve(name, handler, concurrency)
            self._services[name] = (handler, concurrency)
            return handler

        return register

    def withdraw(self, service: str) -> None:
        """Provide a service no longer; calls being handled are finished.

        Raises:
            UsageError: it is not provided.
        """
        if self._services.pop(service, None) is None:
            raise UsageError(f"service {service!r} is not provided here")
        if not isinstance(self._refusal, NotOpen):
            self._at_work().services.withdraw(service)

    async def call(
        self,
        service: str,
        body: object = None,
        *,
        timeout: float | None = SEND_TIMEOUT,  # noqa: ASYNC109  # the engine keeps the deadline
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
    ) -> Any:
        """Call a service: the least loaded of its providers answers, and if it dies, another.

        Args:
            service: its name.
            body: bytes, or anything msgpack can carry.
            timeout: seconds to wait for the reply; None waits for ever.
            headers: small values beside the body.
            priority: 0 (lowest) to 9 (highest).

        Returns:
            What the handler returned.

        Raises:
            NoProvider: nobody provides it.
            RemoteError: the handler raised; type and text of its exception.
            Rejected: the handler refused the call.
            DeliveryTimeout: no reply in time; the call may still be handled.
            DeadLettered: as many providers as allowed tried and did not come to an end.
        """
        assembly = self._at_work()
        assembly.outgoing.check_options(priority, None, None)
        record = assembly.outgoing.record(Kind.REQUEST, service, body, headers)
        now = assembly.runner.now
        return await assembly.calls.call(record, priority, timeout, now, assembly.services_seen)

    # Publish and subscribe

    async def publish(
        self,
        topic: str,
        body: object,
        *,
        headers: Headers | None = None,
        priority: int = PRIORITY_DEFAULT,
        key: str | None = None,
        ttl: float | None = None,
    ) -> Receipt:
        """Publish a message to every node that subscribes to its topic now, this one included.

        Returns once there is room in their queues. `await receipt` waits until all have handled
        it, and returns how many did; without subscribers that is 0, at once.

        Args:
            topic: tokens separated by dots, as in "sensors.kitchen.temp".
            body, headers, priority, key, ttl: as for `send`.

        Raises:
            InvalidOption, BodyNotEncodable, BodyTooLarge: it cannot be published.
        """
        assembly = self._at_work()
        assembly.engine.check_publish(topic)
        assembly.outgoing.check_options(priority, key, ttl)
        record = assembly.outgoing.record(Kind.PUBLICATION, topic, body, headers)
        return await assembly.posting.publish(record, priority, key, ttl)

    def subscribe(self, pattern: str, *, settle: Settle = "auto") -> Subscription:
        """Subscribe to topics, for as long as an `async with` block runs.

        ```python
        async with node.subscribe("sensors.*.temp") as temperatures:
            async for message in temperatures:
                print(message.topic, message.body)
        ```

        Messages are settled as in `inbox`.

        Args:
            pattern: a topic in which `*` stands for one token, and `>` at the end for all others.
            settle: "auto" or "manual".

        Raises:
            InvalidOption, UsageError: the pattern cannot work, or there are too many.
        """
        assembly = self._at_work()
        _check_settle(settle)
        assembly.engine.check_subscribe(pattern)
        return assembly.subscription(pattern, settle)

    # Inside

    def _at_work(self) -> Assembly:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        if threading.get_ident() != self._thread:
            raise WrongThread
        assembly = self._assembly
        if assembly is None:
            raise NotOpen  # it is being opened
        return assembly

    def _on_failed(self, error: ZmeshError) -> None:
        self._refusal = error

    def on_forked(self) -> None:
        """Refuse all calls: this is the child of a fork, and everything is the parent's."""
        self._refusal = ForkedProcess(os.getppid(), os.getpid())


def _address(to: str | Peer) -> str:
    return to if isinstance(to, str) else to.id


def _check_settle(settle: str) -> None:
    if settle not in get_args(Settle):
        raise InvalidOption("settle", settle, '"auto" or "manual"')


_open_nodes: "weakref.WeakSet[Node]" = weakref.WeakSet()


def _on_fork() -> None:
    for node in list(_open_nodes):
        node.on_forked()


if hasattr(os, "register_at_fork"):  # everywhere but on Windows, which cannot fork
    os.register_at_fork(after_in_child=_on_fork)
