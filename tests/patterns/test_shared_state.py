"""Shared maps of whole nodes on a simulated network: who is told what, and how they agree."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.engines import Host, World
from zmesh.actions import KeyChange, StateChanged, StateReady
from zmesh.errors import InvalidOption, MapFull, UsageError
from zmesh.events import CloseNode, DrainNode
from zmesh.map_events import CloseState, OpenState, WallClockRead, WriteState
from zmesh.message import Encoding
from zmesh.options import LinkOptions, NodeOptions

NOON = 1_700_000_000_000
DAY = 86_400_000
QUICK = NodeOptions(shared_sync_every=2.0, shared_deleted_for=5.0)


class Sharer:
    """The application of a host that shares maps; its wall clock is off by `skew` ms."""

    def __init__(self, host: Host, skew: int = 0) -> None:
        self.host = host
        self.skew = skew

    def wall(self) -> int:
        return NOON + round(self.host.world.queue.now * 1000) + self.skew

    def open(self, name: str = "m") -> None:
        self.host.do(OpenState(name, self.wall()))

    def set(self, key: str, value: str, name: str = "m") -> None:
        raw = int(Encoding.RAW)
        self.host.do(WriteState(name, key, raw, value.encode(), self.wall()))

    def delete(self, key: str, name: str = "m") -> None:
        self.host.do(WriteState(name, key, None, b"", self.wall()))

    def read_clock(self) -> None:
        self.host.do(WallClockRead(self.wall()))

    def shown(self, name: str = "m") -> dict[str, str] | None:
        own = self.host.engine.shared_state.map(name)
        if own is None:
            return None
        return {key: found.value.decode() for key in own if (found := own.get(key))}

    def changes(self, name: str = "m") -> list[KeyChange]:
        return [
            change
            for action in self.host.actions
            if isinstance(action, StateChanged) and action.name == name
            for change in action.changes
        ]

    def told(self, name: str = "m") -> list[tuple[str, str | None]]:
        return [
            (change.key, None if change.encoding is None else change.value.decode())
            for change in self.changes(name)
        ]

    @property
    def is_ready(self) -> bool:
        return StateReady("m") in self.host.actions


def sharers(world: World, *names: str) -> list[Sharer]:
    """Hosts that all hold a replica of the map "m"."""
    found = [Sharer(host) for host in world.mesh(*names)]
    for each in found:
        each.open()
    world.run(1.0)
    return found


def agree(*all_of_them: Sharer) -> Callable[[], bool]:
    return lambda: all(each.shown() == all_of_them[0].shown() for each in all_of_them)


def cut(world: World, one: Host, other: Host) -> None:
    world.part(one, other)


def heal(world: World, one: Host, other: Host) -> None:
    world.join(one, other)


# Telling


def test_what_one_sets_all_have() -> None:
    world = World()
    a, b, c = sharers(world, "a", "b", "c")
    a.set("rate", "5")
    b.set("limit", "7")
    world.run(0.1)
    assert a.shown() == b.shown() == c.shown() == {"rate": "5", "limit": "7"}
    assert sorted(c.told()) == [("limit", "7"), ("rate", "5")]
    by = {change.key: change.node for change in c.changes()}
    assert by == {"rate": a.host.id, "limit": b.host.id}


def test_own_changes_are_told_at_once_and_a_value_set_again_is_no_change() -> None:
    world = World()
    (a,) = sharers(world, "a")
    a.set("k", "1")
    a.set("k", "1")
    a.set("k", "2")
    a.delete("k")
    a.delete("other")
    world.run(0.01)
    assert a.told() == [("k", "1"), ("k", "2"), ("k", None)]
    assert [change.is_new for change in a.changes()] == [True, False, False]


def test_a_deleted_key_is_gone_everywhere() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    a.set("k", "1")
    world.run(0.1)
    b.delete("k")
    world.run(0.1)
    assert a.shown() == b.shown() == {}
    assert a.told() == [("k", "1"), ("k", None)]


def test_maps_of_other_names_and_nodes_without_the_map_hear_nothing() -> None:
    world = World()
    hosts = world.mesh("a", "b", "c")
    a, b, c = map(Sharer, hosts)
    a.open()
    b.open("other")
    world.run(0.5)
    before = c.host.engine.statistics().packets_received
    a.set("k", "1")
    world.run(0.5)
    assert b.shown("other") == {}
    assert b.shown() is None
    assert c.host.engine.statistics().packets_received == before


def test_many_writes_of_a_key_reach_a_slow_replica_as_the_last_one() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    cut(world, a.host, b.host)
    for number in range(1000):
        a.set("k", str(number))
        if number % 100 == 0:
            world.run(0.01)
    peer = a.host.engine.statistics()
    assert peer.queued_messages <= 1
    heal(world, a.host, b.host)
    world.run_until(agree(a, b))
    assert b.shown() == {"k": "999"}
    assert len(b.told()) <= 3


def test_changes_are_sent_in_pieces() -> None:
    world = World(NodeOptions(shared_piece_bytes=1000))
    a, b = sharers(world, "a", "b")
    for number in range(100):
        a.set(f"key-{number}", "x" * 36)
    world.run(0.5)
    assert b.shown() == a.shown()
    assert [key for key, _ in b.told()] == [f"key-{number}" for number in range(100)]


# Joining


def test_the_first_replica_is_ready_at_once_and_a_later_one_with_its_snapshot() -> None:
    world = World()
    hosts = world.mesh("a", "b")
    a, b = map(Sharer, hosts)
    a.open()
    world.run(0.001)
    assert a.is_ready
    for number in range(500):
        a.set(f"key-{number}", "x" * 100)
    world.run(0.5)
    b.open()
    world.run_until(lambda: b.is_ready)
    assert b.shown() == a.shown()
    assert len(b.shown() or ()) == 500
    assert {change.is_new for change in b.changes()} == {True}


def test_who_opens_as_soon_as_it_has_joined_waits_for_what_others_tell() -> None:
    world = World()
    a = Sharer(world.host("a"))
    a.open()
    a.set("k", "1")
    world.run(1.0)
    b = Sharer(world.host("b"))
    world.introduce(a.host, b.host)
    world.run_until(lambda: bool(b.host.engine.peers()))
    b.open()
    world.run(0.000_1)
    assert not b.is_ready
    world.run_until(lambda: b.is_ready)
    assert b.shown() == {"k": "1"}


def test_the_first_who_opens_just_after_it_joined_is_ready_soon() -> None:
    world = World()
    a, b = Sharer(world.host("a")), Sharer(world.host("b"))
    world.introduce(a.host, b.host)
    world.run_until(lambda: bool(a.host.engine.peers()))
    a.open()
    assert 0.2 < world.run_until(lambda: a.is_ready) < 0.3


def test_a_snapshot_of_one_who_waits_for_his_own_is_not_enough() -> None:
    world = World()
    a, b, c = map(Sharer, world.mesh("a", "b", "c"))
    a.open()
    a.set("k", "1")
    world.run(0.5)
    cut(world, a.host, b.host)
    b.open()
    world.run(0.1)
    assert not b.is_ready
    c.open()
    world.run(1.0)
    assert c.is_ready
    assert c.shown() == {"k": "1"}
    world.run_until(lambda: b.is_ready)


def test_opening_again_changes_nothing_and_closing_forgets() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    a.set("k", "1")
    a.open()
    world.run(0.1)
    assert a.shown() == {"k": "1"}
    a.host.do(CloseState("m"))
    a.host.do(CloseState("m"))
    world.run(0.1)
    assert a.shown() is None
    b.set("k", "2")
    a.set("k", "3")
    world.run(0.1)
    assert a.shown() is None
    a.open()
    world.run(0.5)
    assert a.shown() == {"k": "2"}


def test_what_was_written_just_before_closing_is_still_sent() -> None:
    world = World(NodeOptions(shared_piece_bytes=1000))
    a, b = sharers(world, "a", "b")
    for number in range(50):
        a.set(f"key-{number}", "x" * 100)
    a.host.do(CloseState("m"))
    world.run(0.5)
    assert len(b.shown() or ()) == 50


def test_a_drain_waits_until_peers_were_told() -> None:
    world = World(NodeOptions(shared_piece_bytes=1000))
    a, b = sharers(world, "a", "b")
    cut(world, a.host, b.host)
    for number in range(50):
        a.set(f"key-{number}", "x" * 100)
    world.run(0.1)
    assert a.host.engine.open_work()[0] > 0
    a.host.do(DrainNode(world.queue.now + 30.0))
    heal(world, a.host, b.host)
    world.run(5.0)
    assert a.host.engine.open_work() == (0, 0)
    a.host.do(CloseNode())
    world.run(1.0)
    assert len(b.shown() or ()) == 50


# Apart and together again


def test_replicas_agree_after_a_partition_by_sending_only_what_differs() -> None:
    world = World(NodeOptions(link=LinkOptions(session_linger=3.0)))
    a, b = sharers(world, "a", "b")
    for number in range(300):
        a.set(f"key-{number}", "x" * 50)
    world.run(1.0)
    cut(world, a.host, b.host)
    world.run(60.0)
    assert not a.host.engine.peers()
    a.set("key-1", "left")
    b.set("key-1", "right")
    b.set("key-2", "right")
    a.delete("key-3")
    world.run(1.0)
    sent = 0

    def count(_source: int, _target: int, packet: list[bytes]) -> None:
        nonlocal sent
        sent += sum(map(len, packet))

    heal(world, a.host, b.host)
    world.introduce(a.host, b.host)
    world.network.on_sent = count
    world.run_until(agree(a, b), 60.0)
    world.run(1.0)
    assert a.shown() == b.shown()
    assert (a.shown() or {})["key-1"] == "right"
    assert "key-3" not in (b.shown() or {})
    assert sent < 20_000, "a whole map of over 15 kB went each way"


def test_a_restarted_node_starts_empty_and_gets_everything_back() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    a.set("k", "1")
    b.set("l", "2")
    world.run(0.5)
    a.host.kill()
    world.run(1.0)
    again = Sharer(world.host("a"))
    again.open()
    world.introduce(again.host, b.host)
    world.run_until(lambda: again.shown() == {"k": "1", "l": "2"}, 30.0)
    again.set("k", "3")
    world.run(0.5)
    assert b.shown() == {"k": "3", "l": "2"}


def test_who_is_away_for_longer_than_deletions_are_remembered_brings_nothing_back() -> None:
    world = World(replace(QUICK, link=LinkOptions(session_linger=3.0)))
    a, b, c = sharers(world, "a", "b", "c")
    a.set("deleted", "1")
    a.set("kept", "1")
    world.run(5.0)
    for other in (a, b):
        cut(world, c.host, other.host)
    world.run(30.0)
    b.delete("deleted")
    c.set("alone", "1")
    world.run(30.0)
    own = a.host.engine.shared_state.map("m")
    assert own is not None
    assert own.tombstones == 0
    for other in (a, b):
        heal(world, c.host, other.host)
        world.introduce(c.host, other.host)
    world.run(20.0)
    assert a.shown() == b.shown() == c.shown() == {"kept": "1", "alone": "1"}
    assert ("deleted", None) in c.told()


@pytest.mark.parametrize("leave", [CloseNode(), CloseState("m")])
def test_a_change_that_a_writer_told_only_one_before_it_left_soon_reaches_all(
    leave: CloseNode | CloseState,
) -> None:
    world = World()
    a, b, c, d = sharers(world, "a", "b", "c", "d")
    for other in (c, d):
        cut(world, a.host, other.host)
    a.set("k", "1")
    world.run(0.1)
    assert (b.shown(), c.shown(), d.shown()) == ({"k": "1"}, {}, {})
    a.host.do(leave)
    for other in (c, d):
        heal(world, a.host, other.host)
    world.run(5.0)
    assert c.shown() == d.shown() == {"k": "1"}


def test_idle_replicas_only_compare_themselves_now_and_then() -> None:
    world = World()
    a, _ = sharers(world, "a", "b")
    a.set("k", "1")
    world.run(5.0)
    before = a.host.engine.statistics().shared_pulls
    world.run(120.0)
    assert a.host.engine.statistics().shared_pulls - before == 4
    assert a.host.engine.statistics().shared_bytes == 66


# Clocks


def test_entries_from_the_far_future_are_refused_counted_and_told() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    a.skew = DAY
    a.set("k", "from tomorrow")
    world.run(1.0)
    assert b.shown() == {}
    statistics = b.host.engine.statistics()
    assert statistics.shared_ahead >= 1
    assert statistics.defects["state from the future"] >= 1
    assert a.host.engine.statistics().defects["changes to a map refused"] == 1
    b.set("k", "from today")
    world.run(1.0)
    assert b.shown() == {"k": "from today"}


def test_a_clock_that_is_a_little_ahead_is_believed_and_the_next_writer_wins() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    a.skew = 60_000
    a.set("k", "1")
    world.run(0.1)
    b.set("k", "2")
    world.run(0.1)
    assert a.shown() == b.shown() == {"k": "2"}


def test_a_clock_put_right_stamps_anew_what_nobody_took() -> None:
    world = World(QUICK)
    a, b = sharers(world, "a", "b")
    a.skew = DAY
    a.set("k", "1")
    world.run(1.0)
    assert b.shown() == {}
    a.skew = 0
    a.read_clock()
    world.run(2.0)
    assert a.host.traces("state_clock_put_back")
    assert b.shown() == {"k": "1"}
    assert a.host.engine.statistics().shared_rewritten == 1
    b.set("k", "2")
    a.set("l", "3")
    world.run(0.1)
    assert a.shown() == b.shown() == {"k": "2", "l": "3"}


def test_what_a_dead_writer_stamped_too_far_ahead_is_taken_over_by_who_believed_it() -> None:
    world = World(QUICK)
    a, b, c = sharers(world, "a", "b", "c")
    a.skew = b.skew = DAY
    b.read_clock()
    a.set("k", "1")
    world.run(1.0)
    assert (b.shown(), c.shown()) == ({"k": "1"}, {})
    a.host.kill()
    b.skew = 0
    b.read_clock()
    world.run(4.0)
    assert c.shown() == {}
    world.run(8.0)
    assert b.shown() == c.shown() == {"k": "1"}
    assert b.host.engine.statistics().shared_rewritten == 1


def test_what_several_wrong_clocks_stamped_ends_as_its_last_writer_left_it() -> None:
    world = World(QUICK)
    a, b = sharers(world, "a", "b")
    a.skew = b.skew = DAY
    b.read_clock()
    a.set("k", "1")
    world.run(1.0)
    assert b.shown() == {"k": "1"}
    cut(world, a.host, b.host)
    a.delete("k")
    heal(world, a.host, b.host)
    a.skew = b.skew = 0
    a.read_clock()
    b.read_clock()
    world.run(15.0)
    assert a.shown() == b.shown() == {}


def test_a_clock_that_falls_back_wrongly_spoils_no_stamp() -> None:
    world = World(QUICK)
    a, b = sharers(world, "a", "b")
    a.set("k", "1")
    world.run(1.0)
    a.skew = -DAY
    a.read_clock()
    world.run(5.0)
    a.set("l", "2")
    world.run(1.0)
    assert a.host.engine.statistics().shared_rewritten == 0
    assert b.shown() == a.shown() == {"k": "1", "l": "2"}


def test_who_refused_everything_for_his_own_wrong_clock_gets_it_once_that_is_right() -> None:
    world = World(QUICK)
    a, b = map(Sharer, world.mesh("a", "b"))
    b.skew = -3 * DAY
    a.open()
    a.set("k", "1")
    b.open()
    world.run(1.0)
    assert b.shown() == {}
    b.skew = 0
    b.read_clock()
    world.run(5.0)
    assert b.shown() == {"k": "1"}


def test_the_clock_counts_on_between_two_readings() -> None:
    world = World()
    a, b = sharers(world, "a", "b")
    world.run(5000.0)
    a.set("k", "1")
    world.run(0.1)
    assert b.shown() == {"k": "1"}


# Bounds and bad input


def test_what_cannot_be_written_is_told_before() -> None:
    options = NodeOptions(shared_keys_max=2, shared_value_bytes_max=10, shared_maps_max=1)
    world = World(options)
    (a,) = sharers(world, "a")
    a.set("a", "1")
    a.set("b", "2")
    world.run(0.01)
    state = a.host.engine.shared_state
    state.check_write("m", "a", 10)
    with pytest.raises(InvalidOption, match="size of value"):
        state.check_write("m", "a", 11)
    with pytest.raises(MapFull, match="2 keys"):
        state.check_write("m", "c", 1)
    state.check_open("m")
    with pytest.raises(UsageError, match="shares 1 maps"):
        state.check_open("other")


def test_a_full_replica_refuses_counts_and_gets_the_rest_when_it_has_room() -> None:
    world = World(replace(QUICK, shared_keys_max=4))
    a, b = sharers(world, "a", "b")
    cut(world, a.host, b.host)
    for number in range(3):
        a.set(f"a{number}", "1")
        b.set(f"b{number}", "1")
    world.run(0.1)
    heal(world, a.host, b.host)
    world.run(5.0)
    assert len(a.shown() or ()) == len(b.shown() or ()) == 4
    assert a.host.engine.statistics().shared_full > 0
    for number in range(3):
        a.delete(f"a{number}")
    world.run(20.0)
    assert a.shown() == b.shown()
    assert set(a.shown() or ()) >= {"b0", "b1", "b2"}


def test_a_restart_in_the_middle_of_a_pull_leaves_nothing_behind() -> None:
    world = World(NodeOptions(shared_piece_bytes=500))
    a, b, c = map(Sharer, world.mesh("a", "b", "c"))
    a.open()
    c.open()
    for number in range(200):
        a.set(f"key-{number}", "x" * 100)
    world.run(1.0)
    b.open()
    world.run_until(lambda: len(b.shown() or ()) > 20)
    a.host.kill()
    world.run_until(lambda: b.is_ready)
    world.run_until(agree(b, c))


def test_who_is_asked_by_a_replica_that_has_more_asks_back() -> None:
    world = World()
    a, b, c = sharers(world, "a", "b", "c")
    cut(world, a.host, c.host)
    a.set("k", "1")
    world.run(0.1)
    a.host.kill()
    heal(world, a.host, c.host)
    world.run(10.0)
    assert (b.shown(), c.shown()) == ({"k": "1"}, {"k": "1"})
