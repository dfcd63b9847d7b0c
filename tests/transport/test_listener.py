import asyncio
import socket
import struct
from typing import Any

import pytest
import zmq

from tests.transport.conftest import DialRaw, MakePeer, plain_and_curve
from tests.transport.peer import Peer, options, unused_endpoint
from zmesh.errors import InvalidOption
from zmesh.events import (
    InboundClosed,
    PathCause,
    PathFull,
    PathUp,
    PathWritable,
    ProbeAnswered,
)
from zmesh.ids import Path
from zmesh.options import WireLimits

MIB = 1 << 20


async def test_listens_on_every_host_with_a_port_each(peer: MakePeer) -> None:
    bob = peer(hosts=["127.0.0.1", "::1"])
    assert [endpoint.rpartition(":")[0] for endpoint in bob.endpoints] == [
        "tcp://127.0.0.1",
        "tcp://[::1]",
    ]
    for path, endpoint in enumerate(bob.endpoints, 1):
        alice = peer()
        alice.dial(path, endpoint)
        alice.send(path, [endpoint.encode()])
        [(inbound, [text])] = await bob.packets(1)
        assert text == endpoint.encode()
        bob.send(inbound, [b"back"])
        assert await alice.packets(1) == [(path, [b"back"])]


async def test_listens_on_the_port_it_is_given(peer: MakePeer) -> None:
    endpoint = unused_endpoint()
    bob = peer(port=int(endpoint.rpartition(":")[2]))
    assert bob.endpoints == (endpoint,)


async def refused(dialing: Peer, endpoint: str) -> None:
    """Wait until nobody listens there any more: libzmq unbinds in a thread of its own."""
    async with asyncio.timeout(5):
        for path in range(100, 1000):
            dialing.dial(path, endpoint)
            if await dialing.down(path) is PathCause.REFUSED:
                return


async def test_suspends_what_is_left_where_one_port_was_taken_meanwhile(peer: MakePeer) -> None:
    port = int(unused_endpoint().rpartition(":")[2])
    bob, alice = peer(hosts=["127.0.0.1", "127.0.0.2"], port=port), peer()
    first, second = bob.endpoints
    listener = bob.transport._listener
    assert listener.suspend()
    await refused(alice, first)
    await refused(alice, second)
    with socket.create_server(("127.0.0.1", port)):
        assert not listener.resume()
        assert listener.suspend()
        await refused(alice, second)
        assert not listener.suspend()
    assert listener.resume()


@plain_and_curve
async def test_listens_on_other_hosts_when_told_and_keeps_those_that_stay(peer: MakePeer) -> None:
    bob = peer(hosts=["127.0.0.1", "127.0.0.2"], port=int(unused_endpoint().rpartition(":")[2]))
    first, second = bob.endpoints
    stays, goes, comes = peer(), peer(), peer()
    inbound = await stays.linked(bob)
    goes.dial(1, second)
    await goes.next(PathUp)
    port = first.rpartition(":")[2]
    third = f"tcp://127.0.0.3:{port}"
    assert bob.transport.listen(["127.0.0.1", "127.0.0.3"]) == (first, third)
    await goes.down(1)
    await bob.next(InboundClosed)
    comes.dial(1, third)
    await comes.next(PathUp)
    await refused(comes, second)
    bob.send(inbound, [b"still here"])
    assert await stays.packets(1) == [(1, [b"still here"])]


async def test_host_that_cannot_be_listened_on_is_told_and_tried_again(peer: MakePeer) -> None:
    bob = peer()
    port = bob.endpoint.rpartition(":")[2]
    with socket.create_server(("127.0.0.2", int(port))):
        assert bob.transport.listen(["127.0.0.1", "127.0.0.2"]) == (bob.endpoint,)
    [trace] = bob.traces
    assert trace.name == "listening_failed"
    assert trace.fields["endpoint"] == f"tcp://127.0.0.2:{port}"
    both = (bob.endpoint, f"tcp://127.0.0.2:{port}")
    assert bob.transport.listen(["127.0.0.1", "127.0.0.2"]) == both


