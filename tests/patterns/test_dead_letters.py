"""The dead letters of a node, on a disk and without."""

import pytest

from tests.scribe import Scribe, stored_in
from zmesh.actions import TicketsStored
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.errors import ZmeshError
from zmesh.events import PurgeLetters, RequeueLetter
from zmesh.ids import NodeId, SessionId
from zmesh.message import Kind, Record, Tag, Ticket, extra, head, with_extra
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.dead_letters import DeadLetters
from zmesh.patterns.letters import DeadLetter
from zmesh.storage import (
    DEAD_LETTERS,
    Burial,
    FailedAttempt,
    Forget,
    Move,
    Row,
    Store,
    StoredRow,
    Stream,
    StreamKind,
)
from zmesh.storage_errors import CannotRequeue, DeadLettersFull, JournalBroken, NoDeadLetter
from zmesh.testing.journal import Disk

RECORD: Record = (head(Kind.DIRECT), "", b"x" * 100)
BOX = Stream(StreamKind.WAITING, b"b")
BROKEN = JournalBroken("path", "write", "no disk")


class Bench:
    """Dead letters of one life of a node, whose journal answers when it is let."""

    def __init__(self, disk: Disk | None, options: NodeOptions | None = None) -> None:
        options = options or NodeOptions()
        self.journal = None if disk is None else Scribe(disk, NodeId(b"n" * 16))
        opened = None if self.journal is None else self.journal.opened
        self.peer = Peer(NodeId(b"p" * 16), "b", Loopback(SessionId(bytes(16)), LinkOptions()))
        self.turn = Turn(Peers(self.peer, options), options.link, 0.0, opened)
        self.turn.keeper.on_wall_clock(1_000_000, 0.0)
        self.letters = DeadLetters(self.turn, options)
        self.letters.send_again = self._send_again
        self.letters.takers[StreamKind.WAITING] = self._take_back
        self.sent: list[Record] = []
        self.why_not: ZmeshError | None = None  # nothing is sent again
        self.told: list[tuple[Ticket, ZmeshError | None]] = []
        self.restored: list[ZmeshError | None] = []
        if opened is not None:
            self.letters.restore(opened.streams, self.restored.append)
            self.run()

    def run(self) -> None:
        """Let the journal do what was ordered, and what follows from that."""
        while True:
            actions = self.turn.end()
            for action in actions:
                if isinstance(action, TicketsStored):
                    self.told += [(ticket, action.error) for ticket in action.tickets]
            if self.journal is None:
                return
            self.journal.take(actions)
            events = self.journal.work()
            if not events:
                return
            for event in events:
                self.turn.keeper.on_told(event)

    def rows(self, stream: Stream) -> list[StoredRow]:
        assert self.journal is not None
        return stored_in(self.journal.disk, stream)

    def _send_again(self, letter: DeadLetter, _: Ticket) -> None:
        if self.why_not is not None:
            raise self.why_not
        self.sent.append(letter.as_new())

    def _take_back(
        self, owner: bytes, record: Record, note: object, also: object, then: object
    ) -> None:
        row = Row(900, record, note=note)  # type: ignore[arg-type]
        command = Store(Stream(StreamKind.WAITING, owner), [row])
        self.turn.keeper.write(command, also, then=then)  # type: ignore[arg-type]

    def bury(self, *positions: int, size: int = 100, stream: Stream = BOX) -> None:
        rows = [Row(at, (0, "", bytes([at]) * size), 5, note=(4, "key")) for at in positions]
        self.turn.keeper.write(Store(stream, rows))
        for at in positions:
            history = (FailedAttempt(1, "once"), FailedAttempt(2, "why"))
            self.letters.bury(
                stream, at, "b", "why", 7, history=history, note=(4, "key"), peer=self.peer.id
            )
        self.run()

    def bodies(self) -> list[int]:
        return [bytes(letter.record[2])[0] for letter in self.letters.letters()]

    def requeue(self, letter: int) -> ZmeshError | None:
        ticket = Ticket()
        self.letters.on_requeue(RequeueLetter(letter, ticket, 2_000_000))
        self.run()
        return self._answer(ticket)

    def purge(self, letter: int | None = None) -> int | ZmeshError:
        ticket = Ticket()
        self.letters.on_purge(PurgeLetters(letter, ticket))
        self.run()
        return self._answer(ticket) or ticket.accepted

    def _answer(self, ticket: Ticket) -> ZmeshError | None:
        [error] = [error for told, error in self.told if told is ticket]
        return error


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def bench(disk: Disk) -> Bench:
    return Bench(disk)


