"""What patterns order of the journal leaves in order, and whoever waits is told once."""

from zmesh.actions import Action, ReadJournal, WriteJournal
from zmesh.core.keeper import COMPANY_MAX, COMPANY_S, LATER_S, NUMBERS_AT_ONCE, Keeper
from zmesh.errors import ZmeshError
from zmesh.ids import JournalId, NodeId
from zmesh.message import Kind, Ticket, head
from zmesh.storage import (
    Answer,
    Answered,
    Broken,
    Command,
    DropStream,
    EntriesRead,
    Entry,
    EntryKind,
    Forget,
    Identity,
    Opened,
    ReadEntries,
    Refused,
    RemoveEntries,
    Row,
    SetEntries,
    Store,
    StoreRun,
    Stream,
    StreamKind,
    Written,
)
from zmesh.storage_errors import JournalBroken, JournalFull, StorageError

BOX = Stream(StreamKind.WAITING, b"bob")
ANOTHER = Stream(StreamKind.WAITING, b"eve")
STORE = Store(BOX, [Row(1, (head(Kind.DIRECT), "", b"body"))])
FORGET = Forget(BOX, ((1, 1),))
OPENED = Opened(Identity(NodeId(bytes(16)), b"", JournalId(bytes(16)), 1), (), True, None)


def run(position: int) -> StoreRun:
    return StoreRun(BOX, position, [(head(Kind.DIRECT), "", b"body")], order=position)


def keeper() -> Keeper:
    return Keeper(OPENED)


def batches(actions: list[Action]) -> list[tuple[int, tuple[Command, ...]]]:
    return [(a.batch.ticket, a.batch.commands) for a in actions if isinstance(a, WriteJournal)]


def test_a_node_without_a_journal_has_nothing_to_order() -> None:
    assert not Keeper(None).is_there
    assert Keeper(None).take_actions() == []


def test_what_a_turn_orders_is_one_batch_in_order() -> None:
    kept = keeper()
    kept.write(FORGET)
    kept.write(FORGET, FORGET)
    [(_, commands)] = batches(kept.take_actions())
    assert commands == (FORGET, FORGET, FORGET)
    assert kept.take_actions() == []


def test_what_makes_room_does_not_share_the_fate_of_what_needs_some() -> None:
    kept = keeper()
    kept.write(FORGET)
    kept.write(STORE)
    kept.write(FORGET)
    made = batches(kept.take_actions())
    assert [commands for _, commands in made] == [(FORGET,), (STORE,), (FORGET,)]


def test_a_batch_that_needs_room_stays_whole() -> None:
    kept = keeper()
    kept.write(STORE, FORGET)
    assert [commands for _, commands in batches(kept.take_actions())] == [(STORE, FORGET)]


def test_who_waits_is_told_once_it_is_on_disk() -> None:
    kept, told = keeper(), list[StorageError | None]()
    kept.write(STORE, then=told.append)
    [(ticket, _)] = batches(kept.take_actions())
    assert told == []
    kept.on_told(Written((ticket,)))
    assert told == [None]
    assert kept.take_actions() == []


def test_who_waits_is_told_why_it_is_not_on_disk() -> None:
    kept, told = keeper(), list[StorageError | None]()
    kept.write(STORE, then=told.append)
    [(ticket, _)] = batches(kept.take_actions())
    full = JournalFull("a.journal", 5, 4)
    kept.on_told(Refused((ticket,), full))
    assert told == [full]


def test_a_question_comes_after_what_was_ordered_before_it() -> None:
    kept, told = keeper(), list[Answer | ZmeshError]()
    kept.write(STORE)
    kept.read(ReadEntries(EntryKind.COUNTER), told.append)
    kept.write(FORGET)
    first, asked, second = kept.take_actions()
    assert isinstance(first, WriteJournal)
    assert isinstance(asked, ReadJournal)
    assert isinstance(second, WriteJournal)
    answer = EntriesRead([], is_end=True)
    kept.on_told(Answered(asked.ticket, answer))
    assert told == [answer]


def test_a_journal_that_broke_is_noted() -> None:
    kept = keeper()
    error = JournalBroken("a.journal", "be written", "I/O error")
    kept.on_told(Broken(error))
    assert kept.error is error


def test_numbers_are_reserved_before_they_are_used_and_never_given_twice() -> None:
    kept = keeper()
    assert kept.numbers(3) == 1
    assert kept.numbers(1) == 4
    kept.write(STORE)
    [(_, (reserved, *_))] = batches(kept.take_actions())
    assert isinstance(reserved, SetEntries)
    later = keeper()
    later.on_counter(reserved.entries[0])
    assert later.numbers(1) > 4
    assert later.next_number <= NUMBERS_AT_ONCE + 10


def test_numbers_that_rescued_messages_have_are_not_given_again() -> None:
    kept = keeper()
    kept.on_number(77)
    assert kept.numbers(1) == 78


def test_other_counters_are_no_concern_of_it() -> None:
    kept = keeper()
    kept.on_counter(Entry(EntryKind.COUNTER, "else", b"", (99).to_bytes(8)))
    assert kept.numbers(1) == 1


def test_the_wall_clock_goes_on_between_two_looks_at_it() -> None:
    kept = keeper()
    kept.on_wall_clock(1_000_000, 10.0)
    assert kept.wall_ms(12.5) == 1_002_500


def test_what_nobody_waits_for_goes_along_with_the_next_batch() -> None:
    kept, told = keeper(), list[StorageError | None]()
    kept.later(FORGET, then=told.append)
    assert kept.take_actions() == []
    kept.write(STORE)
    [(ticket, commands)] = batches(kept.take_actions())
    assert commands == (STORE, FORGET)
    kept.on_told(Written((ticket,)))
    assert told == [None]
    assert kept.deadline is None


