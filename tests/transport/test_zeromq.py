"""The transport as a whole. Its halves are in `test_dialer` and `test_listener`."""

import asyncio
import errno
import gc
import os
import time
import weakref
from collections.abc import Callable
from typing import Any, Never

import pytest

from tests.transport.conftest import MakePeer, plain_and_curve
from tests.transport.peer import Peer, options, until, unused_endpoint
from zmesh.errors import Closed, InvalidOption, UsageError
from zmesh.events import InboundClosed, PathCause, PathUp, ProbeAnswered
from zmesh.options import WireLimits
from zmesh.ports import Transport
from zmesh.transport import zeromq
from zmesh.transport.zeromq import ZmqTransport


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names are all we want


async def test_it_is_a_transport(peer: MakePeer) -> None:
    transport: Transport = peer().transport
    assert transport.statistics().packets_sent == 0


@plain_and_curve
async def test_a_probe_is_answered_with_what_was_found(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    nobody = unused_endpoint()
    alice.probe(bob.endpoint, 1.0)
    assert await alice.next(ProbeAnswered) == ProbeAnswered(bob.endpoint, None)
    alice.probe(nobody, 1.0)
    assert await alice.next(ProbeAnswered) == ProbeAnswered(nobody, PathCause.REFUSED)
    alice.probe("tcp://example:1", 1.0)
    answer = await alice.next(ProbeAnswered)
    assert answer == ProbeAnswered("tcp://example:1", PathCause.UNREACHABLE)
    assert [trace.name for trace in alice.traces] == ["probe_refused"]


@plain_and_curve
async def test_both_sides_sending_all_they_can_lose_and_misplace_nothing(peer: MakePeer) -> None:
    # Every send may swallow the signal for what arrives: the stall this is about came within
    # thousands of messages. Here no watchdog would end it.
    alice, bob = (peer(options=options(watchdog_interval=1000)) for _ in range(2))
    inbound = await alice.linked(bob)
    count, step = 20_000, 7
    received: dict[str, list[int]] = {"alice": [], "bob": []}

    async def pump(name: str, me: Peer, path: Any) -> None:
        sent = 0
        mine = received[name]
        while len(mine) < count or sent < count:  # the other side needs ours as well
            if sent < count and sent - len(mine) < 500:
                me.send(path, *[[b"%d" % number] for number in range(sent, sent + step)])
                sent += step
                await asyncio.sleep(0)
                if not me.events:
                    continue
            mine += [int(parts[0]) for _, parts in await me.packets(1)]
            mine += [int(parts[0]) for _, parts in await me.packets(len(me.packets_left))]

    async with asyncio.timeout(60):
        await asyncio.gather(pump("alice", alice, 1), pump("bob", bob, inbound))
    for mine in received.values():
        assert mine == list(range(len(mine)))


@plain_and_curve
async def test_the_watchdog_reads_what_no_wake_up_announced(peer: MakePeer) -> None:
    alice, bob = peer(options=options(watchdog_interval=0.05)), peer()
    inbound = await alice.linked(bob)
    connection = alice.transport._dialer._dialed[1].connection
    assert connection is not None
    bob.send(inbound, [b"stuck"])
    assert connection.socket.poll(5000)  # takes the signal
    assert await alice.packets(1) == [(1, [b"stuck"])]
    assert alice.transport.statistics().watchdog_rescues == 1


async def test_counts_packets_and_bytes(peer: MakePeer) -> None:
    alice, bob = peer(), peer()
    inbound = await alice.linked(bob)  # 5 bytes
    alice.send(1, [b"abc", memoryview(b"de")], [b""])
    await bob.packets(2)
    bob.send(inbound, [bytes(100_000)])
    await alice.packets(1)
    sent, got = alice.transport.statistics(), bob.transport.statistics()
    assert (sent.packets_sent, sent.bytes_sent, sent.dials) == (3, 10, 1)
    assert (got.packets_received, got.bytes_received) == (3, 10)
    assert (sent.packets_received, sent.bytes_received) == (1, 100_000)


async def test_closing_is_quick_with_much_unsent_and_may_be_repeated(peer: MakePeer) -> None:
    bob = peer()
    alice = peer()
    inbound = await alice.linked(bob)
    for _ in range(50):
        alice.send(1, *[[bytes(64 << 10)]] * 20)
        bob.send(inbound, *[[bytes(64 << 10)]] * 20)
    alice.probe(unused_endpoint(), 5.0)
    alice.dial(2, unused_endpoint())
    for each in (alice, bob):
        start = time.monotonic()
        each.transport.close()
        assert time.monotonic() - start < 1
        each.transport.close()
        each.events.clear()
    assert await alice.idle() + await bob.idle() == []


async def test_closing_leaves_no_descriptor_and_no_thread() -> None:
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    before = descriptors()
    alice, bob = Peer().open(), Peer(hosts=["127.0.0.1", "::1"]).open()
    await alice.linked(bob)
    for path in range(2, 12):
        alice.dial(path, bob.endpoints[path % 2])
    alice.probe(bob.endpoint, 1.0)
    alice.transport.close()
    bob.transport.close()
    assert descriptors() == before
    assert len(os.listdir("/proc/self/task")) == threads  # noqa: PTH208


CALLS: list[Callable[[ZmqTransport], object]] = [
    lambda transport: transport.send(1, [[b"x"]]),
    lambda transport: transport.send(b"peer", [[b"x"]]),
    lambda transport: transport.dial(1, "tcp://127.0.0.1:1"),
    lambda transport: transport.hang_up(1),
    lambda transport: transport.probe("tcp://127.0.0.1:1", 1.0),
]


@pytest.mark.parametrize("call", CALLS)
async def test_using_it_once_closed_says_so(
    peer: MakePeer, call: Callable[[ZmqTransport], object]
) -> None:
    alice = peer()
    alice.transport.close()
    with pytest.raises(Closed):
        call(alice.transport)


async def test_it_is_opened_once(peer: MakePeer) -> None:
    alice = peer()
    with pytest.raises(UsageError, match="opened once"):
        alice.open()
    alice.transport.close()
    with pytest.raises(UsageError, match="opened once"):
        alice.open()


async def test_closing_what_was_never_opened_does_nothing() -> None:
    before = descriptors()
    alice = Peer()
    assert descriptors() == before
    alice.transport.close()


async def test_an_address_that_is_refused_leaves_nothing_behind(peer: MakePeer) -> None:
    port = int(peer().endpoint.rpartition(":")[2])
    before = descriptors()
    with pytest.raises(InvalidOption):
        Peer(hosts=["::1", "127.0.0.1"], port=port).open()
    assert descriptors() == before


def test_it_can_be_closed_after_its_loop() -> None:
    async def leave_open() -> Peer:
        return Peer().open()

    with asyncio.Runner() as runner:
        alice = runner.run(leave_open())
    alice.transport.close()


def test_forgotten_it_is_closed_with_a_warning_when_collected() -> None:
    async def forget() -> "weakref.ref[ZmqTransport]":
        alice, bob = Peer().open(), Peer().open()
        await alice.linked(bob)
        bob.transport.close()
        return weakref.ref(alice.transport)

    before = descriptors()
    with asyncio.Runner() as runner:
        reference = runner.run(forget())
    with pytest.warns(ResourceWarning, match="^a ZmqTransport was never closed: close it"):
        gc.collect()
    assert reference() is None
    assert descriptors() == before


async def test_a_loop_that_cannot_watch_descriptors_is_refused_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_implemented(*_: object) -> Never:
        raise NotImplementedError

    monkeypatch.setattr(asyncio.get_running_loop(), "add_reader", not_implemented)  # as Proactor's
    before = descriptors()
    with pytest.raises(UsageError, match="WindowsSelectorEventLoopPolicy"):
        Peer().open()
    assert descriptors() == before


async def test_without_descriptors_it_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zeromq, "descriptors_left", lambda at_most: at_most - 1)
    with pytest.raises(UsageError, match="ulimit"):
        Peer().open()


