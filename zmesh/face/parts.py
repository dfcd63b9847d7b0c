"""Parts of a stream, on their way in and out, at the pace of whoever reads them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final, Protocol

from zmesh.errors import UsageError
from zmesh.events import Event, TakeParts, WritePart
from zmesh.message import Record, size_of
from zmesh.wire.bodies import body_of

STREAK_MAX: Final = 64
"""Parts read or written in a row, after which other tasks have their turn."""

STREAK_BYTES_MAX: Final = 512 * 1024

GRANT_SHARE: Final = 4
"""What was taken is told when it is so large a part of the window: the writer still has the rest,
and the reader pays for few grants."""


class Ground(Protocol):
    """What streams need of the node below: commands at once or soon, and the room for parts."""

    def command(self, event: Event) -> None:
        """Give the engine a command."""
        ...

    def flush(self) -> None:
        """Let it have the commands now."""
        ...


class PartQueue:
    """Parts that came and were not read yet; the window of the stream bounds them."""

    def __init__(
        self,
        stream: int,
        command: Callable[[Event], None],
        parts_window: int,
        bytes_window: int,
    ) -> None:
        self._stream = stream
        self._command = command
        self._parts_enough = max(1, parts_window // GRANT_SHARE)
        self._bytes_enough = max(1, bytes_window // GRANT_SHARE)
        self._records: deque[Record] = deque()
        self._taken_parts = 0  # and not told
        self._taken_bytes = 0
        self._streak = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._is_asking = False
        self.has_ended = False

    def put(self, records: Iterable[Record]) -> None:
        """Add the next parts."""
        if not self.has_ended:
            self._records += records
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Note that no part follows: what came can still be read, then the error is raised."""
        if not self.has_ended:
            self.has_ended = True
            self._error = error
            self._wake()

    def check_free(self) -> None:
        """Raise UsageError where another task waits for the next part."""
        if self._is_asking:
            raise UsageError("another task waits for the next part of this stream")

    async def take(self) -> Record:
        """Return the next part, when it is there.

        Raises:
            StopAsyncIteration: there are no more.
            BaseException: what `end` was told.
            UsageError: another task waits for it.
        """
        self.check_free()
        self._is_asking = True
        try:
            if self._streak >= STREAK_MAX:
                self._streak = 0
                await asyncio.sleep(0)
            while not self._records:
                if self.has_ended:
                    raise StopAsyncIteration if self._error is None else self._error
                self._streak = 0
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
        finally:
            self._is_asking = False
            self._waiter = None
        self._streak += 1
        record = self._records.popleft()
        self._count(size_of(record))
        return record

    def _count(self, size: int) -> None:
        self._taken_parts += 1
        self._taken_bytes += size
        is_enough = (
            self._taken_parts >= self._parts_enough or self._taken_bytes >= self._bytes_enough
        )
        if is_enough and not self.has_ended:
            self._command(TakeParts(self._stream, self._taken_parts, self._taken_bytes))
            self._taken_parts = self._taken_bytes = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class BodyParts:
    """The body of a request, in parts: `async for part in message.parts`.

    The caller sends the first one when it is asked for. There is one reader: a second loop goes on
    where the first one left.
    """

    def __init__(self, queue: PartQueue, begin: Callable[[], None]) -> None:
        self._queue = queue
        self._begin: Callable[[], None] | None = begin

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        begin, self._begin = self._begin, None
        if begin is not None:
            begin()
        record = await self._queue.take()
        return body_of(record)


class WholeBody:
    """A body that came whole, as the one part it is."""

    def __init__(self, body: Callable[[], Any]) -> None:
        self._body: Callable[[], Any] | None = body

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        body, self._body = self._body, None
        if body is None:
            raise StopAsyncIteration
        return body()


class PartWriter:
    """Writes parts as fast as their reader takes them."""

    def __init__(
        self, stream: int, ground: Ground, room: Callable[[int], tuple[int, int]]
    ) -> None:
        self._stream = stream
        self._ground = ground
        self._room = room
        self._parts = 0  # that may be written without another look
        self._bytes = 0
        self._streak = 0
        self._streak_bytes = 0
        self._waiter: asyncio.Future[None] | None = None

    async def write(self, record: Record) -> None:
        """Write a part, when there is room for it."""
        await self.wait()
        size = size_of(record)
        self._parts -= 1
        self._bytes -= size
        self._ground.command(WritePart(self._stream, record))
        self._streak += 1
        self._streak_bytes += size
        if self._streak >= STREAK_MAX or self._streak_bytes >= STREAK_BYTES_MAX:
            self._streak = self._streak_bytes = 0
            await asyncio.sleep(0)

    async def wait(self) -> None:
        """Wait until there is room."""
        while self._parts <= 0 or self._bytes <= 0:
            self._ground.flush()  # what was written takes some of it
            self._parts, self._bytes = self._room(self._stream)
            if self._parts <= 0:
                self._streak = self._streak_bytes = 0
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None

    def wake(self) -> None:
        """Take note that there is room."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
