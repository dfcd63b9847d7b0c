"""What a node keeps beyond its life, as patterns order it: batches out, answers in.

What one turn orders goes to the journal together, and takes effect in the order it was given: a
batch is on disk whole or not at all. What needs room and what needs none do not share one, because
a full journal refuses the former and must still take the latter, which makes the room. What nobody
waits for, as what is forgotten, goes along with the next batch, and costs no sync of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count, groupby
from typing import Final, cast

from zmesh.actions import Action, ReadJournal, WriteJournal
from zmesh.deadlines import Agenda, Deadlines
from zmesh.errors import ZmeshError
from zmesh.message import Ticket
from zmesh.reliable.ranges import RangeSet
from zmesh.storage import (
    Answer,
    Answered,
    Batch,
    Broken,
    Command,
    Entry,
    EntryKind,
    Forget,
    JournalEvent,
    Opened,
    Question,
    Refused,
    SetEntries,
    StoreRun,
    Stream,
    StreamKind,
    Written,
)
from zmesh.storage_errors import JournalFull, StorageError

NUMBERS_AT_ONCE: Final = 1 << 20
"""Reserved on disk before they are given out: a process that dies leaves the rest unused."""

LATER_S: Final = 0.025
"""Seconds after which what may be done later is done for itself."""

COMPANY_S: Final = 0.5 * LATER_S
COMPANY_MAX: Final = 64
"""How long what is to be forgotten lets messages that are stored pass, and how much of it.

