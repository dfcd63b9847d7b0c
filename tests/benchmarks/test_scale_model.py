"""The model of what a mesh says is held to real engines in simulated time, at small numbers."""

import pytest

from benchmarks.scale_model import HANDSHAKE_PACKETS, Mesh, table, traffic
from tests.engines import World
from tests.processes import ROOT
from zmesh.events import CandidateFound, Serve
from zmesh.options import NodeOptions

MESHES = pytest.mark.parametrize(("nodes", "hubs"), [(2, 2), (5, 5), (6, 2), (9, 1)])


def mesh_of(nodes: int, hubs: int) -> World:
    """Nodes that heard of each other a moment ago."""
    world = World()
    hosts = [world.host(f"n{number}", is_edge=number >= hubs) for number in range(nodes)]
    for number, host in enumerate(hosts):
        for other in hosts[:number]:
            world.introduce(other, host)
    return world


def packets(world: World) -> int:
    return sum(host.engine.statistics().packets_received for host in world.hosts.values())


def packets_in(world: World, seconds: float) -> int:
    before = packets(world)
    world.run(seconds)
    return packets(world) - before


@MESHES
def test_links_and_heartbeats_are_those_of_engines(nodes: int, hubs: int) -> None:
    world, model = mesh_of(nodes, hubs), traffic(Mesh(nodes, hubs, mdns=False))
    world.run(120.0)
    seen = [len(host.engine.peers()) for host in world.hosts.values()]
    assert sum(seen) == 2 * model.links
    assert max(seen) == model.links_of_hub
    assert packets_in(world, 800.0) == pytest.approx(800.0 * model.heartbeats, rel=0.02)


@MESHES
def test_a_link_is_made_with_as_many_packets_as_engines_take(nodes: int, hubs: int) -> None:
    world = mesh_of(nodes, hubs)
    assert packets_in(world, 1.0) == pytest.approx(HANDSHAKE_PACKETS * Mesh(nodes, hubs).links)


@MESHES
def test_changes_of_interest_cost_what_engines_say(nodes: int, hubs: int) -> None:
    world = mesh_of(nodes, hubs)
    world.run(120.0)
    idle, changes = packets_in(world, 20.0 * 40), 40
    busy = 0
    for number in range(changes):
        for host in list(world.hosts.values())[:1]:
            host.do(Serve(f"s{number}"))
        busy += packets_in(world, 20.0)
    told = traffic(Mesh(nodes, hubs, interest_changes_per_hour=3600.0)).interest
    links = Mesh(nodes, hubs).links
    of_hub = told / (2 * links) * (nodes - 1)  # a change of one hub
    assert (busy - idle) / changes == pytest.approx(of_hub, rel=0.3)


def test_seeds_are_asked_as_often_as_engines_ask() -> None:
    worlds = [World(), World()]
    for world, source in zip(worlds, ("static", "seed"), strict=True):
        hub = world.host("hub")
        for number in range(4):
            edge = world.host(f"e{number}", is_edge=True)
            edge.do(CandidateFound(source, None, "hub", (hub.endpoint,)))
        world.run(200.0)
    plain, asking = (packets_in(world, 3000.0) for world in worlds)
    model = traffic(Mesh(5, 1, has_seeds=True)).asks * 4 / 5  # the hub has no seed
    # An answer is a sign of life as well, and saves some heartbeats.
    assert 0.4 * 3000.0 * model < asking - plain <= 3000.0 * model * 1.1


def test_mdns_asks_as_often_as_its_options_say_and_tells_all_it_knows() -> None:
    options = NodeOptions().discovery
    quiet = [traffic(Mesh(nodes, nodes, restarts_per_hour=0.0)) for nodes in (1, 10, 1000)]
    assert quiet[0].mdns_datagrams == pytest.approx(1 / options.ask_every)
    assert quiet[1].mdns_datagrams == pytest.approx(10 / options.ask_every_max)
    assert quiet[2].mdns_datagrams == pytest.approx(35 / options.ask_gap)
    assert traffic(Mesh(10, 10, mdns=False)).mdns_datagrams == 0.0


def test_a_full_mesh_grows_with_the_square_and_one_with_hubs_does_not() -> None:
    few, many = (traffic(Mesh(nodes, 3)) for nodes in (1_000, 10_000))
    assert many.heartbeats / few.heartbeats == pytest.approx(10, rel=0.01)
    few, many = (traffic(Mesh(nodes, nodes)) for nodes in (1_000, 10_000))
    assert many.heartbeats / few.heartbeats == pytest.approx(100, rel=0.01)


def test_the_page_has_the_curve_as_it_is() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert table() in page
