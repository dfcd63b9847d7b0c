"""One file on its way in: what its sender says, and what it is told."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from zmesh.errors import ProtocolError
from zmesh.face.disk import Disk, has_ended
from zmesh.face.file_terms import BEAT, HAVE, WAIT, WRITTEN, FileOffer
from zmesh.face.partial_file import PartialFile

WRITE_BYTES: Final = 1024 * 1024
"""What may wait for the disk, while as much is being written."""

LOOK_EVERY: Final = 0.5
"""Seconds between two looks whether another process has let go of a file."""

ReceiveProgress = Callable[[FileOffer, int], object]
"""Told of a file under way, and how many bytes of it are written."""


class Words:
    """What is to be told to a sender, in order; where there is nothing, that it is at work."""

    def __init__(self) -> None:
        self._words: deque[list[object]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._has_ended = False

    def say(self, *word: object) -> None:
        """Tell something; how much was written takes the place of what was told of that."""
        if word[0] == WRITTEN and self._words and self._words[-1][0] == WRITTEN:
            self._words.pop()
        self._words.append(list(word))
        self._wake()

    def end(self, _: object = None) -> None:
        """Tell nothing more."""
        self._has_ended = True
        self._wake()

    async def next(self) -> list[object] | None:
        """Return what is to be told next; None at the end."""
        if not self._words and not self._has_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            if not await has_ended(self._waiter, BEAT):
                return [WAIT]
        return self._words.popleft() if self._words else None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Incoming:
    """One file on its way in, from the moment on when nobody else writes it.

    Args:
        disk: does the work.
        target: where it goes.
        offer: what the sender says of it.
        progress: the application's.
        cut: gives it up for another one; its sender may begin again.
    """

    def __init__(
        self,
        disk: Disk,
        target: Path,
        offer: FileOffer,
        progress: ReceiveProgress | None,
        cut: Callable[[], object],
    ) -> None:
        self.cut = cut
        self._disk = disk
        self._offer = offer
        self._progress = progress
        self._partial = PartialFile(target, offer.size)
        self._loop = asyncio.get_running_loop()
        self._waits_since: float | None = None  # for the sender's next word

    @property
    def silence(self) -> float:
        """Seconds since the sender was heard, as far as it is its turn to speak."""
        return 0.0 if self._waits_since is None else self._loop.time() - self._waits_since

    async def receive(self, parts: AsyncIterator[object], words: Words) -> bytes:
        """Write it down and put it in its place; return its digest.

        Raises:
            Corrupted: it is not what was sent.
            OSError: it cannot be written.
            ProtocolError: the sender makes no sense.
        """
        partial, disk = self._partial, self._disk
        try:
            while not await disk.run(partial.take):  # noqa: ASYNC110  # nobody would set an event
                await asyncio.sleep(LOOK_EVERY)  # another process has it
            words.say(HAVE, *await disk.run(partial.look))
            offset = await self._next(parts)
            if type(offset) is not int:
                raise ProtocolError("files", "a file that does not begin with an offset")
            await disk.run(partial.begin, offset)
            self._on_written(offset, words)
            digest = await self._write(parts, offset, words)
            await disk.run(partial.finish, digest)
            return digest
        finally:
            partial.give_up()
            await disk.run(partial.close)

    async def _write(self, parts: AsyncIterator[object], begun: int, words: Words) -> bytes:
        """Write what comes, while more comes; return the digest that follows."""
        pending: list[bytes] = []
        size = 0
        left = self._offer.size - begun
        writing: asyncio.Future[int] | None = None
        digest = b""
        while True:
            part = await self._next(parts)
            match part:
                case bytes():
                    pending.append(part)
                    size += len(part)
                    left -= len(part)
                case [bytes(digest)]:
                    break
                case _:
                    raise ProtocolError("files", "a part that is neither bytes nor a digest")
            if left < 0:
                break  # writing it fails
            if writing is None or writing.done() or size >= WRITE_BYTES:
                if writing is not None:
                    self._on_written(await writing, words)
                writing = self._disk.start(self._partial.write, pending)
                pending, size = [], 0
        if writing is not None:
            self._on_written(await writing, words)
        self._on_written(await self._disk.run(self._partial.write, pending), words)
        return digest

    def _on_written(self, size: int, words: Words) -> None:
        words.say(WRITTEN, size)
        if self._progress is not None:
            self._progress(self._offer, size)

    async def _next(self, parts: AsyncIterator[object]) -> object:
        """Return the sender's next word."""
        while True:
            self._waits_since = self._loop.time()
            try:
                part = await anext(parts)
            except StopAsyncIteration:
                raise ProtocolError("files", "a file that ends without a digest") from None
            finally:
                self._waits_since = None
            if part is not None:  # None: it is at work
                return part
