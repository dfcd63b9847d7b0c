import asyncio
import socket
from typing import Any

import pytest

from tests.transport.conftest import MakePeer, plain_and_curve
from tests.transport.peer import endpoint_of, options, unused_endpoint
from tests.transport.zmtp import RawPeer
from zmesh.errors import UsageError
from zmesh.events import (
    InboundClosed,
    PacketsReceived,
    PathCause,
    PathDown,
    PathFull,
    PathUp,
    PathWritable,
)
from zmesh.transport import dialer
from zmesh.transport.probes import Probes

MIB = 1 << 20


@plain_and_curve
async def test_dialed_path_is_up_after_the_handshake_and_carries_packets_both_ways(
    peer: MakePeer,
) -> None:
    alice, bob = peer(), peer()
    inbound = await alice.linked(bob)
    alice.send(1, [b"one"], [b"head", memoryview(b"xbodyx")[1:-1], b""])
    assert await bob.packets(2) == [(inbound, [b"one"]), (inbound, [b"head", b"body", b""])]
    bob.send(inbound, [b"back"], [b"a", b"b"])
    assert await alice.packets(2) == [(1, [b"back"]), (1, [b"a", b"b"])]


@plain_and_curve
async def test_ipv6_loopback_carries_packets(peer: MakePeer) -> None:
    alice, bob = peer(), peer(hosts=["::1"])
    assert bob.endpoint.startswith("tcp://[::1]:")
    inbound = await alice.linked(bob)
    bob.send(inbound, [b"back"])
    assert await alice.packets(1) == [(1, [b"back"])]


