"""Orders to a journal on virtual time: when they are done and told, and what a death leaves."""

from collections.abc import Callable

from tests.journal.support import NODE, OUT, store
from zmesh.actions import ReadJournal, WriteJournal
from zmesh.ids import JournalId
from zmesh.storage import (
    Answered,
    Batch,
    Forget,
    Identity,
    JournalEvent,
    ReadRows,
    Refused,
    Room,
    RowsRead,
    Written,
)
from zmesh.testing.clock import EventQueue, SeededEntropy
from zmesh.testing.drive import COMMIT_MAX, COMMIT_MIN, TOLD_MAX, Drive
from zmesh.testing.journal import Disk, MemoryJournal


class Life:
    """A process that consists of a drive."""

    def __init__(self, disk: Disk, seed: int = 1) -> None:
        self.disk = disk
        self.queue = EventQueue()
        self.told: list[tuple[float, JournalEvent]] = []
        self.alive = True
        journal = MemoryJournal(disk, Identity(NODE, b"", JournalId(b"j"), 0))
        journal.open()
        entropy = SeededEntropy(f"drive {seed}")
        self.drive = Drive(self.queue, entropy, journal, self._tell, self.die)

    def _tell(self, events: list[JournalEvent]) -> None:
        self.told += [(self.queue.now, event) for event in events]

    def die(self) -> None:
        self.alive = False
        self.drive.stop()

    def store(self, number: int, size: int = 100) -> None:
        self.drive.perform(WriteJournal(Batch(number, (store(number, number, size=size),))))

    def run(self, until: float = 10.0) -> "Life":
        while self.queue.next_at is not None and self.queue.next_at <= until:
            self.queue.step()
        self.queue.now = max(self.queue.now, until)
        return self

    @property
    def events(self) -> list[JournalEvent]:
        return [event for _, event in self.told]

    @property
    def kept(self) -> list[int]:
        answer = self.disk.content.answer(ReadRows(OUT))
        assert isinstance(answer, RowsRead)
        return [stored.row.position for stored in answer.rows]


def test_a_commit_takes_its_time_and_what_waits_shares_the_next() -> None:
    life = Life(Disk())
    for number in range(1, 6):
        life.store(number)
    life.run(COMMIT_MIN / 2)
    assert (life.kept, life.told) == ([], [])
    life.run()
    assert [event.tickets for event in life.events if isinstance(event, Written)] == [
        (1,), (2, 3, 4, 5),
    ]  # fmt: skip
    assert COMMIT_MIN <= life.told[0][0] <= life.told[1][0] <= 2 * COMMIT_MAX + TOLD_MAX
    assert (life.drive.operations, life.disk.commits) == (2, 2)


def test_a_question_is_answered_in_its_turn() -> None:
    life = Life(Disk())
    life.store(1)
    life.drive.perform(ReadJournal(2, ReadRows(OUT)))
    life.store(3)
    written, answered, last = life.run().events
    assert (written, last) == (Written((1,)), Written((3,)))
    assert isinstance(answered, Answered)
    assert isinstance(answered.answer, RowsRead)
    assert [stored.row.position for stored in answered.answer.rows] == [1]


def test_the_same_seed_takes_the_same_time() -> None:
    def times(seed: int) -> list[float]:
        life = Life(Disk(), seed)
        for number in range(1, 4):
            life.store(number)
        return [at for at, _ in life.run().told]

    assert times(1) == times(1) != times(2)


def deaths_at(operation: int, *, after: bool) -> Life:
    life = Life(Disk())
    life.drive.die_at(operation, after=after)
    for number in range(1, 4):
        life.store(number)
        life.run(life.queue.now + 0.1)
    return life


def test_a_death_before_an_operation_leaves_nothing_of_it() -> None:
    life = deaths_at(2, after=False)
    assert (life.alive, life.kept, life.events) == (False, [1], [Written((1,))])


def test_a_death_after_an_operation_leaves_all_of_it_and_nobody_is_told() -> None:
    life = deaths_at(2, after=True)
    assert (life.alive, life.kept, life.events) == (False, [1, 2], [Written((1,))])


def test_a_process_outlives_operations_it_does_not_come_to() -> None:
    life = deaths_at(4, after=False)
    assert (life.alive, life.drive.operations, life.kept) == (True, 3, [1, 2, 3])


def left_by_seed(when: Callable[[Life], object]) -> set[tuple[int, ...]]:
    left = set()
    for seed in range(40):
        life = Life(Disk(), seed)
        for number in range(1, 4):
            life.store(number)
        when(life)
        life.die()
        kept = life.kept
        life.run()
        assert life.kept == kept  # a dead process writes nothing
        left.add(tuple(kept))
    return left


def test_a_death_leaves_some_of_what_was_under_way_and_in_order() -> None:
    assert left_by_seed(lambda _: None) == {(), (1,), (1, 2, 3)}


def test_a_death_with_nothing_under_way_leaves_everything() -> None:
    assert left_by_seed(Life.run) == {(1, 2, 3)}


def test_what_a_full_disk_refuses_is_told_and_room_too() -> None:
    disk = Disk(bytes_max=1000)
    life = Life(disk)
    life.store(1, size=800)
    life.store(2, size=500)
    life.run(1.0)
    life.store(3)
    life.run(2.0)
    _, full, late = life.events
    assert isinstance(full, Refused)
    assert isinstance(late, Refused)
    assert (full.tickets, late.tickets) == ((2,), (3,))
    life.drive.perform(WriteJournal(Batch(4, (Forget(OUT, ((1, 1),)),))))
    life.run(3.0)
    assert life.events[3:] == [Written((4,)), Room()]
    life.store(5)
    assert life.run(4.0).events[5:] == [Written((5,))]


def test_a_full_disk_that_is_made_larger_has_room_by_and_by() -> None:
    disk = Disk(bytes_max=100)
    life = Life(disk)
    life.store(1)
    life.run(1.0)
    disk.bytes_max = 10_000
    life.run(2.0)
    assert [type(event) for event in life.events] == [Refused, Room]
