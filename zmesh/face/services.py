"""Services of this node: which handlers run, which requests wait, and what becomes of each."""

import asyncio
import logging
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from zmesh.actions import CancelRequest, Delivery
from zmesh.errors import InvalidBody, Reject, UsageError
from zmesh.events import Reply, ReplyEach, Serve, SettleDeliveries, Source, Withdraw
from zmesh.face.calls import RUN_MAX, Commands
from zmesh.face.checks import sendable_text
from zmesh.face.handlers import (
    Handler,
    Middleware,
    ThreadedParts,
    adapted,
    answers_in_parts,
    in_thread,
    is_async,
)
from zmesh.face.hosting import BLOCKING, Begun, begin, finish, is_kept, marks_of
from zmesh.face.outgoing import Outgoing
from zmesh.face.received import Chunk, Message
from zmesh.face.requests import RequestMessage
from zmesh.face.streams import Channel
from zmesh.face.threads import ThreadPool
from zmesh.face.transactions import Transactions
from zmesh.face.turns import Turns
from zmesh.face.verdicts import numbers
from zmesh.face.verifying import Guard, Refusal, Verify, Verifying
from zmesh.ids import NodeId
from zmesh.message import Outcome, Record, Tag, Ways, columns_of, extra

logger = logging.getLogger(__name__)

_WARN_EVERY: Final = 60.0  # seconds between two warnings that one service holds up the loop
_CANCEL_PATIENCE: Final = 1.0  # seconds a cancelled handler has to end

HOLD_UP_MAX: Final = 0.002
"""Seconds of handling that one task does before others of the loop have their turn."""


class RequestSettler:
    """Refuses verdicts: a request is settled by what its handler returns or raises."""

    is_open = False
    transactions: Transactions  # of tickets; set by who has the database

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


_END: Final = object()

Line = tuple[NodeId, str]
Place = tuple[bytes, int, int]


@dataclass(eq=False, slots=True)
class Service:
    """One service: its handler, and the requests that wait for it."""

    name: str
    handler: Handler
    is_async: bool
    in_parts: bool
    turns: "Turns[Request, Line]"
    task_name: str
    guard: Guard | None = None  # of signatures
    warned_at: float = float("-inf")
    note_blocked: Callable[[float], None] = lambda _: None  # of a step that held up the loop
    workers: "dict[asyncio.Task[None], None]" = field(default_factory=dict)  # that are for any
    is_quick: bool = True  # the latest handler waited for nothing


@dataclass(eq=False, slots=True)
class Request:
    """One request, waiting or being handled."""

    service: Service
    message: RequestMessage
    source: Source
    first_seq: int
    last_seq: int
    place: Place  # what `CancelRequest` names it by
    correlation: int
    line: Line | None  # with whom it is handled one at a time
    channel: Channel | None = None  # of a stream
    task: "asyncio.Task[None] | None" = None  # None: it waits


