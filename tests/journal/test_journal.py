"""The journal as the runner has it: answers in order, commits shared, nothing waits."""

import asyncio
import errno
import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.faulty import FaultyDisk, FaultyFiles, Operation
from tests.journal.support import IN, NODE, OUT, SMALL, Talk, store, talk
from zmesh.errors import Closed as ClosedError
from zmesh.journal.journal import SqliteJournal
from zmesh.journal.writing import LAID_OUT_MIN
from zmesh.options import KIB, MIB, JournalOptions
from zmesh.ports import Journal
from zmesh.storage import (
    Answered,
    Batch,
    Broken,
    Closed,
    DropOldest,
    Forget,
    JournalEvent,
    Opened,
    ReadRows,
    Refused,
    Room,
    RowsRead,
    Store,
    Written,
)
from zmesh.storage_errors import JournalBroken, JournalFull


class Held:
    """A disk whose syncs of the log wait until they are let go."""

    def __init__(self, place: Path) -> None:
        self.disk = FaultyDisk(place)
        self.reached = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.is_holding = False
        self.disk.fail = self._fail
        self.files = FaultyFiles(place / "journal", self.disk)

    def _fail(self, operation: Operation) -> None:
        if self.is_holding and operation == ("sync", "journal-wal"):
            self.reached.release()
            assert self.let_go.wait(20)


def test_port_is_what_the_engine_asks_for(tmp_path: Path) -> None:
    journal: Journal = SqliteJournal(tmp_path / "journal", lambda _: None, node=NODE)
    assert journal.room_bytes > 0


def test_what_is_handed_over_during_a_commit_shares_the_next(tmp_path: Path) -> None:
    held = Held(tmp_path)
    with talk(tmp_path / "journal", held.files) as (speaking, _):
        held.is_holding = True
        first = speaking.hand_over(store(1, 1))
        assert held.reached.acquire(timeout=10)
        held.is_holding = False
        # The commit hangs; nothing here does, and nothing is told before its time.
        tickets = [speaking.hand_over(store(number, number)) for number in range(2, 52)]
        speaking.journal.read(99, ReadRows(OUT, count_max=100))
        assert speaking.news.empty()
        assert speaking.journal.statistics().pending == 51
        syncs = len([each for each in held.disk.operations if each[0] == "sync"])
        held.let_go.set()
        assert speaking.next(Written).tickets == (first,)
        assert speaking.next(Written).tickets == tuple(tickets)
        answer = speaking.next(Answered).answer
        assert isinstance(answer, RowsRead)
        assert len(answer.rows) == 51  # what was handed over before was written
        after = len([each for each in held.disk.operations if each[0] == "sync"])
        assert after - syncs == 1
        statistics = speaking.journal.statistics()
        assert (statistics.batches, statistics.commits, statistics.pending) == (51, 2, 0)
    held.disk.close()


def test_a_commit_is_shared_by_so_many_and_so_much_only(tmp_path: Path) -> None:
    held = Held(tmp_path)
    options = JournalOptions(
        group_batches_max=10, group_bytes_max=4 * KIB, reserve_bytes_min=4 * KIB,
        wal_bytes_max=1 * MIB,
    )  # fmt: skip
    with talk(tmp_path / "journal", held.files, options) as (speaking, _):
        held.is_holding = True
        speaking.hand_over(store(1, 1))
        assert held.reached.acquire(timeout=10)
        held.is_holding = False
        for number in range(2, 27):
            speaking.hand_over(store(number, number, size=1))
        for number in range(27, 33):
            speaking.hand_over(store(number, number, size=2000))
        held.let_go.set()
        sizes: list[int] = []
        while sum(sizes) < 32:
            sizes.append(len(speaking.next(Written).tickets))
        assert sizes == [1, 10, 10, 7, 2, 2]
    held.disk.close()


def test_event_loop_goes_on_while_the_journal_opens_writes_and_closes(tmp_path: Path) -> None:
    """Every sync hangs until the loop lets it go: were the loop to wait, nothing would go on."""
    held = Held(tmp_path)
    held.disk.fail = lambda operation: (
        None if operation[0] != "sync" or held.let_go.wait(20) else "the loop waited"
    )

    async def work() -> list[JournalEvent]:
        loop = asyncio.get_running_loop()
        events: list[JournalEvent] = []
        closed = asyncio.Event()

        def on_events(news: list[JournalEvent]) -> None:
            events.extend(news)
            if isinstance(news[-1], Closed):
                closed.set()

        def deliver(news: list[JournalEvent]) -> None:
            loop.call_soon_threadsafe(on_events, news)

        journal = SqliteJournal(
            tmp_path / "journal", deliver,
            node=NODE, files=held.files, options=SMALL,
        )  # fmt: skip
        journal.open()
        journal.write(Batch(1, (store(1, 10),)))
        journal.read(2, ReadRows(OUT))
        journal.close()
        await asyncio.sleep(0)
        assert not events
        held.let_go.set()
        await asyncio.wait_for(closed.wait(), 20)
        assert journal.join(20)
        return events

    kinds = [type(event) for event in asyncio.run(work())]
    assert kinds == [Opened, Written, Answered, Closed]
    held.disk.close()


