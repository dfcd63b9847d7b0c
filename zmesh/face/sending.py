"""Files on their way out: over one stream after the other, until the peer has all of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from zmesh.errors import (
    AmbiguousPeer,
    DeliveryTimeout,
    FileCorrupted,
    FileNotSaved,
    FileRefused,
    NoProvider,
    PeerLost,
    PeerUnknown,
    ProtocolError,
    Rejected,
    StreamBroken,
    ZmeshError,
)
from zmesh.face.disk import Disk, has_ended
from zmesh.face.file_terms import (
    BEAT,
    CORRUPTED,
    FAILED,
    HAVE,
    KEPT,
    SERVICE,
    WAIT,
    WRITTEN,
)
from zmesh.face.outgoing import Headers
from zmesh.face.peers_view import Peer
from zmesh.face.signing import signed
from zmesh.face.source_file import SourceFile
from zmesh.face.streams import Request, Streams
from zmesh.ids import NodeId
from zmesh.message import Kind, Ways
from zmesh.wire.bodies import body_of

PAUSE_MIN: Final = 0.1
PAUSE_MAX: Final = 1.0
"""Seconds between two looks whether the peer is back."""

READ_BYTES: Final = 1024 * 1024
"""Read at a time: a hop to a thread costs as much as hashing 50 KB."""

PACE: Final = 0.1
"""Seconds: at a limited rate pieces take no longer than this, and none makes up for more."""

SendProgress = Callable[[int, int], object]
"""Told how many bytes the peer has written, and how many the file has."""


@dataclass(frozen=True, slots=True)
class SentFile:
    """A file that a peer has, verified and in its place."""

    name: str  # it was sent under
    size: int  # in bytes
    digest: str  # BLAKE2b with 32 bytes, hex
    skipped: int  # bytes that were there already


@dataclass(frozen=True, slots=True)
class Sending:
    """What is asked for a file that is sent."""

    to: str | Peer
    name: str
    headers: Headers | None
    priority: int
    rate: float | None  # bytes a second
    timeout: float | None  # seconds without a word of the peer
    progress: SendProgress | None
    sign: bool | None = None  # the offer


class FileSender:
    """Sends one file to one peer; made for one `send`."""

    def __init__(
        self,
        streams: Streams,
        disk: Disk,
        resolve: Callable[[str | Peer], NodeId],
        order: Sending,
        source: SourceFile,
        piece_bytes: int,
    ) -> None:
        self._streams = streams
        self._disk = disk
        self._resolve = resolve
        self._order = order
        self._source = source
        self._pace = _Pace(order.rate)
        self._piece_bytes = self._pace.piece(piece_bytes)
        self._peer = order.to if isinstance(order.to, str) else order.to.name
        self._patience = asyncio.timeout(None)
        self._is_waiting = False
        self._has_begun = False  # the peer had a word to say
        self._skipped = 0
        self._digest = b""

    async def send(self) -> SentFile:
        """Send it, again and again where the peer went away in between.

        Raises:
            DeliveryError: why it did not get there.
            OSError: it cannot be read.
        """
        why: ZmeshError | None = None
        pause = PAUSE_MIN
        try:
            async with self._while_heard():
                while True:
                    try:
                        return await self._attempt()
                    except (PeerLost, StreamBroken) as error:
                        why = error
                    except (PeerUnknown, AmbiguousPeer, NoProvider):
                        if not self._has_begun:
                            raise
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, PAUSE_MAX)
        except NoProvider:
            reason = (
                "it receives none now: let it use node.receive_files, or "
                f"`await node.peers.wait_for(service={SERVICE!r})` first"
            )
            raise FileRefused(self._peer, self._order.name, reason) from None
        except TimeoutError as error:
            if not self._patience.expired():
                raise  # by the disk
            what = f"the file {self._order.name!r} to {self._peer}"
            raise why or DeliveryTimeout(what, self._order.timeout or 0.0) from error

    @asynccontextmanager
    async def _while_heard(self) -> AsyncIterator[None]:
        """End with TimeoutError where nothing was heard for so long; see `_heard`."""
        async with asyncio.timeout(self._order.timeout) as self._patience:
            self._is_waiting = True
            try:
                yield
            finally:
                self._is_waiting = False

    def _heard(self) -> None:
        """Note that it goes on."""
        if self._order.timeout is not None and self._is_waiting and not self._patience.expired():
            now = asyncio.get_running_loop().time()
            self._patience.reschedule(now + self._order.timeout)

    async def _attempt(self) -> SentFile:
        """Send it over one stream."""
        order = self._order
        provider = self._resolve(order.to)
        there: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        offer = [order.name, self._source.size]
        outgoing = self._streams.outgoing
        record = outgoing.record(Kind.STREAM_CONTROL, SERVICE, offer, order.headers)
        record = signed(record, outgoing.signing.for_target(order.sign, order.priority))
        opened = self._streams.open(
            Request(
                record,
                order.priority,
                Ways.BODY | Ways.ANSWER,
                self._body(there),
                provider=provider,
                compressor=outgoing.compressing.default,
            )
        )
        try:
            while True:
                answer = await opened.queue.take()
                self._heard()
                self._has_begun = True
                if self._on_word(body_of(answer), there):
                    digest = self._digest.hex()
                    return SentFile(order.name, self._source.size, digest, self._skipped)
        except StopAsyncIteration:
            raise StreamBroken(self._peer, "it ended before the file did") from None
        except Rejected as error:
            raise FileRefused(self._peer, order.name, error.reason) from None
        finally:
            await opened.close()

    def _on_word(self, word: object, there: "asyncio.Future[tuple[int, bytes]]") -> bool:
        """Do what the peer's word asks for; return whether it has the whole file."""
        name = self._order.name
        match word:
            case [str(verb)] if verb == WAIT:
                return False
            case [str(verb), int(size), bytes(digest)] if verb == HAVE and not there.done():
                there.set_result((size, digest))
                return False
            case [str(verb), int(size)] if verb == WRITTEN and 0 <= size <= self._source.size:
                if self._order.progress is not None:
                    self._order.progress(size, self._source.size)
                return False
            case [str(verb)] if verb == KEPT and self._digest:
                return True
            case [str(verb), str(code), str(reason)] if verb == FAILED:
                if code == CORRUPTED:
                    raise FileCorrupted(self._peer, name)
                raise FileNotSaved(self._peer, name, code, reason)
            case _:
                raise ProtocolError("files", f"{self._peer} answered what makes no sense")

    async def _body(self, there: "asyncio.Future[tuple[int, bytes]]") -> AsyncIterator[object]:
        """Yield what is written: from where on, the file, and its digest."""
        beginning = self._disk.start(self._source.begin, *await there)
        try:
            while not await has_ended(beginning, BEAT):
                self._heard()
                yield None
            self._skipped = beginning.result()
        finally:
            beginning.cancel()
        self._heard()
        yield self._skipped
        reading = self._read()
        try:
            while pieces := await reading:
                reading = self._read()  # the next, while these leave
                for piece in pieces:
                    yield piece
                    await self._pace.passed(len(piece))
        finally:
            reading.cancel()
        self._digest = await self._disk.run(self._source.finish)
        yield [self._digest]

    def _read(self) -> asyncio.Future[list[bytes]]:
        return self._disk.start(self._source.read, self._piece_bytes, self._pace.run(READ_BYTES))


class _Pace:
    """So many bytes a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0  # when the next piece may leave

    def piece(self, size: int) -> int:
        """Return how large pieces may be, so that none takes long."""
        return size if self._rate is None else max(1, min(size, int(self._rate * PACE)))

    def run(self, size: int) -> int:
        """Return how much is to be read at a time: no more than leaves in some time."""
        return size if self._rate is None else max(1, min(size, int(self._rate * 10 * PACE)))

    async def passed(self, size: int) -> None:
        """Wait until what follows a piece may leave."""
        if self._rate is None:
            return
        now = asyncio.get_running_loop().time()
        self._due = max(self._due, now - PACE) + size / self._rate
        if self._due > now:
            await asyncio.sleep(self._due - now)
