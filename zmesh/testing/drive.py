"""The drive of a simulated process: performs orders to its journal, each in its time.

Like the thread of a real journal it does one thing after the other; what is handed over meanwhile
waits, and batches that wait share the next commit. A process may die before what is under way is
on the disk, or after that and before it was told.
"""

from collections.abc import Callable
from typing import Final

from zmesh.actions import ReadJournal, WriteJournal
from zmesh.ids import Entropy
from zmesh.options import JournalOptions
from zmesh.storage import JournalEvent, Refused
from zmesh.storage_errors import JournalFull
from zmesh.testing.clock import EventQueue
from zmesh.testing.journal import MemoryJournal

COMMIT_MIN: Final = 0.000_1
COMMIT_MAX: Final = 0.005
"""Seconds that a commit or an answer takes: from a disk with a cache of its own to a slow one."""

TOLD_MAX: Final = 0.000_5
"""Seconds until the process's loop hears of it, at most."""

_OPTIONS: Final = JournalOptions()


class Drive:
    """Works for one process, until that dies.

    Args:
        queue: of what will happen.
        entropy: how long things take, and what a death leaves.
        journal: open.
        tell: called with what the journal tells, in order.
        kill: ends the process, which calls `stop`; for `die_at`.
    """

    def __init__(
        self,
        queue: EventQueue,
        entropy: Entropy,
        journal: MemoryJournal,
        tell: Callable[[list[JournalEvent]], None],
        kill: Callable[[], None],
    ) -> None:
        self._queue = queue
        self._entropy = entropy
        self._journal = journal
        self._tell = tell
        self._kill = kill
        self._under_way = 0  # batches in the commit, or 1 for a question; 0: nothing is
        self._looks = False  # now and then whether a full disk has room
        self._stopped = False
        self._last: tuple[int, bool] | None = None  # the operation to die at, and whether after it
        self.operations = 0  # commits and answers that were done

    def die_at(self, operation: int, *, after: bool) -> None:
        """Have the process die at its `operation`-th commit or answer, counted from 1.

        Args:
            operation: which; `operations` tells how many there were.
            after: whether it is done then, and nobody was told; otherwise nothing of it is there.
        """
        self._last = operation, after

    def perform(self, order: WriteJournal | ReadJournal) -> None:
        """Hand an order over; `tell` gets the answer."""
        if isinstance(order, ReadJournal):
            self._journal.read(order.ticket, order.question)
        else:
            try:
                self._journal.write(order.batch)
            except JournalFull as full:
                refused = Refused((order.batch.ticket,), full)
                self._queue.after(0.0, self._tell_unless_dead, [refused])
        self._begin()

    def stop(self) -> None:
        """Leave the disk as the death of the process finds it.

        What is under way is on it, or not; where it is, what waited may be too, in order.
        """
        if self._stopped:
            return
        self._stopped = True
        while self._under_way and self._entropy.uniform(0.0, 1.0) < 0.5:
            self._journal.step(self._under_way)
            self._under_way = self._next()

    def _next(self) -> int:
        if not self._journal.waiting:
            return 0
        return max(1, self._journal.group(_OPTIONS.group_batches_max))

    def _begin(self) -> None:
        if self._under_way:
            return
        self._under_way = self._next()
        if self._under_way:
            self._queue.after(self._entropy.uniform(COMMIT_MIN, COMMIT_MAX), self._finish)
        elif self._journal.is_full and not self._looks:
            self._looks = True
            self._queue.after(_OPTIONS.retry_full, self._look)

    def _finish(self) -> None:
        if self._stopped:
            return
        self.operations += 1
        is_last = self._last is not None and self._last[0] == self.operations
        if not is_last or self._last == (self.operations, True):
            self._journal.step(self._under_way)
        if is_last:
            self._stopped = True
            self._kill()
            return
        self._under_way = 0
        self._queue.after(self._entropy.uniform(0.0, TOLD_MAX), self._pass_on)
        self._begin()

    def _look(self) -> None:
        self._looks = False
        if self._stopped:
            return
        if not self._under_way:
            self._journal.step()
            self._pass_on()
        self._begin()

    def _pass_on(self) -> None:
        self._tell_unless_dead(self._journal.take_news())

    def _tell_unless_dead(self, news: list[JournalEvent]) -> None:
        if news and not self._stopped:
            self._tell(news)
