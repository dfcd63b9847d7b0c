"""A journal on virtual time: a disk that outlives processes, and what one life does with it.

What is handed over, what is on the disk and what was told of it are three things, so that a
process may die between any two of them. Nothing happens by itself: `step` has the disk do its next
piece of work, `take_news` hands out what is to be told.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from zmesh.options import JournalOptions
from zmesh.storage import (
    Answered,
    Batch,
    Command,
    Identity,
    JournalEvent,
    Opened,
    Question,
    Refused,
    Room,
    Written,
)
from zmesh.storage_errors import JournalFull
from zmesh.testing.journal_content import Dropped, JournalContent

PATH: Final = "simulated"
"""What errors say the journal is called."""

ROOM_SHARE: Final = 4
"""A disk that was full has room again when this part of it is free."""


@dataclass(slots=True)
class Disk:
    """What outlives a process. Blank until a journal is opened on it."""

    bytes_max: int | None = None  # how large it is, as `Batch.size` counts; None: large enough
    content: JournalContent = field(default_factory=JournalContent)
    identity: Identity | None = None
    commits: int = 0
    on_command: Callable[[Command], None] | None = None  # called when a command is on it

    def copy(self) -> "Disk":
        """Return another disk with the same on it."""
        return replace(self, content=self.content.copy())

    def has_room(self, size: int) -> bool:
        """Return whether so many bytes more go onto it."""
        return self.bytes_max is None or self.content.used + size <= self.bytes_max

    @property
    def has_room_again(self) -> bool:
        """Return whether so much of it is free that one that was full is so no more."""
        return self.bytes_max is None or self.has_room(self.bytes_max // ROOM_SHARE)


class MemoryJournal:
    """The journal of one life of a node. Dropping it is the death of its process.

    Args:
        disk: where it is.
        fresh: who is to keep the journal where it is new, with incarnation 0; one that is there
            knows.
        bytes_max: what it may use of the disk.
    """

    def __init__(self, disk: Disk, fresh: Identity, bytes_max: int | None = None) -> None:
        self._disk = disk
        self._fresh = fresh
        self._bytes_max = JournalOptions().journal_bytes_max if bytes_max is None else bytes_max
        self._waiting: deque[Batch | tuple[int, Question]] = deque()
        self._pending_bytes = 0
        self._wants_room = 0  # what the last batch that was refused for it takes
        self._news: list[JournalEvent] = []
        self.is_full = False  # the disk is

    def open(self) -> Opened:
        """Begin a life: its incarnation is on the disk when this returns."""
        disk = self._disk
        is_new = disk.identity is None
        before = self._fresh if disk.identity is None else disk.identity
        disk.identity = replace(before, incarnation=before.incarnation + 1)
        return Opened(disk.identity, disk.content.states(), is_new, rescue=None)

    # What is handed over

    @property
    def room_bytes(self) -> int:
        """How large a batch may be now; 0 or less where the journal is full."""
        if self.is_full:
            return 0
        return self._bytes_max - self._disk.content.used - self._pending_bytes

    def write(self, batch: Batch) -> None:
        """Hand over a batch; `Written` or `Refused` answers. What needs no room always has some.

        Raises:
            JournalFull: there is no room for it; `Room` tells when to try again.
        """
        size = batch.size
        if size and size > self.room_bytes:
            self._wants_room = size
            limit = 0 if self.is_full else self._bytes_max
            raise JournalFull(PATH, self._disk.content.used, limit)
        self._pending_bytes += size
        self._waiting.append(batch)

    def read(self, ticket: int, question: Question) -> None:
        """Ask; `Answered` follows, after everything handed over before was written."""
        self._waiting.append((ticket, question))

    @property
    def waiting(self) -> int:
        """How many batches and questions wait for the disk."""
        return len(self._waiting)

    def group(self, batches_max: int) -> int:
        """Return how many of the batches that wait may share the next commit."""
        count = 0
        for item in self._waiting:
            if count == batches_max or not isinstance(item, Batch):
                break
            count += 1
        # On a full disk a commit must fit into what was kept for it.
        return min(count, 1) if self.is_full else count

    # What the disk does

    def step(self, batches_max: int = 1) -> bool:
        """Make the oldest batches that wait durable, in one commit, or answer the question there.

        With nothing to do, look whether a full disk has room again.

        Returns:
            Whether there was something to do.

        Raises:
            ValueError: a command cannot be done, which is a defect of whoever ordered it. The disk
                is of no use any more.
        """
        if not self._waiting:
            self._tell_of_space()
            return False
        count = self.group(batches_max)
        items = [self._waiting.popleft() for _ in range(max(1, count))]
        batches = [item for item in items if isinstance(item, Batch)]
        if batches:
            self._commit(batches)
        for item in items:
            if not isinstance(item, Batch):
                self._news.append(Answered(item[0], self._disk.content.answer(item[1])))
        return True

    def _commit(self, batches: Sequence[Batch]) -> None:
        size = sum(batch.size for batch in batches)
        if size and not self._disk.has_room(size):
            self._refuse(batches)
            return
        dropped: list[Dropped] = []
        for batch in batches:
            for command in batch.commands:
                dropped += self._disk.content.apply(command)
                if self._disk.on_command is not None:
                    self._disk.on_command(command)
        self._disk.commits += 1
        self._pending_bytes -= size
        self._news.append(Written(_tickets(batches), tuple(dropped)))
        self._tell_of_room()

    def _refuse(self, batches: Sequence[Batch]) -> None:
        """Refuse all that needs room, as the disk has none; what needs none goes on."""
        self.is_full = True
        self._wants_room = 0
        refused: list[Batch] = []
        kept: deque[Batch | tuple[int, Question]] = deque()
        for item in (*batches, *self._waiting):
            if isinstance(item, Batch) and item.size:
                refused.append(item)
            else:
                kept.append(item)
        self._waiting = kept
        self._pending_bytes -= sum(batch.size for batch in refused)
        error = JournalFull(PATH, self._disk.content.used, 0)
        self._news.append(Refused(_tickets(refused), error))

    def _tell_of_room(self) -> None:
        if 0 < self._wants_room <= self.room_bytes:
            self._wants_room = 0
            self._news.append(Room())

    def _tell_of_space(self) -> None:
        if self.is_full and self._disk.has_room_again:
            self.is_full = False
            self._wants_room = 0
            self._news.append(Room())

    # What is told

    def take_news(self) -> list[JournalEvent]:
        """Return what is to be told, in order; the death of a process that was not told it."""
        news, self._news = self._news, []
        return news


def _tickets(batches: Sequence[Batch]) -> tuple[int, ...]:
    return tuple(batch.ticket for batch in batches)
