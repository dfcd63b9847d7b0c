import ifaddr
import pytest

from tests.discovery.waiting import until
from zmesh.actions import Trace
from zmesh.discovery.interfaces import (
    ALL,
    Interface,
    InterfaceMonitor,
    Interfaces,
    endpoints_on,
    list_interfaces,
    mdns_addresses,
    select,
)

LO = Interface("lo", ("127.0.0.1", "::1"))
ETH = Interface("eth0", ("192.0.2.2", "fd00::2", "fe80::2%eth0"))
DOCKER = Interface("docker0", ("172.17.0.1",))
MACHINE = (DOCKER, ETH, LO)


def test_this_machine_has_a_loopback_interface() -> None:
    assert any("127.0.0.1" in interface.addresses for interface in list_interfaces())


def test_an_ipv6_address_that_cannot_be_used_yet_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def adapter(name: str, *addresses: str) -> ifaddr.Adapter:
        ips = [ifaddr.IP((address, 0, 0), 64, name) for address in addresses]
        return ifaddr.Adapter(name, name, ips)

    # Not this machine's, as one that is still being checked for duplicates is not.
    found = [adapter("lo", "::1", "2001:db8::1"), adapter("eth0", "2001:db8::2")]
    monkeypatch.setattr(ifaddr, "get_adapters", lambda: found)
    assert list_interfaces() == (Interface("lo", ("::1",)),)


def test_interfaces_are_chosen_by_name_or_address() -> None:
    assert select(MACHINE, ["eth0"]) == (ETH,)
    assert select(MACHINE, ["192.0.2.2", "fe80::2"]) == (
        Interface("eth0", ("192.0.2.2", "fe80::2%eth0")),
    )
    assert select(MACHINE, ["wlan0"]) == ()


def test_all_interfaces_are_chosen_with_virtual_ones_last() -> None:
    assert select(MACHINE, [ALL]) == (ETH, LO, DOCKER)


def test_a_port_on_interfaces_makes_endpoints() -> None:
    assert endpoints_on((ETH, LO), 5) == (
        "tcp://192.0.2.2:5",
        "tcp://[fd00::2]:5",
        "tcp://[fe80::2%eth0]:5",
        "tcp://127.0.0.1:5",
        "tcp://[::1]:5",
    )


def test_mdns_uses_one_address_of_each_version_and_no_ipv6_on_loopback() -> None:
    assert mdns_addresses((ETH, LO)) == ("192.0.2.2", "fe80::2", "127.0.0.1")
    assert mdns_addresses((Interface("eth1", ("fd00::3",)),)) == ("fd00::3",)


class Machine:
    """Interfaces that change at our word."""

    def __init__(self) -> None:
        self.now: Interfaces | OSError = ()
        self.looks = 0

    def list(self) -> Interfaces:
        self.looks += 1
        if isinstance(self.now, OSError):
            raise self.now
        return self.now

    async def looked_at(self, times: int = 2) -> None:
        enough = self.looks + times
        await until(lambda: self.looks >= enough)


async def test_a_change_is_told_once() -> None:
    machine, told = Machine(), list[Interfaces]()
    monitor = InterfaceMonitor(told.append, lambda _: None, 0.001, machine.list)
    assert await monitor.start() == ()
    await machine.looked_at()
    assert told == []
    machine.now = (LO,)
    await machine.looked_at(5)
    machine.now = (LO, ETH)
    await machine.looked_at(5)
    await monitor.stop()
    assert told == [(LO,), (LO, ETH)]


async def test_a_machine_that_does_not_tell_is_traced_once_and_watched_on() -> None:
    machine, told, traces = Machine(), list[Interfaces](), list[Trace]()
    machine.now = OSError("no netlink")
    monitor = InterfaceMonitor(told.append, traces.append, 0.001, machine.list)
    assert await monitor.start() == ()
    await machine.looked_at(5)
    machine.now = (LO,)
    await machine.looked_at(5)
    await monitor.stop()
    assert [(trace.name, trace.fields) for trace in traces] == [
        ("interfaces_unknown", {"why": "no netlink"})
    ]
    assert told == [(LO,)]


async def test_a_monitor_that_was_not_started_stops() -> None:
    await InterfaceMonitor(lambda _: None, lambda _: None, 1.0, Machine().list).stop()
