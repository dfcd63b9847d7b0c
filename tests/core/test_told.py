"""What a peer tells of itself: taken in piece by piece, in order, and no more than may wait."""

from typing import cast

from tests.engines import Host, World
from zmesh.actions import Action, PeerChanged, PeerView
from zmesh.core.peers import Peer, RemotePeer
from zmesh.core.told import ENTRIES_MAX, Told
from zmesh.core.turn import Turn
from zmesh.deadlines import Agenda
from zmesh.options import NodeOptions
from zmesh.patterns.interest import Entry
from zmesh.wire.frames import ControlNews, Drain, Interest

ADA, BOB = (cast("RemotePeer", name) for name in ("ada", "bob"))


class FakeTurn:
    """The time, and the agenda."""

    def __init__(self) -> None:
        self.now = 1.0
        self.agenda = Agenda()


class Listener:
    """Takes what is told, and counts the entries of each turn."""

    def __init__(self, waiting_max: int = 10_000, room: int = 10_000) -> None:
        self.turn = FakeTurn()
        self.left = room
        self.taken: list[tuple[RemotePeer, ControlNews]] = []
        self.pieces: list[int] = []
        self.told = Told(cast("Turn", self.turn), waiting_max, lambda _: self.left, self._take)

    def _take(self, peer: RemotePeer, records: list[ControlNews]) -> None:
        self.taken += [(peer, record) for record in records]
        interests = [record for record in records if isinstance(record, Interest)]
        self.pieces.append(sum(len(each.added) + len(each.removed) for each in interests))

    def hear(self, peer: RemotePeer, *records: ControlNews) -> None:
        self.told.on_control(peer, list(records))

    def turns(self) -> None:
        """Have all the turns that are wanted."""
        while self.told.deadline is not None:
            assert self.told.deadline > self.turn.now, "others have theirs between"
            assert self.turn.agenda.next == self.told.deadline
            self.turn.now = self.told.deadline
            self.told.on_timer()
            self.turn.agenda.put_off(self.turn.now)

    def entries(self, peer: RemotePeer) -> list[str]:
        """What was taken in of a peer's interests, those it took back with a minus."""
        said: list[str] = []
        for whose, record in self.taken:
            if whose is peer and isinstance(record, Interest):
                said += [f"-{text}" for _, text in record.removed]
                said += [text for _, text in record.added]
        return said


def added(count: int, first: int = 0) -> Interest:
    return Interest(tuple(("topic", f"t{first + n}") for n in range(count)), ())


def test_a_few_are_taken_in_at_once() -> None:
    listener = Listener()
    listener.hear(ADA, added(90), Drain())
    assert listener.taken == [(ADA, added(90)), (ADA, Drain())]
    assert listener.told.deadline is None


def test_many_are_taken_in_piece_by_piece_and_in_order() -> None:
    listener = Listener()
    both = Interest(added(500, 1000).added, added(300).added)
    listener.hear(ADA, added(1000), both, Drain())
    assert listener.pieces == []
    listener.hear(ADA, added(1, 5000))  # few, but others wait
    listener.turns()
    assert max(listener.pieces) <= ENTRIES_MAX
    told = [f"t{n}" for n in range(1000)] + [f"-t{n}" for n in range(300)]
    told += [f"t{1000 + n}" for n in range(500)] + ["t5000"]
    assert listener.entries(ADA) == told
    assert [record for _, record in listener.taken[-2:]] == [Drain(), added(1, 5000)]


def test_peers_take_turns() -> None:
    listener = Listener()
    listener.hear(ADA, added(300))
    listener.hear(BOB, added(300))
    listener.turns()
    assert [peer for peer, _ in listener.taken][:4] == [ADA, BOB, ADA, BOB]
    assert listener.entries(ADA) == listener.entries(BOB) == [f"t{n}" for n in range(300)]


def test_what_a_peer_may_not_have_costs_no_turns() -> None:
    listener = Listener(room=0)
    listener.hear(ADA, added(1000), added(1000))
    assert listener.pieces == [2000]
    assert listener.told.deadline is None


def test_where_too_much_waits_it_is_taken_in_at_once() -> None:
    listener = Listener(waiting_max=2000)
    listener.hear(ADA, added(1000))
    listener.hear(ADA, added(1001, 1000))
    assert listener.pieces == [2001]
    listener.turns()
    assert listener.entries(ADA) == [f"t{n}" for n in range(2001)]


def test_records_of_a_single_entry_count_for_more_than_that() -> None:
    listener = Listener()
    listener.hear(ADA, *(added(1, n) for n in range(100)))
    listener.turns()
    assert max(listener.pieces) <= 8
    assert listener.entries(ADA) == [f"t{n}" for n in range(100)]


def test_what_waits_is_forgotten_with_its_session() -> None:
    listener = Listener()
    listener.hear(ADA, added(1000))
    listener.told.forget(ADA)
    listener.turns()
    assert listener.taken == []


def found(host: Host, other: Host) -> RemotePeer:
    peer = host.engine._peers.get(other.id)
    assert peer is not None
    return peer


def test_a_node_takes_in_thousands_of_services_in_many_turns() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    interest = a.engine._news.interest
    pieces: list[int] = []
    take = interest.on_interest

    def spy(peer: Peer, told: Interest) -> tuple[list[Entry], bool]:
        if interest.room(peer) > 0:
            pieces.append(len(told.added))
        return take(peer, told)

    views: list[PeerView] = []

    def watch(action: Action) -> None:
        if isinstance(action, PeerChanged):
            views.append(action.peer)

    a.listeners.append(watch)
    interest.on_interest = spy  # type: ignore[method-assign, assignment]
    for first in range(0, 6000, 1000):
        entries = tuple(("service", f"s{first + n}") for n in range(1000))
        found(b, a).link.send_control(Interest(entries, ()))
    b.engine._turn.touched[found(b, a)] = None
    world.run(5.0)
    assert len(found(a, b).services) == NodeOptions().interest_max
    assert max(pieces) <= ENTRIES_MAX
    assert len(views[-1].services) == NodeOptions().interest_max
    assert len(views) < len(pieces)
    assert a.engine._defects.counts["interest"] >= 1


def test_records_without_entries_do_not_wait_without_end() -> None:
    listener = Listener(waiting_max=100)
    listener.hear(ADA, added(99))
    for _ in range(20):
        listener.hear(ADA, *[Drain()] * 10)
    assert len(listener.taken) >= 100
    assert listener.entries(ADA) == [f"t{n}" for n in range(99)]
    listener.turns()
    assert len(listener.taken) == 201
