"""Ports that stay open while libzmq ends one listener and begins another."""

import os
import socket
import struct
from collections.abc import Iterator

import pytest

from zmesh.transport.held_ports import HeldPorts, endpoint_of


@pytest.fixture
def ports() -> Iterator[HeldPorts]:
    held = HeldPorts(backlog=7)
    yield held
    held.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_open_as_long_as_somebody_holds_it(ports: HeldPorts, host: str) -> None:
    ports.hold(host, 0)
    endpoint = ports.endpoint(host)
    port = int(endpoint.rpartition(":")[2])
    assert endpoint == endpoint_of(host, port)
    os.close(ports.lend(host))
    socket.create_connection((host, port)).close()
    ports.release(host)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, port))


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="IPv6 sockets are IPv6 alone here")
def test_everywhere_is_both_families(ports: HeldPorts) -> None:
    ports.hold("::", 0)
    port = int(ports.endpoint("::").rpartition(":")[2])
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port)).close()


def test_so_many_as_asked_wait_in_the_kernel(ports: HeldPorts) -> None:
    ports.hold("127.0.0.1", 0)
    with socket.socket(fileno=ports.lend("127.0.0.1")) as listening:
        told = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
    assert struct.unpack_from("=I", told, 28) == (7,)  # of a listener: the backlog (tcpi_sacked)


def test_what_is_lent_does_not_block(ports: HeldPorts) -> None:
    ports.hold("127.0.0.1", 0)
    with socket.socket(fileno=ports.lend("127.0.0.1")) as listening:
        assert not os.get_blocking(listening.fileno())


def test_a_port_that_is_taken_is_refused(ports: HeldPorts) -> None:
    ports.hold("127.0.0.1", 0)
    port = int(ports.endpoint("127.0.0.1").rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        ports.hold("127.0.0.1", port)


def test_a_name_is_no_address(ports: HeldPorts) -> None:
    with pytest.raises(OSError, match="Name or service"):
        ports.hold("localhost", 0)
