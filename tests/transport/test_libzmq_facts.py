"""What the transport knows about libzmq 4.3.5 and pyzmq 27. If one changes, the design may.

Facts that end or block a process are shown in one of its own.
"""

import errno
import socket as tcp
import struct
import time
from contextlib import suppress
from typing import Any

import pytest
import zmq

from tests.transport.child import Child, running
from tests.transport.lab import (
    MIB,
    Lab,
    events_until,
    is_signalled,
    nothing_comes,
    receive,
    refusal,
)
from tests.transport.peer import endpoint_of, unused_endpoint
from tests.transport.zmtp import RawPeer, part

# What a send is worth


def test_a_router_takes_for_a_stalled_peer_what_then_vanishes_with_it(lab: Lab) -> None:
    router, endpoint = lab.listening(ROUTER_MANDATORY=1, SNDHWM=0)
    raw = lab.raw(endpoint)
    raw.send(b"hello")
    routing_id = receive(router)[0]
    for _ in range(30_000):
        router.send_multipart([routing_id, bytes(100)], zmq.NOBLOCK)
    for _ in range(32):
        router.send_multipart([routing_id, bytes(MIB)], zmq.NOBLOCK)
    raw.close()  # and nobody is told what became of them
    assert nothing_comes(router)


def test_a_router_that_is_not_mandatory_drops_without_a_word(lab: Lab) -> None:
    router, endpoint = lab.listening(SNDHWM=10)
    router.send_multipart([b"nobody", b"lost"])
    raw = lab.raw(endpoint)
    raw.send(b"hello")
    routing_id = receive(router)[0]
    for _ in range(200):
        router.send_multipart([routing_id, bytes(MIB)], zmq.NOBLOCK)
    raw.connection.settimeout(0.5)
    received = 0
    with suppress(TimeoutError):
        while raw.receive():
            received += 1
    assert 10 <= received < 200


def test_a_mandatory_router_says_that_a_peer_is_unknown_or_full(lab: Lab) -> None:
    router, endpoint = lab.listening(ROUTER_MANDATORY=1, SNDHWM=10)
    with pytest.raises(zmq.ZMQError) as unknown:
        router.send(b"nobody", zmq.SNDMORE | zmq.NOBLOCK)
    assert unknown.value.errno == errno.EHOSTUNREACH
    raw = lab.raw(endpoint)
    raw.send(b"hello")
    routing_id = receive(router)[0]
    assert refusal(router, routing_id, bytes(MIB)) == errno.EAGAIN


def test_after_a_refused_routing_id_the_next_message_starts_anew(lab: Lab) -> None:
    router, routing_id, dealer = lab.pair(ROUTER_MANDATORY=1)
    for _ in range(3):
        with pytest.raises(zmq.ZMQError):
            router.send(b"nobody", zmq.SNDMORE | zmq.NOBLOCK)
    router.send_multipart([routing_id, b"fine"])
    assert receive(dealer) == [b"fine"]


@pytest.mark.parametrize("size", [1, MIB])
def test_high_water_marks_count_messages_and_not_bytes(lab: Lab, size: int) -> None:
    dealer = lab.dealer(unused_endpoint(), SNDHWM=5)
    for _ in range(5):
        dealer.send(bytes(size), zmq.NOBLOCK)
    with pytest.raises(zmq.Again):
        dealer.send(b"", zmq.NOBLOCK)


def test_high_water_marks_count_whole_messages_so_only_a_first_part_is_refused(lab: Lab) -> None:
    dealer = lab.dealer(unused_endpoint(), SNDHWM=2)
    for _ in range(2):
        dealer.send_multipart([b"part"] * 50, zmq.NOBLOCK)
    with pytest.raises(zmq.Again):
        dealer.send(b"part", zmq.NOBLOCK | zmq.SNDMORE)


# Routing ids


