"""Transports that speak CURVE: who gets in, who does not, and what each side learns of it."""

import asyncio
import errno
import socket
import time
from contextlib import closing
from typing import Never

import pytest
import zmq
from zmq.utils import z85

from tests.transport.conftest import MakePeer
from tests.transport.lab import Lab, Socket, nothing_comes
from tests.transport.peer import (
    Peer,
    curve_keys,
    endpoint_of,
    options,
    server_pair,
    until,
    unused_endpoint,
)
from zmesh.actions import AuditKind
from zmesh.errors import UsageError
from zmesh.events import InboundClosed, PathCause, PathDown, PathUp, ProbeAnswered
from zmesh.ids import CONNECTION_KEY_BYTES
from zmesh.security.mesh_key import CurvePair
from zmesh.transport import listener
from zmesh.transport.curve import CurveKeys


def stranger(
    lab: Lab, endpoint: str, seed: int, pair: CurvePair, routing_id: bytes = b""
) -> Socket:
    """A DEALER that dials with these keys, and claims a routing id."""
    made = lab.socket(zmq.DEALER)
    made.set(zmq.CURVE_SERVERKEY, z85.encode(server_pair(seed).public))
    made.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
    made.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
    if routing_id:
        made.set(zmq.ROUTING_ID, routing_id)
    made.connect(endpoint)
    return made


async def until_told(peer: Peer, kind: AuditKind) -> str:
    """Wait until the only audit event so far has come; return its detail."""
    await until(lambda: bool(peer.audited))
    [event] = peer.audited
    assert event.kind is kind
    return event.detail


# Paths


async def test_an_inbound_path_is_the_routing_id_and_the_key_of_the_connection(
    peer: MakePeer,
) -> None:
    keys = curve_keys()
    alice, bob = peer(curve=keys), peer(curve=curve_keys())
    first = await alice.linked(bob, 1)
    second = await alice.linked(bob, 2)
    assert isinstance(first, bytes)
    assert isinstance(second, bytes)
    assert first != second
    assert first[-CONNECTION_KEY_BYTES:] == second[-CONNECTION_KEY_BYTES:]
    assert first[-CONNECTION_KEY_BYTES:] == keys.connection.public
    assert len(first) == 5 + CONNECTION_KEY_BYTES
    bob.send(second, [b"to the second", b"in two parts"])
    assert await alice.packets(1) == [(2, [b"to the second", b"in two parts"])]
    alice.send(1, [b"one", b"two", b"three"])
    assert await bob.packets(1) == [(first, [b"one", b"two", b"three"])]


async def test_who_takes_over_a_routing_id_is_another_path_and_gets_nothing(
    peer: MakePeer, lab: Lab
) -> None:
    alice, bob = peer(curve=curve_keys()), peer(curve=curve_keys())
    path = await alice.linked(bob)
    assert isinstance(path, bytes)
    alice.hang_up(1)
    await bob.next(InboundClosed)
    mallory = CurvePair.of(bytes(range(32)))
    thief = stranger(lab, bob.endpoint, 1, mallory, path[:5])
    thief.send(b"I am alice")
    [(claimed, parts)] = await bob.packets(1)
    assert (claimed, parts) == (path[:5] + mallory.public, [b"I am alice"])
    bob.send(path, [b"for alice"])
    assert await bob.down(path) is PathCause.UNROUTABLE
    assert await asyncio.to_thread(nothing_comes, thief)
    bob.send(claimed, [b"for mallory"])
    assert await asyncio.to_thread(thief.recv) == b"for mallory"
    assert bob.transport.statistics().packets_unroutable == 1


async def test_who_claims_a_routing_id_in_use_is_not_heard(peer: MakePeer, lab: Lab) -> None:
    alice, bob = peer(curve=curve_keys()), peer(curve=curve_keys())
    path = await alice.linked(bob)
    assert isinstance(path, bytes)
    thief = stranger(lab, bob.endpoint, 1, CurvePair.of(bytes(32)), path[:5])
    thief.send(b"I am alice")
    bob.send(path, [b"secret"])
    assert await alice.packets(1) == [(1, [b"secret"])]
    assert await asyncio.to_thread(nothing_comes, thief)
    assert await bob.idle(0) == []