def test_what_nobody_waits_for_is_done_soon_for_itself() -> None:
    kept = keeper()
    kept.now = 5.0
    kept.later(FORGET)
    assert kept.deadline == 5.0 + LATER_S
    kept.on_timer()
    assert [commands for _, commands in batches(kept.take_actions())] == [(FORGET,)]


def test_what_makes_room_is_done_though_what_it_went_along_with_found_none() -> None:
    kept, told, made = keeper(), list[StorageError | None](), list[StorageError | None]()
    kept.later(FORGET, then=made.append)
    kept.write(STORE, then=told.append)
    [(ticket, _)] = batches(kept.take_actions())
    full = JournalFull("a.journal", 5, 4)
    kept.on_told(Refused((ticket,), full))
    assert (told, made) == ([full], [])
    kept.on_timer()
    [(again, commands)] = batches(kept.take_actions())
    assert commands == (FORGET,)
    kept.on_told(Written((again,)))
    assert made == [None]


def test_an_answer_knows_of_what_was_to_be_done_later() -> None:
    kept = keeper()
    kept.later(FORGET)
    kept.read(ReadEntries(EntryKind.COUNTER), lambda _: None)
    first, asked = kept.take_actions()
    assert isinstance(first, WriteJournal)
    assert isinstance(asked, ReadJournal)


def test_a_reservation_that_was_refused_is_none() -> None:
    kept = keeper()
    assert kept.numbers(3) == 1
    kept.write(STORE)
    [(ticket, commands)] = batches(kept.take_actions())
    assert isinstance(commands[0], SetEntries)
    kept.on_told(Refused((ticket,), JournalFull("path", 1, 1)))
    assert kept.numbers_given == 1  # another life may give these numbers
    assert kept.numbers(1) == 4
    [(ticket, commands)] = batches(kept.take_actions())
    assert isinstance(commands[0], SetEntries)
    assert kept.numbers(1) == 5  # the one before may be refused yet
    [(_, commands)] = batches(kept.take_actions())
    assert isinstance(commands[0], SetEntries)
    kept.on_told(Written((ticket,)))
    assert kept.numbers_given == 6
    kept.numbers(1)
    assert batches(kept.take_actions()) == []


def test_what_is_only_forgotten_lets_messages_pass_and_is_one_range_then() -> None:
    kept, told = keeper(), list[StorageError | None]()
    for number in range(1, 4):
        kept.later(Forget(BOX, ((number, number),)), then=told.append)
        kept.later(Forget(ANOTHER, ((number * 10, number * 10),)))
        kept.write(run(number + 100))
        assert [commands for _, commands in batches(kept.take_actions())] == [(run(number + 100),)]
    kept.now = LATER_S - COMPANY_S
    kept.write(run(104))
    [(ticket, commands)] = batches(kept.take_actions())
    assert commands == (
        run(104), Forget(BOX, ((1, 3),)), Forget(ANOTHER, ((10, 10), (20, 20), (30, 30)))
    )  # fmt: skip
    assert told == []
    kept.on_told(Written((ticket,)))
    assert told == [None, None, None]
    assert kept.deadline is None


def test_so_much_that_is_forgotten_waits_no_longer() -> None:
    kept = keeper()
    for number in range(1, COMPANY_MAX):
        kept.later(Forget(BOX, ((number, number),)))
    kept.write(run(101))
    assert [commands for _, commands in batches(kept.take_actions())] == [(run(101),)]
    kept.later(Forget(BOX, ((COMPANY_MAX, COMPANY_MAX),)))
    kept.write(run(102))
    [(_, commands)] = batches(kept.take_actions())
    assert commands == (run(102), Forget(BOX, ((1, COMPANY_MAX),)))


def test_what_is_forgotten_lets_nothing_pass_that_gives_positions_anew() -> None:
    kept = keeper()
    kept.later(FORGET)
    kept.write(DropStream(BOX))
    assert [commands for _, commands in batches(kept.take_actions())] == [
        (DropStream(BOX), FORGET)
    ]


def test_what_is_more_than_forgotten_lets_no_message_pass() -> None:
    kept = keeper()
    gone = RemoveEntries(EntryKind.RELAYED, "", b"key")
    kept.later(FORGET)
    kept.later(gone)
    kept.later(FORGET)
    kept.write(run(101))
    [(_, commands)] = batches(kept.take_actions())
    assert commands == (run(101), FORGET, gone, FORGET)


def test_an_answer_knows_of_what_was_forgotten_and_let_messages_pass() -> None:
    kept = keeper()
    kept.later(FORGET)
    kept.write(run(101))
    kept.read(ReadEntries(EntryKind.COUNTER), lambda _: None)
    [(_, commands)] = batches(kept.take_actions())
    assert commands == (run(101), FORGET)


def test_who_waits_for_the_disk_alone_is_told_before_others_unless_taken() -> None:
    kept, told = keeper(), list[object]()
    kept.on_stored = lambda ticket, error: told.append((ticket, error))
    early, late, never = Ticket(), Ticket(), Ticket()
    kept.write(run(101), then=told.append, stored=early)
    [(first, _)] = batches(kept.take_actions())
    kept.write(run(102), then=told.append, stored=late)
    [(second, _)] = batches(kept.take_actions())
    kept.write(run(103), then=told.append, stored=never)
    [(third, _)] = batches(kept.take_actions())
    assert kept.take_stored((first,)) == [early]
    assert kept.take_stored((first,)) == []
    full = JournalFull("a.journal", 5, 4)
    kept.on_told(Written((first, second)))
    kept.on_told(Refused((third,), full))
    assert told == [None, (late, None), None, (never, full), full]
