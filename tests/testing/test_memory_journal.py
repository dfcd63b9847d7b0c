"""The journal of the simulator: as the real one, and deaths at every point of a commit."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.durability.model import content_in, content_of
from tests.durability.workload import batches as durable_work
from tests.journal.support import IN, NODE, OUT, Talk, record, row, store
from tests.memory import directory_in_memory
from zmesh.ids import JournalId
from zmesh.message import Outcome
from zmesh.storage import (
    DEAD_LETTERS,
    Answered,
    BackUp,
    Batch,
    Command,
    CountAttempts,
    DropOldest,
    DropStream,
    Entry,
    EntryKind,
    Forget,
    ForgetOutcomes,
    Identity,
    JournalEvent,
    Move,
    Opened,
    Question,
    Ranges,
    ReadEntries,
    ReadOutcomes,
    ReadRows,
    Refused,
    RemoveEntries,
    Room,
    Row,
    RowsRead,
    SetEntries,
    SetWatermark,
    Store,
    StoredOutcome,
    StoreOutcomes,
    StoreRun,
    Stream,
    Written,
)
from zmesh.storage_errors import JournalFull
from zmesh.testing.journal import Disk, MemoryJournal
from zmesh.testing.journal_content import JournalContent

FRESH = Identity(NODE, b"seed", JournalId(b"j" * 16), 0)
LAST = 40  # the highest position that commands are made for

# What is done to both

streams = st.sampled_from((OUT, IN, DEAD_LETTERS))


@st.composite
def ranges_of(draw: st.DrawFn) -> Ranges:
    last = draw(st.sampled_from((LAST, LAST, 10 * LAST)))
    ends = sorted(draw(st.lists(st.integers(1, last), min_size=2, max_size=6, unique=True)))
    return tuple(zip(ends[::2], ends[1::2], strict=False))


@st.composite
def rows_of(draw: st.DrawFn) -> list[Row]:
    first, count = draw(st.integers(1, LAST)), draw(st.integers(0, 12))
    size, note = (
        draw(st.sampled_from((0, 5, 100, 400))),
        draw(st.sampled_from(((), ("a" * 100, 1)))),
    )
    made = [row(each, size) for each in range(first, first + count)]
    return [each._replace(note=note, expires_ms=first, due_ms=count) for each in made]


@st.composite
def runs_of(draw: st.DrawFn) -> StoreRun:
    count = draw(st.one_of(st.integers(1, 20), st.sampled_from((127, 128, 129, 300))))
    size = draw(st.sampled_from((0, 5, 100, 4000)))
    note = draw(st.sampled_from(((), ("a" * 100, 1))))
    sizes = draw(st.lists(st.just(size) | st.integers(0, 3000), min_size=1, max_size=3))
    records = [record(each, sizes[each % len(sizes)]) for each in range(count)]
    return StoreRun(
        draw(streams), draw(st.integers(1, LAST)), records, 3, count, size,
        draw(st.integers(0, 9)), note,
    )  # fmt: skip


@st.composite
def outcomes_of(draw: st.DrawFn) -> tuple[StoredOutcome, ...]:
    outcome, delay_ms = draw(st.sampled_from(Outcome)), draw(st.integers(0, 2))
    return tuple(
        StoredOutcome(first, last, outcome, "why", delay_ms) for first, last in draw(ranges_of())
    )


kinds = st.sampled_from((EntryKind.SHARED, EntryKind.RETAINED))
names = st.sampled_from(("", "a", "b", "ä"))
keys = st.sampled_from((b"", b"1", b"2"))
entries = st.builds(Entry, kinds, names, keys, st.binary(max_size=9))
counts = st.integers(1, 6)
positions = st.integers(0, LAST)

commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Store, streams, rows_of()),
    runs_of(),
    runs_of(),
    st.builds(SetWatermark, streams, positions, ranges_of()),
    st.builds(Forget, streams, ranges_of()),
    st.builds(Move, streams, ranges_of(), streams, counts, st.sampled_from((None, (), ("b",)))),
    st.builds(CountAttempts, streams, ranges_of(), counts),
    st.builds(StoreOutcomes, streams, outcomes_of()),
    st.builds(ForgetOutcomes, streams, ranges_of()),
    st.builds(DropOldest, streams, st.integers(0, 2000) | st.integers(0, 200_000)),
    st.builds(DropStream, streams),
    st.builds(SetEntries, st.lists(entries, max_size=4).map(tuple)),
    st.builds(RemoveEntries, kinds, names, st.none() | keys),
)
questions: st.SearchStrategy[Question] = st.one_of(
    st.builds(
        ReadRows,
        streams,
        positions | st.integers(0, 10 * LAST),
        counts | st.integers(100, 300),
        st.sampled_from((1, 300, 1000, 20_000, 1 << 20)),
    ),
    st.builds(ReadEntries, kinds, st.none() | st.tuples(names, keys), counts),
    st.builds(ReadOutcomes, streams, positions, counts),
)
LOOKS: Sequence[Question] = [
    look
    for stream in (OUT, IN, DEAD_LETTERS)
    for look in (
        ReadRows(stream),
        ReadRows(stream, after=5, count_max=3, bytes_max=500),
        ReadOutcomes(stream),
        ReadOutcomes(stream, after=5, count_max=2),
    )
]
work = st.lists(
    st.one_of(st.lists(commands, min_size=1, max_size=4), questions, st.just("reopen")),
    min_size=5,
    max_size=25,
)


def possible(given_commands: Sequence[Command], content: JournalContent) -> list[Command]:
    """Return the commands with positions that are free when their turn comes."""
    draft = content.copy()
    made = []
    for given_command in given_commands:
        command = given_command
        following = {state.stream: state.next_position for state in draft.states()}
        if isinstance(command, Store):
            free = [
                each
                for each in command.rows
                if draft.is_free(command.stream, each.position, each.position)
            ]
            command = Store(command.stream, free)
        elif isinstance(command, StoreRun):
            if not draft.is_free(command.stream, command.first, command.last):
                command = replace(command, first=following.get(command.stream, 1))
        elif isinstance(command, Move):
            if command.source == command.target:
                continue
            first = following.get(command.target, 1)
            command = Move(command.source, command.ranges, command.target, first, command.note)
        draft.apply(command)
        made.append(command)
    return made


class Pair:
    """A real journal and one in memory, of which the same is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.disk = Disk()
        self._open()

    def _open(self) -> None:
        self.real = Talk(self._path, synchronous="normal")
        self.memory = MemoryJournal(self.disk, FRESH)
        self._tickets = 0
        real, memory = self.real.open(), self.memory.open()
        assert memory.streams == real.streams
        assert (memory.is_new, memory.rescue) == (real.is_new, real.rescue)
        for name in ("node", "seed", "incarnation"):
            assert getattr(memory.identity, name) == getattr(real.identity, name)
        assert content_in(self.disk.content) == content_of(self.real, real)

    def do(self, step: Sequence[Command] | Question | str) -> None:
        if isinstance(step, str):
            self.real.close()
            self._open()
        elif isinstance(step, ReadRows | ReadEntries | ReadOutcomes | BackUp):
            self.memory.read(7, step)
            assert self.news() == [Answered(7, self.real.ask(step))]
        else:
            made = possible(step, self.disk.content)
            written = self.real.write(*made)
            self._tickets += 1
            self.memory.write(Batch(self._tickets, tuple(made)))
            assert self.news() == [written]
            for question in LOOKS:
                self.do(question)

    def news(self) -> list[JournalEvent]:
        assert self.memory.step()
        return self.memory.take_news()


