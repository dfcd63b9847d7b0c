"""What a node keeps beyond its life, as patterns order it: batches out, answers in.

What one turn orders goes to the journal together, and takes effect in the order it was given: a
batch is on disk whole or not at all. What needs room and what needs none do not share one, because
a full journal refuses the former and must still take the latter, which makes the room.
"""

from collections.abc import Callable
from itertools import count
from typing import Final

from zmesh.actions import Action, ReadJournal, WriteJournal
from zmesh.errors import StorageError, ZmeshError
from zmesh.storage import (
    Answer,
    Answered,
    Batch,
    Broken,
    Command,
    Entry,
    EntryKind,
    JournalEvent,
    Opened,
    Question,
    Refused,
    SetEntries,
    Written,
)

NUMBERS_AT_ONCE: Final = 1 << 20
"""Reserved on disk before they are given out: a process that dies leaves the rest unused."""

_COUNTER: Final = "numbers"

OnWritten = Callable[[StorageError | None], None]
"""Told that what was ordered is on disk, or why it is not."""

OnAnswer = Callable[[Answer | ZmeshError], None]


class Keeper:
    """Orders to the journal of one node, and who waits for what. Without a journal it has none."""

    def __init__(self, opened: Opened | None) -> None:
        self.opened = opened
        self.actions: list[Action] = []  # of this turn, in order
        self.error: StorageError | None = None  # why nothing is written any more
        self._tickets = count(1)
        self._commands: list[Command] = []  # of the batch that is being gathered
        self._then: list[OnWritten] = []
        self._needs_room = False
        self._writing: dict[int, list[OnWritten]] = {}
        self._reading: dict[int, OnAnswer] = {}
        self._next_number = 1
        self._numbers_end = 1  # below it they are reserved
        self._wall = (0, 0.0)  # what the wall clock read in milliseconds, and when

    @property
    def is_there(self) -> bool:
        """Whether this node has a journal."""
        return self.opened is not None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is on its way to the disk or from it."""
        return not (self._writing or self._reading or self._commands or self.actions)

    # Orders

    def write(self, *commands: Command, then: OnWritten | None = None) -> None:
        """Have commands done together, after all that was ordered before."""
        needs_room = Batch(0, commands).size > 0
        if self._commands and needs_room is not self._needs_room:
            self._hand_over()
        self._needs_room = needs_room
        self._commands += commands
        if then is not None:
            self._then.append(then)

    def read(self, question: Question, then: OnAnswer) -> None:
        """Ask; the answer knows of all that was ordered before."""
        self._hand_over()
        ticket = next(self._tickets)
        self._reading[ticket] = then
        self.actions.append(ReadJournal(ticket, question))

    def numbers(self, count_: int) -> int:
        """Return the first of so many numbers that this journal never gave out before.

        The reservation is ordered before whatever uses them.
        """
        first = self._next_number
        self._next_number += count_
        if self._next_number > self._numbers_end:
            self._numbers_end = self._next_number + NUMBERS_AT_ONCE
            value = self._numbers_end.to_bytes(8)
            self.write(SetEntries((Entry(EntryKind.COUNTER, _COUNTER, b"", value),)))
        return first

    def on_counter(self, entry: Entry) -> None:
        """Learn, when it opens, which numbers were given out in earlier lives."""
        if entry.name == _COUNTER:
            self.on_number(int.from_bytes(entry.value) - 1)

    def on_number(self, number: int) -> None:
        """Learn of a number that was given out in an earlier life."""
        self._next_number = max(self._next_number, number + 1)
        self._numbers_end = max(self._numbers_end, self._next_number)

    @property
    def next_number(self) -> int:
        """What `numbers` returns next."""
        return self._next_number

    def on_wall_clock(self, wall_ms: int, now: float) -> None:
        """Learn what the wall clock reads: times that outlive a process are by it."""
        self._wall = (wall_ms, now)

    def wall_ms(self, now: float) -> int:
        """Return what the wall clock reads, as far as is known, in milliseconds."""
        wall_ms, at = self._wall
        return wall_ms + round((now - at) * 1000)

    # The turn's end

    def take_actions(self) -> list[Action]:
        """Return what is to be done now, in order."""
        if self._commands:
            self._hand_over()
        actions, self.actions = self.actions, []
        return actions

    def _hand_over(self) -> None:
        if not self._commands:
            return
        ticket = next(self._tickets)
        self._writing[ticket] = self._then
        self.actions.append(WriteJournal(Batch(ticket, tuple(self._commands))))
        self._commands, self._then = [], []

    # Answers

    def on_told(self, event: JournalEvent) -> None:
        """Take what the journal tells, and let those who wait for it go on."""
        match event:
            case Written(tickets):
                self._written(tickets, None)
            case Refused(tickets, error):
                self._written(tickets, error)
            case Answered(ticket, answer):
                self._reading.pop(ticket)(answer)
            case Broken(error):
                self.error = error
            case _:
                pass  # the others are for who opened it

    def _written(self, tickets: tuple[int, ...], error: StorageError | None) -> None:
        for ticket in tickets:
            for then in self._writing.pop(ticket):
                then(error)
