"""Shared maps on a disk: what is on disk, when, and what comes back."""

import pytest

from tests.patterns.maps import entry, origin, state, tombstone
from tests.scribe import Scribe, entries_of
from zmesh.actions import TicketsStored
from zmesh.core.loopback import Loopback
from zmesh.core.peers import Peer, Peers
from zmesh.core.turn import Turn
from zmesh.ids import NodeId, SessionId
from zmesh.message import Ticket
from zmesh.options import LinkOptions, NodeOptions
from zmesh.patterns.shared_map import ReplicaMap
from zmesh.patterns.shared_replica import Replica
from zmesh.patterns.shared_saving import AGAIN_S, SharedSaving
from zmesh.storage import Entry, EntryKind
from zmesh.storage_errors import JournalFull, StorageError
from zmesh.testing.journal import Disk

NODE = NodeId(b"n" * 16)
LIFE = bytes(8)
FULL = JournalFull("path", 1, 1)
NOON = 1_700_000_000_000


class Bench:
    """The saving of one life of a node, whose journal answers when it is let."""

    def __init__(self, disk: Disk, options: NodeOptions | None = None) -> None:
        self.options = options or NodeOptions()
        self.journal = Scribe(disk, NODE)
        local = Peer(NODE, "n", Loopback(SessionId(bytes(16)), LinkOptions()))
        self.turn = Turn(Peers(local, self.options), LinkOptions(), 0.0, self.journal.opened)
        self.saving = SharedSaving(self.turn, self.options)
        for each in self.on_disk():
            self.saving.on_entry(each)
        self.told: list[tuple[Ticket, StorageError | None]] = []

    def on_disk(self) -> list[Entry]:
        return entries_of(self.journal.disk, EntryKind.SHARED)

    def open(self, name: str = "m") -> ReplicaMap:
        return self.saving.open(name)

    def wait(self, name: str = "m") -> Ticket:
        ticket = Ticket()
        self.saving.touch(name)
        self.saving.wait(name, ticket)
        return ticket

    def step(self) -> None:
        """Let the journal do what was ordered so far."""
        self.saving.flush()
        actions = self.turn.end()
        for action in actions:
            if isinstance(action, TicketsStored):
                self.told += [(ticket, action.error) for ticket in action.tickets]  # type: ignore[misc]
        self.journal.take(actions)
        for event in self.journal.work():
            self.turn.keeper.on_told(event)

    def run(self) -> None:
        for _ in range(5):
            self.step()

    def outcome(self, ticket: Ticket) -> object:
        [error] = [error for told, error in self.told if told is ticket]
        return error


@pytest.fixture
def bench() -> Bench:
    return Bench(Disk())


def again(bench: Bench) -> Bench:
    """Let the process die, and begin another life."""
    return Bench(bench.journal.disk, bench.options)


def test_entries_deletions_and_what_was_seen_come_back(bench: Bench) -> None:
    own = bench.open()
    own.write("mine", entry(7, "n"), 0.0)
    own.offer("theirs", entry(5, "b"), 0.0)
    own.offer("gone", tombstone(6, "b"), 0.0)
    own.note_seen(origin("b"), 6)
    ticket = bench.wait()
    bench.run()
    assert bench.outcome(ticket) is None
    before = state(own)
    later = again(bench)
    assert state(later.open()) == before
    later.wait()
    later.run()
    assert later.journal.batches == [], "what came from the disk is not written again"


def test_what_changes_together_is_one_batch_and_the_next_waits_for_it(bench: Bench) -> None:
    own = bench.open()
    own.write("a", entry(1), 0.0)
    own.write("b", entry(2), 0.0)
    first = bench.wait()
    bench.saving.flush()
    own.write("c", entry(3), 0.0)
    second = bench.wait()
    bench.saving.flush()
    bench.step()
    assert len(bench.journal.batches) == 1
    bench.step()
    assert [told for told, _ in bench.told] == [first]
    bench.run()
    assert len(bench.journal.batches) == 2
    assert bench.outcome(second) is None


def test_a_process_that_dies_between_batches_finds_the_map_as_it_was(bench: Bench) -> None:
    own = bench.open()
    own.write("a", entry(1), 0.0)
    bench.wait()
    bench.step()
    before = state(own)
    own.write("a", entry(2), 0.0)
    own.write("b", entry(3), 0.0)
    later = again(bench)
    assert state(later.open()) == before


def unsaved(bench: Bench) -> int:
    """Count the keys that are not on disk as they are in memory."""
    return sum(len(saved.keys) for saved in bench.saving._maps.values())


def test_what_is_refused_is_written_when_there_is_room(bench: Bench) -> None:
    own = bench.open()
    bench.journal.error = FULL
    own.write("a", entry(1), 0.0)
    ticket = bench.wait()
    bench.run()
    assert bench.outcome(ticket) is FULL
    assert (unsaved(bench), bench.on_disk()) == (1, [])
    bench.journal.error = None
    assert bench.saving.deadline == AGAIN_S
    bench.turn.begin(AGAIN_S)
    bench.saving.on_timer()
    bench.run()
    assert unsaved(bench) == 0
    assert len(bench.on_disk()) == 2


def test_a_deletion_that_is_forgotten_leaves_what_was_seen_of_it(bench: Bench) -> None:
    own = bench.open()
    own.offer("k", entry(1, "b"), 0.0)
    own.write("k", tombstone(2, "n"), 0.0)
    own.note_seen(origin("b"), 1)
    bench.wait()
    bench.run()
    own.expire(1.0)
    bench.wait()
    bench.run()
    later = again(bench)
    assert state(later.open()) == ({}, {origin("b"): 1, origin("n"): 2})
    later.open().offer("k", entry(1, "b"), 0.0)
    assert "k" not in later.open(), "who was away does not bring it back"


def test_an_origin_that_is_forgotten_leaves_the_disk() -> None:
    bench = Bench(Disk(), NodeOptions(shared_origins_max=2))
    own = bench.open()
    for letter in "abc":
        own.note_seen(origin(letter), 1)
        bench.wait()
        bench.run()
    later = again(bench)
    assert set(later.open().seen) == {origin("b"), origin("c")}


def test_a_forgotten_map_is_gone_and_not_written_again(bench: Bench) -> None:
    told: list[object] = []
    own = bench.open()
    bench.open("other").write("x", entry(1), 0.0)
    bench.wait("other")
    own.write("a", entry(1), 0.0)
    bench.wait()
    bench.run()
    own.write("b", entry(2), 0.0)
    waiting = bench.wait()
    bench.saving.forget("m", told.append)
    bench.run()
    assert told == [None]
    assert bench.outcome(waiting) is None
    assert {each.name for each in bench.on_disk()} == {"other"}
    assert "m" not in bench.saving
    assert state(bench.open()) == ({}, {})


def test_a_restored_replica_writes_above_all_it_holds_even_if_the_clock_went_back(
    bench: Bench,
) -> None:
    first = Replica("m", NODE, LIFE, bench.options, bench.open())
    first.write("k", 0, b"old", NOON, 0.0)
    first.write("gone", 0, b"x", NOON + 5, 0.0)
    first.write("gone", None, b"", NOON + 10, 0.0)
    bench.wait()
    bench.run()
    bench.open().expire(1.0)  # its stamp is in no entry any more
    bench.wait()
    bench.run()
    latest = first.written
    later = again(bench)
    second = Replica("m", NODE, b"another.", later.options, later.open())
    second.write("k", 0, b"new", NOON - 60_000, 0.0)
    assert second.written > latest
    found = second.map.get("k")
    assert found is not None
    assert found.value == b"new"