async def test_paths_stay_the_same_when_another_connection_ends(peer: MakePeer) -> None:
    alice, carol, bob = (peer(curve=curve_keys()) for _ in range(3))
    first = await alice.linked(bob)
    await carol.linked(bob)
    carol.hang_up(1)
    await bob.next(InboundClosed)
    bob.send(first, [b"before a packet came"])
    assert await alice.packets(1) == [(1, [b"before a packet came"])]
    alice.send(1, [b"again"])
    assert await bob.packets(1) == [(first, [b"again"])]


async def test_a_path_that_never_was_is_unroutable(peer: MakePeer) -> None:
    bob = peer(curve=curve_keys())
    path = bytes(5 + CONNECTION_KEY_BYTES)
    bob.send(path, [b"hello"])
    assert await bob.down(path) is PathCause.UNROUTABLE


# Who gets in


class Absent:
    """A handler that never comes."""

    def __init__(self, *_: object) -> None:
        self.intake = self

    def rescue(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def test_without_a_handler_nobody_gets_in(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = peer(curve=curve_keys(), dial_timeout=0.3)
    with monkeypatch.context() as patch:
        patch.setattr(listener, "Authenticator", Absent)
        bob = peer(curve=curve_keys())
    alice.dial(1, bob.endpoint)
    assert await alice.next(PathDown)
    assert await alice.idle(0) == [], "it was never up"
    carol = peer(curve=curve_keys())
    await alice.linked(carol, 2)


async def test_a_peer_that_is_turned_away_learns_so_at_once(peer: MakePeer) -> None:
    alice = peer(curve=curve_keys(), dial_timeout=60)
    bob = peer(curve=curve_keys(), options=options(inbound_max=1))
    await alice.linked(bob, 1)
    alice.dial(2, bob.endpoint)  # one more than there may be
    assert await alice.down(2) is PathCause.UNREACHABLE
    assert await until_told(bob, AuditKind.FLOODED)
    assert bob.audited[0].rule == "inbound_max"
    assert bob.transport.statistics().handshakes_refused == 1
    assert [trace.name for trace in alice.traces] == ["dial_turned_away"]
    assert alice.audited == []
    alice.send(1, [b"undisturbed"])
    await bob.packets(1)


# Who does not, and what is told of it


async def test_another_mesh_key_is_told_at_once_on_both_sides(peer: MakePeer) -> None:
    alice, bob = peer(curve=curve_keys(1), dial_timeout=60), peer(curve=curve_keys(2))
    before = time.monotonic()
    alice.dial(1, bob.endpoint)
    assert await alice.down(1) is PathCause.WRONG_KEY
    assert time.monotonic() - before < 2, "milliseconds, on a machine that is not busy"
    assert await until_told(alice, AuditKind.WRONG_KEY) == (
        "who listens there uses another mesh key than this node"
    )
    assert alice.audited[0].endpoint == bob.endpoint
    assert "its mesh key is another one" in await until_told(bob, AuditKind.WRONG_KEY)
    assert bob.audited[0].endpoint in ("127.0.0.1", "")  # as it may be closed before we look
    assert alice.transport.statistics().dials_wrong_key == 1
    assert bob.transport.statistics().handshakes_failed == 1
    assert bob.transport.statistics().handshakes == 0
    assert await bob.idle(0) == []


@pytest.mark.parametrize("dialing", ["without", "with"])
async def test_a_key_on_one_side_only_is_told_at_once_on_both_sides(
    peer: MakePeer, dialing: str
) -> None:
    guarded, plain = peer(curve=curve_keys(), dial_timeout=60), peer(dial_timeout=60)
    alice, bob = (plain, guarded) if dialing == "without" else (guarded, plain)
    alice.dial(1, bob.endpoint)
    assert await alice.down(1) is PathCause.WRONG_KEY
    expected = {
        guarded: "uses no mesh key, and this node does",
        plain: "uses a mesh key, and this node has none",
    }
    assert expected[alice] in await until_told(alice, AuditKind.WRONG_KEY)
    # Either side may see first that they do not match, and close: the other sees just the end.
    counts = bob.transport.statistics
    await until(lambda: counts().handshakes_failed + counts().handshakes_abandoned > 0)
    if counts().handshakes_failed:
        assert expected[bob] in await until_told(bob, AuditKind.WRONG_KEY)
    assert await bob.idle(0) == []


async def test_who_dials_again_and_again_is_told_of_once_in_a_while(peer: MakePeer) -> None:
    alice, bob = peer(curve=curve_keys(1)), peer(curve=curve_keys(2))
    for path in range(1, 6):
        alice.dial(path, bob.endpoint)
        assert await alice.down(path) is PathCause.WRONG_KEY
    await until(lambda: bob.transport.statistics().handshakes_failed == 5)
    await until_told(alice, AuditKind.WRONG_KEY)
    # With its address, if there was time to look before libzmq closed the connection.
    assert {event.endpoint for event in bob.audited} <= {"", "127.0.0.1"}
    assert 1 <= len(bob.audited) <= 2


async def test_who_closes_at_once_and_is_none_of_us_has_no_wrong_key(peer: MakePeer) -> None:
    alice = peer(curve=curve_keys(), dial_timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        for _ in range(2):  # the dial, and the question what went wrong
            connection, _ = await asyncio.to_thread(server.accept)
            with connection:
                await asyncio.to_thread(connection.recv, 100)
        assert await alice.down(1) is PathCause.REFUSED, "as a process that is being killed"
    assert alice.audited == []


async def test_a_process_that_ends_in_the_handshake_has_no_wrong_key(peer: MakePeer) -> None:
    alice = peer(curve=curve_keys(), dial_timeout=60)
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        connection, _ = await asyncio.to_thread(server.accept)
    with connection:
        await asyncio.to_thread(connection.recv, 10)
    assert await alice.down(1) is PathCause.REFUSED
    assert alice.audited == []


async def test_a_probe_of_a_listener_with_a_key_is_answered_and_is_no_attack(
    peer: MakePeer,
) -> None:
    bob = peer(curve=curve_keys())
    for alice in (peer(curve=curve_keys()), peer()):
        alice.probe(bob.endpoint, 5.0)
        assert await alice.next(ProbeAnswered) == ProbeAnswered(bob.endpoint, None)
    assert await bob.idle() == []
    assert bob.audited == []
    told = bob.transport.statistics()
    assert (told.inbound_accepted, told.handshakes_abandoned) == (2, 2)
    assert (told.handshakes_failed, told.handshakes_refused) == (0, 0)


# A mesh changes its key


async def test_an_older_key_is_tried_in_the_same_dial_and_remembered(peer: MakePeer) -> None:
    alice, bob = peer(curve=curve_keys(2, 3, 1)), peer(curve=curve_keys(1))
    await alice.linked(bob, 1)
    assert bob.transport.statistics().handshakes_failed == 2
    await alice.linked(bob, 2)
    assert bob.transport.statistics().handshakes_failed == 2
    assert alice.transport.statistics().dials == 2
    assert alice.audited == []


async def test_no_key_that_fits_is_one_failure(peer: MakePeer) -> None:
    alice = peer(curve=curve_keys(2, 3, 4), dial_timeout=60)
    bob = peer(curve=curve_keys(1))
    alice.dial(1, bob.endpoint)
    assert await alice.down(1) is PathCause.WRONG_KEY
    assert bob.transport.statistics().handshakes_failed == 3
    assert alice.transport.statistics().dials_wrong_key == 1
    alice.dial(1, unused_endpoint())
    assert await alice.down(1) is PathCause.REFUSED


async def test_several_keys_end_with_the_time_of_the_dial(peer: MakePeer) -> None:
    alice = peer(curve=curve_keys(2, 3), dial_timeout=0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        alice.dial(1, endpoint_of(server))
        assert await alice.down(1) is PathCause.UNREACHABLE


async def test_hanging_up_while_keys_are_tried_leaves_nothing(peer: MakePeer) -> None:
    alice, bob = peer(curve=curve_keys(*range(2, 100))), peer(curve=curve_keys(1))
    alice.dial(1, bob.endpoint)
    await until(lambda: bob.transport.statistics().handshakes_failed > 0)
    alice.hang_up(1)
    assert await alice.idle() == []
    assert alice.transport._dialer._paths == {}


async def test_a_new_server_key_holds_on_the_same_port_from_then_on(peer: MakePeer) -> None:
    alice, bob = peer(curve=curve_keys(1, 2)), peer(curve=curve_keys(1, 2))
    old = await alice.linked(bob, 1)
    back = await bob.linked(alice, 7)
    bob.transport.rekey(curve_keys(2, 1))
    await bob.next(InboundClosed)
    assert await alice.down(1) is PathCause.CLOSED
    bob.send(old, [b"too late"])
    assert await bob.down(old) is PathCause.UNROUTABLE
    await until(lambda: not bob.transport._listener.is_suspended)
    new = await alice.linked(bob, 2)
    assert new != old
    alice.send(back, [b"what was dialed stays"])
    assert await bob.packets(1) == [(7, [b"what was dialed stays"])]
    outsider = peer(curve=curve_keys(1))
    outsider.dial(1, bob.endpoint)
    assert await outsider.down(1) is PathCause.WRONG_KEY
    assert bob.transport._listener.endpoints == (bob.endpoint,)
    gate = bob.transport._listener._doorkeeper.gate
    await until(lambda: gate.under_way == 0)
    assert gate.connections == 1
    assert bob.transport.statistics().handshakes_failed == 2


async def test_other_keys_to_dial_with_end_nothing(peer: MakePeer) -> None:
    alice, bob, carol = (
        peer(curve=curve_keys(1)),
        peer(curve=curve_keys(1)),
        peer(curve=curve_keys(2)),
    )
    path = await alice.linked(bob, 1)
    bob.transport.rekey(curve_keys(1, 2))
    alice.send(1, [b"still there"])
    assert await bob.packets(1) == [(path, [b"still there"])]
    await bob.linked(carol, 2)
    assert InboundClosed() not in bob.events


async def test_a_transport_without_keys_is_given_none(peer: MakePeer) -> None:
    with pytest.raises(UsageError, match="make a new one"):
        peer().transport.rekey(curve_keys())


def test_keys_to_dial_with_are_needed() -> None:
    pair = server_pair(1)
    with pytest.raises(UsageError, match="public key"):
        CurveKeys(pair, (), pair)


async def test_many_end_and_come_again_when_the_key_changes_under_load(peer: MakePeer) -> None:
    bob = peer(curve=curve_keys(1, 2))
    others = [peer(curve=curve_keys(1, 2)) for _ in range(10)]
    for each in others:
        await each.linked(bob)
    bob.transport.rekey(curve_keys(2, 1))
    for each in others:
        assert await each.down(1) is PathCause.CLOSED
    for each in others:
        each.dial(2, bob.endpoint)  # at once: nobody is refused meanwhile
    for each in others:
        assert isinstance(await each.next_of(PathUp, PathDown), PathUp)
        each.send(2, [b"back"])
    assert sorted(parts[0] for _, parts in await bob.packets(10)) == [b"back"] * 10
    with closing(others.pop().transport):
        pass
    assert bob.transport._listener._doorkeeper.gate.connections == 10


async def test_nobody_is_refused_while_the_key_changes(peer: MakePeer) -> None:
    """A refusal means that the process has ended: who gets one gives up its peer at once."""
    bob = peer(curve=curve_keys(1, 2))
    host, _, port = bob.endpoint.removeprefix("tcp://").partition(":")
    for _ in range(20):
        for keys in ((2, 1), (1, 2)):
            bob.transport.rekey(curve_keys(*keys))
            for _ in range(5):
                socket.create_connection((host, int(port)), timeout=5).close()
                await asyncio.sleep(0)


async def test_without_a_descriptor_left_a_new_key_holds_when_there_are_some_again(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = peer(curve=curve_keys(2)), peer(curve=curve_keys(1, 2))
    listener = bob.transport._listener
    with monkeypatch.context() as patch:
        patch.setattr(listener._ports, "lend", _none_left)
        bob.transport.rekey(curve_keys(2, 1))
    assert listener.is_suspended
    await until(listener.resume)
    await alice.linked(bob, 1)


def _none_left(endpoint: str) -> Never:
    raise OSError(errno.EMFILE, endpoint)
