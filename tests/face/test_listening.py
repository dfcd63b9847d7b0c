"""Where a node listens, and what it needs to be allowed to."""

import socket

import pytest

from zmesh.discovery.interfaces import Interface
from zmesh.errors import InvalidOption
from zmesh.face.listening import Listening, check_interfaces, common_port, plan, replan

LO = Interface("lo", ("127.0.0.1", "::1"))
ETH = Interface("eth0", ("192.0.2.7", "2001:db8::7", "fe80::7%eth0"))
LAN = Interface("eth1", ("198.51.100.7",))


@pytest.mark.parametrize("wanted", [[], "lo", ["*"], ["192.0.2.7"], ["lo", "fe80::1"]])
def test_what_cannot_work_is_refused_before_looking(wanted: list[str]) -> None:
    with pytest.raises(InvalidOption, match="interfaces"):
        check_interfaces(wanted, allowed=False)


@pytest.mark.parametrize("wanted", [["lo"], ["127.0.0.1", "::1"], ["127.0.0.2"], ["eth0"]])
def test_what_may_be_loopback_is_looked_at(wanted: list[str]) -> None:
    check_interfaces(wanted, allowed=False)


def test_insecure_allows_everything_that_is_named() -> None:
    check_interfaces(["*", "192.0.2.7"], allowed=True)
    with pytest.raises(InvalidOption):
        check_interfaces([], allowed=True)


def test_loopback_interface_needs_no_word() -> None:
    listening = plan(["lo"], (LO, ETH), allowed=False)
    assert listening == Listening(("127.0.0.1", "::1"))
    assert listening.is_loopback
    assert plan(["::1"], (LO, ETH), allowed=False).hosts == ("::1",)


def test_interface_that_is_not_loopback_needs_the_word() -> None:
    with pytest.raises(InvalidOption, match="insecure=True"):
        plan(["eth0"], (LO, ETH), allowed=False)
    listening = plan(["eth0"], (LO, ETH), allowed=True)
    assert listening.hosts == ("192.0.2.7", "2001:db8::7", "fe80::7%eth0")
    assert not listening.is_loopback


def test_interface_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(InvalidOption, match="here: lo, eth0"):
        plan(["wlan0"], (LO, ETH), allowed=True)


def test_everywhere_is_the_wildcard_and_tells_real_addresses() -> None:
    listening = plan(["*"], (LO, LAN), allowed=True)
    assert (listening.hosts, listening.is_loopback) == (("::",), False)
    assert plan(["*"], (LAN,), allowed=True).hosts == ("0.0.0.0",)  # noqa: S104
    told = listening.endpoints(("tcp://[::]:5000",), (LO, LAN))
    assert told == ("tcp://127.0.0.1:5000", "tcp://[::1]:5000", "tcp://198.51.100.7:5000")


def test_named_interfaces_are_followed_to_their_addresses() -> None:
    moved = Interface("eth0", ("192.0.2.8",))
    assert replan(["eth0"], (LO, moved), allowed=True).hosts == ("192.0.2.8",)
    assert replan(["eth0", "lo"], (LO, moved), allowed=True).hosts == (
        "127.0.0.1", "::1", "192.0.2.8",
    )  # fmt: skip
    assert replan(["192.0.2.7"], (LO, moved), allowed=True).hosts == ()
    assert replan(["eth0"], (LO,), allowed=True) == Listening(())


def test_nobody_is_followed_off_loopback_without_the_word() -> None:
    grown = Interface("lo", ("127.0.0.1", "127.0.0.2", "192.0.2.9"))
    assert replan(["lo"], (grown,), allowed=False).hosts == ("127.0.0.1", "127.0.0.2")


def test_named_addresses_are_told_as_they_were_bound() -> None:
    listening = Listening(("127.0.0.1",))
    assert listening.endpoints(("tcp://127.0.0.1:5000",), (LO,)) == ("tcp://127.0.0.1:5000",)


def test_common_port_is_free_on_all_hosts() -> None:
    hosts = ["127.0.0.1", "127.0.0.2"]
    port = common_port(hosts)
    for host in hosts:
        with socket.socket() as listener:
            listener.bind((host, port))


def test_no_common_port_is_told() -> None:
    with pytest.raises(OSError, match="no port is free on all of"):
        common_port(["127.0.0.1", "127.0.0.1"])