def test_a_buried_message_has_all_that_is_known_of_it(bench: Bench) -> None:
    bench.bury(1)
    [letter] = bench.letters.letters()
    assert (letter.id, letter.reason, letter.attempts, letter.key) == (1, "why", 7, "key")
    assert letter.history == (FailedAttempt(1, "once"), FailedAttempt(2, "why"))
    assert (letter.stored_ms, letter.died_ms, letter.at) == (5, 1_000_000, 0.0)
    assert letter.peer == bench.peer.id
    assert letter.burial is not None
    assert (letter.burial.source, letter.burial.note) == (BOX, (4, "key"))


def test_a_buried_message_is_no_letter_before_it_is_on_disk(bench: Bench) -> None:
    bench.letters.bury(BOX, 1, "b", "why", 1)
    assert (bench.letters.letters(), bench.letters.stored) == ([], 0)


def test_what_cannot_be_buried_stays_where_it_is(bench: Bench) -> None:
    assert bench.journal is not None
    bench.turn.keeper.write(Store(BOX, [Row(1, RECORD)]))
    bench.run()
    bench.journal.error = BROKEN
    bench.letters.bury(BOX, 1, "b", "why", 1)
    bench.run()
    assert (bench.letters.letters(), bench.letters.stored) == ([], 0)
    assert len(bench.rows(BOX)) == 1


def test_another_life_finds_the_letters_and_gives_no_id_twice(disk: Disk) -> None:
    bench = Bench(disk)
    bench.bury(1, 2, 3)
    assert bench.purge(3) == 1
    again = Bench(disk)
    assert again.restored == [None]
    assert [letter.id for letter in again.letters.letters()] == [1, 2]
    again.bury(4)
    assert [letter.id for letter in again.letters.letters()] == [1, 2, 4]


def test_a_letter_whose_note_says_nothing_is_a_letter_still(disk: Disk) -> None:
    bench = Bench(disk)
    bench.turn.keeper.write(Store(DEAD_LETTERS, [Row(1, RECORD, note=("what",))]))
    bench.run()
    again = Bench(disk)
    [letter] = again.letters.letters()
    assert letter.reason == "nothing is known of it any more"
    assert isinstance(again.requeue(letter.id), CannotRequeue)
    assert again.purge(letter.id) == 1


# Bounds


def test_as_many_as_are_kept_are_in_memory_and_the_next_come_when_some_go(disk: Disk) -> None:
    bench = Bench(disk, NodeOptions(dead_letters_max=2))
    assert bench.letters.refusal() is None
    bench.bury(1, 2, 3, 4)
    assert (bench.bodies(), bench.letters.stored) == ([1, 2], 4)
    assert isinstance(bench.letters.refusal(), DeadLettersFull)
    bench.purge(1)
    assert (bench.bodies(), bench.letters.stored) == ([2, 3], 3)
    again = Bench(disk, NodeOptions(dead_letters_max=2))
    assert (again.bodies(), again.letters.stored) == ([2, 3], 3)
    again.bury(5)
    again.purge(2)
    again.purge(3)
    assert (again.bodies(), again.letters.stored) == ([4, 5], 2)
    again.purge(5)
    assert (again.bodies(), again.letters.refusal()) == ([4], None)


def test_their_bytes_are_bounded_too(disk: Disk) -> None:
    bench = Bench(disk, NodeOptions(dead_letters_bytes_max=1500))
    bench.bury(1, size=1000)
    assert bench.letters.refusal() is None
    bench.bury(2, 3, size=1000)
    assert isinstance(bench.letters.refusal(), DeadLettersFull)
    bench.purge(1)
    bench.purge(2)
    assert (bench.bodies(), bench.letters.refusal()) == ([3], None)


def test_all_are_purged_those_not_in_memory_too(disk: Disk) -> None:
    bench = Bench(disk, NodeOptions(dead_letters_max=2))
    bench.bury(1, 2, 3)
    again = Bench(disk, NodeOptions(dead_letters_max=2))
    again.bury(4)
    assert again.purge() == 4
    assert (again.bodies(), again.letters.stored) == ([], 0)
    assert again.rows(DEAD_LETTERS) == []
    again.bury(5)
    assert again.bodies() == [5]


