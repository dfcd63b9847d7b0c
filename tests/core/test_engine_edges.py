"""Edges: nodes that have links with hubs alone, and what they and their hubs see."""

import pytest

from tests.engines import Host, World, echo
from tests.patterns.test_shared_state import Sharer
from zmesh.actions import Dial, PeerState
from zmesh.errors import PeerUnknown
from zmesh.events import CandidateFound, CandidateGone
from zmesh.options import NodeOptions

SECURED = pytest.mark.parametrize("secured", [False, True])


def among(world: World, hubs: int, edges: int, options: NodeOptions | None = None) -> list[Host]:
    """Start hubs h1, h2, ... and edges e1, e2, ... that all hear of each other."""
    hosts = [world.host(f"h{number + 1}") for number in range(hubs)]
    hosts += [
        world.host(f"e{number + 1}", is_edge=True, options=options) for number in range(edges)
    ]
    for number, host in enumerate(hosts):
        for other in hosts[:number]:
            world.introduce(other, host)
    return hosts


def seen(host: Host) -> set[str]:
    return {view.name for view in host.engine.peers()}


def dialed(host: Host) -> set[str]:
    return {order.endpoint for order in host.actions if isinstance(order, Dial)}


@SECURED
def test_an_edge_links_with_every_hub_and_no_edge(secured: bool) -> None:
    world = World(secured=secured)
    h1, h2, e1, e2 = among(world, 2, 2)
    world.run(60.0)
    assert seen(h1) == {"h2", "e1", "e2"}
    assert seen(e1) == seen(e2) == {"h1", "h2"}
    assert {view.name: view.is_edge for view in h1.engine.peers()} == {
        "h2": False, "e1": True, "e2": True,
    }  # fmt: skip
    assert dialed(e1) == {h1.endpoint, h2.endpoint}
    assert not dialed(h1) & {e1.endpoint, e2.endpoint}, "edges dial"


def test_a_hub_with_many_edges_tells_nobody_of_them() -> None:
    world = World()
    h1 = world.host("h1")
    edges = [world.host(f"e{number}", is_edge=True) for number in range(8)]
    for edge in edges:
        edge.do(CandidateFound("static", None, "h1", (h1.endpoint,)))
    world.run(5.0)
    late = world.host("h2")
    late.do(CandidateFound("seed", None, "h1", (h1.endpoint,)))
    world.run(60.0)
    assert len(h1.engine.peers()) == 9
    assert dialed(late) == {h1.endpoint}


def test_edges_hear_of_further_hubs_from_those_they_know() -> None:
    world = World()
    h1, h2 = world.mesh("h1", "h2")
    e1 = world.host("e1", is_edge=True)
    e1.do(CandidateFound("seed", None, "h1", (h1.endpoint,)))
    world.run_until(lambda: seen(e1) == {"h1", "h2"})
    assert e1.sees(h2) is PeerState.ALIVE


@SECURED
def test_an_edge_that_was_written_down_is_left_by_an_edge_and_linked_by_a_hub(
    secured: bool,
) -> None:
    world = World(secured=secured)
    h1, e1, e2 = world.host("h1"), world.host("e1", is_edge=True), world.host("e2", is_edge=True)
    for host in (h1, e1):
        host.do(CandidateFound("static", None, "e2", (e2.endpoint,)))
    world.run(60.0)
    assert seen(h1) == {"e2"}
    assert seen(e2) == {"h1"}
    assert seen(e1) == set()
    membership = e1.engine.statistics().membership
    assert 2 <= membership.edges == membership.dials <= 9, "tried again, and rarely"


def test_an_edge_takes_no_hello_of_an_edge() -> None:
    world = World()
    e1, e2 = world.host("e1", is_edge=True), world.host("e2", is_edge=True)
    e2.is_edge = False  # its records lie, and what it says itself does not
    e2.engine._membership._is_edge = False  # it calls nevertheless
    e2.do(CandidateFound("static", None, "e1", (e1.endpoint,)))
    world.run(10.0)
    assert e1.engine.statistics().peers == 0