@given(work)
@settings(max_examples=150)
def test_it_holds_and_answers_what_the_real_one_does(
    steps: list[list[Command] | Question | str],
) -> None:
    with directory_in_memory() as place:
        pair = Pair(place / "journal")
        try:
            pair.do([store(1, 20), store(10, 30, IN), CountAttempts(IN, ((12, 28),), 1)])
            for step in (*steps, "reopen"):
                pair.do(step)
        finally:
            pair.real.close()


def test_it_holds_what_the_real_one_does_after_the_work_of_a_node(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "journal")
    for commands_ in durable_work(rounds=4):
        pair.do(commands_)
    pair.do("reopen")
    pair.real.close()
    assert pair.disk.content.used > 50_000


def test_moving_and_forgetting_nothing_makes_no_stream(tmp_path: Path) -> None:
    pair = Pair(tmp_path / "journal")
    pair.do([store(1, 1), Move(OUT, ((5, 6),), IN, 1), Forget(DEAD_LETTERS, ((1, 2),))])
    pair.do("reopen")
    pair.real.close()
    assert [state.stream for state in pair.disk.content.states()] == [OUT]


# Lives and deaths


def begin(disk: Disk, bytes_max: int | None = None) -> tuple[MemoryJournal, Opened]:
    journal = MemoryJournal(disk, FRESH, bytes_max)
    return journal, journal.open()


def rows_on(disk: Disk, stream: Stream = OUT) -> list[int]:
    answer = disk.content.answer(ReadRows(stream))
    assert isinstance(answer, RowsRead)
    return [stored.row.position for stored in answer.rows]


def test_process_that_dies_before_a_batch_is_durable_leaves_nothing_of_it() -> None:
    disk = Disk()
    journal, _ = begin(disk)
    journal.write(Batch(1, (store(1, 3), SetWatermark(IN, 9))))
    assert (journal.waiting, journal.take_news()) == (1, [])
    _, opened = begin(disk)
    assert opened.streams == ()
    assert opened.identity.incarnation == 2


