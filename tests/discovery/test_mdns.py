"""mDNS for real, on loopback: records travel through UDP port 5353 of this machine, and no other.

Other programs may announce things there meanwhile, so every test has a mesh of its own.
"""

import asyncio
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

import pytest
from zeroconf.asyncio import AsyncServiceInfo, AsyncZeroconf

from tests.discovery.waiting import until
from tests.processes import Child, run
from zmesh.actions import Trace
from zmesh.discovery import responders
from zmesh.discovery.candidates import MDNS
from zmesh.discovery.mdns import LOOPBACK, MdnsSource
from zmesh.discovery.mesh_tag import mesh_tag
from zmesh.discovery.records import SERVICE
from zmesh.errors import InvalidOption
from zmesh.events import CandidateFound, CandidateGone, Event
from zmesh.ids import MeshTag, NodeId
from zmesh.options import DiscoveryOptions

OPTIONS = DiscoveryOptions()


class Ears:
    """One node's source, and what it told."""

    def __init__(
        self,
        mesh: MeshTag | list[MeshTag],
        name: str = "",
        options: DiscoveryOptions = OPTIONS,
        zeroconf: AsyncZeroconf | None = None,
        node: bytes | None = None,
    ) -> None:
        self.node = NodeId(node or secrets.token_bytes(16))
        self.events: list[tuple[float, Event]] = []
        self.traces: list[Trace] = []
        self.source = MdnsSource(
            tags=mesh if isinstance(mesh, list) else [mesh],
            node=self.node,
            name=name,
            on_events=self._hear,
            on_trace=self.traces.append,
            options=options,
            zeroconf=zeroconf,
        )

    def _hear(self, events: list[Event]) -> None:
        self.events += [(time.monotonic(), event) for event in events]

    def told_of(self, *nodes: NodeId) -> list[Event]:
        """Return what was told of these nodes: other tests' nodes are heard as well."""
        return [
            event
            for _, event in self.events
            if isinstance(event, CandidateFound | CandidateGone) and event.node in nodes
        ]

    def latest(self, node: NodeId) -> Event | None:
        return next(reversed(self.told_of(node)), None)

    def sees(self, node: NodeId) -> bool:
        return isinstance(self.latest(node), CandidateFound)

    async def saw(self, node: NodeId) -> CandidateFound:
        await until(lambda: self.sees(node))
        found = self.latest(node)
        assert isinstance(found, CandidateFound)
        return found


Starter = Callable[[Ears, list[str]], Awaitable[Ears]]


@pytest.fixture
async def mesh() -> MeshTag:
    return mesh_tag(f"test {secrets.token_hex(8)}")


@pytest.fixture
async def start() -> AsyncIterator[Starter]:
    """Starts sources, and stops them at the end."""
    started: list[Ears] = []

    async def starter(ears: Ears, endpoints: list[str]) -> Ears:
        await ears.source.start(endpoints)
        started.append(ears)
        return ears

    yield starter
    await asyncio.gather(*(ears.source.stop() for ears in started))
    assert not responders._responders.get(asyncio.get_running_loop())
    assert asyncio.all_tasks() == {asyncio.current_task()}


def process(mesh: str, node: NodeId, port: int) -> AbstractAsyncContextManager[Child]:
    """Run another process with a node."""
    arguments = (mesh, node.hex(), "other", str(port))
    return run("-m", "tests.discovery.mdns_node", *arguments, reads=True)


async def line(child: Child, *start: str) -> list[str]:
    """Return the next line of a process that starts like this."""
    async with asyncio.timeout(15.0):
        while True:
            words = (await child.line()).split()
            assert words, "the process ended"
            if words[: len(start)] == list(start):
                return words


async def test_nodes_of_one_process_see_each_other_and_not_themselves(
    mesh: MeshTag, start: Starter
) -> None:
    first = await start(Ears(mesh, "first"), ["tcp://127.0.0.1:5001", "tcp://[::1]:5001"])
    second = await start(Ears(mesh, "second"), ["tcp://127.0.0.1:5002"])
    assert await first.saw(second.node) == CandidateFound(
        MDNS, second.node, "second", ("tcp://127.0.0.1:5002",)
    )
    assert await second.saw(first.node) == CandidateFound(
        MDNS, first.node, "first", ("tcp://127.0.0.1:5001", "tcp://[::1]:5001")
    )
    assert first.latest(first.node) is None
    assert first.traces == second.traces == []


