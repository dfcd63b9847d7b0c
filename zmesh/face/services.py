"""Services of this node: which handlers run, which requests wait, and what becomes of each."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from zmesh.actions import CancelRequest, Delivery
from zmesh.errors import Reject, UsageError
from zmesh.events import Event, Reply, Serve, SettleDeliveries, Source, Withdraw
from zmesh.face.checks import sendable_text
from zmesh.face.handlers import Handler, in_thread, is_async, watched
from zmesh.face.outgoing import Outgoing
from zmesh.face.received import Chunk, Message, RequestMessage, numbers
from zmesh.face.threads import ThreadPool
from zmesh.face.turns import Turns
from zmesh.ids import NodeId
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


Line = tuple[NodeId, str]


@dataclass(eq=False, slots=True)
class Service:
    """One service: its handler, and the requests that wait for it."""

    name: str
    handler: Handler
    is_async: bool
    turns: "Turns[Request, Line]"
    warned_at: float = float("-inf")


@dataclass(eq=False, slots=True)
class Request:
    """One request, waiting or being handled."""

    service: Service
    message: RequestMessage
    source: Source
    first_seq: int
    last_seq: int
    correlation: int
    line: "Line | None"  # of its caller and key: with whom it is handled one at a time
    task: "asyncio.Task[None] | None" = None  # None: it waits

    @property
    def place(self) -> tuple[Source, int]:
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
        self._services[name] = Service(name, handler, is_async(handler), Turns(concurrency))
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
        tasks = []
        for request in self._requests.values():
            request.message.is_cancelled = True
            if request.task is not None:
                request.task.cancel()
                tasks.append(request.task)
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=_CANCEL_PATIENCE)
            for task in stuck:
                logger.warning("%s did not end when cancelled", task.get_name())
        self._threads.close(timeout=0.1)

    def deliver(self, deliveries: list[Delivery]) -> None:
        """Take requests: start their handlers, or let them wait their turn."""
        for delivery in deliveries:
            chunk = Chunk(self._settler, delivery, 0, 0)
            for index, record in enumerate(delivery.records):
                message = RequestMessage(chunk, record, index, self._loop.time)
                source, seqs = delivery.source, numbers(delivery, index, index)
                correlation = extra(record, Tag.CORRELATION)
                service = self._services.get(message.topic)
                if service is None or self._is_draining:
                    self._settle(source, seqs, Outcome.RELEASED)
                elif not isinstance(correlation, int):
                    self._settle(source, seqs, Outcome.REJECTED, "a request without correlation")
                else:
                    key = message.key
                    line = None if key is None else (source.node, key)
                    self._take(Request(service, message, source, *seqs, correlation, line))

    def cancel(self, order: CancelRequest) -> None:
        """Stop what nobody waits for; what runs in a thread is told so, and cannot be stopped."""
        request = self._requests.get((order.source, order.first_seq))
        if request is None:
            return
        request.message.is_cancelled = True
        if request.task is None:
            request.service.turns.remove(request, request.line)
            self._release(request)
        elif request.service.is_async:
            request.task.cancel()

    def _take(self, request: Request) -> None:
        self._requests[request.place] = request
        request.service.turns.add(request, request.line)
        self._begin(request.service)

    def _begin(self, service: Service) -> None:
        """Start the handlers whose turn it is; what nobody waits for any more is not handled."""
        while (request := service.turns.begin()) is not None:
            if request.message.remaining == 0.0:
                service.turns.end(request.line)
                self._release(request)
            else:
                self._start(request)

    def _start(self, request: Request) -> None:
        name = f"zmesh handler of {request.service.name!r}"
        request.task = self._loop.create_task(self._handle(request), name=name)
        # A task that is cancelled before its first step runs none of its code.
        request.task.add_done_callback(lambda _: self._on_ended(request))

    async def _handle(self, request: Request) -> None:
        service = request.service
        try:
            reply = self._outgoing.reply(await self._run(service, request.message))
        except Reject as error:
            self._settle(*_numbers(request), Outcome.REJECTED, sendable_text(error.reason))
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
        service.turns.end(request.line)
        if request.task is not None and request.task.cancelled():
            self._release(request)
        else:
            del self._requests[request.place]
        self._begin(service)

    def _release_waiting(self, service: Service) -> None:
        for request in service.turns.clear():
            self._release(request)

    def _release(self, request: Request) -> None:
        """Give a request back, or tell that it was never begun in time."""
        del self._requests[request.place]
        is_late = request.task is None and request.message.remaining == 0.0
        outcome = Outcome.EXPIRED if is_late else Outcome.RELEASED
        self._settle(*_numbers(request), outcome)

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


def _numbers(request: Request) -> tuple[Source, tuple[int, int]]:
    return request.source, (request.first_seq, request.last_seq)