@plain_and_curve
async def test_it_stops_listening_while_no_descriptor_is_left(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = peer(), peer(options=options(watchdog_interval=0.02))
    await alice.linked(bob)
    left = 16
    monkeypatch.setattr(zeromq, "descriptors_left", lambda at_most: min(left, at_most))

    async def traced(name: str) -> None:
        await until(lambda: name in [trace.name for trace in bob.traces])

    left = 3
    await traced("descriptors_low")
    assert await bob.idle(0.1) == []  # that alone ends nothing
    left = 0
    await traced("listening_suspended")
    await bob.next(InboundClosed)
    assert await alice.down(1) is PathCause.CLOSED
    alice.dial(2, bob.endpoint)
    assert await alice.down(2) is PathCause.REFUSED
    left = 16
    await traced("listening_resumed")
    inbound = await alice.linked(bob, 3)
    bob.send(inbound, [b"again"])
    assert await alice.packets(1) == [(3, [b"again"])]
    assert [trace.name for trace in bob.traces] == [
        "descriptors_low",
        "listening_suspended",
        "listening_resumed",
    ]


async def test_listening_is_not_resumed_on_a_port_that_was_taken(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = peer(options=options(watchdog_interval=0.02), hosts=["127.0.0.1", "::1"])
    left = 0
    monkeypatch.setattr(zeromq, "descriptors_left", lambda at_most: min(left, at_most))
    await bob.next(InboundClosed)
    left = 16
    listener = bob.transport._listener
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listener, "_bind", _in_use)
        await bob.idle(0.1)
        assert listener.is_suspended
    await until(lambda: not listener.is_suspended)
    for path, endpoint in enumerate(bob.endpoints, 1):
        alice = peer()
        alice.dial(path, endpoint)
        await alice.next(PathUp)


async def test_hosts_that_change_while_it_does_not_listen_are_listened_on_later(
    peer: MakePeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = peer()
    bob = peer(options=options(watchdog_interval=0.02), hosts=["127.0.0.2"])
    port = bob.endpoint.rpartition(":")[2]
    left = 0
    monkeypatch.setattr(zeromq, "descriptors_left", lambda at_most: min(left, at_most))
    await until(lambda: bob.transport._listener.is_suspended)
    now = f"tcp://127.0.0.3:{port}"
    assert bob.transport.listen(["127.0.0.3"]) == (now,)
    alice.dial(1, now)
    assert await alice.down(1) is PathCause.REFUSED, "not yet"
    left = 16
    await until(lambda: not bob.transport._listener.is_suspended)
    alice.dial(2, now)
    await alice.next(PathUp)
    alice.dial(3, f"tcp://127.0.0.2:{port}")
    assert await alice.down(3) is PathCause.REFUSED, "no longer"


def _in_use(host: str, port: int) -> Never:
    raise OSError(errno.EADDRINUSE, f"{host}:{port}")


async def test_traces_are_logged_where_nobody_takes_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    transport = ZmqTransport(asyncio.get_running_loop(), WireLimits(), on_events=lambda _: None)
    transport.open()
    transport.dial(1, "nonsense")
    transport.close()
    assert "dial_refused" in caplog.text