def test_closing_writes_what_was_handed_over_and_takes_nothing_more(tmp_path: Path) -> None:
    speaking = Talk(tmp_path / "journal")
    speaking.open()
    for number in range(1, 301):
        speaking.hand_over(store(number, number))
    speaking.journal.close()
    with pytest.raises(ClosedError):
        speaking.hand_over(store(301, 301))
    with pytest.raises(ClosedError):
        speaking.journal.read(1, ReadRows(OUT))
    tickets: list[int] = []
    while isinstance(event := speaking.news.get(timeout=10), Written):
        tickets += event.tickets
    assert isinstance(event, Closed)
    assert tickets == list(range(1, 301))
    with talk(tmp_path / "journal") as (speaking, _):
        assert speaking.positions() == list(range(1, 301))


LITTLE = JournalOptions(
    journal_bytes_max=600 * KIB, reserve_bytes_min=64 * KIB, wal_bytes_max=32 * KIB,
    vacuum_bytes_min=16 * KIB,
)  # fmt: skip


def fill(speaking: Talk) -> int:
    """Write until there is no room; return the next number."""
    number = 1
    while True:
        try:
            speaking.write(store(number, number + 9, size=1000))
        except JournalFull:
            return number
        number += 10


def test_full_journal_refuses_what_grows_and_tells_of_room(tmp_path: Path) -> None:
    with talk(tmp_path / "journal", options=LITTLE) as (speaking, _):
        following = fill(speaking)
        assert 300 < following < 600
        assert 0 <= speaking.journal.room_bytes < 12_000
        assert (tmp_path / "journal").stat().st_size < 700 * KIB
        with pytest.raises(JournalFull):
            speaking.hand_over(store(following, following + 9, size=1000))
        speaking.hand_over(Forget(OUT, ((1, 30),)))  # always taken
        assert isinstance(speaking.news.get(timeout=10), Written)
        speaking.next(Room)
        speaking.write(store(following, following + 9, size=1000))
        assert speaking.positions() == list(range(31, following + 10))


def test_room_can_be_made_by_dropping_the_oldest(tmp_path: Path) -> None:
    with talk(tmp_path / "journal", options=LITTLE) as (speaking, _):
        following = fill(speaking)
        written = speaking.write(DropOldest(OUT, 20_000))
        (dropped,) = written.dropped
        stream, first, last = dropped
        assert (stream, first) == (OUT, 1)
        assert 15 < last < 25
        speaking.next(Room)
        assert speaking.journal.room_bytes > 12_000
        assert speaking.positions() == list(range(last + 1, following))


