"""Streams as an application has them: those it opens, and the channels of those it serves."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self

from zmesh.actions import (
    CallAnswered,
    CallFailure,
    PartsArrived,
    PartsEnded,
    StreamOffered,
    StreamRoom,
)
from zmesh.errors import Closed, DeliveryTimeout, NoProvider, StreamBroken, UsageError, ZmeshError
from zmesh.events import (
    BeginStream,
    CancelStream,
    EndParts,
    Event,
    OpenStream,
    RefuseStream,
    TakeParts,
)
from zmesh.face.calls import error_of
from zmesh.face.outgoing import Outgoing, failure_of
from zmesh.face.parts import BodyParts, Ground, PartQueue, PartWriter
from zmesh.ids import NodeId
from zmesh.message import Kind, Outcome, Record, StreamFault, Ways
from zmesh.options import NodeOptions
from zmesh.security.refusal import of_application
from zmesh.wire.bodies import body_of
from zmesh.wire.compression import Compressor

logger = logging.getLogger(__name__)

CANCEL_PATIENCE: Final = 1.0
"""Seconds the source of a body's parts has to end when it is cancelled."""


class Rooms(Protocol):
    """What streams ask the engine."""

    def stream_room(self, stream: int) -> tuple[int, int]:
        """Return how many parts and bytes may be written; `StreamRoom` follows (0, 0)."""
        ...


class Channel:
    """The serving end of one stream: what its handler reads and writes."""

    def __init__(
        self, offer: StreamOffered, owner: "Streams", queue: PartQueue, writer: PartWriter
    ) -> None:
        self.stream = offer.stream
        self.ways = offer.ways
        self.queue = queue
        self.writer = writer
        self._caller = offer.delivery.sender_name
        self._owner = owner
        self._command = owner.ground.command
        self._has_begun = False

    @property
    def parts(self) -> BodyParts | None:
        """The parts of the body; None where it came whole."""
        return BodyParts(self.queue, self._want_parts) if self.ways & Ways.BODY else None

    def _want_parts(self) -> None:
        self._command(TakeParts(self.stream, 0, 0))

    def begin(self) -> None:
        """Note that the handler begins."""
        self._has_begun = True
        self._command(BeginStream(self.stream))

    async def write(self, value: object) -> None:
        """Write one part of the answer, when the caller has room for it.

        Raises:
            BodyNotEncodable, BodyTooLarge: it cannot be sent.
        """
        outgoing = self._owner.outgoing
        record = outgoing.record(Kind.STREAM, "", value)
        if outgoing.compressing.default is not None:
            record = await outgoing.compressing.soon(record, outgoing.compressing.default)
        await self.writer.write(record)

    def end(self) -> None:
        """Note that the answer is complete."""
        self._close(EndParts(self.stream))

    def fail(self, error: BaseException) -> None:
        """Tell the caller what the handler raised."""
        self._end(StreamFault.RAISED, error)

    def refuse(self, outcome: Outcome, reason: str = "") -> None:
        """Give the stream back, or reject it, whether its handler has begun or not."""
        if not self._has_begun:
            self._close(RefuseStream(self.stream, outcome, reason))
        elif outcome is Outcome.REJECTED:
            self._end(StreamFault.REJECTED, Refusal(of_application(reason)))
        else:
            self._end(StreamFault.RELEASED, Refusal("its provider goes away"))

    def _end(self, fault: StreamFault, error: BaseException) -> None:
        self._close(EndParts(self.stream, fault, self._owner.outgoing.failure(error)))

    def _close(self, command: Event) -> None:
        self._owner.forget(self)
        self.queue.end(StreamBroken(self._caller, "its handler has ended"))
        self._command(command)


class Refusal(Exception):
    """Carries a reason to where exceptions are made to travel."""


class Opened:
    """The calling end of one stream."""

    def __init__(
        self, stream: int, service: str, queue: PartQueue, writer: PartWriter,
        owner: "Streams", timeout: float | None,
    ) -> None:  # fmt: skip
        self.timeout = timeout
        self.stream = stream
        self.service = service
        self.queue = queue
        self.writer = writer
        self.pump: asyncio.Task[None] | None = None
        self._owner = owner

    def abandon(self) -> None:
        """Stop the provider, and whoever writes the body; nothing is waited for."""
        self._owner.leave(self)
        if self.pump is not None:
            self.pump.cancel()

    async def close(self) -> None:
        """Abandon it, and wait until the source of the body has ended."""
        self.abandon()
        if self.pump is not None and not self.pump.done():
            await asyncio.wait([self.pump], timeout=CANCEL_PATIENCE)
            if not self.pump.done():
                logger.warning("%s did not end when cancelled", self.pump.get_name())


