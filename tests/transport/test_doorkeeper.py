"""Strangers at the door of a real transport: what they cost, and whom they disturb."""

import asyncio
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
import zmq

from tests.transport.conftest import MakePeer, plain_and_curve
from tests.transport.peer import Peer, curve_keys, endpoint_of, options, until
from tests.transport.zmtp import GREETING
from zmesh.actions import AuditKind
from zmesh.events import ProbeAnswered
from zmesh.options import WireLimits
from zmesh.transport.doorkeeper import _peer_of, _shut, _taken
from zmesh.transport.pump import Packets


class Crowd:
    """Connections that say nothing."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.members: list[socket.socket] = []

    async def come(self, peer: Peer, count: int, source: str = "127.7.0.2") -> None:
        port = int(peer.endpoint.rpartition(":")[2])
        for _ in range(count):
            connection = socket.create_connection(
                ("127.0.0.1", port), timeout=5, source_address=(source, 0)
            )
            self.members.append(self._stack.enter_context(connection))
            await asyncio.sleep(0)

    def left(self) -> int:
        """How many are still connected."""
        return sum(map(_is_connected, self.members))


def _is_connected(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(100):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    with ExitStack() as stack:
        yield Crowd(stack)


async def test_half_open_connections_of_one_address_are_bounded_and_disturb_nobody(
    peer: MakePeer, crowd: Crowd
) -> None:
    bounds = options(address_handshakes_max=5, handshake_timeout=30.0)
    alice, bob = peer(curve=curve_keys()), peer(curve=curve_keys(), options=bounds)
    inbound = await alice.linked(bob)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    await crowd.come(bob, 60)
    await until(lambda: crowd.left() == 5)
    await until(lambda: bob.transport.statistics().handshakes_refused == 55)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 60 + 2 * 5)  # noqa: PTH208
    bob.send(inbound, [b"undisturbed"])
    assert await alice.packets(1) == [(1, [b"undisturbed"])]
    await alice.linked(bob, 2)
    [event] = bob.audited
    assert (event.kind, event.endpoint) == (AuditKind.FLOODED, "127.7.0.2")
    assert event.rule == "address_handshakes_max"
    await until(lambda: bob.transport.statistics().handshakes == 2)
    assert bob.traces == []


@plain_and_curve
async def test_events_of_connections_take_turns_of_their_own_length(peer: MakePeer) -> None:
    bob = peer(options=options(turn_max=60.0, connections_turn_max=1e-9, handshake_timeout=30.0))
    ear = bob.transport._ear
    deliver, turns = ear._deliver, list[int]()

    def count(packets: Packets) -> None:
        turns.append(len(packets))
        deliver(packets)

    ear._deliver = count
    port = int(bob.endpoint.rpartition(":")[2])
    with ExitStack() as stack:
        for _ in range(100):  # all of them before the loop looks
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        await until(lambda: bob.transport.statistics().inbound_accepted == 100)
    assert max(turns) <= 16


async def test_half_open_connections_of_many_addresses_push_out_each_other(
    peer: MakePeer, crowd: Crowd
) -> None:
    bounds = options(handshakes_max=10, handshake_timeout=30.0)
    alice, bob = peer(curve=curve_keys()), peer(curve=curve_keys(), options=bounds)
    for number in range(2, 32):
        await crowd.come(bob, 2, f"127.7.0.{number}")
    await until(lambda: crowd.left() == 10)
    await alice.linked(bob)
    assert [_is_connected(each) for each in crowd.members[-5:]] == [True] * 5, "the oldest went"
    assert {event.rule for event in bob.audited} == {"handshakes_max"}


async def test_without_keys_all_handshakes_under_way_are_bounded(
    peer: MakePeer, crowd: Crowd
) -> None:
    alice, bob = peer(), peer(options=options(handshakes_max=10, handshake_timeout=30.0))
    inbound = await alice.linked(bob)
    await crowd.come(bob, 30)
    await until(lambda: crowd.left() == 10)
    bob.send(inbound, [b"undisturbed"])
    assert await alice.packets(1) == [(1, [b"undisturbed"])]
    crowd.members.pop().close()
    crowd.members.pop(0).close()
    await until(lambda: bob.transport._listener._doorkeeper.gate.under_way < 10)
    await alice.linked(bob, 2)


@plain_and_curve
async def test_who_connects_again_and_again_is_shut_out_until_it_slows_down(
    peer: MakePeer, crowd: Crowd
) -> None:
    bounds = options(address_handshakes_burst=10, address_handshakes_per_second=50.0)
    alice, bob = peer(), peer(options=bounds)
    for _ in range(40):
        await crowd.come(bob, 1)
        crowd.members.pop().close()
    await crowd.come(bob, 40)
    await until(lambda: bob.transport.statistics().handshakes_refused > 0)
    await alice.linked(bob)
    assert {event.rule for event in bob.audited} == {"address_handshakes_per_second"}


@plain_and_curve
async def test_probes_are_not_attacks(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    for _ in range(50):
        alice.probe(bob.endpoint, 5.0)
        assert await alice.next(ProbeAnswered) == ProbeAnswered(bob.endpoint, None)
    await until(lambda: bob.transport.statistics().handshakes_abandoned == 50)
    assert bob.transport.statistics().handshakes_refused == 0
    assert bob.audited == []
    assert bob.transport._listener._doorkeeper.gate.connections == 0
    await alice.linked(bob)


@plain_and_curve
async def test_connections_that_end_are_counted_no_more(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    gate = bob.transport._listener._doorkeeper.gate
    for path in range(1, 6):
        await alice.linked(bob, path)
        await until(lambda: (gate.connections, gate.under_way) == (1, 0))
        alice.hang_up(path)
        await until(lambda: gate.connections == 0)
    assert bob.transport.statistics().handshakes == 5


async def test_a_stranger_on_ipv6_is_known_by_its_address(peer: MakePeer) -> None:
    bob = peer(curve=curve_keys(), hosts=["::1"], options=options(address_handshakes_max=1))
    alice = peer(curve=curve_keys())
    for path in range(1, 4):
        await alice.linked(bob, path)
    strangers = bob.transport._listener._doorkeeper.gate._strangers
    assert strangers.keys() == {"::1"}
    assert strangers["::1"].under_way == 0
    assert strangers["::1"].admitted == 3


# A descriptor that libzmq closed may be anybody's by now


def test_what_is_no_connection_to_our_endpoint_is_left_alone() -> None:
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = server.getsockname()[1]
        one, other = socket.socketpair()
        client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        inbound = stack.enter_context(server.accept()[0])
        file = stack.enter_context(tempfile.TemporaryFile())
        for each in (one, other):
            stack.enter_context(each)
        elsewhere = f"tcp://127.0.0.1:{port % 65000 + 1}"
        here = f"tcp://127.0.0.1:{port}"
        for descriptor, listener in [
            (one.fileno(), here),
            (client.fileno(), here),  # it goes there, and did not come
            (file.fileno(), here),
            (inbound.fileno(), elsewhere),
            (inbound.fileno(), f"tcp://127.0.0.9:{port}"),
            (999_999, here),
        ]:
            assert _taken(descriptor, listener) is None
        one.send(b"still")
        assert other.recv(10) == b"still"
        client.send(b"there")
        assert inbound.recv(10) == b"there"
        for listener in (f"tcp://0.0.0.0:{port}", here):
            taken = _taken(inbound.fileno(), listener)
            assert taken is not None
            assert _peer_of(stack.enter_context(taken)) == "127.0.0.1"
        assert taken is not None
        _shut(taken, "192.0.2.1")  # somebody else came
        client.send(b"yes")
        assert inbound.recv(10) == b"yes"
        _shut(taken, "127.0.0.1")
        assert inbound.recv(10) == b""
        client.close()
        inbound.close()


@plain_and_curve
async def test_who_breaks_off_a_handshake_unannounced_is_not_counted_for_ever(
    peer: MakePeer,
) -> None:
    # Of a part too large libzmq tells no failure, only that a connection has ended.
    bob = peer(options=options(handshakes_max=3, address_handshakes_max=3))
    is_guarded = bob.transport._curve is not None
    port = int(bob.endpoint.rpartition(":")[2])
    mechanism = (b"CURVE" if is_guarded else b"NULL").ljust(20, b"\0")
    begin = GREETING.replace(b"NULL".ljust(20, b"\0"), mechanism)
    for number in range(1, 11):
        with socket.create_connection(
            ("127.0.0.1", port), timeout=5, source_address=("127.7.0.2", 0)
        ) as stranger:
            stranger.sendall(begin + b"\x02" + (1 << 30).to_bytes(8, "big"))
            await until(partial(has_ended, bob, number))
    assert bob.transport.statistics().handshakes_failed == (10 if is_guarded else 0)
    await peer().linked(bob)
    assert bob.transport.statistics().handshakes_refused == 0


def has_counted(peer: Peer, **counts: int) -> bool:
    told = peer.transport.statistics()
    return all(getattr(told, name) == count for name, count in counts.items())


def has_ended(peer: Peer, times: int) -> bool:
    told = peer.transport.statistics()
    return told.handshakes_failed + told.inbound_ended == times


@plain_and_curve
async def test_a_part_too_large_of_a_member_is_told_apart_from_a_connection_that_ended(
    peer: MakePeer,
) -> None:
    bob = peer(limits=WireLimits(part_bytes_max=1000))
    alice = peer()
    statistics = bob.transport.statistics
    for path in (1, 2):
        await alice.linked(bob, path)
        alice.hang_up(path)
        await until(partial(has_counted, bob, inbound_ended=path))
    assert statistics().inbound_broken == 0
    assert bob.audited == []
    await alice.linked(bob, 3)
    alice.send(3, [bytes(1001)])
    await until(lambda: statistics().inbound_ended == 3)
    assert (statistics().inbound_broken, statistics().handshakes_failed) == (1, 0)
    [event] = bob.audited
    assert (event.kind, event.rule) == (AuditKind.FLOODED, "part_bytes_max")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much came")
async def test_who_hangs_up_over_our_greeting_is_counted_as_one_without_a_key(
    peer: MakePeer,
) -> None:
    bob = peer(curve=curve_keys())
    endings = bob.transport._listener._doorkeeper.endings
    for sent, failed, abandoned in ((0, 0, 1), (12, 1, 1), (13, 1, 2), (11, 2, 2), (64, 3, 2)):
        with socket.create_connection(("127.0.0.1", int(bob.endpoint.rpartition(":")[2]))) as it:
            it.sendall(GREETING[:sent])
            if sent < len(GREETING):  # else libzmq itself has had enough of it
                await until(lambda: len(endings) == 1)
        counts = {"handshakes_failed": failed, "handshakes_abandoned": abandoned}
        await until(partial(has_counted, bob, **counts))
    assert len(endings) == 0


@plain_and_curve
async def test_no_more_connections_are_watched_than_may_be(peer: MakePeer, crowd: Crowd) -> None:
    bob = peer(options=options(watched_max=3, handshake_timeout=30.0))
    endings = bob.transport._listener._doorkeeper.endings
    await crowd.come(bob, 10)
    await until(lambda: bob.transport.statistics().inbound_accepted == 10)
    assert len(endings) == 3
    for connection in crowd.members:
        connection.close()
    await until(lambda: bob.transport.statistics().handshakes_abandoned == 10)
    assert len(endings) == 0


async def test_who_is_refused_pushes_out_nobody_who_is_watched(
    peer: MakePeer, crowd: Crowd
) -> None:
    bounds = options(watched_max=5, address_handshakes_max=3, handshake_timeout=30.0)
    bob = peer(curve=curve_keys(), options=bounds)
    endings = bob.transport._listener._doorkeeper.endings
    await crowd.come(bob, 3)
    await until(lambda: len(endings) == 3)
    watched = dict(endings._watched)
    await crowd.come(bob, 20)
    await until(lambda: bob.transport.statistics().handshakes_refused == 20)
    assert endings._watched == watched


@plain_and_curve
async def test_who_is_gone_before_anybody_looks_is_counted(peer: MakePeer) -> None:
    bob = peer()
    address = "127.0.0.1", int(bob.endpoint.rpartition(":")[2])
    linger = struct.pack("ii", 1, 0)
    for _ in range(50):  # the loop has no turn between: it looks when all have been reset
        with socket.create_connection(address) as it:
            it.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    await until(partial(has_counted, bob, inbound_accepted=50, inbound_unseen=50))
    with socket.create_connection(address):
        await until(partial(has_counted, bob, inbound_accepted=51))
    assert bob.transport.statistics().inbound_unseen == 50


async def test_who_has_the_descriptor_of_another_is_not_taken_for_it(peer: MakePeer) -> None:
    """Nobody told of the other's end: libzmq gives its descriptor to who comes next."""
    bounds = options(address_handshakes_max=1, handshake_timeout=30.0)
    bob = peer(curve=curve_keys(), options=bounds)
    doorkeeper = bob.transport._listener._doorkeeper
    with socket.create_server(("127.0.0.1", 0)) as server, ExitStack() as stack:
        listener = endpoint_of(server)

        def accepted() -> socket.socket:
            stack.enter_context(socket.create_connection(server.getsockname()))
            return stack.enter_context(server.accept()[0])

        other, first = accepted(), accepted()
        doorkeeper.on_monitor(zmq.EVENT_ACCEPTED, other.fileno(), listener)
        doorkeeper.endings.watch(first.fileno(), first.dup())
        doorkeeper.on_monitor(zmq.EVENT_ACCEPTED, first.fileno(), listener)  # is refused
        assert bob.transport.statistics().handshakes_refused == 1
        assert list(doorkeeper.endings._watched) == [other.fileno()]
