"""Files on their way in: offered, accepted or refused, written down, verified, and told of."""

import asyncio
import errno
import inspect
import logging
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from zmesh.errors import Closed, InvalidOption, ProtocolError, Reject, UsageError
from zmesh.face.disk import Disk, has_ended
from zmesh.face.file_terms import (
    BEAT,
    CORRUPTED,
    FAILED,
    KEPT,
    SERVICE,
    SILENT,
    FileOffer,
    check_name,
    offer_of,
)
from zmesh.face.incoming import Incoming, ReceiveProgress, Words
from zmesh.face.partial_file import Corrupted
from zmesh.face.received import Message
from zmesh.face.services import Services
from zmesh.face.verifying import Verify

logger = logging.getLogger(__name__)

CLOSE_PATIENCE: Final = 1.0
"""Seconds that files under way have to be let go of."""

Where = Callable[[FileOffer], Any]
"""Says where a file goes, or raises `zmesh.Reject`: a coroutine function, or a plain one."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that a peer sent, verified and in its place."""

    name: str
    path: Path  # where it is
    size: int  # in bytes
    digest: str  # BLAKE2b with 32 bytes, hex
    sender: str
    sender_id: str  # hex
    headers: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Receiving:
    """What is asked for files that come."""

    where: Path | Where
    bytes_max: int | None
    concurrency: int
    progress: ReceiveProgress | None
    waiting_max: int
    unread_max: int
    verify: Verify | None = None  # of what offers them


class Opened(Protocol):
    """Takes note of receivers."""

    def __call__(self, receiver: "FileReceiver", *, is_open: bool) -> None:
        """Take note of one that begins, or raise `Closed`; or of one that ends."""