def test_what_dies_while_all_are_purged_is_kept(bench: Bench) -> None:
    bench.bury(1)
    ticket = Ticket()
    bench.letters.on_purge(PurgeLetters(None, ticket))
    bench.bury(2)
    assert (bench.bodies(), bench.letters.stored, ticket.accepted) == ([2], 1, 1)


def test_purging_nothing_is_no_error(bench: Bench) -> None:
    assert bench.purge() == 0


def test_stored_letters_make_no_room_for_others(disk: Disk) -> None:
    bench = Bench(disk, NodeOptions(dead_letters_max=1))
    bench.bury(1)
    for text in (b"a", b"b"):
        bench.letters.keep(bench.peer, (0, "", text), "why", 1)
    assert bench.bodies() == [1, ord("b")]


# Requeue and purge


def test_a_requeued_letter_is_stored_anew_and_gone_in_one_batch(bench: Bench) -> None:
    bench.bury(1)
    assert bench.journal is not None
    bench.journal.batches.clear()
    assert bench.requeue(1) is None
    [(stored, gone)] = bench.journal.batches
    assert isinstance(stored, Store)
    assert gone == Forget(DEAD_LETTERS, ((1, 1),))
    [row] = bench.rows(BOX)
    assert (bytes(row.row.record[2])[0], row.row.note, row.attempts) == (1, (4, "key"), 0)
    assert bench.letters.letters() == []


@pytest.mark.parametrize("command", ["requeue", "purge"])
def test_a_letter_the_disk_refuses_to_let_go_stays(bench: Bench, command: str) -> None:
    bench.bury(1)
    assert bench.journal is not None
    bench.journal.error = BROKEN
    assert getattr(bench, command)(1) is BROKEN
    assert bench.bodies() == [1]
    bench.journal.error = None
    assert getattr(bench, command)(1) in (None, 1)
    assert bench.bodies() == []


def test_a_letter_goes_back_once(bench: Bench) -> None:
    bench.bury(1)
    first, second = Ticket(), Ticket()
    bench.letters.on_requeue(RequeueLetter(1, first, 0))
    bench.letters.on_requeue(RequeueLetter(1, second, 0))
    bench.run()
    told = dict(bench.told)
    assert told[first] is None
    assert isinstance(told[second], NoDeadLetter)


def test_a_letter_of_a_stream_that_nothing_takes_back_stays(bench: Bench) -> None:
    bench.bury(1, stream=Stream(StreamKind.TOPIC, b"news"))
    error = bench.requeue(1)
    assert isinstance(error, CannotRequeue)
    assert "topic" in str(error)
    assert bench.bodies() == [1]


def test_without_a_journal_letters_go_back_to_their_pattern() -> None:
    bench = Bench(None)
    tried = with_extra(with_extra(RECORD, Tag.ATTEMPT, 3), Tag.PREDECESSORS, ((1, 2),))
    bench.letters.keep(bench.peer, with_extra(tried, Tag.KEY, "key"), "why", 3)
    [letter] = bench.letters.letters()
    assert (letter.is_stored, letter.key) == (False, "key")
    bench.why_not = CannotRequeue(1, "it is gone")
    assert bench.requeue(letter.id) is bench.why_not
    assert bench.letters.letters() == [letter]
    bench.why_not = None
    assert bench.requeue(letter.id) is None
    [sent] = bench.sent
    assert [extra(sent, tag) for tag in (Tag.ATTEMPT, Tag.PREDECESSORS)] == [None, None]
    assert bench.letters.letters() == []
    assert isinstance(bench.requeue(letter.id), NoDeadLetter)
    assert isinstance(bench.purge(letter.id), NoDeadLetter)


def test_a_move_keeps_the_note_of_where_it_was(bench: Bench) -> None:
    bench.letters.bury(BOX, 9, "b", "why", 1, note=(4, ("nested", (1,))))
    [order] = bench.turn.keeper.take_actions()
    [move] = order.batch.commands  # type: ignore[union-attr]
    assert isinstance(move, Move)
    assert move.note is not None
    assert Burial.of(move.note).note == (4, ("nested", (1,)))