async def test_nowhere_is_a_place_to_listen_that_others_can_be_dialed_from(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    there = bob.endpoint
    assert bob.transport.listen([]) == ()
    await refused(alice, there)
    bob.dial(1, alice.endpoint)
    await bob.next(PathUp)
    assert bob.transport.listen(["127.0.0.1"]) == (there,)
    alice.dial(1000, there)
    while (await alice.next(PathUp)).path != 1000:
        pass


@pytest.mark.parametrize("host", ["192.0.2.1", "nonsense", "::2"])
async def test_a_host_that_is_not_of_this_machine_is_refused(host: str) -> None:
    with pytest.raises(InvalidOption, match=host):
        Peer(hosts=["127.0.0.1", host]).open()


async def test_a_port_that_is_taken_is_refused(peer: MakePeer) -> None:
    taken = peer().endpoint
    with pytest.raises(InvalidOption, match="in use"):
        Peer(port=int(taken.rpartition(":")[2])).open()


async def test_a_bind_that_fails_disturbs_nobody(peer: MakePeer) -> None:
    alice, bob, carol = peer(), peer(), peer()
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: defects.append(told))
    path = await alice.linked(bob)
    host, _, port = carol.endpoint.removeprefix("tcp://").partition(":")
    with pytest.raises(OSError, match="in use"):
        bob.transport._listener._bind(host, int(port))
    await asyncio.sleep(0.1)
    alice.dial(2, bob.endpoint)
    assert isinstance(await alice.next_of(PathUp), PathUp)
    bob.send(path, [b"still there"])
    assert await alice.packets(1) == [(1, [b"still there"])]
    assert defects == []


async def test_an_event_that_cannot_be_handled_does_not_take_others_along(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = peer(), peer()
    defects: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: defects.append(told))
    await alice.linked(bob)
    taken: list[int] = []
    listener, real = bob.transport._listener, bob.transport._listener.on_monitor

    def on_monitor(event: int, value: int, endpoint: str) -> bool:
        if not taken:
            taken.append(event)
            raise ValueError("no such endpoint")
        return real(event, value, endpoint)

    monkeypatch.setattr(listener, "on_monitor", on_monitor)
    event = struct.pack("=HI", zmq.EVENT_DISCONNECTED, 0)
    batch = [(listener.key, [event, b"tcp://127.0.0.1:1"])] * 2
    bob.transport._on_monitors(batch)  # type: ignore[arg-type]
    await bob.next(InboundClosed)
    assert [str(told["exception"]) for told in defects] == ["no such endpoint"]


async def test_sending_to_somebody_unknown_tells_so(peer: MakePeer) -> None:
    bob = peer()
    bob.send(b"nobody", [b"lost"])
    assert await bob.down(b"nobody") is PathCause.UNROUTABLE
    assert bob.transport.statistics().packets_unroutable == 1