def test_who_becomes_a_hub_is_dialed_from_then_on() -> None:
    world = World()
    e1, e2 = among(world, 0, 2)
    world.run(5.0)
    assert not dialed(e1)
    e2.kill()
    e1.do(CandidateGone("mdns", e2.id))
    again = world.host("e2")
    world.introduce(e1, again)
    world.run_until(lambda: seen(e1) == {"e2"})
    assert not e1.engine.peers()[0].is_edge


def test_a_message_for_another_edge_has_nobody_to_go_to() -> None:
    world = World()
    _, e1, e2 = among(world, 1, 2)
    world.run(5.0)
    for name in ("e2", e2.id.hex()):
        with pytest.raises(PeerUnknown):
            e1.engine.resolve(name)


def test_interests_of_edges_are_seen_by_hubs_alone() -> None:
    world = World()
    h1, e1, e2 = among(world, 1, 2)
    e1.serve("resize")
    e1.subscribe(1, "news.*")
    world.run(5.0)
    [view] = [view for view in h1.engine.peers() if view.name == "e1"]
    assert view.services == {"resize"}
    ticket = e2.publish("news.today", "unheard")
    also = h1.publish("news.today", "heard")
    world.run(5.0)
    assert e1.heard == [("news.today", "heard")]
    assert e2.finished(ticket)
    assert ticket.accepted == 0
    assert also.accepted == 1


def test_calls_go_to_another_hub_when_one_is_lost() -> None:
    world = World()
    h1, h2, e1 = among(world, 2, 1)
    for hub in (h1, h2):
        hub.serve("resize", echo)
    world.run(5.0)
    h1.kill()
    calls = [e1.call("resize", str(number)) for number in range(20)]
    world.run(10.0)
    assert [e1.answers[call].failure for call in calls] == [None] * 20
    assert seen(e1) == {"h2"}


def test_edges_return_to_a_hub_that_comes_back() -> None:
    world = World()
    h1, *edges = among(world, 1, 8)
    world.run(5.0)
    h1.kill()
    world.run(20.0)
    assert [seen(edge) for edge in edges] == [set()] * 8
    again = world.host("h1")
    took = world.run_until(lambda: len(again.engine.peers()) == 8, seconds=60.0)
    assert took < NodeOptions().reconnect_max + 1.0
    assert not dialed(again)


def test_an_edge_has_links_with_as_many_hubs_as_it_may_and_replaces_those_it_loses() -> None:
    world = World()
    hosts = among(world, 3, 1, NodeOptions(hubs_max=1))
    hubs = {host.name: host for host in hosts[:3]}
    edge = hosts[3]
    world.run(30.0)
    [first] = seen(edge)
    hubs.pop(first).kill()
    world.run_until(lambda: bool(seen(edge) & set(hubs)))
    [second] = seen(edge)
    hubs.pop(second).kill()
    world.run_until(lambda: seen(edge) == set(hubs))


def test_hubs_that_were_written_down_need_no_place() -> None:
    world = World()
    h1, h2, edge = among(world, 2, 1, NodeOptions(hubs_max=1))
    h3 = world.host("h3")
    edge.do(CandidateFound("static", None, "h3", (h3.endpoint,)))
    world.run(30.0)
    assert "h3" in seen(edge)
    assert len(seen(edge) & {h1.name, h2.name}) == 1


def test_a_shared_map_passes_from_edge_to_edge_by_the_replica_of_a_hub() -> None:
    world = World(NodeOptions(shared_sync_every=2.0))
    sharers = [Sharer(host) for host in among(world, 1, 2)]
    for sharer in sharers:
        sharer.open()
    world.run(5.0)
    sharers[1].set("rate", "5")
    world.run_until(lambda: sharers[2].shown() == {"rate": "5"})
