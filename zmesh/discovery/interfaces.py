"""The machine's network interfaces, and word of their changes.

No portable call tells of changes, so they are looked at from time to time; in an own thread, for
looking can block for seconds while the system brings an interface up.
"""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from logging import WARNING

import ifaddr

from zmesh.actions import Trace
from zmesh.discovery.blocking import in_thread
from zmesh.discovery.endpoints import Endpoint

ALL = "*"
"""In `interfaces=`: every interface, those included that come later."""

_VIRTUAL = (
    "docker", "br-", "veth", "virbr", "vnet", "vboxnet", "vmnet", "lxc", "lxd", "podman", "cni",
    "cali", "flannel", "kube",
)  # fmt: skip
"""How interfaces begin that mostly lead to containers and virtual machines of this one."""


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface and its addresses; link-local IPv6 ones carry its name, as in fe80::1%eth0."""

    name: str
    addresses: tuple[str, ...]

    @property
    def is_virtual(self) -> bool:
        """Whether it likely leads to containers or virtual machines alone."""
        return self.name.startswith(_VIRTUAL)


Interfaces = tuple[Interface, ...]


def list_interfaces() -> Interfaces:
    """Return the interfaces that have addresses which work, by name. Blocks.

    Raises:
        OSError: the system does not tell.
    """
    found = []
    for adapter in ifaddr.get_adapters():
        addresses = [
            _address(ip.ip, adapter.nice_name)
            for ip in adapter.ips
            if isinstance(ip.ip, str) or _is_ready(*ip.ip)
        ]
        if addresses:
            found.append(Interface(adapter.nice_name, tuple(sorted(addresses))))
    return tuple(sorted(found, key=lambda interface: interface.name))


def _is_ready(address: str, flow: int, scope: int) -> bool:
    """Return whether an IPv6 address can be used.

    For a second or two, and for as long as there is no carrier, it cannot: the system looks
    whether somebody else has it (RFC 4862 section 5.4). Whoever tries is refused, and would not
    try again for an address that seems to have been there all along.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as trial:
            trial.bind((address, 0, flow, scope))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def _address(ip: str | tuple[str, int, int], name: str) -> str:
    if isinstance(ip, str):
        return ip
    address = ip[0].partition("%")[0]
    return f"{address}%{name}" if IPv6Address(address).is_link_local else address


def select(interfaces: Interfaces, wanted: Sequence[str]) -> Interfaces:
    """Return the interfaces that are wanted: by name, by address (then it alone), or `ALL`.

    What is wanted and not there is no error: it may come. Virtual interfaces come last.
    """
    chosen: list[Interface] = []
    for interface in sorted(interfaces, key=lambda each: each.is_virtual):
        addresses = interface.addresses
        if ALL not in wanted and interface.name not in wanted:
            addresses = tuple(each for each in addresses if each.partition("%")[0] in wanted)
        if addresses:
            chosen.append(Interface(interface.name, addresses))
    return tuple(chosen)


def endpoints_on(interfaces: Interfaces, port: int) -> tuple[str, ...]:
    """Return the endpoints of a node that listens on a port of all these interfaces."""
    addresses = [ip_address(each) for interface in interfaces for each in interface.addresses]
    return tuple(str(Endpoint(each, port)) for each in addresses)


def mdns_addresses(interfaces: Interfaces) -> tuple[str, ...]:
    """Return the addresses that make mDNS use these interfaces.

    One of each version is enough. Of IPv6 the link-local one: only what is sent from it lets
    receivers know the interface of a link-local address. None on loopback: see `mdns.LOOPBACK`.
    """
    chosen: list[str] = []
    for interface in interfaces:
        addresses = [ip_address(each) for each in interface.addresses]
        chosen += [str(each) for each in addresses if isinstance(each, IPv4Address)][:1]
        version_6 = [each for each in addresses if each.version == 6 and not each.is_loopback]
        version_6.sort(key=lambda address: not address.is_link_local)
        chosen += [str(each).partition("%")[0] for each in version_6][:1]
    return tuple(chosen)


class InterfaceMonitor:
    """Tells when the interfaces or their addresses change.

    Args:
        on_change: told all interfaces, in the loop.
        on_trace: told when they cannot be listed.
        every: seconds between looks.
        lister: what lists them; called in a thread.
    """

    def __init__(
        self,
        on_change: Callable[[Interfaces], None],
        on_trace: Callable[[Trace], None],
        every: float,
        lister: Callable[[], Interfaces] = list_interfaces,
    ) -> None:
        self._on_change = on_change
        self._on_trace = on_trace
        self._every = every
        self._lister = lister
        self._current: Interfaces = ()
        self._blind = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Interfaces:
        """Return the interfaces as they are, and watch from now on."""
        await self._look()
        self._task = asyncio.create_task(self._watch())
        return self._current

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            if await self._look():
                self._on_change(self._current)

    async def _look(self) -> bool:
        """Look at the interfaces; return whether they changed."""
        before = self._current
        try:
            self._current = await in_thread(self._lister, "zmesh-interfaces")
        except OSError as error:
            if not self._blind:  # told once, and what was known stays
                self._blind = True
                self._on_trace(Trace("interfaces_unknown", WARNING, {"why": str(error)}))
            return False
        self._blind = False
        return self._current != before
