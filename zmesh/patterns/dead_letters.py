"""Dead letters: what nobody could handle, kept with its reason until somebody acts.

Those of stored messages are rows of one stream on disk, of which as many as the options allow are
in memory too, the oldest first; those of other messages are in memory alone. When there are too
many on disk no durable message is accepted until some are gone: nothing is dropped for another. Of
those in memory alone the oldest make room.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from zmesh.core.peers import Peer
from zmesh.core.turn import Turn
from zmesh.errors import ZmeshError
from zmesh.events import PurgeLetters, RequeueLetter
from zmesh.ids import NodeId
from zmesh.message import PRIORITY_DEFAULT, Record, Ticket, size_of
from zmesh.options import NodeOptions
from zmesh.patterns.letters import DeadLetter, RequeuedTicket, letter_of
from zmesh.storage import (
    DEAD_LETTERS,
    Answer,
    Burial,
    Command,
    FailedAttempt,
    Forget,
    Move,
    Note,
    ReadRows,
    RowsRead,
    Stream,
    StreamKind,
    StreamState,
)
from zmesh.storage_errors import CannotRequeue, DeadLettersFull, NoDeadLetter, StorageError

PAGE_ROWS: Final = 256
PAGE_BYTES: Final = 1024 * 1024
"""Read from the disk at once."""

Then = Callable[[ZmeshError | None], None]

TakeBack = Callable[[bytes, Record, Note, Command, Callable[[StorageError | None], None]], None]
"""Stores a record anew in the stream of an owner, with the note it had there, in one batch with a
command; told when that is on disk."""


class DeadLetters:
    """The dead letters of one node.

    `send_again` gives a letter that is in memory alone back to the pattern it came from; it raises
    where that cannot be. `takers` do so, by the kind of stream, with those that are on disk.
    """

    def __init__(self, turn: Turn, options: NodeOptions) -> None:
        self.send_again: Callable[[DeadLetter, Ticket], None]
        self.takers: dict[StreamKind, TakeBack] = {}
        self.dead_lettered = 0  # ever, those dropped for want of room included
        self._turn = turn
        self._options = options
        opened = turn.keeper.opened
        state = None
        if opened is not None:
            state = next((each for each in opened.streams if each.stream == DEAD_LETTERS), None)
        self._following = 1 if state is None else state.next_position
        self._unsaved: deque[DeadLetter] = deque()  # in memory alone, oldest first
        self._unsaved_bytes = 0
        self._saved: dict[int, DeadLetter] = {}  # on disk and here, by position
        self._saved_bytes = 0
        self._leaving: set[int] = set()  # of these, being forgotten there
        self._cursor = 0  # those on disk up to here were read
        self._unread_old = 0 if state is None else state.rows  # of earlier lives
        self._unread_new: deque[int] = deque()
        self._old_last = 0 if state is None else state.last
        self._purged = 0  # none is left up to here
        self._is_reading = False
        self._asked_for = 0  # by the reading under way: up to here
        self._restored: Then | None = None
        self._awaited: list[Callable[[], None]] = []  # who is told when what was buried is here

    # What there is

    @property
    def stored(self) -> int:
        """How many are on disk."""
        return len(self._saved) + self._unread_old + len(self._unread_new)

    def letters(self) -> list[DeadLetter]:
        """Return those in memory, oldest first."""
        return sorted((*self._saved.values(), *self._unsaved), key=lambda letter: letter.id)

    def refusal(self) -> DeadLettersFull | None:
        """Return why no durable message is accepted, if none is."""
        options = self._options
        if (
            self.stored < options.dead_letters_max
            and self._saved_bytes < options.dead_letters_bytes_max
        ):
            return None
        return DeadLettersFull(self.stored)

    # New ones

    def keep(
        self,
        peer: Peer,
        record: Record,
        reason: str,
        attempts: int,
        *,
        lane: int = PRIORITY_DEFAULT,
        history: Sequence[FailedAttempt] = (),
    ) -> None:
        """Keep a message that is not on disk; the oldest such ones make room for it."""
        self._note(peer.label, attempts, reason)
        turn = self._turn
        self._unsaved.append(
            DeadLetter(
                record,
                peer.id,
                reason,
                attempts,
                turn.now,
                self._next_id(),
                record[1] or peer.name,
                tuple(history),
                turn.keeper.wall_ms(turn.now),
                lane=lane,
            )
        )
        self._unsaved_bytes += size_of(record)
        options = self._options
        while (
            len(self._unsaved) > options.dead_letters_max
            or self._unsaved_bytes > options.dead_letters_bytes_max
        ):
            self._drop_unsaved(self._unsaved[0])

    def bury(
        self,
        stream: Stream,
        position: int,
        destination: str,
        reason: str,
        attempts: int,
        *,
        history: Sequence[tuple[int, str]] = (),
        note: Note = (),
        peer: NodeId = NodeId(b""),  # noqa: B008  # bytes
        then: Callable[[], None] | None = None,
    ) -> None:
        """Move a stored message, wherever its body is now.

        Args:
            stream: where it is, and would go back to.
            position: its own there.
            destination: the peer, queue, topic or group it was for.
            reason: why it died.
            attempts: how many there were.
            history: when and why each failed, as far as known.
            note: what the row has beside its record there.
            peer: the node that had it last.
            then: called when it is among the letters, or the disk failed: the sender hears now.
        """
        self._note(destination, attempts, reason)
        keeper, letter = self._turn.keeper, self._next_id()
        at_ms = keeper.wall_ms(self._turn.now)
        burial = Burial(
            destination, reason, tuple(history), attempts, at_ms, peer, stream, note
        ).as_note()
        move = Move(stream, ((position, position),), DEAD_LETTERS, letter, burial)
        keeper.write(move, then=partial(self._on_buried, letter, then))

    def _on_buried(
        self, letter: int, then: Callable[[], None] | None, error: StorageError | None
    ) -> None:
        if then is not None:
            self._awaited.append(then)
        if error is None:  # else the message is where it was, for another life
            self._unread_new.append(letter)
            self._read_more()
        self._tell_awaited()

    def _tell_awaited(self) -> None:
        """Tell of letters that are here, or have no room in memory."""
        if not self._is_reading:
            awaited, self._awaited = self._awaited, []
            for then in awaited:
                then()

    def _next_id(self) -> int:
        letter, self._following = self._following, self._following + 1
        return letter

    def _note(self, destination: str, attempts: int, reason: str) -> None:
        self.dead_lettered += 1
        fields = {"peer": destination, "attempts": attempts, "reason": reason}
        self._turn.trace("dead_lettered", 30, **fields)

    # Reading

    def restore(self, states: Sequence[StreamState], then: Then) -> int:
        """Read what there is room for; return how many times `then` will be called."""
        if not any(state.stream == DEAD_LETTERS and state.rows for state in states):
            return 0
        self._restored = then
        self._read_more()
        return 1

    def _read_more(self) -> None:
        """Have more of those on disk in memory, as far as there is room."""
        options = self._options
        room = options.dead_letters_max - len(self._saved)
        has_room = room > 0 and self._saved_bytes < options.dead_letters_bytes_max
        if self._is_reading or not (self._unread_old or self._unread_new) or not has_room:
            return
        self._is_reading = True
        self._asked_for = self._following - 1
        question = ReadRows(DEAD_LETTERS, self._cursor, min(room, PAGE_ROWS), PAGE_BYTES)
        self._turn.keeper.read(question, self._on_read)

    def _on_read(self, answer: Answer | ZmeshError) -> None:
        self._is_reading = False
        if isinstance(answer, RowsRead):
            now_ms = self._turn.keeper.wall_ms(self._turn.now)
            for each in answer.rows:
                position = self._cursor = each.row.position
                if position <= self._purged:
                    continue
                self._saved[position] = letter_of(each, self._turn.now, now_ms)
                self._saved_bytes += size_of(each.row.record)
            read_to = self._asked_for if answer.is_end else self._cursor
            self._unread_old = max(0, self._unread_old - len(answer.rows))
            if read_to >= self._old_last:
                self._unread_old = 0
            while self._unread_new and self._unread_new[0] <= read_to:
                self._unread_new.popleft()
            self._read_more()
        self._tell_awaited()
        if self._restored is not None and not self._is_reading:
            then, self._restored = self._restored, None
            then(answer if isinstance(answer, ZmeshError) else None)

    # What is done about them

    def on_requeue(self, command: RequeueLetter) -> None:
        """Send a message back to where it was for, its attempts beginning anew."""
        self._turn.keeper.on_wall_clock(command.wall_ms, self._turn.now)
        told = partial(self._turn.stored, command.ticket)
        try:
            letter = self._find(command.letter)
            if letter.burial is None:
                ticket = RequeuedTicket()
                self.send_again(letter, ticket)
                self._drop_unsaved(letter)
                told(None)
                for failure in ticket.failures:  # it could not be sent at all
                    self._note(letter.destination, letter.attempts, failure.reason)
                    self._unsaved.append(letter)
                    self._unsaved_bytes += size_of(letter.record)
            else:
                self._take_back(letter, letter.burial, told)
        except ZmeshError as error:
            told(error)

    def _take_back(self, letter: DeadLetter, burial: Burial, told: Then) -> None:
        source = burial.source
        if source is None:
            raise CannotRequeue(letter.id, "it is not known where it was")
        taker = self.takers.get(source.kind)
        if taker is None:
            why = f"nothing here takes messages of {source.kind.name.lower()} back"
            raise CannotRequeue(letter.id, why)
        self._leaving.add(letter.id)
        gone = Forget(DEAD_LETTERS, ((letter.id, letter.id),))
        then = partial(self._on_gone, letter, told)
        taker(source.owner, letter.as_new(), burial.note, gone, then)

    def on_purge(self, command: PurgeLetters) -> None:
        """Forget a letter, or all; the ticket counts them."""
        told = partial(self._turn.stored, command.ticket)
        if command.letter is None:
            self._purge_all(command.ticket, told)
            return
        try:
            letter = self._find(command.letter)
        except NoDeadLetter as error:
            told(error)
            return
        command.ticket.accepted = 1
        if letter.burial is None:
            self._drop_unsaved(letter)
            told(None)
            return
        self._leaving.add(letter.id)
        gone = Forget(DEAD_LETTERS, ((letter.id, letter.id),))
        self._turn.keeper.write(gone, then=partial(self._on_gone, letter, told))

    def _purge_all(self, ticket: Ticket, told: Then) -> None:
        ticket.accepted = len(self._unsaved)
        self._unsaved.clear()
        self._unsaved_bytes = 0
        if not self._turn.keeper.is_there:
            told(None)
            return
        last = self._following - 1
        gone = Forget(DEAD_LETTERS, ((1, last),) if last else ())
        self._turn.keeper.write(gone, then=partial(self._on_all_gone, last, ticket, told))

    def _on_gone(self, letter: DeadLetter, told: Then, error: StorageError | None) -> None:
        self._leaving.discard(letter.id)
        if error is None:
            self._drop_saved(letter.id)
            self._read_more()
        told(error)

    def _on_all_gone(
        self, last: int, ticket: Ticket, told: Then, error: StorageError | None
    ) -> None:
        if error is None:
            before = self.stored
            self._purged = last
            for letter in [each for each in self._saved if each <= last]:
                self._drop_saved(letter)
            self._unread_old = 0
            while self._unread_new and self._unread_new[0] <= last:
                self._unread_new.popleft()
            ticket.accepted += before - self.stored
            self._read_more()
        told(error)

    def _find(self, id_: int) -> DeadLetter:
        letter = self._saved.get(id_)
        if letter is None:
            letter = next((each for each in self._unsaved if each.id == id_), None)
        if letter is None or id_ in self._leaving:
            raise NoDeadLetter(id_)
        return letter

    def _drop_saved(self, id_: int) -> None:
        letter = self._saved.pop(id_, None)
        if letter is not None:
            self._saved_bytes -= size_of(letter.record)

    def _drop_unsaved(self, letter: DeadLetter) -> None:
        self._unsaved.remove(letter)
        self._unsaved_bytes -= size_of(letter.record)