@plain_and_curve
async def test_two_paths_to_one_endpoint_are_two_connections(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    first, second = await alice.linked(bob, 1), await alice.linked(bob, 2)
    assert first != second
    alice.hang_up(1)
    bob.send(second, [b"still here"])
    assert await alice.packets(1) == [(2, [b"still here"])]


@plain_and_curve
async def test_dialing_where_nobody_listens_is_refused_at_once(peer: MakePeer) -> None:
    alice = peer(dial_timeout=60)
    alice.dial(1, unused_endpoint())
    assert await alice.down(1) is PathCause.REFUSED


async def test_dialing_a_black_hole_is_given_up_after_the_dial_timeout(peer: MakePeer) -> None:
    alice = peer(dial_timeout=0.2)
    with socket.socket() as server, socket.socket() as first, socket.socket() as second:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for filler in (first, second):  # with the backlog full the kernel drops what comes
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        alice.dial(1, endpoint_of(server))
        assert await alice.down(1) is PathCause.UNREACHABLE


@plain_and_curve
async def test_who_accepts_and_says_nothing_is_unreachable(peer: MakePeer) -> None:
    alice = peer(dial_timeout=0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        assert await alice.down(1) is PathCause.UNREACHABLE


@plain_and_curve
async def test_who_speaks_another_protocol_is_unreachable(peer: MakePeer) -> None:
    alice = peer(dial_timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        stranger, _ = await asyncio.to_thread(server.accept)
        with stranger:
            stranger.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" * 4)
        assert await alice.down(1) is PathCause.UNREACHABLE


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://example:1", "ipc:///run/x", "tcp://0.0.0.0:1", "tcp://127.0.0.1:2;127.0.0.1:1", ""],
)
async def test_what_is_no_address_to_dial_is_told_and_traced(
    peer: MakePeer, endpoint: str
) -> None:
    alice = peer()
    alice.dial(1, endpoint)
    assert await alice.down(1) is PathCause.UNREACHABLE
    [trace] = alice.traces
    assert trace.name == "dial_refused"
    assert trace.fields["endpoint"] == endpoint


async def test_an_address_without_route_is_unreachable(peer: MakePeer) -> None:
    alice = peer(dial_timeout=60)
    alice.dial(1, "tcp://[fe80::1%nosuch0]:5555")
    assert await alice.down(1) is PathCause.UNREACHABLE


@plain_and_curve
async def test_what_a_peer_sent_before_it_closed_arrives_before_the_path_is_down(
    peer: MakePeer,
) -> None:
    alice = peer()
    for path in range(1, 31):
        bob = peer()
        inbound = await alice.linked(bob, path)
        bob.send(inbound, *[[b"%d" % number] for number in range(20)], [b"bye"])
        bob.transport.close()
        assert await alice.down(path) is PathCause.CLOSED
        received = [
            parts[0]
            for event in alice.events
            if isinstance(event, PacketsReceived)
            for _, parts in event.packets
        ]
        assert received == [*(b"%d" % number for number in range(20)), b"bye"]
        alice.events.clear()


@plain_and_curve
async def test_what_is_sent_just_before_hanging_up_still_goes(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    for path in range(1, 31):
        inbound = await alice.linked(bob, path)
        alice.send(path, [b"bye"])
        alice.hang_up(path)
        assert await bob.packets(1) == [(inbound, [b"bye"])]


@plain_and_curve
async def test_hanging_up_is_told_to_the_peer_and_not_to_us(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    await alice.linked(bob)
    alice.hang_up(1)
    alice.hang_up(1)
    await bob.next(InboundClosed)
    assert await alice.idle() == []


async def test_hanging_up_a_dial_under_way_leaves_nothing(peer: MakePeer) -> None:
    alice, bob = peer(dial_timeout=0.1), peer()
    alice.dial(1, bob.endpoint)
    alice.hang_up(1)
    alice.dial(2, unused_endpoint())
    alice.hang_up(2)
    assert await alice.idle(0.3) == []


async def test_hanging_up_while_the_cause_is_sought_tells_nothing(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = peer()
    asked = asyncio.Event()
    start = Probes.start

    def start_late(*arguments: Any) -> None:
        asked.set()
        asyncio.get_running_loop().call_later(0.1, lambda: start(*arguments))

    monkeypatch.setattr(Probes, "start", start_late)
    alice.dial(1, unused_endpoint())
    await asked.wait()
    alice.send(1, [b"too early"])
    alice.hang_up(1)
    assert await alice.idle(0.3) == []


async def test_a_path_is_dialed_once(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    await alice.linked(bob)
    with pytest.raises(UsageError, match="path 1 is dialed already"):
        alice.dial(1, bob.endpoint)


async def test_a_path_that_ended_may_be_dialed_again(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    alice.dial(1, unused_endpoint())
    await alice.down(1)
    await alice.linked(bob, 1)


@plain_and_curve
async def test_sending_on_a_path_that_is_gone_tells_so(peer: MakePeer) -> None:
    alice = peer()
    alice.send(7, [b"lost"])
    assert await alice.down(7) is PathCause.UNROUTABLE
    assert alice.transport.statistics().packets_unroutable == 1


async def test_peer_that_reads_nothing_fills_the_path_which_is_writable_once_it_does(
    peer: MakePeer,
) -> None:
    alice = peer(options=options(send_queue_max=4))
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        connection, _ = await asyncio.to_thread(server.accept)
        raw = await asyncio.to_thread(RawPeer, connection, b"ROUTER")
        await alice.next(PathUp)
        packet = bytes(MIB)
        sent = 0
        while not alice.events:  # the kernel's buffers first, then four in the queue
            alice.send(1, [packet], [packet])
            sent += 2
            assert sent < 200
            await asyncio.sleep(0)
        alice.send(1, [b"refused as well"])
        assert await alice.next(PathFull) == PathFull(1)
        assert alice.events == []  # told once
        refused = alice.transport.statistics().packets_full
        assert refused == 2

        accepted = alice.transport.statistics().packets_sent
        for _ in range(accepted):
            assert len(await asyncio.to_thread(raw.receive)) == MIB
        assert await alice.next(PathWritable) == PathWritable(1)
        alice.send(1, [b"after"])
        assert await asyncio.to_thread(raw.receive) == b"after"
        raw.close()
        assert await alice.down(1) is PathCause.CLOSED


async def test_dialing_without_descriptors_is_told_and_traced(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = peer(), peer()
    monkeypatch.setattr(dialer, "descriptors_left", lambda at_most: at_most - 1)
    alice.dial(1, bob.endpoint)
    assert await alice.down(1) is PathCause.UNREACHABLE
    assert "descriptors" in str(alice.traces[0].fields["reason"])


async def test_more_dials_than_sockets_are_told_and_traced(peer: MakePeer) -> None:
    bob = peer()
    alice = peer(options=options(sockets_max=9))
    for path in range(1, 9):
        alice.dial(path, bob.endpoint)
    refused = await alice.next(PathDown)
    assert refused.cause is PathCause.UNREACHABLE
    assert "sockets_max" in str(alice.traces[0].fields["reason"])
    await alice.next(PathUp)  # those that got one live
    alice.transport.close()


@plain_and_curve
async def test_sockets_of_closed_paths_serve_again(peer: MakePeer) -> None:
    alice, bob = peer(options=options(sockets_max=9)), peer()
    for path in range(1, 31):  # ten times as many as there are at once
        await alice.linked(bob, path)
        alice.hang_up(path)
        await bob.next(InboundClosed)