Together it is one range to remove; alone, each is three statements that somebody waits for.
"""

COUNTER: Final = "numbers"
"""The name of the entry that tells which numbers were given out."""

OnWritten = Callable[[StorageError | None], None]
"""Told that what was ordered is on disk, or why it is not."""

OnStored = Callable[[Ticket, StorageError | None], None]
"""Told that what came with a ticket is on disk, or why it is not."""

OnDropped = Callable[[Stream, int, int], None]
"""Told of rows that made room for others, by their positions."""

OnAnswer = Callable[[Answer | ZmeshError], None]


def _nobody(ticket: Ticket, error: StorageError | None) -> None:
    """Without anybody who gives tickets there is nobody to be told."""


@dataclass(slots=True)
class _Orders:
    """Commands, and who waits for them."""

    commands: list[Command] = field(default_factory=list)
    then: list[OnWritten] = field(default_factory=list)
    stored: list[Ticket] = field(default_factory=list)


class Keeper:
    """Orders to the journal of one node, and who waits for what. Without a journal it has none."""

    def __init__(self, opened: Opened | None, agenda: Agenda | None = None) -> None:
        self.opened = opened
        self.now = 0.0  # of the turn
        self.actions: list[Action] = []  # of this turn, in order
        self.error: StorageError | None = None  # why nothing is written any more
        self.on_dropped: dict[StreamKind, OnDropped] = {}  # who is told that its oldest are gone
        self.on_stored: OnStored = _nobody
        self._tickets = count(1)
        self._gathered = _Orders()  # of the batch that is being gathered
        self._needs_room = False
        self._later = _Orders()
        self._due: Deadlines[None] = Deadlines(agenda)  # when that is to be done
        self._writing: dict[int, tuple[_Orders, _Orders]] = {}  # and what went along
        self._reading: dict[int, OnAnswer] = {}
        self._next_number = 1
        self._numbers_end = 1  # below it they are reserved, on disk
        self._wall = (0, 0.0)  # what the wall clock read in milliseconds, and when

    @property
    def is_there(self) -> bool:
        """Whether this node has a journal."""
        return self.opened is not None

    @property
    def deadline(self) -> float | None:
        """When `on_timer` is due."""
        return self._due.next

    # Orders

    def write(
        self, *commands: Command, then: OnWritten | None = None, stored: Ticket | None = None
    ) -> None:
        """Have commands done together, after all that was ordered before.

        Whoever gave the ticket `stored` waits for nothing else: `on_stored` is told of it, before
        `then` is, unless `take_stored` had it.
        """
        needs_room = Batch(0, commands).size > 0
        gathered = self._gathered
        if gathered.commands and needs_room is not self._needs_room:
            self._hand_over()
            gathered = self._gathered
        self._needs_room = needs_room
        gathered.commands += commands
        if then is not None:
            gathered.then.append(then)
        if stored is not None:
            gathered.stored.append(stored)

    def later(self, *commands: Command, then: OnWritten | None = None) -> None:
        """Have commands that need no room done with the next batch, or soon for themselves.

        What is asked and what is ordered with them knows of them; nothing else waits. What is
        only forgotten may let messages pass that are only stored: they have other positions.
        """
        if not self._later.commands:
            self._due.set(None, self.now + LATER_S)
        self._later.commands += commands
        if then is not None:
            self._later.then.append(then)

    def _may_wait(self) -> bool:
        """Whether what is to be done later need not go along with what was gathered."""
        later = self._later.commands
        if len(later) >= COMPANY_MAX or (self._due.next or 0.0) - self.now <= COMPANY_S:
            return False
        return _are_all(StoreRun, self._gathered.commands) and _are_all(Forget, later)

    def on_timer(self) -> None:
        """Do what was to be done later."""
        self._hand_over(with_later=True)

    def read(self, question: Question, then: OnAnswer) -> None:
        """Ask; the answer knows of all that was ordered before."""
        self._hand_over(with_later=True)
        ticket = next(self._tickets)
        self._reading[ticket] = then
        self.actions.append(ReadJournal(ticket, question))

    def numbers(self, count_: int) -> int:
        """Return the first of so many numbers that this journal never gave out before.

        The reservation is ordered before whatever uses them, in the same batch where that needs
        room: one that was refused, or may yet be, is none.
        """
        first = self._next_number
        self._next_number += count_
        if self._next_number > self._numbers_end:
            end = self._next_number + NUMBERS_AT_ONCE
            entry = Entry(EntryKind.COUNTER, COUNTER, b"", end.to_bytes(8))
            self.write(SetEntries((entry,)), then=partial(self._on_reserved, end))
        return first

    def _on_reserved(self, end: int, error: StorageError | None) -> None:
        if error is None:
            self._numbers_end = max(self._numbers_end, end)

    def on_counter(self, entry: Entry) -> None:
        """Learn, when it opens, which numbers were given out in earlier lives."""
        if entry.name == COUNTER:
            self.on_number(int.from_bytes(entry.value) - 1)

    def on_number(self, number: int) -> None:
        """Learn of a number that was given out in an earlier life."""
        self._next_number = max(self._next_number, number + 1)
        self._numbers_end = max(self._numbers_end, self._next_number)

    @property
    def next_number(self) -> int:
        """What `numbers` returns next."""
        return self._next_number

    @property
    def numbers_given(self) -> int:
        """The number below which `numbers` returns none, in this life or another."""
        return min(self._next_number, self._numbers_end)

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
        if self._gathered.commands:
            self._hand_over()
        actions, self.actions = self.actions, []
        return actions

    def _hand_over(self, *, with_later: bool = False) -> None:
        """Make a batch of what was gathered; what was to be done later goes along, or may wait."""
        if not with_later and self._later.commands and self._may_wait():
            later = _Orders()
        else:
            later, self._later = self._later, _Orders()
            self._due.discard(None)
        gathered, self._gathered = self._gathered, _Orders()
        commands = (*gathered.commands, *_together(later.commands))
        if commands:
            ticket = next(self._tickets)
            self._writing[ticket] = (gathered, later)
            self.actions.append(WriteJournal(Batch(ticket, commands)))

    # Answers

    def take_stored(self, batches: Iterable[int]) -> list[Ticket]:
        """Return, once, the tickets of those who wait for nothing but that these are written."""
        taken: list[Ticket] = []
        for batch in batches:
            gathered, _ = self._writing[batch]
            taken += gathered.stored
            gathered.stored = []
        return taken

    def on_told(self, event: JournalEvent) -> None:
        """Take what the journal tells, and let those who wait for it go on."""
        match event:
            case Written(tickets, dropped):
                for stream, first, last in dropped:
                    self.on_dropped[stream.kind](stream, first, last)
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
            gathered, later = self._writing.pop(ticket)
            for stored in gathered.stored:
                self.on_stored(stored, error)
            for each in gathered.then:
                each(error)
            if isinstance(error, JournalFull) and later.commands:
                self.later(*later.commands)  # what makes room is not to be refused for want of it
                self._later.then += later.then
                continue
            for each in later.then:
                each(error)


def _are_all(kind: type[Command], commands: Iterable[Command]) -> bool:
    return all(type(each) is kind for each in commands)


def _together(commands: list[Command]) -> Iterable[Command]:
    """Return commands that do the same: of those that follow one another what each stream forgets
    is one, with as few ranges as it takes."""
    if len(commands) < 2:
        return commands
    made: list[Command] = []
    for is_forgotten, group in groupby(commands, lambda each: type(each) is Forget):
        if not is_forgotten:
            made += group
            continue
        streams: dict[Stream, RangeSet] = {}
        for each in cast("Iterator[Forget]", group):
            ranges = streams.setdefault(each.stream, RangeSet())
            for low, high in each.ranges:
                ranges.add(low, high)
        made += [Forget(stream, ranges.as_tuple()) for stream, ranges in streams.items()]
    return made