@pytest.mark.parametrize("handover", [0, 1])
def test_with_handover_who_claims_a_routing_id_gets_its_traffic(lab: Lab, handover: int) -> None:
    router, endpoint = lab.listening(ROUTER_MANDATORY=1, ROUTER_HANDOVER=handover)
    honest = lab.raw(endpoint)
    honest.send(b"hello")
    routing_id = receive(router)[0]
    thief = lab.raw(endpoint, routing_id)
    thief.send(b"it is me")
    if handover:
        assert receive(router) == [routing_id, b"it is me"]
    else:
        assert nothing_comes(router)
    router.send_multipart([routing_id, b"secret"])
    assert (thief if handover else honest).receive() == b"secret"


def test_without_handover_a_peer_that_keeps_its_routing_id_is_ignored_after_a_restart(
    lab: Lab,
) -> None:
    router, endpoint = lab.listening(ROUTER_MANDATORY=1)
    lab.raw(endpoint, b"device").send(b"hello")  # half-open: it is gone, and nobody noticed
    assert receive(router) == [b"device", b"hello"]
    lab.raw(endpoint, b"device").send(b"I am back")
    assert nothing_comes(router)
    lab.raw(endpoint).send(b"so am I")  # one that leaves its id to the ROUTER is not
    assert receive(router)[1] == b"so am I"


def test_given_routing_ids_are_five_bytes_the_first_zero_and_counted_up(lab: Lab) -> None:
    router, endpoint = lab.listening()
    given = []
    for _ in range(3):
        lab.raw(endpoint).send(b"hello")
        given.append(receive(router)[0])
    assert all(len(each) == 5 and each[0] == 0 for each in given)
    first = int.from_bytes(given[0][1:], "big")
    assert [int.from_bytes(each[1:], "big") for each in given] == [first, first + 1, first + 2]


LISTEN = """
import sys, zmq
context = zmq.Context()
context.set(zmq.BLOCKY, 0)
router = context.socket(zmq.ROUTER)
router.bind("tcp://127.0.0.1:0")
print(router.get_string(zmq.LAST_ENDPOINT), flush=True)
while True:
    print(router.recv_multipart()[0].hex(), flush=True)
"""


def first_routing_id(child: Child) -> tuple[str, bytes]:
    endpoint = child.line()
    raw = RawPeer.dial(endpoint)
    raw.send(b"hello")
    given = bytes.fromhex(child.line())
    raw.close()
    return endpoint, given


def test_given_routing_ids_are_the_same_in_every_process_as_rand_is_not_seeded() -> None:
    with running("-c", LISTEN) as one, running("-c", LISTEN) as another:
        assert first_routing_id(one)[1] == first_routing_id(another)[1]


def test_who_claims_the_routing_id_to_be_given_next_aborts_the_process() -> None:
    with running("-c", LISTEN) as child:
        endpoint, given = first_routing_id(child)
        following = b"\0" + (int.from_bytes(given[1:], "big") + 1).to_bytes(4, "big")
        claimant = RawPeer.dial(endpoint, following)
        claimant.send(b"hello")
        assert bytes.fromhex(child.line()) == following
        honest = RawPeer.dial(endpoint)
        ended = child.end()
        claimant.close()
        honest.close()
    assert ended.code == -6  # SIGABRT
    assert "Assertion failed: ok" in ended.errors


# Sizes


def test_parts_are_unlimited_by_default(lab: Lab) -> None:
    assert lab.socket(zmq.ROUTER).get(zmq.MAXMSGSIZE) == -1


def test_a_part_over_maxmsgsize_ends_the_connection_and_parts_are_counted_singly(
    lab: Lab,
) -> None:
    router, endpoint = lab.listening(MAXMSGSIZE=1000)
    raw = lab.raw(endpoint)
    raw.send(bytes(1000), bytes(1000))
    assert receive(router)[1:] == [bytes(1000), bytes(1000)]
    raw.send(bytes(1001))
    assert raw.is_closed()
    assert nothing_comes(router)


