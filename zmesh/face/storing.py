"""The node's journal, as the event loop has it: opened, told what to do, and closed."""

import asyncio
import logging
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Final, NamedTuple, assert_never

from zmesh.actions import ReadJournal, WriteJournal
from zmesh.errors import ZmeshError
from zmesh.events import Event, JournalTold
from zmesh.face.storage_keys import storage_key_of
from zmesh.journal.files import readable_by_others
from zmesh.journal.journal import SqliteJournal
from zmesh.options import Retention, Storage
from zmesh.security.node_key import NodeKey
from zmesh.storage import (
    Answered,
    Broken,
    Closed,
    JournalEvent,
    JournalStatistics,
    Opened,
    Refused,
    Room,
    Written,
)
from zmesh.storage_errors import JournalFull, StorageError

logger = logging.getLogger("zmesh")

CLOSE_WITHIN: Final = 5.0
"""Seconds that what was handed over may take to be written when a node closes."""


def wall_ms() -> int:
    """Return what the wall clock reads, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Storing:
    """One journal and one event loop; made in the loop.

    Args:
        storage: which journal.
        fresh: the key of the node that is to keep it, where it is new.
    """

    def __init__(self, storage: Storage, fresh: NodeKey) -> None:
        self._loop = asyncio.get_running_loop()
        self._news: Callable[[Sequence[Event]], None] | None = None
        self._opened: asyncio.Future[Opened] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._outstanding = 0  # orders without answer
        # What takes room, in order, without answer; and of that what was refused, and is told so
        # after what was ordered before: whoever waits counts on the order.
        self._writing: dict[int, None] = {}
        self._refused: deque[Refused] = deque()
        self._quiet: deque[asyncio.Future[None]] = deque()
        self._room: deque[asyncio.Future[None]] = deque()
        self.rooms = 0  # how often those who wait for room were to look
        self.error: StorageError | None = None  # why nothing is written any more
        self.storage = storage
        self._journal = SqliteJournal(
            Path(storage.path),
            self._deliver,
            node=fresh.id,
            seed=fresh.seed,
            options=storage.options,
            synchronous=storage.synchronous,
            key=storage_key_of(storage.key),
        )

    async def open(self) -> Opened:
        """Open the journal; the node's next incarnation is on disk then.

        Raises:
            StorageError: of the kind that tells what to do; nothing is left open.
        """
        self._journal.open()
        try:
            opened = await asyncio.shield(self._opened)
        except BaseException:
            await self.close()
            raise
        rescue = opened.rescue
        if rescue is not None:
            logger.error(
                "the journal %s was damaged (%s): %d rows and %d entries were rescued, the "
                "damaged file is %s",
                self.storage.path,
                rescue.detail,
                rescue.rows,
                rescue.entries,
                rescue.set_aside,
            )
        self._warn_of_readers()
        return opened

    def _warn_of_readers(self) -> None:
        path = Path(self.storage.path)
        readable = readable_by_others(path)
        if readable:
            logger.warning(
                "others may read the journal %s: chmod 600 %s",
                path,
                " ".join(shlex.quote(str(each)) for each in readable),
            )

    def start(
        self,
        news: Callable[[Sequence[Event]], None],
        soon: Callable[[Sequence[Event]], None],
        let_go: Callable[[Iterable[int]], bool],
    ) -> None:
        """Pass on what the journal tells, from now on.

        Args:
            news: takes it at once.
            soon: takes it with what comes next, or as soon as nothing else does.
            let_go: lets those go on who wait for nothing but these batches; tells whether any did.
        """
        self._news, self._soon, self._let_go = news, soon, let_go

    # Orders

    def perform(self, order: WriteJournal | ReadJournal) -> None:
        """Hand an order over; `JournalTold` answers."""
        self._outstanding += 1
        try:
            if isinstance(order, WriteJournal):
                self._journal.write(order.batch)
            else:
                self._journal.read(order.ticket, order.question)
        except ZmeshError as error:
            event = _refusal(order, error)
            is_in_order = isinstance(order, WriteJournal) and order.batch.size
            if not (self._writing and is_in_order and isinstance(event, Refused)):
                self._loop.call_soon(self._on_events, [event])
                return
            self._refused.append(event)
        if isinstance(order, WriteJournal) and order.batch.size:
            self._writing[order.batch.ticket] = None

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes could be stored now."""
        return size <= self._journal.room_bytes

    def check_room(self, size: int) -> None:
        """Raise JournalFull, or what broke the journal, where so many bytes cannot be stored."""
        if self.error is not None:
            raise self.error
        if not self.has_room(size):
            counted = self._journal.statistics()
            limit = 0 if counted.is_full else counted.limit
            raise JournalFull(str(self.storage.path), counted.used, limit)

    async def room(self, before: int) -> None:
        """Wait until a journal that refused something for want of room has some.

        `before` is what `rooms` was when that was ordered.
        """
        if self.rooms != before:
            return
        waiter = self._loop.create_future()
        self._room.append(waiter)
        await waiter

    async def quiet(self) -> None:
        """Wait until everything that was ordered is answered."""
        while self._outstanding:
            waiter = self._loop.create_future()
            self._quiet.append(waiter)
            await waiter

    def statistics(self) -> JournalStatistics:
        """Return the counters."""
        return self._journal.statistics()

    async def close(self) -> None:
        """Have everything written and the files closed."""
        self._journal.close()
        self._look_for_room()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._closed), CLOSE_WITHIN)

    # News, first in a thread of the journal's

    def _deliver(self, events: list[JournalEvent]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._on_events, events)

    def _on_events(self, told: list[JournalEvent]) -> None:
        events: list[JournalEvent] = []
        for event in told:
            if isinstance(event, Written | Refused):
                events += self._in_order(event)
            else:
                events.append(event)
        for event in events:
            self._note(event)
        if self._news is not None:
            written = [event.tickets for event in events if isinstance(event, Written)]
            # A refusal among them is told where it belongs, by the engine, and so is all else.
            is_let_go = len(written) == len(events) and self._let_go(chain(*written))
            (self._soon if is_let_go else self._news)([JournalTold(events)])
        if not self._outstanding:
            _wake(self._quiet)

    def _in_order(self, event: Written | Refused) -> Iterator[Written | Refused]:
        """Return an answer, and where they belong what was refused and is told now."""
        start = 0
        for index, ticket in enumerate(event.tickets, 1):
            self._writing.pop(ticket, None)
            if self._has_refused_next():
                yield replace(event, tickets=event.tickets[start:index])
                start = index
                if isinstance(event, Written):
                    event = replace(event, dropped=())  # told once
            while self._has_refused_next():
                refused = self._refused.popleft()
                del self._writing[refused.tickets[0]]
                yield refused
        if start < len(event.tickets):
            yield replace(event, tickets=event.tickets[start:])

    def _has_refused_next(self) -> bool:
        return bool(self._refused) and self._refused[0].tickets[0] == next(iter(self._writing))

    def _note(self, event: JournalEvent) -> None:
        match event:
            case Written(tickets) | Refused(tickets):
                self._outstanding -= len(tickets)
            case Answered():
                self._outstanding -= 1
            case Opened():
                self._opened.set_result(event)
            case Broken(error):
                self._broke(error)
            case Room():
                self._look_for_room()
            case Closed():
                self._closed.set_result(None)
            case _:
                assert_never(event)

    def _look_for_room(self) -> None:
        """Have those look who wait for room, or are about to."""
        self.rooms += 1
        _wake(self._room)

    def _broke(self, error: StorageError) -> None:
        self.error = error
        self._look_for_room()
        if not self._opened.done():
            self._opened.set_exception(error)
        else:
            logger.critical("%s", error)


def _wake(waiters: "deque[asyncio.Future[None]]") -> None:
    while waiters:
        waiter = waiters.popleft()
        if not waiter.done():
            waiter.set_result(None)


def _refusal(order: WriteJournal | ReadJournal, error: ZmeshError) -> JournalEvent:
    if isinstance(order, ReadJournal):
        return Answered(order.ticket, error)
    if not isinstance(error, StorageError):
        error = StorageError(str(error))  # it is closed
    return Refused((order.batch.ticket,), error)


class Kept(NamedTuple):
    """The journal of a node, and what it said when it opened; neither where it has none."""

    storing: Storing | None
    opened: Opened | None

    @property
    def retention(self) -> Retention:
        """How long publications are kept there."""
        return Retention() if self.storing is None else self.storing.storage.retention


NOTHING_KEPT: Final = Kept(None, None)