@dataclass(frozen=True, slots=True)
class Request:
    """What a stream asks, and of whom."""

    record: Record  # target is the service
    lane: int
    ways: Ways
    body: AsyncIterable[object] | None = None
    deadline: float | None = None  # on the node's clock
    timeout: float | None = None  # the seconds that were left until then
    provider: NodeId | None = None
    compressor: Compressor | None = None  # of the parts of the body


class Streams:
    """All streams of a node."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ground: Ground,
        rooms: Rooms,
        outgoing: Outgoing,
        options: NodeOptions,
        missing: Callable[[str], NoProvider],
    ) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        self.ground = ground
        self._rooms = rooms
        self.outgoing = outgoing
        self._options = options
        self._missing = missing
        self._opened: dict[int, Opened] = {}
        self._channels: dict[int, Channel] = {}
        self._pumps: set[asyncio.Task[None]] = set()
        self._last = -1
        self._closed: str | None = None

    def __len__(self) -> int:
        """Count the streams opened here."""
        return len(self._opened)

    # The engine's news

    def offered(self, offer: StreamOffered) -> Channel:
        """Return the channel of a stream that a peer opened."""
        queue, writer = self._queue(offer.stream), self._writer(offer.stream)
        channel = Channel(offer, self, queue, writer)
        self._channels[offer.stream] = channel
        return channel

    def forget(self, channel: Channel) -> None:
        """Drop a channel that is over."""
        del self._channels[channel.stream]

    def perform(self, action: PartsArrived | PartsEnded | StreamRoom) -> None:
        """Bring news to whoever reads or writes the stream; nobody may, any more."""
        end = self._opened.get(action.stream) or self._channels.get(action.stream)
        if end is None:
            return
        match action:
            case PartsArrived(_, records):
                end.queue.put(records)
            case StreamRoom():
                end.writer.wake()
            case PartsEnded():
                end.queue.end(None if action.failure is None else self._error(end, action))

    def _error(self, end: Opened | Channel, ended: PartsEnded) -> ZmeshError:
        reason = ended.reason
        if ended.record is not None and ended.failure is not CallFailure.REMOTE_ERROR:
            reason = failure_of(ended.record).message
        service, timeout = (end.service, end.timeout) if isinstance(end, Opened) else ("", None)
        answer = CallAnswered(0, ended.record, ended.failure, ended.peer, reason)
        return error_of(answer, service, timeout or 0.0, self._missing)

    # Opening

    def open(self, request: Request) -> Opened:
        """Ask for a stream.

        Raises:
            Closed: the node is.
            UsageError: too many are open.
        """
        if self._closed is not None:
            raise Closed(self._closed)
        if len(self._opened) >= self._options.streams_max:
            limit = self._options.streams_max
            raise UsageError(f"{limit} streams are open already: end some of them first")
        self._last += 2
        stream, service = self._last, request.record[1]
        queue, writer = self._queue(stream), self._writer(stream)
        opened = Opened(stream, service, queue, writer, self, request.timeout)
        self._opened[stream] = opened
        self.ground.command(
            OpenStream(
                stream, request.record, request.lane, request.ways, request.deadline,
                request.provider,
            )
        )  # fmt: skip
        if request.body is not None:
            opened.pump = self._loop.create_task(
                self._pump(opened, request.body, request.compressor),
                name=f"zmesh body for {service!r}",
            )
            self._pumps.add(opened.pump)
            opened.pump.add_done_callback(self._pumps.discard)
        return opened

    async def call(
        self,
        request: Request,
        timeout: float | None,  # noqa: ASYNC109  # the engine keeps the deadline
    ) -> object:
        """Ask with a body in parts, and return the one answer there is.

        Raises:
            NoProvider, RemoteError, Rejected, PeerLost, StreamBroken, DeliveryTimeout, Closed:
                why there is none.
        """
        deadline = None if timeout is None else self._loop.time() + timeout
        opened = self.open(replace(request, deadline=deadline, timeout=timeout))
        try:
            record = await opened.queue.take()
        except StopAsyncIteration:
            raise StreamBroken("its provider", "it ended without an answer") from None
        finally:
            await opened.close()
        return body_of(record)

    def leave(self, opened: Opened) -> None:
        """Forget a stream; its provider is stopped where it has not ended."""
        if self._opened.pop(opened.stream, None) is not None and not opened.queue.has_ended:
            self.ground.command(CancelStream(opened.stream))
        opened.queue.end(Closed("stream"))

    def dropped(self, opened: Opened) -> None:
        """Abandon a stream whose reader is gone, from any thread: the garbage collector's word."""
        if self._loop.is_closed():
            return
        if threading.get_ident() == self._thread:
            opened.abandon()
        else:
            self._loop.call_soon_threadsafe(opened.abandon)

    async def _pump(
        self, opened: Opened, body: AsyncIterable[object], compressor: Compressor | None
    ) -> None:
        """Write the body, once the provider wants it; what its source raises ends the stream."""
        await opened.writer.wait()
        parts = aiter(body)
        try:
            async for part in parts:
                record = self.outgoing.record(Kind.STREAM, opened.service, part)
                if compressor is not None:
                    record = await self.outgoing.compressing.soon(record, compressor)
                await opened.writer.write(record)
            self.ground.command(EndParts(opened.stream))
        except Exception as error:  # noqa: BLE001  # it belongs to whoever reads the answer
            if not opened.queue.has_ended:
                self.ground.command(CancelStream(opened.stream))
            opened.queue.end(error)
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                await close()

    def _queue(self, stream: int) -> PartQueue:
        parts, size = self._options.stream_parts, self._options.stream_bytes
        return PartQueue(stream, self.ground.command, parts, size)

    def _writer(self, stream: int) -> PartWriter:
        return PartWriter(stream, self.ground, self._rooms.stream_room)

    # Ending

    def close(self, failure: str) -> None:
        """End all streams opened here with `Closed`; wait for `ended` next."""
        self._closed = failure
        for opened in list(self._opened.values()):
            opened.queue.end(Closed(failure))
            opened.abandon()

    async def ended(self) -> None:
        """Wait until the sources of all bodies have ended, as they were told."""
        if not self._pumps:
            return
        _, stuck = await asyncio.wait(self._pumps, timeout=CANCEL_PATIENCE)
        for pump in stuck:
            logger.warning("%s did not end when cancelled", pump.get_name())