async def test_every_tag_is_accepted_and_the_first_announced(start: Starter) -> None:
    old, new = (mesh_tag(f"test {secrets.token_hex(8)}") for _ in range(2))
    both = await start(Ears([old, new]), ["tcp://127.0.0.1:5001"])
    before = await start(Ears(old), ["tcp://127.0.0.1:5002"])
    after = await start(Ears(new), ["tcp://127.0.0.1:5003"])
    await both.saw(before.node)
    await both.saw(after.node)
    await before.saw(both.node)
    await until(lambda: old.hex() in after.source.other_meshes)
    assert not after.sees(both.node)


async def test_new_tags_are_announced_and_what_was_heard_is_looked_at_again(
    start: Starter,
) -> None:
    old, new = (mesh_tag(f"test {secrets.token_hex(8)}") for _ in range(2))
    changing = await start(Ears(old), ["tcp://127.0.0.1:5001"])
    before = await start(Ears(old), ["tcp://127.0.0.1:5002"])
    after = await start(Ears(new), ["tcp://127.0.0.1:5003"])
    await before.saw(changing.node)
    await changing.saw(before.node)
    await until(lambda: new.hex() in changing.source.other_meshes)
    await changing.source.retag([new, old])
    await changing.saw(after.node)
    await after.saw(changing.node)
    await until(lambda: isinstance(before.latest(changing.node), CandidateGone))
    await changing.source.retag([new])
    await until(lambda: isinstance(changing.latest(before.node), CandidateGone))
    assert changing.sees(after.node)


async def test_nodes_of_one_loop_share_one_responder(mesh: MeshTag, start: Starter) -> None:
    for port in range(5001, 5006):
        await start(Ears(mesh), [f"tcp://127.0.0.1:{port}"])
    mine = responders._responders[asyncio.get_running_loop()]
    assert [responder.users for responder in mine] == [5]


async def test_processes_on_one_machine_see_each_other_through_loopback(start: Starter) -> None:
    name = secrets.token_hex(8)
    here = await start(Ears(mesh_tag(name), "here"), ["tcp://127.0.0.1:5001"])
    there, third = NodeId(secrets.token_bytes(16)), NodeId(secrets.token_bytes(16))
    async with process(name, there, 5002) as child, process(name, third, 5003) as another:
        found = await here.saw(there)
        assert found.endpoints == ("tcp://127.0.0.1:5002", "tcp://[::1]:5002")
        assert found.name == "other"
        # Who comes later is told of those already there, who announced themselves long ago.
        assert await line(child, "found", here.node.hex()) == [
            "found",
            here.node.hex(),
            "here",
            "tcp://127.0.0.1:5001",
        ]
        await line(another, "found", there.hex())
        child.end_of_input()
        await line(child, "stopped")
        assert await child.process.wait() == 0
        await until(lambda: not here.sees(there))  # it said goodbye
        await line(another, "gone", there.hex())
        assert here.sees(third)


async def test_a_killed_process_stays_listed_and_that_is_all(start: Starter) -> None:
    # Its records live on for more than an hour. They are a hint, and nothing here says alive.
    name = secrets.token_hex(8)
    here = await start(Ears(mesh_tag(name)), ["tcp://127.0.0.1:5001"])
    dead = NodeId(secrets.token_bytes(16))
    async with process(name, dead, 5002) as child:
        await here.saw(dead)
        child.process.kill()
        await child.process.wait()
        before = here.told_of(dead)
        late = await start(Ears(mesh_tag(name)), ["tcp://127.0.0.1:5003"])
        await here.saw(late.node)
        assert here.sees(dead)
        assert here.told_of(dead) == before


async def test_a_process_that_comes_back_at_another_port_is_seen_there(start: Starter) -> None:
    name = secrets.token_hex(8)
    here = await start(Ears(mesh_tag(name)), ["tcp://127.0.0.1:5001"])
    node = NodeId(secrets.token_bytes(16))
    async with process(name, node, 5002) as child:
        await here.saw(node)
        child.process.kill()
        await child.process.wait()
    async with process(name, node, 5003):
        await until(lambda: "tcp://127.0.0.1:5003" in _endpoints(here.latest(node)))
    assert "tcp://127.0.0.1:5002" not in _endpoints(here.latest(node))


def _endpoints(event: Event | None) -> tuple[str, ...]:
    return event.endpoints if isinstance(event, CandidateFound) else ()


