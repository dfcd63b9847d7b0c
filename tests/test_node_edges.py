"""Edges between nodes on loopback: what they and their hubs see, and what an edge is told."""

import asyncio
from contextlib import AsyncExitStack

import pytest

import zmesh
from tests.processes import run
from zmesh import InvalidOption, Left, Node, NoMembers, NoProvider, PeersMissing, PeerUnknown

EDGES = "tests/integration/programs/edges.py"


def member(name: str, *known: Node, mesh: str = "edges", **options: object) -> Node:
    peers = [endpoint for node in known for endpoint in node.endpoints]
    return Node(name, mesh=mesh, key=(), mdns=False, peers=peers, **options)  # type: ignore[arg-type]


async def test_what_an_edge_and_its_hub_see_of_each_other() -> None:
    async with (
        member("hub") as hub,
        member("one", hub, role="edge") as one,
        member("two", hub, role="edge") as two,
    ):
        await hub.peers.wait_for(count=2, timeout=10)
        assert {peer.name: peer.role for peer in hub.peers} == {"one": "edge", "two": "edge"}
        [peer] = await one.peers.wait_for(count=1, timeout=10)
        assert (peer.name, peer.role) == ("hub", "hub")

        @one.service("lamp")
        def lamp(message: zmesh.Message) -> object:
            return message.body

        await hub.peers.wait_for(service="lamp", timeout=10)
        assert await hub.call("lamp", "on", timeout=10) == "on"
        assert [each.name for each in two.peers] == ["hub"]


async def test_an_edge_is_told_that_it_does_not_see_other_edges() -> None:
    async with (
        member("hub") as hub,
        member("one", hub, role="edge") as one,
        member("two", hub, role="edge") as two,
    ):

        @two.service("lamp")
        def lamp(_: zmesh.Message) -> None: ...

        await hub.peers.wait_for(service="lamp", timeout=10)
        await one.peers.wait_for(name="hub", timeout=10)
        with pytest.raises(PeerUnknown, match=r'role="edge".* nothing is forwarded') as unknown:
            await one.send("two", "hello")
        assert unknown.value.known == ("hub",)
        with pytest.raises(NoProvider, match=r'role="edge"'):
            await one.call("lamp")
        with pytest.raises(NoProvider, match=r'role="edge"'):
            async for _ in one.stream("lamp"):
                pass
        with pytest.raises(NoProvider, match=r'role="edge"'):
            async for _ in one.survey("lamp", timeout=1):
                pass
        with pytest.raises(NoMembers, match=r'role="edge"'):
            one.fan_out("lamps", "off")
        with pytest.raises(PeersMissing, match=r'role="edge"'):
            await one.peers.wait_for(name="two", timeout=0)
        with pytest.raises(PeerUnknown) as elsewhere:
            await hub.send("nobody", "hello")
        assert "role" not in str(elsewhere.value)


@pytest.mark.parametrize("role", ["peer", "Edge", None, 1])
def test_a_role_there_is_not_is_refused(role: object) -> None:
    with pytest.raises(InvalidOption, match='"hub" or "edge"') as refused:
        Node("a", role=role)  # type: ignore[arg-type]
    assert refused.value.option == "role"


async def test_two_edges_that_know_each_other_s_address_have_no_link_and_say_why() -> None:
    async with member("one", role="edge") as one, member("two", one, role="edge") as two:
        async with asyncio.timeout(10):
            while not two.statistics().engine.membership.edges:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)
        assert len(one.peers) == len(two.peers) == 0
        with pytest.raises(PeersMissing, match="edges answer, as this node is"):
            await two.peers.wait_for(name="one", timeout=0)


async def test_calls_of_an_edge_fail_over_to_another_hub() -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(member("first"))
        second = await stack.enter_async_context(member("second", first))
        edge = await stack.enter_async_context(member("edge", first, second, role="edge"))

        for hub in (first, second):

            @hub.service("who")
            def who(_: zmesh.Message, name: str = hub.name) -> str:
                return name

        await edge.peers.wait_for(service="who", count=2, timeout=10)
        watch = edge.peers.watch()
        await first.close()
        answers = [await edge.call("who", timeout=10) for _ in range(10)]
        assert set(answers) == {"second"}
        async with asyncio.timeout(10):
            async for event in watch:
                if isinstance(event, Left):
                    assert event.peer.name == "first"
                    break


@pytest.mark.parametrize("found_by", ["address", "mdns"])
async def test_edges_of_several_processes_link_with_all_hubs_and_with_no_edge(
    found_by: str,
) -> None:
    mesh = f"edges-{found_by}"
    async with AsyncExitStack() as stack:
        hubs: list[Node] = []
        for name in ("h1", "h2"):
            known = [endpoint for hub in hubs for endpoint in hub.endpoints]
            hub = Node(name, mesh=mesh, key=(), mdns=found_by == "mdns", peers=known)
            hubs.append(await stack.enter_async_context(hub))

            @hub.service("who")
            def who(_: zmesh.Message, name: str = name) -> str:
                return name

        # One address is enough: who answers there tells of the other hub.
        where = hubs[0].endpoints if found_by == "address" else []
        children = [
            await stack.enter_async_context(run(EDGES, prefix, "5", mesh, *where, reads=True))
            for prefix in ("a", "b")
        ]
        for hub in hubs:
            await hub.peers.wait_for(count=11, timeout=60)
        for child, prefix in zip(children, "ab", strict=True):
            await child.tell("2")
            for number in range(5):
                name, *seen, answer = (await child.line()).split()
                assert name == f"{prefix}{number}"
                assert seen == ["h1", "h2"]
                assert answer in seen
        await hubs.pop().close()
        for child in children:
            await child.tell("1")
            for _ in range(5):
                *_, answer = (await child.line()).split()
                assert answer == "h1"