def test_a_message_without_end_is_taken_without_bound_and_never_seen(lab: Lab) -> None:
    router, endpoint = lab.listening(RCVHWM=1, MAXMSGSIZE=MIB)
    raw = lab.raw(endpoint)
    chunk = part(bytes(MIB // 2), more=True)
    for _ in range(96):  # 48 MiB, far beyond what the kernel holds: libzmq reads and keeps it
        raw.connection.sendall(chunk)
    assert nothing_comes(router)
    raw.connection.sendall(part(b"end"))
    assert len(receive(router)) == 1 + 96 + 1


# Readiness


def test_a_look_at_the_socket_takes_the_signal_though_the_message_waits(lab: Lab) -> None:
    router, routing_id, dealer = lab.pair()
    dealer.get(zmq.EVENTS)
    router.send_multipart([routing_id, b"waits"])
    assert zmq.zmq_poll([(dealer.fileno(), zmq.POLLIN)], 5000)
    assert int(dealer.get(zmq.EVENTS)) & zmq.POLLIN
    assert not is_signalled(dealer)
    assert dealer.recv(zmq.NOBLOCK) == b"waits"


def test_a_send_takes_the_signal_for_what_has_arrived(lab: Lab) -> None:
    router, routing_id, dealer = lab.pair()
    dealer.get(zmq.EVENTS)
    router.send_multipart([routing_id, b"waits"])
    assert zmq.zmq_poll([(dealer.fileno(), zmq.POLLIN)], 5000)
    time.sleep(0.02)  # a send looks for commands at most once in three million ticks
    dealer.send(b"meanwhile")
    assert not is_signalled(dealer)
    assert dealer.recv(zmq.NOBLOCK) == b"waits"


def test_a_reader_that_leaves_before_the_socket_is_empty_is_not_woken_again(lab: Lab) -> None:
    router, routing_id, dealer = lab.pair()
    for number in range(10):
        router.send_multipart([routing_id, b"%d" % number])
    for _ in range(9):
        receive(dealer)
    dealer.get(zmq.EVENTS)
    assert not is_signalled(dealer)
    assert dealer.recv(zmq.NOBLOCK) == b"9"


def test_after_a_receive_that_found_nothing_the_next_message_signals(lab: Lab) -> None:
    router, routing_id, dealer = lab.pair()
    for number in range(1000):
        with pytest.raises(zmq.Again):
            dealer.recv(zmq.NOBLOCK)
        router.send_multipart([routing_id, b"%d" % number])
        assert zmq.zmq_poll([(dealer.fileno(), zmq.POLLIN)], 5000)
        assert receive(dealer) == [b"%d" % number]


def test_a_pipe_that_was_never_looked_into_does_not_signal(lab: Lab) -> None:
    reader, writer = lab.socket(zmq.ROUTER), lab.socket(zmq.PAIR)
    writer.bind("inproc://quiet")
    reader.connect("inproc://quiet")
    while is_signalled(reader):
        reader.get(zmq.TYPE)
        reader.send_multipart([b"nobody", b""])  # takes commands, reads nothing
        time.sleep(0.002)
    writer.send(b"unheard")
    assert not is_signalled(reader)
    assert int(reader.get(zmq.EVENTS)) & zmq.POLLIN


# Connections that begin and end


def test_before_its_connection_a_dealer_queues_unless_it_is_immediate(lab: Lab) -> None:
    endpoint = unused_endpoint()
    eager = lab.dealer(endpoint, RECONNECT_IVL=10)
    eager.send(b"early", zmq.NOBLOCK)
    immediate = lab.dealer(endpoint, RECONNECT_IVL=10, IMMEDIATE=1)
    with pytest.raises(zmq.Again):
        immediate.send(b"early", zmq.NOBLOCK)
    router = lab.socket(zmq.ROUTER)
    router.bind(endpoint)
    assert receive(router)[1:] == [b"early"]


@pytest.mark.parametrize(
    ("options", "are_kept"),
    [
        ({"RECONNECT_IVL": 3_600_000}, True),
        ({"RECONNECT_IVL": 3_600_000, "IMMEDIATE": 1}, False),
        ({"RECONNECT_IVL": -1}, False),
    ],
)
def test_immediate_or_no_reconnecting_drops_what_was_not_yet_read_when_a_connection_ends(
    lab: Lab, options: dict[str, int], are_kept: bool
) -> None:
    router, endpoint = lab.listening()
    dealer, monitor = lab.monitored(endpoint, **options)
    events_until(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    dealer.send(b"hello")
    routing_id = receive(router)[0]
    router.send_multipart([routing_id, b"first"])
    assert receive(dealer) == [b"first"]
    dealer.get(zmq.EVENTS)
    for _ in range(3):
        router.send_multipart([routing_id, b"last words"])
    router.close()
    events_until(monitor, zmq.EVENT_DISCONNECTED)
    time.sleep(0.02)  # the rest of libzmq's work on it
    if are_kept:
        assert [receive(dealer) for _ in range(3)] == [[b"last words"]] * 3
    else:
        assert nothing_comes(dealer)


def test_a_router_keeps_what_was_not_yet_read_when_a_connection_ends(lab: Lab) -> None:
    router, _routing_id, dealer = lab.pair()
    monitor = lab.monitor(router)
    for _ in range(3):
        dealer.send(b"last words")
    dealer.close()
    events_until(monitor, zmq.EVENT_DISCONNECTED)
    assert [receive(router)[1] for _ in range(3)] == [b"last words"] * 3


def test_unbinding_ends_the_connections_that_came_in_once_the_socket_is_read(lab: Lab) -> None:
    router, endpoint = lab.listening(ROUTER_MANDATORY=1)
    dealer, monitor = lab.monitored(endpoint, RECONNECT_IVL=3_600_000)
    dealer.send(b"hello")
    routing_id = receive(router)[0]
    router.unbind(endpoint)
    assert refusal(router, routing_id, b"anybody?", pause=0.005) == errno.EHOSTUNREACH
    assert nothing_comes(router)
    events_until(monitor, zmq.EVENT_DISCONNECTED)


def test_silent_connections_live_half_a_minute_unless_told_otherwise(lab: Lab) -> None:
    assert lab.socket(zmq.ROUTER).get(zmq.HANDSHAKE_IVL) == 30_000
    _, endpoint = lab.listening(HANDSHAKE_IVL=100)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    with tcp.create_connection((host, int(port)), timeout=5) as silent:
        while silent.recv(100):
            pass  # its greeting, then the end


def test_heartbeats_are_off_unless_told_otherwise(lab: Lab) -> None:
    assert lab.socket(zmq.DEALER).get(zmq.HEARTBEAT_IVL) == 0
    assert lab.socket(zmq.ROUTER).get(zmq.HEARTBEAT_IVL) == 0


STALL = """
import time, zmq
context = zmq.Context()
context.set(zmq.BLOCKY, 0)
router = context.socket(zmq.ROUTER)
router.set(zmq.RCVHWM, 10)
dealer = context.socket(zmq.DEALER)
dealer.set(zmq.SNDHWM, 0)
for each in (router, dealer):
    each.set(zmq.HEARTBEAT_IVL, 50)
    each.set(zmq.HEARTBEAT_TIMEOUT, 100)
router.bind("tcp://127.0.0.1:0")
dealer.connect(router.get_string(zmq.LAST_ENDPOINT))
for _ in range(20_000):
    dealer.send(bytes(1000))
time.sleep(1.5)
received = 0
while router.poll(500):
    router.recv_multipart()
    received += 1
print(received)
"""


def test_with_heartbeats_a_receiver_that_stalls_loses_messages_or_its_process() -> None:
    with running("-c", STALL) as child:
        ended = child.end()
    assert ended.code == -6 or int(ended.output) < 20_000


# Monitors

ESTABLISHED = [
    zmq.EVENT_CONNECT_DELAYED,
    zmq.EVENT_CONNECTED,
    zmq.EVENT_HANDSHAKE_SUCCEEDED,
]


def test_monitor_tells_of_a_connection_made_and_ended(lab: Lab) -> None:
    router, endpoint = lab.listening()
    listener = lab.monitor(router)
    _, monitor = lab.monitored(endpoint, RECONNECT_IVL=3_600_000)
    assert events_until(monitor, zmq.EVENT_HANDSHAKE_SUCCEEDED) == ESTABLISHED
    assert events_until(listener, zmq.EVENT_HANDSHAKE_SUCCEEDED) == [
        zmq.EVENT_ACCEPTED,
        zmq.EVENT_HANDSHAKE_SUCCEEDED,
    ]
    router.monitor(None)
    router.close()
    assert events_until(monitor, zmq.EVENT_CONNECT_RETRIED) == [
        zmq.EVENT_DISCONNECTED,
        zmq.EVENT_CONNECT_RETRIED,
    ]


def test_monitor_tells_that_a_connect_failed_and_not_why(lab: Lab) -> None:
    _, monitor = lab.monitored(unused_endpoint(), RECONNECT_IVL=3_600_000)
    assert events_until(monitor, zmq.EVENT_CONNECT_RETRIED) == [
        zmq.EVENT_CONNECT_DELAYED,
        zmq.EVENT_CLOSED,
        zmq.EVENT_CONNECT_RETRIED,
    ]


def test_monitor_tells_of_a_connect_that_never_began_by_connect_retried_alone(lab: Lab) -> None:
    _, monitor = lab.monitored("tcp://[fe80::1%nosuch0]:5555", RECONNECT_IVL=3_600_000, IPV6=1)
    assert events_until(monitor, zmq.EVENT_CONNECT_RETRIED) == [zmq.EVENT_CONNECT_RETRIED]


def test_monitor_tells_nothing_of_it_where_there_is_no_reconnecting(lab: Lab) -> None:
    _, monitor = lab.monitored("tcp://[fe80::1%nosuch0]:5555", RECONNECT_IVL=-1, IPV6=1)
    assert nothing_comes(monitor)


def test_monitor_tells_right_before_the_end_that_a_handshake_failed(lab: Lab) -> None:
    router, endpoint = lab.listening()
    listener = lab.monitor(router)
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    for words in (b"", b"GET / HTTP/1.1\r\n" * 10):
        with tcp.create_connection((host, int(port))) as stranger:
            stranger.sendall(words)
        assert events_until(listener, zmq.EVENT_DISCONNECTED) == [
            zmq.EVENT_ACCEPTED,
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_DISCONNECTED,
        ]


def test_monitor_of_a_dealer_tells_that_who_listens_is_no_peer(lab: Lab) -> None:
    with tcp.create_server(("127.0.0.1", 0)) as server:
        _, monitor = lab.monitored(endpoint_of(server), RECONNECT_IVL=3_600_000)
        stranger, _ = server.accept()
        stranger.close()
        assert events_until(monitor, zmq.EVENT_DISCONNECTED)[-2:] == [
            zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
            zmq.EVENT_DISCONNECTED,
        ]


def test_a_router_hears_monitors_over_inproc_under_the_names_it_gives(lab: Lab) -> None:
    _, endpoint = lab.listening()
    ear = lab.socket(zmq.ROUTER)
    for name in (b"one", b"two"):
        dealer = lab.socket(zmq.DEALER)
        dealer.monitor(f"inproc://{name.decode()}", zmq.EVENT_HANDSHAKE_SUCCEEDED)
        ear.set(zmq.CONNECT_ROUTING_ID, name)
        ear.connect(f"inproc://{name.decode()}")
        dealer.connect(endpoint)
        name_heard, event, _ = receive(ear)
        assert name_heard == name
        assert struct.unpack("=HI", event)[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED
        dealer.monitor(None)


BLOCKED = """
import os, socket, time, zmq
context = zmq.Context()
context.set(zmq.BLOCKY, 0)
router = context.socket(zmq.ROUTER)
router.set(zmq.BACKLOG, 1000)
router.bind("tcp://127.0.0.1:0")
endpoint = router.get_string(zmq.LAST_ENDPOINT)
router.monitor("inproc://monitor", zmq.EVENT_ALL & 0xffff)
reader = context.socket(zmq.PAIR)
reader.set(zmq.RCVHWM, HWM)
reader.connect("inproc://monitor")
server = context.socket(zmq.ROUTER)
server.bind("tcp://127.0.0.1:0")
client = context.socket(zmq.DEALER)
client.connect(server.get_string(zmq.LAST_ENDPOINT))
client.send(b"before")
assert server.poll(5000)
server.recv_multipart()
ACTION
for _ in range(800):  # each three events, for which nobody comes
    host, _, port = endpoint[6:].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except TimeoutError:
        break  # the kernel keeps no more for who does not accept
outcome = "alive"
for _ in range(10):  # what was accepted may be worked on after what is sent now
    client.send(b"after")
    if not server.poll(1000):
        outcome = "blocked"
        break
    server.recv_multipart()
    time.sleep(0.03)
print(outcome, flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("hwm", "action", "outcome"),
    [
        (0, "", "alive"),  # what the transport does
        (1, "", "blocked"),
        (0, "reader.close()", "blocked"),
        (0, "router.monitor(None); reader.close()", "alive"),  # what the transport does
    ],
)
def test_a_monitor_whose_reader_is_full_or_gone_blocks_all_sockets_of_its_context(
    hwm: int, action: str, outcome: str
) -> None:
    script = BLOCKED.replace("HWM)", f"{hwm})").replace("ACTION", action)
    with running("-c", script) as child:
        assert child.line() == outcome


# Closing


def test_linger_is_for_ever_by_default_and_zero_in_a_context_that_does_not_block() -> None:
    context: zmq.Context[Any] = zmq.Context()
    blocking = context.socket(zmq.DEALER)
    assert blocking.get(zmq.LINGER) == -1
    context.set(zmq.BLOCKY, 0)
    free = context.socket(zmq.DEALER)
    assert free.get(zmq.LINGER) == 0
    blocking.close()
    free.close()
    context.term()


def test_without_linger_a_context_ends_at_once_with_messages_unsent(lab: Lab) -> None:
    dealer = lab.dealer(unused_endpoint())
    for _ in range(1000):
        dealer.send(bytes(1000))
    start = time.monotonic()
    lab.close()
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("side", ["dealer", "router"])
def test_without_linger_what_was_sent_just_before_closing_still_goes(lab: Lab, side: str) -> None:
    for _ in range(20):
        router, endpoint = lab.listening()
        dealer = lab.dealer(endpoint, RECONNECT_IVL=3_600_000)
        dealer.send(b"hello")
        routing_id = receive(router)[0]
        if side == "dealer":
            dealer.send(b"bye")
            dealer.close()
            assert receive(router)[1] == b"bye"
        else:
            router.send_multipart([routing_id, b"bye"])
            router.close()
            assert receive(dealer) == [b"bye"]


# This build


def test_ipv4_on_an_ipv6_socket_is_reported_as_a_mapped_address(lab: Lab) -> None:
    router = lab.socket(zmq.ROUTER, IPV6=1)
    router.bind("tcp://127.0.0.1:0")
    assert router.get_string(zmq.LAST_ENDPOINT).startswith("tcp://[::ffff:127.0.0.1]:")


def test_drafts_are_absent() -> None:
    assert not zmq.DRAFT_API
    assert not zmq.has("draft")


def test_libzmq_is_one_that_is_accepted() -> None:
    assert zmq.zmq_version_info() >= (4, 3, 5)