async def test_a_node_is_seen_in_milliseconds_by_who_listens_already(
    mesh: MeshTag, start: Starter
) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    took = []
    for port in range(5002, 5007):
        began = time.monotonic()
        ears = await start(Ears(mesh), [f"tcp://127.0.0.1:{port}"])
        await here.saw(ears.node)
        took.append(next(at for at, event in here.events if _is(event, ears.node)) - began)
    assert min(took) < 0.1  # measured: 1 ms


def _is(event: Event, node: NodeId) -> bool:
    return isinstance(event, CandidateFound) and event.node == node


async def test_meshes_do_not_see_each_other_and_know_why(mesh: MeshTag, start: Starter) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    other = await start(Ears(mesh_tag("another")), ["tcp://127.0.0.1:5002"])
    await until(lambda: mesh_tag("another").hex() in here.source.other_meshes)
    await until(lambda: mesh.hex() in other.source.other_meshes)
    assert not here.sees(other.node)
    assert not other.sees(here.node)
    assert here.source.statistics().other_mesh >= 1


async def test_new_endpoints_are_announced(mesh: MeshTag, start: Starter) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    moving = await start(Ears(mesh, "moving"), ["tcp://127.0.0.1:5002"])
    await here.saw(moving.node)
    await moving.source.update(["tcp://127.0.0.1:5003", "tcp://[::1]:5003"])
    await until(
        lambda: (
            _endpoints(here.latest(moving.node)) == ("tcp://127.0.0.1:5003", "tcp://[::1]:5003")
        )
    )
    before = here.told_of(moving.node)
    await moving.source.update(["tcp://127.0.0.1:5003", "tcp://[::1]:5003"])  # nothing new
    await asyncio.sleep(0.1)
    assert here.told_of(moving.node) == before


async def test_a_node_that_listens_nowhere_is_not_announced_until_it_does(
    mesh: MeshTag, start: Starter
) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    offline = await start(Ears(mesh), [])
    await offline.saw(here.node)
    assert not here.sees(offline.node)
    await offline.source.update(["tcp://127.0.0.1:5002"])
    await here.saw(offline.node)
    await offline.source.update([])
    await until(lambda: not here.sees(offline.node))


async def test_a_node_that_starts_without_network_joins_when_it_comes(mesh: MeshTag) -> None:
    here, offline = Ears(mesh), Ears(mesh)
    await here.source.start(["tcp://127.0.0.1:5001"])
    await offline.source.start([], addresses=())
    assert offline.source.failure == ""
    await offline.source.update(["tcp://127.0.0.1:5002"], LOOPBACK)
    await here.saw(offline.node)
    await offline.saw(here.node)
    await here.source.stop()
    await offline.source.stop()


async def test_an_answer_that_crosses_a_goodbye_does_not_bring_the_node_back(
    mesh: MeshTag, start: Starter
) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as other:
        own = AsyncZeroconf(interfaces=list(LOOPBACK))
        leaving = Ears(mesh, zeroconf=own)
        await leaving.source.start(["tcp://127.0.0.1:5009"])
        await here.saw(leaving.node)
        await asyncio.sleep(OPTIONS.record_gap)
        stopping = asyncio.create_task(leaving.source.stop())
        await asyncio.sleep(0.1)  # the first goodbye is out; the last comes after 0.25 s
        info = raw(leaving.node, mesh)
        other.zeroconf.async_send(other.zeroconf.generate_service_broadcast(info, None))
        await stopping
        await own.async_close()  # else it might answer questions it had before
        await asyncio.sleep(1.5 * OPTIONS.record_gap)  # whatever waits to be looked at
        assert not here.sees(leaving.node)


async def test_nodes_that_share_a_responder_move_together(mesh: MeshTag) -> None:
    first, second, here = Ears(mesh), Ears(mesh), Ears(mesh)
    await here.source.start(["tcp://127.0.0.1:5001"])
    for ears, port in ((first, 5002), (second, 5003)):
        await ears.source.start([f"tcp://127.0.0.1:{port}"], addresses=())
    assert not here.told_of(first.node, second.node)
    await asyncio.gather(
        first.source.update(["tcp://127.0.0.1:5002"], LOOPBACK),
        second.source.update(["tcp://127.0.0.1:5003"], LOOPBACK),
    )
    for ears in (first, second):
        await here.saw(ears.node)
        await ears.saw(here.node)
    for ears in (first, second, here):
        await ears.source.stop()


