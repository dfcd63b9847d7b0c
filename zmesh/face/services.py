"""Services of this node: which handlers run, which requests wait, and what becomes of each."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from zmesh.actions import CancelRequest, Delivery
from zmesh.errors import Reject, UsageError
from zmesh.events import Event, Reply, Serve, SettleDeliveries, Source, Withdraw
from zmesh.face.checks import sendable_text
from zmesh.face.handlers import Handler, in_thread, is_async, watched
from zmesh.face.outgoing import Outgoing
from zmesh.face.received import Chunk, Message, numbers
from zmesh.face.threads import ThreadPool
from zmesh.message import Outcome, Tag, extra

logger = logging.getLogger(__name__)

_WARN_EVERY: Final = 60.0  # seconds between two warnings that one service holds up the loop
_CANCEL_PATIENCE: Final = 1.0  # seconds a cancelled handler has to end


class RequestSettler:
    """Refuses verdicts: a request is settled by what its handler returns or raises."""

    def settle(self, *_: object, **__: object) -> None:
        """Refuse.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "a request is settled by its handler: return the reply, raise zmesh.Reject(reason), "
            "or raise anything else to fail the call"
        )

    def abandon(self, *_: object, **__: object) -> None:
        """Do nothing: no reader takes requests, so none can be gone."""


@dataclass(eq=False, slots=True)
class Service:
    """One service: its handler, and the requests that wait for it."""

    name: str
    handler: Handler
    concurrency: int
    is_async: bool
    running: int = 0
    waiting: "deque[Request]" = field(default_factory=deque)
    warned_at: float = float("-inf")


@dataclass(eq=False, slots=True)
class Request:
    """One request, waiting or being handled."""

    service: Service
    message: Message
    source: Source
    first_seq: int
    last_seq: int
    correlation: int
    task: "asyncio.Task[None] | None" = None

    @property
    def key(self) -> tuple[Source, int]:
        """What `CancelRequest` names it by."""
        return (self.source, self.first_seq)


class Services:
    """All services of a node."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outgoing: Outgoing,
        command: Callable[[Event], None],
    ) -> None:
        self._loop = loop
        self._outgoing = outgoing
        self._command = command
        self._services: dict[str, Service] = {}
        self._requests: dict[tuple[Source, int], Request] = {}
        self._threads = ThreadPool("zmesh-handler")
        self._settler = RequestSettler()
        self._is_draining = False

    def __contains__(self, name: object) -> bool:
        return name in self._services

    def serve(self, name: str, handler: Handler, concurrency: int) -> None:
        """Begin to answer requests for a service."""
        self._services[name] = Service(name, handler, concurrency, is_async(handler))
        self._command(Serve(name))

    def withdraw(self, name: str) -> None:
        """End a service: what runs is finished, what waits goes to other providers."""
        service = self._services.pop(name)
        self._command(Withdraw(name))
        self._release_waiting(service)

    def drain(self) -> None:
        """Start nothing more: what waits goes to other providers."""
        self._is_draining = True
        for service in self._services.values():
            self._release_waiting(service)

    async def close(self) -> None:
        """Cancel the handlers that run, and wait for them to end."""
        self.drain()
        tasks = [request.task for request in self._requests.values() if request.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=_CANCEL_PATIENCE)
            for task in stuck:
                logger.warning("%s did not end when cancelled", task.get_name())
        self._threads.close(timeout=0.1)

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Take requests: start their handlers, or let them wait their turn."""
        for delivery in deliveries:
            chunk = Chunk(self._settler, delivery, 0, len(delivery.records))
            for message, record in zip(chunk.messages, delivery.records, strict=True):
                source, seqs = delivery.source, numbers(delivery, message.index, message.index)
                correlation = extra(record, Tag.CORRELATION)
                service = self._services.get(message.topic)
                if service is None or self._is_draining:
                    self._settle(source, seqs, Outcome.RELEASED)
                elif not isinstance(correlation, int):
                    self._settle(source, seqs, Outcome.REJECTED, "a request without correlation")
                else:
                    self._take(Request(service, message, source, *seqs, correlation))

    def cancel(self, order: CancelRequest) -> None:
        """Stop what nobody waits for; what runs in a thread cannot be stopped."""
        request = self._requests.get((order.source, order.first_seq))
        if request is None:
            return
        if request.task is None:
            request.service.waiting.remove(request)
            self._release(request)
        elif request.service.is_async:
            request.task.cancel()

    def _take(self, request: Request) -> None:
        self._requests[request.key] = request
        if request.service.running < request.service.concurrency:
            self._start(request)
        else:
            request.service.waiting.append(request)

    def _start(self, request: Request) -> None:
        request.service.running += 1
        name = f"zmesh handler of {request.service.name!r}"
        request.task = self._loop.create_task(self._handle(request), name=name)
        # A task that is cancelled before its first step runs none of its code.
        request.task.add_done_callback(lambda _: self._on_ended(request))

    async def _handle(self, request: Request) -> None:
        service = request.service
        try:
            reply = self._outgoing.reply(await self._run(service, request.message))
        except Reject as error:
            self._settle(*_place(request), Outcome.REJECTED, sendable_text(error.reason))
            return
        except asyncio.CancelledError as error:
            if request.task is None or request.task.cancelling():
                raise
            reply = self._outgoing.failure(error)  # something the handler awaited was cancelled
        except Exception as error:
            logger.exception("the handler of %r raised", service.name)
            reply = self._outgoing.failure(error)
        self._command(
            Reply(request.source, request.first_seq, request.last_seq, request.correlation, reply)
        )

    async def _run(self, service: Service, message: Message) -> Any:
        if not service.is_async:
            return await in_thread(self._threads, self._loop, service.handler, message)
        return await watched(
            service.handler(message), lambda seconds: self._warn_of_blocking(service, seconds)
        )

    def _on_ended(self, request: Request) -> None:
        service = request.service
        service.running -= 1
        if request.task is not None and request.task.cancelled():
            self._release(request)
        else:
            del self._requests[request.key]
        if service.waiting:
            self._start(service.waiting.popleft())

    def _release_waiting(self, service: Service) -> None:
        while service.waiting:
            self._release(service.waiting.popleft())

    def _release(self, request: Request) -> None:
        del self._requests[request.key]
        self._settle(*_place(request), Outcome.RELEASED)

    def _settle(
        self, source: Source, seqs: tuple[int, int], outcome: Outcome, reason: str = ""
    ) -> None:
        self._command(SettleDeliveries(source, *seqs, outcome, reason))

    def _warn_of_blocking(self, service: Service, seconds: float) -> None:
        now = self._loop.time()
        if now - service.warned_at < _WARN_EVERY:
            return
        service.warned_at = now
        logger.warning(
            "the handler of %r held up the event loop for %.0f ms: peers may think this node "
            "busy; make it a plain function, which runs in a thread",
            service.name,
            seconds * 1000,
        )


def _place(request: Request) -> tuple[Source, tuple[int, int]]:
    return request.source, (request.first_seq, request.last_seq)
