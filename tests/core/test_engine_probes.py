"""Probes of a silent peer: where to look for it, and what an answer from elsewhere is worth."""

from tests.engines import Host, World
from zmesh.actions import PeerState, Probe
from zmesh.events import CandidateFound, EndpointsChanged

PORT = 5555  # the same for all, as where it was written down


def host_on_a_lan(world: World, name: str, number: int) -> Host:
    """Start a host that listens on a network, and on a loopback of its own."""
    host = world.host(name)
    address = f"tcp://192.0.2.{number}:{PORT}"
    world.network.listen(host, address)
    host.do(EndpointsChanged((address, f"tcp://127.0.0.1:{PORT}")))
    return host


def joined(world: World, a: Host, b: Host, number: int) -> None:
    a.do(CandidateFound("static", None, "b", (f"tcp://192.0.2.{number}:{PORT}",)))
    world.run_until(lambda: a.sees(b) is b.sees(a) is PeerState.ALIVE)


def cut(world: World, one: Host, other: Host) -> None:
    world.part(one, other)


def probed(host: Host) -> set[str]:
    return {probe.endpoint for probe in host.ordered(Probe) if isinstance(probe, Probe)}


def test_a_peer_out_of_reach_is_lost_though_we_listen_on_the_same_port_of_our_loopback() -> None:
    world = World()
    a, b = host_on_a_lan(world, "a", 1), host_on_a_lan(world, "b", 2)
    world.network.listen(a, f"tcp://127.0.0.1:{PORT}")
    joined(world, a, b, 2)
    cut(world, a, b)
    world.run_until(lambda: a.sees(b) is None, seconds=20.0)
    assert probed(a) == {f"tcp://192.0.2.2:{PORT}"}


def test_a_killed_peer_is_lost_at_once_though_its_link_local_address_leads_nowhere() -> None:
    world = World()
    a, b = host_on_a_lan(world, "a", 1), host_on_a_lan(world, "b", 2)
    link_local = f"tcp://[fe80::2%eth7]:{PORT}"
    world.network.listen(b, link_local)
    b.do(EndpointsChanged((link_local, f"tcp://192.0.2.2:{PORT}")))
    joined(world, a, b, 2)
    b.kill()
    assert world.run_until(lambda: a.sees(b) is None) < 0.5
    assert probed(a) == {f"tcp://192.0.2.2:{PORT}"}


def test_an_endpoint_that_is_none_is_not_probed() -> None:
    world = World()
    a, b = host_on_a_lan(world, "a", 1), host_on_a_lan(world, "b", 2)
    b.do(EndpointsChanged((f"tcp://192.0.2.2:{PORT}", "tcp://nowhere:x")))
    joined(world, a, b, 2)
    b.kill()
    world.run_until(lambda: a.sees(b) is None)
    assert probed(a) == {f"tcp://192.0.2.2:{PORT}"}


def test_a_node_that_only_dials_out_is_not_gone_where_its_loopback_is_refused_here() -> None:
    world = World()
    a, b = host_on_a_lan(world, "a", 1), world.host("b")
    there = "tcp://127.0.0.1:7777"  # on its own machine; nobody listens there on ours
    b.do(
        EndpointsChanged((there,)),
        CandidateFound("static", None, "a", (f"tcp://192.0.2.1:{PORT}",)),
    )
    world.run_until(lambda: a.sees(b) is PeerState.ALIVE)
    ticket = a.post(b, *map(str, range(10)))
    cut(world, a, b)
    world.run_until(lambda: a.sees(b) is None, seconds=20.0)
    world.run(5.0)
    world.join(a, b)
    world.run_until(lambda: a.finished(ticket), seconds=40.0)
    assert (ticket.accepted, b.inbox) == (10, [str(number) for number in range(10)])


def test_a_neighbour_on_loopback_alone_is_lost_at_once_when_it_is_killed() -> None:
    world = World()
    a, b = host_on_a_lan(world, "a", 1), world.host("b")
    b.do(CandidateFound("static", None, "a", (f"tcp://192.0.2.1:{PORT}",)))
    world.run_until(lambda: a.sees(b) is PeerState.ALIVE)
    world.run(1.0)
    b.kill()
    assert world.run_until(lambda: a.sees(b) is None) < 0.5