async def test_the_applications_own_responder_is_used_and_left_open(mesh: MeshTag) -> None:
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        first, second = Ears(mesh, zeroconf=zeroconf), Ears(mesh)
        await first.source.start(["tcp://127.0.0.1:5001"])
        await second.source.start(["tcp://127.0.0.1:5002"])
        await first.source.update(["tcp://127.0.0.1:5001"], LOOPBACK)
        await first.saw(second.node)
        await second.saw(first.node)
        await first.source.stop()
        await second.source.stop()
        assert not zeroconf.zeroconf.done
        assert not zeroconf.zeroconf.registry.async_get_service_infos()


async def test_without_mdns_a_node_goes_on_and_tries_again_at_the_next_update(
    mesh: MeshTag, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def taken(_: object) -> responders.Responder:
        raise OSError("port 5353 is taken")

    ears, here = Ears(mesh), Ears(mesh)
    with monkeypatch.context() as broken:
        broken.setattr(responders, "acquire", taken)
        await ears.source.start(["tcp://127.0.0.1:5001"])
    assert ears.source.failure == "OSError: port 5353 is taken"
    assert [trace.name for trace in ears.traces] == ["mdns_unavailable"]
    await ears.source.update(["tcp://127.0.0.1:5001"], LOOPBACK)
    assert ears.source.failure == ""
    await here.source.start(["tcp://127.0.0.1:5002"])
    await here.saw(ears.node)
    await ears.source.stop()
    await here.source.stop()


async def test_an_address_that_is_not_this_machines_is_told_and_stopping_works(
    mesh: MeshTag,
) -> None:
    ears = Ears(mesh)
    for address in ("2001:db8::1", "192.0.2.77"):
        await ears.source.update(["tcp://127.0.0.1:5001"], [address])
        assert f"no interface has the address {address}" in ears.source.failure
    await ears.source.update(["tcp://127.0.0.1:5001"], LOOPBACK)
    assert ears.source.failure == ""
    await ears.source.update(["tcp://127.0.0.1:5001"], ["2001:db8::1"])
    assert ears.source.failure
    await ears.source.stop()


async def test_what_cannot_be_announced_is_refused_before_anything_starts(mesh: MeshTag) -> None:
    ears = Ears(mesh, "x" * 251)
    with pytest.raises(InvalidOption, match="250 bytes"):
        await ears.source.start(["tcp://127.0.0.1:5001"])
    await ears.source.stop()


def raw(node: bytes, mesh: MeshTag, port: int = 5009, **change: str | None) -> AsyncServiceInfo:
    """Return records as somebody else's code might announce them."""
    entries = {"txtvers": "1", "v": "1", "id": node.hex(), "mesh": mesh.hex(), **change}
    return AsyncServiceInfo(
        SERVICE,
        f"{node.hex()}.{SERVICE}",
        port=port,
        properties={key: value for key, value in entries.items() if value is not None},
        server=f"{node.hex()}.local.",
        parsed_addresses=["127.0.0.1"],
    )


async def test_records_that_are_not_ours_are_counted_and_nothing_else(
    mesh: MeshTag, start: Starter
) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        nodes = [secrets.token_bytes(16) for _ in range(3)]
        alien = AsyncServiceInfo(
            SERVICE, f"printer.{SERVICE}", port=1, server="printer.local.",
            parsed_addresses=["127.0.0.1"],
        )  # fmt: skip
        infos = [
            raw(nodes[0], mesh, v="2"),
            raw(nodes[1], mesh, id="0"),
            raw(nodes[2], mesh, txtvers=None),
            alien,
        ]
        for info in infos:
            await zeroconf.async_register_service(info, cooperating_responders=True)
        await until(lambda: here.source.statistics().malformed >= 3)
        await until(lambda: here.source.statistics().other_version >= 1)
        assert not any(here.sees(NodeId(node)) for node in nodes)


async def test_a_record_that_comes_in_pieces_is_completed(mesh: MeshTag, start: Starter) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    node = NodeId(secrets.token_bytes(16))
    info = raw(node, mesh)
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        # The responder answers questions about it, but only its name is announced.
        zeroconf.zeroconf.registry.async_add(info)
        await zeroconf.zeroconf.async_wait_for_start()
        out = zeroconf.zeroconf.generate_service_broadcast(info, None)
        out.answers = [answer for answer in out.answers if answer[0] == info.dns_pointer()]
        zeroconf.zeroconf.async_send(out)
        await here.saw(node)


async def test_a_record_that_is_never_complete_is_given_up(mesh: MeshTag) -> None:
    ears = Ears(mesh, options=replace(OPTIONS, resolving_timeout=0.05))
    await ears.source.start(["tcp://127.0.0.1:5001"])
    node = NodeId(secrets.token_bytes(16))
    info = raw(node, mesh)
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        await zeroconf.zeroconf.async_wait_for_start()
        out = zeroconf.zeroconf.generate_service_broadcast(info, None)
        out.answers = [answer for answer in out.answers if answer[0] == info.dns_pointer()]
        zeroconf.zeroconf.async_send(out)
        await until(lambda: ears.source.statistics().unresolved == 1)
    await ears.source.stop()
    assert not ears.told_of(node)


async def test_stopping_while_records_are_being_completed_leaves_nothing_behind(
    mesh: MeshTag, start: Starter
) -> None:
    here = await start(Ears(mesh), ["tcp://127.0.0.1:5001"])
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        await zeroconf.zeroconf.async_wait_for_start()
        for _ in range(OPTIONS.resolving_max + 4):
            info = raw(secrets.token_bytes(16), mesh)
            out = zeroconf.zeroconf.generate_service_broadcast(info, None)
            out.answers = [answer for answer in out.answers if answer[0] == info.dns_pointer()]
            zeroconf.zeroconf.async_send(out)
        await until(lambda: len(here.source._resolving) == OPTIONS.resolving_max)


async def test_a_clone_that_never_stops_talking_is_looked_at_slowly_and_told_once(
    mesh: MeshTag,
) -> None:
    options = replace(OPTIONS, records_loud=100)
    ears = Ears(mesh, options=options)
    await ears.source.start(["tcp://127.0.0.1:5001"])
    node = NodeId(secrets.token_bytes(16))
    async with AsyncZeroconf(interfaces=list(LOOPBACK)) as zeroconf:
        await zeroconf.zeroconf.async_wait_for_start()
        began = time.monotonic()
        for number in range(350):
            info = raw(node, mesh, port=6000 + number)
            zeroconf.zeroconf.async_send(zeroconf.zeroconf.generate_service_broadcast(info, None))
            await asyncio.sleep(0.001)
        await until(lambda: ears.source.statistics().heard >= 300)
        took = time.monotonic() - began
        assert len(ears.told_of(node)) <= 2 + took / options.record_gap
        await until(lambda: "tcp://127.0.0.1:6349" in _endpoints(ears.latest(node)))
    await ears.source.stop()
    assert [trace.name for trace in ears.traces] == ["mdns_loud"]


class Wire:
    """Counts what is sent on loopback to the mDNS group about our service."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind(("224.0.0.251", 5353))
        membership = struct.pack("4s4s", *map(socket.inet_aton, ("224.0.0.251", "127.0.0.1")))
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self._socket.setblocking(False)

    def packets(self, about: list[NodeId]) -> int:
        """Return how many packets told of these nodes since the last call."""
        names = [node.hex().encode() for node in about]
        count = 0
        while True:
            try:
                packet = self._socket.recv(9000)
            except BlockingIOError:
                return count
            is_response = bool(packet[2] & 0x80)  # other tests' questions list what they know
            count += is_response and any(name in packet for name in names)

    def close(self) -> None:
        self._socket.close()


async def test_fifty_nodes_cost_few_packets_to_start_and_none_to_be_there(
    mesh: MeshTag, start: Starter
) -> None:
    wire = Wire()
    try:
        async with asyncio.timeout(30):
            many = [Ears(mesh) for _ in range(50)]
            nodes = [ears.node for ears in many]
            for number, ears in enumerate(many):
                await start(ears, [f"tcp://127.0.0.1:{5001 + number}"])
            for ears in many:
                await until(partial(_has_found, ears, 49))
            await asyncio.sleep(1.5)
        # Every node announces itself three times, and then answers who asks, as other tests may.
        assert 150 <= wire.packets(nodes) <= 450
        await asyncio.sleep(1.5)
        assert wire.packets(nodes) <= 100  # measured: none
    finally:
        wire.close()


def _has_found(ears: Ears, count: int) -> bool:
    return (
        len({event.node for _, event in ears.events if isinstance(event, CandidateFound)}) == count
    )
