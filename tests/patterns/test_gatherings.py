"""Groups and attributes that nodes tell each other, on a simulated network."""

from collections.abc import Mapping

from tests.engines import Host, World
from tests.patterns.gathering import join, leave
from zmesh.actions import PeerChange
from zmesh.events import Describe, EndpointsChanged
from zmesh.message import InterestKind
from zmesh.options import NodeOptions
from zmesh.wire.frames import Interest


def attributes(host: Host, of: Host) -> Mapping[str, str | int | float | bool]:
    return next(view.attributes for view in host.engine.peers() if view.id == of.id)


def test_groups_and_attributes_are_seen_by_peers_and_end_with_the_process() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    join(b)
    b.do(Describe({"room": 'room="kitchen"', "floor": "floor=2"}))
    world.run(0.1)
    [view] = a.engine.peers()
    assert view.groups == {"cameras"}
    assert view.attributes == {"room": "kitchen", "floor": 2}
    assert [member.name for member in a.engine.members("cameras")] == ["b"]
    b.kill()
    world.run(5.0)
    assert a.engine.members("cameras") == []
    again = world.host("b")
    world.introduce(a, again)
    world.run(3.0)
    assert attributes(a, again) == {}


def test_a_change_replaces_what_was_told_and_is_told_as_an_update() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Describe({"room": 'room="kitchen"', "floor": "floor=2"}))
    world.run(0.1)
    a.changes.clear()
    b.do(Describe({"room": 'room="cellar"', "floor": None, "never": None}))
    world.run(0.1)
    assert attributes(a, b) == {"room": "cellar"}
    assert (PeerChange.UPDATED, "b") in a.changes


def test_what_is_told_again_is_not_sent_again() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    b.do(Describe({"room": 'room="kitchen"'}))
    world.run(0.1)
    a.changes.clear()
    b.do(Describe({"room": 'room="kitchen"'}))
    world.run(0.1)
    assert attributes(a, b) == {"room": "kitchen"}
    assert a.changes == []


def test_who_joins_later_is_told_too() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    join(b)
    b.do(Describe({"room": 'room="kitchen"'}))
    c = world.host("c")
    for host in (a, b):
        world.introduce(host, c)
    world.run(3.0)
    assert attributes(c, b) == {"room": "kitchen"}
    assert [member.name for member in c.engine.members("cameras")] == ["b"]


def test_what_is_no_attribute_is_left_out_and_counted() -> None:
    world = World()
    a, b = world.mesh("a", "b")
    [peer] = [each for each in b.engine._peers if each.id == a.id]
    entries = ((InterestKind.ATTRIBUTE, "no attribute"), (InterestKind.ATTRIBUTE, "a=1"))
    peer.link.send_control(Interest(entries, ()))
    b.engine._turn.touched[peer] = None
    b.do(EndpointsChanged((b.endpoint,)))
    world.run(0.1)
    assert attributes(a, b) == {"a": 1}
    assert a.engine.statistics().defects.get("interest") == 1


def test_a_peer_cannot_tell_more_than_it_may() -> None:
    world = World(NodeOptions(interest_max=10))
    a, b = world.mesh("a", "b")
    b.do(Describe({f"k{number}": f"k{number}=1" for number in range(20)}))
    world.run(0.1)
    assert len(attributes(a, b)) == 10


def test_this_node_is_seen_as_its_peers_see_it() -> None:
    world = World()
    a, _ = world.mesh("a", "b")
    join(a)
    a.do(Describe({"room": 'room="kitchen"'}))
    world.run(0.1)
    [me] = a.engine.members("cameras")
    assert (me.id, me.name, me.endpoints) == (a.id, "a", (a.endpoint,))
    assert (me.incarnation, me.attributes) == (1, {"room": "kitchen"})
    leave(a)
    world.run(0.0)
    assert (a.engine.members("cameras"), a.engine.groups()) == ([], set())