class FileReceiver:
    """Files that peers send here, while an `async with` block runs; iterate to be told of them.

    `missed` counts those that nobody was told of, because too many had come unread.
    """

    def __init__(self, services: Services, disk: Disk, order: Receiving, opened: "Opened") -> None:
        self.missed = 0
        self._opened = opened
        self._services = services
        self._disk = disk
        self._order = order
        self._loop = asyncio.get_running_loop()
        self._under_way: dict[Path, Incoming] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # of files under way, and of those that wait
        self._freed: asyncio.Future[None] = self._loop.create_future()
        self._news: deque[ReceivedFile] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._is_open = False
        self._is_over = False
        self._failure: str | None = None

    # What the application does

    async def __aenter__(self) -> Self:
        """Begin to receive.

        Raises:
            InvalidOption: the directory is not there.
            UsageError: this node receives files already.
        """
        if self._is_over or self._is_open:
            raise UsageError("files are received by one block: begin another with receive_files")
        where = self._order.where
        if isinstance(where, Path) and not await self._disk.run(where.is_dir):
            raise InvalidOption("where", str(where), "a directory that is there")
        if SERVICE in self._services:
            raise UsageError("this node receives files already: end that first")
        self._opened(self, is_open=True)
        self._is_open = True
        self._services.serve(SERVICE, self._receive, self._order.waiting_max, self._order.verify)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Receive no longer; what came of files under way stays, for another time."""
        self._opened(self, is_open=False)
        self._services.withdraw(SERVICE)
        self.close(None)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_PATIENCE)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceivedFile:
        while not self._news:
            if self._failure is not None:
                raise Closed(self._failure)
            if self._is_over:
                raise StopAsyncIteration
            if self._reader is not None:
                raise UsageError("another task waits for the next file")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._news.popleft()

    def close(self, failure: str | None) -> None:
        """End the loop over files, after those that came."""
        if self._is_over:
            return
        self._is_over = True
        self._failure = failure
        self._wake()

    def _tell(self, file: ReceivedFile) -> None:
        if len(self._news) >= self._order.unread_max:
            self._news.popleft()
            self.missed += 1
        self._news.append(file)
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # What a sender meets

    async def _receive(self, message: Message) -> AsyncIterator[object]:
        """Receive one file: the handler of the service."""
        task = asyncio.current_task()
        assert task is not None, "a handler runs in a task"  # noqa: S101
        words = Words()
        work = self._loop.create_task(self._work(message, words, task.cancel), name="zmesh file")
        work.add_done_callback(words.end)
        self._tasks.add(task)
        try:
            while (word := await words.next()) is not None:
                yield word
            await work
        finally:
            self._tasks.discard(task)
            work.cancel()
            await asyncio.wait([work])

    async def _work(self, message: Message, words: Words, cut: Callable[[], object]) -> None:
        try:
            offer = self._offer(message)
            target = await self._decide(offer)
            async with self._turn(target, offer, cut) as incoming:
                digest = await self._save(incoming, message, words)
        except ProtocolError as error:
            raise Reject(str(error)) from None
        if digest is not None:
            self._tell(
                ReceivedFile(
                    offer.name, target, offer.size, digest.hex(), offer.sender, offer.sender_id,
                    offer.headers,
                )
            )  # fmt: skip
            words.say(KEPT)

    async def _save(self, incoming: Incoming, message: Message, words: Words) -> bytes | None:
        """Receive the file itself; tell the sender where that fails."""
        try:
            return await incoming.receive(message.parts, words)
        except Corrupted:
            words.say(FAILED, CORRUPTED, "")
        except OSError as error:
            logger.warning("a file from %s cannot be saved: %s", message.sender, error)
            code = errno.errorcode.get(error.errno or 0, "EIO")
            words.say(FAILED, code, os.strerror(error.errno or errno.EIO))
        return None

    def _offer(self, message: Message) -> FileOffer:
        name, size = offer_of(message.body)
        if problem := check_name(name):
            raise Reject(f"its name cannot be taken: {problem}")
        limit = self._order.bytes_max
        if limit is not None and size > limit:
            raise Reject(f"{size} bytes are over the limit of {limit}")
        return FileOffer(name, size, message.sender, message.sender_id, message.headers)

    async def _decide(self, offer: FileOffer) -> Path:
        """Return where a file goes."""
        where = self._order.where
        if isinstance(where, Path):
            return await self._disk.run(_resolved, where / offer.name)
        if inspect.iscoroutinefunction(where):
            decided = where(offer)
        else:
            decided = await self._disk.run(where, offer)
        if inspect.isawaitable(decided):
            decided = await decided
        if not isinstance(decided, str | os.PathLike):
            raise TypeError("`where` returned no path: return one, or raise zmesh.Reject")
        return await self._disk.run(_target, Path(decided), offer.name)

    @asynccontextmanager
    async def _turn(
        self, target: Path, offer: FileOffer, cut: Callable[[], object]
    ) -> AsyncIterator[Incoming]:
        """Wait until nobody else writes this file, and few write others."""
        while (rival := self._rival(target)) is not None:
            if rival.silence > SILENT:
                rival.cut()
            await has_ended(self._freed, BEAT)
        incoming = Incoming(self._disk, target, offer, self._order.progress, cut)
        self._under_way[target] = incoming
        try:
            yield incoming
        finally:
            del self._under_way[target]
            self._freed.set_result(None)
            self._freed = self._loop.create_future()

    def _rival(self, target: Path) -> Incoming | None:
        """Return the file that has to end, or to be cut, before another may begin."""
        rival = self._under_way.get(target)
        if rival is None and len(self._under_way) >= self._order.concurrency:
            rival = max(self._under_way.values(), key=lambda each: each.silence)
        return rival


def _target(decided: Path, name: str) -> Path:
    """Return where a file goes: into a directory, under its name, or just there."""
    return _resolved(decided / name if decided.is_dir() else decided)


def _resolved(path: Path) -> Path:
    # One path for each file; a link of its name is replaced, not followed.
    return path.parent.resolve() / path.name