class Stream:
    """What a service yields: `async for part in node.stream(...)`.

    The call begins with the loop, and there is one loop. Leaving it, by whatever way, stops the
    handler at the provider.
    """

    def __init__(
        self, streams: Callable[[], Streams], request: Request, timeout: float | None
    ) -> None:
        self._streams = streams
        self._request: Request | None = request
        self._timeout = timeout

    def __aiter__(self) -> "StreamReader":
        """Begin the call.

        Raises:
            UsageError: it was read before, or too many are open.
        """
        request, self._request = self._request, None
        if request is None:
            raise UsageError("a stream is read once: ask for another with node.stream")
        streams = self._streams()
        return StreamReader(streams, streams.open(request), self._timeout)


class StreamReader:
    """The loop over a stream. Dropping it stops the provider."""

    __slots__ = ("_opened", "_streams", "_timeout")

    def __init__(self, streams: Streams, opened: Opened, timeout: float | None) -> None:
        self._streams = streams
        self._opened = opened
        self._timeout = timeout

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        opened = self._opened
        opened.queue.check_free()
        patience = asyncio.timeout(self._timeout)
        try:
            async with patience:
                record = await opened.queue.take()
            return body_of(record)
        except BaseException as error:
            await opened.close()
            if isinstance(error, TimeoutError) and patience.expired():
                what = f"the next part of {opened.service!r}"
                raise DeliveryTimeout(what, self._timeout or 0.0) from error
            raise

    async def aclose(self) -> None:
        """End the loop now: stop the provider, and the source of the body."""
        await self._opened.close()

    def __del__(self) -> None:
        self._streams.dropped(self._opened)