def test_process_that_dies_before_it_was_told_leaves_the_whole_batch() -> None:
    disk = Disk()
    journal, _ = begin(disk)
    journal.write(Batch(1, (store(1, 3), SetWatermark(IN, 9))))
    journal.write(Batch(2, (store(4, 4),)))
    assert journal.step()
    again, opened = begin(disk)
    assert [(state.stream, state.rows) for state in opened.streams] == [(OUT, 3), (IN, 0)]
    assert again.take_news() == []  # the next life is told nothing of it


def test_process_is_told_after_a_batch_is_durable() -> None:
    disk = Disk()
    journal, _ = begin(disk)
    journal.write(Batch(5, (store(1, 3),)))
    journal.read(6, ReadRows(OUT, count_max=1))
    assert journal.step()
    assert journal.take_news() == [Written((5,))]
    assert journal.step()
    (answered,) = journal.take_news()
    assert isinstance(answered, Answered)
    assert answered.ticket == 6
    assert not journal.step()
    begin(disk)
    assert rows_on(disk) == [1, 2, 3]


def test_batches_that_wait_share_a_commit_as_far_as_no_question_is_between_them() -> None:
    disk = Disk()
    journal, _ = begin(disk)
    for number in (1, 2):
        journal.write(Batch(number, (store(number, number),)))
    journal.read(3, ReadOutcomes(OUT))
    journal.write(Batch(4, (store(4, 4),)))
    assert (journal.group(1), journal.group(9)) == (1, 2)
    assert journal.step(9)
    assert journal.take_news() == [Written((1, 2))]
    assert journal.step(9)
    assert journal.step(9)
    assert [type(event) for event in journal.take_news()] == [Answered, Written]
    assert disk.commits == 2


def test_the_identity_is_that_of_the_disk_and_each_life_counts() -> None:
    disk = Disk()
    _, first = begin(disk)
    other = Identity(NODE, b"", JournalId(b"k" * 16), 0)
    second = MemoryJournal(disk, other).open()
    assert (first.is_new, second.is_new) == (True, False)
    assert second.identity == Identity(NODE, b"seed", FRESH.journal, 2)


def test_copy_of_a_disk_goes_its_own_way() -> None:
    disk = Disk()
    journal, _ = begin(disk)
    journal.write(Batch(1, (store(1, 3), CountAttempts(OUT, ((1, 1),), 1))))
    journal.step()
    other = disk.copy()
    journal.write(Batch(2, (Forget(OUT, ((1, 1),)), SetWatermark(OUT, 1))))
    journal.step()
    assert (rows_on(disk), rows_on(other)) == ([2, 3], [1, 2, 3])
    assert other.content.states()[0].received_cum == 0


def test_command_that_cannot_be_done_is_a_defect() -> None:
    journal, _ = begin(Disk())
    journal.write(Batch(1, (store(1, 3), store(3, 4))))
    with pytest.raises(ValueError, match=r"position 3 of .* is taken"):
        journal.step()


# A journal that is full


def test_journal_at_its_bound_takes_what_needs_no_room_and_tells_of_room() -> None:
    journal, _ = begin(Disk(), 2000)
    journal.write(Batch(1, (store(1, 8),)))
    with pytest.raises(JournalFull) as full:
        journal.write(Batch(2, (store(9, 16),)))
    assert full.value.limit == 2000
    journal.step()
    journal.write(Batch(3, (Forget(OUT, ((1, 1),)),)))
    journal.step()
    assert journal.take_news() == [Written((1,)), Written((3,))]
    journal.write(Batch(4, (DropOldest(OUT, 800),)))
    journal.step()
    assert journal.take_news() == [Written((4,), ((OUT, 2, 6),)), Room()]
    journal.write(Batch(5, (store(9, 16),)))


def test_full_disk_refuses_all_that_needs_room_and_goes_on_with_the_rest() -> None:
    disk = Disk(bytes_max=2000)
    journal, _ = begin(disk)
    journal.write(Batch(1, (store(1, 8),)))
    journal.step()
    journal.write(Batch(2, (store(9, 20),)))
    journal.write(Batch(3, (Forget(OUT, ((1, 2),)),)))
    journal.write(Batch(4, (store(21, 21),)))
    journal.step()
    written, refused = journal.take_news()
    assert written == Written((1,))
    assert isinstance(refused, Refused)
    assert refused.tickets == (2, 4)
    assert isinstance(refused.error, JournalFull)
    assert refused.error.limit == 0
    with pytest.raises(JournalFull):
        journal.write(Batch(5, (store(22, 22),)))
    assert journal.step()
    assert rows_on(disk) == [3, 4, 5, 6, 7, 8]
    assert not journal.step()
    assert journal.take_news() == [Written((3,)), Room()]
    journal.write(Batch(6, (store(22, 22),)))
    journal.step()
    assert journal.take_news() == [Written((6,))]
