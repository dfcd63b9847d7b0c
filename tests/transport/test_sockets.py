import time
from collections.abc import Iterator

import pytest
import zmq

from tests.transport.peer import curve_keys
from zmesh.options import TransportOptions, WireLimits
from zmesh.transport.sockets import Sockets, read_monitor, require_libzmq


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets(TransportOptions(handshake_timeout=1.5), WireLimits(part_bytes_max=4096))
    yield made
    made.close()


def test_old_libzmq_is_refused_with_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"needs libzmq 4\.3\.5 or newer, this is 4\.3\.4: "):
        require_libzmq((4, 3, 4))
    require_libzmq((4, 3, 5))
    require_libzmq((4, 4, 0))


def test_options_are_set_before_anything_is_bound_or_connected(sockets: Sockets) -> None:
    router, _ = sockets.router()
    dealer, _ = sockets.dealer()
    for socket in (router, dealer):
        assert socket.get(zmq.MAXMSGSIZE) == 4096
        assert socket.get(zmq.LINGER) == 0
        assert socket.get(zmq.SNDHWM) == 8192
        assert socket.get(zmq.RCVHWM) == 1024
        assert socket.get(zmq.TCP_KEEPALIVE) == 1
        assert socket.get(zmq.TCP_KEEPALIVE_IDLE) == 5
        assert socket.get(zmq.TCP_MAXRT) == 15_000
        assert socket.get(zmq.HEARTBEAT_IVL) == 0
        assert socket.get(zmq.LAST_ENDPOINT) == b""
    assert router.get(zmq.HANDSHAKE_IVL) == 1500
    assert dealer.get(zmq.IMMEDIATE) == 0
    assert int(dealer.get(zmq.RECONNECT_IVL)) >= 3_600_000


def test_a_part_may_be_as_large_encrypted_as_it_may_be_in_plain(sockets: Sockets) -> None:
    keys = curve_keys()
    for socket in (sockets.router(keys)[0], sockets.dealer(keys, keys.server.public)[0]):
        assert socket.get(zmq.MAXMSGSIZE) == 4096 + 33


def test_the_ear_names_whose_monitor_speaks(sockets: Sockets) -> None:
    router, _ = sockets.router()
    router.bind("tcp://127.0.0.1:0")
    endpoint = router.get_string(zmq.LAST_ENDPOINT)
    keys = []
    for _ in range(2):
        dealer, key = sockets.dealer()
        dealer.connect(endpoint)
        keys.append(key)
    heard: dict[bytes, int] = {}
    while len(heard) < 3:  # the router's too
        assert sockets.ear.poll(5000)
        key, *parts = sockets.ear.recv_multipart()
        heard[key] = read_monitor(parts)[0]
    assert [heard[key] for key in keys] == [zmq.EVENT_HANDSHAKE_SUCCEEDED] * 2


def test_a_dropped_socket_is_closed_and_heard_of_no_more(sockets: Sockets) -> None:
    router, router_key = sockets.router()
    router.bind("tcp://127.0.0.1:0")
    dealer, key = sockets.dealer()
    dealer.connect(router.get_string(zmq.LAST_ENDPOINT))
    _hear(sockets, key, zmq.EVENT_HANDSHAKE_SUCCEEDED)
    sockets.drop(key)
    assert dealer.closed
    _hear(sockets, router_key, zmq.EVENT_DISCONNECTED)
    assert not sockets.ear.poll(50)


def _hear(sockets: Sockets, key: bytes, event: int) -> None:
    """Wait until a socket's monitor tells of an event."""
    while True:
        assert sockets.ear.poll(5000)
        speaker, *parts = sockets.ear.recv_multipart()
        if (speaker, read_monitor(parts)[0]) == (key, event):
            return


def test_closing_is_quick_with_much_unsent_and_may_be_repeated(sockets: Sockets) -> None:
    router, _ = sockets.router()
    router.bind("tcp://127.0.0.1:0")
    for _ in range(20):
        dealer, _ = sockets.dealer()
        dealer.connect(router.get_string(zmq.LAST_ENDPOINT))
        for _ in range(500):
            dealer.send(bytes(4096))
    start = time.monotonic()
    sockets.close()
    assert time.monotonic() - start < 1
    sockets.close()


def test_with_keys_every_socket_speaks_curve_and_nothing_else(sockets: Sockets) -> None:
    keys = curve_keys(1, 2)
    router, _ = sockets.router(keys)
    assert router.get(zmq.MECHANISM) == zmq.CURVE
    assert router.get(zmq.CURVE_SERVER) == 1
    assert router.get(zmq.ZAP_DOMAIN) == b"zmesh"
    assert router.get(zmq.ZAP_ENFORCE_DOMAIN) == 1
    dealer, _ = sockets.dealer(keys, keys.dialed[1])
    assert dealer.get(zmq.MECHANISM) == zmq.CURVE
    assert dealer.get(zmq.CURVE_SERVER) == 0
    assert router.get(zmq.LAST_ENDPOINT) == dealer.get(zmq.LAST_ENDPOINT) == b""