def test_space_is_given_back_when_there_is_time(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with talk(path) as (speaking, _):
        for first in range(1, 2000, 100):
            speaking.write(store(first, first + 99, size=1000))
        speaking.write(Forget(OUT, ((1, 1990),)))
        deadline = threading.Event()
        for _ in range(400):
            if path.stat().st_size < 200 * KIB:
                break
            deadline.wait(0.05)
        assert path.stat().st_size < 200 * KIB
        assert speaking.journal.statistics().used < 200 * KIB
        assert speaking.positions() == list(range(1991, 2001))


def test_log_is_kept_short(tmp_path: Path) -> None:
    with talk(tmp_path / "journal") as (speaking, _):
        for first in range(1, 3000, 10):
            speaking.write(store(first, first + 9, size=300))
        assert speaking.journal.statistics().checkpoints > 10
        assert (tmp_path / "journal-wal").stat().st_size < 4 * SMALL.wal_bytes_max


def test_log_is_made_longer_ahead_so_that_commits_only_fill_it(tmp_path: Path) -> None:
    options = JournalOptions(wal_bytes_max=MIB)
    log = tmp_path / "journal-wal"
    disk = FaultyDisk(tmp_path)
    with talk(tmp_path / "journal", FaultyFiles(tmp_path / "journal", disk), options) as (it, _):
        it.write(store(1, 1))
        it.rows()  # answered once what follows a commit is done
        assert log.stat().st_size == LAID_OUT_MIN
        for number in range(2, 12):
            it.write(store(number, number))
        assert log.stat().st_size == LAID_OUT_MIN
        assert disk.operations.count(("lengthen", log.name)) == 1
        it.write(store(100, 300, size=KIB))
        it.rows()
        beyond = log.stat().st_size
        assert 2 * LAID_OUT_MIN < beyond <= MIB
        it.write(store(1000, 2000, size=KIB))
        it.rows()
        assert it.journal.statistics().checkpoints == 1
        copied = {name: (tmp_path / name).read_bytes() for name in ("journal", log.name)}
    disk.close()
    (tmp_path / "copy").mkdir()
    for name, content in copied.items():
        (tmp_path / "copy" / name).write_bytes(content)
    with talk(tmp_path / "copy" / "journal") as (again, opened):  # as after a crash
        assert opened.rescue is None
        assert len(again.positions()) == 11 + 201 + 1001


def test_log_that_somebody_holds_back_is_not_synced_once_more_at_each_commit(
    tmp_path: Path,
) -> None:
    options = JournalOptions(wal_bytes_max=MIB)
    path, log = tmp_path / "journal", tmp_path / "journal-wal"
    disk = FaultyDisk(tmp_path)
    with talk(path, FaultyFiles(path, disk), options) as (it, _):
        it.write(store(1, 1))
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            it.write(store(1000, 2000, size=KIB))
            it.rows()
            assert log.stat().st_size > MIB
            before = disk.operations.count(("lengthen", log.name))
            for number in range(2, 12):
                it.write(store(number, number))
            it.rows()
            assert disk.operations.count(("lengthen", log.name)) == before
    disk.close()


def test_log_whose_space_was_given_back_is_made_longer_again(tmp_path: Path) -> None:
    log = tmp_path / "journal-wal"
    deadline = time.monotonic() + 10.0
    with talk(tmp_path / "journal", options=JournalOptions(vacuum_bytes_min=16 * KIB)) as (it, _):
        it.write(store(1, 500, size=KIB))
        it.write(Forget(OUT, ((1, 490),)))
        while log.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.02)  # it is given back once there is nothing else to do
        assert log.stat().st_size == 0
        it.write(store(501, 501))
        it.rows()
        assert log.stat().st_size == LAID_OUT_MIN


def test_log_is_not_made_longer_where_the_disk_has_no_space_for_that(tmp_path: Path) -> None:
    tried: list[int] = []

    def sync(descriptor: int) -> None:  # SQLite has its own
        tried.append(descriptor)
        raise OSError(errno.ENOSPC, "no space")

    with pytest.MonkeyPatch.context() as patch, talk(tmp_path / "journal") as (it, _):
        patch.setattr(os, "fdatasync", sync)
        for number in range(1, 4):
            it.write(store(number, number))
        assert it.positions() == [1, 2, 3]
        assert len(tried) == 1  # nor is it tried again at each commit


def test_position_that_is_taken_breaks_the_journal_and_harms_nothing(tmp_path: Path) -> None:
    speaking = Talk(tmp_path / "journal")
    speaking.open()
    speaking.write(store(1, 10))
    refused = speaking.refused(store(10, 10))
    assert isinstance(refused.error, JournalBroken)
    assert isinstance(speaking.broken().error, JournalBroken)
    assert speaking.positions() == list(range(1, 11))
    speaking.close()
    with talk(tmp_path / "journal") as (speaking, opened):
        assert opened.rescue is None
        assert speaking.positions() == list(range(1, 11))


@pytest.mark.parametrize("command", [Store(OUT, [(1, 2)]), "nonsense"])  # type: ignore[list-item]
def test_nonsense_is_refused_with_a_word(tmp_path: Path, command: object) -> None:
    speaking = Talk(tmp_path / "journal")
    speaking.open()
    speaking._tickets = 1
    try:
        batch = Batch(1, (command,))  # type: ignore[arg-type]
        speaking.journal.write(batch)
    except (AttributeError, TypeError):
        pass  # its size told already
    else:
        assert isinstance(speaking.news.get(timeout=10), Refused)
        assert isinstance(speaking.news.get(timeout=10), Broken)
    speaking.close()


def test_normal_synchronous_syncs_checkpoints_only(tmp_path: Path) -> None:
    disk = FaultyDisk(tmp_path)
    files = FaultyFiles(tmp_path / "journal", disk)
    speaking = Talk(tmp_path / "journal", files, synchronous="normal")
    speaking.open()
    disk.operations.clear()
    for number in range(1, 3):
        speaking.write(store(number, number), store(number, number, IN))
    assert {what for what, _ in disk.operations} == {"write"}
    for number in range(3, 300):
        speaking.write(store(number, number, size=1000))
    assert ("sync", "journal") in disk.operations
    assert ("claim", "journal.lock") in disk.operations  # what a checkpoint synced
    speaking.close()
    disk.close()