class Services:
    """All services of a node."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        outgoing: Outgoing,
        commands: Commands,
        verifying: Verifying | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self.middleware = middleware
        self._loop = loop
        self._outgoing = outgoing
        self._commands = commands
        self._command = commands.command
        self._verifying = verifying
        self._services: dict[str, Service] = {}
        self._requests: dict[Place, Request] = {}
        self._threads = ThreadPool("zmesh-handler")
        self.settler = RequestSettler()
        self._is_draining = False

    def __contains__(self, name: object) -> bool:
        return name in self._services

    def serve(
        self, name: str, handler: Handler, concurrency: int, verify: Verify | None = None
    ) -> None:
        """Begin to answer requests for a service."""
        verifying = self._verifying
        service = self._services[name] = Service(
            name,
            adapted(handler),
            is_async(handler),
            answers_in_parts(handler),
            Turns(concurrency),
            f"zmesh handler of {name!r}",
            None if verifying is None else verifying.guard(verify, f"service:{name}"),
        )
        service.note_blocked = partial(self._warn_of_blocking, service)
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
        tasks = [worker for service in self._services.values() for worker in service.workers]
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
        clock = self._loop.time
        now = clock()
        services: dict[str, Service] = {}
        for delivery in deliveries:
            chunk = Chunk(self.settler, delivery, 0, 0)
            source, records = delivery.source, delivery.records
            calls, times, keys, signatures = columns_of(
                records, Tag.CORRELATION, Tag.TTL_MS, Tag.KEY, Tag.SIGNATURE
            )
            session, lane, first = source.session, source.lane, delivery.first_seq
            for index, record in enumerate(records):
                service = self._services.get(record[1])
                number, call, ttl_ms, key = first + index, calls[index], times[index], keys[index]
                if service is None or self._is_draining or not isinstance(call, int):
                    self._refuse(delivery, index)
                    continue
                guard = service.guard
                if guard is not None and (guard.is_required or signatures[index] is not None):
                    refusal = guard.refusal(delivery, index)
                    if refusal is not None:
                        seqs = numbers(delivery, index, index)
                        self._command(SettleDeliveries(source, *seqs, *refusal))
                        continue
                deadline = now + ttl_ms / 1000 if isinstance(ttl_ms, int) else None
                last = delivery.last_seq if len(records) == 1 else number
                request = Request(
                    service,
                    RequestMessage(chunk, record, index, clock, deadline),
                    source,
                    number,
                    last,
                    (session, lane, number),
                    call,
                    None if key is None else _line(source, key),
                )
                self._requests[request.place] = request
                service.turns.add(request, request.line)
                services[service.name] = service
        for service in services.values():
            self._begin(service)

    def _refuse(self, delivery: Delivery, index: int) -> None:
        """Give a request back that nobody here handles, or refuse what nobody could answer."""
        seqs = numbers(delivery, index, index)
        if self._is_draining or delivery.records[index][1] not in self._services:
            self._command(SettleDeliveries(delivery.source, *seqs, Outcome.RELEASED))
        else:
            reason = "a request without correlation"
            self._command(SettleDeliveries(delivery.source, *seqs, Outcome.REJECTED, reason))

    def offer(self, delivery: Delivery, channel: Channel) -> None:
        """Take a stream: start its handler, or let it wait its turn."""
        chunk = Chunk(self.settler, delivery, 0, 0)
        record = delivery.records[0]
        ttl_ms, clock = extra(record, Tag.TTL_MS), self._loop.time
        deadline = clock() + ttl_ms / 1000 if isinstance(ttl_ms, int) else None
        message = RequestMessage(chunk, record, 0, clock, deadline)
        message.body_parts = channel.parts
        service = self._services.get(message.topic)
        if service is None or self._is_draining:
            channel.refuse(Outcome.RELEASED)
        elif refusal := _refusal(service, channel.ways):
            channel.refuse(Outcome.REJECTED, refusal)
        elif verdict := _refusal_of_signature(service, delivery, 0):
            channel.refuse(*verdict)
        else:
            source, seqs = delivery.source, (delivery.first_seq, delivery.last_seq)
            line, place = _line(source, message.key), (source.session, source.lane, seqs[0])
            request = Request(service, message, source, *seqs, place, 0, line, channel)
            self._requests[place] = request
            service.turns.add(request, line)
            self._begin(service)

    def cancel(self, order: CancelRequest) -> None:
        """Stop what nobody waits for; what runs in a thread is told so, and cannot be stopped."""
        place = (order.source.session, order.source.lane, order.first_seq)
        request = self._requests.get(place)
        if request is None:
            return
        request.message.is_cancelled = True
        if request.task is None:
            request.service.turns.remove(request, request.line)
            self._release(request)
        elif request.service.is_async or request.service.in_parts:
            request.task.cancel()

    # Tasks: see `hosting`

    def _begin(self, service: Service) -> None:
        """Have the handlers begin whose turn it is: in one task, or in one each if they wait."""
        startable, workers = service.turns.startable, service.workers
        wanted = 1 if service.is_quick and startable else startable
        while len(workers) < wanted:
            # Not by the loop's factory: an eager one would run it here, within a turn.
            worker = asyncio.Task(self._work(service), loop=self._loop, name=service.task_name)
            workers[worker] = None
            # One that is cancelled before its first step runs none of its code.
            worker.add_done_callback(partial(self._on_worker_ended, service))

    def _on_worker_ended(self, service: Service, worker: "asyncio.Task[None]") -> None:
        if worker in service.workers:
            del service.workers[worker]
            if service.turns.startable:
                self._begin(service)

    async def _work(self, service: Service) -> None:
        """Handle requests until a handler waits: from then on this task is that one's alone."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # this is one
        self._commands.hold()
        try:
            left = self._handle_some(service, task)
        finally:
            self._commands.let_go()
        if left is None:
            return
        del service.workers[task]
        self._begin(service)
        request, begun = left
        gave_up = False
        try:
            await finish(begun, service.note_blocked)
        except asyncio.CancelledError:
            gave_up = True
            raise
        finally:
            self._ended(request, gave_up=gave_up)

    def _handle_some(
        self, service: Service, task: "asyncio.Task[None]"
    ) -> tuple[Request, Begun] | None:
        """Handle requests one after the other; return the first whose handler waits."""
        turns, requests, clock = service.turns, self._requests, time.monotonic
        marks = marks_of(task)
        begun_at = step_at = clock()
        offset = self._loop.time() - begun_at  # uvloop's clock stands still meanwhile
        while (request := turns.begin()) is not None:
            deadline = request.message.deadline
            if deadline is not None and deadline <= step_at + offset:
                turns.end(request.line)  # nobody waits for it any more
                self._release(request)
                continue
            request.task = task
            gave_up = False
            try:
                begun = begin(self._handle(request))
            except asyncio.CancelledError:
                begun, gave_up = None, True
            except BaseException:
                self._ended(request, gave_up=False)
                raise
            before, step_at = step_at, clock()
            if step_at - before > BLOCKING:
                service.note_blocked(step_at - before)
            service.is_quick = begun is None
            if begun is not None:
                return request, begun
            turns.end(request.line)
            if gave_up:
                self._release(request)
            else:
                del requests[request.place]
            request.task = None
            if is_kept(task, marks) or step_at - begun_at > HOLD_UP_MAX:
                break
        return None

    async def _handle(self, request: Request) -> None:
        service, channel = request.service, request.channel
        failure: BaseException | None = None
        reply: Record | None = None
        try:
            if channel is not None:
                self._note_outcome(request, Outcome.ACCEPTED)  # it is settled as it begins
                await self._stream(service, request.message, channel)
            else:
                reply = self._outgoing.reply(await self._running(service, request.message))
                compressing = self._outgoing.compressing
                if compressing.default is not None:
                    reply = await compressing.soon(reply, compressing.default)
        except (Reject, InvalidBody) as error:
            reason = error.reason if isinstance(error, Reject) else error
            self._settle(request, Outcome.REJECTED, sendable_text(reason))
            return
        except asyncio.CancelledError as error:
            if request.task is None or request.task.cancelling():
                raise
            failure = error  # something the handler awaited was cancelled
        except Exception as error:
            if error is getattr(request.message, "flaw", None):  # the caller's fault
                self._settle(request, Outcome.REJECTED, sendable_text(error))
                return
            logger.exception("the handler of %r raised", service.name)
            failure = error
        except GeneratorExit:  # of a loop that is no more
            raise
        except BaseException as error:  # it ends more than this, but its caller is to know
            self._answer(request, None, error)
            raise
        self._answer(request, reply, failure)

    def _answer(
        self, request: Request, reply: Record | None, failure: BaseException | None
    ) -> None:
        """Tell the caller that its request was handled, and how."""
        if request.channel is not None:
            if failure is None:
                request.channel.end()
            else:
                request.channel.fail(failure)
            return
        # What a handler failed to do may be asked again, with the same signature.
        outcome = Outcome.ACCEPTED if failure is None else Outcome.MODIFIED
        self._note_outcome(request, outcome)
        if failure is not None:
            reply = self._outgoing.failure(failure)
        assert reply is not None, "a handler answers or fails"  # noqa: S101
        self._reply(request, reply)

    def _reply(self, request: Request, record: Record) -> None:
        """Answer with what was answered just before to the same peer, if that still waits."""
        source, number, call = request.source, request.first_seq, request.correlation
        last = self._commands.last
        if number != request.last_seq:
            self._command(Reply(source, number, request.last_seq, call, record))
        elif isinstance(last, ReplyEach) and last.source is source and len(last.numbers) < RUN_MAX:
            last.numbers.append(number)
            last.correlations.append(call)
            last.records.append(record)
        else:
            self._command(ReplyEach(source, [number], [call], [record]))

    async def _stream(self, service: Service, message: Message, channel: Channel) -> None:
        """Run the handler of a stream; write what it returns, or yields, as the answer."""
        channel.begin()
        answer = await self._run(service, message)
        if not (service.in_parts and isinstance(answer, AsyncIterable)):
            await channel.write(answer)
            return
        parts = aiter(answer)
        try:
            while True:
                part = await anext(parts, _END)
                if part is _END:
                    return
                await channel.write(part)
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()

    def _running(self, service: Service, message: Message) -> Awaitable[Any]:
        """Return what the handler will return, by the shortest way there is.

        Raises:
            Reject: it answers in parts, and was not asked for these.
        """
        if service.in_parts:
            raise Reject(_refusal(service, Ways(0)))
        if self.middleware or not service.is_async:
            return self._run(service, message)
        awaitable: Awaitable[Any] = service.handler(message)
        return awaitable

    async def _run(self, service: Service, message: Message, layer: int = 0) -> Any:
        """Run the handler inside the middleware from `layer` on, the first one outermost."""
        if layer < len(self.middleware):
            inside = partial(self._run, service, layer=layer + 1)
            return await self.middleware[layer](message, inside)
        if service.in_parts:
            parts = service.handler(message)
            return parts if service.is_async else ThreadedParts(self._threads, self._loop, parts)
        if not service.is_async:
            return await in_thread(self._threads, self._loop, service.handler, message)
        return await service.handler(message)

    def _ended(self, request: Request, *, gave_up: bool) -> None:
        service = request.service
        service.turns.end(request.line)
        if gave_up:
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
        self._settle(request, outcome)

    def _note_outcome(self, request: Request, outcome: Outcome) -> None:
        """Have it remembered, before it is told, what became of a signed request."""
        delivery, verifying = request.message.delivery, self._verifying
        if delivery.signed is None or verifying is None:
            return
        verifying.settled(delivery, request.message.index, request.message.index, outcome)
        changes = verifying.take_changes()
        if changes is not None:
            self._command(changes)

    def _settle(self, request: Request, outcome: Outcome, reason: str = "") -> None:
        self._note_outcome(request, outcome)
        if request.channel is not None:
            request.channel.refuse(outcome, reason)
        else:
            seqs = request.first_seq, request.last_seq
            self._command(SettleDeliveries(request.source, *seqs, outcome, reason))

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


def _line(source: Source, key: object) -> Line | None:
    return (source.node, key) if isinstance(key, str) else None


def _refusal(service: Service, ways: Ways) -> str:
    """Return why a request that is answered or sent in these ways is not for the service."""
    if service.in_parts and Ways.ANSWER not in ways:
        return f"{service.name!r} answers in parts: read them with node.stream"
    if Ways.BODY in ways and not service.is_async:
        return f"{service.name!r} is a plain function, which cannot read a body in parts"
    return ""


def _refusal_of_signature(service: Service, delivery: Delivery, index: int) -> Refusal | None:
    """Return the outcome of a request whose signature is at fault, or missing."""
    guard = service.guard
    if guard is None or not (guard.is_required or len(delivery.records[index]) > 3):
        return None
    return guard.refusal(delivery, index)