@plain_and_curve
async def test_sending_to_somebody_who_left_tells_so(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    inbound = await alice.linked(bob)
    alice.transport.close()
    await bob.next(InboundClosed)
    bob.send(inbound, [b"lost"])
    async with asyncio.timeout(10):
        # libzmq may tell of the end before it takes the path away: a send in between is lost.
        while bob.transport.statistics().packets_unroutable == 0:
            await asyncio.sleep(0.001)
            bob.send(inbound, [b"lost"])
    assert await bob.down(inbound) is PathCause.UNROUTABLE


@plain_and_curve
async def test_a_peer_that_restarted_is_served_at_once(peer: MakePeer) -> None:
    bob = peer()
    for _ in range(5):
        alice = peer()
        inbound = await alice.linked(bob)
        bob.send(inbound, [b"welcome back"])
        assert await alice.packets(1) == [(1, [b"welcome back"])]
        alice.transport.close()


@plain_and_curve
async def test_many_connections_that_end_together_are_told_in_few_events(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    for path in range(1, 21):
        await alice.linked(bob, path)
    alice.transport.close()
    await bob.next(InboundClosed)
    assert len(await bob.idle()) < 20


@plain_and_curve
async def test_a_probe_does_not_look_like_a_peer_that_left(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    for _ in range(10):
        alice.probe(bob.endpoint, 1.0)
        assert (await alice.next(ProbeAnswered)).cause is None
    assert await bob.idle() == []
    await alice.linked(bob)
    alice.hang_up(1)
    await bob.next(InboundClosed)  # and does not hide one that did


@plain_and_curve
async def test_who_connects_and_says_nothing_is_thrown_out(peer: MakePeer) -> None:
    bob = peer(options=options(handshake_timeout=0.1))
    host, _, port = bob.endpoint.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=5) as silent:
        while await asyncio.to_thread(silent.recv, 100):
            pass  # its greeting, and then the end
    assert await bob.idle() == []


async def test_who_claims_the_routing_id_of_another_gets_nothing(
    peer: MakePeer, dial_raw: DialRaw
) -> None:
    alice, bob = peer(), peer()
    inbound = await alice.linked(bob)
    assert isinstance(inbound, bytes)
    thief = await dial_raw(bob.endpoint, inbound)
    thief.send(b"I am alice")
    bob.send(inbound, [b"secret"])
    assert await alice.packets(1) == [(1, [b"secret"])]
    thief.connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        await asyncio.to_thread(thief.receive)
    alice.send(1, [b"I am alice"])
    assert await bob.packets(1) == [(inbound, [b"I am alice"])]


@plain_and_curve
async def test_routing_ids_cannot_be_foretold(peer: MakePeer) -> None:
    # libzmq aborts the process when it gives an id that somebody has claimed.
    alice, bob, carol = peer(), peer(), peer()
    first, second = await alice.linked(bob, 1), await alice.linked(carol, 2)
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert first[0] == second[0] == 0  # given, not claimed
    distance = abs(int.from_bytes(first[1:], "big") - int.from_bytes(second[1:], "big"))
    assert distance > 1000


async def test_a_part_over_the_limit_ends_its_connection_and_no_other(
    peer: MakePeer, dial_raw: DialRaw
) -> None:
    bob = peer(limits=WireLimits(part_bytes_max=1000))
    alice = peer()
    inbound = await alice.linked(bob)
    hostile = await dial_raw(bob.endpoint)
    hostile.send(bytes(1001))
    assert await asyncio.to_thread(hostile.is_closed)
    alice.send(1, [bytes(1000)])
    assert await bob.packets(1) == [(inbound, [bytes(1000)])]


async def test_of_too_many_parts_just_too_many_are_delivered(
    peer: MakePeer, dial_raw: DialRaw
) -> None:
    bob = peer(limits=WireLimits(parts_max=8))
    hostile = await dial_raw(bob.endpoint)
    hostile.send(*[b"%d" % number for number in range(500)])
    hostile.send(b"next")
    packets = await bob.packets(2)
    assert packets[0][1] == [b"%d" % number for number in range(9)]
    assert packets[1][1] == [b"next"]
    assert bob.transport.statistics().bytes_received == 10 + 2 * 90 + 3 * 400 + 4


async def filled(peer: Peer, path: Path) -> PathFull:
    """Send until a path takes no more; the kernel's buffers take the first."""
    while not any(isinstance(event, PathFull) for event in peer.events):
        peer.send(path, [bytes(MIB)], [bytes(MIB)])
        assert peer.transport.statistics().packets_sent < 200
        await asyncio.sleep(0)
    return await peer.next(PathFull)


async def test_one_peer_that_reads_nothing_fills_its_own_path_only(
    peer: MakePeer, dial_raw: DialRaw
) -> None:
    bob = peer(options=options(send_queue_max=4, full_retry=0.02))
    alice = peer()
    healthy = await alice.linked(bob)
    raw = await dial_raw(bob.endpoint)
    raw.send(b"hello")
    [(stuck, _)] = await bob.packets(1)
    assert await filled(bob, stuck) == PathFull(stuck)

    bob.send(healthy, [b"unharmed"])
    assert await alice.packets(1) == [(1, [b"unharmed"])]

    assert await bob.next(PathWritable) == PathWritable(stuck)  # a guess: it is full but for what
    assert await filled(bob, stuck) == PathFull(stuck)  # the kernel took meanwhile
    for _ in range(bob.transport.statistics().packets_sent - 1):
        assert len(await asyncio.to_thread(raw.receive)) == MIB
    await bob.next(PathWritable)
    bob.send(stuck, [b"after"])
    assert await asyncio.to_thread(raw.receive) == b"after"
    assert bob.transport.statistics().packets_full >= 2
